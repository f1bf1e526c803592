"""Traces and determinants of linear smoothers ŷ = S(λ) y, which depend on λ alone.

Generalised cross-validation and SURE need the degrees of freedom tr S, the marginal likelihood
a log-determinant. Both are computed exactly from a dense Cholesky factor, of the lesser of n and p
for ridge regression and n for kernel ridge regression, once for each λ. Each number is a sum of
terms of one sign: where nearly all or nothing of y is smoothed away, the difference of n and a
trace would be one of roundings.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .._cached import cached_property
from ..backends import Array, Backend
from ..inner.kernel_ridge import KernelRidge, symmetric
from ..inner.kernels import second_derivatives
from ..inner.linear import LinearModel
from ..inner.penalties import WeightedL2
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
    def left(self) -> Array:
        """N - tr S, 0-d."""
        ...

    @property
    def trace_grad(self) -> Array:
        """∂_λ tr S, shape (m,)."""
        ...

    @property
    def trace_rounding(self) -> Array:
        """About how far rounding may have moved tr S and n - tr S, 0-d."""
        ...

    @property
    def log_det_rounding(self) -> Array:
        """The same of the log-determinant."""
        ...

    @property
    def log_det(self) -> Array:
        """Log det of the covariance of y in units of the noise, 0-d."""
        ...

    @property
    def log_det_grad(self) -> Array:
        """Its gradient, shape (m,)."""
        ...

    def trace_hvp(self, D: Array) -> Array | None:
        """∂²_{λλ} tr S · D for D of shape (m, k); None where it is not known."""
        ...

    def log_det_hvp(self, D: Array) -> Array | None:
        """The same of the log-determinant."""
        ...


def _inverse(A: Array, backend: Backend) -> tuple[Array, Array]:
    """(A⁻¹, log det A) of a positive definite matrix; NaN where rounding has made it another."""
    xp = backend.xp
    factor = backend.cholesky(A)
    if factor is None or _lost(A, factor, backend):
        return A * math.nan, xp.sum(A) * math.nan
    eye = xp.eye(A.shape[0], dtype=A.dtype, device=backend.device)
    half = backend.solve_triangular(factor, eye)
    return xp.matmul(half.T, half), 2 * xp.sum(xp.log(xp.linalg.diagonal(factor)))


def _lost(A: Array, factor: Array, backend: Backend) -> bool:
    """Whether the smallest pivot is one of rounding: features with an offset square it into A."""
    xp = backend.xp
    unit = float(xp.finfo(A.dtype).eps)
    pivot, largest = backend.scalars(
        xp.min(xp.linalg.diagonal(factor)), xp.max(xp.linalg.diagonal(A))
    )
    return not pivot * pivot > 10 * A.shape[0] * unit * largest


def _moved(A: Array, backend: Backend) -> Array:
    """About the norm of what rounding does to a matrix of sums: √n entries of rounding size."""
    xp = backend.xp
    share = 4 * float(xp.finfo(A.dtype).eps) * math.sqrt(A.shape[0])
    return share * xp.max(xp.linalg.diagonal(A))


class RidgeSmoother:
    """S = X (XᵀX + W)⁻¹ Xᵀ with W = diag e^{λ_g(j)}; the covariance is I + X W⁻¹ Xᵀ.

    It is computed from whichever of the two matrices is smaller: :class:`RidgeSmootherPoint` and
    :class:`DualRidgeSmootherPoint`. With p < n no less than n - p is left of n - tr S.

    Parameters
    ----------
    model : LinearModel
        With the squared loss, an ℓ2 penalty, no row weights and no free intercept. The Gram
        matrix costs two passes with p columns, Xᵀ as it is one with n.
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

    @cached_property
    def columns(self) -> Array:
        """Xᵀ, shape (p, n)."""
        model = self._model
        eye = model.backend.xp.eye(
            model.design.shape[0], dtype=model.dtype, device=model.backend.device
        )
        return model.design.rmatmul(eye)

    def at(self, lam: Array) -> SmootherPoint:
        n, p = self._model.design.shape
        if p < n:
            return RidgeSmootherPoint(self._penalty, self._model.backend, lam, n, self.gram)
        return DualRidgeSmootherPoint(self._penalty, self._model.backend, lam, self.columns)


