"""Outer criteria g(x, λ): what the hyperparameters minimise."""

from ._predictor import LinearPredictor, Prediction, Predictor
from ._protocol import Outer, OuterConstants, OuterPoint
from .gcv import GCV, gcv
from .held_out import HeldOut, held_out
from .kernel import KernelPredictor, held_out_kernel
from .marginal_likelihood import MarginalLikelihood, marginal_likelihood
from .sure import SURE, MonteCarloSURE, monte_carlo_sure, perturbed_targets, sure

__all__ = [
    "GCV",
    "SURE",
    "HeldOut",
    "KernelPredictor",
    "LinearPredictor",
    "MarginalLikelihood",
    "MonteCarloSURE",
    "Outer",
    "OuterConstants",
    "OuterPoint",
    "Prediction",
    "Predictor",
    "gcv",
    "held_out",
    "held_out_kernel",
    "marginal_likelihood",
    "monte_carlo_sure",
    "perturbed_targets",
    "sure",
]
