"""The functions: those of NumPy by name, bound by CuPy's signatures, and those that differ."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from . import _counts
from ._array import SCALARS, launch, ndarray, operand, strict, wrap, wrote
from ._names import Bound, names
from .cuda import runtime

#: Functions that are NumPy's of the same name, and the launches of each; a view costs none.
_NUMPY = {
    **dict.fromkeys(
        "sum prod mean max min all any argmax argmin amax amin cumsum cumprod".split(), 1
    ),
    **dict.fromkeys("sort argsort flip roll tril triu count_nonzero tile repeat".split(), 1),
    **dict.fromkeys(
        "matmul dot vdot tensordot outer trace copy where clip round around".split(), 1
    ),
    **dict.fromkeys("diag diagonal broadcast_to expand_dims squeeze moveaxis transpose".split(), 1),
    **dict.fromkeys(
        "swapaxes reshape ravel atleast_1d atleast_2d nan_to_num median diff".split(), 1
    ),
    **dict.fromkeys("zeros ones arange linspace full zeros_like ones_like full_like".split(), 1),
    **dict.fromkeys("empty empty_like".split(), 0),
    **dict.fromkeys("var std einsum eye identity take_along_axis searchsorted bincount".split(), 2),
    **dict.fromkeys("array_equal allclose isclose".split(), 3),
}

#: What a name stands for that is neither a function nor an array.
_PLAIN = (
    "bool_ dtype finfo iinfo newaxis pi inf nan e euler_gamma float16 float32 float64 complex64 complex128"
    " int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp uintp int_ uint generic number integer"
    " inexact floating complexfloating signedinteger unsignedinteger issubdtype promote_types"
    " broadcast_shapes single double intc short byte ubyte ushort uintc longlong ulonglong"
).split()


class ufunc:  # noqa: N801
    """An elementwise function."""

    def __init__(self, name: str, nin: int, nout: int, call: Callable[..., Any]) -> None:
        self.name = self.__name__ = name
        self.nin, self.nout = nin, nout
        self._call = call

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def __reduce__(self) -> Any:
        return named, (self.name,)

    def __call__(
        self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind"
    ) -> Any:
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self!r}")
        if len(args) > self.nin:
            args, out = args[: self.nin], args[self.nin]
        if isinstance(out, tuple):
            (out,) = out
        options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        return launch(self.name, self._call, *args, out=out, casting=casting, **options)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        """With repeated indices, as atomics do it; their order is any on a device."""
        getattr(np, self.name).at(strict(a, "at"), operand(indices), operand(b))
        _counts.launched(f"{self.name}.at")
        wrote(a)


def _host(value: Any, name: str) -> Any:
    """An argument as NumPy takes it: arrays inside of lists too, but none of NumPy's own."""
    if isinstance(value, ndarray):
        return operand(value)
    if isinstance(value, tuple | list):
        return type(value)(_host(part, name) for part in value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"{name}: Unsupported type {type(value)}")
    return value


class Function:
    """A function of NumPy's with the signature of CuPy's."""

    def __init__(self, name: str, texts: tuple[str, ...], launches: int) -> None:
        self.__name__ = name
        self._bind = Bound(name, texts)
        self.__signature__ = self._bind.signatures[-1]
        self._launches = launches

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._bind(args, kwargs)
        name = self.__name__
        hosts = [_host(value, name) for value in args]
        options = {key: _host(value, name) for key, value in kwargs.items() if value is not None}
        with np.errstate(all="ignore"):
            found = getattr(np, name)(*hosts, **options)
        if kwargs.get("out") is not None:
            _counts.launched(name, self._launches)
            wrote(kwargs["out"])
            return kwargs["out"]
        sources = [*args, *kwargs.values()]
        results = found if isinstance(found, tuple | list) else (found,)
        arrays = [wrap(part, *sources) for part in results]
        shared = {id(value._memory) for value in sources if isinstance(value, ndarray)}
        if builtins.any(id(array._memory) not in shared for array in arrays):
            _counts.launched(name, self._launches)
        return type(found)(arrays) if isinstance(found, tuple | list) else arrays[0]


# -- what differs from NumPy -----------------------------------------------------------------------


