"""How often the device is asked, by a model: one launch an operation, one read a look at numbers.

Every elementwise operation, reduction, copy and product counts as one launch, one of linear algebra
as the kernels of its source. What CuPy's own temporaries cost is not in it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Counts:
    """What was asked of the devices while it was listening, by the name of the operation."""

    launches: Counter[str] = field(default_factory=Counter)
    #: From the device to the host: each one waits for all that was launched before it.
    reads: Counter[str] = field(default_factory=Counter)
    #: From the host to the device.
    writes: Counter[str] = field(default_factory=Counter)
    #: The most bytes that one copy on the device made.
    largest_copy: int = 0


_LOCK = threading.Lock()
_listening: list[Counts] = []


def _add(kind: str, name: str, times: int) -> None:
    if _listening:
        with _LOCK:
            for counts in _listening:
                getattr(counts, kind)[name] += times


def launched(name: str, times: int = 1) -> None:
    """Note launches."""
    _add("launches", name, times)


def read(name: str) -> None:
    """Note a transfer to the host."""
    _add("reads", name, 1)


def written(name: str) -> None:
    """Note a transfer to the device."""
    _add("writes", name, 1)


def copied(size: int) -> None:
    """Note the bytes of a copy on the device."""
    with _LOCK:
        for counts in _listening:
            counts.largest_copy = max(counts.largest_copy, size)


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what every thread asks for meanwhile."""
    counts = Counts()
    _listening.append(counts)
    try:
        yield counts
    finally:
        _listening[:] = [other for other in _listening if other is not counts]
