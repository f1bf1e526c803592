"""CSR products on the host, near memory bandwidth.

Two kernels, the same mathematics; the first that is usable is taken:

* **MKL** (``sparse_dot_mkl`` and ``mkl``, the extra ``bilevel[mkl]``): multi-threaded, and its
  product with 8 columns costs little more than two products with one.
* **SciPy**, which every installation has: its kernels release the interpreter's lock, so row
  blocks with equal numbers of non-zeros in a pool of threads use every core.

For the products with Xᵀ

* MKL keeps Xᵀ as CSR too (built at the first such product), which splits over the cores without a
  reduction. It can multiply by the transpose of what it holds, but takes 2 times as long for one
  column and up to 20 for several. In text most rows of Xᵀ are short and of changing length, and a
  loop of unpredictable length costs more than what it adds up: such rows are kept sorted by length,
  and the result is put back in order. 20 Newsgroups, 7 entries a row, one thread, 1 and 3 columns:
  1.2 and 1.9 ms as they come, 0.5 and 1.3 ms sorted.
* SciPy adds the rows of X up into the result, a block of features a thread, and no copy is needed
  on one thread: 0.6 and 1.4 ms there, against 1.2 and 3.1 ms for the rows of Xᵀ.

Measured by ``benchmarks/bandwidth.py`` on two cores, float64, 20 Newsgroups six times over
(10.7 million non-zeros, larger than the caches), X @ V in milliseconds for 1, 2, 4 and 8 columns
(copying as many bytes takes 1.9 ms for one column)::

    SciPy, one thread      8.7   29.6   30.6   35.7
    SciPy, threaded        4.8   10.3   16.4   18.5
    MKL                    4.2    4.6    5.3    9.8
    numba, plain loop     14.2   18.3   24.2   38.9

numba is no better than what is here already, at the price of a large dependency and a compiler
at run time. Creating MKL's handle at each call, as sparse_dot_mkl does, costs 0.03 ms of 0.37 ms
(20 Newsgroups once, one column); a handle kept for the matrix would need its private functions.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .._cached import cached_property
from ._processes import BetweenForks
from ._protocol import Array
from ._sparse_check import short_indices
from ._transposing_csr import MatrixKernel

#: A second thread pays from 200,000 non-zeros on: 77 µs against 89 µs; half as many, 54 against 42.
_MIN_NNZ_PER_THREAD = 100_000

#: Wider products are served in pieces: X @ V with 16 columns takes far more than twice the time
#: of 8 (MKL 35 ms against 10, SciPy 66 ms against 23), Xᵀ @ R 1.7 times.
_MAX_COLUMNS = 8

#: Rows of Xᵀ with fewer entries than this on average are sorted by length (_GatheredRows).
_SHORT_ROW = 50

#: SciPy's product with several columns takes the time of about 4 single ones, however few.
_MIN_COLUMNS_AT_ONCE = 4


def _n_threads() -> int:
    """Count the cores this process may use; BILEVEL_NUM_THREADS overrides."""
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


if hasattr(os, "register_at_fork"):
    # A child has its parent's pools without their threads, and would wait for ever: it makes new.
    os.register_at_fork(after_in_child=_pool.cache_clear)


#: MKL at work, its import as well: a child would wait for the module that another thread loads.
_mkl_calls = BetweenForks()


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
        with _mkl_calls:
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
    for start, stop in itertools.pairwise(edges):
        lo, hi = indptr[start], indptr[stop]
        blocks.append(
            sparse.csr_array(
                (matrix.data[lo:hi], matrix.indices[lo:hi], indptr[start : stop + 1] - lo),
                shape=(int(stop - start), matrix.shape[1]),
                copy=False,
            )
        )
    return blocks


def _column_blocks(matrix: sparse.csr_array, n_blocks: int) -> list[sparse.csr_array]:
    """Split the columns into copies with about equal numbers of non-zeros."""
    filled = np.cumsum(np.bincount(matrix.indices, minlength=matrix.shape[1]))
    cuts = np.searchsorted(filled, np.linspace(0, matrix.nnz, n_blocks + 1)[1:-1]) + 1
    edges = np.unique(np.concatenate([[0], cuts, [matrix.shape[1]]]))
    return [matrix[:, start:stop] for start, stop in itertools.pairwise(edges)]


Product: TypeAlias = Callable[[Array], Array]


def _of_each(products: Sequence[Product], v: Array) -> list[Array]:
    """All products with v, each in a thread; the first in this one."""
    first, *rest = products
    if not rest:
        return [first(v)]
    try:
        others = [_pool(len(products)).submit(product, v) for product in rest]
    except RuntimeError:
        # No thread is to be had, or Python is ending: it refuses new work while it still waits
        # for a thread of the user's that runs this.
        return [product(v) for product in products]
    return [first(v), *(other.result() for other in others)]


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _ThreadedRows:
    """matrix @ v by SciPy, a block of rows a thread."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        n_blocks = max(1, min(_n_threads(), matrix.nnz // _MIN_NNZ_PER_THREAD))
        self._blocks = _row_blocks(matrix, n_blocks) if n_blocks > 1 else [matrix]

    def __call__(self, v: Array) -> Array:
        if v.ndim == 1 or v.shape[1] >= _MIN_COLUMNS_AT_ONCE:
            return self._at_once(np.ascontiguousarray(v))
        columns = [self._at_once(np.ascontiguousarray(column)) for column in v.T]
        return np.stack(columns, axis=1)

    def _at_once(self, v: Array) -> Array:
        return _joined(_of_each([block.__matmul__ for block in self._blocks], v))


