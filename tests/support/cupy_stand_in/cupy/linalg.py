"""Dense linear algebra as cuSOLVER does it: no exception unless ``cupyx.errstate`` asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from . import _counts
from ._array import ndarray, operand, wrap
from ._functions import _bound
from ._names import names

_ALL = names("modules", "cupy.linalg")


def _check(*arrays: Any) -> tuple[Any, ...]:
    for array in arrays:
        if not isinstance(array, ndarray):
            raise LinAlgError(f"cupy.linalg only supports cupy.ndarray, got {type(array)}")
    return tuple(operand(array) for array in arrays)


def _square(host: Any) -> None:
    if host.ndim < 2:
        raise LinAlgError(
            f"{host.ndim}-dimensional array given. Array must be at least two-dimensional"
        )
    if host.shape[-1] != host.shape[-2]:
        raise LinAlgError("Last 2 dimensions of the array must be square")


def failed(routine: str, where: Any) -> None:
    """Raise for a status that is not 0, where the host is to look at it at all."""
    import cupyx

    if cupyx.geterr()["linalg"] == "ignore":
        return
    _counts.read("devInfo")
    if np.any(where):
        raise LinAlgError(f"Error reported by {routine} in cuSOLVER.")


def _potrf(host: Any) -> tuple[Any, bool]:
    """LAPACK's: it stops at the first pivot that is not positive, and leaves the rest as it was."""
    found = np.tril(host)
    for j in range(len(found)):
        pivot = found[j, j] - found[j, :j] @ found[j, :j]
        if not pivot > 0:
            found[j, j] = pivot
            return found, True
        found[j, j] = np.sqrt(pivot)
        found[j + 1 :, j] -= found[j + 1 :, :j] @ found[j, :j]
        found[j + 1 :, j] /= found[j, j]
    return found, False


def _each(call: Callable[[Any], tuple[Any, bool]], host: Any) -> tuple[Any, Any]:
    """Over the leading axes: the results, and where it failed."""
    found, bad = np.empty_like(host), np.zeros(host.shape[:-2], bool)
    for place in np.ndindex(host.shape[:-2]):
        found[place], bad[place] = call(host[place])
    return found, bad


def cholesky(a: Any) -> ndarray:
    """Of an indefinite matrix it is finite and wrong."""
    (host,) = _check(a)
    _square(host)
    _counts.launched("cholesky", 3)
    try:
        return wrap(np.linalg.cholesky(host))
    except LinAlgError:
        found, bad = _each(_potrf, host)
    failed("potrf", bad)
    return wrap(found)


def solve(a: Any, b: Any) -> ndarray:
    """Of a singular matrix it is infinite."""
    left, right = _check(a, b)
    _square(left)
    if right.ndim == 0:
        raise ValueError("b must have at least one dimension")
    if right.ndim == 1:
        if left.shape[-1] != right.size:
            raise ValueError("a must have (..., M, M) shape and b must have (M,) for 1-D b")
        right = np.broadcast_to(right, left.shape[:-1])
    elif left.shape[:-1] != right.shape[:-1]:
        raise ValueError("a must have (..., M, M) and b (..., M, K) for multidimensional b")
    _counts.launched("solve", 5)
    vector = right.ndim == left.ndim - 1
    return wrap(_gesv(left, right[..., None] if vector else right, vector))


def _gesv(left: Any, right: Any, vector: bool) -> Any:
    found = np.empty(right.shape, np.result_type(left, right, np.float32))
    bad = np.zeros(left.shape[:-2], bool)
    for place in np.ndindex(left.shape[:-2]):
        try:
            found[place] = np.linalg.solve(left[place], right[place])
        except LinAlgError:
            found[place], bad[place] = np.inf, True
    failed("getrf", bad)
    return found[..., 0] if vector else found


def inv(a: Any) -> ndarray:
    """Of a singular matrix it is infinite."""
    (host,) = _check(a)
    _square(host)
    _counts.launched("inv", 5)
    return wrap(
        _gesv(host, np.broadcast_to(np.eye(host.shape[-1], dtype=host.dtype), host.shape), False)
    )


def _decomposed(name: str, launches: int, *, square: bool) -> Callable[..., Any]:
    """One of NumPy's; where that does not converge the result is NaN."""

    def function(a: Any, *args: Any, **kwargs: Any) -> Any:
        (host,) = _check(a)
        if square:
            _square(host)
        _counts.launched(name, launches)
        try:
            found = getattr(np.linalg, name)(host, *args, **kwargs)
        except LinAlgError:
            failed(name, True)
            found = getattr(np.linalg, name)(np.zeros_like(host), *args, **kwargs)
            parts = found if isinstance(found, tuple) else (found,)
            nans = tuple(wrap(np.full_like(part, np.nan)) for part in parts)
            return nans if isinstance(found, tuple) else nans[0]
        return tuple(map(wrap, found)) if isinstance(found, tuple) else wrap(found)

    function.__name__ = name
    return function


qr = _decomposed("qr", 6, square=False)
svd = _decomposed("svd", 3, square=False)
eigh = _decomposed("eigh", 3, square=True)
eigvalsh = _decomposed("eigvalsh", 3, square=True)
slogdet = _decomposed("slogdet", 5, square=True)
det = _decomposed("det", 5, square=True)
norm = _decomposed("norm", 2, square=False)


def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    raise NotImplementedError("The stand-in has no cupy.linalg.lstsq yet.")


_DONE = "cholesky solve inv qr svd eigh eigvalsh slogdet det norm lstsq".split()
for _name in _DONE:
    globals()[_name] = _bound(globals()[_name], _ALL[_name])

__all__ = ["LinAlgError", *_DONE]
