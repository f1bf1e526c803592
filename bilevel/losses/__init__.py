"""Losses, each one file: value, derivative and curvature of one prediction."""

from ._protocol import Loss
from .logistic import Logistic

__all__ = ["Logistic", "Loss"]
