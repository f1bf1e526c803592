"""The end of a run: whether little is left, as far as is known, proven and seen."""

from __future__ import annotations

import math
from dataclasses import replace

from ...backends import Array
from ...hypergrad import whitened_bounds
from ...problem import Problem
from ...status import Status
from .._protocol import bends_down, coordinatewise, free, free_part
from ..correction import Wanted, contradicted
from .aside import along_axis, within
from .estimate import Estimate
from .settled import Beside, Left, along, beside, confirmed, decrease_left, left_within, let_go
from .state import PathState, Work

#: Ends of a solve that say its errors are not known, so that no run converges by them.
_BLIND = (Status.NEGATIVE_CURVATURE, Status.STALLED)

#: How much further a solve goes that is to confirm the estimates of an end.
_FURTHER = 0.01

#: How much nearer than usual a look is of use before rounding hides what it would show.
_NEAREST = 3e-5


def small(problem: Problem, state: PathState, work: Work) -> bool:
    """Whether the decrease that is left is within the tolerance, as far as the rule knows."""
    seen, gap = work.estimate, work.verdict.gap
    enough = state.tol * abs(seen.value)
    if state.tol == 0 or gap is None or gap > enough or seen.lost(state.tol):
        return False
    # The model that is returned has to be as good as its λ: what the last correction of x
    # would do to g, to first order, is small too; beyond the validity of that nothing is known.
    if not (abs(seen.value - seen.corrected) <= enough and seen.corrected_error < math.inf):
        return False
    # Neither p nor the correction says anything of the model where g is flat: there it has to
    # be a minimum of h by itself, and so near that f is known too, as far as rounding lets it.
    if work.blank:
        close = 1e-3 * state.tol if seen.corrected_error <= enough else _eps(problem)
        if seen.decrement > close * seen.inner_value:
            return False
    return state.rule.settled(seen, state.gap, state.tol)


def _eps(problem: Problem) -> float:
    return float(problem.backend.xp.finfo(problem.dtype).eps)


def ended(problem: Problem, tol: float, work: Work) -> Wanted | None:
    """Prove that little is left, where it can be proven, and look whether it is so.

    The answer is what the next correction is to do for that; None where there is no more to do,
    the verdict and the status being what they are.
    """
    again = _for_the_proof(problem, work)
    if again is not None:
        return again
    (left, looks), enough = _left(problem, work), tol * abs(work.estimate.value)
    unknown = left.least <= enough < left.most
    nearer = work.near > _NEAREST and not work.last
    if unknown and nearer and (left.seen <= enough or work.near < 1):
        # The looks cannot tell a flat valley from an end: more precise q and t will.
        work.near *= 0.1
        return replace(work.wanted, adjoint=0.1 * work.wanted.adjoint)
    rule = work.verdict.rule
    work.verdict = replace(work.verdict, rule=rule.beside(looks) if looks else rule, gap=left.most)
    if unknown and left.seen <= enough and work.near <= _NEAREST:
        work.status = Status.STALLED
    elif left.most <= enough:
        if work.guessed and not work.checked and not work.last:
            # On a plateau of CG the last steps tell nothing of the error: those beyond it would.
            work.checked = True
            return replace(work.wanted, adjoint=_FURTHER * work.wanted.adjoint, guarded=True)
        work.status = _status(problem, work)
    return None


def _for_the_proof(problem: Problem, work: Work) -> Wanted | None:
    """What another correction needs for the proof that p is small; None where it won't help."""
    look, allowed = work.look, work.verdict.allowed
    if work.certify and not work.proves(allowed):
        few = whitened_bounds(problem, look.point, look.outer, look.p)
        work.bounds = work.bounds.and_of(few)
    if not work.provable or work.proves(allowed) or work.last:
        return None
    work.rounded = False
    if work.proof is None and work.sketch is not None:
        work.sketch = work.sketch.proven(look, problem.backend)
    return work.goal or Wanted(0.1, 0.5 * work.wanted.adjoint)


def _status(problem: Problem, work: Work) -> Status:
    """What an iterate is with so little left: CONVERGED, or what speaks against it."""
    seen = work.estimate
    if seen.rounded:
        return Status.STALLED
    if seen.cg_status in _BLIND:
        return seen.cg_status
    if work.guessed and seen.cg_status is Status.MAX_ITER:
        return Status.STALLED  # of a solve that was broken off the last steps tell too little
    # Directions that a preconditioner from outside hides are seen by no solve with it.
    wrong = contradicted(problem, work.look) if work.look.claimed else None
    if wrong is not None:
        return wrong
    down = bends_down(problem, work.look.point)
    return Status.NEGATIVE_CURVATURE if down else Status.CONVERGED


