"""Losses, each one file: value, derivative and curvature of one prediction."""

from ._protocol import (
    ELEMENTARY,
    LOSS,
    Accounted,
    Loss,
    Pointwise,
    Thirds,
    Totals,
    refuse_without_support,
)
from .huber import Huber
from .logistic import Logistic
from .multinomial import Multinomial
from .poisson import Poisson
from .squared import Squared
from .squared_hinge import SquaredHinge

__all__ = [
    "ELEMENTARY",
    "LOSS",
    "Accounted",
    "Huber",
    "Logistic",
    "Loss",
    "Multinomial",
    "Pointwise",
    "Poisson",
    "Squared",
    "SquaredHinge",
    "Thirds",
    "Totals",
    "refuse_without_support",
]
