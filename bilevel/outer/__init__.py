"""Outer criteria g(x, λ): what the hyperparameters minimise."""

from ._protocol import Outer, OuterConstants, OuterPoint
from .held_out import HeldOut, held_out

__all__ = ["HeldOut", "Outer", "OuterConstants", "OuterPoint", "held_out"]
