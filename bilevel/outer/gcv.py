"""Generalised cross-validation (Golub, Heath and Wahba, Technometrics 21, 1979, equation 2.1).

    g(x, λ) = n ‖y - t(x, λ)‖² / (n - tr S(λ))²

It depends on x through the residual and on λ through the trace of the smoother.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array
from ..inner.kernel_ridge import KernelRidge
from ..inner.linear import LinearModel
from ._predicted import SmoothedPoint
from ._predictor import Predictor
from ._protocol import OuterConstants
from ._rows import refuse_other_models
from .effective import Smoother, smoother
from .fitted import fitted


@dataclass(frozen=True)
class GCV:
    """Generalised cross-validation of a linear smoother. Build it with :func:`gcv`."""

    predictor: Predictor
    y: Array
    smoother: Smoother

    @property
    def passes(self) -> float:
        return self.predictor.passes

    def at(self, x: Array, lam: Array) -> GCVPoint:
        return GCVPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """None that holds for every λ: the denominator may be small."""
        return OuterConstants(None, None)


@dataclass(frozen=True)
class GCVPoint(SmoothedPoint):
    """Generalised cross-validation at (x, λ)."""

    outer: GCV

    @cached_property
    def _left(self) -> Array:
        """N - tr S."""
        return self._smoother.left

    @cached_property
    def value(self) -> Array:
        xp = self.outer.predictor.backend.xp
        n = self.outer.y.shape[0]
        return n * xp.vecdot(self._residual, self._residual) / (self._left * self._left)

    @property
    def _terms(self) -> Array:
        return self.value

    @property
    def _bend(self) -> Array:
        return 2 * self.outer.y.shape[0] / (self._left * self._left)

    @cached_property
    def _slopes(self) -> Array:
        return (2 * self.outer.y.shape[0]) * self._residual / (self._left * self._left)

    def _curved(self, rows: Array) -> Array:
        return (2 * self.outer.y.shape[0]) * rows / (self._left * self._left)

    @property
    def _by_trace(self) -> Array:
        return 2 * self.value / self._left

    @property
    def _by_trace_twice(self) -> Array:
        return 6 * self.value / (self._left * self._left)

    @property
    def _slopes_by_trace(self) -> Array:
        return 2 * self._slopes / self._left


def gcv(model: LinearModel | KernelRidge) -> GCV:
    """Build generalised cross-validation for ridge or kernel ridge regression.

    Parameters
    ----------
    model : LinearModel or KernelRidge
        The inner model: squared loss, ℓ2 penalty, one target, no row weights.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import linear_model
    >>> from bilevel.losses import Squared
    >>> h = linear_model(np.eye(2), np.array([1.0, 3.0]), Squared())
    >>> round(float(gcv(h).at(np.array([0.5, 1.5]), np.zeros(1)).value), 9)
    5.0
    """
    refuse_other_models(model, LinearModel, KernelRidge)
    return GCV(fitted(model), model.y, smoother(model))
