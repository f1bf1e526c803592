"""Outer criteria g(x, λ): what the hyperparameters minimise."""

from ..inner import Sampled
from ._pair import check_pair
from ._predictor import LinearPredictor, Prediction, Predictor
from ._protocol import (
    BendingOuter,
    Curved,
    CurvedRounded,
    Outer,
    OuterConstants,
    OuterPoint,
    OuterRounding,
    RoundedOuter,
    ValueRounded,
)
from .functions import FunctionOuter, OuterDerivatives, from_autodiff, from_functions
from .gcv import GCV, gcv
from .held_out import HeldOut, HeldOutLoss, held_out
from .kernel import KernelPredictor, held_out_kernel
from .marginal_likelihood import MarginalLikelihood, marginal_likelihood
from .mlp import MLPPredictor, held_out_mlp
from .sure import SURE, MonteCarloSURE, monte_carlo_sure, perturbed_targets, sure

__all__ = [
    "GCV",
    "SURE",
    "BendingOuter",
    "Curved",
    "CurvedRounded",
    "FunctionOuter",
    "HeldOut",
    "HeldOutLoss",
    "KernelPredictor",
    "LinearPredictor",
    "MLPPredictor",
    "MarginalLikelihood",
    "MonteCarloSURE",
    "Outer",
    "OuterConstants",
    "OuterDerivatives",
    "OuterPoint",
    "OuterRounding",
    "Prediction",
    "Predictor",
    "RoundedOuter",
    "Sampled",
    "ValueRounded",
    "check_pair",
    "from_autodiff",
    "from_functions",
    "gcv",
    "held_out",
    "held_out_kernel",
    "held_out_mlp",
    "marginal_likelihood",
    "monte_carlo_sure",
    "perturbed_targets",
    "sure",
]
