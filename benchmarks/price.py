"""What does a search cost? Ours beside HOAG, scikit-learn, Optuna and implicit differentiation.

    BILEVEL_DATA=folder python benchmarks/price.py [--quick] [data set ...]

Every method starts at λ0 = 0 where it takes a start, on [-12, 12], one hyperparameter, no
intercept, f the sum of the held-out logistic losses; one thread, one process, one run. A λ counts
from when the method has chosen it: before the work there for a method that follows gradients, after
it for one that has to compare values. f of every iterate is evaluated again by a tight fit
(‖∂_x h‖ ≤ 1e-9 of that at x = 0), off the clock; f* is the minimum of a grid of step ½ and Brent's
method. CPU seconds are `time.process_time`, memory the largest resident set beyond that at
the start of the method.

* HOAG as published here: 50 iterations, exponential and quadratic tolerances.
* LogisticRegressionCV, GridSearchCV: 20 values, defaults (tol 1e-4, 100 iterations), the held-out
  rows as the only fold, scored by log loss, no refit. "refined": again with 20 values between the
  neighbours of the best and a tolerance ten times smaller, until 1e-4 is reached or six times.
* Random search, Optuna (TPE, Gaussian process): 40 fits by L-BFGS (10 pairs) to a gradient of 1e-6
  of the first, each started at the last fitted model, which is a gift.
* Implicit differentiation: SciPy's L-BFGS-B on λ, fits as above, adjoints to 1e-6.
* The tight fit: SciPy's L-BFGS (10 pairs) at λ*, from zero, to a gradient of 1e-6 of the first.

`--quick`: the small data sets, 10 trials.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DATASETS, LARGER, halves
from scipy import optimize, sparse
from solvers import scipy_fit
from tables import write
from truth import Truth

import bilevel
from bilevel.hypergrad import Implicit
from bilevel.methods import HOAG
from bilevel.solvers import LBFGS, solve

LEVELS = (1e-2, 1e-3, 1e-4)
LOW, HIGH = -12.0, 12.0


@dataclass(frozen=True)
class Mark:
    """An iterate, and what had been spent when it was there (passes None where not counted)."""

    lam: float
    passes: int | None
    column_passes: int | None
    cpu: float
    wall: float


class Clock:
    """Counts from its making; what happens in ``off`` is not counted."""

    def __init__(self, problem: bilevel.Problem | None) -> None:
        self.problem = problem
        self.marks: list[Mark] = []
        self._start = self._now()

    def _now(self) -> tuple[int, int, float, float]:
        inner = None if self.problem is None else self.problem.inner
        counts = (0, 0) if inner is None else (inner.passes, inner.column_passes)
        return (*counts, time.process_time(), time.perf_counter())

    def mark(self, lam: float) -> None:
        passes, columns, cpu, wall = (b - a for a, b in zip(self._start, self._now(), strict=True))
        counted = self.problem is not None
        self.marks.append(
            Mark(float(lam), passes if counted else None, columns if counted else None, cpu, wall)
        )


Search = Callable[[Any, int, Callable[[float], float]], list[Mark]]


def ours(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
    return _method("path", data, {})


def hoag(tolerances: str) -> Search:
    def search(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
        return _method(HOAG(tolerances=tolerances), data, {"tol": 0.0, "max_iter": 50})

    return search


def _method(method: Any, data: Any, options: dict[str, Any]) -> list[Mark]:
    problem = bilevel.logistic_regression(*data)
    clock, ends = Clock(problem), []

    def look(record: Any) -> None:
        clock.mark(record.lam[0])
        ends.append(clock.marks[-1])

    bilevel.minimize(problem, 0.0, method=method, callback=look, **options)
    # λ_k was there when the iteration before it ended; the last is the one that is returned.
    chosen = [replace(before, lam=mark.lam) for before, mark in zip(ends, ends[1:], strict=False)]
    return [Mark(ends[0].lam, 0, 0, 0.0, 0.0), *chosen, ends[-1]]


def _stacked(data: Any) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """Training and held-out rows in one, with the one split that tells them apart."""
    X, y, X_val, y_val = data
    both = sparse.vstack([X, X_val], format="csr") if sparse.issparse(X) else np.vstack([X, X_val])
    n = len(y)
    return both, np.concatenate([y, y_val]), [(np.arange(n), np.arange(n, n + len(y_val)))]


def _cv_fit(data: Any, grid: Any, tol: float) -> float:
    from sklearn.linear_model import LogisticRegressionCV

    X, y, split = data
    model = LogisticRegressionCV(
        Cs=np.exp(-grid),
        cv=split,
        scoring="neg_log_loss",
        fit_intercept=False,
        refit=False,
        tol=tol,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    means = np.asarray(next(iter(model.scores_.values())))[0]
    return float(grid[int(np.argmax(means))])


def cv_defaults(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
    stacked = _stacked(data)
    clock = Clock(None)
    clock.mark(_cv_fit(stacked, np.linspace(LOW, HIGH, 20), 1e-4))
    return clock.marks


def cv_refined(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
    stacked, best = _stacked(data), truth.minimum()[1]  # type: ignore[attr-defined]
    low, high, tol, marks = LOW, HIGH, 1e-4, []
    cpu = wall = 0.0
    for _ in range(6):
        clock = Clock(None)
        grid = np.linspace(low, high, 20)
        lam = _cv_fit(stacked, grid, tol)
        clock.mark(lam)
        cpu, wall = cpu + clock.marks[0].cpu, wall + clock.marks[0].wall
        marks.append(Mark(lam, None, None, cpu, wall))
        if truth(lam) / best - 1 <= LEVELS[-1]:
            break
        # A loose fit may choose a wrong value: two neighbours either side stay in.
        spacing = 2 * (high - low) / 19
        low, high, tol = max(lam - spacing, LOW), min(lam + spacing, HIGH), tol / 10
    return marks


def grid_search(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    X, y, split = _stacked(data)
    clock = Clock(None)
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False),
        {"C": np.exp(-np.linspace(LOW, HIGH, 20))},
        cv=split,
        scoring="neg_log_loss",
        refit=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, y)
    clock.mark(-math.log(search.best_params_["C"]))
    return clock.marks


@dataclass
class Fits:
    """Fits to a gradient of 1e-6 of that at x = 0, each started at the last."""

    problem: bilevel.Problem
    x: Any = None

    def __call__(self, lam: Any) -> Any:
        inner = self.problem.inner
        zero = self.problem.x(None)
        goal = 1e-6 * float(np.linalg.norm(inner.at(zero, lam, self._still).grad))
        start = zero if self.x is None else self.x
        tol = goal / inner.constants(lam).mu
        found = solve(inner, lam, start, solver=LBFGS(), tol=tol)
        self.x = found.x
        return found

    @property
    def _still(self) -> Any:
        """X 0, which costs no pass."""
        return np.zeros(self.problem.inner.design.shape[0])


def proposals(name: str) -> Search:
    def search(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
        problem = bilevel.logistic_regression(*data)
        clock, fit = Clock(problem), Fits(problem)
        proposer = PROPOSERS[name]()
        best, kept = math.inf, 0.0
        value = None
        for _ in range(trials):
            lam = proposer.send(value)
            at = np.asarray([lam])
            value = float(problem.outer.at(fit(at).x, at).value)
            if value < best:
                best, kept = value, lam
            clock.mark(kept)
        return clock.marks

    return search


def _random() -> Iterator[float]:
    rng = np.random.default_rng(0)
    yield 0.0
    while True:
        yield float(rng.uniform(LOW, HIGH))


def _optuna(sampler: str) -> Callable[[], Any]:
    def propose() -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = getattr(optuna.samplers, sampler)(seed=0)
        study = optuna.create_study(sampler=chosen)
        study.enqueue_trial({"lam": 0.0})
        while True:
            trial = study.ask()
            value = yield trial.suggest_float("lam", LOW, HIGH)
            study.tell(trial, value)

    return propose


PROPOSERS: dict[str, Callable[[], Any]] = {
    "random search": _random,
    "Optuna TPE": _optuna("TPESampler"),
    "Optuna GP": _optuna("GPSampler"),
}


def implicit(data: Any, trials: int, truth: Callable[[float], float]) -> list[Mark]:
    problem = bilevel.logistic_regression(*data)
    clock, fit = Clock(problem), Fits(problem)
    adjoint: Any = None

    def value_and_grad(lam: Any) -> tuple[float, Any]:
        nonlocal adjoint
        clock.mark(lam[0])
        inner = fit(lam)
        outer = problem.outer.at(inner.x, lam)
        tol = 1e-6 * float(np.linalg.norm(outer.grad_x))
        found = Implicit(precondition=False)(problem, inner, tol=tol, start=adjoint)
        adjoint = found.adjoint
        return float(outer.value), found.value

    options = {"maxcor": 10, "maxiter": 30, "ftol": 1e-9}
    found = optimize.minimize(
        value_and_grad,
        np.zeros(1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(LOW, HIGH)],
        options=options,
    )
    clock.mark(found.x[0])
    return clock.marks


SEARCHES: dict[str, Search] = {
    "ours": ours,
    "HOAG exponential": hoag("exponential"),
    "HOAG quadratic": hoag("quadratic"),
    "implicit + L-BFGS-B": implicit,
    "LogisticRegressionCV": cv_defaults,
    "LogisticRegressionCV refined": cv_refined,
    "GridSearchCV": grid_search,
    **{name: proposals(name) for name in PROPOSERS},
}


def _resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return math.nan


def with_memory(search: Search, *arguments: Any) -> tuple[list[Mark], float]:
    """The marks, and the peak of the resident set beyond its start in MiB (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return search(*arguments), math.nan
    before = _resident("VmRSS")
    marks = search(*arguments)
    return marks, max(_resident("VmHWM") - before, 0.0)


def beyond_the_data(data: Any) -> dict[str, float]:
    """What ours allocates at its peak: in units of x plus those of the rows."""
    problem = bilevel.logistic_regression(*data)
    bilevel.minimize(problem, 0.0, max_iter=1)  # the kernels keep Xᵀ, which belongs to the data
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    bilevel.minimize(problem, 0.0)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    n, p = problem.inner.design.shape
    n_val = data[2].shape[0]
    allowed = 8 * (30 * p + 12 * (n + n_val))
    return {"bytes": peak, "of what is allowed": peak / allowed, "vectors of x": peak / (8 * p)}


def row_of(
    data: str, name: str, marks: list[Mark], truth: Truth, memory: float
) -> tuple[dict[str, Any], list[tuple[Mark, float]]]:
    best = truth.minimum()[1]
    judged = [(m, truth(m.lam) / best - 1) for m in marks]
    row: dict[str, Any] = {"data": data, "method": name}
    for level in LEVELS:
        there = next((m for m, gap in judged if gap <= level), None)
        text = f"{level:.0e}".replace("e-0", "e-")
        row[f"passes to {text}"] = None if there is None else there.passes
        row[f"column-passes to {text}"] = None if there is None else there.column_passes
        row[f"CPU s to {text}"] = None if there is None else round(there.cpu, 4)
        row[f"wall s to {text}"] = None if there is None else round(there.wall, 4)
    last, gap = judged[-1]
    row |= {
        "at its end, f above f*": gap,
        "passes at its end": last.passes,
        "CPU s at its end": round(last.cpu, 4),
        "memory MiB": round(memory, 1),
    }
    return row, judged


def warm_up() -> None:
    """Import what the searches import, and make the first call of each, off the clock."""
    data = halves("breast cancer")
    truth = Truth(bilevel.logistic_regression(*data), relative=1e-3)
    for search in SEARCHES.values():
        search(data, 12, truth)


def measure(name: str, trials: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    data = halves(name)
    truth = Truth(bilevel.logistic_regression(*data))
    lam_best, best = truth.minimum()
    rows, curves = [], {}
    inner = bilevel.logistic_regression(*data).inner
    lam = np.asarray([lam_best])
    goal = 1e-6 * float(np.linalg.norm(inner.at(np.zeros(inner.x_shape), lam).grad))
    _, passes, cpu = scipy_fit(inner, lam, "L-BFGS-B", goal)
    for method, search in SEARCHES.items():
        marks, memory = with_memory(search, data, trials, truth)
        row, judged = row_of(name, method, marks, truth, memory)
        rows.append(row)
        curves[method] = [(m.cpu, gap) for m, gap in judged]
        sys.stderr.write(f"{row}\n")
    facts = {
        "λ*": lam_best,
        "f*": best,
        "tight fit": {"passes": passes, "CPU s": cpu},
        "memory of ours": beyond_the_data(data),
        "curves": curves,
    }
    return rows, facts


def targets(name: str, rows: list[dict[str, Any]], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target as a ratio, and whether it is met."""
    by = {r["method"]: r for r in rows}
    mine, hoag_row = by["ours"], by["HOAG exponential"]

    def line(what: str, ratio: float | None, target: float) -> dict[str, Any]:
        met = "not reached by the other" if ratio is None else "yes" if ratio <= target else "no"
        return {"data": name, "what": what, "measured": ratio, "target": target, "met": met}

    def ratio(a: Any, b: Any) -> float | None:
        return None if a is None or b is None else a / b

    # The authors' public code, measured elsewhere, is faster in passes than HOAG here, which
    # certifies ‖x - X(λ)‖ ≤ ε: a quarter of its passes is the harder target.
    public = {"Reuters": 763, "20 Newsgroups": 1622}.get(name)
    cpu_end = mine["CPU s at its end"]
    default, refined = by["LogisticRegressionCV"], by["LogisticRegressionCV refined"]
    return [
        line(
            "passes to the certified stop / one tight fit",
            ratio(mine["passes at its end"], facts["tight fit"]["passes"]),
            1.5,
        ),
        line(
            "passes to 1e-4 / HOAG's",
            ratio(mine["passes to 1e-4"], hoag_row["passes to 1e-4"]),
            0.25,
        ),
        *(
            []
            if public is None
            else [
                line("passes to 1e-4 / HOAG's public code's", mine["passes to 1e-4"] / public, 0.25)
            ]
        ),
        line(
            "CPU s to 1e-4 / HOAG's", ratio(mine["CPU s to 1e-4"], hoag_row["CPU s to 1e-4"]), 1 / 3
        ),
        line(
            "CPU s to the stop / LogisticRegressionCV's",
            ratio(cpu_end, default["CPU s at its end"]),
            1.0,
        ),
        line(
            "CPU s to 1e-4 / LogisticRegressionCV's, refined",
            ratio(mine["CPU s to 1e-4"], refined["CPU s to 1e-4"]),
            0.1,
        ),
        *(
            line(
                f"CPU s to 1e-3 / {other}'s",
                ratio(mine["CPU s to 1e-3"], by[other]["CPU s to 1e-3"]),
                0.1,
            )
            for other in ("Optuna TPE", "Optuna GP")
        ),
        line(
            "memory beyond the data / allowed", facts["memory of ours"]["of what is allowed"], 1.0
        ),
    ]


def draw(curves: dict[str, dict[str, Any]]) -> None:
    """Suboptimality against CPU seconds, a panel for each data set."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bilevel"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.6), squeeze=False)
    for ax, (name, lines) in zip(axes[0], curves.items(), strict=True):
        for j, (method, points) in enumerate(lines.items()):
            cpu, gap = zip(*points, strict=True)
            ax.plot(
                cpu,
                np.maximum(gap, 1e-8),
                marker="o" if len(points) < 8 else None,
                markersize=4,
                drawstyle="steps-post",
                linewidth=2.2 if method == "ours" else 1.1,
                color=plt.get_cmap("tab10")(j % 10),
                label=method,
            )
        ax.axhline(LEVELS[-1], color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", yscale="log", title=name, xlabel="CPU seconds")
    axes[0, 0].set_ylabel("f above f*, relative")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    folder = Path(__file__).parent / "results"
    figure.savefig(folder / "price.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    names = asked.names or (["breast cancer", "digits"] if asked.quick else [*DATASETS, *LARGER])
    rows, met, curves, notes = [], [], {}, []
    warm_up()
    for name in names:
        found, facts = measure(name, 10 if asked.quick else 40)
        rows += found
        met += targets(name, found, facts)
        curves[name] = facts.pop("curves")
        fit = facts["tight fit"]
        notes.append(
            f"{name}: λ* = {facts['λ*']:.4f}, f* = {facts['f*']:.6g}; one tight fit there "
            f"{fit['passes']} passes, {fit['CPU s']:.3g} CPU s; ours beyond the data "
            f"{facts['memory of ours']['vectors of x']:.1f} vectors of x."
        )
    write("price", "What a search costs", rows, "\n".join(notes) + "\n\n")
    write("targets", "The targets of the default method", met)
    draw(curves)


if __name__ == "__main__":
    main()
