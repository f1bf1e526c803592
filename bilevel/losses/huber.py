"""The Huber loss: squared near the label, linear far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..backends import POSITIVE, Array, Backend, check_fields
from ._protocol import Pointwise, entrywise


@dataclass(frozen=True)
class Huber(Pointwise):
    """ℓ(y, t) = ½ r² where abs(r) ≤ δ, and δ (abs(r) - δ/2) elsewhere, with r = t - y.

    ℓ' = clip(r, -δ, δ), ℓ'' = 1 where abs(r) ≤ δ and 0 elsewhere: the curvature jumps, so that
    there is no Lipschitz constant of it (Huber, Ann. Math. Statist. 35, 1964).

    Parameters
    ----------
    delta : float
        δ > 0, where the loss becomes linear.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> Huber(1.0).value(np.zeros(2), np.array([0.5, 3.0]), backend)
    array([0.125, 2.5  ])
    """

    delta: float = 1.35

    curvature_bound: ClassVar[float] = 1.0
    third_bound: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_fields(self, delta=POSITIVE)

    @entrywise("huber_value", "delta")
    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        size = backend.xp.abs(t - y)
        linear = self.delta * (size - self.delta / 2)
        return backend.xp.where(size <= self.delta, size * size / 2, linear)

    @entrywise("huber_derivative", "delta")
    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        xp, r = backend.xp, t - y
        delta = xp.full_like(r, self.delta)
        # xp.clip is these two for one library, and for CuPy a dozen kernels and reads to the host.
        return xp.maximum(-delta, xp.minimum(r, delta))

    @entrywise("huber_curvature", "delta")
    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        xp = backend.xp
        return xp.astype(xp.abs(t - y) <= self.delta, t.dtype)

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        """Zero, but at the two jumps of ℓ'': what rests on it holds while no row crosses one."""
        return backend.xp.zeros_like(t)

    def rounding(self, y: Array, t: Array, backend: Backend) -> tuple[Array, Array]:
        """That of t - y, and of δ in the precision of t; δ abs(r) is at most twice the loss."""
        slope = self.derivative(y, t, backend)
        return 16 * self.value(y, t, backend), 4 * backend.xp.abs(slope)
