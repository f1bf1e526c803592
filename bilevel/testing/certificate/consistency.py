"""Whether result, history and problem belong together: what is computed again has to agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ...linalg import norm
from ...loop import due
from ...methods import HOAG, MAID, PathFollowing
from ...methods._protocol import optimality
from ...methods.hoag import FixedStep, StepState
from ...outer import RoundedOuter
from ...record import Costs, Record
from ...status import Status
from .._probe import Vector, length
from .model import Clause, Mark
from .run import Run


def _clause(name: str, statement: str, faults: list[str], reason: str, best: Mark) -> Clause:
    """Violated with the first fault, else as good as it gets."""
    figures = {"faults": float(len(faults))}
    mark = Mark.VIOLATED if faults else best
    return Clause(name, statement, mark, faults[0] if faults else reason, figures)


def history(run: Run) -> Clause:
    """The records are those of one run, whole and in order, and the result is one of them."""
    faults = [
        *_order(run),
        *_result(run),
        *(fault for record in run.records for fault in _numbers(record)),
        *_lengths(run),
        *_optimality(run),
    ]
    reason = "numbers, costs, steps and optimality of the records agree with each other"
    statement = "the result is an iterate of this history, which is whole"
    return _clause("history", statement, faults, reason, Mark.BOUNDED)


def _order(run: Run) -> Iterator[str]:
    records, result = run.records, run.result
    numbers = [record.k for record in records]
    if numbers != list(range(1, len(records) + 1)):
        yield f"the records are numbered {_short(numbers)}, not 1 to {len(records)}"
    if result.nit != len(records):
        yield f"nit is {result.nit} but the history has {len(records)} records"
    costs = [*(record.costs for record in records), result.costs]
    for field in fields(Costs):
        spent = [getattr(cost, field.name) for cost in costs]
        if any(not b >= a for a, b in zip(spent, spent[1:], strict=False)) or not spent[0] >= 0:
            yield f"the {field.name} spent do not grow along the history"


def _short(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:4]))
    return shown if len(numbers) <= 4 else f"{shown}, ..."


def _result(run: Run) -> Iterator[str]:
    """λ*, f and p of the result are those of a record."""
    result, end = run.result, run.end
    if end is None:
        yield "λ* is the λ of no record"
        return
    nothing = math.isnan(end.value) and not result.success
    if result.fun != end.value and not (nothing and math.isnan(result.fun)):
        yield f"fun is {result.fun!r} but record {end.k}, of the same λ, has {end.value!r}"
    if not run.same_slope(end):
        yield f"jac is not the hypergradient of record {end.k}, which has the same λ"
    best = result.best
    if best is None:
        yield "the result names no best record"
    elif best.k != end.k or not (best.value == end.value or (nothing and math.isnan(best.value))):
        yield f"best is record {best.k} but the result is record {end.k}"
    else:
        yield from _best(run, best, end)


#: What is the same of the best and of its record: the best knows its errors better, and f.
_SAME = ("tol", "cg_residual", "optimality", "step", "n_inner", "n_cg", "inner_status", "cg_status")


def _best(run: Run, best: Record, end: Record) -> Iterator[str]:
    """Where the best is not its record with smaller errors."""
    for name in ("lam", "hypergrad"):
        there, here = (run.host(getattr(record, name)) for record in (best, end))
        if not np.array_equal(there, here, equal_nan=True):
            yield f"the {name} of the best is not that of record {end.k}"
    for name in _SAME:
        there, here = getattr(best, name), getattr(end, name)
        if there != here and there == there:
            yield f"the best states a {name} of {there!r}, its record {here!r}"
    for name in ("value_error", "hypergrad_error", "inner_error"):
        there, here = getattr(best, name), getattr(end, name)
        if there is not None and here is not None and there > here:
            yield f"{name} of the best is {there:.3g}, and that of its record {here:.3g}"


def _numbers(record: Record) -> Iterator[str]:
    """What is a bound, a tolerance or a length is not negative; what is a number is one."""
    named = {
        name: getattr(record, name)
        for name in ("value_error", "hypergrad_error", "inner_error", "cg_residual", "step")
    }
    for name, value in named.items():
        if value is not None and value < 0:
            yield f"{name} of record {record.k} is {value:.3g}, below zero"
    if not record.tol > 0 and record.tol == record.tol and record.tol < 0:
        yield f"tol of record {record.k} is {record.tol:.3g}, below zero"
    if min(record.n_inner, record.n_cg) < 0:
        yield f"record {record.k} counts a negative number of iterations"
    if record.status is Status.RUNNING and not math.isfinite(record.value):
        yield f"the value of record {record.k} is {record.value!r}, and the run went on"


def _lengths(run: Run) -> Iterator[str]:
    """``step`` is the way from one of the last iterates to the next one."""
    for k, (record, after) in enumerate(zip(run.records, run.lams[1:], strict=False)):
        ways = [length(after - before) for before in run.lams[: k + 1]]
        allowed = run.share * max(*ways, record.step) + 4 * run.eps * (1 + length(after))
        if not any(abs(way - record.step) <= allowed for way in ways):
            yield (
                f"record {record.k} states a step of {record.step:.6g}, "
                f"but λ moved by {ways[-1]:.6g}"
            )


def _optimality(run: Run) -> Iterator[str]:
    """``optimality`` is that of λ_k and p_k."""
    backend, domain = run.problem.backend, run.problem.domain
    for record, lam in zip(run.records, run.lams, strict=True):
        p = run.host(record.hypergrad)
        if not (np.all(np.isfinite(p)) and np.all(np.isfinite(lam))):
            continue
        (found,) = backend.scalars(optimality(domain, backend, record.lam, record.hypergrad))
        # λ - τ p is rounded, and what is left of it divided by τ again: 1/τ = ‖p‖ / (τ ‖p‖).
        size = length(p)
        rounding = 16 * run.eps * (1 + length(lam)) * size / min(max(size, 1e-3), 1.0)
        if not abs(found - record.optimality) <= run.share * max(found, length(p)) + rounding:
            yield (
                f"record {record.k} states an optimality of {record.optimality:.6g}, "
                f"but λ and p give {found:.6g}"
            )


def status(run: Run) -> Clause:
    """The status of the result is what the records say of the end, and of the method's rule."""
    result, last = run.result, run.records[-1]
    faults = [*_of_the_end(result.status, last.status), *_of_the_way(run), *_unsaid(run)]
    if result.success and not math.isfinite(result.fun):
        faults.append(f"converged with a value of {result.fun!r}")
    broken = _broken(run) if result.success else None
    statement = "the status is that of the last record, by the rule of the method"
    if broken is not None and run.tol is not None:
        faults.append(broken)
    doubt = broken or _untold(run)
    best = Mark.PROVED if doubt is None else Mark.ASSUMED
    reason = result.status.value + ("" if doubt is None else f", but {doubt}")
    return _clause("status", statement, faults, reason, best)


