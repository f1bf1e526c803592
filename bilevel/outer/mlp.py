"""Predictions of a multilayer perceptron at other rows."""

from __future__ import annotations

from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array
from ..inner.mlp import MLP
from ..linalg import grams, norm
from ..losses import LOSS, Loss
from ._rows import RowsPredictor, check_rows, refuse_other_models
from .held_out import HeldOutLoss


@dataclass(frozen=True)
class MLPPredictor(RowsPredictor):
    """t(a_i; x) for other rows than those of the model."""

    model: MLP

    @property
    def depends_on_lam(self) -> bool:
        return False

    def at(self, x: Array, lam: Array) -> MLPPrediction:
        return MLPPrediction(self, x, lam)


@dataclass(frozen=True)
class MLPPrediction:
    """The outputs at x."""

    predictor: MLPPredictor
    x: Array
    lam: Array

    @cached_property
    def _levels(self) -> list[Array]:
        predictor = self.predictor
        predictor.counter.count_forward(self.x)
        return predictor.model.network.forward(predictor.rows, self.x, predictor.backend)

    @property
    def value(self) -> Array:
        return self._levels[-1]

    @cached_property
    def drift(self) -> Array:
        backend = self.predictor.backend
        eps = float(backend.xp.finfo(self.value.dtype).eps)
        return 16 * eps * norm(self.value, backend)

    def pull_x(self, r: Array) -> Array:
        predictor = self.predictor
        predictor.counter.count_backward(self.x)
        network = predictor.model.network
        return network.backward(self._levels, self.x, r, predictor.backend).grad

    def push_x(self, v: Array) -> Array:
        return self.predictor.backend.xp.moveaxis(self._along(v)[-1], 0, -1)

    def _along(self, v: Array) -> list[Array]:
        predictor = self.predictor
        predictor.counter.count_forward(v)
        network = predictor.model.network
        return network.forward_along(self._levels, self.x, v.T, predictor.backend)

    def pull_twice(self, r: Array, v: Array) -> Array:
        """By the R-operator with the slopes r held fixed, two passes."""
        predictor, moved = self.predictor, self._along(v)
        network, backend = predictor.model.network, predictor.backend
        predictor.counter.count_backward(v)
        deltas = network.backward(self._levels, self.x, r, backend).deltas
        fixed = backend.xp.zeros_like(moved[-1])
        bent = network.backward_along(self._levels, deltas, moved, self.x, v.T, fixed, backend)
        return grams(v, bent.T, backend)

    def pull_lam(self, r: Array) -> Array:
        return self.predictor.backend.xp.zeros_like(self.lam)


def held_out_mlp(model: MLP, X: Array, y: Array, loss: Loss | None = None) -> HeldOutLoss:
    """Build the held-out loss of a multilayer perceptron.

    Parameters
    ----------
    model : MLP
        The inner model.
    X, y : array
        Held-out rows and labels, in the form of the training data.
    loss : Loss, optional
        That of the model when omitted.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import mlp
    >>> from bilevel.losses import Multinomial
    >>> h = mlp(np.eye(3), np.array([0, 1, 1]), Multinomial(2), [4])
    >>> g = held_out_mlp(h, np.eye(3), np.array([0, 1, 1]))
    >>> round(float(g.at(np.zeros(26), np.zeros(2)).value), 4)
    2.0794
    """
    refuse_other_models(model, MLP)
    loss = model.loss if loss is None else loss
    LOSS(loss, "loss")
    backend = check_rows(X, model.X, y)
    labels = loss.encode(y, backend, model.dtype, "y_val")
    if labels.ndim == 1:
        labels = labels[:, None]
    expected = (X.shape[0], model.network.sizes[-1])
    if tuple(labels.shape) != expected:
        raise ValueError(f"y_val must encode to shape {expected}, got {tuple(labels.shape)}.")
    return HeldOutLoss(MLPPredictor(model, X), labels, loss)
