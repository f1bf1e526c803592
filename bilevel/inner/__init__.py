"""Inner objectives h(x, λ): what the parameters x minimise."""

from ._protocol import Inner, InnerConstants, InnerPoint, Ray
from .linear import LinearModel, linear_model

__all__ = ["Inner", "InnerConstants", "InnerPoint", "LinearModel", "Ray", "linear_model"]