def _of_the_way(run: Run) -> Iterator[str]:
    """Records that ended a run which went on."""
    early = [record for record in run.records[:-1] if record.status is not Status.RUNNING]
    if early:
        yield f"record {early[0].k} says {early[0].status.value}, and the run went on"


def _unsaid(run: Run) -> Iterator[str]:
    """What the notes had to say, and don't."""
    result, last = run.result, run.records[-1]
    raised = any("Error" in note for note in result.notes)
    if result.status is Status.NON_FINITE and last.status is Status.RUNNING and not raised:
        yield "the result says non_finite, but all records are finite and no note says why"
    if result.best is not None:
        missing = (note for note in due(run.problem, result.best) if note not in result.notes)
        yield from (f"no note says: {note}" for note in missing)


def _broken(run: Run) -> str | None:
    """What speaks against an end that says converged, by as much of its rule as records show.

    λ has to be as stationary as was asked; of path following, which asks how far f may still fall,
    the model has to be as good as that: its correction is small.
    """
    method, last = run.method, run.records[-1]
    if not isinstance(method, (HOAG, MAID, PathFollowing)):
        return None
    tol = method.default_tol if run.tol is None else run.tol
    if isinstance(method, PathFollowing):
        name, size = "correction of f", _correction(last)
    else:
        error = last.hypergrad_error or 0.0 if isinstance(method, MAID) else 0.0
        name, size = "optimality", last.optimality + error
    allowed = tol * abs(last.value)
    if tol > 0 and size <= allowed * (1 + run.share):  # with a tol of 0 none of them ends
        return None
    return f"its last {name} is {size:.3g}, and tol abs(f) {allowed:.3g}" + (
        ": pass the tol of the run" if run.tol is None else ""
    )


