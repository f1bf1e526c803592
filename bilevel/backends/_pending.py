"""Numbers that the host computes from arrays that are read with others, all at once.

What follows from a few norms costs a device a launch an operation, and the host next to nothing:
only the norms are to be read, and there is a read to come in any case
(:meth:`~bilevel.backends.Backend.scalars`). The host computes in double precision.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from ._protocol import Array

Numbers = tuple[float, ...]


class Pending:
    """One number, shape (), or k of them, shape (k,), that follow from arrays.

    Made of arrays and numbers by :func:`pending`; sums, differences, products and quotients with
    these are pending in their turn.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> double = 2 * pending(np.asarray(3.0)) + 1
    >>> double.shape, bilevel.get_backend("numpy").scalars(double, np.ones(2))
    ((), (7.0, 1.0, 1.0))
    """

    __slots__ = ("_numbers", "_parts", "_rule", "shape")
    # An array on the left leaves the operation to this class.
    __array_ufunc__, __array_priority__ = None, 1000.0

    def __init__(
        self, rule: Callable[..., Numbers], parts: tuple[Pending, ...], shape: tuple[int, ...]
    ) -> None:
        self._rule, self._parts, self.shape = rule, parts, shape
        self._numbers: Numbers | None = None

    def unread(self) -> Iterator[Read]:
        """The arrays that are still to be read, some of them perhaps several times."""
        if self._numbers is None:
            for part in self._parts:
                yield from part.unread()

    def numbers(self) -> Numbers:
        """What they are, once all of :meth:`unread` have been read."""
        if self._numbers is None:
            self._numbers = self._rule(*(part.numbers() for part in self._parts))
            self._parts = ()
        return self._numbers

    def __getitem__(self, index: int | slice) -> Pending:
        k = self.shape[0]
        if isinstance(index, slice):
            return Pending(lambda own: own[index], (self,), (len(range(k)[index]),))
        return Pending(lambda own: (own[index],), (self,), ())

    def root(self) -> Pending:
        """√, of rounding below zero 0, of NaN itself."""
        return each(lambda a: 0.0 if a < 0 else math.sqrt(a), self)

    def length(self) -> Pending:
        """The norm of all of them, shape ()."""
        return Pending(lambda own: (math.hypot(*own),), (self,), ())

    def sum(self) -> Pending:
        """Their sum, shape ()."""
        return Pending(lambda own: (math.fsum(own) if _finite(own) else sum(own),), (self,), ())

    def __abs__(self) -> Pending:
        return each(abs, self)

    def __neg__(self) -> Pending:
        return each(operator.neg, self)

    def __add__(self, other: Array | Pending | float) -> Pending:
        return each(operator.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Array | Pending | float) -> Pending:
        return each(operator.sub, self, other)

    def __rsub__(self, other: Array | Pending | float) -> Pending:
        return each(operator.sub, other, self)

    def __mul__(self, other: Array | Pending | float) -> Pending:
        return each(operator.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Array | Pending | float) -> Pending:
        return each(_quotient, self, other)


class Read(Pending):
    """The entries of an array, which may be made when it is first to be read."""

    __slots__ = ("_array", "_make")

    def __init__(self, make: Callable[[], Array], shape: tuple[int, ...]) -> None:
        super().__init__(_none, (), shape)
        self._make, self._array = make, None

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = self._make()
        return self._array

    def unread(self) -> Iterator[Read]:
        if self._numbers is None:
            yield self

    def take(self, numbers: Numbers) -> None:
        """Note what was read."""
        self._numbers, self._make, self._array = numbers, _none, None


class Known(Pending):
    """Numbers of the host."""

    __slots__ = ()

    def __init__(self, numbers: Numbers, shape: tuple[int, ...]) -> None:
        super().__init__(_none, (), shape)
        self._numbers = numbers


def _none() -> Any:
    raise RuntimeError("An array is asked for its numbers before it has been read.")


def pending(value: Any) -> Pending:
    """An array of few entries, or a number, as what can be computed with before it is read."""
    if isinstance(value, Pending):
        return value
    if isinstance(value, (int, float)):
        return Known((float(value),), ())
    return Read(lambda: value, tuple(map(int, value.shape)))


def postponed(make: Callable[[], Array], shape: tuple[int, ...]) -> Pending:
    """The entries of an array of this shape that is made only if it is to be read."""
    return Read(make, shape)


def each(function: Callable[..., float], *values: Any) -> Pending:
    """The function of each number; one stands for as many as the others have."""
    parts = tuple([v if isinstance(v, Pending) else pending(v) for v in values])
    shape: tuple[int, ...] = ()
    for part in parts:
        shape = part.shape or shape
    rule = _single if shape == () else _several
    return Pending(rule(function, shape), parts, shape)


def _single(function: Callable[..., float], _: tuple[int, ...]) -> Callable[..., Numbers]:
    return lambda *columns: (function(*[column[0] for column in columns]),)


def _several(function: Callable[..., float], shape: tuple[int, ...]) -> Callable[..., Numbers]:
    k = math.prod(shape)

    def rule(*columns: Numbers) -> Numbers:
        rows = zip(*(c if len(c) == k else c * k for c in columns), strict=True)
        return tuple([function(*row) for row in rows])

    return rule


def larger(a: Any, b: Any) -> Pending:
    """The larger of the two, NaN where the first is."""
    return each(lambda a, b: max(a, b), a, b)


def _finite(numbers: Numbers) -> bool:
    return all(map(math.isfinite, numbers))


def _quotient(a: float, b: float) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a)


def read_all(
    read: Callable[[list[Array]], list[float]], values: tuple[Any, ...]
) -> tuple[float, ...]:
    """The numbers of all values, one after the other, with one call of ``read``.

    ``read`` returns the entries of some arrays, one after the other.
    """
    held = [pending(value) for value in values]
    leaves = list({id(leaf): leaf for value in held for leaf in value.unread()}.values())
    arrays = {id(leaf.array): leaf.array for leaf in leaves}
    found, numbers, start = read(list(arrays.values())) if arrays else [], {}, 0
    for key, array in arrays.items():
        stop = start + math.prod(map(int, array.shape))
        numbers[key] = tuple(found[start:stop])
        start = stop
    for leaf in leaves:
        leaf.take(numbers[id(leaf.array)])
    return tuple(number for value in held for number in value.numbers())
