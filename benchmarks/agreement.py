"""The same HOAG run on every array library that is here: do the iterates agree?

    JAX_ENABLE_X64=1 python benchmarks/agreement.py

Breast cancer, standardised, half held out, 20 iterations from λ = 0. In float64 the largest
difference of λ_k from NumPy's dense run over all k; in float32 that of λ* from float64's.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")

from typing import Any

import numpy as np
from datasets import halves
from scipy import sparse
from tables import write

import bilevel

RUNS = [
    ("numpy", False),
    ("numpy", True),
    ("torch", False),
    ("torch", True),
    ("jax", False),
    ("array_api_strict", False),
    ("dpnp", False),
    ("cupy", False),
    ("cupy", True),
]


def problem_on(backend: Any, dtype: str, *, csr: bool) -> bilevel.Problem:
    kind, arrays = getattr(backend.xp, dtype), []
    for array in halves("breast cancer"):
        if csr and array.ndim == 2:
            rows = sparse.csr_array(array.astype(dtype))
            kernel = backend.csr(rows.data, rows.indices, rows.indptr, rows.shape, dtype=kind)
            arrays.append(bilevel.design.CSRDesign(kernel, backend))
        else:
            arrays.append(backend.asarray(array.astype(dtype), dtype=kind))
    return bilevel.logistic_regression(*arrays)


def path(backend: Any, *, csr: bool) -> Any:
    problem = problem_on(backend, "float64", csr=csr)
    result = bilevel.minimize(problem, method="hoag", max_iter=20, tol=0.0)
    return np.stack([backend.to_numpy(record.lam) for record in result.history])


def solution(backend: Any, dtype: str, *, csr: bool) -> float:
    problem = problem_on(backend, dtype, csr=csr)
    result = bilevel.minimize(problem, method="hoag", max_iter=100)
    return float(backend.to_numpy(result.lam)[0])


def main() -> None:
    numpy = bilevel.get_backend("numpy")
    reference, best, rows = path(numpy, csr=False), solution(numpy, "float64", csr=False), []
    for name, csr in RUNS:
        row: dict[str, Any] = {"arrays": f"{name}, {'CSR' if csr else 'dense'}"}
        try:
            backend = bilevel.get_backend(name)
        except bilevel.BackendUnavailableError as error:
            rows.append(
                {
                    **row,
                    "float64: max |λ_k - NumPy's|": "not here",
                    "float32: |λ* - λ*₆₄|": str(error),
                }
            )
            continue
        difference = float(np.abs(path(backend, csr=csr) - reference).max())
        single = abs(solution(backend, "float32", csr=csr) - best)
        rows.append(
            {**row, "float64: max |λ_k - NumPy's|": difference, "float32: |λ* - λ*₆₄|": single}
        )
    write("agreement", "One run on every array library", rows)


if __name__ == "__main__":
    main()
