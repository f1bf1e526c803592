"""Kernel ridge regression, whose kernel parameters are hyperparameters too.

    h(α, λ) = ½ αᵀ (K(θ) + ρ I) α - yᵀ α,    λ = (θ, log ρ)

With A = K + ρ I: ∂_α h = A α - y, ∂²_{αα} h = A ⪰ ρ I, and a column of ∂²_{αλ} h is
(∂K/∂θ_l) α for each kernel parameter and ρ α for the ridge. The minimiser is α = A⁻¹ y, the
coefficients of kernel ridge regression (Saunders, Gammerman and Vovk 1998), and the prediction
at new rows is K(X_new, X; θ) α, which depends on θ directly.

Row weights s ≥ 0 enter by their roots, S = diag √s: with K replaced by S K S and y by S y the
minimiser β gives the coefficients α = S β of weighted kernel ridge regression. Columns of weights
are independent problems that share the kernel matrix, as the folds of a cross-validation; a row
of weight 0 has the coefficient 0, so it is as if it were not there.

The kernel matrix is kept where it fits a budget, else computed block by block at each product.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

from .._cached import cached_property
from ..backends import (
    Array,
    Backend,
    Has,
    Whole,
    all_finite,
    common_dtype,
    dense_backend_of,
    pending,
)
from ..design import Passes
from ..linalg import dot, dots, norm
from ..linalg.rounding import gamma, known, underflow, unit_roundoff, upper_norm, upper_norms
from ._checks import check_weights, refuse_other_rows
from ._protocol import InnerConstants, Rounding
from .kernels import Kernel, Scaled, kernel_rounding, second_derivatives
from .penalties import exp_or_inf, no_bend

#: Entries of a kernel matrix that is kept (512 MiB in float64), and of a block that is not.
KEPT_ENTRIES = 1 << 26
BLOCK_ENTRIES = 1 << 22

#: Rows that are compared with all others to see whether K says anything of the data, and from
#: where on it does not.
_LOOKED_AT = 200
_PLATEAU = 1e-6


@dataclass(frozen=True)
class KernelMatrix:
    """K(X, Z; θ) as an operator, in blocks of rows.

    Attributes
    ----------
    kernel : Kernel
        k(x, z; θ).
    X, Z : array, shape (n, p) and (m, p)
        The rows that it compares.
    theta : array
        θ.
    backend : Backend
        Where the rows live.
    passes : Passes
        Counts the products with K and with its derivatives.
    kept_entries, block_entries : int
        The matrix is kept if it has at most so many entries, else formed in blocks of at most
        so many.
    """

    kernel: Kernel
    X: Array
    Z: Array
    theta: Array
    backend: Backend
    passes: Passes
    kept_entries: int = KEPT_ENTRIES
    block_entries: int = BLOCK_ENTRIES

    def _rows(self) -> Iterator[slice]:
        n, m = self.X.shape[0], self.Z.shape[0]
        step = max(1, self.block_entries // m)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    @cached_property
    def _kept(self) -> list[tuple[slice, Array]] | None:
        if self.X.shape[0] * self.Z.shape[0] > self.kept_entries:
            return None
        return list(self._fresh())

    def _fresh(self) -> Iterator[tuple[slice, Array]]:
        for rows in self._rows():
            yield rows, self.kernel.block(self.X[rows, :], self.Z, self.theta, self.backend)

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        return self._fresh() if self._kept is None else iter(self._kept)

    def matmul(self, v: Array) -> Array:
        """K v for v of shape (m, ...)."""
        flat = self._flat(v)
        self.passes.count_forward(flat)
        xp = self.backend.xp
        product = xp.concat([xp.matmul(block, flat) for _, block in self._blocks()], axis=0)
        return xp.reshape(product, (self.X.shape[0], *v.shape[1:]))

    def rmatmul(self, r: Array) -> Array:
        """Kᵀ r for r of shape (n, ...)."""
        flat = self._flat(r)
        self.passes.count_backward(flat)
        xp = self.backend.xp
        product: Any = 0
        for rows, block in self._blocks():
            product = product + xp.matmul(block.T, flat[rows, ...])
        return xp.reshape(product, (self.Z.shape[0], *r.shape[1:]))

    def derivative_products(self, v: Array) -> tuple[Array, ...]:
        """(∂K/∂θ_l) v for each l: one pass for all of them."""
        flat = self._flat(v)
        self.passes.count_forward(flat)
        xp = self.backend.xp
        parts: list[list[Array]] = [[] for _ in range(self.kernel.n_parameters)]
        for rows in self._rows():
            derivatives = self.kernel.derivatives(self.X[rows, :], self.Z, self.theta, self.backend)
            for part, derivative in zip(parts, derivatives, strict=True):
                part.append(xp.matmul(derivative, flat))
        shape = (self.X.shape[0], *v.shape[1:])
        return tuple(xp.reshape(xp.concat(part, axis=0), shape) for part in parts)

    def second_derivatives(self, w: Array, v: Array) -> Array | None:
        """wᵀ (∂²K/∂θ_l∂θ_r) v for each l and r, one pass; None where the kernel is silent."""
        left, right = self._flat(w), self._flat(v)
        xp, total, kernel = self.backend.xp, None, self.kernel
        for rows in self._rows():
            found = second_derivatives(kernel, self.X[rows, :], self.Z, self.theta, self.backend)
            if found is None:
                return None
            some = left[rows, ...]
            parts = [dot(some, xp.matmul(block, right), self.backend) for block in found]
            total = xp.stack(parts) if total is None else total + xp.stack(parts)
        self.passes.count_forward(right)
        return symmetric(total, kernel.n_parameters, self.backend)

    def dense(self) -> Array:
        """K, shape (n, m)."""
        return self.backend.xp.concat([block for _, block in self._blocks()], axis=0)

    def _flat(self, v: Array) -> Array:
        return v if v.ndim <= 2 else self.backend.xp.reshape(v, (v.shape[0], -1))


def symmetric(upper: Array, n: int, backend: Backend) -> Array:
    """Return the matrix whose entries l ≤ r are these, row by row."""
    xp = backend.xp
    number = {pair: i for i, pair in enumerate(combinations_with_replacement(range(n), 2))}
    rows = ([upper[number[min(i, j), max(i, j)]] for j in range(n)] for i in range(n))
    return xp.stack([xp.stack(row) for row in rows])


@dataclass(frozen=True)
class KernelRidge:
    """Kernel ridge regression of one target or several.

    Build it with :func:`kernel_ridge`, which checks its input.

    Attributes
    ----------
    X : array, shape (n, p)
        Training rows.
    y : array, shape (n,) or (n, T)
        Targets.
    kernel : Kernel
        k(x, z; θ).
    roots : array or None
        √s, of the shape of y; None is all ones.
    """

    X: Array
    y: Array
    kernel: Kernel
    backend: Backend
    roots: Array | None = None
    kept_entries: int = KEPT_ENTRIES
    block_entries: int = BLOCK_ENTRIES
    counter: Passes = field(default_factory=Passes, compare=False)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return tuple(self.y.shape)

    def scale(self, v: Array) -> Array:
        """S v: the coefficients of an x, for v of the shape of x or with one more axis."""
        if self.roots is None:
            return v
        return (self.roots if v.ndim == self.roots.ndim else self.roots[..., None]) * v

    @property
    def dtype(self) -> Any:
        return self.X.dtype

    @property
    def n_hyperparameters(self) -> int:
        return self.kernel.n_parameters + 1

    @property
    def passes(self) -> float:
        return self.counter.total

    @property
    def column_passes(self) -> float:
        return self.counter.columns

    def matrix(self, lam: Array) -> KernelMatrix:
        """K(X, X; θ)."""
        return self.cross_matrix(self.X, lam, self.counter)

    def cross_matrix(self, rows: Array, lam: Array, passes: Passes) -> KernelMatrix:
        """K(rows, X; θ)."""
        return KernelMatrix(
            self.kernel,
            rows,
            self.X,
            lam[:-1],
            self.backend,
            passes,
            self.kept_entries,
            self.block_entries,
        )

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> KernelRidgePoint:
        return KernelRidgePoint(self, x, lam, self.matrix(lam))

    def constants(self, lam: Array) -> InnerConstants:
        """μ = ρ, since K ⪰ 0; ‖A‖ ≤ tr S K S + ρ; h is quadratic, so A does not depend on α.

        ‖∂²_{αλ} h‖ changes by at most √(Σ_l ‖S ∂K/∂θ_l S‖² + ρ²) ‖Δα‖, each norm at most
        Σ s sup |∂k/∂θ_l|. Rounding moves K by E, ‖S E S‖ ≤ r tr S K S (:func:`kernel_rounding`),
        which is taken from μ and added to the norm; None where nothing of μ is left.
        """
        trace, total, ridge = self._sizes(lam)
        lost = self._rounding * trace
        bound, cross = self.kernel.derivative_bound, None
        if bound is not None:
            cross = math.hypot(math.sqrt(self.kernel.n_parameters) * total * bound, ridge)
            cross = known(cross)
        mu, top = min(ridge - lost, sys.float_info.max), known(trace + lost + ridge)
        return InnerConstants(mu if mu > 0 else None, top, 0.0, cross, 0.0)

    def _sizes(self, lam: Array) -> tuple[float, float, float]:
        """Tr S K S and Σ s, of the problem where they are largest, and ρ."""
        xp = self.backend.xp
        ones = xp.ones_like(self.y) if self.roots is None else self.roots * self.roots
        weights = xp.reshape(ones, (ones.shape[0], -1))
        diag = self.kernel.diag(self.X, lam[:-1], self.backend)
        trace, total, log_ridge = self.backend.scalars(
            xp.max(xp.sum(weights * diag[:, None], axis=0)),
            xp.max(xp.sum(weights, axis=0)),
            lam[-1],
        )
        return trace, total, exp_or_inf(log_ridge)

    @property
    def _eps(self) -> float:
        return float(self.backend.xp.finfo(self.dtype).eps)

    @property
    def _rounding(self) -> float:
        """An r with |E_ij| ≤ r √(k_ii k_jj)."""
        return kernel_rounding(self.kernel, int(self.X.shape[1]), self._eps)

    def grad_rounding(self, lam: Array) -> tuple[float, float]:
        """(a, b): rounding moves the gradient by a ‖x‖ + b at most, of K and of its product.

        |fl(K x) - K x| ≤ n u |K| |x|, ‖S |K| S‖ ≤ tr S K S, each with the weights of a column.
        """
        xp = self.backend.xp
        trace, _, ridge = self._sizes(lam)
        (size,) = self.backend.scalars(xp.sqrt(xp.sum(self.scale(self.y) ** 2)))
        share = self._rounding + (self.X.shape[0] + 4) * self._eps
        return share * trace + 4 * self._eps * ridge, 2 * self._eps * size

    def matrix_rounding(self, rows: Array, theta: Array) -> Array:
        """a with ‖fl(K v) - K v‖ ≤ a ‖v‖ for K = K(rows, X; θ), 0-d."""
        xp = self.backend.xp
        traces = [xp.sum(self.kernel.diag(Z, theta, self.backend)) for Z in (rows, self.X)]
        share = self._rounding + (self.X.shape[0] + 4) * self._eps
        return share * xp.sqrt(traces[0] * traces[1])

    def typical(self) -> tuple[float, ...] | None:
        """Θ that fits the scale of the training rows, None where the kernel does not know it."""
        kernel = self.kernel
        return kernel.typical(self.X, self.backend) if isinstance(kernel, Scaled) else None

    def remark(self, lam: Array) -> str | None:
        """Say so where K is 0 off its diagonal, or that of equal rows: h does not see the data."""
        xp, n = self.backend.xp, int(self.X.shape[0])
        sample = xp.arange(0, n, -(-n // _LOOKED_AT), device=self.backend.device)
        theta, rows = lam[:-1], xp.take(self.X, sample, axis=0)
        block = self.kernel.block(rows, self.X, theta, self.backend)
        diag = xp.sqrt(self.kernel.diag(self.X, theta, self.backend))
        alike = block / (xp.take(diag, sample)[:, None] * diag[None, :])
        own = sample[:, None] == xp.arange(n, device=self.backend.device)[None, :]
        least, most = self.backend.scalars(
            xp.min(alike), xp.max(xp.where(own, xp.zeros_like(alike), xp.abs(alike)))
        )
        if n == 1 or not (most <= _PLATEAU or least >= 1 - _PLATEAU):
            return None
        if bool(xp.all(self.X[:1, :] == self.X)):
            return "all rows of X are equal: no parameters of a kernel tell them apart"
        what = "0 off its diagonal" if most <= _PLATEAU else "that of equal rows"
        typical = self.typical()
        cure = "." if typical is None else f", which {_listed(typical)} would fit."
        found = self.backend.scalars(*(theta[i] for i in range(theta.shape[0])))
        return (
            f"with the kernel parameters {_listed(found)} the kernel matrix is {what}: they are "
            f"far from the scale of the data{cure}"
        )


def _listed(numbers: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{number:.4g}" for number in numbers) + "]"


@dataclass(frozen=True)
class KernelRidgePoint:
    """Kernel ridge regression at (α, λ); points on a ray share the kernel matrix."""

    model: KernelRidge
    x: Array
    lam: Array
    matrix: KernelMatrix

    @cached_property
    def fitted(self) -> Array:
        """S K S x, the shape of y."""
        return self._product(self.x)

    @cached_property
    def drift(self) -> Array:
        """How far ``fitted`` may be from its own product: it is moved along rays."""
        return self.model.backend.xp.zeros_like(self._ridge)

    @property
    def heaviest(self) -> Array | float:
        """The largest weight; n times that bounds ‖S |K| S‖ where no entry is above 1."""
        roots = self.model.roots
        return 1.0 if roots is None else self.model.backend.xp.max(roots) ** 2

    def _product(self, v: Array) -> Array:
        return self.model.scale(self.matrix.matmul(self.model.scale(v)))

    @cached_property
    def _ridge(self) -> Array:
        return self.model.backend.xp.exp(self.lam[-1])

    @property
    def carry(self) -> None:
        """None: the kernel matrix depends on λ."""
        return None

    @cached_property
    def value(self) -> Array:
        backend = self.model.backend
        return dot(self.grad - self._targets, self.x, backend) / 2

    @cached_property
    def _targets(self) -> Array:
        """S y."""
        return self.model.scale(self.model.y)

    @cached_property
    def grad(self) -> Array:
        return self.fitted + self._ridge * self.x - self._targets

    @cached_property
    def grad_rounding(self) -> Array:
        """What the rounding of K and of its product may have done to ``grad``."""
        backend = self.model.backend
        share, rest = self.model.grad_rounding(self.lam)
        return share * norm(self.x, backend) + rest

    def rounding_along(self, q: Array, energy: Array) -> Array:
        """That bound times ‖q‖."""
        return self.grad_rounding * norm(q, self.model.backend)

    @cached_property
    def value_rounding(self) -> Array:
        """About how far rounding may have moved ``value``: h is half of what its gradient holds."""
        return self.grad_rounding * norm(self.x, self.model.backend)

    def hvp(self, v: Array) -> Array:
        """(S K S + ρ I) v, one pass whatever the number of columns."""
        return self._product(v) + self._ridge * v

    @cached_property
    def cross_columns(self) -> tuple[Array, ...]:
        """The columns of ∂²_{αλ} h, one pass."""
        model = self.model
        products = self.matrix.derivative_products(model.scale(self.x))
        return (*(model.scale(product) for product in products), self._ridge * self.x)

    def cross_vjp(self, q: Array) -> Array:
        backend = self.model.backend
        return backend.xp.stack([dots(column, q, backend) for column in self.cross_columns])

    def cross_jvp(self, d: Array) -> Array:
        total = d[-1] * self.cross_columns[-1]
        for i, column in enumerate(self.cross_columns[:-1]):
            total = total + d[i] * column
        return total

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array:
        return no_bend(T, self.model.backend)

    def cross_bend(self, q: Array, T: Array) -> Array:
        """One pass."""
        model = self.model
        bent = [model.scale(a) for a in self.matrix.derivative_products(model.scale(q))]
        rows = [dots(a, T, model.backend) for a in (*bent, self._ridge * q)]
        return model.backend.xp.stack(rows)

    def fold(self, q: Array, D: Array) -> Array | None:
        """One pass; None where the kernel doesn't know its second derivatives."""
        model, xp = self.model, self.model.backend.xp
        found = self.matrix.second_derivatives(model.scale(q), model.scale(self.x))
        if found is None:
            return None
        last = self._ridge * dot(q, self.x, model.backend)
        return xp.concat([xp.matmul(found, D[:-1, :]), last * D[-1:, :]], axis=0)

    @cached_property
    def cross_norm(self) -> Array:
        """The Frobenius norm of the columns."""
        backend = self.model.backend
        squares = [dot(column, column, backend) for column in self.cross_columns]
        return backend.xp.sqrt(backend.xp.sum(backend.xp.stack(squares)))

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding:
        """That of K and its products, and how far ``fitted`` has been moved; none of ∂²_{αλ} h."""
        backend, xp = self.model.backend, self.model.backend.xp
        share, rest = self.model.grad_rounding(self.lam)
        most = 1.0 if scale is None else xp.max(xp.abs(scale))
        size, left = upper_norm(self.x, backend), upper_norm(self.grad, backend)
        unit = unit_roundoff(self.model.dtype, backend)
        grad = (size * share + rest + 4 * unit * left + self.drift) * most
        products = upper_norms(vectors, backend) * (most * share)
        return Rounding(grad, products, pending(math.inf))

    def diag(self) -> Array | None:
        """None with row weights: a row of weight s is to converge as s rows of weight 1 do."""
        if self.model.roots is not None:
            return None
        diag = self.model.kernel.diag(self.model.X, self.lam[:-1], self.model.backend)
        if self.x.ndim == 2:
            diag = self.model.backend.xp.broadcast_to(diag[:, None], self.x.shape)
        return diag + self._ridge

    def ray(self, d: Array) -> KernelRidgeRay:
        return KernelRidgeRay(self, d, self._product(d))


