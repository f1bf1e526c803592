"""CSR products on the host, near memory bandwidth.

Two kernels, the same mathematics; the first that is usable is taken:

* **MKL** (``sparse_dot_mkl`` and ``mkl``, the extra ``bilevel[mkl]``): multi-threaded, and the
  only one whose product with k columns costs much less than k products with one.
* **SciPy**: its kernels release the interpreter's lock, so row blocks with equal numbers of
  non-zeros in a pool of threads use every core. Its kernels for several columns cost more than
  as many single products, so several columns are served one after the other.

Both keep Xᵀ as CSR too (built at the first transposed product): a product with Xᵀ is then a
product with rows, which splits over the cores without a reduction.
"""

from __future__ import annotations

import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ._protocol import Array

#: Below this many non-zeros a product is over before a second thread has woken up.
_MIN_NNZ_PER_THREAD = 100_000


def _n_threads() -> int:
    """The cores this process may use; BILEVEL_NUM_THREADS overrides."""
    asked = os.environ.get("BILEVEL_NUM_THREADS")
    if asked is not None:
        if not asked.isdigit() or int(asked) < 1:
            raise ValueError(f"BILEVEL_NUM_THREADS must be a positive integer, got {asked!r}.")
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="bilevel-csr")


@functools.cache
def _mkl_product() -> Any:
    """Return sparse_dot_mkl's product, or None where MKL is not installed.

    ``BILEVEL_MKL=0`` turns it off. The wheel of MKL puts its library where the dynamic loader
    does not look, so its place is named before the import.
    """
    if os.environ.get("BILEVEL_MKL") == "0":
        return None
    if "MKL_RT" not in os.environ:
        for folder in (Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"):
            found = sorted(folder.glob("*mkl_rt*"))
            if found:
                os.environ["MKL_RT"] = str(found[-1])
                break
    try:
        from sparse_dot_mkl import dot_product_mkl
    except (ImportError, OSError):
        return None
    return dot_product_mkl


def product_name() -> str:
    """Say which kernel serves the products, for ``bilevel info``."""
    if _mkl_product() is not None:
        return "MKL (sparse_dot_mkl)"
    return f"SciPy on {_n_threads()} thread(s); `pip install 'bilevel[mkl]'` for faster ones"


def _row_blocks(matrix: sparse.csr_array, n_blocks: int) -> list[sparse.csr_array]:
    """Split the rows into views with about equal numbers of non-zeros; nothing is copied."""
    indptr = matrix.indptr
    cuts = np.searchsorted(indptr, np.linspace(0, indptr[-1], n_blocks + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], cuts, [matrix.shape[0]]]))
    blocks = []
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        lo, hi = indptr[start], indptr[stop]
        blocks.append(
            sparse.csr_array(
                (matrix.data[lo:hi], matrix.indices[lo:hi], indptr[start : stop + 1] - lo),
                shape=(int(stop - start), matrix.shape[1]),
                copy=False,
            )
        )
    return blocks


class _ThreadedRows:
    """matrix @ v by SciPy, a block of rows a thread."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        n_blocks = max(1, min(_n_threads(), matrix.nnz // _MIN_NNZ_PER_THREAD))
        self._blocks = _row_blocks(matrix, n_blocks) if n_blocks > 1 else [matrix]

    def __call__(self, v: Array) -> Array:
        if v.ndim == 1:
            return self._one(v)
        return np.stack([self._one(np.ascontiguousarray(column)) for column in v.T], axis=1)

    def _one(self, v: Array) -> Array:
        if len(self._blocks) == 1:
            return self._blocks[0] @ v
        others = [_pool(len(self._blocks)).submit(b.__matmul__, v) for b in self._blocks[1:]]
        return np.concatenate([self._blocks[0] @ v, *(other.result() for other in others)])


class _MKLRows:
    """matrix @ v by MKL."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        self._matrix = sparse.csr_matrix(matrix)  # sparse_dot_mkl knows the matrix classes
        self._product = _mkl_product()

    def __call__(self, v: Array) -> Array:
        return self._product(self._matrix, np.ascontiguousarray(v))


def _product(matrix: sparse.csr_array) -> _ThreadedRows | _MKLRows:
    usable = _mkl_product() is not None and matrix.nnz > 0
    return _MKLRows(matrix) if usable else _ThreadedRows(matrix)


class HostCSR:
    """A scipy.sparse CSR matrix as a :class:`SparseKernel`."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        if matrix.dtype not in (np.float32, np.float64):
            matrix = matrix.astype(np.float64)
        self.matrix = matrix
        self.columns_per_pass = 4 if _mkl_product() is not None else 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    @property
    def nnz(self) -> int:
        return int(self.matrix.nnz)

    @functools.cached_property
    def _forward(self) -> _ThreadedRows | _MKLRows:
        return _product(self.matrix)

    @functools.cached_property
    def _transposed(self) -> sparse.csr_array:
        return self.matrix.T.tocsr()

    @functools.cached_property
    def _backward(self) -> _ThreadedRows | _MKLRows:
        return _product(self._transposed)

    def matmul(self, v: Array) -> Array:
        return self._forward(v)

    def rmatmul(self, r: Array) -> Array:
        return self._backward(r)

    def square_matmul(self, v: Array) -> Array:
        m = self.matrix
        return sparse.csr_array((m.data * m.data, m.indices, m.indptr), shape=m.shape) @ v

    def square_rmatmul(self, r: Array) -> Array:
        return self._squared_transpose(r)

    @functools.cached_property
    def _squared_transpose(self) -> _ThreadedRows | _MKLRows:
        """(X∘X)ᵀ: shares the index arrays of Xᵀ, and is kept, since Newton asks often."""
        t = self._transposed
        return _product(sparse.csr_array((t.data * t.data, t.indices, t.indptr), shape=t.shape))

    def values(self) -> Array:
        return self.matrix.data

    def rows(self, index: npt.NDArray[np.intp]) -> HostCSR:
        return HostCSR(self.matrix[index])
