"""Small problems of every family that states a bound, and the truth of each in long double.

Nothing of the reference is the package's: losses, Newton's method and Cholesky factors are written
out here. It says of itself how sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

import bilevel
from bilevel import inner, losses, outer
from bilevel.design import MixedPrecision, Standardized, as_design

LONG = np.longdouble
UNIT = float(np.finfo(LONG).eps)

FAMILIES = (
    "logistic",
    "multinomial",
    "huber",
    "squared_hinge",
    "poisson",
    "squared",
    "folds",
    "elastic net",
    "kernel",
)


@dataclass(frozen=True)
class Truth:
    """X(λ), f and ∇f, and how far each may be from that."""

    x: Any
    value: Any
    hypergrad: Any
    unsure: tuple[float, float, float]


@dataclass(frozen=True)
class Drawn:
    """A problem, its reference, and where to start."""

    problem: bilevel.Problem
    reference: Any
    lam0: Any
    family: str
    name: str
    unit: float  # the roundoff of the products

    def truth(self, lam: Any, near: Any = None) -> Truth | None:
        """None where the reference is not sure of itself."""
        return self.reference.truth(np.asarray(lam, dtype=LONG), near)


def norm(v: Any) -> float:
    """‖v‖, as a float."""
    return float(np.sqrt(np.sum(np.asarray(v, dtype=LONG) ** 2)))


# -- losses: value, derivative (n, t) and curvature (n, t, t) of predictions (n, t) ----------------


def _sigmoid(t: Any) -> Any:
    e = np.exp(-np.abs(t))
    return np.where(t >= 0, 1 / (1 + e), e / (1 + e))


def _softmax(t: Any) -> Any:
    e = np.exp(t - t.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _each(d: Any) -> Any:
    """Diagonal curvature."""
    return d[:, :, None] * np.eye(d.shape[1], dtype=LONG)


def _logistic(y: Any, t: Any) -> Any:
    s = _sigmoid(-y * t)
    value = np.maximum(-y * t, 0) + np.log1p(np.exp(-np.abs(t)))
    return value, -y * s, _each(s * _sigmoid(y * t))


def _multinomial(y: Any, t: Any) -> Any:
    p, top = _softmax(t), t.max(axis=1, keepdims=True)
    value = np.log(np.exp(t - top).sum(axis=1, keepdims=True)) + top
    value = value - np.sum(y * t, axis=1, keepdims=True)
    return value, p - y, _each(p) - p[:, :, None] * p[:, None, :]


def _squared(y: Any, t: Any) -> Any:
    return (t - y) ** 2 / 2, t - y, _each(np.ones_like(t))


def _poisson(y: Any, t: Any) -> Any:
    return np.exp(t) - y * t, np.exp(t) - y, _each(np.exp(t))


def _hinge(y: Any, t: Any) -> Any:
    z = np.maximum(0, 1 - y * t)
    return z * z, -2 * y * z, _each(2.0 * (z > 0))


def _huber(delta: float) -> Callable[[Any, Any], Any]:
    d = LONG(delta)

    def loss(y: Any, t: Any) -> Any:
        r = t - y
        a = np.abs(r)
        value = np.where(a <= d, r * r / 2, d * (a - d / 2))
        return value, np.clip(r, -d, d), _each(1.0 * (a <= d))

    return loss


# -- the reference of linear models ----------------------------------------------------------------


def _cholesky(matrix: Any) -> Any:
    lower = np.array(matrix, dtype=LONG)
    for k in range(len(lower)):
        if not lower[k, k] > 0:
            return None
        lower[k:, k] /= np.sqrt(lower[k, k])
        lower[k + 1 :, k + 1 :] -= np.outer(lower[k + 1 :, k], lower[k + 1 :, k])
    return np.tril(lower)


def solved(matrix: Any, right: Any) -> Any:
    """A⁻¹ b for a vector b, by a factor and three refinements; None where A is not definite."""
    lower = _cholesky(matrix)
    if lower is None:
        return None

    def back(b: Any) -> Any:
        z = np.array(b, dtype=LONG)
        for k in range(len(z)):
            z[k] = (z[k] - lower[k, :k] @ z[:k]) / lower[k, k]
        for k in reversed(range(len(z))):
            z[k] = (z[k] - lower[k + 1 :, k] @ z[k + 1 :]) / lower[k, k]
        return z

    x = back(right)
    for _ in range(3):
        x = x + back(right - matrix @ x)
    return x


def _total(s: Any, value: Any) -> Any:
    """Σ s ℓ; a loss of several predictions has one value a row."""
    return np.sum(s[:, : value.shape[1]] * value)


@dataclass
class LinearTruth:
    """Σ s ℓ(y, X x) + penalty, x of shape (p, t); the last row is free with an intercept."""

    X: Any
    y: Any
    X_val: Any
    y_val: Any
    loss: Callable[[Any, Any], Any]
    s: Any
    s_val: Any
    groups: Any
    m: int
    epsilon: float | None = None
    known: dict[bytes, Truth | None] = field(default_factory=dict)

    def _penalty(self, x: Any, lam: Any) -> tuple[Any, Any, Any, list[Any]]:
        """Value, gradient, curvature (the shape of x) and the columns of ∂²_{xλ} r."""
        w = np.exp(lam)
        if self.epsilon is not None:
            eps = LONG(self.epsilon)
            root = np.sqrt(x * x + eps**2)
            columns = [w[0] * x / root, w[1] * x]
            value = w[0] * np.sum(root - eps) + w[1] * np.sum(x * x) / 2
            return value, columns[0] + columns[1], w[0] * eps**2 / root**3 + w[1], columns
        spread = np.where(self.groups >= 0, w[np.maximum(self.groups, 0)], 0)[:, None]
        grad = spread * x
        columns = [np.where(self.groups[:, None] == j, grad, 0) for j in range(self.m)]
        return np.sum(grad * x) / 2, grad, spread * np.ones_like(x), columns

    def parts(self, x: Any, lam: Any) -> tuple[Any, Any, Any]:
        """H, ∂_x h and ∂²_{xx} h as a matrix."""
        value, slope, bent = self.loss(self.y, self.X @ x)
        r, grad, diagonal, _ = self._penalty(x, lam)
        weighted = self.s[:, :, None] * bent
        H = np.einsum("ia,ist,ib->asbt", self.X, weighted, self.X)
        H = H.reshape(x.size, x.size) + np.diag(diagonal.ravel())
        return _total(self.s, value) + r, self.X.T @ (self.s * slope) + grad, H

    def fit(self, lam: Any, x: Any) -> Any:
        """Newton's method, damped, until the gradient no longer falls."""
        best, stalled = (math.inf, x), 0
        value, grad, H = self.parts(x, lam)
        for _ in range(200):
            size = norm(grad)
            stalled = 0 if size < 0.5 * best[0] else stalled + 1
            best = min(best, (size, x), key=lambda pair: pair[0])
            step = None if size == 0 or stalled > 6 else solved(H, grad.ravel())
            if step is None:
                break
            step, t = step.reshape(x.shape), 1.0
            while t > 1e-12:
                with np.errstate(all="ignore"):
                    ahead = self.parts(x - t * step, lam)
                if ahead[0] <= value - 1e-4 * t * np.sum(step * grad) + 1e-18 * abs(value):
                    break
                t /= 2
            x, (value, grad, H) = x - t * step, ahead
        return best[1]

    def _at(self, x: Any, lam: Any) -> tuple[Any, Any]:
        """G and the hypergradient as if x were X(λ)."""
        value, slope, _ = self.loss(self.y_val, self.X_val @ x)
        q = solved(self.parts(x, lam)[2], (self.X_val.T @ (self.s_val * slope)).ravel())
        columns = self._penalty(x, lam)[3]
        p = np.array([-np.sum(c.ravel() * q) for c in columns], dtype=LONG)
        return _total(self.s_val, value), p

    def truth(self, lam: Any, near: Any) -> Truth | None:
        key = lam.tobytes()
        if key not in self.known:
            shape = (self.X.shape[1], self.s.shape[1])
            start = np.zeros(shape, dtype=LONG)
            if near is not None and np.all(np.isfinite(near)):
                start = np.asarray(near, dtype=LONG).reshape(shape)
            self.known[key] = self._truth(lam, start)
        return self.known[key]

    def _truth(self, lam: Any, start: Any) -> Truth | None:
        x = self.fit(lam, start)
        _, grad, H = self.parts(x, lam)
        step = solved(H, grad.ravel())
        if step is None:
            return None
        moved = x - step.reshape(x.shape)
        # Two points that differ by what is left: by how much does that change what follows?
        (value, p), (value_too, p_too) = self._at(x, lam), self._at(moved, lam)
        away = 10 * norm(step) + 100 * UNIT * norm(x)
        unsure = (
            away,
            float(10 * abs(value - value_too) + 1e4 * UNIT * abs(value)),
            10 * norm(p - p_too) + 1e4 * UNIT * norm(p),
        )
        return Truth(x, value, p, unsure) if away <= 1e-9 * (1e-12 + norm(x)) else None


