"""The logistic loss log(1 + e^(-y t)), labels y in {-1, +1}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..backends import Array, Backend
from ._protocol import (
    ELEMENTARY,
    Pointwise,
    Proportional,
    entrywise,
    refuse_labels_but_signs,
    sign_support,
)


@dataclass(frozen=True)
class Logistic(Proportional, Pointwise):
    """ℓ(y, t) = log(1 + e^(-y t)), the negative log-likelihood of logistic regression.

    With s = σ(-y t): ℓ' = -y s, ℓ'' = s (1 - s) ≤ 1/4, ℓ''' = -y s (1 - s) (1 - 2s), which is at
    most 1/(6√3).

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> y, t = np.array([1.0, -1.0]), np.array([0.0, 0.0])
    >>> Logistic().value(y, t, backend).round(4)
    array([0.6931, 0.6931])
    """

    #: Both are computed without cancellation, y t without an error.
    units: ClassVar[tuple[float, float]] = (2 * ELEMENTARY, 2 * ELEMENTARY)
    curvature_bound: ClassVar[float] = 0.25
    third_bound: ClassVar[float] = 1 / (6 * 3**0.5)
    self_concordance: ClassVar[float | None] = 1.0

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        refuse_labels_but_signs(y, backend, name)

    def support(self, y: Array, backend: Backend) -> dict[str, Array]:
        return sign_support(y)

    @entrywise("logistic_value")
    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.softplus(-(y * t))

    @entrywise("logistic_derivative")
    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        return -y * backend.expit(-(y * t))

    @entrywise("logistic_curvature")
    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        # Not s (1 - s): of an s near 1, a row far on the wrong side, the difference is rounding.
        e = backend.xp.exp(-backend.xp.abs(y * t))
        return e / ((1 + e) * (1 + e))

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        s, rest = backend.expit(-(y * t)), backend.expit(y * t)
        return -y * s * rest * (rest - s)
