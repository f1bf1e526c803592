"""Hypergradients ∇f(λ): one signature, one file a method."""

from ._protocol import Hypergradient, HypergradResult
from .bound import hypergradient_bound, value_bound
from .implicit import Implicit

__all__ = [
    "HypergradResult",
    "Hypergradient",
    "Implicit",
    "hypergradient_bound",
    "value_bound",
]
