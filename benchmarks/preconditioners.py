"""What keeping something of the Hessian is worth: passes and CPU seconds of the default method.

    BILEVEL_DATA=folder python benchmarks/preconditioners.py [--repeats 3] [data set ...]

ℓ2 logistic regression of half of the rows, the other half held out, from λ0 = 0 to the certified
end, at most 50 iterations. With one λ: no preconditioner, a Nyström sketch of rank 10, and 4, 8 and
16 pairs. With several λ, or a free intercept: no pairs, 4, 8 and 16. The λ belong to as many equal
blocks of columns, one after the other. CPU seconds are the least of ``--repeats`` runs in a process.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import halves
from tables import write

import bilevel
from bilevel.methods import PathFollowing

ONE = {
    "none": PathFollowing(rank=0, pairs=0),
    "Nyström, rank 10": PathFollowing(worth=0),
    "4 pairs": PathFollowing(rank=0, pairs=4, worth=0),
    "8 pairs": PathFollowing(rank=0, pairs=8, worth=0),
    "16 pairs": PathFollowing(rank=0, pairs=16, worth=0),
    "chosen": PathFollowing(),
}
SEVERAL = {name: method for name, method in ONE.items() if "Nyström" not in name}
SETS = ("Reuters", "20 Newsgroups", "breast cancer", "digits", "wine", "diabetes")
SMALL = {"breast cancer": (2, 3, 5, 10), "digits": (2, 3, 5, 10), "wine": (3,), "diabetes": (3,)}
FREE = ("breast cancer", "digits")


def cell(problem: Any, method: PathFollowing, repeats: int) -> str:
    """Passes and CPU seconds, and the status where it is not "converged"."""
    seconds = math.inf
    for _ in range(repeats):
        clock = time.process_time()
        found = bilevel.minimize(problem, method=method)
        seconds = min(seconds, time.process_time() - clock)
    ended = "" if found.success else f", {found.status.value}"
    return f"{found.passes} / {seconds:.3f}{ended}"


def several(names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Problems with several hyperparameters, or with a free intercept."""
    for name in names:
        data = halves(name)
        for m in SMALL.get(name, ()):
            p = data[0].shape[1]
            groups = np.arange(p) * m // p
            yield f"{name}, {m}", bilevel.logistic_regression(*data, groups=groups)
    for name in (name for name in FREE if name in names):
        problem = bilevel.logistic_regression(*halves(name), fit_intercept=True)
        yield f"{name}, intercept", problem


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", default=SETS)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    names = tuple(asked.names)
    tables: tuple[tuple[str, str, Any, Any], ...] = (
        ("preconditioners_one", "One λ", ONE, ((n, problem_of(n)) for n in names)),
        ("preconditioners", "Several λ, or a free intercept", SEVERAL, several(names)),
    )
    for file, title, methods, problems in tables:
        rows = [
            {"data": name} | {m: cell(problem, methods[m], asked.repeats) for m in methods}
            for name, problem in problems
        ]
        if rows:
            write(file, title, rows, "Passes over the training rows / CPU seconds.")


def problem_of(name: str) -> Any:
    """One hyperparameter, no intercept."""
    return bilevel.logistic_regression(*halves(name))


if __name__ == "__main__":
    main()
