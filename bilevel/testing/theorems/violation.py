"""A statement that does not hold."""

from __future__ import annotations

Figures = dict[str, float]


class Violation(AssertionError):
    """A statement of the theory does not hold; the message has the figures."""


def require(holds: bool, statement: str, **figures: float) -> None:
    """Raise a :class:`Violation` unless the statement holds.

    Examples
    --------
    >>> require(1.0 <= 2.0, "a ≤ b", a=1.0, b=2.0)
    """
    if not holds:
        shown = ", ".join(f"{name} = {value:.6g}" for name, value in figures.items())
        raise Violation(f"{statement} is violated: {shown}.")
