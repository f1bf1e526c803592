"""Outer loops: each is a rule that leads from one state to the next."""

from __future__ import annotations

from collections.abc import Callable

from ._protocol import Method, Reporting, State, optimality
from .hoag import HOAG, AdaptiveStep, FixedStep, StepRule, StepState
from .maid import MAID
from .path import PathFollowing

__all__ = [
    "HOAG",
    "MAID",
    "METHODS",
    "AdaptiveStep",
    "FixedStep",
    "Method",
    "PathFollowing",
    "Reporting",
    "State",
    "StepRule",
    "StepState",
    "get_method",
    "optimality",
]

#: The methods by name, for ``minimize(..., method=name)`` and the command line.
METHODS: dict[str, Callable[[], Method]] = {"path": PathFollowing, "hoag": HOAG, "maid": MAID}


def get_method(method: str | Method) -> Method:
    """Return a method by its name, or the method itself.

    Raises
    ------
    ValueError
        If no method has this name.
    TypeError
        If it is neither a name nor a method.
    """
    if not isinstance(method, str):
        if isinstance(method, type) or not (hasattr(method, "init") and hasattr(method, "step")):
            raise TypeError(
                "method must be a name or an object with init and step, "
                f"got {type(method).__name__}."
            )
        return method
    if method not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)} or a Method, got {method!r}.")
    return METHODS[method]()
