"""Searches from several starts at once beside the same searches one after the other.

    BILEVEL_DATA=folder python benchmarks/multistart.py [--starts 8] [--repeats 2]

ℓ2 logistic regression of half of the rows, the other half held out. The starts are the
middles of equal intervals of the box, every inner solve starts at x = 0, and the tolerances are
the methods' own. "apart" adds up the searches one after the other; the searches together can make
no fewer passes than the longest of them (but for rounding, which may shorten it), and no fewer than
an eighth of all columns, since eight make a pass. CPU seconds are the least of ``--repeats`` runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from datasets import halves, mnist_odd
from tables import write

import bilevel

BOXES = {"[-12, 12]": (-12.0, 12.0), "[-4, 8]": (-4.0, 8.0)}


def digits() -> tuple[Any, Any, Any, Any]:
    """MNIST, odd or even, 4,000 rows to train and as many held out: larger than the caches."""
    X, y = mnist_odd(8000)
    return X[:4000], y[:4000], X[4000:], y[4000:]


DATA: dict[str, Callable[[], tuple[Any, Any, Any, Any]]] = {
    "breast cancer": lambda: halves("breast cancer"),
    "Reuters": lambda: halves("Reuters"),
    "MNIST, 4,000 rows": digits,
}


def least(repeats: int, call: Callable[[], Any]) -> tuple[Any, float]:
    """What the call returns, and the CPU seconds of its fastest run."""
    seconds = []
    for _ in range(repeats):
        clock = time.process_time()
        found = call()
        seconds.append(time.process_time() - clock)
    return found, min(seconds)


def row(name: str, box: str, method: str, n: int, repeats: int) -> dict[str, Any]:
    low, high = BOXES[box]
    problem = bilevel.logistic_regression(*DATA[name](), domain=bilevel.Box(low, high))
    x0 = problem.x(None)
    starts = [low + (high - low) * (s + 0.5) / n for s in range(n)]
    options: dict[str, Any] = {"method": method, "max_iter": 100}
    together, shared_seconds = least(repeats, lambda: bilevel.multistart(problem, n, **options))
    apart, seconds = least(
        repeats, lambda: [bilevel.minimize(problem, lam, x0=x0, **options) for lam in starts]
    )
    passes = sum(result.passes for result in apart)
    outer = sum(result.outer_passes for result in apart)
    off = max(
        abs(float(a.lam[0]) - float(b.lam[0])) for a, b in zip(apart, together.results, strict=True)
    )
    return {
        "data": name,
        "box": box,
        "method": method,
        "starts": n,
        "passes apart": passes,
        "together": together.passes,
        "together / apart": together.passes / passes,
        "longest search": max(result.passes for result in apart),
        "columns / 8": together.column_passes / 8,
        "held-out passes, together / apart": together.outer_passes / outer,
        "CPU s apart": round(seconds, 2),
        "CPU s together": round(shared_seconds, 2),
        "largest difference of λ": off,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    rows = [
        row(name, box, method, asked.starts, asked.repeats)
        for name in DATA
        for method in ("path", "hoag")
        for box in BOXES
        if name != "MNIST, 4,000 rows" or box == "[-4, 8]"
    ]
    write("multistart", "Searches from several starts at once", rows)


if __name__ == "__main__":
    main()
