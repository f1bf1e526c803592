"""Inner objectives h(x, λ): what the parameters x minimise."""

from ._protocol import Inner, InnerConstants, InnerPoint, Ray
from .functions import Derivatives, FunctionInner, from_autodiff, from_functions
from .linear import LinearModel, linear_model

__all__ = [
    "Derivatives",
    "FunctionInner",
    "Inner",
    "InnerConstants",
    "InnerPoint",
    "LinearModel",
    "Ray",
    "from_autodiff",
    "from_functions",
    "linear_model",
]
