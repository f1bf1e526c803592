"""The step in one hyperparameter: a safeguarded secant on the hypergradient.

A minimum is where f' goes from negative to positive. Signs that are certain (larger than the
error of p) bracket it. The secant of the last two iterates proposes the step, bent by the secant
before it: λ is a logarithm, along which f' flattens towards its zero, and a straight line through
two points on one side falls short each time. The step is kept inside the bracket and no longer
than the predictor of x can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...backends import Array
from ...problem import Problem
from .estimate import Estimate
from .rules import PROVEN, Verdict
from .settled import Beside


@dataclass(frozen=True)
class Secant:
    """What the rule remembers.

    Attributes
    ----------
    trust : float
        The longest step.
    below, above : float or None
        The largest λ where f' < 0 is certain, the smallest where f' > 0 is.
    lam, slope : float or None
        The last iterate and its p.
    error : float
        Of that p.
    value, value_error : float
        f at the last iterate, and its error.
    curvature : float or None
        The estimate of f'' at the last iterate, where it is positive.
    bend : float
        Half the estimate of its derivative, 0 without a secant before.
    slope, middle : float or None
        Of the last secant, and the middle of its interval, where it is f'' best.
    backs : int
        How many iterates in a row contradicted the last one, which stayed.
    looks : int
        How many further looks at it have confirmed its f.
    """

    trust: float
    below: float | None = None
    above: float | None = None
    lam: float | None = None
    hypergrad: float | None = None
    error: float = 0.0
    value: float = math.inf
    value_error: float = 0.0
    curvature: float | None = None
    bend: float = 0.0
    slope: float | None = None
    middle: float | None = None
    backs: int = 0
    looks: int = 0

    @property
    def torn(self) -> bool:
        """Whether all that is seen beside an iterate contradicts it, however often it is looked at.

        No λ that is proposed from there leads anywhere.
        """
        return self.looks >= _TORN

    @property
    def doubted(self) -> bool:
        """Whether it is time to look again at the iterate that so many others contradict."""
        return self.backs >= _DOUBTED

    def observe(self, problem: Problem, lam: Array, seen: Estimate, tol: float) -> Verdict:
        """Take an iterate in; its gap is by the curvature of the last secant."""
        at, p = problem.backend.scalars(lam[0], seen.hypergrad[0])
        rule = took(self, at, p, seen.error, seen.corrected, seen.corrected_error)
        size, error, curvature = seen.norm, seen.error, rule.curvature
        if rule.lam != at:
            return Verdict(rule, back=True)
        if size + error <= seen.noise:  # f is flat here, up to rounding
            return Verdict(rule, 0.0, size)
        gap = None if curvature is None else (size + error) ** 2 / (2 * curvature)
        if seen.stationarity == 0:  # on the boundary
            outwards = error < size
            return Verdict(rule, 0.0 if outwards else gap, size)
        if curvature is None:
            return Verdict(rule)
        # p itself: the domain may cut the stationarity short.
        enough = PROVEN * tol * abs(seen.value)
        return Verdict(rule, gap, max(math.sqrt(2 * curvature * enough) - size, 0.0))

    def settled(self, seen: Estimate, gap: float, tol: float) -> bool:
        """At once: the secant knows the curvature along the only direction that there is."""
        return True

    def beside(self, looks: Sequence[Beside]) -> Secant:
        """The curvature as it was seen at the iterate itself, not along the last step."""
        curvature = looks[0].change[0] / looks[0].step
        return replace(self, curvature=curvature if curvature > 0 else None, bend=0.0)

    def propose(self, problem: Problem) -> Array:
        """The zero of the bent secant, inside the bracket and D, and no farther than trusted."""
        xp, device = problem.backend.xp, problem.backend.device
        target = xp.full((1,), proposed(self), dtype=problem.dtype, device=device)
        return problem.domain.project(target, problem.backend)

    def stepped(self, moved: float, sweeps: int) -> Secant:
        """Lengthen or shorten the trust by how many corrections the last step needed."""
        if sweeps <= 1 and abs(moved) >= 0.99 * self.trust:
            return replace(self, trust=min(2 * self.trust, 4.0))
        if sweeps > 3:
            return replace(self, trust=max(self.trust / 2, 0.25))
        return self


#: Steps back to the same iterate after which it is looked at again: its f may be the one in error.
_DOUBTED = 3

#: Second looks that change nothing, after which the search ends: λ has come within 2⁻¹² of the
#: first step.
_TORN = 4


def took(
    state: Secant,
    lam: float,
    p: float,
    error: float,
    value: float = math.nan,
    value_error: float = 0.0,
) -> Secant:
    """Take in p ± error and f ± its error at λ; the last iterate stays where λ went past a minimum.

    It did where f has grown for certain, and by more than the slope that it ends with accounts for:
    between the two f' has changed its sign, and not for the last time.
    """
    if state.doubted:
        state = _again(state, value, value_error)
    elif _passed(state, lam, p, error, value - value_error):
        step = lam - _known(state.lam)
        state = replace(state, above=lam) if step > 0 else replace(state, below=lam)
        trust, backs = abs(step) / 2, state.backs + 1
        return replace(state, trust=trust, curvature=None, bend=0.0, backs=backs)
    below, above = _bracket(state, lam, p, error)
    fresh = replace(
        state,
        below=below,
        above=above,
        lam=lam,
        hypergrad=p,
        error=error,
        value=value,
        value_error=value_error,
        backs=0,
        looks=state.looks if lam == state.lam else 0,
    )
    if state.lam is None or state.hypergrad is None or lam == state.lam:
        return fresh
    return _curved(fresh, state)


def _bracket(
    state: Secant, lam: float, p: float, error: float
) -> tuple[float | None, float | None]:
    """The bracket, narrowed by a sign that is certain."""
    below, above = state.below, state.above
    if p > error and (above is None or lam < above):
        above = lam
    if p < -error and (below is None or lam > below):
        below = lam
    if below is not None and above is not None and below >= above:
        # f' changes sign more than once: keep the bracket that this iterate opens.
        return (None, above) if p > 0 else (below, None)
    return below, above


def _curved(fresh: Secant, before: Secant) -> Secant:
    """The state with the secant through the last two iterates, and how much it is bent."""
    lam, p = _known(fresh.lam), _known(fresh.hypergrad)
    was, slope_was = _known(before.lam), _known(before.hypergrad)
    change = p - slope_was
    slope, middle = change / (lam - was), (lam + was) / 2
    if fresh.below is not None and fresh.above is not None:
        width = fresh.above - fresh.below
        if width < 0.25 and not abs(p) <= 2 * width * slope:
            # p does not go towards zero inside: an error was larger than it was taken for. The
            # newer end stays.
            fresh = replace(fresh, below=None) if p > 0 else replace(fresh, above=None)
    # A difference of p that is all error says nothing of the curvature.
    if not (slope > 0 and abs(change) > fresh.error + before.error):
        return replace(fresh, curvature=None, bend=0.0, slope=None, middle=None)
    curvature, bend = _bent(before, slope, middle, lam)
    return replace(fresh, curvature=curvature, bend=bend, slope=slope, middle=middle)


def _bent(before: Secant, slope: float, middle: float, lam: float) -> tuple[float, float]:
    """f'' at λ and half its derivative, by this secant and the one before it."""
    if before.slope is None or before.middle is None or middle == before.middle:
        return slope, 0.0
    twice = (slope - before.slope) / (middle - before.middle)
    here = slope + twice * (lam - middle)
    # Beyond that the three tell more noise than shape.
    return (here, twice / 2) if 0.3 * slope <= here <= 2 * slope else (slope, 0.0)


def _passed(state: Secant, lam: float, p: float, error: float, least: float) -> bool:
    if state.lam is None or state.hypergrad is None:
        return False
    step = lam - state.lam
    rise = max(p * step + error * abs(step), 0.0)
    grown = least - (state.value + state.value_error)
    return state.hypergrad * step < 0 and grown > rise


def _again(state: Secant, value: float, value_error: float) -> Secant:
    """The state after a second look at its iterate; what was concluded from a wrong f is undone."""
    if abs(value - state.value) <= value_error + state.value_error:
        return replace(state, backs=0, looks=state.looks + 1)
    trust = state.trust * 2.0**state.backs
    return replace(state, trust=trust, below=None, above=None, backs=0, looks=0)


def _known(number: float | None) -> float:
    assert number is not None
    return number


def _zero(p: float, curvature: float, bend: float) -> float:
    """The zero of p + c d + b d² that is nearest to 0, that of the tangent where there is none."""
    root = curvature**2 - 4 * bend * p
    return -p / curvature if root < 0 else -2 * p / (curvature + math.sqrt(root))


def proposed(state: Secant) -> float:
    """The next λ, not projected on the domain."""
    assert state.lam is not None and state.hypergrad is not None
    lam, p = state.lam, state.hypergrad
    if state.doubted:
        return lam
    step = -state.trust if p > 0 else state.trust
    if state.curvature:
        step = _zero(p, state.curvature, state.bend)
    step = min(max(step, -state.trust), state.trust)
    target = lam + step
    low, high = state.below, state.above
    if low is not None and high is not None:
        margin = 0.05 * (high - low)
        if not low + margin <= target <= high - margin:
            inside = low < target < high
            target = min(max(target, low + margin), high - margin) if inside else (low + high) / 2
            target = lam + min(max(target - lam, -state.trust), state.trust)
    return target
