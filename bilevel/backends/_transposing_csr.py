"""What the sparse kernels have in common, and those that multiply well from the left alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .._cached import cached_property
from ._protocol import Array


class MatrixKernel:
    """What every :class:`SparseKernel` around a CSR matrix of a library has.

    Parameters
    ----------
    matrix : CSR matrix of the library, shape (n, p)
        X, without repeated entries: their squares would be wrong.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def __getstate__(self) -> dict[str, Any]:
        """The matrix alone: what is kept for its products is made anew from it."""
        return {"matrix": self.matrix}

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.matrix.shape
        return int(n), int(p)

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype


class TransposingCSR(MatrixKernel, ABC):
    """What the :class:`SparseKernel` of such a library consists of, but for its own calls.

    Xᵀ is kept as CSR too, built at the first product with it.
    """

    @staticmethod
    @abstractmethod
    def _transpose(matrix: Any) -> Any:
        """Xᵀ as CSR."""

    @staticmethod
    @abstractmethod
    def _square(matrix: Any) -> Any:
        """X∘X, which shares the index arrays of X."""

    @property
    def longest_row(self) -> int:
        return self.shape[1]

    @cached_property
    def _transposed(self) -> Any:
        return self._transpose(self.matrix)

    @cached_property
    def _squared(self) -> Any:
        """X∘X: kept, since to build it costs launches and checks beside the product."""
        return self._square(self.matrix)

    @cached_property
    def _squared_transpose(self) -> Any:
        """(X∘X)ᵀ: kept, since Newton asks often."""
        return self._square(self._transposed)

    def matmul(self, v: Array) -> Array:
        return self.matrix @ v

    def rmatmul(self, r: Array) -> Array:
        return self._transposed @ r

    def square_matmul(self, v: Array) -> Array:
        return self._squared @ v

    def square_rmatmul(self, r: Array) -> Array:
        return self._squared_transpose @ r
