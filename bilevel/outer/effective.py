"""Traces and determinants of linear smoothers ŷ = S(λ) y, which depend on λ alone.

Generalised cross-validation and SURE need the degrees of freedom tr S, the marginal likelihood
a log-determinant. Both are computed exactly from a dense Cholesky factor, of size p for ridge
regression and n for kernel ridge regression, once for each λ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from .._cached import cached_property
from ..backends import Array, Backend
from ..inner.kernel_ridge import KernelRidge
from ..inner.linear import LinearModel
from ..inner.penalties import WeightedL2
from ..linalg.factors import cholesky
from ..losses import Squared


class Smoother(Protocol):
    """tr S(λ) and the log-determinant of the marginal covariance, with their gradients in λ."""

    def at(self, lam: Array) -> SmootherPoint: ...


class SmootherPoint(Protocol):
    """Both at one λ."""

    @property
    def trace(self) -> Array:
        """Tr S, 0-d."""
        ...

    @property
    def trace_grad(self) -> Array:
        """∂_λ tr S, shape (m,)."""
        ...

    @property
    def log_det(self) -> Array:
        """Log det of the covariance of y in units of the noise, 0-d."""
        ...

    @property
    def log_det_grad(self) -> Array:
        """Its gradient, shape (m,)."""
        ...


def _inverse(A: Array, backend: Backend) -> tuple[Array, Array]:
    """(A⁻¹, log det A) of a positive definite matrix; NaN where rounding has made it another."""
    xp = backend.xp
    factor = cholesky(A, backend)
    if factor is None or _lost(A, factor, backend):
        return A * math.nan, xp.sum(A) * math.nan
    eye = xp.eye(A.shape[0], dtype=A.dtype, device=backend.device)
    half = xp.linalg.solve(factor, eye)
    return xp.matmul(half.T, half), 2 * xp.sum(xp.log(xp.linalg.diagonal(factor)))


def _lost(A: Array, factor: Array, backend: Backend) -> bool:
    """Whether the smallest pivot is one of rounding: features with an offset square it into A."""
    xp = backend.xp
    unit = float(xp.finfo(A.dtype).eps)
    pivot, largest = backend.scalars(
        xp.min(xp.linalg.diagonal(factor)), xp.max(xp.linalg.diagonal(A))
    )
    return not pivot * pivot > 10 * A.shape[0] * unit * largest


class RidgeSmoother:
    """S = X (XᵀX + W)⁻¹ Xᵀ with W = diag e^{λ_g(j)}; the covariance is I + X W⁻¹ Xᵀ.

    With G = XᵀX and C = (G + W)⁻¹: tr S = tr C G, ∂ tr S/∂λ_g = -Σ_{j∈g} w_j (C G C)_jj,
    log det (I + X W⁻¹ Xᵀ) = -log det C - Σ_j λ_g(j), with the gradient -Σ_{j∈g} (C G)_jj. In terms
    of p - Σ_j w_j C_jj, which is the same, all digits are lost where W is far above G.

    Parameters
    ----------
    model : LinearModel
        With the squared loss, an ℓ2 penalty, no row weights and no free intercept. The Gram
        matrix costs two passes with p columns.
    """

    def __init__(self, model: LinearModel) -> None:
        if not isinstance(model.loss, Squared):
            raise TypeError(f"model must have the squared loss, got {type(model.loss).__name__}.")
        if not isinstance(model.penalty, WeightedL2):
            raise TypeError(f"model must have an ℓ2 penalty, got {type(model.penalty).__name__}.")
        if model.sample_weight is not None or len(model.tail) > 0:
            raise ValueError("model must be one problem without row weights.")
        self._model: LinearModel = model
        self._penalty: WeightedL2 = model.penalty

    @property
    def model(self) -> LinearModel:
        return self._model

    @cached_property
    def gram(self) -> Array:
        """XᵀX, shape (p, p)."""
        model = self._model
        xp, p = model.backend.xp, model.design.shape[1]
        eye = xp.eye(p, dtype=model.dtype, device=model.backend.device)
        return model.design.rmatmul(model.design.matmul(eye))

    def at(self, lam: Array) -> RidgeSmootherPoint:
        return RidgeSmootherPoint(self._penalty, self._model.backend, self.gram, lam)


@dataclass(frozen=True)
class RidgeSmootherPoint:
    """The traces of ridge regression at λ."""

    penalty: WeightedL2
    backend: Backend
    gram: Array
    lam: Array

    @cached_property
    def _weights(self) -> Array:
        xp = self.backend.xp
        w = self.penalty.spread(xp.exp(self.lam), 1, self.backend)
        return w * xp.ones_like(self.gram[0, :])

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        eye = self.backend.xp.eye(
            self.gram.shape[0], dtype=self.gram.dtype, device=self.backend.device
        )
        return _inverse(self.gram + self._weights[:, None] * eye, self.backend)

    @cached_property
    def _kept(self) -> tuple[Array, Array]:
        """C G, and its diagonal 1 - w_j C_jj."""
        product = self.backend.xp.matmul(self._solved[0], self.gram)
        return product, self.backend.xp.linalg.diagonal(product)

    def _gather(self, a: Array) -> Array:
        return self.penalty.gather(a, self.backend.xp.ones_like(a), self.backend)

    @cached_property
    def trace(self) -> Array:
        return self.backend.xp.sum(self._kept[1])

    @cached_property
    def trace_grad(self) -> Array:
        bent = self.backend.xp.sum(self._kept[0] * self._solved[0], axis=1)  # diag(C G C)
        return -self._gather(self._weights * bent)

    @cached_property
    def log_det(self) -> Array:
        xp = self.backend.xp
        return self._solved[1] - xp.sum(xp.log(self._weights))

    @cached_property
    def log_det_grad(self) -> Array:
        return -self._gather(self._kept[1])


@dataclass(frozen=True)
class KernelSmoother:
    """S = K A⁻¹ with A = K(θ) + ρ I, which is also the covariance.

    With C = A⁻¹: tr S = n - ρ tr C, its derivative is ρ ⟨C², ∂K/∂θ_l⟩ in θ_l and
    -ρ tr C + ρ² tr C² in log ρ; that of log det A is ⟨C, ∂K/∂θ_l⟩ and ρ tr C.

    Attributes
    ----------
    model : KernelRidge
        Its kernel matrix is formed, shape (n, n).
    """

    model: KernelRidge

    def at(self, lam: Array) -> KernelSmootherPoint:
        return KernelSmootherPoint(self.model, lam)


@dataclass(frozen=True)
class KernelSmootherPoint:
    """The traces of kernel ridge regression at λ."""

    model: KernelRidge
    lam: Array

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        xp = self.model.backend.xp
        K = self.model.matrix(self.lam).dense()
        eye = xp.eye(K.shape[0], dtype=K.dtype, device=self.model.backend.device)
        return _inverse(K + self._ridge * eye, self.model.backend)

    @cached_property
    def _ridge(self) -> Array:
        return self.model.backend.xp.exp(self.lam[-1])

    @cached_property
    def _trace_inverse(self) -> Array:
        return self.model.backend.xp.linalg.trace(self._solved[0])

    def _against_derivatives(self, M: Array) -> list[Array]:
        """⟨M, ∂K/∂θ_l⟩ for a symmetric M."""
        model = self.model
        derivatives = model.kernel.derivatives(model.X, model.X, self.lam[:-1], model.backend)
        return [model.backend.xp.sum(M * derivative) for derivative in derivatives]

    @cached_property
    def trace(self) -> Array:
        return self.model.X.shape[0] - self._ridge * self._trace_inverse

    @cached_property
    def trace_grad(self) -> Array:
        xp, C, ridge = self.model.backend.xp, self._solved[0], self._ridge
        square = xp.matmul(C, C)
        theta = [ridge * part for part in self._against_derivatives(square)]
        last = ridge * ridge * xp.linalg.trace(square) - ridge * self._trace_inverse
        return xp.stack([*theta, last])

    @cached_property
    def log_det(self) -> Array:
        return self._solved[1]

    @cached_property
    def log_det_grad(self) -> Array:
        xp = self.model.backend.xp
        theta = self._against_derivatives(self._solved[0])
        return xp.stack([*theta, self._ridge * self._trace_inverse])


def smoother(model: LinearModel | KernelRidge) -> Smoother:
    """Return the smoother of ridge or kernel ridge regression."""
    if isinstance(model, KernelRidge):
        if model.y.ndim != 1:
            raise ValueError(f"model must have one target, got y of shape {tuple(model.y.shape)}.")
        if model.roots is not None:
            raise ValueError("model must have no row weights.")
        return KernelSmoother(model)
    return RidgeSmoother(model)
