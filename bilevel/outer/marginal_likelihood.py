"""The negative log marginal likelihood of ridge and kernel ridge regression.

Kernel ridge regression is the mean of a Gaussian process: y ~ N(0, A), A = K(θ) + ρ I
(Rasmussen and Williams 2006, equation 2.30),

    -log p(y) = ½ yᵀ A⁻¹ y + ½ log det A + n/2 log 2π.

Ridge regression is the posterior mode for y ~ N(X x, σ² I), x ~ N(0, σ² W⁻¹) (MacKay 1992):

    -log p(y) = h(X(λ), λ)/σ² + ½ log det (I + X W⁻¹ Xᵀ) + n/2 log 2πσ².

Both data terms are the inner minimum, up to a factor: -min h for the first, since
h = ½ αᵀAα - yᵀα. So g(x, λ) = c h(x, λ) + ½ log det + constant. Then ∂_x g = c ∂_x h vanishes
at the solution, and an error e of x costs an error of order e² in g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array
from ..inner.kernel_ridge import KernelRidge, KernelRidgePoint
from ..inner.linear import LinearModel, LinearPoint
from ..linalg import grams
from ._protocol import OuterConstants
from ._rows import refuse_other_models, standard_deviation
from .effective import Smoother, SmootherPoint, smoother


@dataclass(frozen=True)
class MarginalLikelihood:
    """-log p(y | λ). Build it with :func:`marginal_likelihood`."""

    model: LinearModel | KernelRidge
    scale: float
    constant: float
    smoother: Smoother

    @property
    def passes(self) -> float:
        """0: its products are those of the inner model, which counts them."""
        return 0

    def at(self, x: Array, lam: Array) -> MarginalLikelihoodPoint:
        return MarginalLikelihoodPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """None that holds for every λ: the curvature of h grows with e^λ."""
        return OuterConstants(None, None)


@dataclass(frozen=True)
class MarginalLikelihoodPoint:
    """-log p(y | λ) at (x, λ)."""

    outer: MarginalLikelihood
    x: Array
    lam: Array

    @cached_property
    def _inner(self) -> LinearPoint | KernelRidgePoint:
        return self.outer.model.at(self.x, self.lam)

    @cached_property
    def _smoother(self) -> SmootherPoint:
        return self.outer.smoother.at(self.lam)

    @cached_property
    def value(self) -> Array:
        return (
            self.outer.scale * self._inner.value
            + self._smoother.log_det / 2
            + (self.outer.constant)
        )

    @cached_property
    def value_rounding(self) -> Array:
        """That of h, of the log-determinant and of the sum."""
        outer, smoother, xp = self.outer, self._smoother, self.outer.model.backend.xp
        eps = float(xp.finfo(self.x.dtype).eps)
        terms = xp.abs(outer.scale * self._inner.value) + xp.abs(smoother.log_det)
        inner = abs(outer.scale) * self._inner.value_rounding
        return inner + smoother.log_det_rounding / 2 + 8 * eps * (terms + abs(outer.constant))

    @cached_property
    def grad_x(self) -> Array:
        return self.outer.scale * self._inner.grad

    @cached_property
    def grad_lam(self) -> Array:
        """λ enters h through a form that is quadratic in x, so ∂_λ h = ½ (∂²_{xλ} h)ᵀ x."""
        half = self.outer.scale / 2
        return half * self._inner.cross_vjp(self.x) + self._smoother.log_det_grad / 2

    def gram(self, T: Array) -> Array:
        """Two passes over the data of the inner model."""
        return self.outer.scale * grams(T, self._inner.hvp(T), self.outer.model.backend)

    def cross_gram(self, T: Array) -> Array:
        return self.outer.scale * self._inner.cross_vjp(T)

    def fold(self, D: Array) -> Array | None:
        """∂²_{λλ} h is half of xᵀ ∂³_{xλλ} h, as its gradient is."""
        bent, direct = self._smoother.log_det_hvp(D), self._inner.fold(self.x, D)
        if bent is None or direct is None:
            return None
        return self.outer.scale / 2 * direct + bent / 2


def marginal_likelihood(
    model: LinearModel | KernelRidge, *, noise: float = 1.0
) -> MarginalLikelihood:
    """Build the negative log marginal likelihood of ridge or kernel ridge regression.

    Parameters
    ----------
    model : LinearModel or KernelRidge
        The inner model: squared loss, ℓ2 penalty, one target, no row weights.
    noise : float
        σ > 0, for ridge regression. In kernel ridge regression the ridge ρ is the variance of
        the noise, and ``noise`` must stay 1.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import linear_model
    >>> from bilevel.losses import Squared
    >>> h = linear_model(np.eye(1), np.array([2.0]), Squared())
    >>> g = marginal_likelihood(h).at(np.array([1.0]), np.zeros(1))  # y ~ N(0, 2)
    >>> round(float(g.value), 4), round(float(0.5 * (2.0 + np.log(2 * np.pi * 2))), 4)
    (2.2655, 2.2655)
    """
    refuse_other_models(model, LinearModel, KernelRidge)
    noise = standard_deviation(noise, model.dtype, model.backend)
    kernel = isinstance(model, KernelRidge)
    if kernel and noise != 1.0:
        raise ValueError("The ridge of kernel ridge regression is its noise: leave noise at 1.")
    n = model.y.shape[0]
    constant = n / 2 * math.log(2 * math.pi * noise**2)
    scale = -1.0 if kernel else 1 / noise**2
    return MarginalLikelihood(model, scale, constant, smoother(model))