class _MKLRows:
    """matrix @ v by MKL."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        self._matrix = sparse.csr_matrix(matrix)  # sparse_dot_mkl knows the matrix classes
        self._product = _mkl_product()

    def __call__(self, v: Array) -> Array:
        with _mkl_calls:
            return self._product(self._matrix, np.ascontiguousarray(v))


@dataclass(frozen=True)
class _ScatteredRows:
    """matrixᵀ @ r by SciPy, a block of columns of the matrix a thread."""

    blocks: list[sparse.csr_array]

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> _ScatteredRows:
        n_blocks = max(1, min(_n_threads(), matrix.nnz // _MIN_NNZ_PER_THREAD))
        return cls(_column_blocks(matrix, n_blocks) if n_blocks > 1 else [matrix])

    def squared(self) -> _ScatteredRows:
        """The same for the matrix of squares, which shares the indices."""
        return _ScatteredRows([_squared(block) for block in self.blocks])

    def __call__(self, r: Array) -> Array:
        r = np.ascontiguousarray(r)
        return _joined(_of_each([block.T.__matmul__ for block in self.blocks], r))


@dataclass(frozen=True)
class _GatheredRows:
    """matrixᵀ @ r by MKL, from the rows of matrixᵀ in the order that ``back`` undoes, if any."""

    rows: sparse.csr_array
    back: npt.NDArray[np.intp] | None

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> _GatheredRows:
        rows = matrix.T.tocsr()
        if rows.nnz > _SHORT_ROW * rows.shape[0]:
            return cls(rows, None)
        order = np.argsort(-np.diff(rows.indptr), kind="stable")
        return cls(rows[order], np.argsort(order))

    def squared(self) -> _GatheredRows:
        """The same for the matrix of squares, which shares the indices."""
        return _GatheredRows(_squared(self.rows), self.back)

    @cached_property
    def _product(self) -> Product:
        return _MKLRows(self.rows)

    def __call__(self, r: Array) -> Array:
        result = self._product(r)
        return result if self.back is None else np.take(result, self.back, axis=0)


def _mkl_serves(matrix: sparse.csr_array) -> bool:
    # MKL's usual interface has 32-bit indices; it refuses an empty matrix.
    return _mkl_product() is not None and matrix.nnz > 0 and matrix.indices.dtype == np.int32


def _forward(matrix: sparse.csr_array) -> Product:
    return _MKLRows(matrix) if _mkl_serves(matrix) else _ThreadedRows(matrix)


def _backward(matrix: sparse.csr_array) -> _GatheredRows | _ScatteredRows:
    return _GatheredRows.of(matrix) if _mkl_serves(matrix) else _ScatteredRows.of(matrix)


def _in_pieces(product: Product, v: Array) -> Array:
    """Serve a wide operand a few columns at a time."""
    if v.ndim == 1 or v.shape[1] <= _MAX_COLUMNS:
        return product(v)
    starts = range(0, v.shape[1], _MAX_COLUMNS)
    return np.concatenate([product(v[:, i : i + _MAX_COLUMNS]) for i in starts], axis=1)


def _canonical(
    data: Array, indices: Array, indptr: Array, shape: tuple[int, int]
) -> sparse.csr_array:
    """Sum repeated entries, whose squares would be wrong, and take 32-bit indices where they fit.

    The caller's arrays are not touched; nothing is copied where there is nothing to do. The matrix
    is built anew, since what SciPy has noted about the order of the entries of another may be older
    than they are.
    """
    numbers = short_indices(indices, indptr, shape)
    matrix = sparse.csr_array((np.ascontiguousarray(data), *numbers), shape=shape, copy=False)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


class HostCSR(MatrixKernel):
    """A scipy.sparse CSR matrix as a :class:`SparseKernel`.

    Parameters
    ----------
    data, indices, indptr : array
        Those of the matrix, float32 or float64; repeated entries are summed in a copy.
    shape : tuple of int
        (n, p).
    """

    #: A column of eight costs a third of a product of its own with MKL, half with SciPy; one of
    #: two to four costs 0.3 to 0.6 with MKL, and nearly as much as its own with SciPy.
    columns_per_pass = _MAX_COLUMNS

    def __init__(self, data: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> None:
        super().__init__(_canonical(data, indices, indptr, shape))

    @property
    def nnz(self) -> int:
        return int(self.matrix.nnz)

    @cached_property
    def longest_row(self) -> int:
        """The most entries of a row: a sum of so many terms rounds no further."""
        return int(np.max(np.diff(self.matrix.indptr), initial=0))

    @cached_property
    def _rows(self) -> Product:
        return _forward(self.matrix)

    @cached_property
    def _columns(self) -> _GatheredRows | _ScatteredRows:
        return _backward(self.matrix)

    @cached_property
    def _squared_columns(self) -> Product:
        """(X∘X)ᵀ, kept since Newton asks often."""
        return self._columns.squared()

    def matmul(self, v: Array) -> Array:
        return _in_pieces(self._rows, v)

    def rmatmul(self, r: Array) -> Array:
        return _in_pieces(self._columns, r)

    def square_matmul(self, v: Array) -> Array:
        return _squared(self.matrix) @ v

    def square_rmatmul(self, r: Array) -> Array:
        return _in_pieces(self._squared_columns, r)

    def values(self) -> Array:
        return self.matrix.data

    def parts(self) -> tuple[Array, Array, Array]:
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    def rows(self, index: npt.NDArray[np.intp]) -> HostCSR:
        part = self.matrix[index]
        return HostCSR(part.data, part.indices, part.indptr, part.shape)


def _squared(matrix: sparse.csr_array) -> sparse.csr_array:
    parts = (matrix.data * matrix.data, matrix.indices, matrix.indptr)
    return sparse.csr_array(parts, shape=matrix.shape, copy=False)