@dataclass(frozen=True)
class KernelRidgeRay:
    """Kernel ridge regression along α + t d: K α is affine in t, one pass serves every t."""

    start: KernelRidgePoint
    d: Array
    d_fitted: Array

    @cached_property
    def _lost(self) -> tuple[Array, Array]:
        """What a step of any length loses, and one of unit length more."""
        model, start = self.start.model, self.start
        n, unit = model.X.shape[0], unit_roundoff(model.dtype, model.backend)
        top = n * start.heaviest
        here, step = (norm(v, model.backend) for v in (start.x, self.d))
        size = math.prod(self.d.shape)
        grown, least = 1 + gamma(size + 8, unit), underflow(model.dtype, size, model.backend)
        here, step = (grown * found + least for found in (here, step))
        return 4 * unit * top * here, (gamma(n + 8, unit) + 4 * unit) * top * step

    def at(self, t: float) -> KernelRidgePoint:
        start = self.start
        point = KernelRidgePoint(start.model, start.x + t * self.d, start.lam, start.matrix)
        here, step = self._lost
        drift = start.drift + here + abs(t) * step
        point.__dict__.update(fitted=start.fitted + t * self.d_fitted, drift=drift)
        return point

    def slope(self, point: Any) -> Array:
        return dot(point.grad, self.d, self.start.model.backend)


