"""Where :mod:`bilevel.problems.cross_validation` was in 0.1.0: the old door."""

from .problems.cross_validation import cross_validation, weighted_validation

__all__ = ["cross_validation", "weighted_validation"]
