"""Inner objectives h(x, λ): what the parameters x minimise."""

from ._protocol import (
    Inner,
    InnerConstants,
    InnerPoint,
    Leveraged,
    Preconditioned,
    Pushable,
    Ray,
    Remarking,
    Roundable,
    Rounded,
    Rounding,
    RoundingAlong,
    RoundingKnown,
    Sampled,
    Startable,
    Swinging,
    grad_rounding,
    inner_constants,
)
from .elastic_net import SmoothedElasticNet
from .functions import Derivatives, FunctionInner, from_autodiff, from_functions
from .kernel_ridge import KernelRidge, kernel_ridge
from .kernels import RBF, Kernel, Matern32, Matern52, Polynomial, Scaled, UserKernel
from .linear import LinearModel, linear_model
from .minibatch import minibatches
from .mlp import MLP, Curvature, Sigmoid, Tanh, mlp, negative_curvature
from .penalties import EachL2, GroupL2, Penalty, PenaltyPoint, SingleL2
from .point import TERM_MEMBERS, PenaltyTerm, Point, StraightRay, lacking
from .tikhonov import FunctionOperator, Tikhonov

__all__ = [
    "MLP",
    "RBF",
    "TERM_MEMBERS",
    "Curvature",
    "Derivatives",
    "EachL2",
    "FunctionInner",
    "FunctionOperator",
    "GroupL2",
    "Inner",
    "InnerConstants",
    "InnerPoint",
    "Kernel",
    "KernelRidge",
    "Leveraged",
    "LinearModel",
    "Matern32",
    "Matern52",
    "Penalty",
    "PenaltyPoint",
    "PenaltyTerm",
    "Point",
    "Polynomial",
    "Preconditioned",
    "Pushable",
    "Ray",
    "Remarking",
    "Roundable",
    "Rounded",
    "Rounding",
    "RoundingAlong",
    "RoundingKnown",
    "Sampled",
    "Scaled",
    "Sigmoid",
    "SingleL2",
    "SmoothedElasticNet",
    "Startable",
    "StraightRay",
    "Swinging",
    "Tanh",
    "Tikhonov",
    "UserKernel",
    "from_autodiff",
    "from_functions",
    "grad_rounding",
    "inner_constants",
    "kernel_ridge",
    "lacking",
    "linear_model",
    "minibatches",
    "mlp",
    "negative_curvature",
]