def _correction(record: Record) -> float:
    """By how much its estimate takes the value of a record to be wrong; inf where it can't say."""
    if record.estimate is None or record.estimate_error in (None, math.inf):
        return math.inf
    return abs(record.value - record.estimate)


def _untold(run: Run) -> str | None:
    """What of the end can't be told from the records, so that nothing proves the status."""
    said, last = run.result.status, run.records[-1].status
    if said is not last:
        return "no record says so, nor what the run was allowed"
    if not said.success or isinstance(run.method, (HOAG, MAID)):
        return None
    if run.method is None:
        return "pass method="
    if isinstance(run.method, PathFollowing):
        return "how far f may still fall rests on its curvature there, which no record tells"
    return "by what rule its method ends is not known"


def _of_the_end(said: Status, last: Status) -> Iterator[str]:
    """What is wrong with the status of a result, given that of its last record."""
    if said is Status.RUNNING:
        yield "the result says that the run goes on"
    if said is Status.CONVERGED and last is not Status.CONVERGED:
        yield f"the result says converged, its last record {last.value}"
    weaker = (Status.CONVERGED, Status.STALLED, Status.INTERRUPTED)  # better before; a callback
    if last is Status.CONVERGED and said not in weaker:
        yield f"the result says {said.value}, its last record converged"


def model(run: Run) -> Clause:
    """X is the model of the iterate: h and g at x say what the record says."""
    name, statement = "model", "x is the fit at λ*, with the value and the error that are stated"
    if run.x is None or run.point is None:
        reason = "x is not finite, or not of the problem's shape, dtype and device"
        return Clause(name, statement, Mark.VIOLATED, reason, {})
    backend, problem = run.problem.backend, run.problem
    outer = problem.outer.at(run.x, run.result.lam)
    value, slope, grad = backend.scalars(
        outer.value, norm(outer.grad_x, backend), norm(run.point.grad, backend)
    )
    size = length(run.host(run.x).reshape(-1))
    figures = {"g(x, λ*)": value, "fun": run.result.fun, "‖∂_x h‖": grad}
    failed = math.isnan(run.result.fun) or value == run.result.fun == math.inf
    if failed and not run.result.success:
        reason = "the run has failed, and a value that is not finite claims nothing"
        return Clause(name, statement, Mark.ASSUMED, reason, figures)
    allowed = run.share * (abs(value) + slope * size)
    known = outer.rounding() if isinstance(outer, RoundedOuter) else None
    if known is not None:  # that of the run, and that of our own
        allowed = 2 * backend.scalars(known.value)[0]
    if not abs(value - run.result.fun) <= allowed:
        reason = "g(x, λ*) is not fun: x, fun or the data are another's"
        return Clause(name, statement, Mark.VIOLATED, reason, figures)
    return _near(run, _distance(run, Clause(name, statement, Mark.BOUNDED, "", figures), grad))


def _near(run: Run, clause: Clause) -> Clause:
    """Whether x, or else the value there, is the fit's as near as δ asks.

    A distance as long as X(λ*) itself says nothing of x, however well it is proven.
    """
    if clause.mark not in (Mark.PROVED, Mark.BOUNDED):
        return clause
    end, there = run.tight, run.host(run.tight.inner.x).reshape(-1)
    away, size = length(run.host(run.x).reshape(-1) - there), length(there)
    error = end.error_x if end.proven else 0.0
    figures = {"‖x - X‖": away, "‖X‖": size, "error of X": error}
    clause = replace(clause, figures=clause.figures | figures)
    same_value = abs(run.result.fun - end.fun) <= run.delta * abs(end.fun)
    if away + error <= (size if same_value else run.delta * size):
        return clause
    if (same_value or away <= run.delta * size) and end.inner.status.success:
        reason = f"{clause.reason}; the bound alone is too loose to tell"
        return replace(clause, mark=Mark.BOUNDED, reason=reason)
    reason = f"x is {away:.3g} from a tight fit of length {size:.3g}, further than δ allows"
    certain = end.proven and run.result.success and away - error > run.delta * size
    return replace(clause, mark=Mark.VIOLATED if certain else Mark.ASSUMED, reason=reason)