def array(
    obj: Any,
    dtype: Any = None,
    copy: Any = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    """An array of the current device, from the host or another device too."""
    if isinstance(obj, ndarray):
        if obj._memory.device != runtime.getDevice():
            obj, copy = obj.copy(), False
        found = obj.astype(dtype or obj.dtype, order=order or "K", copy=bool(copy))
        return (
            found
            if found.ndim >= ndmin
            else found.reshape((1,) * (ndmin - found.ndim) + found.shape)
        )
    if isinstance(obj, tuple | list) and _holds_arrays(obj):
        return wrap(np.array(_host(obj, "array"), dtype=dtype, ndmin=ndmin))
    host = np.array(obj, dtype=dtype, order=order or "K", ndmin=ndmin)  # type: ignore[call-overload]
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    _counts.written("array")
    return wrap(host)


def _holds_arrays(values: Any) -> bool:
    return builtins.any(
        isinstance(value, ndarray) or (isinstance(value, tuple | list) and _holds_arrays(value))
        for value in values
    )


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> ndarray:
    """An array of the current device; none is made where it is one already."""
    return array(a, dtype, False, order, blocking=blocking)


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    """The numbers on the host."""
    if isinstance(a, ndarray):
        return a.get(stream=stream, order=order, out=out, blocking=blocking)
    return np.asarray(a, order=order)  # type: ignore[call-overload]


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return _laid_out("ascontiguousarray", a, dtype, "C")


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    return _laid_out("asfortranarray", a, dtype, "F")


def _laid_out(name: str, a: Any, dtype: Any, order: str) -> ndarray:
    a = asarray(a)
    return a._moved(name, operand(a).astype(dtype or a.dtype, order=order, copy=False))


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    """Numbers out of range go round."""
    if out is not None:
        raise NotImplementedError("The stand-in's take() has no out.")
    if not isinstance(indices, ndarray | int | np.integer):
        _counts.written("take")
        indices = wrap(np.asarray(indices))
    if isinstance(indices, ndarray) and indices.dtype.kind not in "iu":
        raise TypeError(f"Cannot cast from {indices.dtype} to int64: indices must be integers.")
    length = a.size if axis is None else a.shape[axis]
    found = launch("take", lambda host, at: np.take(host, at % length, axis=axis), a, indices)
    _counts.copied(found.nbytes)
    return found


def concatenate(
    tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    parts = [strict(part, "concatenate") for part in tup]
    _counts.launched("concatenate", _copies(len(parts)))
    found = np.concatenate(parts, axis=axis, dtype=dtype, casting=casting)  # type: ignore[call-overload]
    return _into(out, found)


def stack(
    tup: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    parts = [strict(part, "stack") for part in tup]
    _counts.launched("stack", _copies(len(parts)))
    return _into(out, np.stack(parts, axis=axis, dtype=dtype, casting=casting))  # type: ignore[call-overload]


def _copies(parts: int) -> int:
    """A copy of each, or one kernel of many."""
    if parts > 8:
        _counts.written("pointers")
        return 1
    return parts


def _into(out: Any, host: Any) -> Any:
    if out is None:
        return wrap(host)
    out[...] = wrap(host)
    return out


def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
) -> Any:
    _counts.launched("unique", 4)
    _counts.read("unique")
    found = np.unique(
        strict(ar, "unique"), return_index, return_inverse, return_counts, axis, equal_nan=equal_nan
    )
    return tuple(map(wrap, found)) if isinstance(found, tuple) else wrap(found)


def nonzero(a: Any) -> tuple[ndarray, ...]:
    _counts.launched("nonzero", 3)
    _counts.read("nonzero")
    return tuple(map(wrap, np.nonzero(strict(a, "nonzero"))))


def broadcast_arrays(*args: Any) -> list[ndarray]:
    shape = np.broadcast_shapes(*(strict(value, "broadcast_arrays").shape for value in args))
    return [wrap(np.broadcast_to(value._host, shape), value) for value in args]


def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> ndarray:
    """From the host's memory, into the device's: a copy."""
    found = np.from_dlpack(array)
    _counts.written("from_dlpack")
    return wrap(found.copy())


def result_type(*arrays_and_dtypes: Any) -> Any:
    hosts = (value._host if isinstance(value, ndarray) else value for value in arrays_and_dtypes)
    return np.result_type(*hosts)


def can_cast(from_: Any, to: Any, casting: str = "safe") -> bool:
    return np.can_cast(from_.dtype if isinstance(from_, ndarray) else from_, to, casting)  # type: ignore[arg-type]


def isscalar(element: Any) -> bool:
    return isinstance(element, SCALARS)


def is_available() -> bool:
    return True


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if builtins.any(isinstance(value, ndarray) for value in args) else np


def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return np.shares_memory(a._host, b._host)


may_share_memory = shares_memory


# -- the namespace -----------------------------------------------------------------------------------


def missing(name: str) -> Callable[..., Any]:
    """A name that the real one has: it is there, and of no use yet."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"The stand-in has no cupy.{name} yet.")

    refused.__name__ = name
    return refused


def _bound(function: Callable[..., Any], texts: tuple[Any, ...]) -> Callable[..., Any]:
    """A function that refuses what the recorded signatures do not know."""
    if not builtins.all(isinstance(text, str) and text.startswith("(") for text in texts):
        return function
    bind = Bound(function.__name__, texts)

    def called(*args: Any, **kwargs: Any) -> Any:
        bind(args, kwargs)
        return function(*args, **kwargs)

    called.__name__ = function.__name__
    called.__signature__ = bind.signatures[-1]  # type: ignore[attr-defined]
    return called


def _made(name: str, said: tuple[Any, ...]) -> Any:
    """What stands for one name, or None where it is nothing of ours."""
    if isinstance(said[-1], list):
        return ufunc(name, *said[-1], getattr(np, name)) if hasattr(np, name) else missing(name)
    if name in _PLAIN:
        return getattr(np, name)
    own = globals().get(name)
    if own is not None and getattr(own, "__module__", "") == __name__ and callable(own):
        return own if isinstance(own, type) else _bound(own, said)
    if name in _NUMPY:
        return Function(name, said, _NUMPY[name])
    return missing(name) if str(said[-1]).startswith("(") else None


@cache
def namespace() -> dict[str, Any]:
    """Every name of the real module that is a function, a ufunc, a dtype or a constant."""
    made = {name: _made(name, said) for name, said in names("modules", "cupy").items()}
    return {name: value for name, value in made.items() if value is not None} | {"newaxis": None}


def named(name: str) -> Any:
    """A function by its name, ``linalg.name`` too."""
    place, _, last = name.rpartition(".")
    if not place:
        return namespace().get(last) or missing(last)
    from . import linalg

    return getattr(linalg, last)