@dataclass(frozen=True)
class _RidgePoint(ABC):
    """The weights at λ, and sums over their groups."""

    penalty: WeightedL2
    backend: Backend
    lam: Array

    def _spread(self, like: Array) -> Array:
        """W as a vector."""
        xp = self.backend.xp
        return self.penalty.spread(xp.exp(self.lam), 1, self.backend) * xp.ones_like(like)

    def _gather(self, a: Array) -> Array:
        return self.penalty.gather(a, self.backend.xp.ones_like(a), self.backend)

    def _columns(self, product: Callable[[Array], Array], D: Array) -> Array:
        """Of each column of D, one after the other."""
        xp = self.backend.xp
        return xp.stack([product(D[:, i]) for i in range(D.shape[1])], axis=1)

    def _at(self, d: Array) -> Array:
        """d at each coefficient."""
        return self.penalty.spread(d, 1, self.backend) * self.backend.xp.ones_like(self._weights)

    @property
    @abstractmethod
    def _weights(self) -> Array:
        """W as a vector."""


@dataclass(frozen=True)
class RidgeSmootherPoint(_RidgePoint):
    """From G = XᵀX and C = (G + W)⁻¹.

    Tr S = tr C G, ∂ tr S/∂λ_g = -Σ_{j∈g} w_j (C G C)_jj, and log det (I + X W⁻¹ Xᵀ) =
    -log det C - Σ_j λ_g(j), with the gradient -Σ_{j∈g} (C G)_jj. In terms of p - Σ_j w_j C_jj,
    which is the same, all digits are lost where W is far above G.
    """

    n_rows: int
    gram: Array

    @cached_property
    def _weights(self) -> Array:
        return self._spread(self.gram[0, :])

    @cached_property
    def _matrix(self) -> Array:
        xp = self.backend.xp
        eye = xp.eye(self.gram.shape[0], dtype=self.gram.dtype, device=self.backend.device)
        return self.gram + self._weights[:, None] * eye

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        return _inverse(self._matrix, self.backend)

    @cached_property
    def _kept(self) -> tuple[Array, Array]:
        """C G, and its diagonal 1 - w_j C_jj."""
        product = self.backend.xp.matmul(self._solved[0], self.gram)
        return product, self.backend.xp.linalg.diagonal(product)

    @cached_property
    def trace(self) -> Array:
        return self.backend.xp.sum(self._kept[1])

    @property
    def left(self) -> Array:
        return self.n_rows - self.trace

    @cached_property
    def trace_rounding(self) -> Array:
        """‖δA‖ Σ_j w_j (C C)_jj."""
        xp, C = self.backend.xp, self._solved[0]
        return _moved(self._matrix, self.backend) * xp.sum(self._weights[:, None] * C * C)

    @cached_property
    def log_det_rounding(self) -> Array:
        """‖δA‖ tr C."""
        trace = self.backend.xp.linalg.trace(self._solved[0])
        return _moved(self._matrix, self.backend) * trace

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

    def trace_hvp(self, D: Array) -> Array:
        """Of 2 w_i w_j C_ij (C G C)_ij, and the gradient on the diagonal."""
        xp, (C, _), (kept, _) = self.backend.xp, self._solved, self._kept
        matrix = 2 * C * xp.matmul(kept, C)

        def product(d: Array) -> Array:
            return self._gather(self._weights * xp.matmul(matrix, self._weights * self._at(d)))

        return self.trace_grad[:, None] * D + self._columns(product, D)

    def log_det_hvp(self, D: Array) -> Array:
        """Of -w_i w_j C_ij², and w_i C_ii on the diagonal, in sum w_i C_ii (C G)_ii there."""
        xp, (C, _), (_, kept) = self.backend.xp, self._solved, self._kept
        diagonal, own = (
            xp.linalg.diagonal(C),
            xp.eye(C.shape[0], dtype=C.dtype, device=self.backend.device),
        )
        matrix = (1 - own) * C * C

        def product(d: Array) -> Array:
            at = self._at(d)
            others = xp.matmul(matrix, self._weights * at)
            return self._gather(self._weights * (diagonal * kept * at - others))

        return self._columns(product, D)


