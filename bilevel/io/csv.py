"""CSV and TSV files: one row a line, numbers in all columns but the label's."""

from __future__ import annotations

import csv
import itertools
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._exact import exact_labels, is_long
from ._files import lines, shown
from ._table import BadFileError, Table, distinct_names, too_long

#: Names that a label's column has, when nothing else is said.
LABEL_NAMES = ("y", "label", "target", "class")

#: Names that an index has; one that has none is refused whatever it holds.
_INDEX_NAMES = frozenset("id index row rowid row_id rownames row.names unnamed:0".split())

_SEPARATORS = "\t;,"

#: Lines of which the separator is read off.
_SNIFFED = 20

_DECIMAL_COMMA = re.compile(r"[+-]?[\d.]*,\d+([eE][+-]?\d+)?", re.ASCII)

_ASK = "Say whether the first line holds names: --header or --no-header."


@dataclass(frozen=True)
class _Row:
    """The cells of a row, without the blanks around them, and the line where it starts."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class _Content:
    """A file whose rows are numbers: the first one is a row or a header."""

    first: _Row
    column: int
    values: npt.NDArray[np.float64]
    labels: list[str]
    lines: array[int]


def read_csv(path: Path, *, label: str | None = None, header: bool | None = None) -> Table:
    """Read a CSV file (separated by comma, semicolon or tab), with or without a header.

    Parameters
    ----------
    path : Path
        The file.
    label : str, optional
        Name or number (from 0, negative from the end) of the label's column.
    header : bool, optional
        Whether the first row holds names; None where it is to be seen from the file.

    Raises
    ------
    BadFileError
        If the rows are not of one length, a feature is missing or no number, or the file can be
        read in two ways.
    """
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise BadFileError(path, "the file holds no rows", "Give a file with data.")
    width = len(first.cells)
    if width < 2:
        raise BadFileError(
            path,
            "there is one column only",
            "Give features and a label, separated by commas, semicolons or tabs.",
            line=first.line,
        )
    column, named = _label_column(path, label, first, header)
    seen = True if named else _is_header(path, first, column, header)
    names = None if seen is False else first.cells
    if seen:
        distinct_names(path, first.cells, first.line)
    content = _content(path, rows, first, column, names)
    if seen is None:
        seen = _is_header_by_labels(path, content)
    if header is None and seen is False:
        _refuse_a_header_of_numbers(path, content)
    return _table(path, content, named=seen)


#: What may stand around a cell. Control characters are none of it, which str.strip takes for
#: spaces: one that has come into the place of a digit would leave another number.
_BLANK = " \t\r\n\f\v\xa0"


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the rows that are not blank; one of separators alone is a row without values."""
    source = ((number, line) for number, line in lines(path) if line.strip(" \r\n"))
    head = list(itertools.islice(source, 1))
    stated = (
        re.fullmatch(r'\s*"?sep=([^\w"\r\n])"?[\r\n]*', head[0][1], re.IGNORECASE) if head else None
    )
    head = [] if stated else head
    head += itertools.islice(source, _SNIFFED)
    separator = stated[1] if stated else _separator([line for _, line in head])
    start = 0
    numbers: list[int] = []

    def feed() -> Iterator[str]:
        for number, line in itertools.chain(head, source):
            numbers.append(number)
            yield line

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    try:
        for cells in reader:
            start, *more = numbers
            numbers.clear()
            if more:
                raise BadFileError(
                    path,
                    f"a quoted cell goes on to line {more[-1]}",
                    "Close its quote, or leave out line breaks within cells.",
                    line=start,
                )
            cells = [cell.strip(_BLANK) for cell in cells]
            if any(cells) or len(cells) > 1:
                yield _Row(start, cells)
    except csv.Error as error:
        raise BadFileError(
            path,
            f"its quotes are not closed, or not as in CSV ({error})",
            "Check the quotes of this line.",
            line=numbers[0] if numbers else start,
        ) from error


