"""HOAG, the figure on the decrease of the tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel.losses import Logistic
from bilevel.methods import HOAG
from bilevel.outer import held_out

from .. import datasets, style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict
from ..measure import (
    Budget,
    Truth,
    cost_to_reach,
    judge,
    own_methods,
    subtract_optimum,
    thinned,
    trace,
)
from ._comparison import grouped, tightest

SEQUENCES = ("quadratic", "cubic", "exponential", "exact")


def run(settings: Settings) -> Results:
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    data = (
        (datasets.real_sim(), settings.pick(40_000, 6_000, 500)),
        (datasets.news(), settings.pick(40_000, 4_000, 500)),
    )
    notes = tuple(d.note for d, _ in data if d.note)
    n_rows = settings.pick(None, None, 240)
    iterations = settings.pick(100, 60, 3)
    for d, passes in data:
        for seed in range(settings.seed, settings.seed + settings.pick(5, 1, 1)):
            budget = Budget(passes, settings.pick(3600.0, 150.0, 5.0), iterations)
            rows += _one(d.subset(n_rows), seed, budget, settings, facts)
    return Results({"trace": rows}, facts, notes)


def _one(
    data: datasets.Data, seed: int, budget: Budget, settings: Settings, facts: dict[str, Any]
) -> list[Row]:
    train, val, test = data.thirds(seed)
    problem = datasets.logistic(train, val, settings.backend)
    outer_test = held_out(
        datasets.design(test[0], settings.backend), settings.backend.asarray(test[1]), Logistic()
    )
    truth = Truth(problem, outer_test)
    methods: dict[str, Any] = {name: HOAG(tolerances=name) for name in SEQUENCES}
    methods |= {name: name for name in own_methods()}
    rows = [
        {"data": data.name, "seed": seed, "method": name, **row}
        for name, method in methods.items()
        for row in thinned(trace(problem, method, budget), settings.pick(None, 16, None))
    ]
    judge(rows, truth)
    best = truth.refine()
    subtract_optimum(rows, best)
    facts[f"{data.name}, seed {seed}"] = {"best_lambda": truth.best[0][0], "best_f": best}
    return rows


def draw(results: Results) -> dict[str, Any]:
    found = grouped(results.tables["trace"])
    figure, axes = style.panels(len(found), 2, height=3.1)
    for i, (data, methods) in enumerate(found.items()):
        for j, (what, unit) in enumerate(
            (("seconds", "seconds"), ("passes", "passes over the training data"))
        ):
            ax = axes[i, j]
            for name, seeds in methods.items():
                rows = seeds[min(seeds)]
                ax.plot(
                    [row[what] for row in rows],
                    style.positive([row["relative"] for row in rows], 1e-8),
                    label=style.label(name),
                    markevery=style.every(len(rows)),
                    **style.look(name),
                )
            ax.set(xscale="log", yscale="log", xlabel=unit, title=data)
            ax.set_ylabel("(f − f*) / f*")
    style.legend_below(figure, axes)
    return {"tolerance": figure}


def _ratio(methods: Any, name: str, level: float, what: str) -> float | None:
    """Median over seeds of (cost of exact) / (cost of this one); None where it never arrives."""
    ratios = []
    for seed, rows in methods[name].items():
        mine = cost_to_reach(rows, level, what)
        theirs = cost_to_reach(methods["exact"][seed], level, what)
        if mine is None or theirs is None:
            return None
        ratios.append(theirs / mine)
    return float(np.median(ratios))


def verdict(results: Results) -> Verdict:
    checks = []
    for data, methods in grouped(results.tables["trace"]).items():
        level = tightest(methods["exact"])
        for name in SEQUENCES[:-1]:
            ratio = None if level is None else _ratio(methods, name, level, "passes")
            seconds = None if level is None else _ratio(methods, name, level, "seconds")
            text = (
                "not reached within the budget"
                if ratio is None
                else f"to {level:.2%} of f*: {ratio:.1f}× fewer passes, {seconds:.1f}× less time"
            )
            checks.append(
                Check(
                    f"{data}: the {name} sequence is cheaper than the exact variant",
                    text,
                    ratio is not None and ratio > 1,
                )
            )
        checks.append(_cheap_iterations(data, methods))
        checks += [_ours(data, methods, name) for name in methods if name in own_methods()]
    return Verdict(tuple(checks))


def _cheap_iterations(data: str, methods: Any) -> Check:
    """Passes an iteration over the iterations that all variants made, against the exact one."""
    last = min(rows[-1]["k"] for m in SEQUENCES for rows in methods[m].values())

    def early(name: str) -> float:
        ends = [[row for row in rows if row["k"] <= last][-1] for rows in methods[name].values()]
        return float(np.median([row["passes"] / row["k"] for row in ends]))

    costs = {name: early(name) for name in SEQUENCES}
    return Check(
        f"{data}: early iterations are cheaper the looser the tolerance",
        "passes an iteration: " + ", ".join(f"{n} {c:.0f}" for n, c in costs.items()),
        all(costs[name] < costs["exact"] for name in SEQUENCES[:-1]),
    )


def _ours(data: str, methods: Any, name: str) -> Check:
    level = tightest(methods["exact"]) or 0.1
    best = max((_ratio(methods, s, level, "passes") or 0.0 for s in SEQUENCES[:-1]), default=0.0)
    mine = _ratio(methods, name, level, "passes")
    return Check(
        f"{data}: ours ({name}) is cheaper than the best published sequence",
        "not reached"
        if mine is None or not best
        else f"to {level:.2%} of f*: {mine / best:.1f}× fewer passes",
        mine is not None and mine > best,
        claimed=False,
    )


EXPERIMENT = Experiment(
    name="tolerance",
    title="How fast the tolerance decreases",
    paper="Pedregosa 2016, section 4, the figure on the tolerance decrease",
    claims=(
        "Inexact variants, with ε_k = 0.1 k⁻², 0.1 k⁻³ or 0.1·0.9ᵏ, have cheaper iterations than "
        "the exact one (ε = 10⁻¹²), and so converge faster overall."
    ),
    setting=(
        "ℓ2 logistic regression, λ ∈ [−12, 12], λ₀ = 0, L-BFGS inside, the adaptive step of the "
        "paper; random thirds for training, validation and test. f is computed again at every "
        "iterate by a fit with a gradient 10⁻⁹ of its first norm, off the clock; f* is the "
        "lowest value of a search with such fits."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