@dataclass(frozen=True)
class DualRidgeSmootherPoint(_RidgePoint):
    """From Z = Xᵀ, M = I + Zᵀ W⁻¹ Z and D = M⁻¹ = I - S.

    Tr S = tr D Zᵀ W⁻¹ Z and n - tr S = tr D, ∂ tr S/∂λ_g = -Σ_{j∈g} ‖(Z D)_j‖²/w_j, and
    log det M has the gradient -Σ_{j∈g} (Z D Zᵀ)_jj/w_j.
    """

    columns: Array

    @cached_property
    def _weights(self) -> Array:
        return self._spread(self.columns[:, 0])

    @cached_property
    def _kernel(self) -> Array:
        """Zᵀ W⁻¹ Z."""
        Z = self.columns
        return self.backend.xp.matmul(Z.T, Z / self._weights[:, None])

    @cached_property
    def _matrix(self) -> Array:
        xp, K = self.backend.xp, self._kernel
        return K + xp.eye(K.shape[0], dtype=K.dtype, device=self.backend.device)

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        return _inverse(self._matrix, self.backend)

    @cached_property
    def _pulled(self) -> Array:
        """Z D."""
        return self.backend.xp.matmul(self.columns, self._solved[0])

    @cached_property
    def trace(self) -> Array:
        return self.backend.xp.sum(self._solved[0] * self._kernel)

    @cached_property
    def left(self) -> Array:
        return self.backend.xp.linalg.trace(self._solved[0])

    @cached_property
    def trace_rounding(self) -> Array:
        """‖δM‖ tr D²."""
        D = self._solved[0]
        return _moved(self._matrix, self.backend) * self.backend.xp.sum(D * D)

    @cached_property
    def log_det_rounding(self) -> Array:
        """‖δM‖ tr D."""
        return _moved(self._matrix, self.backend) * self.left

    @cached_property
    def trace_grad(self) -> Array:
        square = self.backend.xp.sum(self._pulled * self._pulled, axis=1)
        return -self._gather(square / self._weights)

    @property
    def log_det(self) -> Array:
        return self._solved[1]

    @cached_property
    def log_det_grad(self) -> Array:
        bent = self.backend.xp.sum(self._pulled * self.columns, axis=1)
        return -self._gather(bent / self._weights)

    def _along(self, d: Array) -> Array:
        """Z D (-∂M) for the direction d, ∂M = -Zᵀ W⁻¹ diag(d) Z."""
        xp, Z = self.backend.xp, self.columns
        return xp.matmul(self._pulled, xp.matmul(Z.T, (self._at(d) / self._weights)[:, None] * Z))

    def trace_hvp(self, D: Array) -> Array:
        """Of -2 (Z D Zᵀ)_ij (Z D² Zᵀ)_ij / w_i w_j, less the gradient on the diagonal."""
        xp, twice = self.backend.xp, self.backend.xp.matmul(self._pulled, self._solved[0])

        def product(d: Array) -> Array:
            return -2 * self._gather(xp.sum(self._along(d) * twice, axis=1) / self._weights)

        return self._columns(product, D) - self.trace_grad[:, None] * D

    def log_det_hvp(self, D: Array) -> Array:
        """Of -((Z D Zᵀ)_ij)² / w_i w_j, less the gradient on the diagonal."""
        xp = self.backend.xp

        def product(d: Array) -> Array:
            return -self._gather(xp.sum(self._along(d) * self._pulled, axis=1) / self._weights)

        return self._columns(product, D) - self.log_det_grad[:, None] * D