def kernel_ridge(
    X: Array,
    y: Array,
    kernel: Kernel,
    *,
    sample_weight: Array | None = None,
    kept_entries: int = KEPT_ENTRIES,
    block_entries: int = BLOCK_ENTRIES,
) -> KernelRidge:
    """Build kernel ridge regression from data.

    Parameters
    ----------
    X : array, shape (n, p)
        Training rows, float32 or float64.
    y : array, shape (n,) or (n, T)
        Targets, of the backend, device and dtype of X.
    kernel : Kernel
        One of :mod:`bilevel.inner.kernels`, or a user's own.
    sample_weight : array, shape (n,) or (n, K), optional
        Weights s ≥ 0 of the squared errors of the rows; with K columns for K problems, each with
        the one target or with its own column of y.
    kept_entries, block_entries : int
        Memory: the kernel matrix is kept if it has at most ``kept_entries``, else each product
        computes it anew in blocks of at most ``block_entries``.

    Raises
    ------
    ValueError, TypeError
        If shapes, dtypes or backends do not fit; the message says which.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import RBF
    >>> h = kernel_ridge(np.array([[0.0], [1.0]]), np.array([1.0, -1.0]), RBF())
    >>> h.at(np.zeros(2), np.zeros(2)).grad
    array([-1.,  1.])
    """
    Has("a kernel", "n_parameters", "block", "derivatives", "diag")(kernel, "kernel")
    backend = dense_backend_of(X=X, y=y)
    common_dtype(backend, X=X, y=y)
    check_matrix(X, "X", backend)
    refuse_other_rows(y, X.shape[0], "y", "X")
    if not all_finite(y, backend):
        raise ValueError("y holds NaN or infinite values.")
    kept_entries = Whole(0)(kept_entries, "kept_entries")
    block_entries = Whole(0)(block_entries, "block_entries")
    weights = check_kernel_weights(sample_weight, X, y, backend)
    if weights is None:
        return KernelRidge(X, y, kernel, backend, None, kept_entries, block_entries)
    y, weights = backend.xp.broadcast_arrays(*with_columns(y, weights))
    roots = backend.xp.sqrt(weights)
    return KernelRidge(X, y, kernel, backend, roots, kept_entries, block_entries)


def check_kernel_weights(
    weights: Array | None, X: Array, y: Array, backend: Backend
) -> Array | None:
    """Refuse row weights that do not fit rows and targets, or are no weights."""
    weights = check_weights(weights, X, backend)
    columns = 1 if weights is None or weights.ndim == 1 else weights.shape[1]
    if y.ndim == 2 and columns not in (1, y.shape[1]):
        raise ValueError(
            f"sample_weight must have a column for each of y, of shape {tuple(y.shape)}, got "
            f"{columns}."
        )
    return weights


def with_columns(y: Array, weights: Array) -> tuple[Array, Array]:
    """Give the one with fewer axes a column, so that they broadcast."""
    if y.ndim == weights.ndim:
        return y, weights
    return (y[:, None], weights) if y.ndim == 1 else (y, weights[:, None])


def check_matrix(X: Array, name: str, backend: Backend) -> None:
    """Refuse what is no finite matrix with rows and columns."""
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"{name} must have shape (n, p), neither 0, got {tuple(X.shape)}.")
    if not all_finite(X, backend):
        raise ValueError(f"{name} holds NaN or infinite values.")
