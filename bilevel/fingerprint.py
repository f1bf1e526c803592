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
import types
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

from ._members import compiled_name, is_compiled, is_installed, members
from .backends import Backend, SparseKernel, dtype_name, get_backend, is_array, is_sparse
from .design import Passes

#: Entries of a block that is brought to the host at once.
_BLOCK = 1 << 20

#: Hexadecimal digits of a digest that are kept.
_DIGITS = 12

#: Arrays of no more entries are shown by their values.
_SHOWN = 5

#: Members of a value that are listed one by one; of more there is one digest.
_LISTED = 100

#: Values inside of values that are followed, and values in all.
_DEEPEST, _MOST = 40, 1_000_000

#: How the text of what can't be compared ends.
_UNKNOWN = " (not compared)"


def fingerprint(value: Any, name: str) -> dict[str, str]:
    """Describe a value and all that it holds, each part under its path.

    Parameters
    ----------
    value : object
        Numbers, text, arrays, sparse matrices, dataclasses and other objects (attributes and
        slots), containers, classes and functions: of a function its code, its defaults, what it
        closes over, and whatever it and the functions inside it name of their module or of another
        one of yours. Of objects of a library the state that it would pickle.
    name : str
        Where the paths start.

    Returns
    -------
    dict
        Texts by path. Counters, caches and the backend are left out, and so are the fields of a
        dataclass that are not part of its comparisons. What does not show what it holds (a lock, an
        open file), or lies more than 40 values deep, is marked: :func:`unknown` names it. Of
        counters those of this package are left out; :func:`counts` finds the others.

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


def counts(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The paths of the numbers that have changed between two fingerprints of one value.

    Examples
    --------
    >>> counts({"h": "Own", "h.n": "3", "h.mu": "1.0"}, {"h": "Own", "h.n": "5", "h.mu": "1.0"})
    {'h.n'}
    """
    return {
        path
        for path, text in before.items()
        if after.get(path, text) != text and _is_number(text) and _is_number(after[path])
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unknown(found: Mapping[str, str]) -> list[str]:
    """The paths of what could not be compared."""
    return [path for path, text in found.items() if text.endswith(_UNKNOWN)]


class _Walk:
    """One walk through what a value holds: no array is read twice, and no circle is followed."""

    def __init__(self, above: AbstractSet[int] = frozenset()) -> None:
        # Each value is held as well, lest another one takes its id.
        self._digests: dict[int, tuple[Any, str]] = {}
        self._seen: dict[int, tuple[Any, str]] = {}
        self._above: set[int] = set(above)
        self._left = _MOST

    def parts(self, value: Any, path: str) -> Iterator[tuple[str, str]]:
        """Yield (path, text) of a value and of its parts."""
        key = id(value)
        if _is_bookkeeping(value) or key in self._above:
            return
        text = self._digest(value) if is_array(value) else _plain(value)
        if text is None and _is_named(value):
            if key in self._seen:
                text = f"that of {self._seen[key][1]}"
            self._seen.setdefault(key, (value, path))
        if text is not None:
            yield path, text
            return
        self._left -= 1
        if len(self._above) >= _DEEPEST or self._left < 0:
            if self._left >= -1:  # of what comes after the last one the first is named
                yield path, f"{_kind(value)} too deep or too large{_UNKNOWN}"
            return
        self._above.add(key)
        yield from self._composed(value, path)
        self._above.discard(key)

    def _composed(self, value: Any, path: str) -> Iterator[tuple[str, str]]:
        try:
            inside = list(members(value))
        except Exception:  # whatever its class or its library raises
            yield path, f"{_kind(value)}{_UNKNOWN}"
            return
        if isinstance(value, (set, frozenset)):
            inside = [(f"[{i}]", part) for i, part in enumerate(self._ordered(value))]
        if len(inside) <= _LISTED:
            yield path, _kind(value)
            for name, part in inside:
                yield from self.parts(part, f"{path}{name}")
            return
        digest = hashlib.sha256()
        for name, part in inside:
            for below, text in self.parts(part, name):
                digest.update(repr((below, text)).encode())
                if text.endswith(_UNKNOWN):
                    yield f"{path}{below}", text
        yield path, f"{_kind(value)} of {len(inside)} {digest.hexdigest()[:_DIGITS]}"

    def _ordered(self, entries: AbstractSet[Any]) -> list[Any]:
        """The entries of a set, whose order is another one in each process."""
        return sorted(entries, key=lambda part: list(_Walk(self._above).parts(part, "")))

    def _digest(self, array: Any) -> str:
        key = id(array)
        if key not in self._digests:
            self._digests[key] = (array, _digest(array, get_backend(array)))
        return self._digests[key][1]


def _is_bookkeeping(value: Any) -> bool:
    if isinstance(value, (Passes, types.ModuleType)):
        return True
    return not isinstance(value, type) and hasattr(value, "xp") and hasattr(value, "to_numpy")


def _is_named(value: Any) -> bool:
    """What is taken apart once: where it is met again its first place is named."""
    if isinstance(value, (types.FunctionType, type)):
        return True
    containers = (Mapping, list, tuple, set, frozenset, types.MethodType, functools.partial)
    sparse = isinstance(value, SparseKernel) or is_sparse(value)
    return not (sparse or isinstance(value, containers) or dataclasses.is_dataclass(value))


def _plain(value: Any) -> str | None:
    """The text of what has no parts, None for the rest."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type):
        return value.__qualname__ if is_installed(value) else None
    return compiled_name(value) if is_compiled(value) else None


def _kind(value: Any) -> str:
    if isinstance(value, SparseKernel) or is_sparse(value):
        return f"sparse {tuple(value.shape)}"
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__} {_code(value.__code__)}".rstrip()
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _code(code: types.CodeType) -> str:
    """A digest of what a function does; of a library's functions the name says enough."""
    return "" if is_installed(code) else _sha256(repr(_instructions(code)).encode())


def _instructions(code: types.CodeType) -> tuple[Any, ...]:
    constants = (_instructions(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    ordered = (sorted(map(repr, c)) if isinstance(c, frozenset) else c for c in constants)
    return (code.co_code, code.co_names, *ordered)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _digest(array: Any, backend: Backend) -> str:
    """Dtype, shape and digest of every entry; few entries are shown instead."""
    shape = tuple(int(n) for n in array.shape)
    kind, size = dtype_name(array.dtype), math.prod(shape)
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
