"""What a reader returns, and the one error that it raises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bilevel.backends import all_finite, get_backend

#: A dense (n, p) array or a CSR matrix, on the host.
HostMatrix: TypeAlias = Any


class BadFileError(ValueError):
    """A file that cannot be used: which, where in it, why, and what to do.

    Examples
    --------
    >>> print(BadFileError("a.csv", "the label is missing", "Add it.", line=3))
    a.csv, line 3: the label is missing. Add it.
    """

    def __init__(
        self, file: str | Path, problem: str, cure: str, *, line: int | None = None
    ) -> None:
        self.file, self.problem, self.cure, self.line = str(file), problem, cure, line
        where = self.file if line is None else f"{self.file}, line {line}"
        super().__init__(f"{where}: {problem}. {cure}")


@dataclass(frozen=True)
class Table:
    """Features and labels as a file states them.

    Attributes
    ----------
    X : array (n, p) or scipy.sparse CSR matrix
        Features, float32 or float64.
    y : array, shape (n,)
        Labels: numbers or text, not yet mapped to -1 and +1.
    source : str
        How errors call it: the path of the file, with the part of it where there are several.
    lines : array of integers, shape (n,), or None
        The line of each row, where the file has lines.
    label : str
        What was taken for the label.
    names : tuple of str, length p, or None
        The names of the features, where the file has them.
    label_name : str or None
        The name of the label, where it has one.
    note : str
        What is odd about the file and yet no fault, as a sentence; empty where nothing is.
    """

    X: HostMatrix
    y: npt.NDArray[Any]
    source: str
    lines: npt.NDArray[np.int64] | None = None
    label: str = "y"
    names: tuple[str, ...] | None = None
    label_name: str | None = None
    note: str = ""

    def line(self, row: int) -> int | None:
        """Return the line of a row in its file, or None where there are no lines."""
        return None if self.lines is None else int(self.lines[row])

    def rows(self, index: npt.NDArray[np.intp]) -> Table:
        """Return these rows, in this order."""
        lines = None if self.lines is None else self.lines[index]
        return replace(self, X=self.X[index], y=self.y[index], lines=lines)

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.X.shape
        return int(n), int(p)


@dataclass(frozen=True)
class Dataset:
    """Training rows, and held-out and test rows where the source has its own."""

    train: Table
    val: Table | None = None
    test: Table | None = None


#: How a missing label is written, in lower case: what pandas takes for one, a date that is none, a
#: question mark and a point. ``-`` is a class beside ``+``, and ``unknown`` may be one.
_MISSING = frozenset(
    "nan -nan na n/a n.a. #n/a #na <na> null none nat ? . 1.#ind -1.#ind 1.#qnan -1.#qnan".split()
) | {"", "#n/a n/a"}

#: Vectors of p numbers in float64 that a search holds at least.
_VECTORS = 8


def checked(table: Table, memory: int) -> Table:
    """Return the table, or raise where it is empty, of unequal lengths, not finite, or too wide.

    ``memory`` is what there is, in bytes: a sparse file of few entries can state any number of
    features.
    """
    n, p = table.shape
    if n == 0:
        raise BadFileError(table.source, "the file holds no rows", "Give a file with data.")
    if p == 0:
        raise BadFileError(table.source, "the rows hold no features", "Give at least one feature.")
    if table.y.shape != (n,):
        raise BadFileError(
            table.source,
            f"there are {n} rows of features but labels of shape {table.y.shape}",
            "Give one label for each row.",
        )
    _refuse_missing_labels(table)
    needed = _VECTORS * 8 * p
    if needed > memory:
        raise BadFileError(
            table.source,
            f"it states {p} features, and {_VECTORS} vectors of them need {needed / 1e9:.3g} GB "
            f"where there are {memory / 1e9:.3g}",
            "Check the number of features.",
        )
    _refuse_not_finite(table)
    return table


def _refuse_missing_labels(table: Table) -> None:
    if table.y.dtype.kind == "f":
        is_missing = ~np.isfinite(table.y)
    elif table.y.dtype.kind == "U":
        values, which = np.unique(table.y, return_inverse=True)
        is_missing = np.array([v.strip().lower() in _MISSING for v in values.tolist()])[which]
    else:
        return
    if is_missing.any():
        row = int(np.flatnonzero(is_missing)[0])
        label = table.y[row].item()
        state = "infinite" if label in (np.inf, -np.inf) else "missing"
        raise BadFileError(
            table.source,
            f"the label ({table.label}) is {state}: row {row + 1} has {label!r}",
            "Give the row a label, or leave it out.",
            line=table.line(row),
        )


def _refuse_not_finite(table: Table) -> None:
    is_sparse = sparse.issparse(table.X)
    stored = table.X.data if is_sparse else table.X
    if all_finite(stored, get_backend("numpy")):
        return
    if is_sparse:
        entry = int(np.flatnonzero(~np.isfinite(stored))[0])
        row = int(np.searchsorted(table.X.indptr, entry, side="right")) - 1
        column, value = int(table.X.indices[entry]), stored[entry]
    else:
        row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(stored)))
        value = stored[row, column]
    where = f"column {table.names[column]!r}" if table.names else f"feature {column + 1}"
    beyond = " Numbers beyond 1.8e308 are read as infinite, too." if np.isinf(value) else ""
    raise BadFileError(
        table.source,
        f"row {row + 1} has {value} in {where}",
        f"Replace it by a finite number (an imputed value, say), or leave the row out.{beyond}",
        line=table.line(row),
    )


def too_long(source: str | Path, label: str, line: int) -> BadFileError:
    """The error for a label that a float64 takes for another one."""
    return BadFileError(
        source,
        f"the label {label} has more digits than are told apart",
        "Write integers between -2^63 and 2^64 alone, numbers of 15 digits, or names.",
        line=line,
    )


def distinct_names(source: str | Path, names: Sequence[str], line: int | None = None) -> None:
    """Refuse columns that have no name, or one name twice: nothing could be matched with them."""
    for i, name in enumerate(names):
        if not name:
            raise BadFileError(
                source,
                f"column {i + 1} has no name",
                "Name it; leave out an index (pandas: to_csv(..., index=False)) and separators at "
                "the ends of the lines.",
                line=line,
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadFileError(
                source, f"two columns are called {name!r}", "Give each its own name.", line=line
            )
        seen.add(name)


def same_features(table: Table, reference: Table) -> Table:
    """Return the table with the features of the reference, or raise.

    Where both have names, the columns are put in the order of the reference. A sparse row names
    only its non-zero features, so a sparse file may stop short of the last one: it is widened. No
    other difference is repaired.

    Examples
    --------
    >>> y = np.ones(1)
    >>> train = Table(np.ones((1, 2)), y, "train.csv", names=("a", "b"))
    >>> test = Table(np.array([[2.0, 1.0]]), y, "test.csv", names=("b", "a"))
    >>> same_features(test, train).X
    array([[1., 2.]])
    """
    if table.names is not None or reference.names is not None:
        return _by_name(table, reference)
    p, expected = table.shape[1], reference.shape[1]
    if p == expected:
        return table
    if p < expected and sparse.issparse(table.X) and sparse.issparse(reference.X):
        X = sparse.csr_matrix(
            (table.X.data, table.X.indices, table.X.indptr), shape=(table.shape[0], expected)
        )
        return replace(table, X=X)
    cure = (
        f"Read both with --features {max(p, expected)}."
        if sparse.issparse(table.X) and sparse.issparse(reference.X)
        else "Give both files the same columns, in the same order."
    )
    raise BadFileError(
        table.source, f"it has {p} features but {reference.source} has {expected}", cure
    )


def _by_name(table: Table, reference: Table) -> Table:
    if table.names == reference.names:
        return table
    for one, other in ((table, reference), (reference, table)):
        if one.names is None:
            raise BadFileError(
                table.source,
                f"its columns can't be matched with those of {reference.source} by name, since "
                f"{one.source} has no names but {other.source} has",
                "Give both files the same names: a first line in CSV, feature_names in .npz.",
            )
    assert table.names is not None
    assert reference.names is not None
    places = {name: i for i, name in enumerate(table.names)}
    expected = set(reference.names)
    if places.keys() != expected:
        raise BadFileError(
            table.source,
            f"it has {len(table.names)} features but {reference.source} has {len(expected)}: it "
            f"{_difference(table.names, reference.names)}",
            "Give both files the same columns, in any order.",
        )
    order = [places[name] for name in reference.names]
    return replace(table, X=table.X[:, order], names=reference.names)


def _difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """Which names are missing and which are too many, in words."""
    missing = [name for name in expected if name not in set(names)]
    additional = [name for name in names if name not in set(expected)]
    parts = (("lacks", missing), ("has besides", additional))
    return " and ".join(f"{verb} {_listed(odd)}" for verb, odd in parts if odd)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more
