"""Compressed matrices as cuSPARSE takes them."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self

import cupy
import numpy as np
import scipy.sparse
from cupy import _counts
from cupy._array import ndarray, operand, wrap
from cupy._names import names, restrict, unimplemented

__all__ = [
    "coo_matrix",
    "csc_matrix",
    "csr_matrix",
    "issparse",
    "isspmatrix",
    "isspmatrix_coo",
    "isspmatrix_csc",
    "isspmatrix_csr",
    "spmatrix",
]


class spmatrix:  # noqa: N801
    """What every format is."""

    __array_priority__ = 101
    ndim = 2
    format: ClassVar[str]

    data: ndarray
    _shape: tuple[int, int]

    shape = property(lambda self: self._shape)
    dtype = property(lambda self: self.data.dtype)
    nnz = property(lambda self: self.data.size)

    def __getattr__(self, name: str) -> Any:
        path = f"cupyx.scipy.sparse.{self.format}_matrix"
        if name in names("classes", path):
            raise NotImplementedError(f"The stand-in has no {path}.{name} yet.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __array__(self, *args: Any) -> NoReturn:
        raise TypeError("Implicit conversion to a host NumPy array via __array__ is not allowed.")

    def __len__(self) -> NoReturn:
        raise TypeError("sparse matrix length is ambiguous; use getnnz() or shape[0]")


class _Compressed(spmatrix):
    """Its three arrays, and what is noted about the order of the indices."""

    _of_scipy: ClassVar[type]

    indices: ndarray
    indptr: ndarray
    _canonical: bool | None

    def __init__(self, arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> None:
        data, indices, indptr, found = self._parts_of(arg1)
        shape = found if shape is None else tuple(int(n) for n in shape)
        if shape is None:
            raise NotImplementedError("The stand-in wants the shape of a matrix of three arrays.")
        dtype = _data_dtype(data, dtype)
        if len(indptr) != (shape if self.format == "csr" else shape[::-1])[0] + 1:
            raise ValueError(f"index pointer size ({len(indptr)}) does not suit shape {shape}")
        number = _index_dtype(indices, shape)
        indices, indptr = (part.astype(number, copy=copy) for part in (indices, indptr))
        self._set(data.astype(dtype, copy=copy), indices, indptr, shape)

    def _parts_of(self, arg1: Any) -> tuple[Any, Any, Any, Any]:
        if isinstance(arg1, spmatrix):
            same = arg1.tocsr() if self.format == "csr" else arg1.tocsc()
            return same.data, same.indices, same.indptr, same.shape
        if isinstance(arg1, tuple) and len(arg1) == 3:
            _check_parts(*arg1)
            return (*arg1, None)
        if scipy.sparse.issparse(arg1):
            same = arg1.asformat(self.format)
            parts = (cupy.array(part) for part in (same.data, same.indices, same.indptr))
            return (*parts, same.shape)
        if isinstance(arg1, ndarray) and arg1.ndim == 2:
            _counts.launched("dense2csr", 4)
            _counts.read("dense2csr")
            same = self._of_scipy(operand(arg1))
            return (*map(wrap, (same.data, same.indices, same.indptr)), same.shape)
        raise ValueError("Unsupported initializer format")

    def _set(self, data: Any, indices: Any, indptr: Any, shape: Any, canonical: Any = None) -> Self:
        self.data, self.indices, self.indptr = data, indices, indptr
        self._shape, self._canonical = tuple(int(n) for n in shape), canonical
        return self

    @classmethod
    def _make(cls, data: Any, indices: Any, indptr: Any, shape: Any, canonical: Any = None) -> Self:
        return object.__new__(cls)._set(data, indices, indptr, shape, canonical)

    @classmethod
    def _from(cls, host: Any, canonical: bool | None = None) -> Self:
        """From a matrix of SciPy's, with 32-bit indices."""
        parts = (host.data, host.indices.astype(np.int32), host.indptr.astype(np.int32))
        return cls._make(*map(wrap, parts), host.shape, canonical)

    def _host(self) -> Any:
        """SciPy's matrix of the same three arrays."""
        parts = tuple(operand(part) for part in (self.data, self.indices, self.indptr))
        return self._of_scipy(parts, shape=self.shape)

    # -- order ---------------------------------------------------------------------------------

    @property
    def has_canonical_format(self) -> bool:
        """Sorted and without repetition: looked up once, and not again when the arrays change."""
        if self._canonical is None:
            if self.data.size:
                _counts.launched("has_canonical_format", 2)
                _counts.read("has_canonical_format")
            self._canonical = bool(self._host().has_canonical_format)
        return self._canonical

    @has_canonical_format.setter
    def has_canonical_format(self, value: bool) -> None:
        self._canonical = bool(value)

    def sum_duplicates(self) -> None:
        if self.has_canonical_format:
            return
        _counts.launched("sum_duplicates", 8)
        _counts.read("sum_duplicates")
        host = self._host().copy()
        host.has_canonical_format = host.has_sorted_indices = False
        host.sum_duplicates()
        made = self._from(host, canonical=True)
        self._set(made.data, made.indices, made.indptr, self.shape, canonical=True)

    # -- copies --------------------------------------------------------------------------------

    def copy(self) -> Self:
        parts = (part.copy() for part in (self.data, self.indices, self.indptr))
        return self._make(*parts, self.shape, self._canonical)

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        data = self.data.astype(dtype, copy=copy)
        return self._make(data, self.indices, self.indptr, self.shape, self._canonical)

    def get(self, stream: Any = None) -> Any:
        parts = tuple(part.get() for part in (self.data, self.indices, self.indptr))
        return self._of_scipy(parts, shape=self.shape)

    def toarray(self, order: Any = None, out: Any = None) -> ndarray:
        _counts.launched("toarray")
        return wrap(self._host().toarray(order=order))

    def todense(self, order: Any = None, out: Any = None) -> ndarray:
        return self.toarray(order, out)

    def __reduce__(self) -> Any:
        return _made_anew, (type(self), self.data, self.indices, self.indptr, self.shape)


