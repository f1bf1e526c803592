"""Hypergradients ∇f(λ): one signature, one file a method."""

from ._protocol import Hypergradient, HypergradResult, hypergradient_at
from .bound import (
    Along,
    Bend,
    Inexact,
    Nearness,
    hypergradient_bound,
    self_concordant_adjoint_bound,
    self_concordant_bound,
    self_concordant_bounds,
    self_concordant_value_bound,
    value_bound,
)
from .curvature import hessian
from .direct import Direct
from .implicit import Implicit
from .neumann import Neumann
from .reversible import InformationBuffer, Reversible
from .surrogate import tangent_bound, value_error
from .unrolled import ForwardUnrolled, ReverseUnrolled, unsolved
from .unrolled_lbfgs import ReverseLBFGS
from .whitened import Bounds, Metric, Whitened, smaller, whitened_bounds

__all__ = [
    "Along",
    "Bend",
    "Bounds",
    "Direct",
    "ForwardUnrolled",
    "HypergradResult",
    "Hypergradient",
    "Implicit",
    "Inexact",
    "InformationBuffer",
    "Metric",
    "Nearness",
    "Neumann",
    "ReverseLBFGS",
    "ReverseUnrolled",
    "Reversible",
    "Whitened",
    "hessian",
    "hypergradient_at",
    "hypergradient_bound",
    "self_concordant_adjoint_bound",
    "self_concordant_bound",
    "self_concordant_bounds",
    "self_concordant_value_bound",
    "smaller",
    "tangent_bound",
    "unsolved",
    "value_bound",
    "value_error",
    "whitened_bounds",
]
