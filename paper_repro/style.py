"""One look for all figures; colours of Okabe and Ito (2008), each with its dash and marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

BLACK, ORANGE, SKY, GREEN = "#222222", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8a8f98"

#: (colour, dash, marker) by what is drawn; one thing looks the same in every figure.
LOOKS: dict[str, tuple[str, Any, str]] = {
    "exact": (BLACK, (0, (4, 2)), "s"),
    "quadratic": (ORANGE, "-", "^"),
    "cubic": (SKY, "-", "v"),
    "exponential": (BLUE, "-", "o"),
    "hoag": (BLUE, "-", "o"),
    "adaptive": (BLUE, "-", "o"),
    "grid": (GREY, (0, (1, 1)), "s"),
    "random": (ORANGE, (0, (5, 2)), "^"),
    "TPE": (GREEN, (0, (3, 1, 1, 1)), "D"),
    "GP": (PINK, (0, (6, 1, 1, 1)), "v"),
    "iterdiff": (BLACK, (0, (4, 2)), "x"),
}
_OWN = (RED, "-", "P")

_RC = {
    "axes.edgecolor": "#9aa0a8",
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.labelcolor": "#1b1f24",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "paper_repro",
}


def in_style() -> Any:
    """The settings of Matplotlib that every figure is drawn under, as a context."""
    return mpl.rc_context(_RC)


def look(name: str) -> dict[str, Any]:
    """Matplotlib's keywords for a method."""
    colour, dash, marker = LOOKS.get(name, _OWN)
    return {"color": colour, "linestyle": dash, "marker": marker}


def label(name: str) -> str:
    """How a method is called in a legend."""
    return {
        "hoag": "HOAG",
        "adaptive": "adaptive weight decay",
        "grid": "grid search",
        "random": "random search",
        "TPE": "SMBO (TPE)",
        "GP": "SMBO (Gaussian process)",
        "iterdiff": "iterative differentiation",
    }.get(name, name if name in LOOKS else f"ours ({name})")


def panels(rows: int, columns: int, width: float = 5.0, height: float = 3.4) -> tuple[Figure, Any]:
    """A figure with its grid of axes, always two-dimensional."""
    figure = Figure(figsize=(width * columns, height * rows))
    return figure, figure.subplots(rows, columns, squeeze=False)


def _tidy(axis: Any) -> None:
    """Logarithmic ticks that do not run into each other: plain numbers on a short range."""
    if axis.get_scale() != "log":
        return
    low, high = axis.get_view_interval()
    axis.set_minor_formatter(NullFormatter())
    if high < 60 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def save(figure: Figure, stem: Any) -> None:
    """Write SVG and PNG; the files do not depend on the day."""
    for axes in figure.axes:
        _tidy(axes.xaxis)
        _tidy(axes.yaxis)
    figure.savefig(f"{stem}.svg", metadata={"Date": None})
    figure.savefig(f"{stem}.png", dpi=140)


def legend_below(figure: Figure, axes: Any, columns: int = 5) -> None:
    """One legend for all panels, under them, each entry once."""
    found: dict[str, Any] = {}
    for ax in axes.ravel():
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(text, handle)
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=min(columns, len(found)),
    )


def every(n: int, at_most: int = 12) -> int:
    """Mark every so many points, so that markers do not hide the line."""
    return max(1, -(-n // at_most))


def positive(values: Sequence[float], floor: float = 1e-9) -> list[float]:
    """Lift values to a floor, for a logarithmic axis."""
    return [max(v, floor) for v in values]