def _made_anew(cls: Any, *parts: Any) -> Any:
    return cls._make(*parts)


def _check_parts(data: Any, indices: Any, indptr: Any) -> None:
    if not all(isinstance(part, ndarray) and part.ndim == 1 for part in (data, indices, indptr)):
        raise ValueError("data, indices, and indptr must be 1-D cupy arrays")
    if len(data) != len(indices):
        raise ValueError("indices and data should have the same size")
    _counts.launched("indptr bounds", 2)
    _counts.read("indptr bounds")
    first, last = operand(indptr)[[0, -1]]
    if first != 0:
        raise ValueError(f"index pointer should start with 0 (got {first})")
    if last > data.size:
        raise ValueError(f"last index pointer ({last}) exceeds the size of data ({data.size})")


def _data_dtype(data: Any, dtype: Any) -> Any:
    """What cuSPARSE multiplies."""
    dtype = np.dtype(data.dtype if dtype is None else dtype)
    if dtype.char not in "?fdFD":
        raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
    return dtype


def _index_dtype(indices: Any, shape: tuple[int, ...]) -> Any:
    """32 bits where the numbers fit: the oldest version goes no further."""
    largest = max(*shape, len(indices))
    if largest > np.iinfo(np.int32).max:
        raise NotImplementedError("The stand-in has indices of 32 bits.")
    return np.int32


def _refused(name: str) -> property:
    def raised(self: Any) -> NoReturn:
        raise NotImplementedError

    return property(raised)


class csc_matrix(_Compressed):  # noqa: N801
    """By columns."""

    format = "csc"
    _of_scipy = scipy.sparse.csc_matrix

    @property
    def T(self) -> csr_matrix:  # noqa: N802
        return csr_matrix._make(
            self.data, self.indices, self.indptr, self.shape[::-1], self._canonical
        )

    def tocsc(self, copy: Any = None) -> csc_matrix:
        return self.copy() if copy else self

    def tocsr(self, copy: bool = False) -> csr_matrix:
        _counts.launched("csc2csr", 2)
        return csr_matrix._from(self._host().tocsr())


class csr_matrix(_Compressed):  # noqa: N801
    """By rows."""

    format = "csr"
    _of_scipy = scipy.sparse.csr_matrix

    @property
    def T(self) -> csc_matrix:  # noqa: N802
        return csc_matrix._make(
            self.data, self.indices, self.indptr, self.shape[::-1], self._canonical
        )

    def tocsr(self, copy: bool = False) -> csr_matrix:
        return self.copy() if copy else self

    def tocsc(self, copy: bool = False) -> csc_matrix:
        _counts.launched("csr2csc", 2)
        return csc_matrix._from(self._host().tocsc())

    def __matmul__(self, other: Any) -> ndarray:
        """With several columns it takes and gives Fortran's order; it sums repetitions in place."""
        if not isinstance(other, ndarray):
            return NotImplemented
        if other.ndim not in (1, 2):
            raise ValueError("could not interpret dimensions")
        self.sum_duplicates()
        right = cupy.asfortranarray(other)
        if self.shape[1] != right.shape[0]:
            raise ValueError("dimension mismatch")
        dtype = np.result_type(self.dtype, right.dtype)
        for part in (self, right):
            if part.dtype != dtype:
                _counts.launched("cast")
        _counts.launched("zeros")
        _counts.launched("spmv" if other.ndim == 1 else "spmm")
        found = self._host().astype(dtype) @ operand(right).astype(dtype)
        return wrap(np.asfortranarray(found))

    def dot(self, other: Any) -> ndarray:
        return self @ other

    def __getitem__(self, key: Any) -> csr_matrix:
        """Rows by their numbers, which go round, or a slice of them; what is noted goes along."""
        if isinstance(key, slice):
            _counts.launched("slice", 4)
            _counts.read("slice")
            return csr_matrix._from(self._host()[key], self._canonical)
        if not isinstance(key, np.ndarray | ndarray | list):
            raise NotImplementedError("The stand-in takes rows by an array of numbers.")
        numbers = cupy.asarray(key)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise NotImplementedError("The stand-in takes rows by an array of numbers.")
        _counts.launched("rows", 4)
        _counts.read("rows")
        rows = operand(numbers) % self.shape[0]
        return csr_matrix._from(self._host()[rows], self._canonical)


