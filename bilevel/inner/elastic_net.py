"""The smoothed elastic net: a smooth ℓ1 norm and an ℓ2 penalty, one hyperparameter each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._cached import cached_property
from ..backends import POSITIVE, Array, Backend, check_fields
from ..linalg import dot, dots, grams
from ..linalg.rounding import unit_roundoff, upper_norm, upper_norms
from ..losses._protocol import ELEMENTARY
from ._protocol import InnerConstants, Rounding
from .penalties import exp_or_inf, exponential_fold, least_exp, scaled


@dataclass(frozen=True)
class SmoothedElasticNet:
    """e^{λ_1} Σ_j φ(x_j) + e^{λ_2}/2 ‖x‖² with φ(s) = √(s² + ε²) - ε.

    φ' = s/√(s² + ε²), φ'' = ε²/(s² + ε²)^{3/2} ≤ 1/ε and abs(φ''') ≤ 48/(25 √5 ε²), which it
    reaches at s = ε/2. As ε → 0 this is the elastic net (Zou and Hastie, JRSS B 67, 2005), at
    most e^{λ_1} p ε below it.

    Parameters
    ----------
    epsilon : float
        ε > 0.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> r = SmoothedElasticNet(4.0).at(np.array([3.0]), np.zeros(2), backend)
    >>> r.grad
    array([3.6])
    """

    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        check_fields(self, epsilon=POSITIVE)

    @property
    def n_hyperparameters(self) -> int:
        return 2

    def at(self, x: Array, lam: Array, backend: Backend) -> SmoothedElasticNetPoint:
        return SmoothedElasticNetPoint(self, x, backend.xp.exp(lam), backend)

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        """μ = e^{λ_2}; the rest from the bounds of φ'' and φ'''."""
        first, second = backend.scalars(lam[0], lam[1])
        w1, w2 = exp_or_inf(first), exp_or_inf(second)
        return InnerConstants(
            mu=least_exp(second),
            smoothness=w1 / self.epsilon + w2,
            hessian_lipschitz=w1 * 48 / (25 * 5**0.5 * self.epsilon**2),
            cross_lipschitz=math.hypot(w1 / self.epsilon, w2),
        )


@dataclass(frozen=True)
class SmoothedElasticNetPoint:
    """The smoothed elastic net at x; ``weights`` is e^λ, shape (2,)."""

    penalty: SmoothedElasticNet
    x: Array
    weights: Array
    backend: Backend

    @cached_property
    def _root(self) -> Array:
        return self.backend.xp.sqrt(self.x * self.x + self.penalty.epsilon**2)

    @cached_property
    def _l1_grad(self) -> Array:
        return self.weights[0] * (self.x / self._root)

    @cached_property
    def _l2_grad(self) -> Array:
        return self.weights[1] * self.x

    @cached_property
    def value(self) -> Array:
        # √(x² + ε²) - ε without cancellation for small x.
        smooth = self.x * self.x / (self._root + self.penalty.epsilon)
        l2 = dot(self._l2_grad, self.x, self.backend) / 2
        return self.weights[0] * self.backend.xp.sum(smooth) + l2

    @cached_property
    def grad(self) -> Array:
        return self._l1_grad + self._l2_grad

    @cached_property
    def _diag(self) -> Array:
        root = self._root
        return self.weights[0] * (self.penalty.epsilon**2 / (root * root * root)) + self.weights[1]

    def hvp(self, v: Array) -> Array:
        return (self._diag if v.ndim == self.x.ndim else self._diag[..., None]) * v

    def cross_vjp(self, q: Array) -> Array:
        parts = [dots(grad, q, self.backend) for grad in (self._l1_grad, self._l2_grad)]
        return self.backend.xp.stack(parts)

    def cross_jvp(self, d: Array) -> Array:
        return d[0] * self._l1_grad + d[1] * self._l2_grad

    @property
    def cross_norm(self) -> Array:
        """The Frobenius norm of the two columns."""
        squares = [dot(grad, grad, self.backend) for grad in (self._l1_grad, self._l2_grad)]
        return self.backend.xp.sqrt(squares[0] + squares[1])

    def diag(self) -> Array:
        return self._diag

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array:
        """From φ''' = -3 ε² s / (s² + ε²)^{5/2}."""
        root, epsilon = self._root, self.penalty.epsilon
        third = (-3 * epsilon**2) * self.x / (root * root * root) / (root * root)
        return grams(T, (self.weights[0] * third * q)[..., None] * T, self.backend)

    def cross_bend(self, q: Array, T: Array) -> Array:
        l2 = self.weights[1] * q
        return self.backend.xp.stack([dots(a, T, self.backend) for a in (self._diag * q - l2, l2)])

    def fold(self, q: Array, D: Array) -> Array:
        return exponential_fold(self, q, D)

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding:
        """All terms are of one sign, so that each is right to a few units."""
        backend = self.backend
        few = 2 * ELEMENTARY * unit_roundoff(self.x.dtype, backend)
        parts = (scaled(grad, scale) for grad in (self._l1_grad, self._l2_grad))
        size = sum(upper_norm(part, backend) for part in parts)
        products = few * upper_norms(scaled(self.hvp(vectors), scale), backend)
        return Rounding(few * size, products, few * size)

    def moved(self, x: Array) -> SmoothedElasticNetPoint:
        return SmoothedElasticNetPoint(self.penalty, x, self.weights, self.backend)
