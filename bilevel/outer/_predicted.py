"""Points of criteria of predictions, g = φ(t(x, λ), λ): the chain rule, once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from .._cached import cached_property
from ..backends import Array
from ..linalg import norm
from ._predictor import Prediction, Predictor
from .effective import Smoother, SmootherPoint


class PredictedOuter(Protocol):
    """A criterion of predictions."""

    @property
    def predictor(self) -> Predictor: ...


class SmoothedOuter(PredictedOuter, Protocol):
    """A criterion of the predictions and the smoother of one model."""

    @property
    def y(self) -> Array: ...

    @property
    def smoother(self) -> Smoother: ...


@dataclass(frozen=True)
class PredictedPoint(ABC):
    """φ(t(x, λ)) at (x, λ)."""

    outer: PredictedOuter
    x: Array
    lam: Array

    @cached_property
    def prediction(self) -> Prediction:
        return self.outer.predictor.at(self.x, self.lam)

    @property
    @abstractmethod
    def _slopes(self) -> Array:
        """∂φ/∂t, the shape of t."""

    @property
    @abstractmethod
    def _terms(self) -> Array:
        """What φ is the sum of."""

    @property
    @abstractmethod
    def _bend(self) -> Array | float:
        """About the curvature of φ in t, 0 where that is not known."""

    @cached_property
    def value_rounding(self) -> Array:
        """What the rounding of t does to φ, to second order, and that of the sum."""
        backend, drift = self.outer.predictor.backend, self.prediction.drift
        eps = float(backend.xp.finfo(drift.dtype).eps)
        own = 8 * eps * backend.xp.sum(backend.xp.abs(self._terms))
        return norm(self._slopes, backend) * drift + self._bend * drift * drift / 2 + own

    @cached_property
    def grad_x(self) -> Array:
        return self.prediction.pull_x(self._slopes)

    @cached_property
    def grad_lam(self) -> Array:
        return self.prediction.pull_lam(self._slopes)


@dataclass(frozen=True)
class SmoothedPoint(PredictedPoint):
    """φ(t(x, λ), tr S(λ)) at (x, λ), where φ has t in the residual t - y."""

    outer: SmoothedOuter

    @cached_property
    def _residual(self) -> Array:
        return self.prediction.value - self.outer.y

    @cached_property
    def _smoother(self) -> SmootherPoint:
        return self.outer.smoother.at(self.lam)

    @property
    @abstractmethod
    def _by_trace(self) -> Array | float:
        """∂φ/∂ tr S."""

    @cached_property
    def value_rounding(self) -> Array:
        """That of tr S besides."""
        return super().value_rounding + abs(self._by_trace) * self._smoother.trace_rounding

    @cached_property
    def grad_lam(self) -> Array:
        by_trace = self._by_trace * self._smoother.trace_grad
        return self.prediction.pull_lam(self._slopes) + by_trace
