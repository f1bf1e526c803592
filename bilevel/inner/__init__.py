"""Inner objectives h(x, λ): what the parameters x minimise."""

from ._protocol import Inner, InnerConstants, InnerPoint, Ray
from .elastic_net import SmoothedElasticNet
from .linear import LinearModel, linear_model
from .penalties import EachL2, GroupL2, Penalty, SingleL2
from .tikhonov import FunctionOperator, Tikhonov

__all__ = [
    "EachL2",
    "FunctionOperator",
    "GroupL2",
    "Inner",
    "InnerConstants",
    "InnerPoint",
    "LinearModel",
    "Penalty",
    "Ray",
    "SingleL2",
    "SmoothedElasticNet",
    "Tikhonov",
    "linear_model",
]
