"""Linear models: a loss of the margins X x, plus an ℓ2 penalty.

    h(x, λ) = Σ_i ℓ(y_i, a_iᵀ x) + ½ Σ_j e^{λ_g(j)} x_j²

With D = diag ℓ''(margins) and W = diag e^{λ_g(j)}:

    ∂_x h = Xᵀ ℓ' + W x,   ∂²_{xx} h = Xᵀ D X + W,   ∂²_{xλ} h = W x (a column for each group).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..backends import Array, Backend, backend_of
from ..design import Design, as_design
from ..losses import Loss
from ._protocol import InnerConstants
from .penalties import EachL2, GroupL2, Penalty, SingleL2


@dataclass(frozen=True)
class LinearModel:
    """Loss of a linear prediction plus an ℓ2 penalty.

    Build it with :func:`linear_model`, which checks its input.

    Attributes
    ----------
    design : Design
        X, shape (n, p).
    y : array, shape (n,)
        Labels.
    loss : Loss
        ℓ(y, t).
    penalty : Penalty
        The ℓ2 penalty and the hyperparameters that it has.
    """

    design: Design
    y: Array
    loss: Loss
    penalty: Penalty
    _norms: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def backend(self) -> Backend:
        return self.design.backend

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.design.shape[1],)

    @property
    def dtype(self) -> Any:
        return self.design.dtype

    @property
    def n_hyperparameters(self) -> int:
        return self.penalty.n_hyperparameters

    @property
    def passes(self) -> int:
        return self.design.passes.total

    @property
    def column_passes(self) -> int:
        return self.design.passes.columns

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> LinearPoint:
        point = LinearPoint(self, x, lam)
        if carry is not None:
            point.__dict__["margins"] = carry  # fills the cache of a frozen point
        return point

    def constants(self, lam: Array) -> InnerConstants:
        """μ = min e^λ; the rest from ‖X‖² ≤ ‖X‖_F² and the bounds of the loss.

        ‖∂²_{xx}h‖ ≤ sup ℓ'' ‖X‖² + max e^λ; the Hessian has the Lipschitz constant
        sup |ℓ'''| max_i ‖a_i‖ ‖X‖², since |t_i(x) - t_i(x')| ≤ ‖a_i‖ ‖x - x'‖.
        """
        xp = self.backend.xp
        smallest, largest = self.backend.scalars(xp.min(lam), xp.max(lam))
        weight_min, weight_max = _exp(smallest), _exp(largest)
        square, widest = self._square_norms()
        second, third = self.loss.curvature_bound, self.loss.third_bound
        return InnerConstants(
            mu=weight_min,
            smoothness=None if second is None else second * square + weight_max,
            hessian_lipschitz=None if third is None else third * widest * square,
            cross_lipschitz=weight_max,
        )

    def _square_norms(self) -> tuple[float, float]:
        """(upper bound of ‖X‖², max_i ‖a_i‖), off the counter: they belong to the data."""
        if not self._norms:
            xp = self.backend.xp
            before = (self.design.passes.forward, self.design.passes.columns)
            ones = xp.ones(self.design.shape[1], dtype=self.dtype, device=self.backend.device)
            rows = self.design.square_matmul(ones)
            self.design.passes.forward, self.design.passes.columns = before
            total, largest = self.backend.scalars(xp.sum(rows), xp.max(rows))
            self._norms.update(square=total, widest=largest**0.5)
        return self._norms["square"], self._norms["widest"]


def _exp(t: float) -> float:
    """e^t as a float that overflows to infinity, as arrays do."""
    return math.exp(t) if t < 709 else math.inf


@dataclass(frozen=True)
class LinearPoint:
    """A linear model at (x, λ); its margins X x cost one pass, or none when handed over."""

    model: LinearModel
    x: Array
    lam: Array

    @cached_property
    def margins(self) -> Array:
        """X x, shape (n,)."""
        return self.model.design.matmul(self.x)

    @property
    def carry(self) -> Array:
        return self.margins

    @cached_property
    def _weights(self) -> Array:
        return self.model.penalty.weights(self.lam, self.model.backend)

    @cached_property
    def _weighted_x(self) -> Array:
        return self._weights * self.x

    @cached_property
    def value(self) -> Array:
        model, xp = self.model, self.model.backend.xp
        loss = xp.sum(model.loss.value(model.y, self.margins, model.backend))
        return loss + xp.vecdot(self._weighted_x, self.x) / 2

    @cached_property
    def _loss_derivative(self) -> Array:
        return self.model.loss.derivative(self.model.y, self.margins, self.model.backend)

    @cached_property
    def grad(self) -> Array:
        return self.model.design.rmatmul(self._loss_derivative) + self._weighted_x

    @cached_property
    def curvature(self) -> Array:
        """ℓ'' at the margins, shape (n,)."""
        return self.model.loss.curvature(self.model.y, self.margins, self.model.backend)

    def hvp(self, v: Array) -> Array:
        """(Xᵀ D X + W) v, two passes whatever the number of columns."""
        d, w = self.curvature, self._weights
        if v.ndim == 2:
            d, w = d[:, None], w[:, None]
        return self.model.design.rmatmul(d * self.model.design.matmul(v)) + w * v

    def cross_vjp(self, q: Array) -> Array:
        return self.model.penalty.cross_vjp(self._weighted_x, q, self.model.backend)

    @property
    def cross_norm(self) -> Array:
        """‖W x‖: the columns of ∂²_{xλ} h have disjoint supports, so none is longer."""
        wx = self._weighted_x
        return self.model.backend.xp.sqrt(self.model.backend.xp.vecdot(wx, wx))

    def cross_jvp(self, d: Array) -> Array:
        return self.model.penalty.spread(d, self.model.backend) * self._weighted_x

    def diag(self) -> Array:
        """diag(Xᵀ D X) + w, one pass."""
        return self._diag

    @cached_property
    def _diag(self) -> Array:
        return self.model.design.gram_diag(self.curvature) + self._weights

    def ray(self, d: Array) -> LinearRay:
        return LinearRay(self, d, self.model.design.matmul(d))


@dataclass(frozen=True)
class LinearRay:
    """A linear model along x + t d: the margins are affine in t, so one pass serves every t."""

    start: LinearPoint
    d: Array
    d_margins: Array

    def at(self, t: float) -> LinearPoint:
        start = self.start
        margins = start.margins + t * self.d_margins
        point = start.model.at(start.x + t * self.d, start.lam, margins)
        point.__dict__["_weights"] = start._weights
        return point

    def slope(self, point: Any) -> Array:
        xp = self.start.model.backend.xp
        data = xp.vecdot(point._loss_derivative, self.d_margins)
        return data + xp.vecdot(point._weighted_x, self.d)


def linear_model(
    X: Any,
    y: Array,
    loss: Loss,
    *,
    groups: Any = None,
    X_name: str = "X",
    y_name: str = "y",
) -> LinearModel:
    """Build a linear model from data.

    Parameters
    ----------
    X : array, sparse matrix or Design, shape (n, p)
        Features, float32 or float64.
    y : array, shape (n,)
        Labels, of the backend, device and dtype of X.
    loss : Loss
        The loss of one prediction.
    groups : None, array of integers of shape (p,), or "each"
        One λ for all coefficients, one for each group of them, or one for each.
    X_name, y_name : str
        How errors call the arguments.

    Raises
    ------
    ValueError, TypeError
        If shapes, labels, dtypes or backends do not fit; the message says which.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Logistic
    >>> h = linear_model(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> h.at(np.zeros(2), np.zeros(1)).grad
    array([-0.5,  0.5])
    """
    design = as_design(X, name=X_name)
    y = check_labels(design, y, loss, X_name, y_name)
    p = design.shape[1]
    penalty: Penalty
    if groups is None:
        penalty = SingleL2()
    elif isinstance(groups, str):
        if groups != "each":
            raise ValueError(f"groups must be None, 'each' or an array, got {groups!r}.")
        penalty = EachL2(p)
    else:
        penalty = GroupL2.from_labels(groups, p, design.backend)
    return LinearModel(design, y, loss, penalty)


def check_labels(design: Design, y: Array, loss: Loss, X_name: str, y_name: str) -> Array:
    """Refuse labels that do not fit the design or the loss."""
    backend = design.backend
    found = backend_of(**{y_name: y})
    if found != backend:
        raise ValueError(
            f"{y_name} is on {found.name} ({found.device}) but {X_name} is on {backend.name} "
            f"({backend.device}): move one of them first."
        )
    if tuple(y.shape) != (design.shape[0],):
        raise ValueError(
            f"{y_name} must have shape ({design.shape[0]},), a label for each row of {X_name}, "
            f"got {tuple(y.shape)}."
        )
    if backend.xp.isdtype(y.dtype, "integral"):
        y = backend.xp.astype(y, design.dtype)
    if y.dtype != design.dtype:
        raise TypeError(
            f"{y_name} has dtype {y.dtype} but {X_name} has dtype {design.dtype}: convert one."
        )
    if not bool(backend.xp.all(backend.xp.isfinite(y))):
        raise ValueError(f"{y_name} holds NaN or infinite values.")
    loss.validate(y, backend, y_name)
    return y
