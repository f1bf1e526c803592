"""What does a linear probe cost? One search beside sweeps of 20 C, one thread, in one run.

    BILEVEL_DATA=folder python benchmarks/probe.py [--quick]

Frozen features of four kinds, float32, multinomial, a free intercept:

* MNIST: random ReLU features of the images (768), 10 classes; 10,000 training rows.
* Embeddings: classes about means in a space whose directions have unlike variances, rows of unit
  length times √p, a tenth of the labels wrong: 10,000 × 768 × 10, 10,000 × 512 × 100 and
  5,000 × 512 × 1,000. They stand for those of a language model (MiniLM has 384 numbers).

Beside `bilevel.probe` (C from 1) are warm sweeps of 20 C from 1e-4 to 1e4: scikit-learn's
`LogisticRegression` (lbfgs, tol 1e-4, warm_start), and torch's `LBFGS` with a strong Wolfe search
(history 10, to a gradient of 1e-3 of the first). Passes of theirs are counted: two an evaluation.
f is the log loss of the held-out rows at a tight fit of the C that each chose, over the best of
all; C is right where that is 1. Seconds are `time.process_time`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tables import write

import bilevel
from bilevel.fitting import fit_tightly
from bilevel.inner import linear_model
from bilevel.losses import Multinomial
from bilevel.outer import held_out

SWEEP = np.geomspace(1e-4, 1e4, 20)


@dataclass(frozen=True)
class Task:
    """Features and labels of both sets."""

    name: str
    X: Any
    y: Any
    X_val: Any
    y_val: Any

    @property
    def n_classes(self) -> int:
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Run:
    """The C that was chosen, and what that cost."""

    C: float
    passes: float
    seconds: float
    status: str


def mnist(n: int = 10_000) -> Task:
    with np.load(Path(os.environ["BILEVEL_DATA"]) / "mnist.npz") as stored:
        images, digits = stored["X_train"].reshape(-1, 784), stored["y_train"]
    rng = np.random.default_rng(0)
    W, b = 2 * rng.standard_normal((784, 768)) / 28, 0.2 * rng.standard_normal(768)
    rows = rng.permutation(len(images))[: n + n // 5]
    X = np.maximum(images[rows] / 255.0 @ W + b, 0).astype(np.float32)
    y = digits[rows].astype(np.int64)
    return Task(f"MNIST, {n:,} × 768 × 10", X[:n], y[:n], X[n:], y[n:])


def embeddings(n: int, p: int, c: int) -> Task:
    rng = np.random.default_rng(c)
    m = n + max(n // 5, 2 * c)
    y = np.concatenate([np.arange(c), rng.integers(0, c, m - c)])
    spread = rng.standard_normal((p, p)) * np.geomspace(1, 0.05, p) / np.sqrt(p)
    X = (0.06 * rng.standard_normal((c, p)))[y] + rng.standard_normal((m, p)) @ spread
    X = (X * (np.sqrt(p) / np.linalg.norm(X, axis=1, keepdims=True))).astype(np.float32)
    wrong = rng.random(m) < 0.1
    wrong[:c] = False
    y = np.where(wrong, rng.integers(0, c, m), y)
    return Task(f"embeddings, {n:,} × {p} × {c:,}", X[:n], y[:n], X[n:], y[n:])


def ours(task: Task) -> Run:
    start = time.process_time()
    found = bilevel.probe(task.X, task.y, task.X_val, task.y_val, max_seconds=600)
    seconds = time.process_time() - start
    return Run(found.C, found.result.passes, seconds, found.result.status.value)


def scikit_learn(task: Task) -> Run:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.utils._testing import ignore_warnings

    model = LogisticRegression(warm_start=True, max_iter=1000)
    scores, passes, start = [], 0.0, time.process_time()
    with ignore_warnings(category=ConvergenceWarning):
        for C in SWEEP:
            model.set_params(C=C).fit(task.X, task.y)
            passes += 2 * 1.05 * int(np.max(model.n_iter_))  # its line search evaluates 5% more
            proba = model.predict_proba(task.X_val)
            scores.append(log_loss(task.y_val, proba, labels=model.classes_))
    seconds = time.process_time() - start
    return Run(float(SWEEP[int(np.argmin(scores))]), passes, seconds, "")


def torch_sweep(task: Task) -> Run:
    import torch

    X, X_val = (torch.as_tensor(a) for a in (task.X, task.X_val))
    y, y_val = (torch.as_tensor(a) for a in (task.y, task.y_val))
    W = torch.zeros((X.shape[1], task.n_classes), requires_grad=True)
    b = torch.zeros(task.n_classes, requires_grad=True)
    loss = torch.nn.functional.cross_entropy
    scores, start = [], time.process_time()
    calls: list[int] = []
    for C in SWEEP:
        _descend(
            W, b, lambda C=C: loss(X @ W + b, y, reduction="sum") + (W * W).sum() / (2 * C), calls
        )
        with torch.no_grad():
            scores.append(float(loss(X_val @ W + b, y_val)))
    seconds = time.process_time() - start
    return Run(float(SWEEP[int(np.argmin(scores))]), 2.0 * len(calls), seconds, "")


def _descend(W: Any, b: Any, f: Callable[[], Any], calls: list[int]) -> None:
    """L-BFGS to a gradient of 1e-3 of the first; a number is appended for each evaluation."""
    import torch

    f().backward()
    goal = 1e-3 * float(max(W.grad.abs().max(), b.grad.abs().max()))
    optimizer = torch.optim.LBFGS(
        [W, b], max_iter=500, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=goal
    )

    def closure() -> Any:
        calls.append(1)
        optimizer.zero_grad()
        value = f()
        value.backward()
        return value

    optimizer.step(closure)


PEERS: dict[str, Callable[[Task], Run]] = {
    "bilevel.probe": ours,
    "scikit-learn, 20 C": scikit_learn,
    "torch LBFGS, 20 C": torch_sweep,
}


def losses(task: Task, chosen: list[float]) -> list[float]:
    """Held-out log loss a row at tight fits, in double precision."""
    X, X_val = (a.astype(np.float64) for a in (task.X, task.X_val))
    loss, mean = Multinomial(task.n_classes), X.mean(0)
    model = linear_model(X - mean, task.y, loss, fit_intercept=True)
    held = held_out(X_val - mean, task.y_val, loss, fit_intercept=True)
    x, found = np.zeros(model.x_shape), {}
    for C in sorted(set(chosen)):
        lam = np.array([-np.log(C)])
        x = fit_tightly(model, lam, x)
        found[C] = float(held.at(x, lam).value) / len(task.y_val)
    return [found[C] for C in chosen]


def measure(task: Task) -> list[dict[str, Any]]:
    runs = {name: run(task) for name, run in PEERS.items()}
    found = losses(task, [run.C for run in runs.values()])
    least = min(found)
    rows = []
    for (name, run), f in zip(runs.items(), found, strict=True):
        row = {"features": task.name, "method": name, "passes": f"{run.passes:.0f}"}
        row |= {"CPU s": f"{run.seconds:.1f}", "C": f"{run.C:.3g}"}
        rows.append(row | {"f / best - 1": f"{f / least - 1:.1e}", "end": run.status})
        print(*rows[-1].values(), sep=" | ", flush=True)
    return rows


def main() -> None:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the rows, no 1,000 classes"
    )
    quick = parser.parse_args().quick
    n = 1000 if quick else 10_000
    tasks = [lambda: mnist(n), lambda: embeddings(n, 768, 10), lambda: embeddings(n, 512, 100)]
    if not quick:
        tasks.append(lambda: embeddings(5000, 512, 1000))
    rows = [row for task in tasks for row in measure(task())]
    write("probe", "A linear probe: one search, or a sweep of 20 C", rows)


if __name__ == "__main__":
    main()
