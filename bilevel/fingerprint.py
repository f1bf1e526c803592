"""What a problem or a method consists of, as texts that can be compared: all options, all data.

Arrays are told apart by a SHA-256 digest of every entry, read through ``backend.to_numpy`` in
blocks of some megabytes: one read of the data, on the host, at 1 to 2 GB a second. The digests are
those of shape, dtype and numbers, not of the library that holds them, so that a problem moved to
another backend keeps its fingerprint.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import sysconfig
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from .backends import Backend, SparseKernel, get_backend, is_array, is_sparse
from .design import Passes, Standardized

#: Entries of a block that is brought to the host at once.
_BLOCK = 1 << 20

#: Hexadecimal digits of a digest that are kept.
_DIGITS = 12

#: Arrays of no more entries are shown by their values.
_SHOWN = 5

#: Where the modules of Python and of installed packages are.
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})

#: What is computed from the other fields: another machine, or another number of threads, rounds it
#: otherwise.
_COMPUTED: Mapping[type, frozenset[str]] = {Standardized: frozenset({"mean", "scale"})}


def fingerprint(value: Any, name: str) -> dict[str, str]:
    """Describe a value and all that it holds, each part under its path.

    Parameters
    ----------
    value : object
        Numbers, text, arrays, sparse matrices, dataclasses and other objects, containers and
        functions: of a function its code, its defaults, what it closes over, and the numbers,
        arrays and functions of its module that it names.
    name : str
        Where the paths start.

    Returns
    -------
    dict
        Texts by path. Counters, caches and the backend are left out, and so are the fields of a
        dataclass that are not part of its comparisons.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> fingerprint(bilevel.Box(-1.0, 1.0), "domain")
    {'domain': 'Box', 'domain.lower': '-1.0', 'domain.upper': '1.0'}
    >>> fingerprint(np.arange(9.0), "y")
    {'y': 'float64 (9,) 13a22b00aae8'}
    """
    return dict(_Walk().parts(value, name))


def differences(
    saved: Mapping[str, str], here: Mapping[str, str], there: str = "in the file"
) -> list[str]:
    """Say what differs between two fingerprints, a sentence's part for each path."""
    return [
        f"{path} is {saved.get(path, 'not')} {there} and {here.get(path, 'not')} here"
        for path in dict.fromkeys([*saved, *here])
        if saved.get(path) != here.get(path)
    ]


class _Walk:
    """One walk through what a value holds: no array is read twice, and no circle is followed."""

    def __init__(self) -> None:
        # Each value is held as well, lest another one takes its id.
        self._digests: dict[int, tuple[Any, str]] = {}
        self._functions: dict[int, tuple[Any, str]] = {}
        self._above: set[int] = set()

    def parts(self, value: Any, path: str) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of a value and of its parts."""
        key = id(value)
        if _is_bookkeeping(value) or key in self._above:
            return
        if is_array(value):
            yield path, self._digest(value)
            return
        text = _plain(value)
        if text is None and isinstance(value, types.FunctionType):
            if key in self._functions:
                text = f"that of {self._functions[key][1]}"
            self._functions.setdefault(key, (value, path))
        if text is not None:
            yield path, text
            return
        yield path, _kind(value)
        self._above.add(key)
        for name, part in _members(value):
            yield from self.parts(part, f"{path}{name}")
        self._above.discard(key)

    def _digest(self, array: Any) -> str:
        key = id(array)
        if key not in self._digests:
            self._digests[key] = (array, _digest(array, get_backend(array)))
        return self._digests[key][1]


def _is_bookkeeping(value: Any) -> bool:
    is_backend = hasattr(value, "xp") and hasattr(value, "to_numpy")
    return is_backend or isinstance(value, (Passes, types.ModuleType))


def _plain(value: Any) -> str | None:
    """The text of what has no parts, None for the rest."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, Enum):
        return value.name
    return value.__qualname__ if isinstance(value, type) else None


def _kind(value: Any) -> str:
    if isinstance(value, SparseKernel) or is_sparse(value):
        return f"sparse {tuple(value.shape)}"
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__} {_code(value.__code__)}".rstrip()
    return getattr(value, "__qualname__", type(value).__qualname__)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, SparseKernel) or is_sparse(value):
        kernel = value if isinstance(value, SparseKernel) else None
        kernel = kernel or get_backend(value).sparse_kernel(value)
        yield from zip((".values", ".indices", ".indptr"), kernel.parts(), strict=True)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield from ((".self", value.__self__), (".function", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".function", value.func), (".args", value.args), (".keys", value.keywords))
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"[{i}]", part) for i, part in enumerate(sorted(value, key=repr)))
    elif dataclasses.is_dataclass(value):
        computed = _COMPUTED.get(type(value), frozenset())
        for field in dataclasses.fields(value):
            if field.compare and field.name not in computed:
                part = getattr(value, field.name)
                yield f".{field.name}", _dtype_name(part) if field.name == "dtype" else part
    elif hasattr(value, "__wrapped__"):  # functions that a library has compiled
        yield ".wrapped", value.__wrapped__
    else:
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object of another kind holds, but for what it computed and keeps."""
    for name, part in sorted(getattr(value, "__dict__", {}).items()):
        if not hasattr(getattr(type(value), name, None), "attrname"):  # a cached property
            yield f".{name}", part


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    if function.__defaults__ or function.__kwdefaults__:
        yield ".defaults", (function.__defaults__, function.__kwdefaults__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    if _is_installed(code):
        return  # what the modules of a library hold is not ours
    for name in code.co_names:
        found = function.__globals__.get(name)
        ours = isinstance(found, types.FunctionType) and found.__module__ == function.__module__
        if ours or is_array(found) or isinstance(found, (int, float, str, list, tuple)):
            yield f".{name}", found


def _is_installed(code: types.CodeType) -> bool:
    return code.co_filename.startswith(_INSTALLED)


def _code(code: types.CodeType) -> str:
    """A digest of what a function does; of a library's functions the name says enough."""
    return "" if _is_installed(code) else _sha256(repr(_instructions(code)).encode())


def _instructions(code: types.CodeType) -> tuple[Any, ...]:
    constants = (_instructions(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    ordered = (sorted(map(repr, c)) if isinstance(c, frozenset) else c for c in constants)
    return (code.co_code, code.co_names, *ordered)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _dtype_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _digest(array: Any, backend: Backend) -> str:
    """Dtype, shape and digest of every entry; few entries are shown instead."""
    shape = tuple(int(n) for n in array.shape)
    kind, size = _dtype_name(array.dtype), math.prod(shape)
    whole = kind.startswith(("int", "uint"))
    head = f"{'integers' if whole else kind} {shape}"
    if size <= _SHOWN or kind == "object":
        return f"{head} {backend.to_numpy(array).tolist()}"
    digest = hashlib.sha256()
    step = max(1, _BLOCK * shape[0] // size)
    for start in range(0, shape[0], step):
        block = backend.to_numpy(array[start : min(start + step, shape[0]), ...])
        # Libraries keep indices in 32 or 64 bits as they like: the numbers are the same.
        digest.update((block.astype("int64") if whole else block).tobytes())
    return f"{head} {digest.hexdigest()[:_DIGITS]}"
