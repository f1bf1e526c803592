"""LIBSVM files: ``label index:value index:value ...``, one row a line."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ._table import BadFileError, Table

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}


def read_libsvm(path: Path, *, n_features: int | None = None, zero_based: bool = False) -> Table:
    """Read a LIBSVM file with scikit-learn's parser.

    The parser is fast but silent about lines: where it fails, the file is scanned for the first
    line that is wrong.

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
    try:
        X, y = load_svmlight_file(
            str(path), n_features=n_features, zero_based=zero_based, dtype=np.float64
        )
    except (ValueError, OverflowError, OSError, EOFError) as error:
        explain(path, n_features=n_features, zero_based=zero_based)
        raise BadFileError(path, f"it is no LIBSVM file ({error})", "Check its format.") from error
    # Lines are only wanted for an error, but the file is the one source of them.
    suspicious = not np.isfinite(y).all() or not np.isfinite(X.data).all()
    if suspicious:
        explain(path, n_features=n_features, zero_based=zero_based)
    return Table(X, y, str(path), _row_lines(path, len(y)), "the first number of each line")


def _open(path: Path) -> IO[str]:
    opener = _OPENERS.get(path.suffix.lower(), open)
    return opener(path, "rt", encoding="utf-8", errors="replace")  # type: ignore[operator, no-any-return]


def _content(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, tokens) of the lines that hold a row."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            tokens = line.partition("#")[0].split()
            if tokens:
                yield number, tokens


def _row_lines(path: Path, n: int) -> np.ndarray:
    lines = np.fromiter((number for number, _ in _content(path)), dtype=np.int64)
    return lines[:n]


def explain(path: Path, *, n_features: int | None, zero_based: bool) -> None:
    """Raise for the first line that is wrong; return where every line is right."""
    first = 0 if zero_based else 1
    for number, tokens in _content(path):
        problem, cure = _line_problem(tokens, first, n_features)
        if problem:
            raise BadFileError(path, problem, cure, line=number)


def _line_problem(tokens: list[str], first: int, n_features: int | None) -> tuple[str, str]:
    label, *pairs = tokens
    if not _is_number(label):
        return f"the label is {label!r}", "Start each line with a finite number, the label."
    if pairs and pairs[0].startswith("qid:"):
        pairs = pairs[1:]
    previous = first - 1
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name.lstrip("-").isdigit():
            return f"{pair!r} is no index:value pair", "Write features as index:value."
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
        if not _is_number(value):
            return (
                f"feature {index} has the value {value!r}",
                "Give a finite number, or leave the pair out (it means zero).",
            )
        if n_features is not None and index - first >= n_features:
            return (
                f"feature {index} is beyond --features {n_features}",
                f"Give --features {index - first + 1} or more.",
            )
        previous = index
    return "", ""


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
