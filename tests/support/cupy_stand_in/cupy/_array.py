"""The array: a NumPy array that only its own library may look at."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import _counts
from ._names import names, restrict
from .cuda import Device, MemoryPointer, runtime
from .cuda._stream import current_queue

#: What a kernel takes by value.
SCALARS = (bool, int, float, complex, np.generic)


class Memory:
    """What views share: the numbers, where they are, and which work wrote them last."""

    def __init__(self, root: np.ndarray[Any, Any]) -> None:
        self.root = root
        self.device = runtime.getDevice()
        self.work = current_queue().issue()

    def check(self) -> None:
        """Refuse to use it on another device, or on a stream that its writer does not wait for."""
        here = runtime.getDevice()
        if self.device != here:
            raise ValueError(
                "Array device must be same as the current device: array device = "
                f"{self.device} while current = {here}"
            )
        current_queue().check(self.work)


def _base(host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


class Flags:
    """How the numbers lie."""

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self.c_contiguous = host.flags.c_contiguous
        self.f_contiguous = host.flags.f_contiguous
        self.owndata = host.flags.owndata

    def __getitem__(self, name: str) -> bool:
        return {
            "C_CONTIGUOUS": self.c_contiguous,
            "F_CONTIGUOUS": self.f_contiguous,
            "OWNDATA": self.owndata,
        }[name]


def wrap(host: Any, *sources: Any) -> ndarray:
    """An array of the current device; it shares the memory of the source that it is a view of."""
    found = object.__new__(ndarray)
    found._host = np.asarray(host)
    root = _base(found._host)
    for source in sources:
        if isinstance(source, ndarray) and source._memory.root is root:
            found._memory = source._memory
            return found
    found._memory = Memory(root)
    return found


def operand(value: Any) -> Any:
    """What a kernel takes: arrays of this device, and scalars. NumPy's arrays it refuses."""
    if isinstance(value, ndarray):
        value._memory.check()
        return value._host
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def strict(value: Any, name: str) -> Any:
    """An argument that must be an array of the library."""
    if not isinstance(value, ndarray):
        raise TypeError(
            f"Argument of {name} has incorrect type (expected cupy.ndarray, got {type(value)})"
        )
    return operand(value)


def launch(
    name: str, call: Callable[..., Any], *operands: Any, out: Any = None, **options: Any
) -> Any:
    """Run one kernel; into ``out`` where it is given."""
    hosts = [operand(value) for value in operands]
    if out is None:
        with np.errstate(all="ignore"):
            found = call(*hosts, **options)
    else:
        with np.errstate(all="ignore"):
            call(*hosts, out=strict(out, name), **options)
        wrote(out)
    _counts.launched(name)
    if out is not None:
        return out
    if isinstance(found, tuple):
        return tuple(wrap(part, *operands) for part in found)
    return wrap(found, *operands)


def wrote(array: ndarray) -> None:
    """Note that the current stream writes into it."""
    array._memory.work = current_queue().issue()


def to_host(array: ndarray, name: str) -> Any:
    """The numbers on the host, which waits for the current stream."""
    with Device(array._memory.device):
        array._memory.check()
        current_queue().wait()
    _counts.read(name)
    return array._host


def _bounds(key: tuple[Any, ...], shape: tuple[int, ...]) -> Iterator[int | None]:
    """The length of the axis that each part of an index takes."""
    taken = sum(
        np.ndim(part) if _is_mask(part) else part is not None for part in key if part is not ...
    )
    axis = 0
    for part in key:
        yield shape[axis] if part is not None and part is not ... and axis < len(shape) else None
        if part is ...:
            axis += len(shape) - taken
        elif part is not None:
            axis += np.ndim(part) if _is_mask(part) else 1


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == np.bool_


