"""A quadratic inner problem and a quadratic criterion, all constants of which are known.

    h(x, λ) = ½ xᵀ (A + diag(G e^λ)) x - (b + C λ)ᵀ x
    g(x, λ) = ½ ‖M x - t‖² + λᵀ N x + ½ ρ ‖λ - c‖²

G is a 0/1 matrix of shape (p, m) with at most one 1 in a row: it says which λ weighs which
coefficient. With G = 0 the map X(λ) is affine and f a quadratic; with C = 0 it is a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._cached import cached_property
from ..backends import Array, Backend, pending
from ..inner import InnerConstants, Point, Rounding
from ..linalg import grams, norm
from ..linalg.rounding import gamma, unit_roundoff, upper_norm, upper_norms
from ..outer import OuterConstants, OuterRounding
from .reference import spectral


@dataclass
class Counter:
    """How often an objective was evaluated."""

    total: int = 0
    columns: int = 0


@dataclass(frozen=True)
class Quadratic:
    """h(x, λ), an implementation of the protocol ``bilevel.inner.Inner``.

    Attributes
    ----------
    matrix : array, shape (p, p)
        A, symmetric, positive definite unless a test wants it otherwise.
    offset : array, shape (p,)
        b.
    slope : array, shape (p, m)
        C.
    groups : array, shape (p, m)
        G.
    backend : Backend
        Where the arrays live.
    """

    matrix: Array
    offset: Array
    slope: Array
    groups: Array
    backend: Backend
    counter: Counter = field(default_factory=Counter, compare=False, repr=False)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self.offset.shape)

    @property
    def dtype(self) -> Any:
        return self.offset.dtype

    @property
    def n_hyperparameters(self) -> int:
        return int(self.slope.shape[1])

    @property
    def passes(self) -> float:
        return self.counter.total

    @property
    def column_passes(self) -> float:
        return self.counter.columns

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> QuadraticPoint:
        return QuadraticPoint(self, x, lam)

    def constants(self, lam: Array) -> InnerConstants:
        """Exact: the eigenvalues of the Hessian, less what rounding may have added to them."""
        weights = np.exp(np.asarray(self.backend.to_numpy(lam), dtype=np.float64))
        groups = np.asarray(self.backend.to_numpy(self.groups), dtype=np.float64)
        matrix = np.asarray(self.backend.to_numpy(self.matrix), dtype=np.float64)
        values = np.linalg.eigvalsh(matrix + np.diag(groups @ weights))
        rounding = 4 * len(values) * float(np.finfo(np.float64).eps) * abs(float(values[-1]))
        lowest = float(values[0]) - rounding
        return InnerConstants(
            mu=lowest if lowest > 0 else None,
            smoothness=float(values[-1]) + rounding,
            hessian_lipschitz=0.0,
            cross_lipschitz=float(np.max(groups * weights)),
            self_concordance=0.0,
        )

    def multiply(self, weights: Array, v: Array) -> Array:
        self.counter.total += 1
        self.counter.columns += 1 if v.ndim == 1 else v.shape[1]
        spread = weights if v.ndim == 1 else weights[:, None]
        return self.backend.xp.matmul(self.matrix, v) + spread * v


class QuadraticPoint(Point):
    """The quadratic at (x, λ)."""

    inner: Quadratic

    @cached_property
    def _scales(self) -> Array:
        return self.inner.backend.xp.exp(self.lam)

    @cached_property
    def _weights(self) -> Array:
        return self.inner.backend.xp.matmul(self.inner.groups, self._scales)

    @cached_property
    def _product(self) -> Array:
        return self.inner.multiply(self._weights, self.x)

    @cached_property
    def _linear(self) -> Array:
        return self.inner.offset + self.inner.backend.xp.matmul(self.inner.slope, self.lam)

    @cached_property
    def value(self) -> Array:
        xp = self.inner.backend.xp
        return xp.vecdot(self._product, self.x) / 2 - xp.vecdot(self._linear, self.x)

    @cached_property
    def grad(self) -> Array:
        return self._product - self._linear

    def hvp(self, v: Array) -> Array:
        return self.inner.multiply(self._weights, v)

    def cross_vjp(self, q: Array) -> Array:
        xp, inner = self.inner.backend.xp, self.inner
        x, scales = (
            (self.x, self._scales) if q.ndim == 1 else (self.x[:, None], self._scales[:, None])
        )
        weighted = scales * xp.matmul(xp.matrix_transpose(inner.groups), x * q)
        return weighted - xp.matmul(xp.matrix_transpose(inner.slope), q)

    def cross_jvp(self, d: Array) -> Array:
        xp, inner = self.inner.backend.xp, self.inner
        return self.x * xp.matmul(inner.groups, self._scales * d) - xp.matmul(inner.slope, d)

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array:
        return 0 * grams(T, T, self.inner.backend)

    def cross_bend(self, q: Array, T: Array) -> Array:
        xp, groups = self.inner.backend.xp, self.inner.groups
        return self._scales[:, None] * xp.matmul(groups.T, q[:, None] * T)

    def fold(self, q: Array, D: Array) -> Array:
        xp, groups = self.inner.backend.xp, self.inner.groups
        return (self._scales * xp.matmul(groups.T, q * self.x))[:, None] * D

    @cached_property
    def cross_norm(self) -> Array:
        """‖∂²_{xλ} h‖, computed on the host."""
        backend, inner = self.inner.backend, self.inner
        x, scales, groups, slope = (
            np.asarray(backend.to_numpy(a), dtype=np.float64)
            for a in (self.x, self._scales, inner.groups, inner.slope)
        )
        value = spectral(x[:, None] * groups * scales - slope)
        return backend.xp.asarray(value, dtype=inner.dtype, device=backend.device)

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding:
        """From the Frobenius norm of A; the sums have p and m terms."""
        backend, inner = self.inner.backend, self.inner
        xp, unit = backend.xp, unit_roundoff(inner.dtype, backend)
        terms = gamma(sum(inner.slope.shape) + 40, unit)
        heavy = upper_norm(inner.matrix, backend) + pending(xp.max(xp.abs(self._weights)))
        size, lam = upper_norm(self.x, backend), upper_norm(self.lam, backend)
        slope = upper_norm(inner.slope, backend)
        linear = upper_norm(inner.offset, backend) + slope * lam
        lengths = upper_norms(vectors, backend)
        terms *= 1.0 if scale is None else float(xp.max(xp.abs(scale)))
        cross = terms * (slope + size * norm(self._scales, backend))
        return Rounding(2 * terms * (heavy * size + linear), terms * heavy * lengths, cross)

    def diag(self) -> Array:
        return self.inner.backend.xp.linalg.diagonal(self.inner.matrix) + self._weights


@dataclass(frozen=True)
class QuadraticOuter:
    """g(x, λ), an implementation of the protocol ``bilevel.outer.Outer``.

    Attributes
    ----------
    matrix, target : array, shape (n, p) and (n,)
        M and t.
    coupling : array, shape (m, p)
        N.
    weight : float
        ρ.
    center : array, shape (m,)
        c.
    backend : Backend
        Where the arrays live.
    """

    matrix: Array
    target: Array
    coupling: Array
    weight: float
    center: Array
    backend: Backend
    counter: Counter = field(default_factory=Counter, compare=False, repr=False)

    @property
    def passes(self) -> float:
        return self.counter.total

    def at(self, x: Array, lam: Array) -> QuadraticOuterPoint:
        return QuadraticOuterPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """‖M‖² and ‖N‖, exact up to a rounding that is added."""
        matrix, coupling = (self.backend.to_numpy(a) for a in (self.matrix, self.coupling))
        safe = 1 + 1e-12
        return OuterConstants(spectral(matrix) ** 2 * safe, spectral(coupling) * safe)


@dataclass(frozen=True)
class QuadraticOuterPoint:
    """The quadratic criterion at (x, λ)."""

    outer: QuadraticOuter
    x: Array
    lam: Array

    @cached_property
    def _residual(self) -> Array:
        self.outer.counter.total += 1
        return self.outer.backend.xp.matmul(self.outer.matrix, self.x) - self.outer.target

    @cached_property
    def _coupled(self) -> Array:
        return self.outer.backend.xp.matmul(self.outer.coupling, self.x)

    @cached_property
    def value(self) -> Array:
        xp, outer = self.outer.backend.xp, self.outer
        away = self.lam - outer.center
        tie = outer.weight * xp.vecdot(away, away) / 2
        fit = xp.vecdot(self._residual, self._residual) / 2
        return fit + xp.vecdot(self.lam, self._coupled) + tie

    @cached_property
    def grad_x(self) -> Array:
        xp, outer = self.outer.backend.xp, self.outer
        fit = xp.matmul(xp.matrix_transpose(outer.matrix), self._residual)
        return fit + xp.matmul(xp.matrix_transpose(outer.coupling), self.lam)

    @cached_property
    def grad_lam(self) -> Array:
        return self._coupled + self.outer.weight * (self.lam - self.outer.center)

    def gram(self, T: Array) -> Array:
        self.outer.counter.total += 1
        rows = self.outer.backend.xp.matmul(self.outer.matrix, T)
        return grams(rows, rows, self.outer.backend)

    def cross_gram(self, T: Array) -> Array:
        return self.outer.backend.xp.matmul(self.outer.coupling, T)

    def fold(self, D: Array) -> Array:
        return self.outer.weight * D

    def rounding(self, scale: Array | None = None) -> OuterRounding:
        """From the Frobenius norms of M and N; the sums have n, p and m terms."""
        backend, outer = self.outer.backend, self.outer
        terms = gamma(sum(outer.matrix.shape) + self.lam.shape[0] + 40, self._unit)
        M, N, x, lam, target, center = (
            upper_norm(a, backend)
            for a in (outer.matrix, outer.coupling, self.x, self.lam, outer.target, outer.center)
        )
        fit, away = M * x + target, lam + center
        value = fit * fit + lam * N * x + outer.weight * away * away
        direct = N * x + outer.weight * away
        most = 1.0 if scale is None else backend.xp.max(backend.xp.abs(scale))
        slope = 2 * terms * (M * fit + N * lam) * most
        return OuterRounding(2 * terms * value, slope, 2 * terms * direct)

    @property
    def _unit(self) -> float:
        return unit_roundoff(self.x.dtype, self.outer.backend)