def _separator(head: Sequence[str]) -> str:
    """Return the separator by which all lines have the same number of cells, more than one.

    Where there are several, in cells with quotes or decimal commas, that by which most cells of the
    last line are numbers.
    """
    agreed = {}
    for separator in _SEPARATORS:
        try:
            rows = [
                row for row in csv.reader(head, delimiter=separator) if any(map(str.strip, row))
            ]
        except csv.Error:  # a cell without end: the reader of the rows says so
            continue
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            numbers = [
                _number(c) is not None or _DECIMAL_COMMA.fullmatch(c.strip()) for c in rows[-1]
            ]
            agreed[separator] = sum(map(bool, numbers)) / len(numbers)
    if agreed:
        return max(agreed, key=lambda separator: agreed[separator])
    return max(_SEPARATORS, key=head[0].count) if head else ","


def _number(text: str) -> float | None:
    """Return a number as others read it: float() takes 1_000, ١ and control characters too."""
    if "_" in text or not text.isascii() or not text.isprintable():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _label_column(
    path: Path, label: str | None, first: _Row, header: bool | None
) -> tuple[int, bool]:
    """Return the column of the label, and whether it was asked for by a name of the first row."""
    names = [] if header is False else first.cells
    width = len(first.cells)
    if label is None:
        return _usual_label(path, first, names), False
    # Among numbers alone a number counts columns, unless they are said to be names.
    if label in names and (header or _number(label) is None or None in map(_number, names)):
        return names.index(label), True
    if re.fullmatch(r"-?\d{1,9}", label, re.ASCII) and -width <= int(label) < width:
        return int(label) % width, False
    named = header is not False and (header or all(_number(cell) is None for cell in first.cells))
    have = ", ".join(names) if named else f"numbers 0 to {width - 1} (there is no header)"
    raise BadFileError(
        path,
        f"there is no column {label!r}",
        f"Give --label one of: {have}; other files need the label of the training file.",
    )


def _usual_label(path: Path, first: _Row, names: Sequence[str]) -> int:
    """The column that is called as labels are, else the last one."""
    known = [i for i, name in enumerate(names) if name.lower() in LABEL_NAMES]
    if len(known) > 1:
        which = " and ".join(repr(names[i]) for i in known)
        raise BadFileError(
            path,
            f"the columns {which} could each be the label",
            "Name it by --label, and leave out what is no feature.",
            line=first.line,
        )
    return known[0] if known else len(first.cells) - 1


def _is_header(path: Path, first: _Row, column: int, told: bool | None) -> bool | None:
    """Tell whether the first row holds names; None where the other labels have to say it."""
    if told is not None:
        return told
    numbers = [_number(cell) is not None for cell in first.cells]
    if all(numbers):
        return False
    if not any(numbers):
        return True
    features = numbers[:column] + numbers[column + 1 :]
    if all(features):
        return None
    odd = first.cells[numbers.index(False)]
    raise BadFileError(
        path,
        f"it has numbers and {shown(odd)}: names of columns, or a row with a value that is none",
        f"{_ASK} {_cure(odd)}",
        line=first.line,
    )


def _is_header_by_labels(path: Path, content: _Content) -> bool:
    """The first row has numbers for features and text for a label: 1.5,M or 2019,outcome."""
    label = content.first.cells[content.column]
    if label in content.labels:
        return False
    raise BadFileError(
        path,
        f"it has numbers, and {shown(label)} for a label, which no other row has",
        _ASK,
        line=content.first.line,
    )


def _refuse_a_header_of_numbers(path: Path, content: _Content) -> None:
    """Refuse a first row such as 0,1,2,3, by which pandas calls columns without names."""
    cells, column = content.first.cells, content.column
    if not all(re.fullmatch(r"\d+", cell, re.ASCII) for cell in cells):
        return
    numbers = [int(cell) for cell in cells]
    counts = all(b == a + 1 for a, b in itertools.pairwise(numbers))
    broken = bool((content.values != np.floor(content.values)).any(axis=0).all())
    labels = {_number(label) for label in content.labels}
    foreign = len(set(numbers)) == len(numbers) and numbers[column] not in labels
    if (counts and (len(cells) > 2 or broken)) or (foreign and broken and len(labels) > 0):
        raise BadFileError(
            path,
            f"it reads {shown(','.join(cells))}: the numbers of the columns, or a row",
            _ASK,
            line=content.first.line,
        )


