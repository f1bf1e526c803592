"""How good is what `minimize` finds? Its λ beside a reference from a dense grid.

    BILEVEL_DATA=folder python benchmarks/reference.py [data set ...]

The reference: scikit-learn's LogisticRegression (L-BFGS, gradient to 1e-8) at λ = 6, 5.5, ..., -9,
C = e^-λ, then Brent's method between the neighbours of the best. f of a λ that a method returns
is evaluated by a tight fit of its own, off the clock, checked against scikit-learn's at λ*.
Domain [-12, 12]; f is the sum of the held-out logistic losses.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from datasets import DATASETS, halves
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from tables import write

import bilevel
from bilevel.solvers import NewtonCG, solve


def sklearn_loss(data: Any, lam: float, start: Any = None) -> tuple[float, Any]:
    """f(λ) by scikit-learn, and its fitted model to start the next from."""
    X, y, X_val, y_val = data
    model = LogisticRegression(
        C=float(np.exp(-lam)), fit_intercept=False, tol=1e-8, max_iter=100_000, warm_start=True
    )
    if start is not None:
        model.coef_, model.classes_ = start.coef_.copy(), start.classes_
        model.intercept_ = start.intercept_.copy()
    model.fit(X, y)
    return float(np.sum(np.logaddexp(0, -y_val * (X_val @ model.coef_[0])))), model


def reference(data: Any) -> tuple[float, float]:
    """λ* and f* of scikit-learn's."""
    grid, values, model = np.arange(6.0, -9.1, -0.5), [], None
    for lam in grid:
        value, model = sklearn_loss(data, lam, model)
        values.append(value)
    best = int(np.argmin(values))
    bounds = grid[min(best + 1, len(grid) - 1)], grid[max(best - 1, 0)]
    found = optimize.minimize_scalar(
        lambda lam: sklearn_loss(data, lam)[0],
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(found.x), float(found.fun)


def tight(problem: bilevel.Problem, lam: Any) -> float:
    """f(λ) by our own solver, ‖x - X(λ)‖ ≤ 1e-6."""
    fitted = solve(problem.inner, lam, problem.x(None), solver=NewtonCG(), tol=1e-6)
    return problem.backend.scalars(problem.outer.at(fitted.x, lam).value)[0]


def main(names: list[str]) -> None:
    rows = []
    for name in names or list(DATASETS):
        data = halves(name)
        problem = bilevel.logistic_regression(*data)
        best_lam, best = reference(data)
        own = tight(problem, np.array([best_lam]))
        for method in ("hoag", "path"):
            for lam0 in (0.0, -5.0, 5.0):
                clock = time.process_time()
                found = bilevel.minimize(problem, lam0, method=method, max_iter=150)
                seconds = round(time.process_time() - clock, 2)
                rows.append(
                    {
                        "data": name,
                        "λ* (reference)": round(best_lam, 4),
                        "f*": best,
                        "ours at λ*, relative": own / best - 1,
                        "method": method,
                        "λ0": lam0,
                        "λ found": round(float(found.lam[0]), 4),
                        "f above f*, relative": tight(problem, found.lam) / best - 1,
                        "status": found.status.value,
                        "iterations": found.nit,
                        "passes": found.passes,
                        "CPU s": seconds,
                    }
                )
                sys.stderr.write(f"{rows[-1]}\n")
        write("reference", "What minimize finds, beside a dense grid", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
