"""A matrix held in single precision that multiplies double-precision arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import Array, HostIndex
from ..meter import Passes
from ._wrapper import Wrapper


@dataclass(frozen=True)
class MixedPrecision(Wrapper):
    """X in float32 for a model in float64: half the memory traffic of a pass.

    Products are formed in float32; x, the margins, losses and inner products, and with them all
    that the outer problem sees, stay in float64. The model is that of the rounded matrix, and a
    product is in error by about 1e-7 of its size: enough for every tolerance above that, among
    them the default of the default method.

    Attributes
    ----------
    base : Design
        X, of float32.

    Raises
    ------
    TypeError
        If the matrix is not of float32.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = MixedPrecision(bilevel.as_design(np.eye(2, dtype=np.float32)))
    >>> X.matmul(np.array([1.0, 2.0])).dtype
    dtype('float64')
    """

    def __post_init__(self) -> None:
        if self.base.dtype != self.backend.xp.float32:
            raise TypeError(f"base must be of dtype float32, got {self.base.dtype}.")

    @property
    def passes(self) -> Passes:
        return self.base.passes

    @property
    def dtype(self) -> Any:
        return self.backend.xp.float64

    def _single(self, a: Array) -> Array:
        return self.backend.xp.astype(a, self.backend.xp.float32)

    def _double(self, a: Array) -> Array:
        return self.backend.xp.astype(a, self.backend.xp.float64)

    def matmul(self, v: Array) -> Array:
        return self._double(self.base.matmul(self._single(v)))

    def rmatmul(self, r: Array) -> Array:
        return self._double(self.base.rmatmul(self._single(r)))

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        single = None if centre is None else self._single(centre)
        return self._double(self.base.gram_diag(self._single(d), single))

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        single = None if centre is None else self._single(centre)
        return self._double(self.base.square_matmul(self._single(v), single))

    def rows(self, index: HostIndex) -> MixedPrecision:
        return MixedPrecision(self.base.rows(index))
