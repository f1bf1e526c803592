"""Sparse matrices checked at the door.

Compiled products trust the index arrays of a matrix: a wrong number reads or writes memory that is
not theirs, which ends the process, or gives an answer that looks right. Nothing stops a user's code
from changing these arrays after the library has checked them, so they are checked here, once, by
their smallest and largest number: less than a pass over the data.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._registry import is_sparse


def check_sparse(X: Any, name: str = "X") -> None:
    """Refuse a sparse matrix whose index arrays do not describe a matrix of its shape.

    Unsorted and repeated entries are fine. What is not sparse, or of a library whose sparse
    arrays serve no products here, passes.

    Parameters
    ----------
    X : sparse matrix of SciPy, CuPy or torch, shape (n, p)
        The matrix; it is not changed.
    name : str
        How errors call it.

    Raises
    ------
    ValueError, TypeError
        If a number lies outside the matrix, or the arrays do not fit each other or the shape;
        the message names the array.

    Examples
    --------
    >>> from scipy import sparse
    >>> X = sparse.eye_array(2, format="csr")
    >>> X.indices[1] = 2
    >>> check_sparse(X)
    Traceback (most recent call last):
    ...
    ValueError: X.indices must lie in 0, ..., 1, got numbers from 0 to 2.
    """
    if not is_sparse(X):
        return
    kind = getattr(X, "format", None) or str(getattr(X, "layout", "")).removeprefix("torch.")
    if kind in _CHECKS:
        _CHECKS[kind](X, name)


def check_csr(data: Any, indices: Any, indptr: Any, shape: tuple[int, int], name: str) -> None:
    """Refuse the three arrays of a CSR matrix where they do not describe one of this shape.

    Examples
    --------
    >>> check_csr(np.ones(2), np.array([0, 1]), np.array([0, 1]), (1, 2), "X")
    Traceback (most recent call last):
    ...
    ValueError: X.indptr ends at 1, but X.indices holds 2 numbers: expected the same.
    """
    n, p = shape
    _Compressed(_Part(f"{name}.indices", indices), _Part(f"{name}.indptr", indptr), n, p).check(
        _Part(f"{name}.data", data)
    )


def short_indices(indices: Any, indptr: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Give checked host index arrays 32 bits where all numbers fit, 64 where not, in one piece.

    Examples
    --------
    >>> [part.dtype.name for part in short_indices(np.array([0]), np.array([0, 1]), (1, 1))]
    ['int32', 'int32']
    """
    kind = np.int32 if max(len(indices), *shape) < 2**31 else np.int64
    return np.ascontiguousarray(indices, dtype=kind), np.ascontiguousarray(indptr, dtype=kind)


@dataclass(frozen=True)
class _Part:
    """An array of a matrix, and what an error calls it."""

    name: str
    array: Any

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def check_axes(self, ndim: int = 1) -> None:
        found = getattr(self.array, "shape", None)
        if found is None:
            raise TypeError(f"{self.name} must be an array, got {type(self.array).__name__}.")
        if len(found) != ndim:
            axes = "one axis" if ndim == 1 else f"{ndim} axes"
            raise ValueError(f"{self.name} must have {axes}, got shape {tuple(found)}.")

    def check_integers(self) -> None:
        dtype = str(self.array.dtype).rpartition(".")[2]
        if not re.fullmatch(r"[<>]?u?i(nt)?\d+", dtype):
            raise TypeError(f"{self.name} must hold integers, got dtype {dtype}.")

    def check_indices(self, size: int) -> None:
        """Integers in 0, ..., size-1, along one axis."""
        self.check_axes()
        self.check_integers()
        if len(self) == 0:
            return
        low, high = int(self.array.min()), int(self.array.max())
        if low < 0 or high >= size:
            cure = " If they count from 1, subtract 1." if low > 0 and high == size else ""
            raise ValueError(
                f"{self.name} must lie in 0, ..., {size - 1}, got numbers from {low} to {high}."
                + cure
            )

    def check_as_long_as(self, other: _Part) -> None:
        if len(self) != len(other):
            raise ValueError(
                f"{self.name} holds {len(self)} numbers, but {other.name} holds {len(other)}: "
                "expected the same."
            )


@dataclass(frozen=True)
class _Compressed:
    """The index arrays of a matrix that is compressed along one axis."""

    indices: _Part
    indptr: _Part
    n_lines: int
    size: int

    def check(self, data: _Part, data_ndim: int = 1) -> None:
        indices, indptr = self.indices, self.indptr
        data.check_axes(data_ndim)
        indptr.check_axes()
        indptr.check_integers()
        if len(indptr) != self.n_lines + 1:
            raise ValueError(
                f"{indptr.name} must hold {self.n_lines + 1} numbers, got {len(indptr)}."
            )
        indices.check_indices(self.size)
        data.check_as_long_as(indices)
        first, last = int(indptr.array[0]), int(indptr.array[-1])
        if first != 0:
            raise ValueError(f"{indptr.name} must start at 0, got {first}.")
        if bool((indptr.array[1:] < indptr.array[:-1]).any()):
            raise ValueError(f"{indptr.name} must not decrease.")
        if last != len(indices):
            raise ValueError(
                f"{indptr.name} ends at {last}, but {indices.name} holds {len(indices)} numbers: "
                "expected the same."
            )


