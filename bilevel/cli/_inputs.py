"""From the words of the command line to training, held-out and test rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bilevel import datasets, io


@dataclass(frozen=True)
class Rows:
    """Features, and labels -1 and +1 or class numbers 0, 1, 2, ..., on the host."""

    X: Any
    y: npt.NDArray[np.float64]
    source: str
    #: The labels of the file, and how many rows have each.
    labels: str

    def __str__(self) -> str:
        n, p = self.X.shape
        kind = f"sparse, {self.X.nnz:,} entries" if hasattr(self.X, "nnz") else "dense"
        return f"{n:,} × {p:,} {kind}"

    def stacked(self, other: Rows) -> Any:
        """The features of both, one above the other."""
        parts = (self.X, other.X)
        if any(map(sparse.issparse, parts)):
            return sparse.vstack([sparse.csr_matrix(part) for part in parts], format="csr")
        return np.concatenate(parts, axis=0)


@dataclass(frozen=True)
class Inputs:
    """What `bilevel tune` works on."""

    name: str
    train: Rows
    val: Rows
    test: Rows | None
    labels: io.BinaryLabels | io.ClassLabels
    notes: tuple[str, ...]
    #: The names of the features, where the training file has them.
    names: tuple[str, ...] | None = None


def _fraction(text: str | None, option: str) -> float | None:
    """Return a number between 0 and 1, or None where the text is a path."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    if 0 < value < 1:
        return value
    if _exists(text or ""):
        return None
    raise ValueError(f"{option} must be a file, or a fraction between 0 and 1, got {text}.")


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name that can't be one: too long, say
        return False


def files_read(*names: str | None) -> Iterator[Path]:
    """Yield the files that these words of the command line make it read, as far as they exist."""
    for name in names:
        if name is None:
            continue
        path = Path(name) if _exists(name) else None
        if path is None and name in datasets.REGISTRY:
            path = datasets.REGISTRY[name].found(datasets.data_folder())
        if path is not None and path.is_file():
            yield path
            yield path.with_suffix(".y.npy")  # labels beside a sparse matrix


def _load(name: str, options: io.ReadOptions) -> io.Dataset:
    if name in datasets.REGISTRY and not _exists(name):
        return datasets.load(name)
    if not _exists(name) and not Path(name).suffix and "/" not in name:
        known = ", ".join(datasets.REGISTRY)
        raise io.BadFileError(
            name, "there is no such file or data set", f"Give a path, or one of: {known}."
        )
    return io.read(name, options.only(io.format_of(name, options)))


def _refuse_idle(options: io.ReadOptions, names: list[str]) -> None:
    """Refuse options that say something of a format that none of the files has."""
    files = [name for name in names if _exists(name)]
    kinds = {io.format_of(name, options) for name in files}
    read = ", ".join(f"{name} as {io.format_of(name, options).value}" for name in files)
    for name, kind in options.given().items():
        if kind not in kinds:
            option = "--header/--no-header" if name == "header" else f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} is an option of {kind.value} files, and {read or 'no file'} is read: "
                "leave it out, or state the format by --format."
            )
    if options.format is not None and not files:
        raise ValueError(f"--format is of files, and {names[0]} is none: leave it out.")


def load_inputs(
    train: str,
    val: str | None,
    test: str | None,
    *,
    model: str | None = None,
    positive: str | None,
    options: io.ReadOptions,
    seed: int,
) -> Inputs:
    """Read, split and label the rows.

    Parameters
    ----------
    train : str
        A file, or the name of a registered set.
    val, test : str or None
        A file, or the fraction of the training rows to take. None: the source's own part, where
        it has one; else half of the training rows for ``val``, and nothing for ``test``.
    model : str or None
        ``logistic``, of two classes, or ``multinomial``; None: by the labels.
    positive : str or None
        The class that becomes +1.
    options : ReadOptions
        What the files do not say of themselves.
    seed : int
        Seed of the splits.

    Raises
    ------
    BadFileError
        If a file is unusable or does not fit the training file.
    """
    odd: list[str] = []

    def load(name: str) -> io.Dataset:
        found = _load(name, options)
        if found.train.note:
            odd.append(found.train.note)
        return found

    test_fraction, val_fraction = _fraction(test, "--test"), _fraction(val, "--val")
    parts = ((train, None), (val, val_fraction), (test, test_fraction))
    _refuse_idle(options, [name for name, share in parts if name is not None and share is None])
    source = load(train)
    notes = []
    if source.train.label_name is not None:  # wherever that column stands in the other files
        options = replace(options, label=source.train.label_name)
    rest, test_part = source.train, source.test
    if test_fraction is not None:
        rest, test_part = io.split(rest, test_fraction, seed, what="test")
    elif test is not None:
        test_part = load(test).train
    if val is None and source.val is None:
        val_fraction = 0.5
        notes.append("half of the training rows are held out (--val says otherwise)")
    val_part = source.val
    if val_fraction is not None:
        rest, val_part = io.split(rest, val_fraction, seed)
    elif val is not None:
        val_part = load(val).train
    assert val_part is not None
    labels = _labels(source.train, model, positive)
    if isinstance(labels, io.ClassLabels) and rest is not source.train:
        labels.refuse_split(source.train, rest)
    if labels.note:
        notes.insert(0, labels.note)
    fitted, held_out = (_rows(part, source.train, labels) for part in (rest, val_part))
    tested = None if test_part is None else _rows(test_part, source.train, labels)
    return Inputs(train, fitted, held_out, tested, labels, (*notes, *odd), source.train.names)


def _labels(
    train: io.Table, model: str | None, positive: str | None
) -> io.BinaryLabels | io.ClassLabels:
    """Two classes as -1 and +1, more as numbers, unless the words of the command line say which."""
    if model is None:
        several = positive is None and len(np.unique(train.y)) > 2
        model = "multinomial" if several else "logistic"
    if model == "multinomial":
        return io.ClassLabels.fit(train)
    return io.BinaryLabels.fit(train, positive)


def _rows(part: io.Table, train: io.Table, labels: io.BinaryLabels | io.ClassLabels) -> Rows:
    table = io.same_features(part, train)
    return Rows(table.X, labels.apply(table), table.source, labels.counts(table))
