"""Bengio (2000): the gradient through the Cholesky factor of a quadratic inner problem."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import bilevel
from bilevel.hypergrad import Direct
from bilevel.inner import linear_model
from bilevel.losses import Squared
from bilevel.methods import HOAG
from bilevel.outer import held_out
from bilevel.solvers import NewtonCG, solve

from .. import style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import Budget, host, own_methods, trace

RELEVANT = 5


def sample(p: int, n: int, seed: int) -> tuple[tuple[Any, Any], ...]:
    """Training, validation and test rows of a linear truth of which 5 inputs matter."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(p)
    truth[:RELEVANT] = rng.choice([-1.0, 1.0], RELEVANT) * rng.uniform(0.5, 1.5, RELEVANT)
    parts = []
    for rows in (n, n, 2000):
        X = rng.standard_normal((rows, p))
        parts.append((X, X @ truth + rng.standard_normal(rows)))
    return tuple(parts)


def problem_of(parts: Any, groups: Any, backend: Any) -> bilevel.Problem:
    """Ridge regression with one weight decay, or one for each input."""
    (X, y), (X_val, y_val) = ((backend.asarray(A), backend.asarray(b)) for A, b in parts[:2])
    inner = linear_model(X, y, Squared(), groups=groups)
    return bilevel.Problem(inner, held_out(X_val, y_val, Squared()), bilevel.Box(-12.0, 12.0))


def solved(problem: bilevel.Problem, lam: Any) -> Any:
    return solve(problem.inner, lam, problem.x(None), solver=NewtonCG(), tol=1e-11)


def value(problem: bilevel.Problem, lam: Any) -> float:
    """f(λ)."""
    x = solved(problem, lam).x
    return problem.backend.scalars(problem.outer.at(x, lam).value)[0]


def run(settings: Settings) -> Results:
    p, n = settings.pick(30, 30, 6), settings.pick(60, 60, 20)
    tables: dict[str, list[Row]] = {"gradient": [], "cost": [], "error": [], "lambda": []}
    backend = settings.backend
    problem = problem_of(sample(p, n, settings.seed), "each", backend)
    at = np.linspace(-2.0, 2.0, p)
    lam = problem.lam([float(v) for v in at])
    exact = host(problem, Direct()(problem, solved(problem, lam), tol=0.0).value)
    for j in range(p):
        step = 1e-4 * np.eye(p)[j]
        ahead, back = (
            value(problem, problem.lam([float(v) for v in at + s])) for s in (step, -step)
        )
        tables["gradient"].append(
            {"input": j, "cholesky": exact[j], "difference": (ahead - back) / 2e-4}
        )
    for size in settings.pick((50, 100, 200, 400, 800), (50, 100, 200, 400), (5, 10)):
        tables["cost"].append(_cost(size, settings))
    budget = Budget(
        settings.pick(200_000, 20_000, 500), settings.pick(300.0, 60.0, 1.0),
        settings.pick(300, 40, 3),
    )  # fmt: skip
    for seed in range(settings.seed, settings.seed + settings.pick(20, 5, 2)):
        _fit(sample(p, n, seed), seed, budget, settings, tables)
    return Results(tables, {"inputs": p, "relevant": RELEVANT})


def _cost(p: int, settings: Settings) -> Row:
    """Seconds of one training by Cholesky, and of the gradient in all p weight decays."""
    backend = settings.backend
    problem = problem_of(sample(p, 2 * p, settings.seed), "each", backend)
    lam = problem.lam(0.0)
    direct = Direct(columns=p)
    origin = problem.inner.at(problem.x(None), lam)

    def train() -> None:
        H = direct.hessian(problem.inner.at(problem.x(None), lam), backend)
        backend.xp.linalg.cholesky(H)
        backend.xp.linalg.solve(H, -origin.grad[:, None])
        backend.synchronize()

    inner = solved(problem, lam)

    def differentiate() -> None:
        direct(problem, inner, tol=0.0)
        backend.synchronize()

    seconds = {}
    for name, work in (("train", train), ("gradient", differentiate)):
        clocks = []
        for _ in range(settings.pick(15, 9, 2)):
            clock = time.perf_counter()
            work()
            clocks.append(time.perf_counter() - clock)
        seconds[name] = float(np.min(clocks))
    return {"inputs": p, **seconds, "ratio": seconds["gradient"] / seconds["train"]}


def _fit(parts: Any, seed: int, budget: Budget, settings: Settings, tables: Any) -> None:
    """Test error of least squares, of one weight decay, and of one for each input."""
    (X, y), _, (X_test, y_test) = parts

    def test_error(x: Any) -> float:
        return float(np.mean((X_test @ x - y_test) ** 2))

    tables["error"].append(
        {"seed": seed, "model": "least squares", "error": test_error(np.linalg.lstsq(X, y)[0])}
    )
    cholesky = HOAG(solver=NewtonCG(), hypergradient=Direct())
    methods: dict[str, Any] = {"Cholesky": cholesky} | {name: name for name in own_methods()}
    for name, method in methods.items():
        for groups, text in ((None, "one λ"), ("each", "one λ each")):
            problem = problem_of(parts, groups, settings.backend)
            found = trace(problem, method, budget)[-1]["lam"]
            x = problem.backend.to_numpy(solved(problem, problem.lam(found)).x)
            tables["error"].append(
                {"seed": seed, "model": f"{text} ({name})", "error": test_error(x)}
            )
            if groups == "each":
                tables["lambda"] += [
                    {"seed": seed, "method": name, "input": j, "lam": v}
                    for j, v in enumerate(found)
                ]


