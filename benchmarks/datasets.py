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


def _csr(file: Any, name: str) -> Any:
    parts = (file[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_array(tuple(parts), shape=tuple(file[f"{name}_shape"])).astype(np.float64)


def newsgroups() -> tuple[Any, Any]:
    """scikit-learn's vectorised 20 Newsgroups: the first ten groups against the rest."""
    with np.load(_folder() / "20news_vectorized.npz") as file:
        return _csr(file, "X_train"), np.where(file["y_train"] > 0, 1.0, -1.0)


def reuters() -> tuple[Any, Any]:
    """Reuters-21578, "earn" or not: log(1 + count), rows of unit length."""
    with np.load(_folder() / "reuters21578_earn_counts.npz") as file:
        X, y = _csr(file, "X_train"), np.where(file["y_train"] > 0, 1.0, -1.0)
    X.data = np.log1p(X.data)
    norms = np.sqrt(X.multiply(X).sum(axis=1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(norms > 0, norms, 1.0)) @ X), y


def breast_cancer() -> tuple[Any, Any]:
    """Wisconsin breast cancer, columns standardised."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * y - 1.0


def digits() -> tuple[Any, Any]:
    """Handwritten digits, even or odd, pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, np.where(y % 2 == 0, 1.0, -1.0)


def wine() -> tuple[Any, Any]:
    """Wine, the first cultivar against the rest, columns standardised."""
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), np.where(y == 0, 1.0, -1.0)


def diabetes() -> tuple[Any, Any]:
    """Diabetes, progression above the median or not, columns standardised."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), np.where(y > np.median(y), 1.0, -1.0)


def mnist() -> tuple[Any, Any]:
    """MNIST, classes 0 to 9, pixels in [0, 1]."""
    with np.load(_folder() / "mnist.npz") as file:
        X = file["X_train"].reshape(-1, 784).astype(np.float64) / 255
        return X, file["y_train"].astype(np.int64)


DATASETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "breast cancer": breast_cancer,
    "digits": digits,
    "Reuters": reuters,
    "20 Newsgroups": newsgroups,
}

#: Small sets that only the robustness runs use.
MORE: dict[str, Callable[[], tuple[Any, Any]]] = {"wine": wine, "diabetes": diabetes}


def halves(name: str) -> tuple[Any, Any, Any, Any]:
    """X, y of the training half and of the held-out half."""
    X, y = (DATASETS | MORE)[name]()
    order = np.random.RandomState(0).permutation(X.shape[0])
    train, held = order[: len(order) // 2], order[len(order) // 2 :]
    return X[train], y[train], X[held], y[held]


def _folder() -> Path:
    folder = os.environ.get("BILEVEL_DATA")
    if folder is None:
        raise SystemExit("Set BILEVEL_DATA to the folder with the text data sets.")
    return Path(folder)
