"""Numbers that follow from arrays are read with one transfer, and are those of the formula."""

import math
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel.backends import each, larger, pending

NUMPY = bilevel.get_backend("numpy")


def test_they_are_what_the_formula_says() -> None:
    a, b = np.asarray(3.0), np.array([1.0, 4.0])
    one, two = pending(a), pending(b)
    sums = 2 * one - two / 4 + b
    assert sums.shape == (2,)
    assert NUMPY.scalars(sums, a, two[1], two[1:]) == (6.75, 9.0, 3.0, 4.0, 4.0)
    assert NUMPY.scalars(sums.length(), (1 - one).root(), abs(-two).sum()) == (11.25, 0.0, 5.0)
    assert NUMPY.scalars(a * one, b - two) == (9.0, 0.0, 0.0)


def test_one_array_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = type(NUMPY)._read

    def counted(self: Any, arrays: list[Any]) -> list[float]:
        asked.append(len(arrays))
        return read(self, arrays)

    monkeypatch.setattr(type(NUMPY), "_read", counted)
    a, b = np.asarray(3.0), np.array([1.0, 4.0])
    once = pending(a)
    assert NUMPY.scalars(once * once + pending(a), b, once) == (12.0, 1.0, 4.0, 3.0)
    assert NUMPY.scalars(once) == (3.0,)
    assert asked == [2]


def test_what_overflows_or_is_no_number_is_seen() -> None:
    huge, none = np.asarray(1e300), np.asarray(math.nan)
    square = pending(huge) * huge
    assert NUMPY.scalars(square, 1 - square, square * 0.0 + 1)[:2] == (math.inf, -math.inf)
    assert NUMPY.scalars(pending(huge) / 0.0, pending(-huge) / 0.0) == (math.inf, -math.inf)
    found = NUMPY.scalars(larger(none, 0.0), pending(none).root(), pending(0.0) / 0.0)
    assert all(map(math.isnan, found))


def test_a_bound_of_single_precision_does_not_overflow_to_less() -> None:
    """The square of a norm that float32 has room for, and of which it has none."""
    norm = np.asarray(3e30, dtype=np.float32)
    assert NUMPY.scalars(pending(norm) * norm) == (float(norm) ** 2,)


def test_numbers_are_not_to_be_had_before_they_are_read() -> None:
    with pytest.raises(RuntimeError, match="before it has been read"):
        each(lambda a: a, np.ones(2)).numbers()


def test_a_part_from_outside_may_state_its_bounds_with_them() -> None:
    """A penalty whose rounding is that of the one it wraps."""
    from bilevel.answers import Answers
    from bilevel.inner import Rounding

    answers = Answers("penalty", NUMPY, np.dtype(float))
    zero, two = pending(0.0), pending(np.ones(2))
    answers.bounds("rounding", lambda: Rounding(zero, two, zero), Rounding, grad=(), products=(2,))
    with pytest.raises(ValueError, match=r"products must be of shape \(3,\), got \(2,\)"):
        answers.bounds("rounding", lambda: Rounding(zero, two, zero), Rounding, products=(3,))
