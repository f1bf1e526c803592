"""Maclaurin, Duvenaud and Adams (2015): reverse mode through reversible SGD with momentum."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

import bilevel
from bilevel.hypergrad import InformationBuffer, ReverseUnrolled, Reversible, unsolved
from bilevel.inner import mlp
from bilevel.losses import Multinomial
from bilevel.outer import held_out_mlp

from .. import datasets, style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import host
from .larsen import pooled

LOSS = Multinomial(10)
MOMENTUM = Fraction(9, 10)


def problem_of(settings: Settings) -> tuple[bilevel.Problem, Any]:
    """A network on a subset of MNIST, one weight decay a layer; and the test criterion."""
    n = settings.pick(2000, 250, 30)
    train_rows, test_rows = datasets.mnist()
    drawn = train_rows.subset(2 * n, settings.seed)
    held = test_rows.subset(settings.pick(10_000, 2_000, 100), settings.seed)
    X, y = pooled(drawn), drawn.y
    asarray = settings.backend.asarray
    inner = mlp(asarray(X[:n]), asarray(y[:n]), LOSS, [settings.pick(50, 15, 3)])
    outer = held_out_mlp(inner, asarray(X[n:]), asarray(y[n:]))
    test = held_out_mlp(inner, asarray(pooled(held)), asarray(held.y))
    return bilevel.Problem(inner, outer, bilevel.Box(-12.0, 6.0)), test


def run(settings: Settings) -> Results:
    problem, test = problem_of(settings)
    step = 0.3 / problem.outer.y.shape[0]
    x0 = problem.inner.initial(settings.seed)
    lam = problem.lam(-1.0)
    start = unsolved(problem, lam, x0)
    tables: dict[str, list[Row]] = {"reversal": [], "memory": [], "gradient": [], "path": []}
    counts = settings.pick((10, 30, 100, 300, 1000, 3000), (10, 30, 100, 300), (5, 10))
    for n in counts:
        method = Reversible(n, step=step, momentum=MOMENTUM)
        found = method(problem, start, tol=0.0)
        tables["reversal"].append(
            {
                "n": n,
                "exact": found.status not in (bilevel.Status.STALLED, bilevel.Status.OVERFLOW),
                "naive64": _naive(problem, x0, lam, n, step, np.float64),
                "naive32": _naive(problem, x0, lam, n, step, np.float32),
            }
        )
        stored = ReverseUnrolled(n, step=step, momentum=float(MOMENTUM))(problem, start, tol=0.0)
        a, b = np.array(host(problem, found.value)), np.array(host(problem, stored.value))
        tables["gradient"].append(
            {"n": n, "relative": float(np.linalg.norm(a - b) / np.linalg.norm(b))}
        )
    for n in settings.pick((100, 1000, 10_000), (100, 1000, 10_000), (10, 100)):
        tables["memory"].append({"n": n, "arrays": _arrays(n)})
    tables["path"] = _learn(problem, test, x0, step, settings)
    return Results(tables, {"momentum": float(MOMENTUM)})


def _naive(problem: Any, x0: Any, lam: Any, n: int, step: float, dtype: Any) -> float:
    """‖x‖ missed when SGD with momentum is run n steps and back in plain floating point."""
    backend, gamma = problem.backend, dtype(float(MOMENTUM))
    rate = dtype(step)

    def gradient(x: Any) -> Any:
        at = backend.asarray(x.astype(np.float64))
        return backend.to_numpy(problem.inner.at(at, lam).grad).astype(dtype)

    first = backend.to_numpy(x0).astype(dtype)
    x, v = first.copy(), np.zeros_like(first)
    for _ in range(n):
        v = gamma * v - rate * gradient(x)
        x = x + v
    for _ in range(n):
        x = x - v
        v = (v + rate * gradient(x)) / gamma
        if not np.isfinite(v).all() or np.linalg.norm(v) > 1e12:
            return float("inf")
    return float(np.linalg.norm(x - first) / np.linalg.norm(first))


def _arrays(n: int) -> int:
    """Arrays of 64-bit integers that the information buffer holds after n steps."""
    rng = np.random.default_rng(0)
    buffer = InformationBuffer(np.zeros(8, dtype=np.int64))
    for _ in range(n):
        buffer.multiply(rng.integers(-(1 << 40), 1 << 40, 8), MOMENTUM)
    return len(buffer.stack) + 1


def _learn(problem: Any, test: Any, x0: Any, step: float, settings: Settings) -> list[Row]:
    """Descend in the weight decays along the reversible gradient, step halved on a rise."""
    backend, xp = problem.backend, problem.backend.xp
    method = Reversible(settings.pick(1000, 200, 5), step=step, momentum=MOMENTUM)
    lam, length = problem.lam(-6.0), 1.0
    rows: list[Row] = []
    best: tuple[float, Any, Any] | None = None
    n_val, n_test = problem.outer.y.shape[0], test.y.shape[0]
    for k in range(1, settings.pick(60, 25, 3) + 1):
        found = method(problem, unsolved(problem, lam, x0), tol=0.0)
        point = found.outer
        value, loss = backend.scalars(point.value, test.at(point.x, lam).value)
        if best is None or value < best[0]:
            best = (value, lam, found.value)
            rows.append(
                {
                    "k": k,
                    "lam": host(problem, lam),
                    "validation": value / n_val,
                    "test": loss / n_test,
                }
            )
        else:
            length /= 2
        _, anchor, p = best
        (size,) = backend.scalars(xp.sqrt(xp.vecdot(p, p)))
        lam = problem.domain.project(anchor - (length / size) * p, backend)
    return rows


def draw(results: Results) -> dict[str, Any]:
    figure, axes = style.panels(1, 3, width=4.2, height=3.5)
    left, middle, right = axes[0]
    reversal, memory, path = (results.tables[n] for n in ("reversal", "memory", "path"))
    counts = [r["n"] for r in reversal]
    for column, text, colour, marker in (
        ("naive32", "plain float32", style.RED, "s"),
        ("naive64", "plain float64", style.ORANGE, "^"),
    ):  # fmt: skip
        values = [np.nan if r[column] is None else max(r[column], 1e-18) for r in reversal]
        left.plot(counts, np.minimum(values, 1e12), color=colour, marker=marker, label=text)
    left.plot(counts, [1e-18] * len(counts), color=style.BLUE, marker="o", label="with buffer: 0")
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="distance to the start, relative")
    left.set_title("Back to the start")
    left.legend()
    steps = [r["n"] for r in memory]
    middle.plot(steps, steps, color=style.GREY, marker="s", label="trajectory stored")
    middle.plot(steps, [r["arrays"] for r in memory], color=style.BLUE, marker="o", label="buffer")
    middle.set(xscale="log", yscale="log", xlabel="steps", ylabel="arrays of 64 bits")
    middle.set_title("Memory")
    middle.legend()
    for column, colour, marker in (("validation", style.BLUE, "o"), ("test", style.ORANGE, "^")):
        right.plot(
            [r["k"] for r in path],
            [r[column] for r in path],
            color=colour,
            marker=marker,
            label=column,
        )
    right.set(xlabel="outer step", ylabel="loss a row", title="Learning two weight decays")
    right.legend()
    return {"maclaurin": figure}


def verdict(results: Results) -> Verdict:
    reversal, memory, gradient, path = (
        results.tables[n] for n in ("reversal", "memory", "gradient", "path")
    )
    last, most = reversal[-1], memory[-1]
    off = max(r["relative"] for r in gradient)
    lost = np.inf if last["naive64"] is None else last["naive64"]
    saved = most["n"] / most["arrays"]
    return Verdict(
        (
            Check(
                "With the information buffer the run is reversed to the last bit",
                "exact for " + ", ".join(str(r["n"]) for r in reversal if r["exact"]) + " steps",
                all(r["exact"] for r in reversal),
            ),
            Check(
                "Plain floating point loses the start",
                f"relative distance after {last['n']} steps and back, float64: "
                + (f"{lost:.1e}" if np.isfinite(lost) else "overflow"),
                lost > 1e-3,
            ),
            Check(
                "The buffer takes about 200 times less memory than the trajectory",
                f"{most['n']:,} steps: {most['arrays']} arrays, {saved:.0f} times less (64-bit "
                f"words; log₂(1/γ) = {np.log2(1 / results.facts['momentum']):.2f} bits a step)",
                saved > 150,
            ),
            Check(
                "Its gradient is that of the stored trajectory",
                f"largest relative difference {off:.1e}",
                off < 1e-6,
            ),
            Check(
                "Descent along it improves the regularisation of each layer",
                f"validation loss a row {path[0]['validation']:.3f} to "
                f"{path[-1]['validation']:.3f}, test {path[0]['test']:.3f} to "
                f"{path[-1]['test']:.3f}",
                path[-1]["validation"] < 0.99 * path[0]["validation"],
            ),
        )
    )


EXPERIMENT = Experiment(
    name="maclaurin",
    title="Reversible learning",
    paper="Maclaurin, Duvenaud and Adams 2015, sections 2 and 3",
    claims=(
        "SGD with momentum can be run backwards exactly if the bits that the momentum discards are "
        "kept, at about a 200th of the memory of the trajectory; the gradient so computed tunes "
        "the regularisation of each layer."
    ),
    setting=(
        "A network with one hidden layer on a subset of MNIST at 7 × 7 pixels, momentum 0.9, full "
        "batches; two weight decays from λ = −6. Their learning-rate schedules are not repeated."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
