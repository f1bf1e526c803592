"""What makes a :class:`~bilevel.Problem` of arrays, or of other problems."""

from .cross_validation import cross_validation, weighted_validation
from .linear import logistic_regression
from .stacked import stacked

__all__ = ["cross_validation", "logistic_regression", "stacked", "weighted_validation"]