@dataclass
class KernelTruth:
    """Kernel ridge regression with the RBF kernel: X(λ) alone is bounded."""

    X: Any
    y: Any

    def truth(self, lam: Any, near: Any) -> Truth | None:
        gamma, ridge = np.exp(lam)
        D = np.sum((self.X[:, None] - self.X[None]) ** 2, axis=2)
        A = np.exp(-gamma * D) + ridge * np.eye(len(D), dtype=LONG)
        alpha = solved(A, self.y)
        if alpha is None:
            return None
        off = 10 * norm(self.y - A @ alpha) / float(ridge) + 1e4 * UNIT * norm(alpha)
        return Truth(alpha, LONG(0), np.zeros(2, dtype=LONG), (off, math.inf, math.inf))


# -- draws -----------------------------------------------------------------------------------------


def draw(seed: int, family: str | None = None) -> Drawn:
    """A problem of up to 40 rows and 8 features, scaled as nobody would have it."""
    rng = np.random.default_rng(seed)
    family = family or FAMILIES[int(rng.integers(len(FAMILIES)))]
    dtype = np.float32 if rng.random() < 0.35 else np.float64
    n, n_val, p = int(rng.integers(3, 40)), int(rng.integers(2, 30)), int(rng.integers(1, 9))
    X = _features(rng, n + n_val, p, family, dtype)
    if family == "kernel":
        return _kernel(rng, X, n, seed, dtype)
    return _linear(rng, X, n, family, seed, dtype)


