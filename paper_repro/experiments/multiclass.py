"""HOAG, multinomial regression with one hyperparameter for each weight: 7,840 on MNIST."""

from __future__ import annotations

from typing import Any

import numpy as np

import bilevel
from bilevel.hypergrad import Implicit
from bilevel.inner import linear_model
from bilevel.losses import Multinomial
from bilevel.methods import HOAG
from bilevel.outer import held_out

from .. import datasets, style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import Budget, Truth, own_methods, trace
from ._comparison import grouped

CLASSES = 10
#: Iterations of L-BFGS and of CG in one outer iteration.
MAX_INNER = 150


def problem_of(
    train: datasets.Data, val: datasets.Data, groups: Any, backend: Any
) -> bilevel.Problem:
    """Multinomial regression, one λ for all weights or one for each."""
    loss = Multinomial(CLASSES)
    inner = linear_model(
        datasets.design(train.X, backend), backend.asarray(train.y), loss, groups=groups
    )
    outer = held_out(datasets.design(val.X, backend), backend.asarray(val.y), loss)
    return bilevel.Problem(inner, outer, bilevel.Box(-12.0, 12.0))


def run(settings: Settings) -> Results:
    n = settings.pick(1_500, 1_000, 60)
    train_rows, test_rows = datasets.mnist()
    drawn = train_rows.subset(2 * n, settings.seed)
    train = datasets.Data("MNIST", drawn.X[:n], drawn.y[:n])
    val = datasets.Data("MNIST", drawn.X[n:], drawn.y[n:])
    test = test_rows.subset(settings.pick(10_000, 2_000, 100), settings.seed)
    budget = Budget(
        settings.pick(8_000, 6_000, 500),
        settings.pick(240.0, 120.0, 3.0),
        settings.pick(60, 60, 3),
    )
    rows: list[Row] = []
    facts: dict[str, Any] = {"rows": n}
    weights: list[Row] = []
    for method in ("hoag", *own_methods()):
        for groups, name in ((None, "one λ"), ("each", "one λ each")):
            problem = problem_of(train, val, groups, settings.backend)
            found, lam = _follow(problem, method, budget, test)
            rows += [{"data": name, "method": method, "seed": settings.seed, **r} for r in found]
            if groups == "each":
                facts["hyperparameters"] = int(lam.shape[0])
                weights += [
                    {"method": method, "weight": j, "lam": float(v)} for j, v in enumerate(lam)
                ]
    facts["blank"] = [bool(b) for b in (train.X == 0).all(axis=0)]
    return Results({"trace": rows, "lambda": weights}, facts)


def limited(method: str) -> Any:
    """HOAG with a limit on the inner work of one iteration, which small λ would let explode."""
    if method != "hoag":
        return method
    return HOAG(max_inner=MAX_INNER, hypergradient=Implicit(max_iter=MAX_INNER))


def _follow(
    problem: bilevel.Problem, method: str, budget: Budget, test: datasets.Data
) -> tuple[list[Row], Any]:
    """Run a method; measure f and the test loss at some iterates by tight fits."""
    backend = problem.backend
    test_loss = held_out(
        datasets.design(test.X, backend), backend.asarray(test.y), Multinomial(CLASSES)
    )
    rows = trace(problem, limited(method), budget)
    truth = Truth(problem, test_loss, relative=1e-6)
    chosen = sorted({0, *np.unique(np.geomspace(1, len(rows), 12).astype(int) - 1), len(rows) - 1})
    kept = []
    for index in chosen:
        row = rows[index]
        f, loss = truth(row["lam"])
        kept.append({**row, "f": f, "test_loss": loss})
    lam = np.array(kept[-1]["lam"])
    x = backend.to_numpy(truth.model(rows[-1]["lam"]))
    kept[-1]["test_error"] = float(np.mean((test.X @ x).argmax(axis=1) != test.y))
    n_val, n_test = problem.outer.y.shape[0], len(test.y)
    for row in kept:
        row["f"], row["test_loss"] = row["f"] / n_val, row["test_loss"] / n_test
        del row["lam"]
    return kept, lam


