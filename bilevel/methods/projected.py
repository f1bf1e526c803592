"""The step in several hyperparameters: L-BFGS with projection and an inexact Armijo test.

The direction is that of Liu and Nocedal (1989) on the coordinates that the projection leaves
free (Bertsekas 1982), the gradient's own where that does not descend. A step is taken back only
where the values differ by more than their errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..backends import Array, Backend
from ..domains import Domain
from ..linalg import dot, norm, two_loops
from ..problem import Problem


class Taken(Enum):
    """What becomes of a step."""

    ACCEPTED = "accepted"
    TAKEN_BACK = "taken back"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class ProjectedState:
    """What the rule remembers.

    Attributes
    ----------
    trust : float
        The longest step, in the largest coordinate.
    pairs : tuple of (array, array)
        (Δλ, Δp), the oldest first.
    lam, hypergrad : array or None
        The last accepted iterate.
    value, value_error : float
        f there, and its error.
    error : float
        Of ``hypergrad``.
    rejected : int
        Steps taken back since.
    """

    trust: float
    pairs: tuple[tuple[Array, Array], ...] = ()
    lam: Array | None = None
    hypergrad: Array | None = None
    value: float = 0.0
    value_error: float = 0.0
    error: float = 0.0
    rejected: int = 0


def observe(
    state: ProjectedState,
    lam: Array,
    p: Array,
    value: float,
    value_error: float,
    error: float,
    backend: Backend,
    memory: int,
    equal: float = 0.0,
) -> tuple[ProjectedState, Taken]:
    """Take in an iterate, or say that it has to be taken back.

    Values that differ by no more than ``equal`` are taken for equal. Where the errors of the values
    are larger than what would tell them apart the answer is UNDECIDED, and the state that of an
    accepted step only where f has fallen as far as can be told.
    """
    fresh = ProjectedState(state.trust, state.pairs, lam, p, value, value_error, error)
    if state.lam is None or state.hypergrad is None:
        return fresh, Taken.ACCEPTED
    s, y = lam - state.lam, p - state.hypergrad
    predicted, length, sy, yy = backend.scalars(
        dot(state.hypergrad, s, backend),
        backend.xp.max(backend.xp.abs(s)),
        dot(s, y, backend),
        dot(y, y, backend),
    )
    if length == 0:  # the same λ, more precisely
        again = replace(state, hypergrad=p, value=value, value_error=value_error, error=error)
        return again, Taken.ACCEPTED
    grown = value - (state.value + 1e-4 * predicted)
    slack = value_error + state.value_error
    taken = _decide(grown, slack, max(equal, -1e-4 * predicted))
    if taken is Taken.UNDECIDED and value_error <= 0.1 * state.value_error:
        # It is f at the iterate before that is not known: nothing here will tell.
        return replace(fresh, trust=state.trust), Taken.ACCEPTED
    # After three shorter steps that also failed it is the value of the anchor that was wrong.
    if (taken is Taken.TAKEN_BACK or grown > equal) and state.rejected < 3:
        shorter = replace(state, trust=length / 4, rejected=state.rejected + 1)
        return shorter, taken
    # A difference of p that is all error says nothing of the curvature. The errors of neighbours
    # mostly cancel in it: with a factor of 1 short steps taught nothing, and stayed short.
    if sy > 1e-8 * yy and sy > 0 and error + state.error < 4 * yy**0.5:
        fresh = replace(fresh, pairs=(*state.pairs, (s, y))[-memory:])
    grows = taken is Taken.TAKEN_BACK
    return replace(fresh, trust=min(2 * state.trust, 4.0)), Taken.ACCEPTED if grows else taken


def _decide(grown: float, slack: float, equal: float) -> Taken:
    if grown > slack + equal:
        return Taken.TAKEN_BACK
    return Taken.ACCEPTED if grown + slack <= 0 or slack <= equal else Taken.UNDECIDED


def fall(lam: Array, p: Array, error: float, problem: Problem) -> float:
    """How far f falls by its slope where every λ_j moves by 1, a factor e, as far as D lets it.

    The pairs know the curvature along the last steps alone. Along others f may go on falling as p
    says: on a plateau a little of p in each of many coordinates is all there is to see.
    """
    backend, xp = problem.backend, problem.backend.xp
    moved = lam - problem.domain.project(lam - xp.sign(p), backend)
    slope, length = backend.scalars(dot(p, moved, backend), norm(moved, backend))
    return slope + error * length


def free(lam: Array, p: Array, domain: Domain, backend: Backend) -> Array:
    """1 for the coordinates that a small step along -p changes, 0 for those that D holds."""
    xp = backend.xp
    (largest,) = backend.scalars(xp.max(xp.abs(p)))
    if largest == 0:
        return xp.zeros_like(p)
    probe = domain.project(lam - p * (1e-3 / largest), backend) - lam
    return xp.where(probe == 0, xp.zeros_like(p), xp.ones_like(p))


def propose(state: ProjectedState, domain: Domain, backend: Backend) -> tuple[Array, float | None]:
    """The next λ in D, and the decrease that the model promises (None without a model)."""
    xp = backend.xp
    lam, p = state.lam, state.hypergrad
    assert lam is not None and p is not None
    inside = free(lam, p, domain, backend)
    d = -_newton(state.pairs, p * inside, backend) * inside
    length, largest = backend.scalars(xp.max(xp.abs(d)), xp.max(xp.abs(p * inside)))
    if largest == 0:
        return lam, 0.0
    decrement = None
    if state.pairs and length < float("inf"):
        (decrement,) = backend.scalars(-dot(p, d, backend) / 2)
        d = d * min(1.0, state.trust / length)
    else:
        # Nothing is known of the curvature: a plateau has a small p and asks for no small step.
        d = -p * inside * (state.trust / largest)
    target = domain.project(lam + d, backend)
    (slope,) = backend.scalars(dot(p, target - lam, backend))
    if not slope < 0:  # the projection bent the direction upwards: its own gradient step descends
        target = domain.project(lam - p * (state.trust / largest), backend)
    return target, decrement


def _newton(pairs: tuple[tuple[Array, Array], ...], p: Array, backend: Backend) -> Array:
    """H p, H the inverse Hessian that the pairs imply."""
    if not pairs:
        return p
    products = [dot(s, y, backend) for s, y in pairs]
    newest = pairs[-1][1]
    gamma = products[-1] / dot(newest, newest, backend)
    whole = [(s, y, 1 / sy) for (s, y), sy in zip(pairs, products, strict=True)]
    return two_loops(whole, gamma, p, backend)
