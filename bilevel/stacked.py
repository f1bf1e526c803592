"""Where :mod:`bilevel.problems.stacked` was in 0.1.0: the old door, which pickles name."""

from .problems.stacked import (
    Layout,
    StackedInner,
    StackedOuter,
    StackedOuterPoint,
    StackedPoint,
    StackedRay,
    stacked,
)

__all__ = [
    "Layout",
    "StackedInner",
    "StackedOuter",
    "StackedOuterPoint",
    "StackedPoint",
    "StackedRay",
    "stacked",
]
