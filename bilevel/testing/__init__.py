"""Verification as a feature: the theory as executable statements, and checks of your problem.

* :func:`quadratic` and :func:`linear` draw problems whose constants, X(λ) and ∇f(λ) are known;
  :mod:`bilevel.testing.strategies` has Hypothesis strategies for them (needs ``hypothesis``).
* :mod:`bilevel.testing.theorems` has one function for each statement of the theory.
"""

from .problems import KnownProblem, known_losses, linear, quadratic
from .reference import Reference
from .theorems import (
    Violation,
    cg_theory,
    inner_stop,
    order,
    products,
    projection,
    theorem_1,
    theorem_2,
)

__all__ = [
    "KnownProblem",
    "Reference",
    "Violation",
    "cg_theory",
    "inner_stop",
    "known_losses",
    "linear",
    "order",
    "products",
    "projection",
    "quadratic",
    "theorem_1",
    "theorem_2",
]
