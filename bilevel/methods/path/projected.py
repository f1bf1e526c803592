"""The step in several hyperparameters: L-BFGS with projection and an inexact Armijo test.

The direction is that of Liu and Nocedal (1989) on the coordinates that the projection leaves
free (Bertsekas 1982), the gradient's own where that does not descend. A step is taken back only
where the values differ by more than their errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from ...backends import Array, Backend
from ...domains import Domain
from ...linalg import dot, norm, two_loops
from ...problem import Problem
from .._protocol import free
from .estimate import Estimate
from .rules import PROVEN, Verdict
from .settled import Beside


class Taken(Enum):
    """What becomes of a step."""

    ACCEPTED = "accepted"
    TAKEN_BACK = "taken back"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Projected:
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
    memory : int
        How many pairs are kept.
    theta : float
        The error of p, as a share of p, with which a corner of D is taken for an end.
    """

    trust: float
    pairs: tuple[tuple[Array, Array], ...] = ()
    lam: Array | None = None
    hypergrad: Array | None = None
    value: float = 0.0
    value_error: float = 0.0
    error: float = 0.0
    rejected: int = 0
    memory: int = 10
    theta: float = 0.3

    @property
    def torn(self) -> bool:
        """Never: the anchor gives way after three steps that fail."""
        return False

    def observe(self, problem: Problem, lam: Array, seen: Estimate, tol: float) -> Verdict:
        """Take an iterate in; its gap is what the model of the pairs promises."""
        size, error, value = seen.norm, seen.error, (seen.corrected, seen.corrected_error)
        enough, p, backend = tol * abs(seen.value), seen.hypergrad, problem.backend
        rule, taken = took(self, lam, p, *value, error, backend, enough)
        undecided, accepted = taken is Taken.UNDECIDED, taken is Taken.ACCEPTED
        if size + error <= seen.noise:
            return Verdict(rule, 0.0, size)
        if seen.free_norm == 0:  # in a corner, and p points outwards as far as is known
            known = accepted and error <= self.theta * size
            gap = self.cornered(problem, lam, seen) if known else None
            return Verdict(rule, gap, size, undecided)
        target, decrement = rule.proposal(problem)
        # What the last step gained and the next one promises is to be told from the error of f.
        (promised,) = backend.scalars(dot(p, lam - target, backend))
        fallen = promised if self.lam is None else self.value - seen.corrected
        told = max(min(promised, fallen) / 4, enough)
        undecided = undecided or (accepted and seen.corrected_error > told)
        if decrement is None:
            return Verdict(rule, undecided=undecided)
        gap = rule.left(problem, lam, seen, decrement) if accepted else None
        ratio = PROVEN * enough / decrement if decrement > 0 else 0.0
        return Verdict(rule, gap, max(seen.free_norm * (math.sqrt(ratio) - 1), 0.0), undecided)

    def settled(self, seen: Estimate, gap: float, tol: float) -> bool:
        """Where the iterate before agrees: the pairs see the curvature along the last steps alone.

        In a corner of D there is no curvature to see.
        """
        return seen.free_norm == 0 or gap <= 100 * tol

    def beside(self, looks: Sequence[Beside]) -> Projected:
        """As it is: its model is of pairs."""
        return self

    def propose(self, problem: Problem) -> Array:
        """The step of projected L-BFGS, no longer than trusted."""
        return self.proposal(problem)[0]

    def proposal(self, problem: Problem) -> tuple[Array, float | None]:
        """The next λ in D, and the decrease that the model promises (None without a model)."""
        return proposed(self, problem.domain, problem.backend)

    def newton(self, p: Array, backend: Backend) -> Array:
        """H p, H the inverse Hessian that the pairs imply."""
        return _newton(self.pairs, p, backend)

    def cornered(self, problem: Problem, lam: Array, seen: Estimate) -> float:
        """How far f may fall in a corner of D: p has to be wrong by more than it may be."""
        return 0.0

    def fall(self, problem: Problem, lam: Array, p: Array, error: float) -> float:
        """How far f falls by its slope where every λ_j moves by 1, as far as D lets it."""
        return fall(lam, p, error, problem)

    def left(self, problem: Problem, lam: Array, seen: Estimate, decrement: float) -> float:
        """The promised decrease with the error of p; without tangents no less than the fall."""
        gap = decrement * (1 + seen.error / seen.free_norm) ** 2
        if seen.has_tangents:
            return gap
        return max(gap, self.fall(problem, lam, seen.hypergrad, seen.error))

    def stepped(self, moved: float, sweeps: int) -> Projected:
        """As it is: the trust follows from whether steps are taken back."""
        return self


def took(
    state: Projected,
    lam: Array,
    p: Array,
    value: float,
    value_error: float,
    error: float,
    backend: Backend,
    equal: float = 0.0,
) -> tuple[Projected, Taken]:
    """Take in an iterate, or say that it has to be taken back.

    Values that differ by no more than ``equal`` are taken for equal. Where the errors of the values
    are larger than what would tell them apart the answer is UNDECIDED, and the state that of an
    accepted step only where f has fallen as far as can be told.
    """
    fresh = replace(
        state,
        lam=lam,
        hypergrad=p,
        value=value,
        value_error=value_error,
        error=error,
        rejected=0,
    )
    if state.lam is None or state.hypergrad is None:
        return fresh, Taken.ACCEPTED
    s, y = lam - state.lam, p - state.hypergrad
    predicted, length, sy, ss, yy = backend.scalars(
        dot(state.hypergrad, s, backend),
        backend.xp.max(backend.xp.abs(s)),
        dot(s, y, backend),
        dot(s, s, backend),
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
    if sy > _COSINE * math.sqrt(ss * yy) and error + state.error < 4 * yy**0.5:
        fresh = replace(fresh, pairs=(*state.pairs, (s, y))[-state.memory :])
    grows = taken is Taken.TAKEN_BACK
    return replace(fresh, trust=min(2 * state.trust, 4.0)), Taken.ACCEPTED if grows else taken


#: The cosine of Δλ and Δp below which rounding may have given f the curvature that they show.
_COSINE = 1e-6


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


def proposed(state: Projected, domain: Domain, backend: Backend) -> tuple[Array, float | None]:
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
