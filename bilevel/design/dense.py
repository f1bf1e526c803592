"""A dense design matrix: BLAS on every backend."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .._cached import cached_property
from ..backends import Array, Backend, HostIndex, check_rows, row_blocks
from ..meter import Passes
from ._protocol import Design
from .mixed import MixedPrecision

#: Entries from which products in float32 are cheaper (8 MB in float64).
_LARGE = 1_000_000

#: A matrix of so many columns squared takes 64 MB in float32, and its eigenvectors as much.
_MOST_COLUMNS = 4096


@dataclass(frozen=True)
class DenseDesign:
    """A dense X of shape (n, p).

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = bilevel.as_design(np.eye(2))
    >>> X.matmul(np.array([1.0, 2.0]))
    array([1., 2.])
    >>> X.passes.total
    1
    """

    array: Array
    backend: Backend
    passes: Passes = field(default_factory=Passes)

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.array.shape
        return int(n), int(p)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def columns_per_pass(self) -> int:
        # BLAS with 8 columns takes 2 to 4.5 times as long as with one (benchmarks/bandwidth.py).
        return 8

    @property
    def longest_row(self) -> int:
        return self.shape[1]

    @property
    def entries(self) -> int:
        return math.prod(self.array.shape)

    def rounded(self) -> Design | None:
        return self._rounded

    @cached_property
    def _rounded(self) -> Design | None:
        """A copy, made when first asked for, of a matrix larger than the caches.

        On a CPU 40 iterations of CG with 3 columns took 0.6 of the time (20,000 x 500; small
        matrices gain nothing).
        """
        xp = self.backend.xp
        if self.dtype != xp.float64 or self.entries < _LARGE:
            return None
        return MixedPrecision(
            DenseDesign(xp.astype(self.array, xp.float32), self.backend, self.passes)
        )

    def matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        return self.backend.xp.matmul(self.array, v)

    def rmatmul(self, r: Array) -> Array:
        self.passes.count_backward(r)
        return self.backend.xp.matmul(self.array.T, r)

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        self.passes.count_backward(d)
        xp = self.backend.xp
        parts = [xp.matmul(square.T, d[rows, ...]) for rows, square in self._squares(centre)]
        return functools.reduce(operator.add, parts)

    def gram(self, weights: Array | None = None) -> Array | None:
        """By blocks of rows, where there are twice as many rows as columns; up to 4096 of these."""
        n, p = self.shape
        if p > _MOST_COLUMNS or n < 2 * p:
            return None
        xp, total = self.backend.xp, None
        self.passes.count_backward(self.array)
        for rows in row_blocks(n, p):
            block = self.array[rows, :]
            right = block if weights is None else weights[rows, None] * block
            part = xp.matmul(block.T, right)
            total = part if total is None else total + part
        return total

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        self.passes.count_forward(v)
        xp = self.backend.xp
        return xp.concat([xp.matmul(square, v) for _, square in self._squares(centre)], axis=0)

    def _squares(self, centre: Array | None) -> Iterator[tuple[slice, Array]]:
        """Yield rows and their squared entries, block by block: never the memory of another X."""
        n, p = self.shape
        for rows in row_blocks(n, p):
            block = self.array[rows, :]
            if centre is not None:
                block = block - centre
            yield rows, block * block

    @property
    def centred_rounding(self) -> float:
        # The mean is off by at most about √n units in the last place, and that is squared.
        return max(64, self.shape[0]) * float(self.backend.xp.finfo(self.dtype).eps) ** 2

    def rows(self, index: HostIndex) -> DenseDesign:
        numbers = self.backend.asarray(check_rows(index, self.shape[0]))
        return DenseDesign(self.backend.xp.take(self.array, numbers, axis=0), self.backend)