def draw(results: Results) -> dict[str, Any]:
    rows = results.tables["trace"]
    figure, axes = style.panels(1, 2, height=3.5)
    dashes = {"one λ": (0, (4, 2)), "one λ each": "-"}
    for ax, column, text in (
        (axes[0, 0], "f", "validation loss a row"),
        (axes[0, 1], "test_loss", "test loss a row"),
    ):
        for name, methods in grouped(rows).items():
            for method, seeds in methods.items():
                (line,) = seeds.values()
                options = {**style.look(method), "linestyle": dashes[name]}
                ax.plot(
                    [r["seconds"] for r in line],
                    [r[column] for r in line],
                    label=f"{style.label(method)}, {name}",
                    **options,
                )
        ax.set(xscale="log", xlabel="seconds", ylabel=text)
        ax.set_title("Validation" if column == "f" else "Test")
    style.legend_below(figure, axes, 2)
    return {"a_loss": figure, "b_lambda": _maps(results)}


def _maps(results: Results) -> Any:
    """λ of the ten classes as pictures; pixels that are always blank are left out."""
    method = list(dict.fromkeys(row["method"] for row in results.tables["lambda"]))[-1]
    lam = np.array([r["lam"] for r in results.tables["lambda"] if r["method"] == method])
    lam = lam.reshape(-1, CLASSES)
    lam = np.where(np.array(results.facts["blank"])[:, None], np.nan, lam)
    figure, axes = style.panels(2, 5, width=1.9, height=1.75)
    bound = float(np.nanquantile(np.abs(lam), 0.99)) or 1.0
    for digit, ax in enumerate(axes.ravel()):
        image = ax.imshow(lam[:, digit].reshape(28, 28), cmap="PuOr", vmin=-bound, vmax=bound)
        ax.set(xticks=[], yticks=[], title=str(digit))
        ax.grid(visible=False)
        ax.set_facecolor("#e8eaed")
    bar = figure.colorbar(image, ax=axes.ravel().tolist(), shrink=0.8)
    bar.set_label(f"λ after {style.label(method)}\n(high: weight held at 0)")
    return figure


def verdict(results: Results) -> Verdict:
    checks = []
    ends: dict[tuple[str, str], Row] = {}
    for name, methods in grouped(results.tables["trace"]).items():
        for method, seeds in methods.items():
            (line,) = seeds.values()
            ends[method, name] = line[-1]
            if name == "one λ each":
                checks.append(
                    Check(
                        f"{style.label(method)} optimises {results.facts['hyperparameters']:,} "
                        "hyperparameters",
                        f"validation loss a row {line[0]['f']:.4f} to {line[-1]['f']:.4f} in "
                        f"{line[-1]['passes']} passes, {line[-1]['seconds']:.0f} s",
                        line[-1]["f"] < 0.98 * line[0]["f"],
                        claimed=method not in own_methods(),
                    )
                )
    for method in dict.fromkeys(method for method, _ in ends):
        one, each = ends[method, "one λ"], ends[method, "one λ each"]
        name = style.label(method)
        checks += [
            Check(
                f"{name}: one λ for each weight fits the validation rows better than one for all",
                f"validation loss a row {each['f']:.4f} against {one['f']:.4f}",
                each["f"] < one["f"],
                claimed=method not in own_methods(),
            ),
            Check(
                f"{name}: that carries over to the test rows",
                f"test loss a row {each['test_loss']:.4f} against {one['test_loss']:.4f}, errors "
                f"{each['test_error']:.2%} against {one['test_error']:.2%}",
                each["test_loss"] < one["test_loss"],
                claimed=False,
            ),
        ]
    return Verdict(tuple(checks))


EXPERIMENT = Experiment(
    name="multiclass",
    title="7,840 hyperparameters: one for each weight",
    paper="Pedregosa 2016, section 4, multinomial regression on MNIST",
    claims=(
        "The gradient makes thousands of hyperparameters feasible: one regularisation constant "
        "for each of the 784 × 10 weights, where a search has no chance."
    ),
    setting=(
        "Multinomial logistic regression on random rows of MNIST, as many to train as to "
        "validate; λ₀ = 0, box [−12, 12], at most 150 iterations of L-BFGS and of CG in an outer "
        "iteration. Beside it the same with one λ for all weights. f and "
        "the test loss by tight fits at a dozen iterates."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
