"""A dense design matrix: BLAS on every backend."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..backends import Array, Backend, HostIndex
from ._protocol import Passes

#: Entries of a block whose square is formed at once (8 MiB in float64).
_BLOCK_ENTRIES = 1 << 20


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
        return self.array.shape

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def columns_per_pass(self) -> int:
        return 8

    def matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        return self.backend.xp.matmul(self.array, v)

    def rmatmul(self, r: Array) -> Array:
        self.passes.count_backward(r)
        return self.backend.xp.matmul(self.array.T, r)

    def gram_diag(self, d: Array) -> Array:
        self.passes.count_backward(d)
        xp = self.backend.xp
        parts = [xp.matmul((block * block).T, d[rows, ...]) for rows, block in self._blocks()]
        return functools.reduce(operator.add, parts)

    def square_matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        xp = self.backend.xp
        parts = [xp.matmul(block * block, v) for _, block in self._blocks()]
        return xp.concat(parts, axis=0)

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        """Yield slices of rows, so that squared entries never take the memory of another X."""
        n, p = self.shape
        step = max(1, _BLOCK_ENTRIES // p)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, self.array[rows, :]

    def rows(self, index: HostIndex) -> DenseDesign:
        xp = self.backend.xp
        return DenseDesign(xp.take(self.array, self.backend.asarray(index), axis=0), self.backend)
