"""The squared loss ½ (t - y)²."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..backends import Array, Backend
from ._protocol import Pointwise, Proportional, entrywise


@dataclass(frozen=True)
class Squared(Proportional, Pointwise):
    """ℓ(y, t) = ½ (t - y)²: ℓ' = t - y, ℓ'' = 1, ℓ''' = 0.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> Squared().value(np.array([1.0]), np.array([3.0]), backend)
    array([2.])
    """

    #: The difference t - y is right to one unit, and all that follows is a product.
    units: ClassVar[tuple[float, float]] = (6, 2)
    curvature_bound: ClassVar[float] = 1.0
    third_bound: ClassVar[float] = 0.0
    self_concordance: ClassVar[float | None] = 0.0
    curvature_lower: ClassVar[float] = 1.0

    @entrywise("squared_value")
    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        r = t - y
        return r * r / 2

    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        return t - y

    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.ones_like(t)

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.zeros_like(t)