def _left(problem: Problem, work: Work) -> tuple[Left, list[Beside]]:
    """What is left to gain by the curvature at the iterate, and the looks that have shown it.

    Without tangents, and where D leaves no room to look, it is what the rule said, and no look.
    Without them f may also be flat because coefficients are held at zero.
    """
    seen, gap, look = work.estimate, work.verdict.gap, work.look
    assert gap is not None
    if not look.has_tangents:
        return let_go(problem, look, seen.error, gap), []
    said = Left(gap, gap, gap)
    boxed = coordinatewise(problem.domain, int(look.p.shape[0]))
    p, looks = (_boxed if boxed else _within)(problem, work, gap)
    if not looks:
        return said, []  # in a corner of a box, or where D is a point
    if seen.flat and all(_level(b, seen) for b in looks):
        return Left(0.0, 0.0, 0.0), []  # beside it too: f does not depend on λ here
    if boxed:  # nor on a hyperparameter whose p is 0, there and beside it
        looks = [b for b in looks if along(p, b.way) != 0 or not _level(b, seen)]
        if not looks:
            return said, []
    known = looks
    if [b.way for b in work.looks] == [b.way for b in looks]:
        known = [confirmed(now, was) for now, was in zip(looks, work.looks, strict=True)]
    work.looks = looks
    if not boxed:
        return left_within(problem, look.point.lam, look.p, seen.error, known), looks
    return decrease_left(problem, look.point.lam, p, seen.error, known), looks


def _level(look: Beside, seen: Estimate) -> bool:
    """Whether p is the same there, but for noise."""
    return all(abs(c) <= 4 * seen.noise for c in look.change)


def _boxed(problem: Problem, work: Work, gap: float) -> tuple[tuple[float, ...], list[Beside]]:
    """p, and a look beside the iterate for each axis that D does not hold against it.

    One whose p is 0 is held by nothing, and f may have a maximum along it. Where p says nothing
    they are all looked at.
    """
    look, seen, backend = work.look, work.estimate, problem.backend
    m = int(look.p.shape[0])
    inside = free(look.point.lam, look.p, problem.domain, backend)
    host = backend.scalars(look.p, inside)
    p, least, looks = host[:m], _least(problem, look.point.lam), []
    for j in range(m):
        held = p[j] != 0 and host[m + j] == 0
        if held and not seen.flat:
            continue
        step = math.copysign(max(work.near * _probe(seen, gap, p[j]), least), -p[j])
        move = along_axis(problem, look.point.lam, j, step, least)
        if move is not None:
            looks.append(beside(problem, look, work.rhs, seen.errors, move))
    return p, looks


def _within(problem: Problem, work: Work, gap: float) -> tuple[tuple[float, ...], list[Beside]]:
    """What D leaves of p where it is no box, and a look for each way that it has."""
    look, seen, backend = work.look, work.estimate, problem.backend
    p = backend.scalars(free_part(look.point.lam, look.p, problem.domain, backend))
    least = _least(problem, look.point.lam)
    steps = [math.copysign(max(work.near * _probe(seen, gap, p_j), least), -p_j) for p_j in p]
    moves = within(problem, look.point.lam, steps, least)
    return p, [beside(problem, look, work.rhs, seen.errors, move) for move in moves]


def _least(problem: Problem, lam: Array) -> float:
    """The shortest look that rounding leaves of use."""
    eps, backend = _eps(problem), problem.backend
    (largest,) = backend.scalars(backend.xp.max(backend.xp.abs(lam)))
    return max(math.pow(eps, 0.4), 100 * eps * largest)


def _probe(estimate: Estimate, gap: float, p: float) -> float:
    """How far beside λ to look: twice the Newton step, and so far that p changes by its error.

    The curvature is the one by which the decrease ``gap`` is left.
    """
    size = estimate.free_norm + estimate.error
    if not gap > 0 or not size > 0:
        return 0.05
    return min(max(4 * gap * (abs(p) + 4 * estimate.error) / size**2, 1e-3), 0.5)
