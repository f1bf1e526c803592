"""Four problems of different kinds beside what a user would run in their place.

    python benchmarks/models.py [mnist kernel folds sure] [--quick] [--method hoag]

* mnist: multinomial logistic regression of digits, one λ for each of 7,840 weights, beside
  LogisticRegressionCV (one C);
* kernel: kernel ridge regression of Parkinson's scores, γ and ridge, rows held out, beside
  GridSearchCV over KernelRidge;
* folds: one λ of a logistic regression of 20 Newsgroups by 5-fold cross-validation as one batched
  problem, beside K separate runs and LogisticRegressionCV;
* sure: denoising with a difference operator, where the best λ is known from the truth.

Real data is read from the folder BILEVEL_DATA. Every λ is judged by the criterion at a tight fit
of the same inner problem, so the values of one table compare. "passes" are products with X (or
the kernel matrix) until the end of the search; scikit-learn's are not counted by it.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, PredefinedSplit

import bilevel
from bilevel import Box, Problem
from bilevel.backends import deal_folds
from bilevel.inner import RBF, Tikhonov, kernel_ridge, linear_model
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.outer import held_out, held_out_kernel, monte_carlo_sure, perturbed_targets
from bilevel.problems import cross_validation
from bilevel.solvers import LBFGS, NewtonCG, solve

Line = tuple[str, str, float, str, float]


def load(name: str) -> Any:
    return np.load(Path(os.environ["BILEVEL_DATA"]) / name)


def tight(problem: Problem, lam: Any, tol: float = 1e-4) -> float:
    """g at a tight fit: until the gradient is ``tol`` of that at zero."""
    lam = problem.lam(lam)
    start = problem.inner.at(problem.x(None), lam)
    mu = problem.inner.constants(lam).mu or 1.0
    goal = tol * float(np.linalg.norm(start.grad)) / mu
    solver = NewtonCG() if problem.inner.n_hyperparameters == 2 else LBFGS()
    inner = solve(problem.inner, lam, problem.x(None), solver=solver, tol=goal, max_iter=2000)
    return float(problem.outer.at(inner.x, lam).value)


def search(problem: Problem, lam0: Any, method: str, max_iter: int) -> tuple[Any, Line]:
    """Run bilevel, and return λ and a line of the table."""
    start = time.perf_counter()
    options = {} if method == "default" else {"method": method}
    result = bilevel.minimize(problem, lam0, max_iter=max_iter, **options)
    seconds = time.perf_counter() - start
    passes = f"{result.passes} ({result.column_passes} columns)"
    label = f"{result.status.value}, {_short(result.lam)}"
    return result.lam, (f"bilevel {method}", label, tight(problem, result.lam), passes, seconds)


def _short(lam: Any) -> str:
    lam = np.asarray(lam)
    return f"λ = {np.round(lam, 2)}" if lam.size <= 3 else f"{lam.size} λ"


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def mnist(quick: bool, method: str) -> list[Line]:
    data = load("mnist.npz")
    keys = list(data)
    X = data[next(k for k in keys if "train" in k.lower() and data[k].ndim >= 2)]
    y = data[next(k for k in keys if "train" in k.lower() and data[k].ndim == 1)]
    n, n_val = (600, 300) if quick else (3000, 2000)
    X = X.reshape(X.shape[0], -1)[: n + n_val] / 255.0
    y = y[: n + n_val].astype(np.int64)
    loss = Multinomial(10)

    def problem(groups: Any) -> Problem:
        inner = linear_model(X[:n], y[:n], loss, groups=groups)
        return Problem(inner, held_out(X[n:], y[n:], loss), Box(-6.0, 10.0))

    lines = []
    one, line = search(problem(None), 2.0, method, 20)
    lines.append(line)
    each = problem("each")
    _, line = search(each, float(one[0]), method, 10 if quick else 30)
    lines.append(line)
    split = PredefinedSplit(np.r_[-np.ones(n), np.zeros(n_val)])
    peer = LogisticRegressionCV(
        Cs=10, cv=split, scoring="neg_log_loss", fit_intercept=False, max_iter=300, refit=False
    )
    fitted, seconds = timed(lambda: peer.fit(X, y))
    lam = -np.log(float(np.ravel(fitted.C_)[0]))
    value = tight(problem(None), float(np.clip(lam, -6, 10)))
    lines.append(("LogisticRegressionCV", f"λ = {lam:.2f}", value, "-", seconds))
    return lines


def kernel(quick: bool, method: str) -> list[Line]:
    data = load("parkinsons_updrs.npz")
    # Column 0 is the patient's number: no feature. Rows are held out at random, so that each
    # patient has rows on both sides: between patients the scores can hardly be predicted.
    rows = np.random.default_rng(0).permutation(data["X"].shape[0])[: 400 if quick else 2000]
    X, y = data["X"][rows, 1:].astype(float), data["y"][rows].astype(float)
    val = np.arange(len(rows)) % 3 == 0
    mean, scale = X[~val].mean(axis=0), X[~val].std(axis=0)
    X = (X - mean) / np.where(scale > 0, scale, 1.0)
    y = (y - y[~val].mean()) / y[~val].std()
    inner = kernel_ridge(X[~val], y[~val], RBF())
    outer = held_out_kernel(inner, X[val], y[val], Squared())
    problem = Problem(inner, outer, Box((-8.0, -6.0), (2.0, 6.0)))
    _, line = search(problem, [-3.0, 1.0], method, 30)
    grid = {"gamma": np.exp(np.linspace(-8, 2, 6)), "alpha": np.exp(np.linspace(-6, 6, 6))}
    split = PredefinedSplit(np.where(val, 0, -1))
    peer = GridSearchCV(
        KernelRidge(kernel="rbf"), grid, cv=split, scoring="neg_mean_squared_error", refit=False
    )
    fitted, seconds = timed(lambda: peer.fit(X, y))
    best = np.log([fitted.best_params_["gamma"], fitted.best_params_["alpha"]])
    value = tight(problem, best.tolist())
    return [line, ("GridSearchCV 6 x 6", f"λ = {np.round(best, 2)}", value, "-", seconds)]


def folds(quick: bool, method: str) -> list[Line]:
    data = load("20news_vectorized.npz")
    name = next(k for k in data if k.endswith("_data") and "train" in k)[: -len("_data")]
    X = sparse.csr_array(
        tuple(data[f"{name}_{part}"] for part in ("data", "indices", "indptr")),
        shape=tuple(data[f"{name}_shape"]),
    ).astype(float)
    y = data["y_train"].astype(float)
    if quick:
        keep = np.random.default_rng(0).permutation(X.shape[0])[:1000]
        X, y = X[keep], y[keep]
    n_folds = 5
    numbers = deal_folds(X.shape[0], n_folds, seed=0)
    problem = cross_validation(X, y, Logistic(), folds=numbers, domain=Box(-8.0, 8.0))
    lam, line = search(problem, 0.0, method, 20)
    lines = [line]
    # The passes of one tight fit of all folds at once, against K fits one after the other.
    apart = [linear_model(X[numbers != k], y[numbers != k], Logistic()) for k in range(n_folds)]
    for label, models, solver in (
        (f"{n_folds} folds at once, L-BFGS", [problem.inner], LBFGS()),
        (f"{n_folds} folds apart, L-BFGS", apart, LBFGS()),
        (f"{n_folds} folds at once, Newton-CG", [problem.inner], NewtonCG()),
        (f"{n_folds} folds apart, Newton-CG", apart, NewtonCG()),
    ):
        before = sum(model.passes for model in models)
        columns = sum(model.column_passes for model in models)
        start = time.perf_counter()
        for model in models:
            x0 = np.zeros(model.x_shape)
            mu = model.constants(lam).mu or 1.0
            goal = 1e-4 * float(np.linalg.norm(model.at(x0, lam).grad)) / mu
            solve(model, lam, x0, solver=solver, tol=goal)
        seconds = time.perf_counter() - start
        passes = sum(model.passes for model in models) - before
        columns = sum(model.column_passes for model in models) - columns
        lines.append((label, "", float("nan"), f"{passes} ({columns} columns)", seconds))
    split = PredefinedSplit(numbers)
    peer = LogisticRegressionCV(
        Cs=10, cv=split, scoring="neg_log_loss", fit_intercept=False, refit=False, max_iter=300
    )
    fitted, seconds = timed(lambda: peer.fit(X, y))
    best = -np.log(float(np.ravel(fitted.C_)[0]))
    value = tight(problem, float(np.clip(best, -8, 8)))
    lines.append(("LogisticRegressionCV", f"λ = {best:.2f}", value, "-", seconds))
    return lines


def sure(quick: bool, method: str) -> list[Line]:
    n, noise = (128, 0.3) if quick else (256, 0.3)
    t = np.linspace(0, 1, n)
    truth = np.sin(2 * np.pi * t) + 0.5 * np.sin(6 * np.pi * t)
    y = truth + noise * np.random.default_rng(0).standard_normal(n)
    D = np.diff(np.eye(n), n=2, axis=0)
    targets, probes, epsilon = perturbed_targets(y, noise, n_probes=8)
    penalty = Tikhonov((bilevel.as_design(D),), (4.0,))
    inner = linear_model(np.eye(n), targets, Squared(), penalty=penalty)
    problem = Problem(inner, monte_carlo_sure(inner, probes, noise, epsilon), Box(-4.0, 16.0))
    lam, line = search(problem, 2.0, method, 40)

    def risk(lam: float) -> float:
        return float(np.sum((np.linalg.solve(np.eye(n) + np.exp(lam) * D.T @ D, y) - truth) ** 2))

    grid = np.linspace(-4, 16, 401)
    best = min(grid, key=risk)
    name, label, value, passes, seconds = line
    label = f"{label}, risk {risk(float(lam[0])):.4f}"
    return [
        (name, label, value, passes, seconds),
        (
            "best for the truth",
            f"λ = {best:.2f}, risk {risk(best):.4f}",
            tight(problem, best),
            "-",
            float("nan"),
        ),
    ]


PROBLEMS = {"mnist": mnist, "kernel": kernel, "folds": folds, "sure": sure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), help="which to run")
    parser.add_argument("--quick", action="store_true", help="small parts of the data")
    parser.add_argument("--method", default="default", help="of bilevel.minimize")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    for name in options.problems:
        print(f"\n{name}")
        for label, found, value, passes, seconds in PROBLEMS[name](options.quick, options.method):
            print(f"  {label:32s} g {value:12.5f}  {seconds:8.2f} s  passes {passes:24s} {found}")


if __name__ == "__main__":
    main()
