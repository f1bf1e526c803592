"""Random kernels, targets, units and engines: is what is proven true, and what converged right?"""

from __future__ import annotations

import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import bilevel
from bilevel.hypergrad import (
    ForwardUnrolled,
    Neumann,
    ReverseLBFGS,
    ReverseUnrolled,
    Reversible,
    unsolved,
)
from bilevel.inner import RBF, Matern32, Matern52, Polynomial, kernel_ridge, linear_model
from bilevel.losses import Squared
from bilevel.outer import held_out, held_out_kernel
from bilevel.solvers import LBFGS, NewtonCG, solve

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_numerics import exact_ridge, exact_squares, solve_long

LONG = np.longdouble
pytestmark = pytest.mark.skipif(
    np.finfo(LONG).eps > 1e-18, reason="long double is no longer than double here"
)


def exact_kernel(kernel, X, Z, theta):
    """K in long double."""
    gamma = np.exp(LONG(theta))
    squares = exact_squares(X, Z)
    if isinstance(kernel, RBF):
        return np.exp(-gamma * squares)
    if isinstance(kernel, Polynomial):
        return (gamma * X.astype(LONG) @ Z.astype(LONG).T + kernel.constant) ** kernel.degree
    a = np.sqrt(LONG(3 if isinstance(kernel, Matern32) else 5)) * gamma * np.sqrt(squares)
    quadratic = a * a / 3 if isinstance(kernel, Matern52) else LONG(0)
    return (1 + a + quadratic) * np.exp(-a)


def draw_rows(rng, n):
    """Rows of mixed scales and offsets, duplicates, constant columns; few features or many."""
    p = int(rng.choice([1, 2, 5, 40]))
    X = rng.standard_normal((n, p)) * 10 ** rng.uniform(-3, 3, p)
    X += rng.choice([0.0, 1e3, 1e6, 1.7e9]) * (rng.random(p) < 0.5)
    if rng.random() < 0.3:
        X[1] = X[0]
    if rng.random() < 0.2:
        X[:, 0] = X[0, 0]
    return X.astype(np.float32 if rng.random() < 0.3 else np.float64)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bounds_of_kernel_ridge_cover_its_rounding(draws):
    """K entry by entry, and ‖x - X(λ)‖, against long double."""
    worst, proven = 0.0, 0
    for seed in draws(400):
        rng = np.random.default_rng(seed)
        X = draw_rows(rng, int(rng.integers(3, 25)))
        y = (rng.standard_normal(len(X)) * 10 ** rng.uniform(-8, 8)).astype(X.dtype)
        kernels = [RBF(), Matern32(), Matern52(), Polynomial(int(rng.integers(1, 4)), 1.0)]
        kernel = kernels[int(rng.integers(4))]
        h = kernel_ridge(X, y, kernel)
        theta = h.typical()[0] + rng.uniform(-3, 3)
        lam = np.array([theta, rng.uniform(-10, 3)], dtype=X.dtype)
        K, found = exact_kernel(kernel, X, X, lam[0]), h.matrix(lam).dense()
        scale = np.sqrt(np.diag(K)[:, None] * np.diag(K)[None, :])
        assert np.all(np.abs(found - K) <= h._rounding * scale), seed
        if h.constants(lam).mu is None:
            continue
        fit = solve(
            h, lam, np.zeros_like(y), solver=LBFGS(), tol=1e-10, relative=True, max_iter=300
        )
        truth = solve_long(K + np.exp(LONG(lam[1])) * np.eye(len(X), dtype=LONG), y)
        error = float(np.sqrt(((fit.x - truth) ** 2).sum()))
        assert error <= fit.error_bound, seed
        proven += 1
        worst = max(worst, error / fit.error_bound)
    sys.stdout.write(f"kernel ridge: {proven} bounds, errors up to {worst:.2g} of them\n")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_engine_that_says_converged_is_right(draws):
    """Against the closed form in long double; all else has a status of its own."""
    said: dict[str, int] = {}
    for seed in draws(1500):
        rng = np.random.default_rng(seed)
        X, V = rng.standard_normal((30, 4)), rng.standard_normal((20, 4))
        y, d = X @ rng.standard_normal(4) + rng.standard_normal(30), rng.standard_normal(20)
        problem = bilevel.Problem(linear_model(X, y, Squared()), held_out(V, d, Squared()))
        lam = problem.lam(float(rng.uniform(-2, 4)))
        step = None if rng.random() < 0.4 else 10 ** rng.uniform(-4, 3)
        steps = int(10 ** rng.uniform(0, 3))
        truncate = None if rng.random() < 0.5 else int(rng.integers(1, steps + 1))
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        engines = [
            ForwardUnrolled(steps, step, momentum, truncate),
            ReverseUnrolled(steps, step, momentum, truncate),
            Neumann(steps, step),
            Reversible(min(steps, 300), step, Fraction(1, 2), int(rng.integers(20, 53))),
            ReverseLBFGS(min(steps, 60), truncate=truncate),
        ]
        engine = engines[int(rng.integers(len(engines)))]
        start = unsolved(problem, lam, rng.standard_normal(4) * 10 ** rng.uniform(-2, 8))
        if isinstance(engine, Neumann) or rng.random() < 0.3:
            start = solve(problem.inner, lam, start.x, solver=NewtonCG(), tol=1e-9)
        found = engine(problem, start, tol=1e-6)
        said[found.status.value] = said.get(found.status.value, 0) + 1
        x, H = exact_ridge(X, y, np.exp(lam[0]), False)[0], X.T @ X + np.exp(lam[0]) * np.eye(4)
        q = solve_long(H, V.T @ (V @ x.astype(float) - d))
        truth = float(-np.exp(lam[0]) * (q @ x))
        error = abs(float(found.value[0]) - truth)
        if found.status.success:
            assert error <= 1e-4 * (1 + abs(truth)), (seed, engine)
        elif found.error_bound is not None:
            assert not error > found.error_bound * (1 + 1e-6) + 1e-9 * (1 + abs(truth)), seed
    sys.stdout.write(f"engines: {said}\n")
    assert {"converged", "truncated", "diverged", "overflow"} <= set(said)


