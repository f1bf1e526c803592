"""The step in one hyperparameter: a safeguarded secant on the hypergradient.

A minimum is where f' goes from negative to positive. Signs that are certain (larger than the
error of p) bracket it. The secant of the last two iterates proposes the step, bent by the secant
before it: λ is a logarithm, along which f' flattens towards its zero, and a straight line through
two points on one side falls short each time. The step is kept inside the bracket and no longer
than the predictor of x can be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class SecantState:
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


#: Steps back to the same iterate after which it is looked at again: its f may be the one in error.
_DOUBTED = 3

#: Second looks that change nothing, after which the search ends: λ has come within 2⁻¹² of the
#: first step.
_TORN = 4


def observe(
    state: SecantState,
    lam: float,
    p: float,
    error: float,
    value: float = math.nan,
    value_error: float = 0.0,
) -> SecantState:
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
    below, above, curvature = state.below, state.above, state.curvature
    if p > error and (above is None or lam < above):
        above = lam
    if p < -error and (below is None or lam > below):
        below = lam
    if below is not None and above is not None and below >= above:
        # f' changes sign more than once: keep the bracket that this iterate opens.
        below, above = (None, above) if p > 0 else (below, None)
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
    change = p - state.hypergrad
    slope, middle = change / (lam - state.lam), (lam + state.lam) / 2
    if fresh.below is not None and fresh.above is not None:
        width = fresh.above - fresh.below
        if width < 0.25 and not abs(p) <= 2 * width * slope:
            # p does not go towards zero inside: an error was larger than it was taken for. The
            # newer end stays.
            fresh = replace(fresh, below=None) if p > 0 else replace(fresh, above=None)
    # A difference of p that is all error says nothing of the curvature.
    if not (slope > 0 and abs(change) > error + state.error):
        return replace(fresh, curvature=None, bend=0.0, slope=None, middle=None)
    curvature, bend = slope, 0.0
    if state.slope is not None and state.middle is not None and middle != state.middle:
        twice = (slope - state.slope) / (middle - state.middle)
        here = slope + twice * (lam - middle)
        if 0.3 * slope <= here <= 2 * slope:  # beyond that the three tell more noise than shape
            curvature, bend = here, twice / 2
    return replace(fresh, curvature=curvature, bend=bend, slope=slope, middle=middle)


def _passed(state: SecantState, lam: float, p: float, error: float, least: float) -> bool:
    if state.lam is None or state.hypergrad is None:
        return False
    step = lam - state.lam
    rise = max(p * step + error * abs(step), 0.0)
    grown = least - (state.value + state.value_error)
    return state.hypergrad * step < 0 and grown > rise


def _again(state: SecantState, value: float, value_error: float) -> SecantState:
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


def propose(state: SecantState) -> float:
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


def trusted(state: SecantState, moved: float, sweeps: int) -> SecantState:
    """Lengthen or shorten the trust by how many corrections the last step needed."""
    if sweeps <= 1 and abs(moved) >= 0.99 * state.trust:
        return replace(state, trust=min(2 * state.trust, 4.0))
    if sweeps > 3:
        return replace(state, trust=max(state.trust / 2, 0.25))
    return state
