"""Inner objectives h(x, λ): what the parameters x minimise."""

from ._protocol import Inner, InnerConstants, InnerPoint, Ray
from .elastic_net import SmoothedElasticNet
from .kernel_ridge import KernelRidge, kernel_ridge
from .kernels import RBF, Kernel, Matern32, Matern52, Polynomial, UserKernel
from .linear import LinearModel, linear_model
from .penalties import EachL2, GroupL2, Penalty, SingleL2
from .tikhonov import FunctionOperator, Tikhonov

__all__ = [
    "RBF",
    "EachL2",
    "FunctionOperator",
    "GroupL2",
    "Inner",
    "InnerConstants",
    "InnerPoint",
    "Kernel",
    "KernelRidge",
    "LinearModel",
    "Matern32",
    "Matern52",
    "Penalty",
    "Polynomial",
    "Ray",
    "SingleL2",
    "SmoothedElasticNet",
    "Tikhonov",
    "UserKernel",
    "kernel_ridge",
    "linear_model",
]
