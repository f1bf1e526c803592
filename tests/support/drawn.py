"""Right problems of unlike kinds, drawn by seed: what verification has to be silent about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from bilevel import inner as inners
from bilevel import losses
from bilevel import outer as outers
from bilevel.domains import Ball, Box
from bilevel.problem import Problem

KINDS = ("logistic", "squared", "multinomial", "huber", "hinge", "poisson", "kernel")
SCALES = ("plain", "unlike", "offset", "small")


def features(rng: np.random.Generator, n: int, p: int, scale: str, narrow: bool) -> Any:
    """Rows of the kind that people have: plain, incomes beside ratios, shifted, tiny."""
    X = rng.standard_normal((n, p))
    if scale == "unlike":
        X = np.exp(0.5 * X) * 10.0 ** rng.uniform(-2, 3 if narrow else 7, p)
    if scale == "offset":
        X = X + rng.uniform(5, 50 if narrow else 1000, p)
    return X * 1e-3 if scale == "small" else X


def targets(rng: np.random.Generator, kind: str, X: Any) -> Any:
    """Targets that depend on the rows, with noise."""
    size = np.std(X, axis=0) + 1e-12
    score = ((X - np.mean(X, axis=0)) / size) @ rng.standard_normal(X.shape[1])
    score = score / np.sqrt(X.shape[1]) + 0.5 * rng.standard_normal(X.shape[0])
    if kind in ("logistic", "hinge"):
        return np.where(score > 0, 1.0, -1.0)
    if kind == "poisson":
        return rng.poisson(np.exp(np.clip(score, -2, 2))) * 1.0
    return np.digitize(score, [-0.5, 0.5]) if kind == "multinomial" else score


def loss_of(kind: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "logistic": losses.Logistic,
        "squared": losses.Squared,
        "multinomial": lambda: losses.Multinomial(3),
        "huber": lambda: losses.Huber(0.7),
        "hinge": losses.SquaredHinge,
        "poisson": losses.Poisson,
    }
    return makers[kind]()


def drawn(seed: int, kind: str | None = None, scale: str | None = None) -> tuple[Problem, str]:
    """A right problem, and what it is."""
    rng = np.random.default_rng(seed)
    kind = kind or str(rng.choice(KINDS))
    scale = scale or str(rng.choice(SCALES))
    if kind == "poisson" and scale != "small":
        scale = "plain"
    narrow = bool(rng.random() < 0.25)
    dtype = np.float32 if narrow else np.float64
    n, p, held = int(rng.integers(8, 40)), int(rng.integers(1, 8)), int(rng.integers(8, 30))
    X = features(rng, n + held, p, scale, narrow)
    y = targets(rng, kind, X)
    y = y if kind == "multinomial" else y.astype(dtype)
    if kind == "multinomial":
        y[:3] = y[n : n + 3] = [0, 1, 2]
    X = X.astype(dtype)
    name = f"{seed}: {kind}, {scale}, {np.dtype(dtype).name}, n = {n}, p = {p}"
    if kind == "kernel":
        model = inners.kernel_ridge(X[:n], y[:n], inners.RBF())
        outer = outers.held_out_kernel(model, X[n:], y[n:], losses.Squared())
        return Problem(model, outer, Box(-4.0, 4.0)), name
    weights = rng.exponential(size=n).astype(dtype) if rng.random() < 0.25 else None
    intercept = bool(rng.random() < 0.2) and kind in ("logistic", "squared", "multinomial")
    groups: Any = None
    if rng.random() < 0.4 and p > 1:
        groups = np.arange(p) % int(rng.integers(2, 4)) if p > 3 else "each"
    rows: Any = X
    if rng.random() < 0.2:
        rows = sparse.csr_array(np.where(np.abs(X) > 0.3 * np.abs(X).max(axis=0), X, 0))
    options = {"groups": groups, "sample_weight": weights, "fit_intercept": intercept}
    inner = inners.linear_model(rows[:n], y[:n], loss_of(kind), **options)
    outer = outers.held_out(rows[n:], y[n:], loss_of(kind), fit_intercept=intercept)
    m = inner.n_hyperparameters
    domains: list[Any] = [Box(), Box(), Box(-6.0, 6.0), Box(2.0, 9.0), Ball(0.0, 5.0)]
    domain = domains[int(rng.integers(0, len(domains)))]
    return Problem(inner, outer, domain), f"{name}, m = {m}, {domain}"
