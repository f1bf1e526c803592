"""Standardised columns, without copying or densifying the matrix."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

from ..backends import Array, HostIndex, check_rows
from ..linalg.rounding import unit_roundoff
from ..meter import Passes
from ._protocol import Design, column_sums, gram, per_column
from ._recount import recounted
from ._wrapper import Wrapper

#: Of the spread of a column: a rounding of its entries beyond it is one that the user is told of.
COARSE = 2.0**-9


@dataclass(frozen=True)
class Standardized(Wrapper):
    """(X - 1 meanᵀ) diag(scale)⁻¹, as an operator.

    Attributes
    ----------
    base : Design
        X, of shape (n, p).
    mean, scale : array, shape (p,)
        What is subtracted from each column, and what it is divided by after.
    """

    mean: Array
    scale: Array

    @classmethod
    def fit(cls, base: Design) -> Standardized:
        """Take mean and standard deviation of the columns; a constant column keeps scale 1.

        Costs two passes over a dense matrix, three over a sparse one. The variance of a dense
        matrix is taken about the mean, so that a mean far above the spread does no harm. Where the
        entries are too short for it, as float32 is for dates, or so small that their squares
        underflow, a warning names the columns: digits that are lost can't be brought back.

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
        variance = base.gram_diag(weights, mean)
        # Rounding leaves a constant column with a variance of a few units in the last place.
        noise = base.centred_rounding * (variance + mean * mean)
        is_constant = variance <= noise
        scale = xp.sqrt(xp.where(is_constant, xp.ones_like(variance), variance))
        varies = ~is_constant | _differs_from_first(base, weights)
        rounding = _unit(base) * xp.abs(mean)
        coarse = varies & (rounding > COARSE * scale)
        tiny = is_constant & (mean != 0) & (xp.abs(mean) < _least(base))
        code = xp.astype(coarse, xp.int8) + 2 * xp.astype(tiny, xp.int8)  # read in one transfer
        codes = backend.to_numpy(code).tolist()
        _warn_of([code & 1 > 0 for code in codes], *_COARSE)
        _warn_of([code & 2 > 0 for code in codes], *_TINY)
        return cls(base, mean, scale)

    @property
    def passes(self) -> Passes:
        return self.base.passes

    def matmul(self, v: Array) -> Array:
        xp = self.backend.xp
        scaled = v / per_column(self.scale, v)
        shift = xp.sum(per_column(self.mean, v) * scaled, axis=0)
        return self.base.matmul(scaled) - shift

    def rmatmul(self, r: Array) -> Array:
        xp = self.backend.xp
        product = self.base.rmatmul(r)
        centred = product - per_column(self.mean, r) * xp.sum(r, axis=0)
        return centred / per_column(self.scale, r)

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        square = self.base.gram_diag(d, self._base_centre(centre))
        return square / per_column(self.scale * self.scale, d)

    def gram(self, weights: Array | None = None) -> Array | None:
        """Centred after the products: what that loses is of the size of the rounding of theirs."""
        inner = gram(self.base, weights)
        if inner is None:
            return None
        sums, total = column_sums(self.base, weights)
        mixed = self.mean[:, None] * sums[None, :]
        square = total * self.mean[:, None] * self.mean[None, :]
        return (inner - mixed - mixed.T + square) / (self.scale[:, None] * self.scale[None, :])

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        weights = v / per_column(self.scale * self.scale, v)
        return self.base.square_matmul(weights, self._base_centre(centre))

    def _base_centre(self, centre: Array | None) -> Array:
        """(x - m)/s - c = (x - (m + s c))/s: centring again moves the centre of the base."""
        return self.mean if centre is None else self.mean + self.scale * centre

    def rows(self, index: HostIndex) -> Standardized:
        return Standardized(self.base.rows(index), self.mean, self.scale)


def _unit(design: Design) -> float:
    """The unit roundoff of the entries, beneath all wrappers."""
    if isinstance(design, Wrapper):
        return _unit(design.base)
    return unit_roundoff(design.dtype, design.backend)


def _differs_from_first(base: Design, weights: Array) -> Array:
    """Which columns hold two numbers, off the counter; none where centring would not tell.

    A spread below the rounding of the mean looks as that of a constant column does.
    """
    backend, xp, (n, p) = base.backend, base.backend.xp, base.shape
    if base.centred_rounding >= _unit(base):
        return xp.zeros(p, dtype=xp.bool, device=backend.device)
    alone = recounted(base)
    first = alone.rows(check_rows([0], n)).rmatmul(xp.ones_like(weights[:1]))
    return alone.gram_diag(weights, first) > 0


def _least(design: Design) -> float:
    """Squares of smaller numbers lose digits, or are 0."""
    found = design.backend.xp.finfo(design.dtype)
    return math.sqrt(float(found.smallest_normal) / float(found.eps))


#: What is said of columns, before and after their numbers.
_COARSE = (
    "Far from zero, entries are rounded to a large part of the spread of column",
    "subtract the offset in float64 first.",
)
_TINY = (
    "Squares of entries underflow, and the spread, if there is one, is lost of column",
    "it is not scaled; multiply it by a power of ten first.",
)


def _warn_of(columns_are: list[bool], before: str, cure: str) -> None:
    columns = [str(j) for j, is_one in enumerate(columns_are) if is_one]
    if columns:
        more = f" and {len(columns) - 5} more" if len(columns) > 5 else ""
        warnings.warn(
            f"{before} {', '.join(columns[:5])}{more}: {cure}", RuntimeWarning, stacklevel=3
        )