class coo_matrix(spmatrix):  # noqa: N801
    """Entries by row and column, in any order, some of them repeated."""

    format = "coo"

    def __init__(self, arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> None:
        if isinstance(arg1, spmatrix) or scipy.sparse.issparse(arg1):
            host = (arg1._host() if isinstance(arg1, spmatrix) else arg1).tocoo()
            arg1 = tuple(map(cupy.array, (host.data, host.row, host.col)))
            shape = host.shape if shape is None else shape
            data, row, col = arg1
        elif isinstance(arg1, tuple) and len(arg1) == 2:
            data, (row, col) = arg1
        else:
            raise TypeError("invalid input format")
        if not all(isinstance(part, ndarray) and part.ndim == 1 for part in (data, row, col)):
            raise ValueError("row, column, and data arrays must be 1-D")
        if not len(data) == len(row) == len(col):
            raise ValueError("row, column, and data array must all be the same length")
        if shape is None:
            raise NotImplementedError("The stand-in wants the shape of a matrix.")
        self._shape = tuple(int(n) for n in shape)
        self.data = data.astype(_data_dtype(data, dtype), copy=copy)
        number = _index_dtype(row, self._shape)
        self.row, self.col = (part.astype(number, copy=copy) for part in (row, col))
        _check_coordinates(self.row, self.col, self._shape)
        self.has_canonical_format = False

    def _host(self) -> Any:
        data, row, col = (operand(part) for part in (self.data, self.row, self.col))
        return scipy.sparse.coo_matrix((data, (row, col)), shape=self.shape)

    def copy(self) -> coo_matrix:
        parts = (part.copy() for part in (self.row, self.col))
        return coo_matrix((self.data.copy(), tuple(parts)), shape=self.shape)

    def tocoo(self, copy: bool = False) -> coo_matrix:
        return self.copy() if copy else self

    def tocsr(self, copy: bool = False) -> csr_matrix:
        """Sorted, and summed where entries are repeated."""
        _counts.launched("coo2csr", 10)
        _counts.read("sum_duplicates")
        return csr_matrix._from(self._host().tocsr(), canonical=True)

    def tocsc(self, copy: bool = False) -> csc_matrix:
        _counts.launched("coo2csc", 10)
        _counts.read("sum_duplicates")
        return csc_matrix._from(self._host().tocsc(), canonical=True)

    def toarray(self, order: Any = None, out: Any = None) -> ndarray:
        return self.tocsr().toarray(order, out)

    def get(self, stream: Any = None) -> Any:
        data, row, col = (part.get() for part in (self.data, self.row, self.col))
        return scipy.sparse.coo_matrix((data, (row, col)), shape=self.shape)

    def __matmul__(self, other: Any) -> ndarray:
        return self.tocsr() @ other


def _check_coordinates(row: Any, col: Any, shape: tuple[int, ...]) -> None:
    """Refuse numbers out of range: one look at the bounds of both."""
    if not row.size:
        return
    _counts.launched("coordinate bounds", 5)
    _counts.read("coordinate bounds")
    for name, numbers, length in (("row", row, shape[0]), ("column", col, shape[1])):
        if operand(numbers).max() >= length:
            raise ValueError(f"{name} index exceeds matrix dimensions")
        if operand(numbers).min() < 0:
            raise ValueError(f"negative {name} index found")


for _class in (coo_matrix, csc_matrix, csr_matrix):
    _path = f"cupyx.scipy.sparse.{_class.__name__}"
    restrict(spmatrix, _path)
    if issubclass(_class, _Compressed):
        restrict(_Compressed, _path)
    for _name in unimplemented(_path):
        setattr(_class, _name, _refused(_name))
    restrict(_class, _path)


def issparse(x: Any) -> bool:
    return isinstance(x, spmatrix)


def isspmatrix(x: Any) -> bool:
    return isinstance(x, spmatrix)


def isspmatrix_coo(x: Any) -> bool:
    return isinstance(x, coo_matrix)


def isspmatrix_csr(x: Any) -> bool:
    return isinstance(x, csr_matrix)


def isspmatrix_csc(x: Any) -> bool:
    return isinstance(x, csc_matrix)