def test_ridge_of_any_units_is_that_of_long_double(draws):
    pytest.importorskip("sklearn")
    from sklearn.exceptions import ConvergenceWarning

    from bilevel import estimators

    worst = {np.float64: 0.0, np.float32: 0.0}
    for seed in draws(60):
        rng = np.random.default_rng(seed)
        n, p = int(rng.integers(10, 60)), int(rng.integers(1, 8))
        X = rng.standard_normal((n, p)) * 10 ** rng.uniform(-1, 1, p)
        y = X @ rng.standard_normal(p) + rng.standard_normal(n)
        y = y * 10 ** rng.uniform(-8, 8)
        y += np.std(y) * rng.choice([0.0, 1e3, 1e9])
        host = np.float32 if rng.random() < 0.4 else np.float64
        X = X.astype(host)
        intercept = bool(rng.random() < 0.6)
        model = estimators.BilevelRidge(
            fit_intercept=intercept, cv=0.3, random_state=0, alpha_bounds=(1e-2, 1e5)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "overflow encountered")
            try:
                model.fit(X, y)
            except ValueError as error:  # squares beyond the range of float32, and said so
                if host is np.float64 or "overflows float32" not in str(error):
                    raise
                continue
        coef, _ = exact_ridge(X, y, model.alpha_, intercept)
        error = float(np.max(np.abs(model.coef_ - coef)) / np.max(np.abs(coef)))
        eps = float(np.finfo(host).eps)
        assert error <= 1e4 * eps, (seed, error)
        worst[host] = max(worst[host], error / eps)
    sys.stdout.write(f"ridge: largest errors in units of eps: {worst}\n")


def test_an_end_does_not_depend_on_the_units_of_the_targets(draws):
    for seed in draws(25):
        rng = np.random.default_rng(seed)
        n, p = 50, int(rng.integers(1, 10))
        X = rng.standard_normal((n, p))
        y = X @ rng.standard_normal(p) + rng.standard_normal(n)
        method = str(rng.choice(["path", "hoag"]))
        kernel = rng.random() < 0.3

        def run(c, X=X, y=y, kernel=kernel, method=method):
            if kernel:
                h = kernel_ridge(X[:30], y[:30] * c, RBF())
                g = held_out_kernel(h, X[30:], y[30:] * c, Squared())
                lam = [*h.typical(), 0.0]
            else:
                h = linear_model(X[:30], y[:30] * c, Squared())
                g, lam = held_out(X[30:], y[30:] * c, Squared()), [2.0]
            problem = bilevel.Problem(h, g)
            return bilevel.minimize(problem, lam, method=method, max_iter=150)

        expected = run(1.0)
        for c in (1e-40, 1e-8, 1e6):
            found = run(c)
            if expected.success and found.success:
                assert found.fun / c**2 == pytest.approx(expected.fun, rel=5e-3), (seed, c)
