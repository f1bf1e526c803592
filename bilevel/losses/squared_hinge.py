"""The squared hinge loss max(0, 1 - y t)², labels y in {-1, +1}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..backends import Array, Backend
from ._protocol import Pointwise, Proportional, entrywise, refuse_labels_but_signs, sign_support


@dataclass(frozen=True)
class SquaredHinge(Proportional, Pointwise):
    """ℓ(y, t) = max(0, 1 - y t)², the loss of the L2 support vector machine.

    With z = max(0, 1 - y t): ℓ' = -2 y z, ℓ'' = 2 where y t < 1 and 0 elsewhere: the curvature
    jumps, so that there is no Lipschitz constant of it (Chapelle, Neural Comput. 19, 2007).

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> SquaredHinge().value(np.array([1.0, 1.0]), np.array([-1.0, 2.0]), backend)
    array([4., 0.])
    """

    #: The shortfall is right to one unit, since y t is exact.
    units: ClassVar[tuple[float, float]] = (6, 4)
    curvature_bound: ClassVar[float] = 2.0
    third_bound: ClassVar[None] = None

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        refuse_labels_but_signs(y, backend, name)

    def support(self, y: Array, backend: Backend) -> dict[str, Array]:
        return sign_support(y)

    def _shortfall(self, y: Array, t: Array, backend: Backend) -> Array:
        z = 1 - y * t
        return backend.xp.maximum(z, backend.xp.zeros_like(z))

    @entrywise("squared_hinge_value")
    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        z = self._shortfall(y, t, backend)
        return z * z

    @entrywise("squared_hinge_derivative")
    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        return -2 * y * self._shortfall(y, t, backend)

    @entrywise("squared_hinge_curvature")
    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        return 2 * backend.xp.astype(y * t < 1, t.dtype)

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        """Zero, but at the jump of ℓ'': what rests on it holds while no row crosses it."""
        return backend.xp.zeros_like(t)
