"""Real data by name, for a first run and for comparisons.

A set is looked for in the folder of the environment variable ``BILEVEL_DATA``, then fetched
from its official source through scikit-learn; where there is no such route the error says what
to download and where to put it.

>>> load("breast_cancer").train.shape
(427, 30)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .io import BadFileError, Dataset, ReadOptions, Table, read, split

#: The seed and the part of the test rows of sets that come without a split of their own.
_TEST_SEED, _TEST_FRACTION = 0, 0.25


@dataclass(frozen=True)
class Entry:
    """A registered set: what it is, its size, and how it is loaded."""

    name: str
    description: str
    size: str
    load: Callable[[Path | None], Dataset]
    #: Names of the files that hold it in the folder of BILEVEL_DATA; none where it is bundled.
    files: tuple[str, ...] = ()

    def found(self, folder: Path | None) -> Path | None:
        """Return its file in the folder, or None."""
        if folder is None:
            return None
        return next((folder / f for f in self.files if (folder / f).exists()), None)


def data_folder() -> Path | None:
    """Return the folder that ``BILEVEL_DATA`` names, or None."""
    value = os.environ.get("BILEVEL_DATA")
    return Path(value).expanduser() if value else None


def load(name: str, folder: Path | None = None) -> Dataset:
    """Load a registered set.

    Parameters
    ----------
    name : str
        One of :data:`REGISTRY`.
    folder : Path, optional
        Where its file is looked for; the folder that ``BILEVEL_DATA`` names by default.

    Raises
    ------
    KeyError
        If no set has this name.
    BadFileError
        If it is not here and cannot be fetched; the message says what to do.
    """
    return REGISTRY[name].load(folder or data_folder())


def _sklearn_datasets(name: str) -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise BadFileError(
            name,
            "this set comes with scikit-learn, which is not installed",
            'Run: pip install "bilevel[sklearn]".',
        ) from None
    return datasets


def _missing(name: str, files: tuple[str, ...], cure: str, error: Exception | None = None) -> Any:
    why = f" ({type(error).__name__}: {error})" if error else ""
    where = data_folder()
    place = f"the folder {where}" if where else "a folder, and name it in BILEVEL_DATA"
    return BadFileError(
        name,
        f"the set is not here and was not fetched{why}",
        f"{cure} into {place}, as {files[0]}.",
    )


def _with_test(table: Table) -> Dataset:
    kept, taken = split(table, _TEST_FRACTION, _TEST_SEED, what="test")
    return Dataset(kept, test=taken)


def _breast_cancer(folder: Path | None) -> Dataset:
    X, y = _sklearn_datasets("breast_cancer").load_breast_cancer(return_X_y=True)
    return _with_test(Table(X, y, "breast_cancer"))


def _digits(folder: Path | None) -> Dataset:
    X, y = _sklearn_datasets("digits").load_digits(return_X_y=True)
    return _with_test(Table(X / 16, (y >= 5).astype(int), "digits"))


_NEWS_FILES = ("20news_vectorized.npz",)


def _news(folder: Path | None) -> Dataset:
    path = REGISTRY["20news"].found(folder)
    if path is not None:
        return read(path)
    fetch = _sklearn_datasets("20news").fetch_20newsgroups_vectorized

    def part(subset: str) -> Table:
        X, y = fetch(subset=subset, return_X_y=True)
        return Table(X, np.where(y < 10, -1, 1), f"20news ({subset})")

    try:
        return Dataset(part("train"), test=part("test"))
    except Exception as error:  # the fetcher raises what its transport raises
        raise _missing(
            "20news",
            _NEWS_FILES,
            "Put the arrays of sklearn.datasets.fetch_20newsgroups_vectorized (X_train, y_train, "
            "X_test, y_test; y = -1 for the first ten groups, +1 for the others)",
            error,
        ) from error


_MNIST_FILES = ("mnist.npz",)


def _mnist(folder: Path | None) -> Dataset:
    path = REGISTRY["mnist"].found(folder)
    if path is not None:
        raw = read(path)
        train, test = raw.train, raw.test
        if test is None:
            raise BadFileError(path, "it has no test part", "Add X_test and y_test.")
    else:
        try:
            X, y = _sklearn_datasets("mnist").fetch_openml(
                "mnist_784", version=1, return_X_y=True, as_frame=False
            )
        except BadFileError:
            raise
        except Exception as error:  # the fetcher raises what its transport raises
            raise _missing(
                "mnist",
                _MNIST_FILES,
                'Put the arrays of sklearn.datasets.fetch_openml("mnist_784") (X_train, y_train: '
                "the first 60,000 rows; X_test, y_test: the others)",
                error,
            ) from error
        digits = y.astype(int)
        train = Table(X[:60_000], digits[:60_000], "mnist (train)")
        test = Table(X[60_000:], digits[60_000:], "mnist (test)")
    return Dataset(_odd_digits(train), test=_odd_digits(test))


def _odd_digits(table: Table) -> Table:
    if table.y.dtype.kind not in "fiub":
        raise BadFileError(
            table.source,
            f"its labels have the dtype {table.y.dtype}",
            "Store the digits as integers.",
        )
    X = table.X  # of ours alone: scaled where it lies, unless it holds integers
    X = np.divide(X, 255, out=X if X.dtype.kind == "f" else None)
    return Table(X, table.y.astype(int) % 2, table.source, label="odd digit")


_REUTERS_FILES = ("reuters21578_earn_counts.npz",)


def _reuters(folder: Path | None) -> Dataset:
    path = REGISTRY["reuters"].found(folder)
    if path is None:
        raise _missing(
            "reuters",
            _REUTERS_FILES,
            'Get "Reuters-21578" from https://archive.ics.uci.edu/dataset/137, count the tokens '
            "of the ModApte split (X_train, y_train, X_test, y_test; CSR arrays X_train_data, ...; "
            'y = +1 for topic "earn") and put them',
        )
    return read(path)


_REAL_SIM_FILES = ("real-sim", "real-sim.bz2", "real-sim.svm")


def _real_sim(folder: Path | None) -> Dataset:
    path = REGISTRY["real-sim"].found(folder)
    if path is None:
        raise _missing(
            "real-sim",
            _REAL_SIM_FILES,
            "Download https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/real-sim.bz2",
        )
    return read(path, ReadOptions(features=20_958))


_ENTRIES = (
    Entry("breast_cancer", "Wisconsin breast cancer, benign = +1", "569 × 30", _breast_cancer),
    Entry("digits", "8 × 8 digits, 5 to 9 = +1", "1,797 × 64", _digits),
    Entry(
        "20news",
        "20 Newsgroups by date, the last ten groups = +1 (sparse)",
        "11,314 + 7,532 × 130,107",
        _news,
        _NEWS_FILES,
    ),
    Entry(
        "reuters",
        'Reuters-21578 token counts, topic "earn" = +1 (sparse)',
        "9,603 + 3,299 × 29,609",
        _reuters,
        _REUTERS_FILES,
    ),
    Entry("mnist", "MNIST, odd digits = +1", "60,000 + 10,000 × 784", _mnist, _MNIST_FILES),
    Entry(
        "real-sim",
        "real against simulated news groups (sparse)",
        "72,309 × 20,958",
        _real_sim,
        _REAL_SIM_FILES,
    ),
)

#: The sets by name.
REGISTRY: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
