"""Launches and host reads a pass of the methods, counted by the stand-in for CuPy.

    python tests/support/launches.py

A model, no measurement: an operation is one launch, whatever it takes on a device, and nothing here
runs on CuPy. What it is good for: to see that a change adds no launch, no read and no copy of X.
The problem is a logistic regression of 400 rows and as many held out, 60 features of which a fifth is
not 0, one λ from λ0 = 0.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import bilevel
from bilevel.design import CSRDesign
from bilevel.inner import linear_model
from bilevel.losses import Logistic
from bilevel.outer import held_out

ROWS, FEATURES = 400, 60
METHODS = ("path", "hoag", "maid")
KINDS = ("dense", "csr")


@dataclass(frozen=True)
class Row:
    """What one search asked of the device, its problem's set-up left out."""

    method: str
    kind: str
    passes: float
    launches: Counter[str]
    reads: Counter[str]
    #: Bytes of the largest copy that was made on the device, and of X.
    largest_copy: int
    design: int

    @property
    def launches_per_pass(self) -> float:
        return self.launches.total() / self.passes

    @property
    def reads_per_pass(self) -> float:
        return self.reads.total() / self.passes


def _data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2 * ROWS, FEATURES)) * (rng.random((2 * ROWS, FEATURES)) < 0.2)
    t = X @ rng.standard_normal(FEATURES) + 0.5 * rng.standard_normal(2 * ROWS)
    return X, np.where(t < 0, -1.0, 1.0)


def _design(X: Any, kind: str, backend: Any) -> Any:
    if kind == "dense":
        return backend.asarray(X)
    rows = sparse.csr_matrix(X)
    parts = (rows.data, rows.indices, rows.indptr, rows.shape)
    return CSRDesign(backend.csr(*parts, backend.xp.float64), backend)


def problem(kind: str, backend: Any) -> bilevel.Problem:
    """The problem with a design of this kind on a backend."""
    X, y = _data()
    halves = (slice(ROWS), slice(ROWS, None))
    inner, outer = ((_design(X[rows], kind, backend), backend.asarray(y[rows])) for rows in halves)
    return bilevel.Problem(linear_model(*inner, Logistic()), held_out(*outer, Logistic()))


@cache
def count(method: str, kind: str) -> Row:
    """Count what a search launches and reads; the stand-in must be on the path."""
    from cupy import _counts

    backend = bilevel.get_backend("cupy")
    searched = problem(kind, backend)
    with _counts.counting() as counts:
        result = bilevel.minimize(searched, backend.asarray(np.zeros(1)), method=method)
    X = _data()[0][:ROWS]
    design = 8 * (X.size if kind == "dense" else int(np.count_nonzero(X)))
    return Row(
        method,
        kind,
        result.costs.passes,
        counts.launches,
        counts.reads,
        counts.largest_copy,
        design,
    )


def main() -> None:
    """Print a row for each method and kind of design."""
    sys.path.insert(0, str(Path(__file__).parent / "cupy_stand_in"))
    sys.stdout.write(
        "| method | X | passes | launches a pass | reads a pass |\n" + "|---" * 5 + "|\n"
    )
    for kind in KINDS:
        for row in (count(method, kind) for method in METHODS):
            sys.stdout.write(
                f"| {row.method} | {kind} | {row.passes:g} | {row.launches_per_pass:.1f} "
                f"| {row.reads_per_pass:.2f} |\n"
            )


if __name__ == "__main__":
    main()
