"""What CuPy has beside NumPy's names: see the head of the stand-in ``cupy``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cupy._functions import ufunc

__all__ = ["errstate", "geterr", "rsqrt", "scatter_add", "seterr"]

_state = threading.local()


def geterr() -> dict[str, Any]:
    """Of this thread."""
    return {
        **dict.fromkeys(("divide", "over", "under", "invalid")),
        "linalg": getattr(_state, "linalg", "ignore"),
    }


def seterr(
    *,
    divide: Any = None,
    over: Any = None,
    under: Any = None,
    invalid: Any = None,
    linalg: Any = None,
) -> dict[str, Any]:
    before = geterr()
    if any(value is not None for value in (divide, over, under, invalid)):
        raise NotImplementedError
    if linalg not in (None, "ignore", "raise"):
        raise NotImplementedError
    if linalg is not None:
        _state.linalg = linalg
    return before


@contextmanager
def errstate(
    *,
    divide: Any = None,
    over: Any = None,
    under: Any = None,
    invalid: Any = None,
    linalg: Any = None,
) -> Iterator[None]:
    before = seterr(divide=divide, over=over, under=under, invalid=invalid, linalg=linalg)
    try:
        yield
    finally:
        seterr(**before)


def scatter_add(a: Any, slices: Any, value: Any) -> None:
    ufunc("add", 2, 1, None).at(a, slices, value)  # type: ignore[arg-type]


rsqrt = ufunc("rsqrt", 1, 1, lambda x, **options: x**-0.5)
