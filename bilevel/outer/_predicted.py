"""Points of criteria of predictions, g = φ(t(x, λ), λ): the chain rule, once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from .._cached import cached_property
from ..backends import Array, Pending, pending
from ..linalg import dots, grams, norm
from ._predictor import Direct, Prediction, Predictor, Pushing, Turning
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
    def _size(self) -> Pending:
        """Σ |terms|."""
        backend = self.outer.predictor.backend
        return pending(backend.absolute_sums(backend.xp.reshape(self._terms, (-1,))))

    @property
    @abstractmethod
    def _bend(self) -> Array | float:
        """About the curvature of φ in t, 0 where that is not known."""

    @abstractmethod
    def _curved(self, rows: Array) -> Array:
        """∂²φ/∂t² times changes of t, which have one more axis."""

    @cached_property
    def value_rounding(self) -> Pending:
        """What the rounding of t does to φ, to second order, and that of the sum."""
        backend, drift = self.outer.predictor.backend, pending(self.prediction.drift)
        eps = float(backend.xp.finfo(self.x.dtype).eps)
        steep: Pending = drift * norm(self._slopes, backend) + drift * drift * self._bend / 2
        return steep + 8 * eps * self._size

    @cached_property
    def grad_x(self) -> Array:
        return self.prediction.pull_x(self._slopes)

    @cached_property
    def grad_lam(self) -> Array:
        return self.prediction.pull_lam(self._slopes)

    def gram(self, T: Array) -> Array | None:
        """(∂_x t T)ᵀ ∂²φ/∂t² (∂_x t T), one pass, and what t bends where it is not linear in x."""
        if not isinstance(self.prediction, Pushing):
            return None
        rows = self.prediction.push_x(T)
        found = grams(rows, self._curved(rows), self.outer.predictor.backend)
        if isinstance(self.prediction, Turning):
            found = found + self.prediction.pull_twice(self._slopes, T)
        return found

    def cross_gram(self, T: Array) -> Array | None:
        if not self.outer.predictor.depends_on_lam:
            return self._zeros(T)
        prediction = self.prediction
        if not isinstance(prediction, Direct):
            return None
        pulled = prediction.pull_lam(self._curved(prediction.push_x(T)))
        return pulled + prediction.pull_cross(self._slopes, T)

    def fold(self, D: Array) -> Array | None:
        if not self.outer.predictor.depends_on_lam:
            return self._zeros(D)
        prediction = self.prediction
        if not isinstance(prediction, Direct):
            return None
        direct = prediction.pull_fold(self._slopes, D)
        if direct is None:
            return None
        return direct + prediction.pull_lam(self._curved(prediction.push_lam(D)))

    def _zeros(self, directions: Array) -> Array:
        xp, shape = self.outer.predictor.backend.xp, (self.lam.shape[0], directions.shape[-1])
        return xp.zeros(shape, dtype=self.lam.dtype, device=self.outer.predictor.backend.device)


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
    def value_rounding(self) -> Pending:
        """That of tr S besides."""
        trace = pending(self._smoother.trace_rounding) * abs(self._by_trace)
        found: Pending = super().value_rounding + trace
        return found

    @cached_property
    def grad_lam(self) -> Array:
        by_trace = self._by_trace * self._smoother.trace_grad
        return self.prediction.pull_lam(self._slopes) + by_trace

    @property
    @abstractmethod
    def _by_trace_twice(self) -> Array | float:
        """∂²φ/∂(tr S)²."""

    @property
    @abstractmethod
    def _slopes_by_trace(self) -> Array | None:
        """∂²φ/∂t ∂ tr S, None where it is zero."""

    def cross_gram(self, T: Array) -> Array | None:
        found, mixed = super().cross_gram(T), self._slopes_by_trace
        if found is None or mixed is None:
            return found
        if not isinstance(self.prediction, Pushing):
            return None
        pushed = dots(mixed, self.prediction.push_x(T), self.outer.predictor.backend)
        return found + self._smoother.trace_grad[:, None] * pushed[None, :]

    def fold(self, D: Array) -> Array | None:
        """With a the trace's gradient: φ_ττ a aᵀ + φ_τ ∂a, and a ∂_λ(φ_τ)ᵀ with its transpose."""
        found, bent = super().fold(D), self._smoother.trace_hvp(D)
        if found is None or bent is None:
            return None
        xp, steep = self.outer.predictor.backend.xp, self._smoother.trace_grad
        side = self._by_trace_twice * steep / 2
        if self._slopes_by_trace is not None:
            side = side + self.prediction.pull_lam(self._slopes_by_trace)
        mixed = steep[:, None] * xp.matmul(side, D)[None, :]
        mixed = mixed + side[:, None] * xp.matmul(steep, D)[None, :]
        return found + self._by_trace * bent + mixed
