"""Two classes as -1 and +1, several as 0, 1, 2, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._exact import is_this
from ._table import BadFileError, Table

#: Pairs whose order is plain.
_ORDERED = ((-1, 1), (0, 1), (1, 2))

#: So many labels are named where all of them would be too many.
_SHOWN = 12

#: So many classes a model of several has at most: labels of more kinds are rather measurements.
MOST_CLASSES = 1000

#: From here on a float64 does not hold every integer.
_WHOLE = 2**53


@dataclass(frozen=True)
class BinaryLabels:
    """The map from the labels of a file to -1 and +1.

    Fitted on the training file and applied to every other one, so that a file which happens to
    hold one class is not read the other way round. A label that the training file does not have is
    refused: a ``Yes`` beside ``yes`` would become -1 among the others.

    Attributes
    ----------
    negatives : tuple of int, float or str
        The labels that become -1, as numbers of Python, which are compared exactly.
    positive : int, float or str
        The label that becomes +1.

    Examples
    --------
    >>> table = Table(np.ones((3, 1)), np.array([1, 2, 2]), "a.svm")
    >>> labels = BinaryLabels.fit(table)
    >>> labels.apply(table)
    array([-1.,  1.,  1.])
    >>> labels.note
    'labels 1 and 2 are read as -1 and +1'
    """

    negatives: tuple[Any, ...]
    positive: Any

    @classmethod
    def fit(cls, table: Table, positive: str | None = None) -> BinaryLabels:
        """Find the two classes of a table.

        Parameters
        ----------
        table : Table
            The training rows.
        positive : str, optional
            The label of the class that becomes +1, against all others.

        Raises
        ------
        BadFileError
            If there are not two classes, or it is not plain which one is +1.
        """
        values = _classes(table)
        if positive is not None:
            found = _find(table, values, positive)
            return cls(tuple(value for value in values if value != found), found)
        if len(values) == 1:
            raise BadFileError(
                table.source,
                f"every label is {_show(values[0])}",
                "Give rows of both classes, or name another column by --label.",
            )
        if len(values) > 2:
            row = int(np.flatnonzero(~np.isin(table.y, np.unique(table.y)[:2]))[0])
            raise BadFileError(
                table.source,
                f"the labels are not binary: {len(values)} different ones ({_listed(values)})",
                f"Choose one class against the others by --positive {_show(values[-1])}, or check "
                f"that {table.label} is the label (--label names another column of a CSV file).",
                line=table.line(row),
            )
        low, high = values
        if (low, high) not in _ORDERED:
            raise BadFileError(
                table.source,
                f"the labels are {_show(low)} and {_show(high)}, and neither is plainly +1",
                f"Choose it by --positive {_show(high)}.",
            )
        return cls((low,), high)

    @property
    def classes(self) -> tuple[str, str]:
        """What -1 and +1 stand for, written as in every note: 1 for 1.0, True for True."""
        one = len(self.negatives) == 1
        negative = _show(self.negatives[0]) if one else f"not {_show(self.positive)}"
        return negative, _show(self.positive)

    @property
    def note(self) -> str:
        """What the map does, as a sentence; empty where it does nothing."""
        if len(self.negatives) > 1:
            others = f"the {len(self.negatives)} others as -1"
            return f"label {_show(self.positive)} is read as +1, {others}"
        if (*self.negatives, self.positive) == (-1, 1):
            return ""
        return f"labels {_show(self.negatives[0])} and {_show(self.positive)} are read as -1 and +1"

    def counts(self, table: Table) -> str:
        """How many rows have each label, as text; the positive one first."""
        rows = Counter(table.y.tolist())
        others = [label for label in self.negatives if rows[label]]
        return f"+1: {_counted([self.positive], rows)}; -1: {_counted(others, rows)}"

    def apply(self, table: Table) -> npt.NDArray[np.float64]:
        """Return -1 or +1 for each row; raise for a label that the training rows do not have."""
        signs = {**dict.fromkeys(self.negatives, -1.0), self.positive: 1.0}
        return np.array(_coded(table, signs, self.positive))


@dataclass(frozen=True)
class ClassLabels:
    """The map from integer labels of a file to the class numbers 0, 1, 2, ...

    Fitted on the training file and applied to every other one, as :class:`BinaryLabels`.

    Attributes
    ----------
    values : tuple of int
        The labels, the smallest first.
    label : str
        What was taken for the label.

    Examples
    --------
    >>> table = Table(np.ones((4, 1)), np.array([2, 7, 5, 2]), "a.svm")
    >>> labels = ClassLabels.fit(table)
    >>> labels.values, labels.apply(table)
    ((2, 5, 7), array([0., 2., 1., 0.]))
    """

    values: tuple[int, ...]
    label: str = "y"

    @classmethod
    def fit(cls, table: Table) -> ClassLabels:
        """Find the classes of a table, the training rows.

        Raises
        ------
        BadFileError
            If the labels are no integers, or of one kind or too many.
        """
        values = _classes(table)
        several = f"the labels are not binary: {len(values):,} different ones ({_listed(values)})"
        check = (
            f"check that {table.label} is the label (--label names another column of a CSV file)."
        )
        if len(values) == 1:
            raise BadFileError(
                table.source, f"every label is {_show(values[0])}", f"Give more classes, or {check}"
            )
        odd = next((value for value in values if not _is_whole(value)), None)
        if odd is not None:
            raise BadFileError(
                table.source,
                f"{several}, and {_show(odd)} is no integer",
                "Number the classes for a multinomial model, choose one class against the others "
                f"by --positive {_show(values[-1])}, or {check}",
                line=table.line(_row_of(table, odd)),
            )
        if len(values) > MOST_CLASSES:
            raise BadFileError(
                table.source, several, f"Give at most {MOST_CLASSES:,} classes, or {check}"
            )
        return cls(tuple(int(value) for value in values), table.label)

    @property
    def classes(self) -> npt.NDArray[np.integer]:
        """The labels as an array of integers."""
        return np.array(self.values)

    @property
    def note(self) -> str:
        """What was taken for the label, as a sentence: it may be another column."""
        return f"{self.label} holds {len(self.values):,} classes, of a multinomial model"

    def counts(self, table: Table) -> str:
        """How many rows have each label, as text."""
        return _counted(list(self.values), Counter(table.y.tolist()))

    def apply(self, table: Table) -> npt.NDArray[np.float64]:
        """Return the class number of each row; raise for a label that the training rows lack."""
        numbers = {value: float(j) for j, value in enumerate(self.values)}
        return np.array(_coded(table, numbers, self.values[0]))

    def refuse_split(self, table: Table, kept: Table) -> None:
        """Raise where a class of ``table`` has no row among those that were ``kept`` to train.

        A class of one row is refused whichever part it came to: that is chance.
        """
        rows, left = Counter(table.y.tolist()), set(kept.y.tolist())
        alone = [value for value in self.values if rows[value] == 1]
        if alone:
            raise BadFileError(
                table.source,
                f"the labels are not binary: {len(self.values):,} different ones "
                f"({_listed(list(self.values))}), and {alone[-1]} has one row alone, which cannot "
                "both train and be held out",
                "Give each class more rows, hold out a file by --val, choose one class against the "
                f"others by --positive, or check that {table.label} is the label (--label names "
                "another column of a CSV file).",
                line=table.line(_row_of(table, alone[-1])),
            )
        missing = [value for value in self.values if value not in left]
        if missing:
            raise BadFileError(
                table.source,
                f"the split leaves no row of the class {_listed(missing)} to train on",
                "Hold out fewer rows, split by another --seed, or hold out a file by --val.",
                line=table.line(_row_of(table, missing[0])),
            )


def _row_of(table: Table, label: Any) -> int:
    """The first row that has this label."""
    return next(row for row, value in enumerate(table.y.tolist()) if value == label)


def _is_whole(value: Any) -> bool:
    if isinstance(value, (bool, str)):
        return False
    return isinstance(value, int) or (value.is_integer() and abs(value) < _WHOLE)


def _coded(table: Table, codes: Mapping[Any, float], like: Any) -> list[float]:
    """The number of each row's label; raise for one without, or of another kind than ``like``."""
    _refuse_another_kind(table, like)
    labels = table.y.tolist()
    unknown = next((row for row, label in enumerate(labels) if label not in codes), None)
    if unknown is not None:
        raise BadFileError(
            table.source,
            f"the label {_show(labels[unknown])} is none of the training rows' "
            f"({_listed(list(codes))})",
            "Write the labels as the training rows do, or leave the row out.",
            line=table.line(unknown),
        )
    return [codes[label] for label in labels]


