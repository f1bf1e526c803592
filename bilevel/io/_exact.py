"""Labels as numbers, of which no two that differ become one."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt

#: From here on a float64 does not hold every integer.
_WHOLE = 2**53

#: Numbers of so many characters, without exponent, are told apart by a float64.
_SHORT = 15


def is_long(text: str) -> bool:
    """Tell whether a float64 could take this number for another one."""
    return len(text) > _SHORT or "e" in text or "E" in text


def exact_labels(
    values: npt.NDArray[np.float64], long: Mapping[int, str]
) -> npt.NDArray[Any] | int:
    """Return labels as float64, or as integers where a float64 would not do; else a row that fails.

    Parameters
    ----------
    values : array, shape (n,)
        The labels, rounded.
    long : mapping of int to str
        How the file writes them, by row, where :func:`is_long`.

    Examples
    --------
    >>> exact_labels(np.array([2.0**53, 1.0]), {0: "9007199254740993"})
    array([9007199254740993,                1])
    """
    finite = {row: Decimal(text) for row, text in long.items() if np.isfinite(values[row])}
    large = [row for row in finite if abs(values[row]) >= _WHOLE]
    if large:
        integers = _as_integers(values, finite)
        if integers is not None:
            return integers
        for row in large:
            if finite[row] != Decimal(float(values[row])):
                return row
    seen: dict[float, Decimal] = {}
    for row, number in finite.items():
        if seen.setdefault(float(values[row]), number) != number:
            return row
    return values


def _as_integers(
    values: npt.NDArray[np.float64], exact: Mapping[int, Decimal]
) -> npt.NDArray[Any] | None:
    """All labels as integers, None where one is none or too large for them."""
    if not np.isfinite(values).all():
        return None
    whole = [exact.get(row, Decimal(float(value))) for row, value in enumerate(values)]
    if any(number != number.to_integral() for number in whole):
        return None
    for dtype in (np.int64, np.uint64):
        info = np.iinfo(dtype)
        if min(whole) >= info.min and max(whole) <= info.max:
            return np.array([int(number) for number in whole], dtype=dtype)
    return None


def is_this(text: str, value: Any) -> bool:
    """Tell whether a text writes this number; integers and those beyond 2^53 to the last digit."""
    try:
        number, rounded = Decimal(text), float(text)
    except (InvalidOperation, ValueError):
        return False
    if isinstance(value, (int, np.integer, np.bool_)):
        return number == int(value)
    if abs(float(value)) >= _WHOLE:
        return number == Decimal(float(value))
    return rounded == float(value)
