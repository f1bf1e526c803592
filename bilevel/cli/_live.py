"""The iterations as they happen, and the summary, on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.status import Status as Spinner
from rich.table import Table as Grid
from rich.text import Text

from bilevel.report import show_lam


@dataclass(frozen=True)
class Column:
    """A column of the iterations: its head, its width, and what it says of a record.

    ``show`` takes the record, and what brings an array to the host.
    """

    name: str
    width: int
    show: Callable[[Any, Callable[[Any], Any]], str]


COLUMNS = (
    Column("k", 4, lambda record, host: str(record.k)),
    Column("λ", 10, lambda record, host: show_lam(host(record.lam))),
    Column("val. loss", 14, lambda record, host: f"{record.value:.6f}"),
    Column("‖hypergrad‖", 12, lambda record, host: f"{np.linalg.norm(host(record.hypergrad)):.2e}"),
    Column("ε", 9, lambda record, host: f"{record.tol:.1e}"),
    Column("inner", 6, lambda record, host: str(record.n_inner)),
    Column("CG", 5, lambda record, host: str(record.n_cg)),
    Column("passes", 8, lambda record, host: f"{record.passes:,}"),
    Column("seconds", 9, lambda record, host: f"{record.seconds:.2f}"),
)


class Live:
    """Print a line for each record; on a terminal a spinner says that the next one is on its way.

    Parameters
    ----------
    console : Console
        Where to print.
    backend : Backend
        Where the arrays of the records live.
    columns : tuple of Column
        What is printed of each.
    """

    def __init__(
        self, console: Console, backend: Any, columns: tuple[Column, ...] = COLUMNS
    ) -> None:
        self._console, self._backend, self._columns = console, backend, columns
        self._spinner = Spinner("iteration 1", console=console)
        self._k, self._next_line = 1, 1.0

    def __enter__(self) -> Self:
        header = " ".join(f"{column.name:>{column.width}}" for column in self._columns)
        self._print(Text(header, style="bold"))
        if self._console.is_terminal:
            self._spinner.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._spinner.stop()

    def __call__(self, record: Any) -> None:
        host = self._backend.to_numpy
        cells = (f"{column.show(record, host):>{column.width}}" for column in self._columns)
        self._print(Text(" ".join(cells)))
        self._k = record.k + 1
        self._spinner.update(f"iteration {self._k}")

    def progress(self, costs: Any) -> None:
        """Say how far the iteration that is under way has come.

        A terminal's spinner shows it as it happens; a pipe gets a line after 1, 2, 4, ... seconds.
        """
        text = f"iteration {self._k}: {costs.work:,} {costs.unit}, {costs.seconds:.1f} s"
        self._spinner.update(text)
        if not self._console.is_terminal and costs.seconds >= self._next_line:
            self._next_line = 2 * costs.seconds
            self._print(Text(f"... {text}"))

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)


def print_rows(console: Console, rows: Mapping[str, str]) -> None:
    """Print names and values in two columns."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, Text(value))
    console.print(grid)
