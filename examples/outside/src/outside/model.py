"""A model: a smooth curve through noisy values, by a class and by functions."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import bilevel
from bilevel.design import Passes
from bilevel.inner import InnerConstants, Point, from_functions
from bilevel.linalg import dot


@dataclass(frozen=True)
class Curve:
    """h = ½ Σ_i w_i (x_i - y_i)² + ½ e^λ ‖D x‖² + ½ μ ‖x‖², D x the second differences."""

    y: Any
    w: Any
    mu: float = 1e-3
    counter: Passes = field(default_factory=Passes, compare=False)

    backend = property(lambda self: bilevel.get_backend(self.y))
    dtype = property(lambda self: self.y.dtype)
    x_shape = property(lambda self: tuple(self.y.shape))
    n_hyperparameters = 1
    passes = property(lambda self: self.counter.total)
    column_passes = property(lambda self: self.counter.columns)

    def at(self, x: Any, lam: Any, carry: Any = None) -> "CurvePoint":
        return CurvePoint(self, x, lam)

    def constants(self, lam: Any) -> InnerConstants:
        xp = self.backend.xp
        heaviest, bend = self.backend.scalars(xp.max(self.w), 16 * xp.exp(lam[0]))  # ‖D‖² ≤ 16
        return InnerConstants(self.mu, heaviest + bend + self.mu, 0.0, bend, self_concordance=0.0)


class CurvePoint(Point):
    """The five members that are the mathematics."""

    @cached_property
    def value(self) -> Any:
        r, xp = self.x - self.inner.y, self.inner.backend.xp
        half = xp.sum(self.inner.w * r * r) + self.inner.mu * xp.sum(self.x * self.x)
        return (half + xp.sum(self._bent * self.x)) / 2

    @cached_property
    def grad(self) -> Any:
        return self.inner.w * (self.x - self.inner.y) + self._bent + self.inner.mu * self.x

    def hvp(self, v: Any) -> Any:  # one direction, or one in each column
        self.inner.counter.count_forward(v)
        w = self.inner.w if v.ndim == 1 else self.inner.w[:, None]
        return w * v + self.inner.backend.xp.exp(self.lam[0]) * bends(v) + self.inner.mu * v

    def cross_vjp(self, q: Any) -> Any:
        xp = self.inner.backend.xp
        return xp.matmul(self._bent[None, :], q)

    def cross_jvp(self, d: Any) -> Any:
        return d[0] * self._bent

    @cached_property
    def cross_norm(self) -> Any:  # optional: bounds of the hypergradient need it
        return self.inner.backend.xp.sqrt(dot(self._bent, self._bent, self.inner.backend))

    @cached_property
    def _bent(self) -> Any:
        """e^λ DᵀD x."""
        self.inner.counter.count_forward(self.x)
        return self.inner.backend.xp.exp(self.lam[0]) * bends(self.x)


def bends(v: Any) -> Any:
    """DᵀD v."""
    xp = bilevel.get_backend(v).xp
    bend = v[2:, ...] - 2 * v[1:-1, ...] + v[:-2, ...]
    none = xp.zeros_like(v[:2, ...])
    bend = xp.concat([none, bend, none])
    return bend[2:, ...] - 2 * bend[1:-1, ...] + bend[:-2, ...]


def curve(y: Any, w: Any, mu: float = 1e-3) -> Any:
    """The same by functions: for one backend, whose calls are counted."""
    xp = bilevel.get_backend(y).xp

    def value_and_grad(x: Any, lam: Any) -> tuple[Any, Any]:
        r, bent = x - y, xp.exp(lam[0]) * bends(x) + mu * x
        return (xp.sum(w * r * r) + xp.sum(bent * x)) / 2, w * r + bent

    return from_functions(
        value_and_grad,
        like=y,
        x_shape=tuple(y.shape),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: w * v + xp.exp(lam[0]) * bends(v) + mu * v,
        cross_vjp=lambda x, lam, q: xp.exp(lam) * xp.sum(bends(x) * q),
        cross_jvp=lambda x, lam, d: xp.exp(lam[0]) * d[0] * bends(x),
        constants=InnerConstants(mu=mu, self_concordance=0.0),
    )
