"""The loss on held-out rows: g(x, λ) = Σ_i s_i ℓ(y_i, t_i(x, λ)), t = X x for a linear model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from .._cached import cached_property
from ..backends import Array, HostIndex, Pending, flag, pending
from ..design import Design, Reach, WithIntercept, part_of
from ..inner._rows import RowRounding
from ..inner.linear import beside, check_rows, columns, matmul, rmatmul, take_rows, weigh
from ..linalg.rounding import gamma, known, unit_roundoff
from ..losses import Accounted, Loss
from ..losses._protocol import proportions
from ._predicted import PredictedPoint
from ._predictor import LinearPredictor, Predictor
from ._protocol import OuterConstants, OuterRounding


@dataclass(frozen=True)
class HeldOutLoss:
    """Sum of the losses of the held-out rows, as in the paper (section 4), of any predictor.

    Build it with :func:`held_out_kernel` or :func:`held_out_mlp`, which check their input.

    Attributes
    ----------
    predictor : Predictor
        t(x, λ) for the held-out rows.
    y : array
        Labels as the loss encodes them, broadcastable to the predictions.
    loss : Loss
        ℓ(y, t).
    sample_weight : array or None
        s, broadcastable to the predictions; None is all ones. One minus the weights of the
        training folds makes this the criterion of K-fold cross-validation.
    """

    predictor: Predictor
    y: Array
    loss: Loss
    sample_weight: Array | None = None

    @property
    def passes(self) -> float:
        return self.predictor.passes

    def at(self, x: Array, lam: Array) -> HeldOutPoint:
        return HeldOutPoint(self, x, lam)

    def weigh(self, rows: Array) -> Array:
        return weigh(self.sample_weight, rows)

    @cached_property
    def row_square_norms(self) -> Array | None:
        """‖∂_x t_i‖² or upper bounds of them for every x and λ, shape (n,), if known."""
        return self.predictor.row_square_norms()

    def constants(self) -> OuterConstants:
        """∂_x g is Lipschitz with sup ℓ'' Σ_i s_i ‖a_i‖² for a linear model, where ∂_λ g = 0."""
        direct = None if self.predictor.depends_on_lam else 0.0
        second, rows = self.loss.curvature_bound, self.row_square_norms
        backend, s = self.predictor.backend, self.sample_weight
        xp = backend.xp
        (lowest,) = backend.scalars(xp.sum(self.weigh(self.loss.least(self.y, backend))))
        least = lowest if math.isfinite(lowest) else None
        if rows is None or direct is None:
            return OuterConstants(None, direct, least=least)
        weighted = rows if s is None else s * beside(rows, s)
        square, widest = backend.scalars(xp.max(xp.sum(weighted, axis=0)), xp.max(rows))
        bends = self.loss.self_concordance
        square *= 1 + gamma(rows.shape[0] + 4, unit_roundoff(rows.dtype, backend))
        return OuterConstants(
            None if second is None else known(second * square),
            direct,
            None if bends is None else known(bends * widest**0.5),
            least,
        )


@dataclass(frozen=True)
class HeldOut(HeldOutLoss):
    """The same of a linear model, where some rows can stand for all.

    Build it with :func:`held_out`, which checks its input.
    """

    predictor: LinearPredictor

    @property
    def design(self) -> Design:
        """The held-out rows."""
        return self.predictor.design

    @property
    def n_rows(self) -> int:
        return self.predictor.n_rows

    def at(self, x: Array, lam: Array) -> LinearHeldOutPoint:
        return LinearHeldOutPoint(self, x, lam)

    def rows(self, index: HostIndex) -> HeldOut:
        """The criterion of these rows, to stand for all; its passes count as their share.

        ``index`` is on the host, shape (k,); the losses are taken n / k times.
        """
        backend, s, n = self.predictor.backend, self.sample_weight, self.predictor.n_rows
        factor = n / max(len(index), 1)
        shape = (n, *(1,) * len(self.loss.output_shape))
        weights = backend.xp.ones(shape, dtype=self.predictor.dtype, device=backend.device)
        return replace(
            self,
            predictor=LinearPredictor(part_of(self.design, index)),
            y=take_rows(self.y, index, backend),
            sample_weight=factor * take_rows(weights if s is None else s, index, backend),
        )


@dataclass(frozen=True)
class HeldOutPoint(PredictedPoint):
    """The held-out loss at (x, λ)."""

    outer: HeldOutLoss

    @cached_property
    def _losses(self) -> Array:
        """S ℓ."""
        outer, backend = self.outer, self.outer.predictor.backend
        return outer.weigh(outer.loss.value(outer.y, self.prediction.value, backend))

    @cached_property
    def value(self) -> Array:
        return self.outer.predictor.backend.xp.sum(self._losses)

    @cached_property
    def _terms(self) -> Array:
        """S ℓ, and what a loss that is a difference was one of."""
        outer, backend = self.outer, self.outer.predictor.backend
        if not isinstance(outer.loss, Accounted):
            return self._losses
        own, _ = outer.loss.rounding(outer.y, self.prediction.value, backend)
        return backend.xp.abs(self._losses) + outer.weigh(own)

    @property
    def _size(self) -> Pending:
        outer, backend = self.outer, self.outer.predictor.backend
        units = proportions(outer.loss)
        if units is None:
            return super()._size
        flat = backend.xp.reshape(self._losses, (-1,))
        return (1 + units[0]) * pending(backend.absolute_sums(flat))

    @cached_property
    def _bend(self) -> Array | float:
        outer, xp = self.outer, self.outer.predictor.backend.xp
        heaviest = 1.0 if outer.sample_weight is None else xp.max(outer.sample_weight)
        return heaviest * (outer.loss.curvature_bound or 0.0)

    @cached_property
    def _slopes(self) -> Array:
        outer, backend = self.outer, self.outer.predictor.backend
        return outer.weigh(outer.loss.derivative(outer.y, self.prediction.value, backend))

    @cached_property
    def _curvature(self) -> Array:
        outer, backend = self.outer, self.outer.predictor.backend
        return outer.loss.curvature(outer.y, self.prediction.value, backend)

    def _curved(self, rows: Array) -> Array:
        outer, backend = self.outer, self.outer.predictor.backend
        return outer.weigh(outer.loss.curvature_product(self._curvature, rows, backend))


class LinearHeldOutPoint(HeldOutPoint):
    """The same for a linear model, whose curvature is G = Xᵀ S ℓ'' X."""

    outer: HeldOut

    def hvp(self, v: Array) -> Array:
        outer = self.outer
        return rmatmul(outer.design, self._curved(matmul(outer.design, v)))

    @property
    def _reach(self) -> Reach | None:
        reach = self.outer.predictor.reach
        return reach if reach.proven else None

    @cached_property
    def _rounded_rows(self) -> RowRounding:
        outer, reach = self.outer, self._reach
        assert reach is not None
        return RowRounding(
            reach=reach,
            loss=outer.loss,
            y=outer.y,
            t=self.prediction.value,
            slopes=self._slopes,
            weights=outer.sample_weight,
            losses=lambda: self._losses,
            drift=pending(reach.drift(self.x)).length(),
            backend=outer.predictor.backend,
        )

    def rounding(self, scale: Array | None = None) -> OuterRounding | None:
        """Those of the rows; ∂_λ g is zero."""
        if not isinstance(self.outer.loss, Accounted) or self._reach is None:
            return None
        rows = self._rounded_rows
        return OuterRounding(rows.value, rows.reach.scaled_total(scale) * rows.grad, pending(0.0))

    def product_rounding(self, v: Array) -> Pending | None:
        """How far :meth:`hvp` may be off, of each column; None where it is not known."""
        if not isinstance(self.outer.loss, Accounted) or self._reach is None:
            return None
        rows, reach = self._rounded_rows, self._reach
        sizes = columns(reach(v), self.outer.predictor.backend)
        return reach.total * rows.products(sizes, reach.forward * sizes)

    def top(self) -> Array:
        """The trace, of the problem where it is largest."""
        outer, backend = self.outer, self.outer.predictor.backend
        diag = outer.weigh(outer.loss.curvature_diag(self._curvature, backend))
        rows = outer.row_square_norms
        assert rows is not None  # known for every linear model
        own = tuple(range(1 + len(outer.loss.output_shape)))
        return backend.xp.max(backend.xp.sum(diag * beside(rows, diag), axis=own))


def held_out(
    X: Any,
    y: Array,
    loss: Loss,
    *,
    sample_weight: Array | None = None,
    fit_intercept: bool = False,
    X_name: str = "X",
    y_name: str = "y",
) -> HeldOut:
    """Build the held-out loss of a linear model.

    Parameters
    ----------
    X : array, sparse matrix or Design, shape (n, p)
        Held-out features.
    y : array, shape (n,)
        Held-out labels; any form that :func:`bilevel.inner.linear_model` takes.
    loss : Loss
        The loss of one prediction.
    sample_weight : array, shape (n,) or (n, K), optional
        Weights of the rows; with K columns, for each of K problems.
    fit_intercept : bool
        The last coefficient is an intercept, as in the inner model.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Logistic
    >>> g = held_out(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> round(float(g.at(np.zeros(2), np.zeros(1)).value), 4)
    1.3863
    """
    fit_intercept = flag(fit_intercept, "fit_intercept")
    design, labels, weights, _ = check_rows(X, y, loss, sample_weight, X_name, y_name)
    if fit_intercept:
        design = WithIntercept(design)
    return HeldOut(LinearPredictor(design), labels, loss, weights)
