"""Bounds for the iterate that a run returns, as sharp as one more correction makes them.

HOAG and MAID know x by its gradient and q by its residual. Both are in error by up to 1/μ times
as much, and the bounds of g and p that follow lie above the truth by about the condition number.
What lies between x and X(λ), and between p and ∇f, shows once a block of conjugate gradients has
corrected x, q and the tangents, as path following does it: with x⁺, p⁺ after the corrections

    ‖p - ∇f‖ ≤ ‖p - p⁺‖ + ‖p⁺ - ∇f‖,

where the first is computed, and the second the proof of :mod:`.certified`, of second order in what
is left. The value and x are bounded alike.
"""

from __future__ import annotations

from dataclasses import replace

from ...backends import Array
from ...hypergrad import Bounds, Whitened
from ...inner import InnerPoint
from ...linalg import CGResult, cg, dot
from ...linalg.rounding import known, upper_norm
from ...problem import Problem
from ...record import Record
from ...status import REFUTING
from .._protocol import estimated, lost
from .certified import Wanted, provable_at, prove, proven
from .kept import accuracy, preconditioner
from .looks import Look, Solved, look_at, turned, walk

#: Corrections at most, what they ask for first, and passes as a share of those of the run.
_CORRECTIONS, _FIRST, _SHARE = 3, Wanted(0.1, 0.1), 0.1

#: Coefficients up to which H is formed once a run has ended: for so many columns two passes cost
#: about what a few iterations of HOAG do.
_FORMED = 100

#: Hyperparameters up to which each has a tangent here.
_TANGENTS = 16


def sharpened(problem: Problem, record: Record, x: Array) -> Record:
    """The same record; its bounds are the smaller of those that it has and those made here.

    Up to a few coefficients H is formed, beyond that a block is solved with it.
    """
    point = problem.inner.at(x, record.lam)
    stated = Bounds(record.inner_error, record.value_error, record.hypergrad_error)
    found = _by_newton(problem, point, record)
    best = stated.and_of(_by_blocks(problem, point, record) if found is None else found)
    if best.value is None:
        record = _fitted(problem, point, record)
    return replace(
        record,
        inner_error=best.distance,
        value_error=best.value,
        hypergrad_error=best.hypergrad,
    )


def _by_newton(problem: Problem, point: InnerPoint, record: Record) -> Bounds | None:
    """Correct x with H as a matrix, formed anew at each; None where that is not to be had."""
    backend, x, best = problem.backend, point.x, None
    for _ in range(_CORRECTIONS):
        outer = problem.outer.at(point.x, record.lam)
        here = Whitened.at(problem, point, outer, _FORMED)
        left = None if here is None else here.bounds(record.hypergrad)
        if here is None or left is None:
            break  # or so far away that a full step may lead anywhere
        away, value = backend.scalars(upper_norm(point.x - x, backend), outer.value)
        there = _farther(left, (away, abs(value - record.value), 0.0))
        best = there if best is None else best.and_of(there)
        if left.distance is not None and left.distance <= 0.1 * away:
            break
        point = problem.inner.at(point.x + here.newton(), record.lam)
    return best


def _by_blocks(problem: Problem, point: InnerPoint, record: Record) -> Bounds:
    """Correct x, q and the tangents until less is left to prove than the corrections have shown."""
    backend, xp = problem.backend, problem.backend.xp
    x, m = point.x, problem.inner.n_hyperparameters
    best, wanted, steps = Bounds(), _FIRST, max(int(_SHARE * record.costs.work / 2), 1)
    if m > _TANGENTS:
        return best
    start = xp.zeros((*x.shape, 1 + m), dtype=x.dtype, device=backend.device)
    look, rhs = look_at(problem, point, start, None)
    for _ in range(_CORRECTIONS):
        found = _solve(problem, look, rhs, wanted, steps) if provable_at(problem, look) else None
        if found is None or found.energy_errors is None:
            break
        steps -= found.n_iter
        turn = turned(problem, look, found)
        walked = walk(problem, look, turn)
        solved = Solved.of(problem, look, found, turn, walked)
        look, rhs = look_at(problem, walked.point, turn.vectors, turn.pushed)
        attempt = prove(problem, solved, look, rhs)
        proof = attempt.proof
        left = proven(problem, look, proof)
        away = backend.scalars(
            upper_norm(look.point.x - x, backend),
            xp.abs(look.outer.value - record.value),
            upper_norm(look.p - record.hypergrad, backend),
        )
        best = best.and_of(_farther(left, away))
        if attempt.lost:
            break
        if proof is None:
            continue
        if steps <= 0 or (left.hypergrad is not None and left.hypergrad <= away[2]):
            break
        wanted = proof.needs(away[2]) or wanted
    return best


def _fitted(problem: Problem, point: InnerPoint, record: Record) -> Record:
    """The same with f as a few corrections show it, where nothing is proven of it.

    The error of its own estimate is what that holds of a model near X(λ). By how far the
    corrections take it elsewhere, it was not.
    """
    backend, x, m = problem.backend, point.x, problem.inner.n_hyperparameters
    steps = max(int(_SHARE * record.costs.work / 2), 1)
    if m > _TANGENTS or record.estimate is None:
        return record
    start = backend.xp.zeros((*x.shape, 1 + m), dtype=x.dtype, device=backend.device)
    look, rhs = look_at(problem, point, start, None)
    for _ in range(_CORRECTIONS):
        found = _solve(problem, look, rhs, _FIRST, steps)
        if found is None:
            break
        steps -= found.n_iter
        turn = turned(problem, look, found)
        ahead = walk(problem, look, turn).point
        look, rhs = look_at(problem, ahead, turn.vectors, turn.pushed)
        q = look.vectors[..., 0]
        value, correction, rounding = backend.scalars(
            look.outer.value,
            dot(q, look.grad, backend),
            lost(problem, look.point, look.outer, q),
        )
        likely, error = estimated(problem, value, correction)
        error = known(error + rounding + abs(likely - record.likely))
        record = replace(record, estimate=likely, estimate_error=error)
    return record


def _farther(left: Bounds, away: tuple[float, ...]) -> Bounds:
    """The bounds at a point that is so far from where they are known."""
    sums = (
        None if bound is None else known(bound + 1.0001 * apart)  # differences are rounded
        for bound, apart in zip((left.distance, left.value, left.hypergrad), away, strict=True)
    )
    return Bounds(*sums)


def _solve(problem: Problem, look: Look, rhs: Array, wanted: Wanted, steps: int) -> CGResult | None:
    """The three questions in one block; None where its errors would not be proven."""
    apply, bottom, _ = preconditioner(problem, look, None)
    if bottom is None or steps <= 0:
        return None
    found = cg(
        look.point.hvp,
        rhs,
        tol=accuracy(look, wanted, bottom),
        preconditioner=apply,
        columns=True,
        verify=False,
        max_iter=steps,
    )
    return None if found.status in REFUTING else found