def _refuse_another_kind(table: Table, like: Any) -> None:
    """Numbers are no text: against a positive label of the other kind all would become -1."""
    is_text = table.y.dtype.kind in "US"
    if is_text == isinstance(like, str):
        return
    odd = next((i for i, label in enumerate(table.y) if not _is_number(label)), 0)
    raise BadFileError(
        table.source,
        f"its labels are {'text' if is_text else 'numbers'}, as {_show(table.y[odd])}, but the "
        f"training rows have the label {_show(like)}",
        "Give it the same labels.",
        line=table.line(odd),
    )


def _classes(table: Table) -> list[Any]:
    """The different labels in their order, as numbers of Python or text, no two of one number."""
    values: list[Any] = np.unique(table.y).tolist()
    if table.y.dtype.kind != "U":
        return values
    seen: dict[float, str] = {}
    for text in filter(_is_number, values):
        other = seen.setdefault(float(text), text)
        if other != text:
            raise BadFileError(
                table.source,
                f"the labels {other} and {text} are one number beside labels that are text, and "
                "would be two classes",
                "Write the label in one way.",
                line=table.line(int(np.flatnonzero(table.y == text)[0])),
            )
    return values


def _find(table: Table, values: list[Any], positive: str) -> Any:
    matching = [value for value in values if _show(value) == positive]
    if not matching and not isinstance(values[0], str):
        matching = [value for value in values if is_this(positive, value)]
    if not matching:
        raise BadFileError(
            table.source,
            f"no row has the label {positive!r}",
            f"Give --positive one of: {_listed(values)}.",
        )
    if len(values) == 1:
        raise BadFileError(table.source, f"every label is {positive}", "Give rows of both classes.")
    return matching[0]


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(values: list[Any]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(_show(value) for value in values[:_SHOWN]) + more


def _counted(labels: list[Any], rows: Counter[Any]) -> str:
    """The labels with their rows, the rarest first: what is misspelt is rare."""
    rarest = sorted(labels, key=lambda label: rows[label])
    parts = [f"{_show(label)} ({rows[label]:,})" for label in rarest[:_SHOWN]]
    more = [f"{len(rarest) - _SHOWN} more"] if len(rarest) > _SHOWN else []
    return ", ".join(parts + more) or "none"


def _show(value: Any) -> str:
    """Write a label as its file does: 2, not 2.0; two labels never in the same way."""
    if isinstance(value, (str, bool, np.bool_)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    number = float(value)
    return str(int(value)) if number.is_integer() and abs(number) < 1e15 else repr(number)
