"""f and ∇f of small dense problems, exact up to rounding: NumPy's solvers, nothing of the package."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize


@dataclass
class DenseModel:
    """Held-out loss of a penalised linear model, a λ for each group of features.

    ``loss`` is "squared" or "logistic".
    """

    X: Any
    y: Any
    X_val: Any
    y_val: Any
    loss: str
    groups: Any

    @property
    def m(self) -> int:
        return int(self.groups.max()) + 1

    def _parts(self, y: Any, t: Any) -> tuple[Any, Any, Any]:
        if self.loss == "squared":
            return (t - y) ** 2 / 2, t - y, np.ones_like(t)
        p = 1 / (1 + np.exp(y * t))
        return np.logaddexp(0, -y * t), -y * p, p * (1 - p)

    def fit(self, lam: Any) -> Any:
        """X(λ) by Newton's method, to the last digits."""
        w, x = np.exp(lam)[self.groups], np.zeros(self.X.shape[1])

        def h(x: Any) -> Any:
            return self._parts(self.y, self.X @ x)[0].sum() + (w * x * x).sum() / 2

        for _ in range(100):
            _, d, c = self._parts(self.y, self.X @ x)
            grad = self.X.T @ d + w * x
            step = np.linalg.solve((self.X.T * c) @ self.X + np.diag(w), grad)
            t = 1.0
            while h(x - t * step) > h(x) + 1e-15 * abs(h(x)) and t > 1e-8:
                t /= 2
            x = x - t * step
            if np.linalg.norm(step) <= 1e-14 * np.linalg.norm(x):
                break
        return x

    def __call__(self, lam: Any) -> tuple[float, Any]:
        """f and ∇f."""
        lam = np.asarray(lam, dtype=float)
        w, x = np.exp(lam)[self.groups], self.fit(lam)
        value, d, _ = self._parts(self.y_val, self.X_val @ x)
        c = self._parts(self.y, self.X @ x)[2]
        q = np.linalg.solve((self.X.T * c) @ self.X + np.diag(w), self.X_val.T @ d)
        p = -np.bincount(self.groups, w * x * q, self.m)
        return float(value.sum()), p

    def lower(self, lam: Any, near: float = 2.0, low: float = -12.0, high: float = 12.0) -> float:
        """What SciPy makes of f from there, relative: how much a stranger can still gain.

        No λ_j is moved by more than ``near``: SciPy's first step is as long as the gradient, and
        leaps into other basins. By its own tolerances it stands still on a plateau.
        """
        here, lam = self(lam)[0], np.asarray(lam)
        box = np.stack([np.maximum(lam - near, low), np.minimum(lam + near, high)], axis=1)
        fine = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-12 * abs(here)}
        found = optimize.minimize(self, lam, jac=True, method="L-BFGS-B", bounds=box, options=fine)
        return (here - min(found.fun, here)) / abs(here)


def draw(seed: int, *, m: int | None = None) -> DenseModel:
    """A random problem: scales, sizes, noise, groups and loss that nobody tuned to."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(8, 60)), int(rng.integers(1, 12))
    if m is not None:
        p = max(p, m)
    X = rng.standard_normal((2 * n, p))
    kind = rng.integers(0, 4)
    if kind == 1:
        X *= 10 ** rng.uniform(-3, 3, p)
    if kind == 2:
        X *= 10 ** rng.uniform(-2, 2)
    if kind == 3:
        X[:, -1] = X[:, 0] + 1e-3 * X[:, -1]
    t = X @ (rng.standard_normal(p) * (rng.random(p) < 0.6) / np.linalg.norm(X, axis=0) * n**0.5)
    t = t + 10 ** rng.uniform(-1, 0.5) * rng.standard_normal(2 * n)
    loss = "squared" if rng.random() < 0.5 else "logistic"
    y = t * 10 ** rng.uniform(-3, 3) if loss == "squared" else np.where(t > 0, 1.0, -1.0)
    if loss == "logistic":
        y[0], y[1] = 1.0, -1.0
    m = int(rng.integers(1, min(p, 4) + 1)) if m is None else m
    groups = np.sort(np.concatenate([np.arange(m), rng.integers(0, m, p - m)]))
    return DenseModel(X[:n], y[:n], X[n:], y[n:], loss, groups)