def draw(results: Results) -> dict[str, Any]:
    figure, axes = style.panels(1, 3, width=4.2, height=3.5)
    left, middle, right = axes[0]
    cost = results.tables["cost"]
    sizes = [row["inputs"] for row in cost]
    left.plot(sizes, [r["train"] for r in cost], "-o", color=style.BLACK, label="one training")
    left.plot(
        sizes, [r["gradient"] for r in cost], "-s", color=style.BLUE, label="gradient in all λ"
    )
    left.plot(
        sizes,
        [r["train"] * (r["inputs"] + 1) for r in cost],
        linestyle=(0, (4, 2)),
        color=style.GREY,
        label="by finite differences",
    )
    left.set(xscale="log", yscale="log", xlabel="inputs = hyperparameters", ylabel="seconds")
    left.set_title("Cost")
    left.legend()
    lam = [r for r in results.tables["lambda"] if r["method"] == "Cholesky"]
    p, relevant = results.facts["inputs"], results.facts["relevant"]
    columns = [[r["lam"] for r in lam if r["input"] == j] for j in range(p)]
    for j, column in enumerate(columns):
        colour = style.RED if j < relevant else style.BLUE
        middle.plot([j + 1] * len(column), column, "o", color=colour, alpha=0.35, ms=3)
        middle.plot(j + 1, np.median(column), "_", color=colour, ms=9, mew=2.4)
    middle.set(xlabel=f"input (1 to {relevant} matter)", ylabel="λ found", title="Weight decays")
    error = results.tables["error"]
    names = list(dict.fromkeys(r["model"] for r in error))
    for i, name in enumerate(names):
        values = [r["error"] for r in error if r["model"] == name]
        right.plot([i] * len(values), values, "o", color=style.BLUE, alpha=0.5)
        right.plot([i - 0.25, i + 0.25], [np.median(values)] * 2, color=style.BLACK)
    right.axhline(1.0, color=style.GREY, lw=1, linestyle=(0, (2, 2)))
    right.set(ylabel="test error (noise: 1)", title="Generalisation", yscale="log")
    right.set_xticks(range(len(names)), [n.replace(" (", "\n(") for n in names], fontsize=7.5)
    return {"bengio": figure}


def verdict(results: Results) -> Verdict:
    gradient, cost, error = (results.tables[name] for name in ("gradient", "cost", "error"))
    scale = max(abs(r["difference"]) for r in gradient)
    off = max(abs(r["cholesky"] - r["difference"]) for r in gradient) / scale
    ratios = [r["ratio"] for r in cost]

    def median(model: str) -> float:
        return float(np.median([r["error"] for r in error if r["model"] == model]))

    each, one = median("one λ each (Cholesky)"), median("one λ (Cholesky)")
    lam = [r for r in results.tables["lambda"] if r["method"] == "Cholesky"]
    relevant = results.facts["relevant"]
    high, low = (
        float(np.median([r["lam"] for r in lam if (r["input"] >= relevant) == above]))
        for above in (True, False)
    )
    return Verdict(
        (
            Check(
                "The gradient through the Cholesky factor is exact",
                f"largest difference to centred differences: {off:.1e} of the largest entry",
                off < 1e-6,
            ),
            Check(
                "All of it costs about as much as one training, however many hyperparameters",
                f"gradient over training, {cost[0]['inputs']} to {cost[-1]['inputs']} "
                f"hyperparameters: {min(ratios):.1f} to {max(ratios):.1f}",
                max(ratios) < 5,
            ),
            Check(
                "A weight decay for each input generalises better than one for all",
                f"median test error {each:.3f} against {one:.3f} (least squares "
                f"{median('least squares'):.3f}, noise alone 1)",
                each < one,
            ),
            Check(
                "Inputs that do not matter are found and held down",
                f"median λ {high:.1f} where they do not matter, {low:.1f} where they do",
                high > low + 2,
            ),
        )
    )


EXPERIMENT = Experiment(
    name="bengio",
    title="The gradient through a Cholesky factor",
    paper="Bengio 2000, sections 3 and 4",
    claims=(
        "For a quadratic training criterion the gradient in any number of hyperparameters is "
        "exact and costs about as much as training; it can adapt a weight decay for each input, "
        "which generalises better than one for all."
    ),
    setting=(
        "Ridge regression on 30 inputs of which 5 matter, 60 rows to train and 60 to validate, "
        "unit noise. His second example, weights of past observations on stock returns, is not "
        "repeated: the data are not public."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
