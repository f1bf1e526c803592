"""What a loss is: a function of one label and one prediction, with its derivatives."""

from __future__ import annotations

from typing import Protocol

from ..backends import Array, Backend


class Loss(Protocol):
    """ℓ(y, t), row by row, convex in the prediction t, twice differentiable.

    All methods take labels y of shape (n,) and predictions t of shape (n,) or (n, k), and
    return one number a prediction.
    """

    #: sup |∂²ℓ/∂t²|, or None where there is none.
    curvature_bound: float | None
    #: sup |∂³ℓ/∂t³|, or None where there is none.
    third_bound: float | None

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        """Raise ValueError where the labels are not of this loss."""
        ...

    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        """ℓ(y, t)."""
        ...

    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        """∂ℓ/∂t."""
        ...

    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        """∂²ℓ/∂t²."""
        ...
