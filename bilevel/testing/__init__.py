"""Verification as a feature: the theory as executable statements, and checks of your problem.

* :func:`quadratic` and :func:`linear` draw problems whose constants, X(λ) and ∇f(λ) are known;
  :mod:`bilevel.testing.strategies` has Hypothesis strategies for them (needs ``hypothesis``).
* :mod:`bilevel.testing.theorems` has one function for each statement of the theory.
* :func:`check_problem` tells whether the derivatives and constants of your problem are right.
* :func:`certify` holds a finished run against Theorem 2, clause by clause.
* :mod:`bilevel.testing.counterexamples` shows why each condition of the theorem is needed.
"""

from .certificate import Certificate, Clause, Mark, certify
from .check import CheckReport, Finding, check_problem
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
    "Certificate",
    "CheckReport",
    "Clause",
    "Finding",
    "KnownProblem",
    "Mark",
    "Reference",
    "Violation",
    "certify",
    "cg_theory",
    "check_problem",
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