def _features(rng: Any, n: int, p: int, family: str, dtype: Any) -> Any:
    X = rng.standard_normal((n, p)) * (rng.random((n, p)) < rng.choice([0.4, 1.0]))
    digits = 2.5 if dtype is np.float32 else 5.0
    if family == "poisson":
        return np.clip(X, -2, 2).astype(dtype)
    kind = int(rng.integers(5))
    if kind == 1:
        X *= 10.0 ** rng.uniform(-digits, digits, p)
    elif kind == 2:
        X *= 10.0 ** rng.uniform(-digits, digits, (n, 1))
    elif kind == 3:
        X = X * 10.0 ** rng.uniform(-2, 2) + 10.0 ** rng.uniform(-1, 2)
    return X.astype(dtype)


def _labels(rng: Any, margins: Any, name: str, dtype: Any) -> Any:
    noise = rng.standard_normal(margins.shape) * rng.choice([0.0, 1.0])
    if name in ("logistic", "squared_hinge", "folds"):
        return np.where(margins + noise > 0, 1.0, -1.0).astype(dtype)
    if name == "poisson":
        return rng.poisson(np.exp(np.clip(margins, -3, 2))).astype(dtype)
    return (margins + noise).astype(dtype)


def _linear(rng: Any, X: Any, n: int, family: str, seed: int, dtype: Any) -> Drawn:
    p, classes, delta = X.shape[1], int(rng.integers(2, 4)), float(10 ** rng.uniform(-1, 1))
    base = str(rng.choice(["squared", "logistic"])) if family == "elastic net" else family
    loss, plain = {
        "logistic": (losses.Logistic(), _logistic),
        "folds": (losses.Logistic(), _logistic),
        "squared": (losses.Squared(), _squared),
        "poisson": (losses.Poisson(), _poisson),
        "huber": (losses.Huber(delta), _huber(delta)),
        "squared_hinge": (losses.SquaredHinge(), _hinge),
        "multinomial": (losses.Multinomial(classes), _multinomial),
    }[base]
    if base == "multinomial":
        y = rng.integers(0, classes, len(X))
        columns = np.eye(classes, dtype=LONG)[y]
    else:
        y = _labels(rng, X @ (rng.standard_normal(p) / (1e-9 + np.abs(X).max(0))), base, dtype)
        columns = np.asarray(y, dtype=LONG)[:, None]
    s, s_val = _weights(rng, n, len(X) - n, family, dtype)
    seen = y[:n] if s is None or family == "folds" else y[:n][s > 0]
    free = bool(rng.random() < 0.15) and family in ("logistic", "squared", "poisson")
    free = free and len(np.unique(seen)) > 1  # else there is no best model
    groups, epsilon = None, None
    if family == "elastic net":
        epsilon = float(10 ** rng.uniform(-3, 0))
    elif p > 1 and rng.random() < 0.4:
        groups = np.unique(rng.integers(0, min(p, 4), p), return_inverse=True)[1]
    design, design_val, rows = _designs(rng, X, n, family, dtype)
    width = classes if base == "multinomial" else (s.shape[1] if family == "folds" else 1)
    h = inner.linear_model(
        design,
        y[:n],
        loss,
        groups=groups,
        penalty=None if epsilon is None else inner.SmoothedElasticNet(epsilon),
        sample_weight=s,
        fit_intercept=free,
    )
    g = outer.held_out(design_val, y[n:], loss, sample_weight=s_val, fit_intercept=free)
    if free:
        rows = np.hstack([rows, np.ones((len(rows), 1), dtype=LONG)])
    owners = np.zeros(p, dtype=int) if groups is None else groups
    m = 2 if epsilon is not None else int(owners.max()) + 1
    reference = LinearTruth(
        rows[:n],
        np.broadcast_to(columns[:n], (n, width)),
        rows[n:],
        np.broadcast_to(columns[n:], (len(X) - n, width)),
        plain,
        _columns(s, n, width),
        _columns(s_val, len(X) - n, width),
        np.append(owners, -1) if free else owners,
        m,
        epsilon,
    )
    lam0 = rng.uniform(-9, 9, m).astype(dtype)
    problem = bilevel.Problem(h, g, bilevel.Box(-12.0, 12.0))
    name = f"seed {seed}: {family} {base}, {dtype.__name__}, n={n} p={p} m={m}"
    mixed = isinstance(design, MixedPrecision)
    unit = float(np.finfo(np.float32 if mixed else dtype).eps) / 2
    return Drawn(problem, reference, lam0, family, name, unit)