def index(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """An index as NumPy takes it. Numbers out of range go round, as CuPy's do."""
    parts = tuple(
        np.asarray(part) if isinstance(part, list) else part
        for part in (key if isinstance(key, tuple) else (key,))
    )
    hosts: list[Any] = []
    for part, bound in zip(parts, _bounds(tuple(map(_plain, parts)), shape), strict=True):
        host = _plain(part)
        if isinstance(part, ndarray):
            part._memory.check()
        elif isinstance(part, np.ndarray):
            _counts.written("index")
        elif not (part is None or part is ... or isinstance(part, slice)):
            operator.index(part)
        if isinstance(host, np.ndarray):
            if host.dtype.kind == "b":
                _counts.read("mask index")
            elif host.dtype.kind not in "iu":
                raise IndexError(
                    f"arrays used as indices must be of integer or boolean type. ({host.dtype})"
                )
            elif bound:
                host = host % bound
        hosts.append(host)
    return tuple(hosts)


def _plain(part: Any) -> Any:
    return part._host if isinstance(part, ndarray) else part


def _advanced(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return any(isinstance(part, (ndarray, np.ndarray, list)) for part in parts)


class ndarray:  # noqa: N801
    """An array of a device."""

    __slots__ = ("__weakref__", "_host", "_memory")
    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    _host: np.ndarray[Any, Any]
    _memory: Memory

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("The stand-in makes no array of a pointer.")
        self._host = np.empty(shape, dtype=dtype, order=order)  # type: ignore[call-overload]
        self._memory = Memory(self._host)

    # -- what the host knows without asking the device -------------------------------------------

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host))
    device = property(lambda self: Device(self._memory.device))
    data = property(lambda self: MemoryPointer(self._host.ctypes.data, self._memory.device))
    T = property(lambda self: wrap(self._host.T, self))
    real = property(lambda self: wrap(self._host.real, self))

    @shape.setter
    def shape(self, shape: Any) -> None:
        view = self._host.view()
        view.shape = shape
        self._host = view

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # -- what waits for the device -------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> Any:
        if out is not None or stream is not None or not blocking:
            raise NotImplementedError("The stand-in's get() knows the order alone.")
        return to_host(self, "get").copy(order="C" if order == "C" else "A")

    def item(self, *args: Any) -> Any:
        return to_host(self, "item").item(*args)

    def tolist(self) -> Any:
        return to_host(self, "tolist").tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return bytes(to_host(self, "tobytes").tobytes(order))

    def __bool__(self) -> bool:
        return bool(to_host(self, "bool"))

    def __int__(self) -> int:
        return int(to_host(self, "int"))

    def __float__(self) -> float:
        return float(to_host(self, "float"))

    def __complex__(self) -> complex:
        return complex(to_host(self, "complex"))

    def __repr__(self) -> str:
        return repr(to_host(self, "repr"))

    def __str__(self) -> str:
        return str(to_host(self, "str"))

    def __format__(self, spec: str) -> str:
        return format(to_host(self, "format")[()], spec)

    def __reduce__(self) -> Any:
        return _from_host, (to_host(self, "pickle").copy(),)

    def __dlpack__(self, **options: Any) -> Any:
        """The host's memory: that of a device is beyond a stand-in."""
        self._memory.check()
        current_queue().wait()
        return self._host.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._host.__dlpack_device__()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions lead to the library's own, which refuse its arrays."""
        if method != "__call__" or "out" in options:
            return NotImplemented
        return _own(ufunc.__name__)(*inputs, **options)

    def __array_function__(self, func: Any, types: Any, args: Any, options: Any) -> Any:
        place = "linalg." if "linalg" in func.__module__ else ""
        return _own(place + func.__name__)(*args, **options)

    # -- memory --------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> ndarray:
        if not _advanced(key):
            place = index(key, self.shape)
            whole = place if ... in place else (*place, ...)  # one number is a view, too
            return wrap(self._host[whole], self)
        found: ndarray = launch("getitem", lambda host: host[index(key, self.shape)], self)
        _counts.copied(found.nbytes)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        whole = key is ... or (isinstance(key, slice) and key == slice(None))
        if isinstance(value, np.ndarray) and whole:
            _counts.written("set")
            host: Any = value
        else:
            host = operand(value)
        self._memory.check()
        self._host[index(key, self.shape)] = host
        _counts.launched("setitem")
        wrote(self)

    def copy(self, order: str = "C") -> ndarray:
        """On the current device, also from another."""
        with Device(self._memory.device):
            self._memory.check()
        _counts.launched("copy")
        _counts.copied(self.nbytes)
        return wrap(self._host.copy(order=order))  # type: ignore[arg-type]

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def astype(
        self,
        dtype: Any,
        order: str = "K",
        casting: Any = None,
        subok: Any = None,
        copy: bool = True,
    ) -> ndarray:
        found = operand(self).astype(dtype, order=order, casting=casting or "unsafe", copy=copy)
        return self._moved("astype", found)

    def _moved(self, name: str, host: Any) -> ndarray:
        """This very array, a view of it, or a copy, which is a launch."""
        if host is self._host:
            return self
        found = wrap(host, self)
        if found._memory is not self._memory and found.size:
            _counts.launched(name)
            _counts.copied(found.nbytes)
        return found

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        return self._moved("reshape", operand(self).reshape(*shape, order=order))

    def ravel(self, order: str = "C") -> ndarray:
        return self._moved("ravel", operand(self).ravel(order=order))

    def flatten(self, order: str = "C") -> ndarray:
        return self._moved("flatten", operand(self).flatten(order=order))

    def transpose(self, *axes: Any) -> ndarray:
        return wrap(self._host.transpose(*axes), self)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return wrap(self._host.swapaxes(axis1, axis2), self)

    def squeeze(self, axis: Any = None) -> ndarray:
        return wrap(self._host.squeeze(axis), self)

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:  # noqa: A002
        if type is not None:
            raise NotImplementedError("The stand-in has one type of array.")
        return wrap(self._host.view() if dtype is None else self._host.view(dtype), self)

    def fill(self, value: Any) -> None:
        host = operand(value)
        operand(self).fill(host)
        _counts.launched("fill")
        wrote(self)

    # -- numbers -------------------------------------------------------------------------------

    def sum(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        return _own("sum")(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def mean(
        self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        return _own("mean")(self, axis=axis, dtype=dtype, out=out, keepdims=keepdims)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return _own("max")(self, axis=axis, out=out, keepdims=keepdims)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return _own("min")(self, axis=axis, out=out, keepdims=keepdims)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return _own("all")(self, axis=axis, out=out, keepdims=keepdims)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return _own("any")(self, axis=axis, out=out, keepdims=keepdims)

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> Any:
        return _own("take")(self, indices, axis=axis, out=out)

    def dot(self, b: Any, out: Any = None) -> Any:
        return _own("dot")(self, b, out=out)

    def conj(self) -> Any:
        return _own("conj")(self)

    def __getattr__(self, name: str) -> Any:
        if name in names("classes", "cupy.ndarray"):
            raise NotImplementedError(f"The stand-in has no ndarray.{name} yet.")
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")


restrict(ndarray, "cupy.ndarray")


def _own(name: str) -> Any:
    """A function of the library by its name."""
    from . import _functions

    return _functions.named(name)


def _from_host(host: Any) -> ndarray:
    _counts.written("array")
    return wrap(host.copy())


#: The ufunc of each operator, and whether its mirror image and its in-place form are there.
_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def _defers(other: Any) -> bool:
    """Whether the other operand has its own answer, as a sparse matrix."""
    return not isinstance(other, ndarray) and getattr(other, "__array_priority__", 0) > 100


def _operators(symbol: str, name: str) -> None:
    def forward(self: ndarray, other: Any) -> Any:
        return NotImplemented if _defers(other) else _own(name)(self, other)

    def mirrored(self: ndarray, other: Any) -> Any:
        return NotImplemented if _defers(other) else _own(name)(other, self)

    def in_place(self: ndarray, other: Any) -> Any:
        return _own(name)(self, other, out=self)

    setattr(ndarray, f"__{symbol}__", forward)
    if symbol not in _COMPARISONS:
        setattr(ndarray, f"__r{symbol}__", mirrored)
        setattr(ndarray, f"__i{symbol}__", in_place)


def _unary(symbol: str, name: str) -> None:
    setattr(ndarray, f"__{symbol}__", lambda self: _own(name)(self))


for _symbol, _name in (*_BINARY.items(), *_COMPARISONS.items()):
    _operators(_symbol, _name)
for _symbol, _name in _UNARY.items():
    _unary(_symbol, _name)
ndarray.__matmul__ = lambda self, other: (  # type: ignore[attr-defined]
    NotImplemented if _defers(other) else _own("matmul")(self, other)
)
ndarray.__rmatmul__ = lambda self, other: _own("matmul")(other, self)  # type: ignore[attr-defined]
