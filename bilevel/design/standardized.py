"""Standardised columns, without copying or densifying the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import Array, Backend, HostIndex
from ._protocol import Design, Passes


@dataclass(frozen=True)
class Standardized:
    """(X - 1 meanᵀ) diag(scale)⁻¹, as an operator.

    Attributes
    ----------
    base : Design
        X, of shape (n, p).
    mean, scale : array, shape (p,)
        What is subtracted from each column, and what it is divided by after.
    """

    base: Design
    mean: Array
    scale: Array

    @classmethod
    def fit(cls, base: Design) -> Standardized:
        """Take mean and standard deviation of the columns; a constant column keeps scale 1.

        Costs two passes. Var = E[(x - m)²] is computed as E[x²] - m², in float64 at least as
        accurate as the data need, and clipped at zero.

        Examples
        --------
        >>> import numpy as np, bilevel
        >>> X = Standardized.fit(bilevel.as_design(np.array([[1.0], [3.0]])))
        >>> X.matmul(np.ones(1))
        array([-1.,  1.])
        """
        backend, xp = base.backend, base.backend.xp
        n = base.shape[0]
        weights = xp.full(n, 1 / n, dtype=base.dtype, device=backend.device)
        mean = base.rmatmul(weights)
        square = base.gram_diag(weights)
        variance = square - mean * mean
        # Rounding leaves a constant column with a variance of a few units in the last place.
        constant = variance <= 8 * float(xp.finfo(base.dtype).eps) * square
        one = xp.ones_like(variance)
        scale = xp.sqrt(xp.where(constant, one, variance))
        return cls(base, mean, scale)

    @property
    def backend(self) -> Backend:
        return self.base.backend

    @property
    def passes(self) -> Passes:
        return self.base.passes

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    @property
    def columns_per_pass(self) -> int:
        return self.base.columns_per_pass

    def _per_column(self, a: Array, v: Array) -> Array:
        """Give a (p,) the number of axes of v, so that it broadcasts over its columns."""
        return a if v.ndim == 1 else a[:, None]

    def matmul(self, v: Array) -> Array:
        xp = self.backend.xp
        scaled = v / self._per_column(self.scale, v)
        shift = xp.sum(self._per_column(self.mean, v) * scaled, axis=0)
        return self.base.matmul(scaled) - shift

    def rmatmul(self, r: Array) -> Array:
        xp = self.backend.xp
        product = self.base.rmatmul(r)
        mean = self._per_column(self.mean, product)
        centred = product - mean * xp.sum(r, axis=0)
        return centred / self._per_column(self.scale, product)

    def gram_diag(self, d: Array) -> Array:
        xp = self.backend.xp
        square, cross = self.base.gram_diag(d), self.base.rmatmul(d)
        mean = self._per_column(self.mean, square)
        centred = square - 2 * mean * cross + mean * mean * xp.sum(d, axis=0)
        scale = self._per_column(self.scale, square)
        return centred / (scale * scale)

    def square_matmul(self, v: Array) -> Array:
        xp = self.backend.xp
        weights = v / self._per_column(self.scale * self.scale, v)
        shift = self._per_column(self.mean, v) * weights
        square = self.base.square_matmul(weights) - 2 * self.base.matmul(shift)
        return square + xp.sum(self._per_column(self.mean, v) * shift, axis=0)

    def rows(self, index: HostIndex) -> Standardized:
        return Standardized(self.base.rows(index), self.mean, self.scale)
