"""Losses, each one file: value, derivative and curvature of one prediction."""

from ._protocol import Loss, Pointwise, Totals
from .huber import Huber
from .logistic import Logistic
from .multinomial import Multinomial
from .poisson import Poisson
from .squared import Squared
from .squared_hinge import SquaredHinge

__all__ = [
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Pointwise",
    "Poisson",
    "Squared",
    "SquaredHinge",
    "Totals",
]
