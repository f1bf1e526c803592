"""Whether h has a minimum: it is followed far along the directions in which it bends least.

No derivative is wrong where it has none, and no look nearby shows it. Where a μ is stated it has
one, and whether that μ is true is asked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._probe import Probe, Vector, length, ritz
from .constants import stated
from .places import Place
from .report import Book

#: How far a line is followed, in units of 1 + ‖x‖.
_LENGTHS = 10.0 ** np.arange(-2, 9)

#: How many times the way on which h, at its slope, would fall by its own size. A loss, which is not
#: negative, has turned before.
_BEYOND = 30.0


@dataclass(frozen=True)
class _Followed:
    """The slopes of h along a line, as far as it falls.

    Attributes
    ----------
    t, slopes, noise : array
        Where, what, and how much of that may be rounding.
    turned : bool
        Whether it rises further on, or is not finite.
    value : float
        abs(h) where the line starts.
    drift : array
        What is no slope either: the direction, and the curvature along it, are known to half of
        the digits.
    """

    t: Vector
    slopes: Vector
    noise: Vector
    turned: bool
    value: float
    drift: Vector

    @property
    def flat(self) -> bool:
        told = np.abs(self.slopes) > self.noise + self.drift
        return bool(self.slopes.shape[0]) and not np.any(told)

    @property
    def falls(self) -> bool:
        """Whether it falls all the way, by whatever little."""
        return not self.turned and not self.flat

    @property
    def endless(self) -> bool:
        """Whether it falls as steeply as at first beyond all that its values promise."""
        if not self.falls:
            return False
        first = self.slopes[0]
        beyond = self.t >= _BEYOND * (self.value / max(abs(first), 1e-300) + self.t[0])
        told = np.abs(self.slopes) > 10 * self.noise
        return bool(np.any(beyond & told & (self.slopes <= 0.5 * min(first, 0.0))))

    @property
    def bends_down(self) -> bool:
        """Whether its slope falls on the way, which that of a convex h does nowhere."""
        fall = self.slopes[:-1] - self.slopes[1:]
        sizes = np.maximum(np.abs(self.slopes[:-1]), np.abs(self.slopes[1:]))
        return bool(np.any(fall > 10 * (self.noise[:-1] + self.noise[1:]) + 1e-6 * sizes))


def falling(place: Place, book: Book) -> None:
    """Follow h both ways along its flattest direction, from the given x and from 0."""
    if stated(place).mu is not None:
        return
    book.made("h far out along its flattest directions")
    probe = place.probe
    for x in (probe.x, 0.0 * probe.x):
        at = Probe(probe.problem, x, probe.lam)
        found = ritz(at.hvp, book.rng.standard_normal(at.p))
        if found is None:
            continue
        (_, bottom), (_, top) = found
        steep = length(at.hvp(top))
        ways = [_follow(at, sign * bottom, steep) for sign in (1.0, -1.0)]
        _tell(ways, book)


def _follow(at: Probe, v: Vector, steep: float) -> _Followed:
    """The slopes of h from a point along a direction, until it rises."""
    unit = 1 + length(at.x)
    t, slopes, noise, turned = [], [], [], False
    for step in unit * _LENGTHS:
        grad = at.moved(step * v).grad
        slope = float(grad @ v)
        lost = 64 * at.eps * (length(grad) + steep * (step + length(at.x)))
        if not np.isfinite(slope):
            turned = True
            break
        t.append(step)
        slopes.append(slope)
        noise.append(lost)
        if slope > lost:
            turned = True
            break
    drift = at.eps**0.5 * (length(at.grad) + 1e-3 * steep * np.array(t))
    along = np.array(t), np.array(slopes), np.array(noise)
    return _Followed(*along, turned, length(at.value), drift)


def _tell(ways: list[_Followed], book: Book) -> None:
    if any(way.endless for way in ways):
        way = next(way for way in ways if way.endless)
        book.add(
            "inner.value",
            "",
            np.inf,
            f"h falls along a line, {way.t[-1]:.1g} away as steeply as at first (a slope of "
            f"{way.slopes[-1]:.3g}, {way.slopes[0]:.3g} at {way.t[0]:.1g}): it has no minimum, and "
            "X(λ) is nothing.",
            "a term that grows along each direction is missing, as a penalty of all coefficients",
        )
    elif any(way.falls for way in ways):
        book.note(
            "h still falls far out along a line, by less and less: it may have no minimum, and "
            "X(λ) be nothing."
        )
    elif all(way.flat for way in ways):
        book.note("h is flat along a line: X(λ) is not one point there, and f no function of λ.")
    if any(way.bends_down for way in ways):
        book.note(
            "h bends down along a line: it is not convex, and may have several minima, or none."
        )