# -- SciPy and CuPy --------------------------------------------------------------------------------


def _by_rows(X: Any, name: str) -> None:
    check_csr(X.data, X.indices, X.indptr, X.shape, name)


def _by_columns(X: Any, name: str) -> None:
    check_csr(X.data, X.indices, X.indptr, X.shape[::-1], name)


def _by_blocks(X: Any, name: str) -> None:
    data = _Part(f"{name}.data", X.data)
    data.check_axes(3)
    sizes = [int(size) for size in X.data.shape[1:]]
    if any(size == 0 or total % size for total, size in zip(X.shape, sizes, strict=True)):
        raise ValueError(f"{name}.data has blocks of {sizes}, which do not divide {X.shape}.")
    lines, size = (total // size for total, size in zip(X.shape, sizes, strict=True))
    _Compressed(
        _Part(f"{name}.indices", X.indices), _Part(f"{name}.indptr", X.indptr), lines, size
    ).check(data, data_ndim=3)


def _by_coordinates(X: Any, name: str) -> None:
    data = _Part(f"{name}.data", X.data)
    data.check_axes()
    for part, size in zip((("row", X.row), ("col", X.col)), X.shape, strict=True):
        numbers = _Part(f"{name}.{part[0]}", part[1])
        numbers.check_indices(size)
        numbers.check_as_long_as(data)


def _by_diagonals(X: Any, name: str) -> None:
    data, offsets = _Part(f"{name}.data", X.data), _Part(f"{name}.offsets", X.offsets)
    data.check_axes(2)
    offsets.check_axes()
    offsets.check_integers()
    offsets.check_as_long_as(data)
    numbers = offsets.array.tolist()
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{name}.offsets must be different numbers, got {numbers[:10]}.")


def _by_lists(X: Any, name: str) -> None:
    n, p = X.shape
    if X.rows.shape != (n,) or X.data.shape != (n,):
        raise ValueError(
            f"{name}.rows and {name}.data must have shape ({n},), got {X.rows.shape} and "
            f"{X.data.shape}."
        )
    if any(len(row) != len(values) for row, values in zip(X.rows, X.data, strict=True)):
        raise ValueError(f"{name}.rows and {name}.data must hold lists of the same lengths.")
    numbers = list(itertools.chain.from_iterable(X.rows))
    _Part(f"{name}.rows", np.asarray(numbers or np.empty(0, np.int64))).check_indices(p)


def _by_keys(X: Any, name: str) -> None:
    keys = np.asarray(list(X.keys()) or np.empty((0, 2), np.int64))
    for axis, size in enumerate(X.shape):
        _Part(f"{name}.keys() on axis {axis}", keys[:, axis]).check_indices(size)


# -- torch -----------------------------------------------------------------------------------------


def _torch_compressed(major: str, minor: str, by_columns: bool) -> Callable[[Any, str], None]:
    def check(X: Any, name: str) -> None:
        values = X.values()
        if values.ndim not in (1, 3):
            raise ValueError(
                f"{name}.values() must have one axis, or three for blocks, got shape "
                f"{tuple(values.shape)}."
            )
        sizes = (1, 1) if values.ndim == 1 else (int(values.shape[1]), int(values.shape[2]))
        lines, size = (int(total) // size for total, size in zip(X.shape, sizes, strict=True))
        if by_columns:
            lines, size = size, lines
        _Compressed(
            _Part(f"{name}.{minor}()", getattr(X, minor)()),
            _Part(f"{name}.{major}()", getattr(X, major)()),
            lines,
            size,
        ).check(_Part(f"{name}.values()", values), values.ndim)

    return check


def _torch_coordinates(X: Any, name: str) -> None:
    numbers, values = X._indices(), X._values()  # of an uncoalesced tensor, too
    if values.ndim != 1:
        raise ValueError(f"{name} is a hybrid tensor, with dense rows: use {name}.to_dense().")
    for axis, size in enumerate(X.shape):
        part = _Part(f"{name}.indices()[{axis}]", numbers[axis])
        part.check_indices(int(size))
        part.check_as_long_as(_Part(f"{name}.values()", values))


_CHECKS: Mapping[str, Callable[[Any, str], None]] = {
    "csr": _by_rows,
    "csc": _by_columns,
    "bsr": _by_blocks,
    "coo": _by_coordinates,
    "dia": _by_diagonals,
    "lil": _by_lists,
    "dok": _by_keys,
    "sparse_coo": _torch_coordinates,
    "sparse_csr": _torch_compressed("crow_indices", "col_indices", by_columns=False),
    "sparse_bsr": _torch_compressed("crow_indices", "col_indices", by_columns=False),
    "sparse_csc": _torch_compressed("ccol_indices", "row_indices", by_columns=True),
    "sparse_bsc": _torch_compressed("ccol_indices", "row_indices", by_columns=True),
}
