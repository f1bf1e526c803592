"""Standard output that ends no run: a closed pipe, a full disk, an encoding without λ."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

#: Columns that are assumed where there are fewer than any terminal has.
_WIDTH, _NARROWEST = 80, 20


class Forgiving:
    """A stream of text that drops what can't be printed, and remembers why.

    The model that a run has found is worth more than the lines about it. Characters that the
    encoding lacks are written as escapes.

    Parameters
    ----------
    stream : text stream
        Standard output.

    Attributes
    ----------
    failure : OSError or None
        The first reason why it could not be written to.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write what can be written."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        # What is left in the buffer would fail once more when Python ends, with an exit code of
        # its own.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_console(*, quiet: bool = False) -> Console:
    """Return a console on standard output, whatever that is."""
    stream: Any = None if sys.stdout is None else Forgiving(sys.stdout)
    console = Console(file=stream, quiet=quiet, highlight=False, markup=False)
    if console.width < _NARROWEST:  # COLUMNS=0, where nothing at all would be printed
        console.width = _WIDTH
    return console


@contextlib.contextmanager
def warned_in_sentences() -> Iterator[None]:
    """Let a warning be its sentence, on stderr, without the line of our code that gave it."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"note: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def was_printed(console: Console) -> bool:
    """Tell whether all was printed, or nobody wanted to read on; say on stderr why not."""
    failure = getattr(console.file, "failure", None)
    if failure is None or isinstance(failure, BrokenPipeError):
        return True
    click.echo(f"Error: standard output could not be written: {failure.strerror}.", err=True)
    return False
