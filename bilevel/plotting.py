"""Pictures of a run, with Matplotlib.

Each panel is one function that draws on one pair of axes; the report and :func:`plot` only
choose panels and their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._replacing import replacing
from .backends import get_backend
from .record import refuse_no_result

#: Up to so many hyperparameters are drawn as one line each.
_MAX_LINES = 8

#: Colours that keep apart for colour-blind readers and in grey print; each goes with a dash.
COLOURS = ("#0b5fa5", "#b4510a", "#3b7d23")
INK, FAINT = "#1b1f24", "#c9ced6"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """The numbers of a run that its pictures show, on the host.

    Attributes
    ----------
    k, work : array, shape (n,)
        Number of the iteration; passes over the data, or evaluations of h, until its end.
    value, hypergrad, optimality, tol, inner_error, hypergrad_error : array, shape (n,)
        Validation loss, norm of the hypergradient, norm of the projected step, tolerance ε_k and
        proven error bounds (NaN where there are none).
    lam : array, shape (n, m)
        Hyperparameters.
    unit : {"passes", "evaluations"}
        Of ``work``.
    """

    k: Floats
    work: Floats
    value: Floats
    hypergrad: Floats
    optimality: Floats
    tol: Floats
    inner_error: Floats
    hypergrad_error: Floats
    lam: Floats
    unit: str


def trace(history: Sequence[Any]) -> Trace:
    """Copy the numbers of the records to the host.

    Examples
    --------
    >>> trace([]).k.shape
    (0,)
    """
    backend = get_backend(history[0].lam) if history else get_backend()

    def column(read: Callable[[Any], float | None]) -> Floats:
        found = (read(record) for record in history)
        return np.array([np.nan if v is None else v for v in found], dtype=np.float64)

    def host(array: Any) -> Floats:
        return np.asarray(backend.to_numpy(array), dtype=np.float64)

    return Trace(
        k=column(lambda r: r.k),
        work=column(lambda r: r.costs.work),
        value=column(lambda r: r.value),
        hypergrad=column(lambda r: float(np.linalg.norm(host(r.hypergrad)))),
        optimality=column(lambda r: r.optimality),
        tol=column(lambda r: r.tol),
        inner_error=column(lambda r: r.inner_error),
        hypergrad_error=column(lambda r: r.hypergrad_error),
        lam=np.stack([host(r.lam) for r in history]) if history else np.empty((0, 0)),
        unit=history[-1].costs.unit if history else "passes",
    )


def loss_panel(axes: Any, x: Floats, t: Trace) -> str:
    """Draw the validation loss; return what the panel shows, as a sentence."""
    _line(axes, x, t.value, 0)
    axes.set_ylabel("validation loss")
    return f"Validation loss from {t.value[0]:.6g} to {t.value[-1]:.6g}."


def hypergrad_panel(axes: Any, x: Floats, t: Trace) -> str:
    """Draw the norm of the hypergradient and the proven bound of its error."""
    _line(axes, x, t.hypergrad, 0, "hypergradient")
    if np.isfinite(t.hypergrad_error).any():
        _line(axes, x, t.hypergrad_error, 1, "bound of its error")
    _log(axes)
    axes.set_ylabel("norm")
    axes.legend()
    return f"Norm of the hypergradient from {t.hypergrad[0]:.3g} to {t.hypergrad[-1]:.3g}."


def accuracy_panel(axes: Any, x: Floats, t: Trace) -> str:
    """Draw the tolerances and the proven distance of the model to X(λ)."""
    _line(axes, x, t.tol, 0, "tolerance ε")
    if np.isfinite(t.inner_error).any():
        _line(axes, x, t.inner_error, 1, "proven distance to X(λ)")
    _log(axes)
    axes.set_ylabel("inner accuracy")
    axes.legend()
    return f"Inner tolerance from {t.tol[0]:.3g} to {t.tol[-1]:.3g}."


def lam_panel(axes: Any, x: Floats, t: Trace) -> str:
    """Draw the path of λ: a line each, or median and quantiles where there are many."""
    m = t.lam.shape[1]
    if m == 1:
        _line(axes, x, t.lam[:, 0], 0)
        axes.set_ylabel("λ")
        return f"λ from {t.lam[0, 0]:.4g} to {t.lam[-1, 0]:.4g}."
    if m <= _MAX_LINES:
        for j in range(m):
            _line(axes, x, t.lam[:, j], j, f"λ{j + 1}")
        axes.legend(ncols=2)
    else:
        low, middle, high = np.quantile(t.lam, [0.1, 0.5, 0.9], axis=1)
        axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.2, label="10 % to 90 %")
        _line(axes, x, middle, 0, f"median of {m}")
        axes.legend()
    axes.set_ylabel("λ")
    return f"Path of {m} hyperparameters."


def _line(axes: Any, x: Floats, y: Floats, j: int, label: str | None = None) -> None:
    dashes = ("-", "--", ":")[(j // len(COLOURS) + j) % 3]
    marker = "o" if len(x) <= 60 else ""
    axes.plot(
        x, y, dashes, color=COLOURS[j % len(COLOURS)], marker=marker, markersize=3.5, label=label
    )


def _log(axes: Any) -> None:
    if any((np.asarray(line.get_ydata()) > 0).any() for line in axes.lines):
        axes.set_yscale("log")


#: What is written at the axis of the costs.
_COSTS = {"passes": "passes over the data", "evaluations": "evaluations of h"}


@dataclass(frozen=True)
class Panel:
    """A picture: its title, what it draws, and against what."""

    title: str
    draw: Callable[[Any, Floats, Trace], str]
    against: str

    def on(self, axes: Any, t: Trace) -> str:
        """Draw it on a pair of axes; return what it shows, as a sentence."""
        axes.set_xlabel("iteration" if self.against == "k" else _COSTS[t.unit])
        text = self.draw(axes, getattr(t, self.against), t)
        axes.set_title(self.title)
        if self.against == "k":
            axes.xaxis.get_major_locator().set_params(integer=True)
        return text


PANELS = (
    Panel("Validation loss by iteration", loss_panel, "k"),
    Panel("Validation loss by cost", loss_panel, "work"),
    Panel("Hypergradient by iteration", hypergrad_panel, "k"),
    Panel("Hypergradient by cost", hypergrad_panel, "work"),
    Panel("Path of λ", lam_panel, "k"),
    Panel("Inner accuracy", accuracy_panel, "k"),
)

#: Matplotlib's settings for every picture.
STYLE = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def plot(result: Any, panels: Sequence[Panel] = (PANELS[1], PANELS[3], PANELS[4])) -> Any:
    """Draw a run.

    Parameters
    ----------
    result : Result
        What :func:`bilevel.minimize` returned.
    panels : sequence of Panel
        Loss, hypergradient and λ when omitted.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> figure = plot(bilevel.minimize(problem, method="hoag", max_iter=3))
    >>> len(figure.axes)
    3
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    refuse_no_result(result)
    t = trace(result.history)
    with mpl.rc_context({**STYLE, "savefig.transparent": False}):
        figure = Figure(figsize=(3.6 * len(panels), 2.9))
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            if len(t.k):
                panel.on(axes, t)
    return figure


def picture_formats() -> tuple[str, ...]:
    """The suffixes that :func:`save_plot` knows."""
    from matplotlib.backend_bases import FigureCanvasBase

    return tuple(f".{suffix}" for suffix in sorted(FigureCanvasBase.get_supported_filetypes()))


def save_plot(result: Any, path: Any) -> None:
    """Draw a run into a file, whole or not at all; the suffix chooses the format, PNG without one.

    Text stays text in SVG, and the file does not depend on the day it was made.
    """
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bilevel"}):
        suffix = Path(path).suffix[1:].lower() or "png"
        metadata = {"Date": None} if suffix == "svg" else None
        with replacing(path) as file:
            plot(result).savefig(file, format=suffix, metadata=metadata, dpi=150)
