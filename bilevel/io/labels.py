"""Two classes as -1 and +1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._exact import equal, is_this
from ._table import BadFileError, Table

#: Pairs whose order is plain: (-1, +1), (0, 1) and (1, 2).
_ORDERED = ((-1.0, 1.0), (0.0, 1.0), (1.0, 2.0))


@dataclass(frozen=True)
class BinaryLabels:
    """The map from the labels of a file to -1 and +1.

    Fitted on the training file and applied to every other one, so that a file which happens to
    hold one class is not read the other way round.

    Attributes
    ----------
    negative : float, str or None
        The label that becomes -1; None where all but the positive one do.
    positive : float or str
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

    negative: Any
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
        values = np.unique(table.y)
        if positive is not None:
            return cls(None, _find(table, values, positive))
        if len(values) == 1:
            raise BadFileError(
                table.source,
                f"every label is {_show(values[0])}",
                "Give rows of both classes, or name another column by --label.",
            )
        if len(values) > 2:
            row = int(np.flatnonzero(~np.isin(table.y, values[:2]))[0])
            raise BadFileError(
                table.source,
                f"the labels are not binary: {len(values)} different ones "
                f"({', '.join(_show(v) for v in values[:6])}{', ...' if len(values) > 6 else ''})",
                f"Choose one class against the others by --positive {_show(values[-1])}, or check "
                f"that {table.label} is the label (--label names another column of a CSV file).",
                line=table.line(row),
            )
        low, high = values
        if values.dtype.kind in "US" or (float(low), float(high)) not in _ORDERED:
            raise BadFileError(
                table.source,
                f"the labels are {_show(low)} and {_show(high)}, and neither is plainly +1",
                f"Choose it by --positive {_show(high)}.",
            )
        return cls(low, high)

    @property
    def note(self) -> str:
        """What the map does, as a sentence; empty where it does nothing."""
        if self.negative is None:
            return f"label {_show(self.positive)} is read as +1, all others as -1"
        if (self.negative, self.positive) == (-1, 1):
            return ""
        return f"labels {_show(self.negative)} and {_show(self.positive)} are read as -1 and +1"

    def apply(self, table: Table) -> npt.NDArray[np.float64]:
        """Return -1 or +1 for each row; raise for a label that the training rows do not have."""
        self._refuse_another_kind(table)
        is_positive = equal(table.y, self.positive)
        if self.negative is not None:
            unknown = np.flatnonzero(~is_positive & ~equal(table.y, self.negative))
            if len(unknown):
                row = int(unknown[0])
                raise BadFileError(
                    table.source,
                    f"the label {_show(table.y[row])} is neither {_show(self.negative)} nor "
                    f"{_show(self.positive)}, the labels of the training rows",
                    "Give it the same labels.",
                    line=table.line(row),
                )
        return np.where(is_positive, 1.0, -1.0)

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


def _find(table: Table, values: npt.NDArray[Any], positive: str) -> Any:
    matching = [value for value in values if _show(value) == positive]
    if not matching and values.dtype.kind not in "US":
        matching = [value for value in values if is_this(positive, value)]
    if not matching:
        raise BadFileError(
            table.source,
            f"no row has the label {positive!r}",
            f"Give --positive one of: {', '.join(_show(v) for v in values[:20])}.",
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


def _show(value: Any) -> str:
    """Write a label as its file does: 2, not 2.0; two labels never in the same way."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer, np.bool_)):
        return str(int(value))
    number = float(value)
    return str(int(value)) if number.is_integer() and abs(number) < 1e15 else repr(number)
