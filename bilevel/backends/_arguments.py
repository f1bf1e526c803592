"""What counts as a number, an integer, a flag or a function at the doors of the package.

Each rule takes a value and the name under which the user knows it, and returns the plain Python
value, or raises with one sentence: the name, what was expected, what was given. Numbers of NumPy
and 0-d arrays of any library are numbers; ``True`` and ``False`` are none. A rule can stand in a
table:

>>> check_fields.__doc__.splitlines()[0]
'Check the fields of a frozen dataclass by their rules, and keep the plain values.'
>>> Number(above=0)(np.float32(0.5), "tol"), Whole(1)(np.int64(3), "max_iter")
(0.5, 3)
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ._registry import get_backend, is_array, refuse_matrix_classes

#: (value, name) ↦ the plain value.
Rule: TypeAlias = Callable[[Any, str], Any]

#: How much of what was given an error message repeats.
_LONGEST = 80


def described(value: Any) -> str:
    """What was given, in a few words.

    Examples
    --------
    >>> described("x"), described(int), described(np.zeros((2, 1)))
    ("'x'", 'the class int', 'an array of shape (2, 1)')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, Sequence) and len(shape) > 0:
        return f"an array of shape {tuple(int(n) for n in shape)}"
    if callable(value):
        return f"a {type(value).__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… of type {type(value).__name__}"


def dtype_name(dtype: Any) -> str:
    """The name of a dtype that all libraries share.

    Examples
    --------
    >>> dtype_name(np.dtype("float64")), dtype_name("torch.float32")
    ('float64', 'float32')
    """
    return str(dtype).rpartition(".")[2]


def python_number(value: Any) -> int | float | bool | None:
    """The number that a Python or NumPy number, or a 0-d array, holds; None for all else.

    A masked one holds none: NumPy would say 0.

    Examples
    --------
    >>> python_number(np.float32(0.5)), python_number(np.asarray(3)), python_number([3])
    (0.5, 3, None)
    """
    if isinstance(value, np.ma.MaskedArray):
        return None
    if isinstance(value, np.generic) or is_array(value):
        backend = get_backend(value)  # which refuses an array without numbers, or without a shape
        if len(value.shape) == 0:
            value = backend.to_numpy(value).item()
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return None


def is_number(value: Any) -> bool:
    """Whether this is a real number: of Python, of NumPy, or a 0-d array; no boolean."""
    return type(python_number(value)) in (int, float)


@dataclass(frozen=True)
class Number:
    """A real number, as a float.

    Parameters
    ----------
    above, at_least, below, at_most : float or None
        Its range.
    finite : bool
        Refuse infinity; NaN is never a number.

    Examples
    --------
    >>> Number(at_least=0)(np.asarray(2), "tol")
    2.0
    >>> Number(above=0)(True, "tol")
    Traceback (most recent call last):
    TypeError: tol must be a number, got True.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    finite: bool = True

    def __call__(self, value: Any, name: str) -> float:
        found = python_number(value)
        if found is None or isinstance(found, bool):
            raise TypeError(f"{name} must be a number, got {described(value)}.")
        try:
            number = float(found)
        except OverflowError:  # an integer of more than 308 digits
            number = math.inf if found > 0 else -math.inf
        if not self._holds(number):
            raise ValueError(f"{name} must {self.expected}, got {described(value)}.")
        return number

    def _holds(self, number: float) -> bool:
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
            and (math.isfinite(number) if self.finite else number == number)
        )

    @property
    def expected(self) -> str:
        """The range in words, after "must"."""
        if self.below is None and self.at_most is None:
            if self.above == 0:
                return "be positive and finite" if self.finite else "be positive"
            if self.at_least == 0:
                return "be finite and not negative" if self.finite else "not be negative"
        ends = {
            "above": self.above,
            "at least": self.at_least,
            "below": self.below,
            "at most": self.at_most,
        }
        parts = [f"{word} {end:g}" for word, end in ends.items() if end is not None]
        if not parts:
            return "be finite" if self.finite else "not be NaN"
        return f"be {' and '.join(parts)}"


@dataclass(frozen=True)
class Whole:
    """An integer, as an int.

    Examples
    --------
    >>> Whole(1)(np.int32(4), "folds")
    4
    >>> Whole(1)(2.0, "folds")
    Traceback (most recent call last):
    TypeError: folds must be an integer, got 2.0.
    """

    at_least: int | None = None
    at_most: int | None = None

    def __call__(self, value: Any, name: str) -> int:
        found = python_number(value)
        if not isinstance(found, int) or isinstance(found, bool):
            raise TypeError(f"{name} must be an integer, got {described(value)}.")
        low, high = self.at_least, self.at_most
        if low is not None and found < low:
            expected = "not be negative" if low == 0 else f"be at least {low}"
            raise ValueError(f"{name} must {expected}, got {described(value)}.")
        if high is not None and found > high:
            raise ValueError(f"{name} must be at most {high}, got {described(value)}.")
        return found


def flag(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy, and nothing that is merely taken for one of them.

    Examples
    --------
    >>> flag(np.True_, "fit_intercept")
    True
    """
    found = python_number(value)
    if not isinstance(found, bool):
        raise TypeError(f"{name} must be True or False, got {described(value)}.")
    return found


