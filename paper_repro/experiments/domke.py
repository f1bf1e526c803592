"""Domke (2012): truncated against implicit differentiation, as the iterations grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

import bilevel
from bilevel.hypergrad import Implicit, ReverseLBFGS, ReverseUnrolled, unsolved
from bilevel.solvers import NewtonCG, solve

from .. import datasets, style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import host


def problem_of(settings: Settings, groups: Any = None) -> tuple[bilevel.Problem, float]:
    """ℓ2 logistic regression on breast cancer data, and ‖X‖²/4, which bounds its curvature."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(X.shape[1])
    data = datasets.Data("breast cancer", X, 2.0 * y - 1).subset(settings.pick(None, None, 60))
    train, val, _ = data.thirds(settings.seed)
    problem = datasets.logistic(train, val, settings.backend, groups=groups)
    return problem, float(np.linalg.norm(train[0], 2) ** 2 / 4)


def optimisers(data_part: float, lam: float, n: int) -> dict[str, Any]:
    """The optimisers that Domke differentiates, n iterations each."""
    smooth = data_part + np.exp(lam)
    root, edge = np.sqrt(smooth), np.sqrt(np.exp(lam))
    beta = float(((root - edge) / (root + edge)) ** 2)
    return {
        "gradient descent": ReverseUnrolled(n, step=1 / smooth),
        "heavy ball": ReverseUnrolled(n, step=float(4 / (root + edge) ** 2), momentum=beta),
        "L-BFGS": ReverseLBFGS(n),
    }


def _array(problem: bilevel.Problem, lam: Any) -> Any:
    return problem.lam([float(v) for v in np.atleast_1d(lam)])


def truncated(problem: bilevel.Problem, method: Any, lam: Any) -> tuple[float, list[float]]:
    """(loss, gradient) of n iterations from zero, differentiated."""
    at = _array(problem, lam)
    found = method(problem, unsolved(problem, at, problem.x(None)), tol=0.0)
    (loss,) = problem.backend.scalars(found.outer.value)
    return loss, host(problem, found.value)


def implicit_there(problem: bilevel.Problem, method: Any, lam: Any) -> list[float]:
    """The implicit gradient, its linear system solved tightly, at the truncated point."""
    at = _array(problem, lam)
    points = method(problem, unsolved(problem, at, problem.x(None)), tol=0.0)
    stop = unsolved(problem, at, points.outer.x)
    return host(problem, Implicit()(problem, stop, tol=1e-12).value)


def run(settings: Settings) -> Results:
    problem, data_part = problem_of(settings)
    lam = -3.0
    at = problem.lam(lam)
    best = solve(problem.inner, at, problem.x(None), solver=NewtonCG(), tol=1e-10)
    exact = host(problem, Implicit()(problem, best, tol=1e-12).value)[0]
    counts = settings.pick(
        (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
        (2, 5, 10, 20, 50, 100, 200, 500, 1000, 3000),
        (2, 4),
    )  # fmt: skip
    rows: list[Row] = []
    # After one iteration from zero x does not depend on λ yet.
    for n in counts:
        for name, method in optimisers(data_part, lam, n).items():
            if name == "L-BFGS" and n > 100:
                continue
            loss, (unrolled,) = truncated(problem, method, lam)
            step = 1e-5
            ahead, back = (truncated(problem, method, lam + d)[0] for d in (step, -step))
            rows.append(
                {
                    "optimiser": name,
                    "n": n,
                    "loss": loss,
                    "truncated": unrolled,
                    "difference": (ahead - back) / (2 * step),
                    "implicit": implicit_there(problem, method, lam)[0],
                    "exact": exact,
                }
            )
    return Results({"gradient": rows, "learning": _learning(settings)}, {"lam": lam})


def _learning(settings: Settings) -> list[Row]:
    """Learn a weight decay for each input by L-BFGS-B, with one gradient or the other.

    Both see the same loss, that after n iterations.
    """
    problem, data_part = problem_of(settings, groups="each")
    m, rows = problem.inner.n_hyperparameters, []
    for n in settings.pick((2, 5, 10, 20, 50, 100), (2, 5, 10, 20, 50), (2,)):
        # A step length that depended on λ would be a second way for λ to act.
        method = optimisers(data_part, 0.0, n)["gradient descent"]
        for name in ("truncated", "implicit"):

            def judged(lam: Any, name: str = name, method: Any = method) -> tuple[float, Any]:
                loss, unrolled = truncated(problem, method, lam)
                gradient = unrolled if name == "truncated" else implicit_there(problem, method, lam)
                return loss, np.array(gradient)

            found = minimize(
                judged, np.zeros(m), jac=True, method="L-BFGS-B", bounds=[(-6.0, 6.0)] * m,
                options={"maxiter": settings.pick(100, 40, 3)},
            )  # fmt: skip
            start, _ = truncated(problem, method, np.zeros(m))
            rows.append({"n": n, "gradient": name, "start": start, "loss": float(found.fun)})
    return rows


_LOOKS = {
    "gradient descent": (style.BLUE, "o"),
    "heavy ball": (style.ORANGE, "^"),
    "L-BFGS": (style.GREEN, "D"),
}


def _errors(rows: list[Row], name: str, column: str, against: str) -> tuple[list[int], list[float]]:
    chosen = [r for r in rows if r["optimiser"] == name]
    return [r["n"] for r in chosen], [
        max(abs(r[column] - r[against]) / abs(r[against]), 1e-13) for r in chosen
    ]


def draw(results: Results) -> dict[str, Any]:
    rows, learning = results.tables["gradient"], results.tables["learning"]
    figure, axes = style.panels(1, 3, width=4.2, height=3.6)
    left, middle, right = axes[0]
    for name, (colour, marker) in _LOOKS.items():
        left.plot(
            *_errors(rows, name, "truncated", "exact"), color=colour, marker=marker,
            label=f"truncated, {name}",
        )  # fmt: skip
        left.plot(
            *_errors(rows, name, "implicit", "exact"), color=colour, marker=marker, mfc="white",
            linestyle=(0, (3, 2)), label=f"implicit, {name}",
        )  # fmt: skip
        middle.plot(
            *_errors(rows, name, "truncated", "difference"), color=colour, marker=marker,
        )  # fmt: skip
        middle.plot(
            *_errors(rows, name, "implicit", "difference"), color=colour, marker=marker,
            mfc="white", linestyle=(0, (3, 2)),
        )  # fmt: skip
    for ax, title in ((left, "Against ∇f"), (middle, "Against the gradient of the truncated loss")):
        ax.set(xscale="log", yscale="log", xlabel="iterations", ylabel="relative error")
        ax.set_title(title)
    for name, colour, dash in (
        ("truncated", style.BLUE, "-"), ("implicit", style.RED, (0, (3, 2)))
    ):  # fmt: skip
        chosen = [r for r in learning if r["gradient"] == name]
        if name == "truncated":
            right.plot(
                [r["n"] for r in chosen], [r["start"] for r in chosen], color=style.GREY,
                linestyle=(0, (1, 1)), label="λ = 0",
            )  # fmt: skip
        right.plot(
            [r["n"] for r in chosen], [r["loss"] for r in chosen], color=colour, linestyle=dash,
            marker="o", label=f"learnt by the {name} gradient",
        )  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="iterations", ylabel="validation loss after them")
    right.set_title("Learning 30 weight decays")
    style.legend_below(figure, axes, 4)
    return {"domke": figure}


