"""The sets D that hyperparameters are kept in, each with its projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .backends import Array, Backend, Number, is_number, numbers_of


class Domain(Protocol):
    """A closed convex set of R^m."""

    def project(self, lam: Array, backend: Backend) -> Array:
        """The nearest point of the set, of the shape and dtype of lam, which stays as it is."""
        ...


@runtime_checkable
class Unfolds(Protocol):
    """A bounded domain that the unit cube can be laid out on, to draw points from it."""

    def unfold(self, unit: Sequence[float]) -> list[float]:
        """The point of the set that stands for one of [0, 1]^m, one to one inside."""
        ...


@runtime_checkable
class Touches(Protocol):
    """A domain that tells where a point lies on its boundary."""

    def contact(self, lam: Array, backend: Backend) -> str | None:
        """What of the boundary λ lies on, in words for a reader; None in the interior."""
        ...


@dataclass(frozen=True)
class Box:
    """{λ : lower ≤ λ ≤ upper}.

    Parameters
    ----------
    lower, upper : float or sequence of float of length m
        Bounds, the same for all hyperparameters or one for each.

    Raises
    ------
    ValueError
        If a bound is NaN, or a lower one exceeds its upper one.
    TypeError
        If a bound is no number.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> Box(-1, 1).project(np.array([3.0, 0.5]), bilevel.get_backend("numpy"))
    array([1. , 0.5])
    """

    lower: float | tuple[float, ...] = -12.0
    upper: float | tuple[float, ...] = 12.0

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            bound = getattr(self, name)
            object.__setattr__(self, name, _number_or_each(bound, name, _BOUND))
        lower, upper = _bounds(self.lower), _bounds(self.upper)
        several = isinstance(self.lower, tuple) and isinstance(self.upper, tuple)
        if several and len(lower) != len(upper):
            raise ValueError(f"lower has {len(lower)} bounds but upper has {len(upper)}.")
        n = max(len(lower), len(upper))
        for j in range(n):
            low, high = lower[j % len(lower)], upper[j % len(upper)]
            if low > high:
                raise ValueError(
                    f"lower must not exceed upper, got lower {low} > upper {high} at index {j}."
                )
            if low == math.inf or high == -math.inf:
                raise ValueError(f"The box has no point: lower {low}, upper {high} at index {j}.")

    def project(self, lam: Array, backend: Backend) -> Array:
        low, high = (self._array(b, lam, backend) for b in (self.lower, self.upper))
        xp = backend.xp
        return xp.minimum(xp.maximum(lam, low), high)

    def unfold(self, unit: Sequence[float]) -> list[float]:
        """Stretch the cube to the box.

        Raises
        ------
        ValueError
            If a bound is infinite, or their number is another than that of the coordinates.

        Examples
        --------
        >>> Box(-1, 3).unfold([0.0, 0.5])
        [-1.0, 1.0]
        """
        m = len(unit)
        lower, upper = (_for_each(self._checked(b, m), m) for b in (self.lower, self.upper))
        if not all(math.isfinite(b) for b in (*lower, *upper)):
            raise ValueError(f"A box with infinite bounds has no points to draw: {self}.")
        return [low + u * (high - low) for u, low, high in zip(unit, lower, upper, strict=True)]

    def contact(self, lam: Array, backend: Backend) -> str | None:
        """Name the hyperparameters at a bound.

        Examples
        --------
        >>> import numpy as np, bilevel
        >>> Box(-1, 1).contact(np.array([0.0, 1.0]), bilevel.get_backend("numpy"))
        'λ[1] lies at its upper bound 1'
        """
        ends = (lam, self.project(lam - math.inf, backend), self.project(lam + math.inf, backend))
        rows = zip(*(backend.to_numpy(a).tolist() for a in ends), strict=True)
        sides = [
            (j, *(("lower", low) if value <= low else ("upper", high)))
            for j, (value, low, high) in enumerate(rows)
            if value <= low or value >= high
        ]
        if not sides:
            return None
        j, side, bound = sides[0]
        if len(sides) == 1:
            return f"λ[{j}] lies at its {side} bound {bound:g}"
        m = int(lam.shape[0])
        return f"{len(sides)} of {m} hyperparameters lie at a bound, λ[{j}] at its {side} one"

    def _array(self, bound: float | tuple[float, ...], lam: Array, backend: Backend) -> Array:
        values = self._checked(bound, lam.shape[0])
        return backend.xp.asarray(values, dtype=lam.dtype, device=backend.device)

    def _checked(self, bound: float | tuple[float, ...], m: int) -> list[float]:
        values = list(_bounds(bound))
        if isinstance(bound, tuple) and len(values) != m:
            raise ValueError(f"The box has {len(values)} bounds but there are {m} hyperparameters.")
        return values


@dataclass(frozen=True)
class Ball:
    """{λ : ‖λ - center‖ ≤ radius}.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> Ball(0.0, 5.0).project(np.array([6.0, 8.0]), bilevel.get_backend("numpy"))
    array([3., 4.])
    """

    center: float | tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", Number(above=0)(self.radius, "radius"))
        object.__setattr__(self, "center", _number_or_each(self.center, "center", Number()))

    def project(self, lam: Array, backend: Backend) -> Array:
        xp = backend.xp
        center = xp.asarray(
            self._checked_center(lam.shape[0]), dtype=lam.dtype, device=backend.device
        )
        away = lam - center
        norm = xp.sqrt(xp.vecdot(away, away))
        inside = norm <= self.radius
        scale = xp.where(inside, xp.ones_like(norm), self.radius / xp.where(inside, 1 + norm, norm))
        return xp.where(inside, lam, center + scale * away)

    def unfold(self, unit: Sequence[float]) -> list[float]:
        """Pull the cubes around the middle in to spheres.

        Examples
        --------
        >>> Ball(0.0, 5.0).unfold([0.5, 1.0]), Ball(1.0, 5.0).unfold([0.5])
        ([0.0, 5.0], [1.0])
        """
        center = _for_each(self._checked_center(len(unit)), len(unit))
        away = [2 * u - 1 for u in unit]
        norm = math.hypot(*away)
        scale = self.radius * max(map(abs, away)) / norm if norm > 0 else 0.0
        return [c + scale * a for c, a in zip(center, away, strict=True)]

    def contact(self, lam: Array, backend: Backend) -> str | None:
        """Say that λ lies on the sphere."""
        center = self._checked_center(lam.shape[0])
        values = backend.to_numpy(lam).tolist()
        centers = _for_each(center, len(values))
        away = math.hypot(*(v - c for v, c in zip(values, centers, strict=True)))
        eps = float(backend.xp.finfo(lam.dtype).eps)
        on = away >= self.radius * (1 - 8 * eps)
        return f"λ lies on the boundary of the ball of radius {self.radius:g}" if on else None

    def _checked_center(self, m: int) -> list[float]:
        values = list(_bounds(self.center))
        if isinstance(self.center, tuple) and len(values) != m:
            raise ValueError(
                f"The ball has a center of {len(values)} numbers but there are {m} hyperparameters."
            )
        return values


_BOUND = Number(finite=False)


def _number_or_each(bound: Any, name: str, rule: Number) -> float | tuple[float, ...]:
    """One number for all hyperparameters, or one for each."""
    if is_number(bound):
        return rule(bound, name)
    values = numbers_of(bound, name, rule)
    if not values:
        raise ValueError(f"{name} must hold a number for each hyperparameter, got none.")
    return values


def _bounds(bound: float | tuple[float, ...]) -> tuple[float, ...]:
    return bound if isinstance(bound, tuple) else (bound,)


def _for_each(values: list[float], m: int) -> list[float]:
    """One number for all as one for each of m."""
    return values * (m // len(values))
