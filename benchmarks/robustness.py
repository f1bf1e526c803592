"""Does the default method ever fail? 200 random starts on six data sets, float64 and float32.

    BILEVEL_DATA=folder python benchmarks/robustness.py [--quick] [data set ...]

λ0 is uniform in [-10, 10] (`numpy.random.default_rng(0)`), the domain [-12, 12], every option at
its default. A run fails where its status is not "converged", or where f at the λ that it returns
lies more than 1e-4 above f*, relative. f is evaluated in float64 by a tight fit off the clock
(‖∂_x h‖ ≤ 1e-9 of that at x = 0), f* by a grid of step 0.5 from 12 to -12 and Brent's method
around its best. A run that only warns of its precision (status "stalled") counts as failed too.
`--quick` makes 24 starts on the small sets.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from datasets import halves
from tables import write
from truth import Truth

import bilevel

SETS = ("20 Newsgroups", "Reuters", "breast cancer", "digits", "wine", "diabetes")
QUICK = ("breast cancer", "digits", "wine", "diabetes")


def run(data: Any, dtype: str, lam0: float, method: Any = "path") -> tuple[Any, float]:
    """A run from λ0, and its CPU seconds."""
    problem = bilevel.logistic_regression(*(a.astype(dtype) for a in data))
    clock = time.process_time()
    found = bilevel.minimize(problem, lam0, method=method)
    return found, time.process_time() - clock


def measure(name: str, dtype: str, starts: Any, truth: Truth, data: Any) -> dict[str, Any]:
    """The runs of one data set, as a row."""
    best = truth.minimum()[1]
    failed, passes, gaps, seconds = [], [], [], []
    for lam0 in starts:
        found, spent = run(data, dtype, float(lam0))
        gap = truth(float(found.lam[0])) / best - 1
        passes.append(found.passes)
        gaps.append(gap)
        seconds.append(spent)
        if not found.success or not gap <= 1e-4:
            failed.append(f"{lam0:.3f}: {found.status.value}, {gap:.1e}")
            sys.stderr.write(f"{name} {dtype} failed from {failed[-1]}, λ {found.lam[0]:.4f}\n")
    worst = int(np.argmax(passes))
    return {
        "data": name,
        "dtype": dtype,
        "λ*": round(truth.minimum()[0], 4),
        "f*": best,
        "starts": len(starts),
        "failed": len(failed),
        "which": "; ".join(failed) or "none",
        "largest f above f*, relative": max(gaps),
        "median passes": float(np.median(passes)),
        "most passes": passes[worst],
        "most / median": passes[worst] / float(np.median(passes)),
        "from λ0": round(float(starts[worst]), 3),
        "median CPU s": float(np.median(seconds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    names = asked.names or (QUICK if asked.quick else SETS)
    starts = np.random.default_rng(0).uniform(-10, 10, 24 if asked.quick else 200)
    rows = []
    for name in names:
        data = halves(name)
        truth = Truth(bilevel.logistic_regression(*data))
        every = QUICK if asked.quick else SETS
        mine = starts[every.index(name) :: len(every)]
        for dtype in ("float64", "float32"):
            rows.append(measure(name, dtype, mine, truth, data))
            sys.stderr.write(f"{rows[-1]}\n")
    total, failed = sum(r["starts"] for r in rows), sum(r["failed"] for r in rows)
    note = f"{failed} of {total} runs failed."
    write("robustness", "The default method from 200 random starts", rows, note)


if __name__ == "__main__":
    main()