def _columns(s: Any, n: int, width: int) -> Any:
    ones = np.ones((n, width), dtype=LONG)
    if s is None:
        return ones
    return ones * np.asarray(s, dtype=LONG).reshape(n, -1)


def _weights(rng: Any, n: int, n_val: int, family: str, dtype: Any) -> tuple[Any, Any]:
    if family == "folds":
        return tuple(rng.exponential(size=(k, 2)).astype(dtype) for k in (n, n_val))
    if rng.random() < 0.6:
        return None, None
    s = rng.exponential(size=n) * (rng.random(n) < 0.9)
    s[0] = 1.0
    return s.astype(dtype), rng.exponential(size=n_val).astype(dtype)


def _designs(rng: Any, X: Any, n: int, family: str, dtype: Any) -> tuple[Any, Any, Any]:
    """The two designs, and the exact numbers that they stand for."""
    rows, kind = np.asarray(X, dtype=LONG), rng.random()
    if kind < 0.3:
        return sparse.csr_array(X[:n]), sparse.csr_array(X[n:]), rows
    if kind < 0.4 and family != "poisson":
        fitted = Standardized.fit(as_design(X[:n].copy()))
        other = Standardized(as_design(X[n:].copy()), fitted.mean, fitted.scale)
        return fitted, other, (rows - fitted.mean) / np.asarray(fitted.scale, dtype=LONG)
    if kind < 0.5 and dtype is np.float64:
        single = X.astype(np.float32)
        both = (MixedPrecision(as_design(part.copy())) for part in (single[:n], single[n:]))
        return *both, np.asarray(single, dtype=LONG)
    return X[:n].copy(), X[n:].copy(), rows


def _kernel(rng: Any, X: Any, n: int, seed: int, dtype: Any) -> Drawn:
    X = (rng.standard_normal(X.shape) * 10 ** rng.uniform(-1, 1)).astype(dtype)
    y = (X[:, 0] + rng.standard_normal(len(X))).astype(dtype)
    h = inner.kernel_ridge(X[:n].copy(), y[:n].copy(), inner.RBF())
    g = outer.held_out_kernel(h, X[n:].copy(), y[n:].copy(), losses.Squared())
    reference = KernelTruth(np.asarray(X[:n], dtype=LONG), np.asarray(y[:n], dtype=LONG))
    lam0 = rng.uniform(-3, 3, 2).astype(dtype)
    name = f"seed {seed}: kernel, {dtype.__name__}, n={n} p={X.shape[1]}"
    unit = float(np.finfo(dtype).eps) / 2
    problem = bilevel.Problem(h, g, bilevel.Box(-6.0, 6.0))
    return Drawn(problem, reference, lam0, "kernel", name, unit)
