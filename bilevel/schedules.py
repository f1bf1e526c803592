"""Tolerance sequences ε_k, k = 1, 2, ...; each states whether its sum is finite.

Theorem 2 of Pedregosa (2016) asks for Σ ε_k < ∞. Whether a sequence is summable can't be seen
from any number of its terms, so the sequence says it, and the certificate repeats it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .backends import POSITIVE, Number, check_fields, described, flag, function


class Schedule(Protocol):
    """ε_k > 0 for k = 1, 2, ..."""

    @property
    def summable(self) -> bool:
        """Whether Σ ε_k < ∞."""
        ...

    def __call__(self, k: int) -> float: ...


#: A tolerance is positive, also where the formula underflows (0.1 · 0.9ᵏ from k = 6,702 on).
_LEAST = sys.float_info.min


@dataclass(frozen=True)
class Power:
    """ε_k = first · k^-exponent; summable for an exponent above 1.

    Examples
    --------
    >>> Power(0.1, 2)(10), Power(0.1, 1).summable
    (0.001, False)
    """

    first: float = 0.1
    exponent: float = 2.0

    def __post_init__(self) -> None:
        check_fields(self, first=POSITIVE, exponent=Number())

    @property
    def summable(self) -> bool:
        return self.exponent > 1

    def __call__(self, k: int) -> float:
        return max(self.first * math.pow(k, -self.exponent), _LEAST)


def quadratic(first: float = 0.1) -> Power:
    """ε_k = first / k² (section 4.1 of the paper)."""
    return Power(first, 2.0)


def cubic(first: float = 0.1) -> Power:
    """ε_k = first / k³ (section 4.1 of the paper)."""
    return Power(first, 3.0)


@dataclass(frozen=True)
class Exponential:
    """ε_k = first · ratioᵏ (section 4.1 of the paper, with ratio 0.9).

    Examples
    --------
    >>> round(Exponential(0.1, 0.9)(1), 3)
    0.09
    """

    first: float = 0.1
    ratio: float = 0.9

    def __post_init__(self) -> None:
        check_fields(self, first=POSITIVE, ratio=POSITIVE)

    @property
    def summable(self) -> bool:
        return self.ratio < 1

    def __call__(self, k: int) -> float:
        return max(self.first * self.ratio**k, _LEAST)


@dataclass(frozen=True)
class Constant:
    """ε_k = tol: never summable. With a tiny tol it is the paper's "exact" variant (1e-12)."""

    tol: float = 1e-12

    def __post_init__(self) -> None:
        check_fields(self, tol=POSITIVE)

    @property
    def summable(self) -> bool:
        return False

    def __call__(self, k: int) -> float:
        return self.tol


@dataclass(frozen=True)
class Custom:
    """Any function of k, with the user's word on whether its sum is finite.

    Examples
    --------
    >>> Custom(lambda k: 2.0**-k, summable=True)(3)
    0.125
    """

    function: Callable[[int], float]
    summable: bool

    def __post_init__(self) -> None:
        check_fields(self, function=function, summable=flag)

    def __call__(self, k: int) -> float:
        return POSITIVE(self.function(k), f"The tolerance of iteration {k}")


#: The sequences of the paper by name.
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "quadratic": quadratic,
    "cubic": cubic,
    "exponential": Exponential,
    "exact": Constant,
}


def schedule_of(value: Any, name: str = "tolerances") -> Schedule:
    """A schedule by its name, or the schedule itself.

    Examples
    --------
    >>> schedule_of("cubic")
    Power(first=0.1, exponent=3.0)
    """
    if isinstance(value, str):
        if value not in SCHEDULES:
            raise ValueError(
                f"{name} must be a Schedule or one of {sorted(SCHEDULES)}, got {value!r}."
            )
        return SCHEDULES[value]()
    if isinstance(value, type) or not (callable(value) and hasattr(value, "summable")):
        raise TypeError(
            f"{name} must be a Schedule or one of {sorted(SCHEDULES)}, got {described(value)}."
        )
    found: Schedule = value
    return found
