"""An intercept column, appended without copying the matrix."""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import Array, HostIndex
from ..meter import Passes
from ._protocol import column_sums, gram
from ._wrapper import Wrapper


@dataclass(frozen=True)
class WithIntercept(Wrapper):
    """[X 1], shape (n, p + 1): the last coefficient is the intercept.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = WithIntercept(bilevel.as_design(np.zeros((2, 1))))
    >>> X.matmul(np.array([1.0, 5.0]))
    array([5., 5.])
    """

    @property
    def passes(self) -> Passes:
        return self.base.passes

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.base.shape
        return n, p + 1

    def matmul(self, v: Array) -> Array:
        return self.base.matmul(v[:-1, ...]) + v[-1, ...]

    def rmatmul(self, r: Array) -> Array:
        return self._append_sum(self.base.rmatmul(r), r)

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        if centre is None:
            return self._append_sum(self.base.gram_diag(d), d)
        last = 1 - centre[-1]
        return self._append_sum(self.base.gram_diag(d, centre[:-1]), last * last * d)

    def _append_sum(self, top: Array, r: Array) -> Array:
        xp = self.backend.xp
        return xp.concat([top, xp.sum(r, axis=0, keepdims=True)], axis=0)

    def gram(self, weights: Array | None = None) -> Array | None:
        inner = gram(self.base, weights)
        if inner is None:
            return None
        xp = self.backend.xp
        sums, total = column_sums(self.base, weights)
        side = sums[:, None]
        last = xp.concat([side.T, xp.reshape(total, (1, 1))], axis=1)
        return xp.concat([xp.concat([inner, side], axis=1), last], axis=0)

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        if centre is None:
            return self.base.square_matmul(v[:-1, ...]) + v[-1, ...]
        last = 1 - centre[-1]
        return self.base.square_matmul(v[:-1, ...], centre[:-1]) + last * last * v[-1, ...]

    def rows(self, index: HostIndex) -> WithIntercept:
        return WithIntercept(self.base.rows(index))