def verdict(results: Results) -> Verdict:
    rows, learning = results.tables["gradient"], results.tables["learning"]
    consistent = max(max(_errors(rows, name, "truncated", "difference")[1]) for name in _LOOKS)
    early = {name: _errors(rows, name, "implicit", "difference")[1] for name in _LOOKS}
    first = rows[0]["n"], early["gradient descent"][0]
    late = {
        name: (
            _errors(rows, name, "truncated", "exact")[1][-1],
            _errors(rows, name, "implicit", "exact")[1][-1],
        )
        for name in _LOOKS
    }
    losses = {(r["n"], r["gradient"]): r["loss"] for r in learning}
    counts = sorted({n for n, _ in losses})
    gains = [losses[n, "implicit"] / losses[n, "truncated"] - 1 for n in counts]
    return Verdict(
        (
            Check(
                "Differentiating the iterations gives the exact gradient of the truncated loss",
                f"largest relative difference to centred differences {consistent:.1e}",
                consistent < 1e-5,
            ),
            Check(
                "The implicit gradient at a truncated point is not that gradient",
                f"relative error {first[1]:.0%} after {first[0]} iterations of gradient descent",
                first[1] > 0.1,
            ),
            Check(
                "Both approach ∇f as the iterations grow",
                "relative error at the end (truncated, implicit): "
                + "; ".join(f"{name} {a:.0e}, {b:.0e}" for name, (a, b) in late.items()),
                all(max(pair) < 0.01 for pair in late.values()),
            ),
            Check(
                "With few iterations, learning along the truncated gradient ends with the lower "
                "loss",
                "loss along the implicit gradient over that along the truncated one, less 1: "
                + ", ".join(f"{g:+.1%} ({n})" for n, g in zip(counts, gains, strict=True)),
                min(gains) > -1e-6 and max(gains) > 0.001,
            ),
        )
    )


EXPERIMENT = Experiment(
    name="domke",
    title="Truncated against implicit differentiation",
    paper="Domke 2012, sections 5 to 7",
    claims=(
        "Differentiating the iterations of gradient descent, of the heavy ball or of L-BFGS gives "
        "the exact gradient of the loss after few iterations, where the implicit gradient, which "
        "assumes that the optimum was reached, is wrong."
    ),
    setting=(
        "ℓ2 logistic regression on breast cancer data instead of his image labelling; λ = −3, "
        "iterations from x = 0. The implicit gradient is taken at the same truncated x, with a "
        "linear system solved to 10⁻¹². For the third panel L-BFGS-B learns a weight decay for "
        "each of the 30 inputs, λ ∈ [−6, 6], from the loss after n iterations of gradient descent "
        "and one gradient or the other."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