def function(value: Any, name: str) -> Any:
    """What can be called, and is no class."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be callable, got {described(value)}.")
    return value


@dataclass(frozen=True)
class OneOf:
    """One of some names.

    Examples
    --------
    >>> OneOf(("torch", "jax"))("tf", "engine")
    Traceback (most recent call last):
    ValueError: engine must be 'torch' or 'jax', got 'tf'.
    """

    names: tuple[str, ...]

    def __call__(self, value: Any, name: str) -> str:
        if not (isinstance(value, str) and value in self.names):
            expected = " or ".join(map(repr, self.names))
            kind = ValueError if isinstance(value, str) else TypeError
            raise kind(f"{name} must be {expected}, got {described(value)}.")
        return value


@dataclass(frozen=True)
class Has:
    """An object with these members, and not its class.

    Examples
    --------
    >>> Has("a solver", "walk")(3, "solver")
    Traceback (most recent call last):
    TypeError: solver must be a solver, got 3, without walk.
    """

    what: str
    members: tuple[str, ...]

    def __init__(self, what: str, *members: str) -> None:
        object.__setattr__(self, "what", what)
        object.__setattr__(self, "members", members)

    def __call__(self, value: Any, name: str) -> Any:
        missing = [m for m in self.members if not hasattr(value, m)]
        if isinstance(value, type) or missing:
            lack = f", without {', '.join(missing)}" if missing else ": make one of it"
            raise TypeError(f"{name} must be {self.what}, got {described(value)}{lack}.")
        return value


@dataclass(frozen=True)
class Maybe:
    """None, or what another rule takes."""

    rule: Rule

    def __call__(self, value: Any, name: str) -> Any:
        return None if value is None else self.rule(value, name)


POSITIVE = Number(above=0)
NOT_NEGATIVE = Number(at_least=0)
#: What is at most that, which says nothing where it is infinite.
BOUND = Number(at_least=0, finite=False)
COUNT = Whole(1)
#: Of a draw: what NumPy's and Python's generators both take.
SEED = Whole(0)


def check_fields(instance: Any, **rules: Rule) -> None:
    """Check the fields of a frozen dataclass by their rules, and keep the plain values.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Steps:
    ...     n: int
    ...     def __post_init__(self):
    ...         check_fields(self, n=COUNT)
    >>> Steps(np.int64(2))
    Steps(n=2)
    """
    for name, rule in rules.items():
        object.__setattr__(instance, name, rule(getattr(instance, name), name))


def numbers_of(values: Any, name: str, rule: Number) -> tuple[float, ...]:
    """Each of a sequence or a one-dimensional array of numbers by a rule.

    Examples
    --------
    >>> numbers_of([1, np.float32(2)], "lower", Number())
    (1.0, 2.0)
    """
    refuse_matrix_classes(values, name)
    if is_array(values) and len(values.shape) == 1:
        values = get_backend(values).to_numpy(values).tolist()
    if isinstance(values, (str, bytes, dict, set)) or not isinstance(values, Iterable):
        raise TypeError(
            f"{name} must be a number or a sequence of numbers, got {described(values)}."
        )
    return tuple(rule(value, f"{name}[{j}]") for j, value in enumerate(values))
