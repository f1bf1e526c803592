"""Rows that stand for all: the mean over disjoint sets of them is the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...backends import described
from ...inner import Sampled
from .._probe import Vector, length
from .counters import reading
from .differences import share
from .places import Place
from .report import Book

#: So many disjoint sets, of sizes that differ by one.
_SETS = 3


def samples(place: Place, book: Book) -> None:
    """``rows`` and ``n_rows`` of h and of g, where they are offered."""
    problem = place.probe.problem
    for name, whole in (("inner", problem.inner), ("outer", problem.outer)):
        wrong = book.blames(*(f"{name}.{member}" for member in ("value", "grad", "hvp", "cross_")))
        if isinstance(whole, Sampled) and not wrong:
            with book.asking(f"{name}.rows", "rows(index) takes integers on the host"):
                _sampled(place, book, name, whole)


def _sampled(place: Place, book: Book, name: str, whole: Any) -> None:
    count = whole.n_rows
    if not isinstance(count, int) or isinstance(count, bool) or not count > 0:
        message = f"got {described(count)}, expected the number of rows."
        cause = "n_rows is a property" if callable(count) else None
        book.add(f"{name}.n_rows", "", math.inf, message, cause)
        return
    sets = np.array_split(book.rng.permutation(count), min(_SETS, count))
    parts = [whole.rows(index) for index in sets]
    uneven = whole.rows(np.concatenate([sets[0], sets[0], *sets[1:2]]))
    weights = np.array([len(index) / count for index in sets])
    often = np.array([2.0, 1.0])[: len(sets)] * weights[:2]
    for member, metric, ask in _asked(place, name, book.rng):
        values = np.stack([ask(part) for part in parts])
        # Parts may cancel in the mean: each of them is right to a share of its own size.
        sizes = np.array([length(value * metric) for value in values])
        slack = share(place.eps) * float(weights @ sizes) + count * place.smallest
        agrees = book.compare(
            f"{name}.rows ({member})",
            np.asarray(weights @ values),
            ask(whole),
            slack,
            share=share(place.eps),
            metric=metric,
            cause=_cause(len(sets[0]) / count),
            reference="all rows, of which the mean of disjoint sets is taken,",
        )
        if not agrees:
            return
        book.compare(
            f"{name}.rows (a row twice)",
            ask(uneven),
            np.asarray(often @ values[:2] / np.sum(often)),
            slack,
            share=10 * share(place.eps),
            metric=metric,
            reference="rows, each as often as it comes,",
        )
    _share(place, book, name, whole, parts)


def _cause(part: float) -> Callable[[Vector, Vector], str | None]:
    """The sum of the rows in place of a sum that stands for all."""

    def cause(mine: Vector, right: Vector) -> str | None:
        ratio = length(mine) / max(length(right), 1e-300)
        if abs(ratio - part) < 0.05 * part:
            return "the losses of k rows have to be taken n / k times"
        return "what does not depend on rows, as a penalty, is multiplied with them, or left out"

    return cause


Ask = Callable[[Any], Vector]


def _asked(
    place: Place, name: str, rng: np.random.Generator
) -> tuple[tuple[str, Vector | float, Ask], ...]:
    """The members by which parts are held against the whole, at one point."""
    probe, metric, span = place.probe, place.metric, place.span
    x, lam = probe.send(probe.x), probe.send(probe.lam, (probe.m,))
    v = probe.send(place.direction(rng))

    def of(member: Callable[[Any], Any]) -> Ask:
        return lambda whole: probe.host(member(whole.at(x, lam)))

    if name == "outer":
        return (
            ("value", 1.0, of(lambda at: at.value)),
            ("grad_x", metric, of(lambda at: at.grad_x)),
            ("grad_lam", span, of(lambda at: at.grad_lam)),
        )
    return (
        ("value", 1.0, of(lambda at: at.value)),
        ("grad", metric, of(lambda at: at.grad)),
        ("hvp", metric, of(lambda at: at.hvp(v))),
        ("cross_vjp", span, of(lambda at: at.cross_vjp(v))),
    )


def _share(place: Place, book: Book, name: str, whole: Any, parts: list[Any]) -> None:
    """All disjoint parts together cost what the whole does, as it counts."""
    what = f"{name}.rows (passes)"
    book.made(what)
    (_, _, ask) = _asked(place, name, book.rng)[1]

    def cost(asked: list[Any]) -> float:
        before = reading(whole, "passes")
        for part in asked:
            ask(part)
        return reading(whole, "passes") - before

    one, all_parts = cost([whole]), cost(parts)
    if not one > 0 or abs(all_parts - one) <= 0.5 * one:
        return
    message = (
        f"a gradient of {len(parts)} disjoint parts counts {all_parts:.6g} passes, one of all "
        f"rows {one:.6g}: expected as many."
    )
    cause = "count by bilevel.design.SharedPasses(whole, share): products are a share of a pass"
    book.add(what, "", all_parts / one, message, cause)