def _distance(run: Run, clause: Clause, grad: float) -> Clause:
    """Whether x is as near to X(λ*) as its record and the best state.

    A bound that can't be had again is not refuted by that: the run may have had a sharper one.
    """
    records = (record for record in (run.end, run.result.best) if record is not None)
    known = [record.inner_error for record in records if record.inner_error is not None]
    if not known:
        return replace(clause, reason="by g(x, λ*); no distance to X(λ*) is stated")
    stated = min(known)
    figures = clause.figures | {"stated": stated}
    if any(map(math.isnan, known)):
        reason = "the record states NaN for the distance to X(λ*)"
        return replace(clause, mark=Mark.ASSUMED, reason=reason, figures=figures)
    near = run.closest.near
    away = length(run.host(run.x).reshape(-1) - run.host(run.closest.inner.x).reshape(-1))
    certain = max(run.apart, 0.0 if near is None else away - near)
    if certain > stated * (1 + 1e-9):
        reason = f"x is at least {certain:.3g} from X(λ*), {stated:.3g} is stated"
        return replace(clause, mark=Mark.VIOLATED, reason=reason, figures=figures)
    # The sharpest bounds are the distance itself: a hundredth is for what is left of the tight fit.
    if near is not None and away + near <= 1.01 * stated:
        reason = "by g(x, λ*) and the distance to a tight fit, both computed again"
        return replace(clause, mark=Mark.PROVED, reason=reason, figures=figures)
    found = run.distance
    figures |= {} if found is None else {"bound again": found}
    if found is None or not found <= 1.01 * stated:
        reason = "no bound of the distance to X(λ*) computed again is as small as the stated one"
        return replace(clause, mark=Mark.ASSUMED, reason=reason, figures=figures)
    reason = "by g(x, λ*) and a bound of the distance to X(λ*), both computed again"
    return replace(clause, mark=Mark.PROVED, reason=reason, figures=figures)


def steps(run: Run) -> Clause:
    """λ_{k+1} = P_D(λ_k - p_k / L) with the L of the rule, where the method is HOAG."""
    name, statement = "steps", "λ_{k+1} = P_D(λ_k - p_k / L), with the L of the step rule"
    if not isinstance(run.method, HOAG):
        reason = "the method chooses its steps itself" if run.method else "pass method="
        return Clause(name, statement, Mark.ASSUMED, reason, {})
    faults = list(_replayed(run, run.method))
    reason = "computed again from the λ, p and values of the records"
    clause = _clause(name, statement, faults, reason, Mark.PROVED)
    if isinstance(run.method.step_rule, FixedStep):
        clause.figures["L"] = run.method.step_rule.lipschitz
    return clause


def _replayed(run: Run, method: HOAG) -> Iterator[str]:
    """Differences between the iterates and those that the rule leads to."""
    backend, domain = run.problem.backend, run.problem.domain
    rule: StepState | None = None
    anchor: tuple[Any, Any] | None = None
    for i, record in enumerate(run.records):
        size = length(run.host(record.hypergrad))
        if not (math.isfinite(size) and math.isfinite(record.value)):
            return
        if rule is None:
            m = run.lams[i].shape[0]
            state, accepted = method.step_rule.first(record.value, size, m, record.tol), True
        else:
            state, accepted = method.step_rule.next(rule, record.value, record.tol)
        if accepted or anchor is None:
            anchor = record.lam, record.hypergrad
        origin, direction = anchor
        ahead = run.host(domain.project(origin - direction / state.lipschitz, backend))
        moved = length(ahead - run.host(origin))
        yield from _same_step(run, i, ahead, moved, length(run.host(direction)) / state.lipschitz)
        # ‖p‖ is rounded otherwise than in the run: the state goes on with what the run had.
        rule = None if rule is None and size == 0 else replace(state, moved=record.step)


def _same_step(run: Run, i: int, ahead: Vector, moved: float, asked: float) -> Iterator[str]:
    record = run.records[i]
    allowed = run.share * (1 + moved + length(run.lams[i]) + run.eps * asked)
    if i + 1 < len(run.records):
        off = length(ahead - run.lams[i + 1])
        if not off <= allowed:
            yield f"λ_{record.k + 1} is {off:.3g} from where the rule leads"
    elif not abs(moved - record.step) <= allowed:
        yield f"the last step is {record.step:.6g}, the rule asks for {moved:.6g}"
