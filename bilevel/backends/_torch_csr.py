"""CSR products by torch, on the CPU or a GPU."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ._protocol import Array
from ._sparse_check import short_indices
from ._transposing_csr import TransposingCSR


class TorchCSR(TransposingCSR):
    """A torch CSR tensor as a :class:`SparseKernel`.

    Xᵀ is kept, since torch multiplies a compressed matrix from the left alone, and a product with
    rows needs no atomic additions on a GPU.

    Parameters
    ----------
    matrix : torch.Tensor, shape (n, p), any sparse layout
        The matrix; other layouts are converted to CSR.
    """

    #: On a CPU a product with 8 columns takes 1.6 to 2.7 times as long as with one
    #: (``benchmarks/bandwidth.py``).
    columns_per_pass = 8

    def __init__(self, matrix: Any) -> None:
        if str(matrix.layout) in ("torch.sparse_bsr", "torch.sparse_bsc"):
            matrix = _quietly(matrix.to_sparse_coo)  # torch has no other way from blocks
        rows = _quietly(matrix.to_sparse_csr)
        super().__init__(_without_repeats(_with_short_indices(rows)))

    @classmethod
    def from_host(
        cls,
        backend: Any,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> TorchCSR:
        """Move the three host arrays of a CSR matrix to the device."""
        columns, rows = (backend.asarray(part) for part in short_indices(indices, indptr, shape))
        return cls(_csr(rows, columns, backend.asarray(data, dtype), shape))

    def __getstate__(self) -> dict[str, Any]:
        """The parts of the matrix: torch makes no deep copy of a CSR tensor."""
        matrix = self.matrix
        names = ("crow_indices", "col_indices", "values")
        return {"shape": self.shape, **{name: getattr(matrix, name)() for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = (state[name] for name in ("crow_indices", "col_indices", "values", "shape"))
        super().__init__(_csr(*parts))

    @property
    def nnz(self) -> int:
        return int(self.matrix.values().shape[0])

    @staticmethod
    def _transpose(matrix: Any) -> Any:
        return _quietly(lambda: matrix.t().to_sparse_csr())

    @staticmethod
    def _square(matrix: Any) -> Any:
        values = matrix.values()
        return _csr(matrix.crow_indices(), matrix.col_indices(), values * values, matrix.shape)

    def values(self) -> Array:
        return self.matrix.values()

    def parts(self) -> tuple[Array, Array, Array]:
        return self.matrix.values(), self.matrix.col_indices(), self.matrix.crow_indices()

    def rows(self, index: npt.NDArray[np.intp]) -> TorchCSR:
        torch = importlib.import_module("torch")
        device = self.matrix.device
        indptr = self.matrix.crow_indices()
        chosen = torch.as_tensor(np.asarray(index, dtype=np.int64), device=device)
        start, count = indptr[chosen], indptr[chosen + 1] - indptr[chosen]
        new_indptr = torch.cat([count.new_zeros(1), torch.cumsum(count, 0)])
        # The k-th entry of a chosen row lies k places after the start of that row.
        shift = torch.repeat_interleave(start - new_indptr[:-1], count)
        entries = torch.arange(shift.shape[0], device=device) + shift
        columns, values = self.matrix.col_indices()[entries], self.matrix.values()[entries]
        shape = (chosen.shape[0], self.shape[1])
        return TorchCSR(_csr(new_indptr.to(columns.dtype), columns, values, shape))


def _csr(indptr: Any, indices: Any, values: Any, shape: tuple[int, int]) -> Any:
    """Build a CSR tensor, without torch's checks: ours were made at the door."""
    build = importlib.import_module("torch").sparse_csr_tensor
    return _quietly(
        lambda: build(indptr, indices, values, size=tuple(shape), check_invariants=False)
    )


def _without_repeats(matrix: Any) -> Any:
    """Sum the entries of a row that name one column, and sort the row, where any does not rise."""
    torch = importlib.import_module("torch")
    indptr, indices, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    rises = indices[1:] > indices[:-1]
    ends = indptr[1:-1]
    rises[ends[(ends > 0) & (ends < indices.shape[0])].long() - 1] = True  # the next row begins
    if bool(rises.all()):
        return matrix
    numbers = torch.arange(indptr.shape[0] - 1, device=indptr.device)
    rows = torch.repeat_interleave(numbers, indptr.diff().long())
    places = torch.stack([rows, indices.long()])
    entries = torch.sparse_coo_tensor(places, values, tuple(matrix.shape), check_invariants=False)
    return _with_short_indices(_quietly(entries.coalesce().to_sparse_csr))


def _with_short_indices(matrix: Any) -> Any:
    """Take 32-bit indices where they fit: on a CPU torch's products are 1.5 times as fast."""
    int32 = importlib.import_module("torch").int32
    indptr, indices, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    if indices.dtype == int32 or max(values.shape[0], *matrix.shape) >= 2**31:
        return matrix
    return _csr(indptr.to(int32), indices.to(int32), values, matrix.shape)


def _quietly(build: Any) -> Any:
    """Call without torch's notice that its CSR tensors are young: we test the ones we use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return build()
