"""Where results go: paths refused before the run, files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

import bilevel
from bilevel import io
from bilevel._replacing import destination
from bilevel.io.log import line
from bilevel.plotting import picture_formats

#: What the files of an option are, by the suffix.
_SUFFIXES = MappingProxyType({"save": (".npz",), "report": (".html", ".htm")})


class BadInput(click.ClickException):
    """One clean sentence and exit code 2."""

    exit_code = 2


def refuse_targets(targets: Mapping[str, str], inputs: Iterable[Path]) -> None:
    """Refuse, before the run, paths that can't be written after it, or that hold something needed.

    Parameters
    ----------
    targets : mapping of str to str
        Path by option.
    inputs : iterable of Path
        The files that the run reads.
    """
    read = list(inputs)
    for name, path in targets.items():
        _refuse_unwritable(name, Path(path))
        if any(_same(path, other) for other in read):
            raise BadInput(f"--{name} {path}: the run reads this file: give another path.")
    names = list(targets)
    for i, one in enumerate(names):
        for other in names[:i]:
            if _same(targets[one], targets[other]):
                raise BadInput(
                    f"--{other} {targets[other]} and --{one} {targets[one]} are one file: give "
                    "each its own."
                )
    for name, path in targets.items():
        _refuse_suffix(name, Path(path))


def _same(one: str | Path, other: str | Path) -> bool:
    """Tell whether two paths lead to one file, by links of either kind too."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:  # one of them is not there
        return False


def _refuse_unwritable(name: str, path: Path) -> None:
    folder = destination(path).absolute().parent
    if not folder.is_dir():
        raise BadInput(f"--{name} {path}: there is no folder {path.parent}.")
    # A log may go to a terminal, but a pipe that nobody reads would wait for ever.
    if path.is_fifo() or (path.exists() and not path.is_file() and name != "log"):
        raise BadInput(f"--{name} {path}: this is no regular file.")
    if path.exists() and not path.is_file():
        return  # a terminal, or another device: its folder is not written to
    if not os.access(folder, os.W_OK):
        raise BadInput(f"--{name} {path}: the folder {folder} can't be written to.")


def _refuse_suffix(name: str, path: Path) -> None:
    """Refuse a name that says another format than the one that is written."""
    suffix = path.suffix.lower()
    try:
        formats = picture_formats() if name == "plot" else _SUFFIXES.get(name, (suffix,))
    except ImportError as error:
        raise BadInput(f'--{name} needs {error.name}: run pip install "bilevel[cli]".') from None
    if suffix and suffix not in formats:
        raise BadInput(
            f"--{name} {path}: it can't be written as {suffix}: end its name in one of "
            f"{', '.join(formats)}."
        )


class Log:
    """The iterations as they happen, and all of them at the end.

    Nothing is written before the first iteration: a run that is refused leaves the log of the one
    before as it was. Where it can't be written the run goes on without, stderr says so, and the end
    counts it among the results that could not be written.

    Parameters
    ----------
    path : str
        A file, or a terminal or another device.
    backend : Backend
        Where the arrays of the records live.
    resumed : bool
        Whether the iterations go on from those of a checkpoint.
    """

    def __init__(self, path: str, backend: Any, *, resumed: bool) -> None:
        self._path, self._backend = Path(path), backend
        self._is_file = self._path.is_file() or not self._path.exists()
        self._started = resumed and self._is_file and self._path.exists()
        # A device can't be written anew at the end: there the earlier ones have to come first.
        self._live = self._is_file or not resumed
        self._failed = False

    def __call__(self, record: bilevel.Record) -> None:
        if self._failed or not self._live:
            return
        try:
            if self._is_file and not self._started:
                io.write_log(self._path, [record], self._backend)
            else:
                self._append(record)
            self._started = True
        except OSError as error:
            self._fail(error, " The run goes on.")

    def finish(self, history: Iterable[bilevel.Record]) -> bool:
        """Write all iterations; tell whether the log holds them."""
        try:
            if self._is_file:
                io.write_log(self._path, history, self._backend)
                return True
            if not (self._started or self._failed):
                for record in history:
                    self._append(record)
        except OSError as error:
            self._fail(error)
        return not self._failed

    def _append(self, record: bilevel.Record) -> None:
        rest = memoryview(line(record, self._backend).encode())
        with self._path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                if self._is_file:  # lines are whole
                    file.truncate(size)
                raise

    def _fail(self, error: OSError, then: str = "") -> None:
        if not self._failed:
            self._failed = True
            click.echo(
                f"Error: the log {self._path} could not be written: "
                f"{error.strerror or error}.{then}",
                err=True,
            )


def write_all(targets: Mapping[str, Callable[[str], None]]) -> tuple[list[str], bool]:
    """Write files; one that fails spares the others, and stderr says why.

    Parameters
    ----------
    targets : mapping of str to callable
        What writes a path, by that path.

    Returns
    -------
    written : list of str
    failed : bool
        Whether there are others.
    """
    written = []
    for path, write in targets.items():
        try:
            write(path)
            written.append(path)
        except (OSError, ValueError, ImportError, MemoryError) as error:
            reason = getattr(error, "strerror", "") or str(error) or type(error).__name__
            click.echo(f"Error: {path} could not be written: {reason}", err=True)
    return written, len(written) < len(targets)
