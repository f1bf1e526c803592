"""Predictions of kernel ridge regression at other rows: t = K(rows, X; θ) α."""

from __future__ import annotations

from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array
from ..inner.kernel_ridge import KernelMatrix, KernelRidge, check_kernel_weights, with_columns
from ..linalg import dots, norm
from ..losses import LOSS, Loss
from ._rows import RowsPredictor, check_rows, refuse_other_models
from .held_out import HeldOutLoss


@dataclass(frozen=True)
class KernelPredictor(RowsPredictor):
    """t = K(rows, X; θ) α: it depends on λ directly, through θ.

    Attributes
    ----------
    model : KernelRidge
        The inner model.
    rows : array, shape (n_rows, p)
        Where to predict.
    """

    model: KernelRidge

    @property
    def depends_on_lam(self) -> bool:
        return True

    def at(self, x: Array, lam: Array) -> KernelPrediction:
        matrix = self.model.cross_matrix(self.rows, lam, self.counter)
        return KernelPrediction(self.model, matrix, self.model.scale(x))


@dataclass(frozen=True)
class KernelPrediction:
    """K α."""

    model: KernelRidge
    matrix: KernelMatrix
    alpha: Array

    @cached_property
    def value(self) -> Array:
        return self.matrix.matmul(self.alpha)

    @cached_property
    def drift(self) -> Array:
        """That of K and of its product, a bound."""
        share = self.model.matrix_rounding(self.matrix.X, self.matrix.theta)
        return share * norm(self.alpha, self.matrix.backend)

    def pull_x(self, r: Array) -> Array:
        return self.model.scale(self.matrix.rmatmul(r))

    def pull_lam(self, r: Array) -> Array:
        """⟨r, (∂K/∂θ_l) α⟩ for each l, and 0 for the ridge."""
        return self._pulled(self._bent, r)

    @cached_property
    def _bent(self) -> tuple[Array, ...]:
        """(∂K/∂θ_l) α, one pass."""
        return self.matrix.derivative_products(self.alpha)

    def _pulled(self, columns: tuple[Array, ...], r: Array) -> Array:
        """⟨r, a⟩ for each of the columns a of θ, r or a one or several; 0 for the ridge."""
        backend = self.matrix.backend
        parts = [dots(a, r, backend) if r.ndim >= a.ndim else dots(r, a, backend) for a in columns]
        return backend.xp.stack([*parts, backend.xp.zeros_like(parts[0])])

    def push_x(self, v: Array) -> Array:
        return self.matrix.matmul(self.model.scale(v))

    def push_lam(self, D: Array) -> Array:
        xp = self.matrix.backend.xp
        return xp.matmul(xp.stack(list(self._bent), axis=-1), D[:-1, :])

    def pull_cross(self, r: Array, v: Array) -> Array:
        """One pass."""
        return self._pulled(self.matrix.derivative_products(self.model.scale(v)), r)

    def pull_fold(self, r: Array, D: Array) -> Array | None:
        """One pass; None where the kernel doesn't know its second derivatives."""
        xp, found = self.matrix.backend.xp, self.matrix.second_derivatives(r, self.alpha)
        if found is None:
            return None
        return xp.concat([xp.matmul(found, D[:-1, :]), xp.zeros_like(D[-1:, :])], axis=0)


def held_out_kernel(
    model: KernelRidge,
    X: Array,
    y: Array,
    loss: Loss,
    *,
    sample_weight: Array | None = None,
) -> HeldOutLoss:
    """Build the held-out loss of kernel ridge regression.

    Parameters
    ----------
    model : KernelRidge
        The inner model.
    X : array, shape (n, p)
        Held-out rows.
    y : array, shape (n,) or (n, T)
        Held-out targets, a column for each target of the model.
    loss : Loss
        A loss of one number a prediction, squared as a rule.
    sample_weight : array, shape (n,) or (n, K), optional
        Weights of the rows; with K columns, for each of K problems, whose targets may be one
        column of y, too.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import RBF, kernel_ridge
    >>> from bilevel.losses import Squared
    >>> h = kernel_ridge(np.array([[0.0], [1.0]]), np.array([1.0, -1.0]), RBF())
    >>> g = held_out_kernel(h, np.array([[0.5]]), np.array([1.0]), Squared())
    >>> float(g.at(np.array([1.0, -1.0]), np.zeros(2)).value)
    0.5
    """
    refuse_other_models(model, KernelRidge)
    LOSS(loss, "loss")
    if loss.output_shape:
        raise ValueError(f"loss must take one number a prediction, got {type(loss).__name__}.")
    backend = check_rows(X, model.X, y)
    weights = check_kernel_weights(sample_weight, X, y, backend)
    if weights is not None:
        y, weights = backend.xp.broadcast_arrays(*with_columns(y, weights))
    expected = (X.shape[0], *model.y.shape[1:])
    if tuple(y.shape) != expected:
        raise ValueError(f"y_val must have shape {expected}, got {tuple(y.shape)}.")
    labels = loss.encode(y, backend, model.dtype, "y_val")
    return HeldOutLoss(KernelPredictor(model, X), labels, loss, weights)
