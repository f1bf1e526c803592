"""Inner solvers beside SciPy's, on the same problem, counted by the same design matrix.

    BILEVEL_DATA=folder python benchmarks/solvers.py

Both start at zero and stop at the first point with ‖∇h‖ ≤ 1e-6 ‖∇h(0)‖. SciPy is given each point
once: value, gradient and Hessian products at one x share its margins. The last column is the
largest relative difference of the two minima, both fitted to h - h* ≤ 1e-11 h*.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from datasets import DATASETS, halves
from scipy import optimize
from tables import write

from bilevel.inner import linear_model
from bilevel.losses import Logistic
from bilevel.solvers import LBFGS, NewtonCG, solve

PAIRS = [(LBFGS(), "L-BFGS-B"), (NewtonCG(), "Newton-CG")]


class _ReachedError(Exception):
    pass


def scipy_fit(inner: Any, lam: Any, method: str, goal: float) -> tuple[float, int, float]:
    """SciPy's minimum, passes and CPU seconds."""
    kept: dict[str, Any] = {}
    before, clock = inner.passes, time.process_time()

    def at(x: Any) -> Any:
        if "x" not in kept or not np.array_equal(kept["x"], x):
            kept.update(x=x.copy(), point=inner.at(x.copy(), lam))
        return kept["point"]

    def value_and_grad(x: Any) -> tuple[float, Any]:
        point = at(x)
        if np.linalg.norm(point.grad) <= goal:
            raise _ReachedError
        return float(point.value), point.grad

    options = {
        "L-BFGS-B": {"maxcor": 10, "gtol": 0, "ftol": 0, "maxiter": 10**5, "maxfun": 10**5},
        "Newton-CG": {"xtol": 0, "maxiter": 10**4},
    }[method]
    extra = {"hessp": lambda x, v: at(x).hvp(v)} if method == "Newton-CG" else {}
    try:
        start = np.zeros(inner.x_shape)
        optimize.minimize(value_and_grad, start, jac=True, method=method, options=options, **extra)
    except _ReachedError:
        passes = inner.passes - before
        return float(kept["point"].value), passes, time.process_time() - clock
    raise RuntimeError(f"SciPy's {method} did not reach the goal.")


def our_fit(inner: Any, lam: Any, solver: Any, goal: float) -> tuple[float, int, float]:
    """The same for one of ours."""
    before, clock = inner.passes, time.process_time()
    tol = goal / inner.constants(lam).mu
    found = solve(inner, lam, np.zeros(inner.x_shape), solver=solver, tol=tol)
    passes = inner.passes - before
    return float(found.point.value), passes, time.process_time() - clock


def main() -> None:
    rows = []
    for name in DATASETS:
        X, y, _, _ = halves(name)
        inner = linear_model(X, y, Logistic())
        for lam_value in (-6.0, -3.0, 0.0):
            lam, zero = np.array([lam_value]), np.zeros(inner.x_shape)
            goal = 1e-6 * float(np.linalg.norm(inner.at(zero, lam).grad))
            mu = inner.constants(lam).mu
            least = our_fit(inner, lam, NewtonCG(), math.sqrt(2e-9 * mu))[0]
            tight = min(goal, math.sqrt(2e-11 * mu * least))
            for ours, theirs in PAIRS:
                _, passes, seconds = our_fit(inner, lam, ours, goal)
                _, scipy_passes, scipy_seconds = scipy_fit(inner, lam, theirs, goal)
                value = our_fit(inner, lam, ours, tight)[0]
                scipy_value = scipy_fit(inner, lam, theirs, tight)[0]
                rows.append(
                    {
                        "data": name,
                        "λ": lam_value,
                        "solver": type(ours).__name__,
                        "passes": passes,
                        "SciPy's passes": scipy_passes,
                        "ratio": passes / scipy_passes,
                        "CPU s": seconds,
                        "SciPy's CPU s": scipy_seconds,
                        "difference of minima": abs(value - scipy_value) / scipy_value,
                    }
                )
    write("solvers", "Inner solvers and SciPy's", rows, (__doc__ or "").split("\n\n")[-1].strip())


if __name__ == "__main__":
    main()
