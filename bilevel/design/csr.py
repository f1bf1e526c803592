"""A sparse design matrix: the backend's CSR kernel, with its passes counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..backends import Array, Backend, HostIndex, SparseKernel
from ._protocol import Passes


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

    def matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        return self.kernel.matmul(v)

    def rmatmul(self, r: Array) -> Array:
        self.passes.count_backward(r)
        return self.kernel.rmatmul(r)

    def gram_diag(self, d: Array) -> Array:
        self.passes.count_backward(d)
        return self.kernel.square_rmatmul(d)

    def square_matmul(self, v: Array) -> Array:
        self.passes.count_forward(v)
        return self.kernel.square_matmul(v)

    def rows(self, index: HostIndex) -> CSRDesign:
        return CSRDesign(self.kernel.rows(index), self.backend)
