"""Products with X against memory bandwidth: which kernel serves the NumPy backend best.

    python benchmarks/bandwidth.py [--repeats 30] [--out benchmarks/results]

Times X @ V and Xᵀ @ R for 1, 2, 3, 4 and 8 columns (C-ordered, as the package hands them over)
by every kernel that is installed, and a STREAM-like copy with as many threads. Real data is read
from the folder BILEVEL_DATA (see ``bilevel datasets``); without it a random matrix of the same
shape stands in, and the table says so.

The bytes of a product are those that it must move at least: the matrix once, the operand and the
result once for each column. "Fraction" is bytes a second over those of the copy; it may pass 1
where the matrix stays in the last-level cache, so one matrix is larger than any cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from bilevel.backends._host_csr import _mkl_product, _MKLRows, _n_threads, _ThreadedRows

COLUMNS = (1, 2, 3, 4, 8)
Product = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    matrix: str
    product: str
    kernel: str
    columns: int
    milliseconds: float
    gigabytes_per_second: float
    fraction_of_copy: float


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """The best time of ``run``, as STREAM counts, after one call to warm up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def copy_bandwidth(repeats: int, n_bytes: int = 1 << 28) -> float:
    """Bytes read and written a second by a copy that no cache holds, on every thread."""
    source, target = np.ones(n_bytes // 8), np.zeros(n_bytes // 8)
    n = _n_threads()
    parts = list(zip(np.array_split(target, n), np.array_split(source, n), strict=True))
    with ThreadPoolExecutor(n) as pool:
        return (
            2 * n_bytes / seconds(lambda: list(pool.map(lambda p: np.copyto(*p), parts)), repeats)
        )


# -- kernels: each takes a CSR matrix and returns its product ------------------------------------


def scipy_kernel(matrix: sparse.csr_array) -> Product:
    return matrix.__matmul__


def numba_kernel(matrix: sparse.csr_array) -> Product:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def one(data, indices, indptr, v, out):  # type: ignore[no-untyped-def]
        for i in numba.prange(out.shape[0]):
            total = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                total += data[e] * v[indices[e]]
            out[i] = total

    @numba.njit(parallel=True, fastmath=True)
    def many(data, indices, indptr, v, out):  # type: ignore[no-untyped-def]
        k = v.shape[1]
        for i in numba.prange(out.shape[0]):
            out[i, :] = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                for c in range(k):
                    out[i, c] += data[e] * v[indices[e], c]

    def product(v: Any) -> Any:
        out = np.empty((matrix.shape[0], *v.shape[1:]))
        kernel = one if v.ndim == 1 else many
        kernel(matrix.data, matrix.indices, matrix.indptr, v, out)
        return out

    return product


def torch_kernel(matrix: sparse.csr_array) -> Product:
    import torch

    from bilevel import get_backend

    kernel = get_backend("torch", device="cpu").csr(
        matrix.data, matrix.indices, matrix.indptr, matrix.shape, torch.float64
    )
    return lambda v: kernel.matmul(torch.from_numpy(v))


def sparse_kernels() -> dict[str, Callable[[sparse.csr_array], Product]]:
    """Every kernel that can be run here."""
    found: dict[str, Callable[[sparse.csr_array], Product]] = {
        "SciPy": scipy_kernel,
        "SciPy, threaded": _ThreadedRows,
    }
    if _mkl_product() is not None:
        found["MKL"] = _MKLRows
    for name, module, kernel in (
        ("numba", "numba", numba_kernel),
        ("torch", "torch", torch_kernel),
    ):
        try:
            __import__(module)
        except ImportError:
            continue
        found[name] = kernel
    return found


# -- data ----------------------------------------------------------------------------------------


def text_matrices() -> Iterator[tuple[str, sparse.csr_array]]:
    """Text in CSR: two real matrices, and one that no cache holds."""
    folder = os.environ.get("BILEVEL_DATA")
    if folder is None:
        random = sparse.random_array(
            (11_314, 130_107), density=1.2e-3, format="csr", rng=np.random.default_rng(0)
        )
        yield "random, shape of 20 Newsgroups", random
        yield "random, 6 times", sparse.vstack([random] * 6, format="csr")
        return
    with np.load(Path(folder) / "reuters21578_earn_counts.npz") as file:
        yield "Reuters", _csr(file, "X_train")
    with np.load(Path(folder) / "20news_vectorized.npz") as file:
        news = _csr(file, "X_train")
    yield "20 Newsgroups", news
    yield "20 Newsgroups, 6 times", sparse.vstack([news] * 6, format="csr")


def _csr(file: Any, name: str) -> sparse.csr_array:
    parts = (
        file[f"{name}_data"].astype(np.float64),
        file[f"{name}_indices"],
        file[f"{name}_indptr"],
    )
    return sparse.csr_array(parts, shape=tuple(file[f"{name}_shape"]))


def dense_matrix() -> tuple[str, Any]:
    """20,000 rows of MNIST: larger than any cache."""
    folder = os.environ.get("BILEVEL_DATA")
    if folder is None:
        return "random, 20,000 × 784", np.random.default_rng(0).random((20_000, 784))
    with np.load(Path(folder) / "mnist.npz") as file:
        name = next(key for key in file.files if file[key].size >= 20_000 * 784)
        pixels = file[name][:20_000]
    return "MNIST, 20,000 rows", pixels.reshape(20_000, -1).astype(np.float64)


# -- the measurement -----------------------------------------------------------------------------


def operand(n: int, k: int) -> Any:
    rng = np.random.default_rng(k)
    return rng.standard_normal(n) if k == 1 else rng.standard_normal((n, k))


def measure(
    name: str, product: str, kernel: str, multiply: Product, X: Any, copy: float, repeats: int
) -> Iterator[Row]:
    """Time one kernel for each number of columns."""
    if sparse.issparse(X):
        matrix_bytes = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    else:
        matrix_bytes = X.nbytes
    for k in COLUMNS:
        v = operand(X.shape[1], k)
        elapsed = seconds(lambda v=v: multiply(v), repeats)  # type: ignore[misc]
        rate = (matrix_bytes + 8 * k * sum(X.shape)) / elapsed
        yield Row(name, product, kernel, k, elapsed * 1e3, rate / 1e9, rate / copy)


def run(repeats: int) -> tuple[dict[str, Any], list[Row]]:
    """Measure everything; returns what machine it was, and the rows of the table."""
    copy = copy_bandwidth(repeats)
    machine = {
        "processor": _processor(),
        "threads": _n_threads(),
        "copy_gigabytes_per_second": round(copy / 1e9, 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load before": _load(),
        "data": "real" if os.environ.get("BILEVEL_DATA") else "random (BILEVEL_DATA is not set)",
    }
    rows: list[Row] = []
    for name, X in text_matrices():
        transposed = X.T.tocsr()
        for kernel, build in sparse_kernels().items():
            rows += measure(name, "X @ V", kernel, build(X), X, copy, repeats)
            rows += measure(name, "Xᵀ @ R", kernel, build(transposed), transposed, copy, repeats)
    name, X = dense_matrix()
    rows += measure(name, "X @ V", "BLAS of NumPy", X.__matmul__, X, copy, repeats)
    rows += measure(name, "Xᵀ @ R", "BLAS of NumPy", X.T.__matmul__, X.T, copy, repeats)
    return machine, rows


def _load() -> str:
    """Other processes at work: on a busy machine the figures say little."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    real_time = hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER
    if real_time:  # chrt -f 10 python ...: other processes wait
        return f"{load:.1f} on {cores} cores, measured at real-time priority"
    return f"{load:.1f} on {cores} cores" + (" (busy: measure again)" if load > cores / 2 else "")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def markdown(machine: dict[str, Any], rows: list[Row]) -> str:
    """One line a kernel, one column a number of right-hand sides: milliseconds and fraction."""
    lines = [
        "# Products with X against memory bandwidth",
        "",
        "Written by `python benchmarks/bandwidth.py`. Each cell: milliseconds (best time), and",
        "bytes a second over those of a STREAM-like copy.",
        "",
        *(f"- {key.replace('_', ' ')}: {value}" for key, value in machine.items()),
        "",
        "| matrix | product | kernel | " + " | ".join(f"k = {k}" for k in COLUMNS) + " |",
        "|" + " --- |" * (3 + len(COLUMNS)),
    ]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.matrix, row.product, row.kernel), []).append(row)
    for key, group in groups.items():
        cells = [f"{row.milliseconds:.2f} ({row.fraction_of_copy:.2f})" for row in group]
        lines.append("| " + " | ".join([*key, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    machine, rows = run(options.repeats)
    table = markdown(machine, rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bandwidth.md").write_text(table)
    record = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (options.out / "bandwidth.json").write_text(json.dumps(record, indent=1, ensure_ascii=False))
    print(table)


if __name__ == "__main__":
    main()