def _content(
    path: Path, rows: Iterator[_Row], first: _Row, column: int, names: list[str] | None
) -> _Content:
    """Read the numbers and labels of all rows but the first."""
    width = len(first.cells)
    values, labels, numbers = array("d"), [], array("q")
    for row in rows:
        if len(row.cells) != width:
            raise BadFileError(
                path,
                f"it has {len(row.cells)} columns where {width} were expected",
                "Give every row the same columns; quote a value that holds the separator.",
                line=row.line,
            )
        values.extend(_features(path, row, column, names))
        labels.append(row.cells[column])
        numbers.append(row.line)
    X = (
        np.frombuffer(values).reshape(len(labels), width - 1)
        if values
        else np.empty((0, width - 1))
    )
    return _Content(first, column, X, labels, numbers)


def _features(path: Path, row: _Row, column: int, names: list[str] | None) -> list[float]:
    cells = row.cells[:column] + row.cells[column + 1 :]
    numbers = [_number(cell) for cell in cells]
    if None not in numbers:
        return numbers  # type: ignore[return-value]
    j = numbers.index(None)
    place = j if j < column else j + 1
    name = names[place] if names else str(place)
    got = "no value" if not cells[j] else f"{shown(cells[j])}, no number"
    raise BadFileError(path, f"column {name!r} has {got}", _cure(cells[j]), line=row.line)


def _cure(cell: str) -> str:
    """What to do about a cell that is no number."""
    if _DECIMAL_COMMA.fullmatch(cell):
        return "Write numbers with a decimal point, 1.5 for 1,5, and without marks for thousands."
    if "_" in cell and _number(cell.replace("_", "")) is not None:
        return "Write numbers without underscores."
    return "Encode or impute it, leave the row out, or name the label's column by --label."


def _table(path: Path, content: _Content, *, named: bool) -> Table:
    """Put the rows together, the first one too where it is one."""
    first, column = content.first, content.column
    names = first.cells if named else [str(i) for i in range(len(first.cells))]
    X, labels, numbers = content.values, content.labels, content.lines
    if not named:
        X = np.concatenate([[_features(path, first, column, None)], X])
        labels = [first.cells[column], *labels]
        numbers = array("q", [first.line, *numbers])
    if not labels:
        raise BadFileError(path, "there is a header but no rows", "Add rows of data.")
    features = names[:column] + names[column + 1 :]
    _refuse_an_index(path, X, features if named else None, first.line)
    return Table(
        X,
        _labels(path, labels, numbers),
        str(path),
        np.asarray(numbers, dtype=np.int64),
        f"column {names[column]!r}",
        tuple(features) if named else None,
        names[column] if named else None,
    )


def _refuse_an_index(
    path: Path, X: npt.NDArray[np.float64], names: list[str] | None, line: int
) -> None:
    """Refuse a column that numbers the rows: it would be taken for a feature."""
    if names is not None:
        called = [name.lower().replace(" ", "") in _INDEX_NAMES for name in names]
        suspects = [j for j, is_index in enumerate(called) if is_index]
    else:
        suspects = [0] if X.shape[0] > 3 and X.shape[1] > 1 else []
    for j in suspects:
        column = X[:, j]
        if names is None:
            is_index = column[0] in (0, 1) and bool((np.diff(column) == 1).all())
        else:
            is_index = len(np.unique(column)) == len(column) > 1 and not (column % 1).any()
        if is_index:
            name = f"column {names[j]!r}" if names else "the first column"
            raise BadFileError(
                path,
                f"{name} numbers the rows: it is an index, not a feature",
                "Leave it out (pandas: to_csv(..., index=False)); if it is a feature, say so by "
                "another name in the first line.",
                line=line,
            )


def _labels(path: Path, cells: Sequence[str], numbers: Sequence[int]) -> npt.NDArray[Any]:
    values = [_number(cell) for cell in cells]
    if None in values:
        return np.asarray(cells)
    long = {row: cell for row, cell in enumerate(cells) if is_long(cell)}
    exact = exact_labels(np.asarray(values, dtype=np.float64), long)
    if isinstance(exact, int):
        raise too_long(path, cells[exact], numbers[exact])
    return exact
