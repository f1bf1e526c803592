"""A line search for the strong Wolfe conditions.

Nocedal and Wright (2006), section 3.5: bracket, then shrink the bracket. The steps are secant
steps on the slope, and near the minimum, where differences of values are rounding, the
approximate condition of Hager and Zhang (2005, equation 4.1) takes over from the decrease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backends import COUNT, NOT_NEGATIVE, Array, Backend, Number, check_fields
from ..inner import InnerPoint, Ray
from ..status import Status

#: So many first trials away a function that has a minimum has turned: a Newton step and the way to
#: the minimum differ by the condition number at most, which no precision holds beyond 10¹⁶.
_ENDLESS = 2.0**62


class Unbounded(ArithmeticError):
    """A function falls as steeply as ever beyond any length that a search could have misjudged.

    ``point`` is where the search had come to.
    """

    def __init__(self, point: InnerPoint) -> None:
        super().__init__(Status.UNBOUNDED.message)
        self.point = point


@dataclass(frozen=True)
class WolfeSearch:
    """Find t with h(x + t d) ≤ h(x) + c₁ t s and |s_t| ≤ c₂ |s|, s the slope at t = 0.

    Each trial reads one pair of numbers (value and slope) to the host. Where the slope promises a
    change of less than ``noise`` |h| (Hager and Zhang's ε, with their 10⁻⁶), values that differ by
    no more are taken for equal: where terms cancel, as in an ill-conditioned problem, |h| times
    the roundoff is far too little.
    """

    c1: float = 1e-4
    c2: float = 0.9
    noise: float = 1e-6
    max_trials: int = 40

    def __post_init__(self) -> None:
        inside = Number(above=0, below=1)
        check_fields(self, c1=inside, c2=inside, noise=NOT_NEGATIVE, max_trials=COUNT)
        if not self.c1 < self.c2:  # else no step may satisfy both conditions
            raise ValueError(f"c1 must be below c2, got c1={self.c1:g} and c2={self.c2:g}.")

    def __call__(
        self, ray: Ray, value: float, slope: float, t: float, backend: Backend, dtype: Array
    ) -> InnerPoint | None:
        """Return the point found, or None where no step descends.

        Raises
        ------
        Unbounded
            If the function falls without end.
        """
        rounding = 10 * float(backend.xp.finfo(dtype).eps) * abs(value)
        noise = max(self.noise * abs(value), rounding)
        low, low_slope = 0.0, slope
        high, high_slope = math.inf, math.inf
        fallback, fails, endless = None, 0, _ENDLESS * t
        for _ in range(self.max_trials):
            point = ray.at(t)
            value_t, slope_t = backend.scalars(point.value, ray.slope(point))
            finite = math.isfinite(value_t) and math.isfinite(slope_t)
            slack = noise if t * abs(slope) <= noise else rounding
            descends = finite and (
                value > value_t <= value + self.c1 * t * slope  # > : no step of length zero
                or (value_t <= value + slack and slope_t <= (2 * self.c1 - 1) * slope)
            )
            fails = 0 if descends else fails + 1
            if not descends:
                high, high_slope = t, slope_t if finite else math.inf
            elif slope_t < self.c2 * slope:
                low, low_slope, fallback = t, slope_t, point
                if low >= endless:
                    raise Unbounded(point)
            elif slope_t > -self.c2 * slope:
                high, high_slope, fallback = t, slope_t, point
            else:
                return point
            t = _next_trial(low, low_slope, high, high_slope, fails)
            if not t > low or t >= high:
                break
        return fallback


def _next_trial(low: float, low_slope: float, high: float, high_slope: float, fails: int) -> float:
    """Secant step on the slope, kept inside the bracket; doubling while there is none.

    Where a loss has saturated its slope is the same at every trial, and so is the secant's share:
    after more than two failures in a row a trial goes ten times nearer.
    """
    if math.isinf(high):
        return 4 * low if low > 0 else 1.0
    width = high - low
    if fails > 2:
        return low + width * 0.1
    if math.isfinite(high_slope) and high_slope > low_slope:
        share = -low_slope / (high_slope - low_slope)
        return low + width * min(max(share, 0.1), 0.9)
    return low + width / 2
