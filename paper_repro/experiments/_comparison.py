"""What the comparisons share: every method on one problem, medians and bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import style
from ..contract import Check, Row
from ..measure import own_methods

LEVELS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4)


def grouped(rows: Sequence[Row]) -> dict[str, dict[str, dict[int, list[Row]]]]:
    """Rows by data set, method and seed."""
    found: dict[str, dict[str, dict[int, list[Row]]]] = {}
    for row in rows:
        of_method = found.setdefault(row["data"], {}).setdefault(row["method"], {})
        of_method.setdefault(row["seed"], []).append(row)
    return found


def at_costs(rows: Sequence[Row], what: str, column: str, costs: Any) -> Any:
    """The value of a column when so much had been spent; NaN before the first row."""
    spent = np.array([row[what] for row in rows])
    values = np.array([row[column] for row in rows], dtype=float)
    index = np.searchsorted(spent, costs, side="right") - 1
    return np.where(index >= 0, values[np.maximum(index, 0)], np.nan)


def band(ax: Any, name: str, seeds: Mapping[int, list[Row]], what: str, column: str) -> None:
    """Draw the median over the seeds, and the band from the lowest to the highest."""
    spent = [row[what] for rows in seeds.values() for row in rows]
    costs = np.geomspace(max(min(spent), 1e-3), max(spent), 160)
    with np.errstate(all="ignore"):
        curves = np.array([at_costs(rows, what, column, costs) for rows in seeds.values()])
    known = ~np.isnan(curves).any(axis=0)
    if not known.any():
        return
    costs, curves = costs[known], curves[:, known]
    if column == "relative":
        curves = np.maximum(curves, 1e-7)
    options = style.look(name)
    middle = np.median(curves, axis=0)
    ax.plot(costs, middle, label=style.label(name), markevery=style.every(len(costs), 7), **options)
    if len(curves) > 1:
        ax.fill_between(
            costs, curves.min(axis=0), curves.max(axis=0), color=options["color"], alpha=0.13, lw=0
        )


def draw_comparison(rows: Sequence[Row]) -> Any:
    """Suboptimality over passes and over time, and test loss over time; a line a data set."""
    found = grouped(rows)
    figure, axes = style.panels(len(found), 3, width=4.1, height=3.3)
    columns = (
        ("passes", "passes over the training data", "relative", "(f − f*) / f*"),
        ("seconds", "seconds", "relative", "(f − f*) / f*"),
        ("seconds", "seconds", "test_loss", "test loss"),
    )
    for i, (data, methods) in enumerate(found.items()):
        for j, (what, unit, column, quantity) in enumerate(columns):
            ax = axes[i, j]
            for name, seeds in methods.items():
                band(ax, name, seeds, what, column)
            ax.set(xscale="log", xlabel=unit, ylabel=quantity, title=data)
            if column == "relative":
                ax.set_yscale("log")
            else:
                _zoom(ax, methods)
    style.legend_below(figure, axes, 4)
    return figure


def _zoom(ax: Any, methods: Mapping[str, Mapping[int, list[Row]]]) -> None:
    """Show the test loss from its lowest value to a third of the start's way up."""
    values = [
        row["test_loss"] for seeds in methods.values() for rows in seeds.values() for row in rows
    ]
    low, high = min(values), float(np.quantile(values, 0.9))
    ax.set_ylim(low - 0.05 * (high - low), high)


def cost(seeds: Mapping[int, list[Row]], level: float, what: str) -> float:
    """Median over seeds of what was spent to reach a level; infinite where most never do."""
    costs = (
        next((r[what] for r in rows if r["relative"] <= level), np.inf) for rows in seeds.values()
    )
    return float(np.median(list(costs)))


def tightest(seeds: Mapping[int, list[Row]]) -> float | None:
    """The tightest level that a method reaches in the median."""
    reached = [level for level in LEVELS if np.isfinite(cost(seeds, level, "passes"))]
    return reached[-1] if reached else None


def compare(
    data: str, methods: Mapping[str, Any], levels: Sequence[float] = (0.1, 0.01, 0.001)
) -> list[Check]:
    """HOAG against each competitor, coarsely and finely; then ours against the best of all."""
    return [check for level in levels for check in _compare(data, methods, level)]


def _compare(data: str, methods: Mapping[str, Any], level: float) -> list[Check]:
    checks = []
    base = {what: cost(methods["hoag"], level, what) for what in ("passes", "seconds")}
    end = float(np.median([rows[-1]["relative"] for rows in methods["hoag"].values()]))
    others = [name for name in methods if name != "hoag" and name not in own_methods()]
    for name in others:
        theirs = {what: cost(methods[name], level, what) for what in base}
        checks.append(
            Check(
                f"{data}, to {level:.1%} of f*: HOAG takes no more passes than {style.label(name)}",
                f"HOAG {_spent(base)} (at the end {end:.2%} off); {style.label(name)} "
                f"{_spent(theirs)}",
                np.isfinite(base["passes"]) and base["passes"] <= theirs["passes"],
            )
        )
    for name in (n for n in methods if n in own_methods()):
        mine = {what: cost(methods[name], level, what) for what in base}
        best = min(cost(methods[n], level, "passes") for n in [*others, "hoag"])
        checks.append(
            Check(
                f"{data}, to {level:.1%} of f*: ours ({name}) takes the fewest passes",
                f"{_spent(mine)}; the best other "
                + (f"{best:.0f} passes" if np.isfinite(best) else "never"),
                mine["passes"] < best,
                claimed=False,
            )
        )
    return checks


def passes(spent: float) -> str:
    """Write a number of passes, which may be infinite."""
    return f"{spent:.0f}" if np.isfinite(spent) else "more than the budget of"


def _spent(spent: Mapping[str, float]) -> str:
    if not np.isfinite(spent["seconds"]):
        return "not within the budget"
    return f"{spent['passes']:.0f} passes, {spent['seconds']:.2f} s"
