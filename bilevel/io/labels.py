"""Two classes as -1 and +1."""

from __future__ import annotations

from collections import Counter
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
        self._refuse_another_kind(table)
        signs = {**dict.fromkeys(self.negatives, -1.0), self.positive: 1.0}
        labels = table.y.tolist()
        unknown = next((row for row, label in enumerate(labels) if label not in signs), None)
        if unknown is not None:
            raise BadFileError(
                table.source,
                f"the label {_show(labels[unknown])} is none of the training rows' "
                f"({_listed([*self.negatives, self.positive])})",
                "Write the labels as the training rows do, or leave the row out.",
                line=table.line(unknown),
            )
        return np.array([signs[label] for label in labels])

    def _refuse_another_kind(self, table: Table) -> None:
        """Numbers are no text: against a positive label of the other kind all would become -1."""
        is_text = table.y.dtype.kind in "US"
        if is_text == isinstance(self.positive, str):
            return
        odd = next((i for i, label in enumerate(table.y) if not _is_number(label)), 0)
        raise BadFileError(
            table.source,
            f"its labels are {'text' if is_text else 'numbers'}, as {_show(table.y[odd])}, but the "
            f"training rows have the label {_show(self.positive)}",
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
