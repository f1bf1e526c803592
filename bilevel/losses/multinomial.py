"""The multinomial logistic loss, c predictions a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import Array, Backend, Whole, check_fields
from ._protocol import ELEMENTARY, float_labels


@dataclass(frozen=True)
class Multinomial:
    """ℓ(y, t) = log Σ_j e^{t_j} - Σ_j y_j t_j for a row t of c predictions, y one-hot.

    With p = softmax(t): ℓ' = p - y and ∂²ℓ/∂t² = diag(p) - p pᵀ. Along a unit vector u the
    second derivative is the variance, the third the third central moment, of a variable that
    takes the value u_j with probability p_j. Its range is at most √2, so that they are at most
    (√2)²/4 = 1/2 and (√2)³/(6√3) = √2/(3√3).

    Labels are integers 0, ..., c-1 of shape (n,), or one-hot (or probabilities) of shape (n, c).
    Predictions have shape (n, c), or (n, c, K) for K independent problems.

    Parameters
    ----------
    n_classes : int
        c ≥ 2.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> loss = Multinomial(2)
    >>> y = loss.encode(np.array([0, 1]), backend, np.float64, "y")
    >>> loss.derivative(y, np.zeros((2, 2)), backend)
    array([[-0.5,  0.5],
           [ 0.5, -0.5]])
    """

    n_classes: int

    curvature_bound: ClassVar[float] = 0.5
    third_bound: ClassVar[float] = 2**0.5 / (3 * 3**0.5)
    self_concordance: ClassVar[float | None] = 2**0.5
    curvature_lower: ClassVar[float] = 0.0
    shift_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self, n_classes=Whole(2))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.n_classes,)

    def encode(self, y: Array, backend: Backend, dtype: Any, name: str) -> Array:
        if y.ndim == 1:
            self._validate_classes(y, backend, name)
            classes = backend.xp.arange(self.n_classes, dtype=y.dtype, device=backend.device)
            return backend.xp.astype(y[:, None] == classes[None, :], dtype)
        y = float_labels(y, backend, dtype, name)
        self.validate(y, backend, name)
        return y

    def _validate_classes(self, y: Array, backend: Backend, name: str) -> None:
        xp = backend.xp
        whole = y == xp.floor(y) if xp.isdtype(y.dtype, "real floating") else xp.ones_like(y) == 1
        if not bool(xp.all(whole & (y >= 0) & (y < self.n_classes))):
            found = backend.to_numpy(xp.unique_values(y))[:5].tolist()
            raise ValueError(
                f"{name} must hold the classes 0, ..., {self.n_classes - 1}, got {found}."
            )

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        xp = backend.xp
        if y.ndim != 2 or y.shape[1] != self.n_classes:
            raise ValueError(
                f"{name} must have shape (n,) or (n, {self.n_classes}), got {tuple(y.shape)}."
            )
        off = xp.abs(xp.sum(y, axis=1) - 1) > 1e-5
        if bool(xp.any(off)) or bool(xp.min(y) < 0):
            raise ValueError(f"{name} must hold probabilities: rows that sum to 1, none below 0.")

    def support(self, y: Array, backend: Backend) -> dict[str, Array]:
        return {f"a row of class {j}": y[:, j : j + 1, ...] > 0 for j in range(self.n_classes)}

    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        xp = backend.xp
        total = xp.expand_dims(backend.logsumexp(t, axis=1), axis=1)
        return total - xp.sum(y * t, axis=1, keepdims=True)

    def least(self, y: Array, backend: Backend) -> Array:
        return backend.xp.zeros_like(y[:, :1, ...])

    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        return self.curvature(y, t, backend) - y

    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        """softmax(t), which says all of diag(p) - p pᵀ."""
        xp = backend.xp
        e = xp.exp(t - xp.max(t, axis=1, keepdims=True))
        return e / xp.sum(e, axis=1, keepdims=True)

    def curvature_product(self, curvature: Array, d: Array, backend: Backend) -> Array:
        p = curvature if d.ndim == curvature.ndim else curvature[..., None]
        pd = p * d
        return pd - p * backend.xp.sum(pd, axis=1, keepdims=True)

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        """softmax(t) again."""
        return self.curvature(y, t, backend)

    def third_product(self, third: Array, u: Array, v: Array, backend: Backend) -> Array:
        """diag(p) - p pᵀ times the products (u_j - E u) (v_j - E v)."""
        xp, p, u = backend.xp, third[..., None], u[..., None]
        u, v = (a - xp.sum(p * a, axis=1, keepdims=True) for a in (u, v))
        return self.curvature_product(third, u * v, backend)

    def curvature_total(self, curvature: Array, s: Array | None, backend: Backend) -> Array:
        """Σ_i s_i (diag(p_i) - p_i p_iᵀ), shape (c, c), or (K, c, c) for K problems."""
        xp = backend.xp
        p, sp = curvature, curvature if s is None else s * curvature
        if p.ndim == 3:
            p, sp = (xp.permute_dims(a, (2, 0, 1)) for a in (p, sp))
        total = xp.sum(sp, axis=-2)
        eye = xp.eye(self.n_classes, dtype=p.dtype, device=backend.device)
        return total[..., None] * eye - xp.matmul(xp.matrix_transpose(sp), p)

    def curvature_diag(self, curvature: Array, backend: Backend) -> Array:
        return curvature * (1 - curvature)

    def rounding(self, y: Array, t: Array, backend: Backend) -> tuple[Array, Array]:
        """t_j - max t is right to one unit of itself, which is what e^{t_j - max t} loses.

        Σ_j abs(t_j - max t) e^{t_j - max t} ≤ c / e bounds what all of them lose together.
        """
        xp, c = backend.xp, self.n_classes
        away = xp.max(t, axis=1, keepdims=True) - t
        total = xp.abs(xp.expand_dims(backend.logsumexp(t, axis=1), axis=1))
        products = xp.sum(xp.abs(y * t), axis=1, keepdims=True)
        value = (2 * ELEMENTARY + 2 * c) + 4 * total + (c + 4) * products
        p = self.curvature(y, t, backend)
        slope = (ELEMENTARY + 3 * c + away) * p + 2 * xp.abs(p - y)
        return value, slope
