"""Finished runs that were tampered with, and which clauses have to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bilevel.record import Costs, Record, Result
from bilevel.status import Status

Change = Callable[[Result], Result]
NAN = float("nan")


@dataclass(frozen=True)
class Tampering:
    """A change, the clauses of which one has to be violated, and those that must not be proved.

    ``hidden`` are those that single precision may not refute, but must not prove.
    """

    change: Change
    violated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


def with_history(result: Result, history: tuple[Record, ...]) -> Result:
    """Another history, and that record of it which has the λ of the result."""
    same = [record for record in history if bool((record.lam == result.lam).all())]
    return replace(result, history=history, best=same[-1] if same else None)


def numbered(result: Result, records: Iterable[Record]) -> Result:
    """Records in a new order, numbered again, as many as nit says."""
    history = tuple(replace(record, k=k) for k, record in enumerate(records, 1))
    return with_history(replace(result, nit=len(history)), history)


def one(result: Result, index: int, **changed: Any) -> Result:
    """A record changed."""
    history = list(result.history)
    history[index] = replace(history[index], **changed)
    return replace(result, history=tuple(history))


def each(change: Callable[[Record], Record]) -> Change:
    return lambda result: with_history(result, tuple(map(change, result.history)))


def swapped(result: Result) -> Result:
    history = list(result.history)
    history[1], history[2] = history[2], history[1]
    return numbered(result, history)


def other_record(result: Result) -> Result:
    """λ, f and p of the first record, and the model of the last."""
    first = result.history[0]
    return replace(result, lam=first.lam, fun=first.value, jac=first.hypergrad, best=first)


def moved(distance: float) -> Change:
    return lambda result: replace(result, lam=result.lam + distance)


def scaled(factor: float) -> Change:
    return lambda result: replace(result, x=result.x * factor)


HISTORY = ("history",)
MODEL = ("model", "value", "inner solutions")

#: Of runs of HOAG with proven bounds.
TAMPERINGS: dict[str, Tampering] = {
    "x zero": Tampering(scaled(0.0), MODEL),
    "x a little longer": Tampering(scaled(1.001), MODEL),
    "x NaN": Tampering(scaled(NAN), MODEL),
    "x turned round": Tampering(scaled(-1.0), MODEL),
    "x of another shape": Tampering(lambda r: replace(r, x=r.x[:-1]), MODEL),
    "λ moved": Tampering(moved(0.01), HISTORY),
    "λ moved far": Tampering(moved(1.0), HISTORY),
    "f larger by 0.5%": Tampering(lambda r: replace(r, fun=1.005 * r.fun), HISTORY),
    "f smaller by a millionth": Tampering(lambda r: replace(r, fun=r.fun * (1 - 1e-6)), HISTORY),
    "f NaN": Tampering(lambda r: replace(r, fun=NAN), HISTORY),
    "p negated": Tampering(lambda r: replace(r, jac=-r.jac), HISTORY),
    "p zero": Tampering(lambda r: replace(r, jac=0 * r.jac), HISTORY),
    "p missing": Tampering(lambda r: replace(r, jac=None), HISTORY),
    "nit": Tampering(lambda r: replace(r, nit=1), HISTORY),
    "another record's λ, f and p": Tampering(other_record, MODEL),
    "no best": Tampering(lambda r: replace(r, best=None), HISTORY),
    "another best": Tampering(lambda r: replace(r, best=r.history[0]), HISTORY),
    "costs": Tampering(lambda r: replace(r, costs=Costs()), HISTORY),
    "costs of a record": Tampering(lambda r: one(r, 0, costs=Costs(10**9)), HISTORY),
    "cut off": Tampering(lambda r: replace(r, history=r.history[:2]), HISTORY),
    "the last alone": Tampering(lambda r: replace(r, history=r.history[-1:]), HISTORY),
    "reversed": Tampering(lambda r: replace(r, history=r.history[::-1]), HISTORY),
    "reversed, numbered again": Tampering(lambda r: numbered(r, r.history[::-1]), HISTORY),
    "two records swapped": Tampering(swapped, HISTORY),
    "a record left out": Tampering(
        lambda r: numbered(r, (*r.history[:1], *r.history[2:])), ("history", "steps", "summable")
    ),
    "a record twice": Tampering(
        lambda r: numbered(r, (r.history[0], *r.history)), ("history", "steps", "summable")
    ),
    "the λ of one record": Tampering(
        lambda r: one(r, 2, lam=r.history[2].lam + 1e-3), ("history", "steps", "hypergradients")
    ),
    "a step twice as long": Tampering(lambda r: one(r, 1, step=2 * r.history[1].step), HISTORY),
    "an optimality of 0": Tampering(lambda r: one(r, 0, optimality=0.0), HISTORY),
    "one p negated": Tampering(
        lambda r: one(r, 0, hypergrad=-r.history[0].hypergrad), ("steps", "hypergradients")
    ),
    "every p tenfold": Tampering(
        each(lambda q: replace(q, hypergrad=10 * q.hypergrad)), ("history", "hypergradients")
    ),
    "values shifted": Tampering(
        each(lambda q: replace(q, value=q.value + 0.01, value_error=0.0)),
        ("history", "hypergradients"),
    ),
    "a negative error": Tampering(each(lambda q: replace(q, inner_error=-1.0)), HISTORY),
    "no error of x": Tampering(
        each(lambda q: replace(q, inner_error=0.0)), MODEL, ("inner solutions",), ("model",)
    ),
    "no error of p": Tampering(
        each(lambda q: replace(q, hypergrad_error=0.0)),
        ("hypergradients",),
        hidden=("hypergradients",),
    ),
    "tolerances of 10⁹": Tampering(each(lambda q: replace(q, tol=1e9)), ("summable",)),
    "tolerances halved": Tampering(
        each(lambda q: replace(q, tol=q.tol / 2)), ("summable", "steps")
    ),
    "tolerances NaN": Tampering(
        each(lambda q: replace(q, tol=NAN)), ("summable",), ("inner solutions",)
    ),
    "said to go on": Tampering(lambda r: replace(r, status=Status.RUNNING), ("status",)),
    "said to be not finite": Tampering(lambda r: replace(r, status=Status.NON_FINITE), ("status",)),
    "ended before its end": Tampering(lambda r: one(r, 0, status=Status.CONVERGED), ("status",)),
    "a best without errors": Tampering(
        lambda r: replace(
            r, best=replace(r.best, value_error=0.0, hypergrad_error=0.0, inner_error=0.0)
        ),
        ("errors", "hypergradients"),
        hidden=("hypergradients",),
    ),
    "a best of another tolerance": Tampering(
        lambda r: replace(r, best=replace(r.best, tol=2 * r.best.tol)), HISTORY
    ),
    "one value without an error": Tampering(
        lambda r: one(r, 1, value_error=0.0), ("errors", "hypergradients")
    ),
    "an estimate far from the value": Tampering(
        lambda r: one(r, 1, estimate=0.0, estimate_error=0.0), ("errors",)
    ),
    "errors of p NaN": Tampering(
        each(lambda q: replace(q, hypergrad_error=NAN)), unknown=("hypergradients",)
    ),
    "errors of p infinite": Tampering(
        each(lambda q: replace(q, hypergrad_error=np.inf)), unknown=("hypergradients",)
    ),
    "errors of p withdrawn": Tampering(
        each(lambda q: replace(q, hypergrad_error=None)), unknown=("hypergradients",)
    ),
    "errors of x NaN": Tampering(
        each(lambda q: replace(q, inner_error=NAN)), unknown=("inner solutions", "model")
    ),
    "errors of x withdrawn": Tampering(
        each(lambda q: replace(q, inner_error=None)), unknown=("inner solutions",)
    ),
    "residuals NaN": Tampering(
        each(lambda q: replace(q, cg_residual=NAN)), unknown=("adjoint solutions",)
    ),
    "values of all records NaN": Tampering(each(lambda q: replace(q, value=NAN)), HISTORY),
}


def missed(tampering: Tampering, certificate: Any, *, narrow: bool = False) -> str | None:
    """What of a tampering a certificate does not see, None where it sees all.

    ``narrow`` is single precision.
    """
    marks = {clause.name: clause.mark.name for clause in certificate.clauses}
    violated = {name for name, mark in marks.items() if mark == "VIOLATED"}
    if narrow and tampering.hidden:
        proved = [n for n in tampering.hidden if marks[n] == "PROVED"]
        return f"{proved} proved" if proved else None
    if tampering.violated and not violated & set(tampering.violated):
        return f"none of {tampering.violated} is violated, only {violated}"
    if tampering.violated and certificate.ok:
        return "ok"
    proved = [n for n in tampering.unknown if marks[n] == "PROVED" or marks[n] == "BOUNDED"]
    if proved:
        return f"{proved} proved"
    if not tampering.violated and violated:
        return f"what is unknown is called violated: {violated}"
    return None
