"""How does the cost grow with n, p and the number of hyperparameters? Ten times each, with slopes.

    python benchmarks/scaling.py [--quick]

Sparse logistic regression made for this: each row has 30 entries at uniform places with standard
normal values, labels from a dense model with noise; as many held-out rows. One size grows in steps
while the others stay: n from 1,000 to 100,000 (p = 2,000), p from 1,000 to 100,000 (n = 4,000), m
from 1 to 1,000 (n = 4,000, p = 2,000; coefficient j belongs to λ number j mod m). Every run starts
at λ0 = 0 and ends by the method's own rule. A slope is that of a straight line through the
logarithms: 1 is proportional growth.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from scipy import sparse
from tables import write

import bilevel

SIZES: dict[str, tuple[int, ...]] = {
    "n": (1_000, 10_000, 100_000),
    "p": (1_000, 10_000, 100_000),
    "m": (1, 10, 100, 1_000),
}


def problem_of(n: int, p: int, m: int) -> bilevel.Problem:
    rng = np.random.default_rng(0)
    width = 30
    columns = rng.integers(0, p, (2 * n, width))
    X = sparse.csr_array(
        (
            rng.standard_normal(2 * n * width) / np.sqrt(width),
            columns.reshape(-1),
            np.arange(0, 2 * n * width + 1, width),
        ),
        shape=(2 * n, p),
    )
    X.sum_duplicates()
    score = X @ rng.standard_normal(p)
    y = np.where(score + rng.standard_normal(2 * n) > 0, 1.0, -1.0)
    groups = None if m == 1 else np.arange(p) % m
    return bilevel.logistic_regression(X[:n], y[:n], X[n:], y[n:], groups=groups)


def measure(what: str, n: int, p: int, m: int) -> dict[str, Any]:
    problem = problem_of(n, p, m)
    bilevel.minimize(problem, 0.0, max_iter=1)  # Xᵀ is built at the first product
    clock, wall = time.process_time(), time.perf_counter()
    found = bilevel.minimize(problem, 0.0, max_iter=300)
    cpu, seconds = time.process_time() - clock, time.perf_counter() - wall
    tracemalloc.start()
    bilevel.minimize(problem, 0.0, max_iter=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "grows": what,
        "n": n,
        "p": p,
        "m": m,
        "status": found.status.value,
        "iterations": found.nit,
        "passes": found.passes,
        "column-passes": found.column_passes,
        "CPU s": round(cpu, 4),
        "wall s": round(seconds, 4),
        "memory MiB": round(peak / 2**20, 2),
    }


def slope(sizes: list[float], costs: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two sizes each")
    asked = parser.parse_args()
    rows, notes = [], []
    measure("warm-up", 500, 200, 1)
    for what, sizes in SIZES.items():
        base = {"n": 4_000, "p": 2_000, "m": 1}
        some = [
            measure(what, **(base | {what: size})) for size in (sizes[:2] if asked.quick else sizes)
        ]
        sys.stderr.write(f"{some}\n")
        rows += some
        grown = [float(r[what]) for r in some]
        parts = [
            f"{name} {slope(grown, [float(r[name]) for r in some]):.2f}"
            for name in ("passes", "CPU s", "memory MiB")
        ]
        notes.append(f"Slopes with {what}: {', '.join(parts)}.")
    write("scaling", "How the cost grows", rows, " ".join(notes))


if __name__ == "__main__":
    main()
