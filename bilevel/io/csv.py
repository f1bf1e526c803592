"""CSV and TSV files: one row a line, numbers in all columns but the label's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ._table import BadFileError, Table

#: Names that a label's column has, when nothing else is said.
LABEL_NAMES = ("y", "label", "target", "class")


def read_csv(path: Path, *, label: str | None = None) -> Table:
    """Read a CSV file (separated by comma, semicolon or tab), with or without a header.

    Parameters
    ----------
    path : Path
        The file.
    label : str, optional
        Name or number (from 0, negative from the end) of the label's column.

    Raises
    ------
    BadFileError
        If the rows are not of one length, or a feature is missing or no number.
    """
    rows, lines = _read_rows(path)
    header = None if any(_number(cell) is not None for cell in rows[0]) else rows[0]
    if header is not None:
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise BadFileError(path, "there is a header but no rows", "Add rows of data.")
    width = len(header if header is not None else rows[0])
    if width < 2:
        raise BadFileError(
            path,
            "there is one column only",
            "Give features and a label, separated by commas, semicolons or tabs.",
            line=lines[0],
        )
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            raise BadFileError(
                path,
                f"it has {len(row)} columns where {width} were expected",
                "Give every row the same columns; quote a value that holds the separator.",
                line=line,
            )
    column = _label_column(path, label, header, width)
    names = header or [str(i) for i in range(width)]
    X = _features(path, rows, lines, column, names)
    y = _labels(path, [row[column].strip() for row in rows], lines, names[column])
    return Table(X, y, str(path), np.asarray(lines, dtype=np.int64), f"column {names[column]!r}")


def _read_rows(path: Path) -> tuple[list[list[str]], list[int]]:
    rows, lines = [], []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        first = stream.readline()
        stream.seek(0)
        separator = max("\t;,", key=first.count)
        reader = csv.reader(stream, delimiter=separator)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append(row)
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise BadFileError(
                path, str(error), "Check the quotes of this line.", line=reader.line_num
            ) from error
    if not rows:
        raise BadFileError(path, "the file holds no rows", "Give a file with data.")
    return rows, lines


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _label_column(path: Path, label: str | None, header: list[str] | None, width: int) -> int:
    names = [name.strip() for name in header or ()]
    if label is None:
        known = [i for i, name in enumerate(names) if name.lower() in LABEL_NAMES]
        return known[0] if len(known) == 1 else width - 1
    if label in names:
        return names.index(label)
    if label.lstrip("-").isdigit() and -width <= int(label) < width:
        return int(label) % width
    have = ", ".join(names) if names else f"numbers 0 to {width - 1} (there is no header)"
    raise BadFileError(path, f"there is no column {label!r}", f"Give --label one of: {have}.")


def _features(
    path: Path, rows: list[list[str]], lines: list[int], column: int, names: list[str]
) -> npt.NDArray[np.float64]:
    X = np.empty((len(rows), len(names) - 1))
    for i, row in enumerate(rows):
        cells = row[:column] + row[column + 1 :]
        try:
            X[i] = [float(cell) for cell in cells]
        except ValueError:
            j = next(j for j, cell in enumerate(cells) if _number(cell) is None)
            name = names[j if j < column else j + 1]
            got = f"{cells[j].strip()!r}, no number" if cells[j].strip() else "no value"
            raise BadFileError(
                path,
                f"column {name!r} has {got}",
                "Encode or impute it, leave the row out, or name the label's column by --label.",
                line=lines[i],
            ) from None
    return X


def _labels(path: Path, cells: list[str], lines: list[int], name: str) -> npt.NDArray[np.str_]:
    for cell, line in zip(cells, lines, strict=True):
        if not cell or cell.lower() == "nan":
            raise BadFileError(
                path,
                f"the label (column {name!r}) is missing",
                "Give the row a label, or leave it out.",
                line=line,
            )
    numbers = [_number(cell) for cell in cells]
    if any(number is None for number in numbers):
        return np.asarray(cells)
    return np.asarray(numbers, dtype=np.float64)