@dataclass(frozen=True)
class KernelSmoother:
    """S = K A⁻¹ with A = K(θ) + ρ I, which is also the covariance.

    With C = A⁻¹: tr S = tr C K and n - tr S = ρ tr C, the derivative of tr S is ρ ⟨C², ∂K/∂θ_l⟩ in
    θ_l and -ρ tr C K C in log ρ; that of log det A is ⟨C, ∂K/∂θ_l⟩ and ρ tr C.

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
    def _matrix(self) -> Array:
        return self.model.matrix(self.lam).dense()

    @cached_property
    def _solved(self) -> tuple[Array, Array]:
        xp, K = self.model.backend.xp, self._matrix
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
    def _kept(self) -> Array:
        """C K."""
        return self.model.backend.xp.matmul(self._solved[0], self._matrix)

    @cached_property
    def trace(self) -> Array:
        return self.model.backend.xp.linalg.trace(self._kept)

    @property
    def left(self) -> Array:
        return self._ridge * self._trace_inverse

    @cached_property
    def _moved(self) -> float:
        """‖δK‖ at most."""
        return self.model.grad_rounding(self.lam)[0]

    @cached_property
    def trace_rounding(self) -> Array:
        """ρ ‖δK‖ tr C²."""
        C = self._solved[0]
        return self._ridge * self._moved * self.model.backend.xp.sum(C * C)

    @property
    def log_det_rounding(self) -> Array:
        """‖δK‖ tr C."""
        return self._moved * self._trace_inverse

    @cached_property
    def trace_grad(self) -> Array:
        xp, C, ridge = self.model.backend.xp, self._solved[0], self._ridge
        square = xp.matmul(C, C)
        theta = [ridge * part for part in self._against_derivatives(square)]
        last = -ridge * xp.sum(self._kept * C)
        return xp.stack([*theta, last])

    @cached_property
    def log_det(self) -> Array:
        return self._solved[1]

    @cached_property
    def log_det_grad(self) -> Array:
        xp = self.model.backend.xp
        theta = self._against_derivatives(self._solved[0])
        return xp.stack([*theta, self._ridge * self._trace_inverse])

    @cached_property
    def _second(self) -> Callable[[Array], Array] | None:
        """M ↦ the matrix of ⟨M, ∂²A/∂λ_l∂λ_r⟩, None where the kernel doesn't know it."""
        model, xp = self.model, self.model.backend.xp
        found = second_derivatives(model.kernel, model.X, model.X, self.lam[:-1], model.backend)
        if found is None:
            return None

        def against(M: Array) -> Array:
            upper = xp.stack([xp.sum(M * block) for block in found])
            theta = symmetric(upper, model.kernel.n_parameters, model.backend)
            column = xp.zeros_like(theta[:, :1])
            last = xp.expand_dims(self._ridge * xp.linalg.trace(M), axis=0)
            bottom = xp.concat([column[:, 0], last])[None, :]
            return xp.concat([xp.concat([theta, column], axis=1), bottom], axis=0)

        return against

    def _against_first(self, M: Array) -> Array:
        """⟨M, ∂A/∂λ_l⟩ for each l."""
        xp = self.model.backend.xp
        return xp.stack([*self._against_derivatives(M), self._ridge * xp.linalg.trace(M)])

    def _turned(self, d: Array) -> Array:
        """C (∂A) C for the direction d."""
        model, xp, C = self.model, self.model.backend.xp, self._solved[0]
        blocks = model.kernel.derivatives(model.X, model.X, self.lam[:-1], model.backend)
        moved = d[-1] * self._ridge * xp.eye(C.shape[0], dtype=C.dtype, device=model.backend.device)
        for i, block in enumerate(blocks):
            moved = moved + d[i] * block
        return xp.matmul(C, xp.matmul(moved, C))

    def trace_hvp(self, D: Array) -> Array | None:
        """Of n - ρ tr C, whose gradient is ρ ⟨C², ∂A⟩, less ρ tr C for the ridge."""
        xp, C, second = self.model.backend.xp, self._solved[0], self._second
        if second is None:
            return None
        square = xp.matmul(C, C)
        matrix, first = second(square), self._against_first(square)
        last = xp.arange(D.shape[0], device=self.model.backend.device) == D.shape[0] - 1

        def product(d: Array) -> Array:
            turned = self._turned(d)
            both = xp.matmul(turned, C)
            bent = d[-1] * first + xp.matmul(matrix, d) - self._against_first(both + both.T)
            own = d[-1] * self._trace_inverse - xp.linalg.trace(turned)
            return self._ridge * (bent - xp.where(last, own, xp.zeros_like(own)))

        return xp.stack([product(D[:, i]) for i in range(D.shape[1])], axis=1)

    def log_det_hvp(self, D: Array) -> Array | None:
        """Of ⟨C, ∂²A⟩ - tr C ∂A C ∂A."""
        xp, second = self.model.backend.xp, self._second
        if second is None:
            return None
        turned = [self._against_first(self._turned(D[:, i])) for i in range(D.shape[1])]
        return xp.matmul(second(self._solved[0]), D) - xp.stack(turned, axis=1)


def smoother(model: LinearModel | KernelRidge) -> Smoother:
    """Return the smoother of ridge or kernel ridge regression."""
    if isinstance(model, KernelRidge):
        if model.y.ndim != 1:
            raise ValueError(f"model must have one target, got y of shape {tuple(model.y.shape)}.")
        if model.roots is not None:
            raise ValueError("model must have no row weights.")
        return KernelSmoother(model)
    return RidgeSmoother(model)
