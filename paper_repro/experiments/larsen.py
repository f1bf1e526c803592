"""Larsen, Hansen, Svarer and Ohlsson (1996), and Larsen et al. (1998): adaptive weight decay."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import bilevel
from bilevel.inner import mlp
from bilevel.losses import Multinomial
from bilevel.methods import HOAG, AdaptiveStep
from bilevel.outer import held_out_mlp
from bilevel.schedules import Constant
from bilevel.solvers import LBFGS, solve

from .. import datasets, style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import Budget, own_methods, trace

LOSS = Multinomial(10)
#: Weight decay that is none, for the network without regularisation.
NONE = -12.0


def pooled(data: datasets.Data) -> Any:
    """MNIST at 7 × 7: means of blocks of 4 × 4 pixels."""
    return data.X.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)


def problem_of(parts: Any, hidden: int, backend: Any) -> tuple[bilevel.Problem, Any]:
    """One hidden layer with a weight decay for each layer, and the criterion on test rows."""
    (X, y), *others = ((backend.asarray(A), backend.asarray(b)) for A, b in parts)
    inner = mlp(X, y, LOSS, [hidden])
    outer, test = (held_out_mlp(inner, A, b) for A, b in others)
    return bilevel.Problem(inner, outer, bilevel.Box(-12.0, 6.0)), test


def larsens_rule(steps: int) -> HOAG:
    """Their scheme: a step that raises the validation error is taken back and halved."""
    return HOAG(Constant(1e-4), AdaptiveStep(growth=1.0), max_inner=steps)


def trained(problem: bilevel.Problem, test: Any, lam: Any, seed: int, steps: int) -> Row:
    """Train from the same first weights; losses a row, and errors on the test rows."""
    backend, at = problem.backend, problem.lam([float(v) for v in lam])
    found = solve(
        problem.inner, at, problem.inner.initial(seed), solver=LBFGS(), tol=1e-4, max_iter=steps
    )
    val = problem.outer.at(found.x, at)
    on_test = test.at(found.x, at)
    outputs = backend.to_numpy(test.predictor.at(found.x, at).value)
    labels = backend.to_numpy(test.y)
    value, loss = backend.scalars(val.value, on_test.value)
    return {
        "lam": [float(v) for v in lam],
        "validation": value / problem.outer.y.shape[0],
        "test": loss / labels.shape[0],
        "test_error": float(np.mean(outputs.argmax(axis=1) != labels.argmax(axis=1))),
    }


def run(settings: Settings) -> Results:
    n = settings.pick(600, 200, 30)
    n_test = settings.pick(10_000, 2_000, 100)
    hidden, steps = settings.pick(20, 12, 3), settings.pick(1500, 800, 30)
    train_rows, test_rows = datasets.mnist()
    tables: dict[str, list[Row]] = {"path": [], "grid": [], "end": []}
    for seed in range(settings.seed, settings.seed + settings.pick(3, 3, 1)):
        drawn, held = train_rows.subset(2 * n, seed), test_rows.subset(n_test, seed)
        X, y = pooled(drawn), drawn.y
        parts = ((X[:n], y[:n]), (X[n:], y[n:]), (pooled(held), held.y))
        problem, test = problem_of(parts, hidden, settings.backend)
        x0 = problem.inner.initial(seed)
        budget = Budget(
            settings.pick(40_000, 12_000, 400), settings.pick(60.0, 60.0, 2.0),
            settings.pick(100, 30, 3),
        )  # fmt: skip
        for name in ("adaptive", *own_methods()):
            method = larsens_rule(steps) if name == "adaptive" else name
            rows = trace(problem, method, budget, lam0=-4.0, x0=x0)
            for row in rows:
                row["validation"] = row.pop("measured") / n
            tables["path"] += [{"seed": seed, "method": name, **row} for row in rows]
            # The network that the adaptive scheme ends with is retrained from the first weights.
            end = trained(problem, test, rows[-1]["lam"], seed, steps)
            tables["end"].append({"seed": seed, "method": name, **end})
        plain = trained(problem, test, [NONE, NONE], seed, steps)
        tables["end"].append({"seed": seed, "method": "no weight decay", **plain})
        axis = np.linspace(-8.0, 4.0, settings.pick(7, 5, 2))
        for lam in product(axis, axis):
            found = trained(problem, test, lam, seed, steps)
            tables["grid"].append({"seed": seed, **found})
    return Results(tables, {"train": n, "hidden": hidden})


def draw(results: Results) -> dict[str, Any]:
    figure, axes = style.panels(1, 3, width=4.2, height=3.5)
    left, middle, right = axes[0]
    path, grid = results.tables["path"], results.tables["grid"]
    seeds = list(dict.fromkeys(row["seed"] for row in path))
    for method in dict.fromkeys(row["method"] for row in path):
        for i, seed in enumerate(seeds):
            rows = [r for r in path if r["seed"] == seed and r["method"] == method]
            left.plot(
                [r["k"] for r in rows],
                [r["validation"] for r in rows],
                label=style.label(method) if i == 0 else None,
                markevery=style.every(len(rows)),
                alpha=0.8,
                **style.look(method),
            )
    left.set(xlabel="outer iteration", ylabel="validation loss a row", title="Adaptation")
    left.legend()
    mean: dict[tuple[float, ...], list[float]] = {}
    for row in grid:
        mean.setdefault(tuple(row["lam"]), []).append(row["validation"])
    axis = sorted({lam[0] for lam in mean})
    surface = [[np.log(np.mean(mean[a, b])) for a in axis] for b in axis]
    shades = middle.contourf(axis, axis, surface, 14, cmap="cividis")
    middle.grid(visible=False)
    figure.colorbar(shades, ax=middle, label="log validation loss of the grid (mean)")
    rows = [r for r in path if r["seed"] == seeds[0] and r["method"] == "adaptive"]
    middle.plot(
        [r["lam"][0] for r in rows], [r["lam"][1] for r in rows], "-o", color="white", ms=3, lw=1.4
    )
    middle.plot(*rows[-1]["lam"], "*", color=style.RED, ms=13, mec="white")
    middle.set(xlabel="λ of the first layer", ylabel="λ of the second layer", title="Path of λ")
    ends = results.tables["end"]
    names = list(dict.fromkeys(r["method"] for r in ends))
    best = [min(r["test"] for r in grid if r["seed"] == s) for s in seeds]
    columns = [[r["test"] for r in ends if r["method"] == name] for name in names] + [best]
    labels = [style.label(n) if n != "no weight decay" else "no weight\ndecay" for n in names]
    labels.append("best of the grid\n(by test loss)")
    for i, column in enumerate(columns):
        right.plot([i] * len(column), column, "o", color=style.BLUE, alpha=0.6)
        right.plot([i - 0.25, i + 0.25], [np.median(column)] * 2, color=style.BLACK)
    right.set(yscale="log", ylabel="test loss a row", title="After training")
    right.set_xticks(range(len(labels)), labels, fontsize=8)
    return {"larsen": figure}


def verdict(results: Results) -> Verdict:
    ends, grid, path = (results.tables[name] for name in ("end", "grid", "path"))
    seeds = list(dict.fromkeys(row["seed"] for row in ends))

    def median(method: str, column: str) -> float:
        return float(np.median([r[column] for r in ends if r["method"] == method]))

    best = float(np.median([min(r["validation"] for r in grid if r["seed"] == s) for s in seeds]))
    checks = []
    for method in dict.fromkeys(row["method"] for row in path):
        name, claimed = style.label(method), method not in own_methods()
        first = float(
            np.median([r["validation"] for r in path if r["method"] == method and r["k"] == 1])
        )
        checks += [
            Check(
                f"{name}: adapting the weight decays lowers the validation loss",
                f"{first:.3f} at the start, {median(method, 'validation'):.3f} at the end "
                "(trained anew)",
                median(method, "validation") < first,
                claimed,
            ),
            Check(
                f"{name}: the network generalises better than without weight decay",
                f"test loss a row {median(method, 'test'):.3f} against "
                f"{median('no weight decay', 'test'):.3f}, errors "
                f"{median(method, 'test_error'):.1%} against "
                f"{median('no weight decay', 'test_error'):.1%}",
                median(method, "test") < median("no weight decay", "test"),
                claimed,
            ),
            Check(
                f"{name}: it comes within 10% of the best of a grid",
                f"validation loss a row {median(method, 'validation'):.3f}, grid {best:.3f}",
                median(method, "validation") < 1.1 * best,
                claimed,
            ),
        ]
    return Verdict(tuple(checks))


EXPERIMENT = Experiment(
    name="larsen",
    title="Adaptive weight decay of a small neural network",
    paper="Larsen, Hansen, Svarer and Ohlsson 1996; Larsen et al. 1998",
    claims=(
        "Weight decays of a neural network, one for each layer, are adapted by the gradient of "
        "the validation error; the network then generalises better than an unregularised one."
    ),
    setting=(
        "Their data (vowels, time series) are replaced by MNIST at 7 × 7 pixels, few rows; one "
        "hidden layer of tanh units, λ₀ = −4 for both layers. The objective is not convex: no "
        "bounds are certified, and every result is from training anew from the same first weights."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
