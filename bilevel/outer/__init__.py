"""Outer criteria g(x, λ): what the hyperparameters minimise."""

from ._protocol import Outer, OuterConstants, OuterPoint
from .functions import FunctionOuter, OuterDerivatives, from_autodiff, from_functions
from .held_out import HeldOut, held_out

__all__ = [
    "FunctionOuter",
    "HeldOut",
    "Outer",
    "OuterConstants",
    "OuterDerivatives",
    "OuterPoint",
    "from_autodiff",
    "from_functions",
    "held_out",
]
