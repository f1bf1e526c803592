"""A sparse design matrix: the backend's CSR kernel, with its passes counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..backends import Array, Backend, HostIndex, SparseKernel, check_rows
from ..meter import Passes
from ._protocol import per_column


@dataclass(frozen=True)
class CSRDesign:
    """A sparse X of shape (n, p), compressed by rows.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from scipy import sparse
    >>> X = bilevel.as_design(sparse.eye_array(2, format="csr"))
    >>> X.rmatmul(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    kernel: SparseKernel
    backend: Backend
    passes: Passes = field(default_factory=Passes)

    @property
    def shape(self) -> tuple[int, int]:
        return self.kernel.shape

    @property
    def dtype(self) -> Any:
        return self.kernel.dtype

    @property
    def columns_per_pass(self) -> int:
        return self.kernel.columns_per_pass

    @property
    def longest_row(self) -> int:
        return self.kernel.longest_row

    @property
    def entries(self) -> int:
        return self.kernel.nnz

    def matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        return self.kernel.matmul(v)

    def rmatmul(self, r: Array) -> Array:
        self.passes.count_backward(r)
        return self.kernel.rmatmul(r)

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        """Two passes when centred, one when not.

        Σ d (x - c)² = Σ d x² - 2c Σ d x + c² Σ d. The terms cancel badly in a column with few
        zeros and a mean far above its spread alone: there a dense design is the better one.
        """
        self.passes.count_backward(d)
        square = self.kernel.square_rmatmul(d)
        if centre is None:
            return square
        c = per_column(centre, d)
        return square - 2 * c * self.rmatmul(d) + c * c * self.backend.xp.sum(d, axis=0)

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        """Two passes when centred, one when not."""
        self.passes.count_forward(v)
        square = self.kernel.square_matmul(v)
        if centre is None:
            return square
        cv = per_column(centre, v) * v
        shift = self.backend.xp.sum(per_column(centre, v) * cv, axis=0)
        return square - 2 * self.matmul(cv) + shift

    @property
    def centred_rounding(self) -> float:
        return 8 * float(self.backend.xp.finfo(self.dtype).eps)

    def rows(self, index: HostIndex) -> CSRDesign:
        return CSRDesign(self.kernel.rows(check_rows(index, self.shape[0])), self.backend)
