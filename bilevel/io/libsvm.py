"""LIBSVM files: ``label index:value index:value ...``, one row a line."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ._exact import exact_labels, is_long
from ._files import lines, shown
from ._table import BadFileError, Table, too_long

_NUMBER = r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?"

#: A row. The parser reads numbers as Python does, which takes 1_000 and nan too.
_ROW = re.compile(rf"\s*+{_NUMBER}(?:\s++qid:\d++)?(?:\s++\d++:{_NUMBER})*+\s*+", re.ASCII)

_INTEGER = re.compile(r"-?\d+", re.ASCII)

#: More features than this, and so many times more than there are entries, have to be asked for.
_MANY, _PER_ENTRY = 1_000_000, 1000

#: A row that is cut is mostly a row all the same: a shorter one, or one of another number.
_CUT = "its last line has no end; if the file was cut, the last row is wrong"

#: Of a feature: what the parser's integers hold.
_LARGEST = 2**31 - 1


def read_libsvm(path: Path, *, n_features: int | None = None, zero_based: bool = False) -> Table:
    """Read a LIBSVM file with scikit-learn's parser.

    The parser is fast, but lenient about numbers and silent about lines: it is handed line after
    line, each held against the format first.

    Raises
    ------
    BadFileError
        If scikit-learn is missing, or a line is not as the format says.
    """
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError:
        raise BadFileError(
            path,
            "LIBSVM files are read with scikit-learn, which is not installed",
            'Run: pip install "bilevel[sklearn]".',
        ) from None
    rows = _Rows(path, n_features, zero_based)
    try:
        X, y = load_svmlight_file(
            rows, n_features=n_features, zero_based=zero_based, dtype=np.float64
        )
    except BadFileError:
        raise
    except (ValueError, OverflowError) as error:
        explain(path, n_features=n_features, zero_based=zero_based)
        raise BadFileError(path, f"it is no LIBSVM file ({error})", "Check its format.") from error
    if not np.isfinite(y).all() or not np.isfinite(X.data).all():  # 1e999
        explain(path, n_features=n_features, zero_based=zero_based)
    if n_features is None:
        rows.refuse_features_that_are_none(X.nnz)
    numbers = np.asarray(rows.numbers, dtype=np.int64)
    labels = exact_labels(y, rows.long)
    if isinstance(labels, int):
        raise too_long(path, rows.long[labels], rows.numbers[labels])
    note = "" if rows.ended else f"{path}: {_CUT}"
    return Table(X, labels, str(path), numbers, "the first number of each line", note=note)


class _Rows:
    """The rows of a file for the parser, as bytes, without comments; each is a row indeed.

    Attributes
    ----------
    numbers : array of integers
        The line of each row.
    largest, at : int
        The largest number of a feature, and its line.
    long : dict
        The labels of many digits, by row.
    ended : bool
        Whether the last line has an end.
    """

    def __init__(self, path: Path, n_features: int | None, zero_based: bool) -> None:
        self._path, self._n_features, self._first = path, n_features, 0 if zero_based else 1
        self.numbers = array("q")
        self.largest, self.at = -1, 0
        self.long: dict[int, str] = {}
        self.ended = True

    def read(self, size: int = -1) -> bytes:
        """What makes it a file for the parser, which does not call it."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        for number, row, self.ended in _content(self._path):
            if _ROW.fullmatch(row) is None:
                problem, cure = _line_problem(row.split(), self._first, self._n_features)
                raise BadFileError(
                    self._path,
                    problem or f"{shown(row)} is no row of a LIBSVM file",
                    cure or "Write it as: label index:value index:value ...",
                    line=number,
                )
            label = row.split(None, 1)[0]
            if is_long(label):
                self.long[len(self.numbers)] = label
            self.numbers.append(number)
            last = row.rpartition(":")[0].split()[-1:]
            if last and last[0] != "qid" and int(last[0]) > self.largest:
                self.largest, self.at = int(last[0]), number
            yield row.encode()

    def refuse_features_that_are_none(self, entries: int) -> None:
        """Refuse labels alone, and one large number that makes a matrix of mostly empty columns."""
        if self.numbers and self.largest < self._first:
            raise BadFileError(
                self._path, "the rows hold no features", "Give at least one, or --features."
            )
        count = self.largest + 1 - self._first
        if count > max(_MANY, _PER_ENTRY * entries):
            raise BadFileError(
                self._path,
                f"feature {self.largest} makes {count} features, for {entries} numbers in all",
                f"Check it; if it is right, say so by --features {count}.",
                line=self.at,
            )


def _content(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield (line number, text before a comment, whether it ends) of the lines that hold a row."""
    for number, line in lines(path, errors="replace"):
        row = line.partition("#")[0]
        if row.strip():
            yield number, row, line.endswith(("\n", "\r"))


def explain(path: Path, *, n_features: int | None, zero_based: bool) -> None:
    """Raise for the first line that is wrong; return where every line is right."""
    first = 0 if zero_based else 1
    for number, row, _ in _content(path):
        problem, cure = _line_problem(row.split(), first, n_features)
        if problem:
            raise BadFileError(path, problem, cure, line=number)


def _line_problem(tokens: list[str], first: int, n_features: int | None) -> tuple[str, str]:
    label, *pairs = tokens
    if not _is_number(label):
        csv = " A CSV file under another suffix is read with --format csv." if "," in label else ""
        return (
            f"the label is {shown(label)}",
            f"Start each line with a finite number, the label.{csv}",
        )
    if pairs and re.fullmatch(r"qid:\d+", pairs[0], re.ASCII):
        pairs = pairs[1:]
    previous = first - 1
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not _INTEGER.fullmatch(name):
            return f"{shown(pair)} is no index:value pair", "Write features as index:value."
        problem, cure = _index_problem(name, previous, first, n_features)
        if problem:
            return problem, cure
        if not _is_number(value):
            return (
                f"feature {name} has the value {shown(value)}",
                "Give a finite number, or leave the pair out (it means zero).",
            )
        previous = int(name)
    return "", ""


def _index_problem(name: str, previous: int, first: int, n_features: int | None) -> tuple[str, str]:
    if len(name) > 11 or int(name) > _LARGEST:
        return (
            f"the feature number {shown(name)} is beyond {_LARGEST}",
            "Number the features from 1 on.",
        )
    index = int(name)
    if index < first:
        return f"the feature number {index} is below {first}", (
            "Read it with --zero-based." if index == 0 else "Number the features from 1."
        )
    if index <= previous:
        return (
            f"feature {index} comes after feature {previous}",
            "Name each feature of a line once, in increasing order.",
        )
    if n_features is not None and index - first >= n_features:
        return (
            f"feature {index} is beyond --features {n_features}",
            f"Give --features {index - first + 1} or more.",
        )
    return "", ""


def _is_number(text: str) -> bool:
    return re.fullmatch(_NUMBER, text, re.ASCII) is not None and bool(np.isfinite(float(text)))
