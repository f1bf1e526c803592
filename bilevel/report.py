"""A run as one HTML file that needs nothing else: pictures are inline, nothing is fetched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ._replacing import replacing
from .plotting import COLOURS, FAINT, INK, PANELS, STYLE, Panel, Trace, trace
from .record import refuse_no_result

#: Colours of the pictures become variables of the page, so that they follow light and dark.
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    COLOURS[0]: "var(--first)",
    COLOURS[1]: "var(--second)",
    COLOURS[2]: "var(--third)",
}


@dataclass(frozen=True)
class Picture:
    """An inline SVG with its title and its text for those who do not see it."""

    title: str
    text: str
    svg: str


def write_report(
    path: str | Path,
    result: Any,
    *,
    title: str = "Tuned model",
    outcome: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the report of a run, whole or not at all; see :func:`render_report`."""
    html = render_report(result, title=title, outcome=outcome, settings=settings, versions=versions)
    with replacing(path) as file:
        file.write(html.encode())


def render_report(
    result: Any,
    *,
    title: str = "Tuned model",
    outcome: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the report of a run as HTML.

    Parameters
    ----------
    result : Result
        What :func:`bilevel.minimize` returned.
    title : str
        Heading of the page.
    outcome, settings, versions : mapping of text to text, optional
        What was found, how, and with which software.

    Raises
    ------
    ImportError
        If jinja2 or Matplotlib is missing.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> html = render_report(bilevel.minimize(problem, method="hoag", max_iter=3), title="Toy")
    >>> "<h1>Toy</h1>" in html, "http" in html.replace("http://www.w3.org", "")
    (True, False)
    """
    refuse_no_result(result)
    from jinja2 import Environment, StrictUndefined

    source = resources.files("bilevel").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    t = trace(result.history)
    return environment.from_string(source).render(
        title=title,
        message=result.message,
        success=result.success,
        outcome=outcome or {},
        tables=[
            (caption, rows)
            for caption, rows in (("Settings", settings), ("Versions", versions))
            if rows
        ],
        pictures=[_picture(panel, t, f"p{i}") for i, panel in enumerate(PANELS)]
        if len(t.k)
        else [],
        columns=[t.unit if name == "passes" else name for name in _COLUMNS],
        rows=[_row(record, t, i) for i, record in enumerate(result.history)],
    )


_COLUMNS = (
    "iteration",
    "λ",
    "validation loss",
    "‖hypergradient‖",
    "optimality",
    "ε",
    "inner iterations",
    "CG iterations",
    "passes",
    "seconds",
)


def _row(record: Any, t: Trace, i: int) -> list[str]:
    return [
        str(record.k),
        show_lam(t.lam[i]),
        f"{record.value:.6f}",
        f"{t.hypergrad[i]:.2e}",
        f"{record.optimality:.2e}",
        f"{record.tol:.1e}",
        str(record.n_inner),
        str(record.n_cg),
        str(record.costs.work),
        f"{record.seconds:.2f}",
    ]


def show_lam(lam: Any) -> str:
    """Write hyperparameters: all of a few, the range of many.

    Examples
    --------
    >>> show_lam([1.5]), show_lam(range(100))
    ('1.5000', '0.00 … 99.00 (100)')
    """
    values = np.asarray(lam, dtype=np.float64)
    if len(values) <= 3:
        return ", ".join(f"{value:.4f}" for value in values)
    return f"{values.min():.2f} … {values.max():.2f} ({len(values)})"


def _picture(panel: Panel, t: Trace, prefix: str) -> Picture:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": prefix}):
        figure = Figure(figsize=(5.2, 3.1))
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        text = panel.on(axes, t)
        axes.set_title("")  # the page has it as a heading, where it can be found and read out
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(panel.title, text, _inline(stream.getvalue(), prefix))


def _inline(svg: str, prefix: str) -> str:
    """Strip what only a file of its own needs, make ids unique, and let the page colour it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    # Text follows the page's font; Matplotlib wrote the name of its own.
    svg = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
