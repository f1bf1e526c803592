"""The data of the benchmarks: half of the training rows held out, on NumPy.

Text comes from the folder BILEVEL_DATA (20 Newsgroups, Reuters); the rest ships with
scikit-learn. The first half of ``RandomState(0).permutation(n)`` trains, the second validates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.preprocessing import normalize, scale

from bilevel.datasets import load
from bilevel.io import read


def _signs(positive: Any) -> Any:
    return np.where(positive, 1.0, -1.0)


def _text(name: str) -> tuple[Any, Any]:
    table = load(name, _folder()).train
    return sparse.csr_array(table.X).astype(np.float64), _signs(table.y > 0)


def newsgroups() -> tuple[Any, Any]:
    """scikit-learn's vectorised 20 Newsgroups: the first ten groups against the rest."""
    return _text("20news")


def reuters() -> tuple[Any, Any]:
    """Reuters-21578, "earn" or not: log(1 + count), rows of unit length."""
    X, y = _text("reuters")
    return normalize(X.log1p()), y


def breast_cancer() -> tuple[Any, Any]:
    """Wisconsin breast cancer, columns standardised."""
    X, y = load_breast_cancer(return_X_y=True)
    return scale(X), _signs(y > 0)


def digits() -> tuple[Any, Any]:
    """Handwritten digits, even or odd, pixels in [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return X / 16, _signs(y % 2 == 0)


def wine() -> tuple[Any, Any]:
    """Wine, the first cultivar against the rest, columns standardised."""
    X, y = load_wine(return_X_y=True)
    return scale(X), _signs(y == 0)


def diabetes() -> tuple[Any, Any]:
    """Diabetes, progression above the median or not, columns standardised."""
    X, y = load_diabetes(return_X_y=True)
    return scale(X), _signs(y > np.median(y))


def mnist() -> tuple[Any, Any]:
    """MNIST, classes 0 to 9, pixels in [0, 1]."""
    table = read(_folder() / "mnist.npz").train
    return table.X / 255, table.y.astype(np.int64)


def mnist_odd(n_rows: int = 4000) -> tuple[Any, Any]:
    """MNIST, odd or even, rows drawn by ``RandomState(0)``."""
    X, y = mnist()
    rows = np.random.RandomState(0).permutation(len(y))[:n_rows]
    return X[rows], _signs(y[rows] % 2 == 1)


DATASETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "breast cancer": breast_cancer,
    "digits": digits,
    "Reuters": reuters,
    "20 Newsgroups": newsgroups,
}

#: Small sets that only the robustness runs use.
MORE: dict[str, Callable[[], tuple[Any, Any]]] = {"wine": wine, "diabetes": diabetes}


#: A dense set that is larger than the caches: for the costs alone.
LARGER: dict[str, Callable[[], tuple[Any, Any]]] = {"MNIST": mnist_odd}


def halves(name: str) -> tuple[Any, Any, Any, Any]:
    """X, y of the training half and of the held-out half."""
    X, y = (DATASETS | MORE | LARGER)[name]()
    order = np.random.RandomState(0).permutation(X.shape[0])
    train, held = order[: len(order) // 2], order[len(order) // 2 :]
    return X[train], y[train], X[held], y[held]


def _folder() -> Path:
    folder = os.environ.get("BILEVEL_DATA")
    if folder is None:
        raise SystemExit("Set BILEVEL_DATA to the folder with the text data sets.")
    return Path(folder)
