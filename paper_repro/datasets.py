"""The data of the papers, as host arrays.

The registered sets of :mod:`bilevel.datasets` are used where there is one. The others are looked
for in the folder that BILEVEL_DATA names, then fetched from their official source, checked and
cached; and else an error says what to download.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize

import bilevel
from bilevel.backends import Backend
from bilevel.datasets import REGISTRY, data_folder, load
from bilevel.design import CSRDesign, DenseDesign, Design
from bilevel.io import BadFileError, Dataset, ReadOptions, read


@dataclass(frozen=True)
class Data:
    """Features and labels on the host.

    Attributes
    ----------
    name : str
        What it is.
    X : array or CSR matrix, shape (n, p)
    y : array, shape (n,)
    group : array of shape (n,), or None
        Rows of one group must stay together in a split (the patients).
    note : str
        Where it departs from the paper's set; empty where it does not.
    """

    name: str
    X: Any
    y: Any
    group: Any = None
    note: str = ""

    def subset(self, n: int | None, seed: int = 0) -> Data:
        """Return n rows drawn at random, or all."""
        if n is None or n >= len(self.y):
            return self
        rows = np.random.default_rng(seed).permutation(len(self.y))[:n]
        group = None if self.group is None else self.group[rows]
        return Data(self.name, self.X[rows], self.y[rows], group, self.note)

    def thirds(self, seed: int) -> tuple[tuple[Any, Any], ...]:
        """Split at random into (training, validation, test) of equal sizes, as in section 4.

        Rows of one group go to one part.
        """
        rng = np.random.default_rng(seed)
        if self.group is None:
            parts = np.array_split(rng.permutation(len(self.y)), 3)
        else:
            chosen = np.array_split(rng.permutation(np.unique(self.group)), 3)
            parts = [np.flatnonzero(np.isin(self.group, part)) for part in chosen]
        return tuple((self.X[part], self.y[part]) for part in parts)


def cache() -> Path:
    """Where fetched files are kept: BILEVEL_CACHE, or ~/.cache/bilevel."""
    place = Path(os.environ.get("BILEVEL_CACHE", Path.home() / ".cache" / "bilevel"))
    place.mkdir(parents=True, exist_ok=True)
    return place


def fetch(url: str, name: str, sha256: str | None = None) -> Path:
    """Download a file once, refuse another than the expected one, keep it in the cache.

    Without a published checksum that of the first download is kept beside the file, and every
    later read is held to it.

    Raises
    ------
    BadFileError
        If the source cannot be reached, or the file is not the expected one.
    """
    path = cache() / name
    known = path.with_name(f"{name}.sha256")
    if not path.exists():
        try:
            with urllib.request.urlopen(url, timeout=60) as reply:
                content = reply.read()
        except OSError as error:
            raise BadFileError(
                name,
                f"{url} could not be reached ({error})",
                "Download it by hand into a folder, and name that folder in BILEVEL_DATA.",
            ) from error
        path.write_bytes(content)
        known.write_text(hashlib.sha256(content).hexdigest())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = sha256 or (known.read_text().strip() if known.exists() else digest)
    if digest != expected:
        raise BadFileError(
            path, f"its SHA-256 is {digest}, not {expected}", "Delete it and run again."
        )
    return path


def _all_rows(found: Dataset) -> tuple[Any, Any]:
    """Training and test rows, one below the other: the experiments split anew."""
    tables = [table for table in (found.train, found.val, found.test) if table is not None]
    X = sparse.vstack([table.X for table in tables], format="csr").astype(np.float64)
    return sparse.csr_array(X), np.concatenate([table.y for table in tables]).astype(np.float64)


def news() -> Data:
    """20 Newsgroups, all 18,846 posts, the first ten groups against the others."""
    X, y = _all_rows(load("20news"))
    return Data("20 Newsgroups", normalize(X), y)


_REAL_SIM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/real-sim.bz2"


def real_sim() -> Data:
    """real-sim of LIBSVM; Reuters-21578 ("earn") where that is here and real-sim is not.

    The rows of real-sim have length one; those of Reuters are scaled to that.
    """
    here = data_folder()
    if REGISTRY["real-sim"].found(here) is not None:
        return Data("real-sim", *_all_rows(load("real-sim")))
    if REGISTRY["reuters"].found(here) is not None:
        X, y = _all_rows(load("reuters"))
        note = (
            "Stand-in: Reuters-21578 (topic “earn” or not, token counts scaled to unit rows, "
            f"{X.shape[0]:,} × {X.shape[1]:,}) is used instead of real-sim, which is not in "
            "BILEVEL_DATA."
        )
        return Data("Reuters (for real-sim)", normalize(X), y, note=note)
    path = fetch(_REAL_SIM, "real-sim.bz2")
    return Data("real-sim", *_all_rows(read(path, ReadOptions(features=20_958))))


_PARKINSONS = "https://archive.ics.uci.edu/static/public/189/parkinsons+telemonitoring.zip"


def parkinsons() -> Data:
    """Parkinsons telemonitoring: 5,875 recordings of 42 patients; y is the total UPDRS.

    The patient's number is no feature, and the patients are the groups of a split. The target is
    centred and scaled to unit variance, the features are left to the experiment.
    """
    path = _in_folder("parkinsons_updrs.npz")
    if path is not None:
        with np.load(path, allow_pickle=False) as content:
            X, y, group = content["X"][:, 1:], content["y"], content["subject"]
    else:
        with (
            zipfile.ZipFile(fetch(_PARKINSONS, "parkinsons.zip")) as archive,
            archive.open("parkinsons_updrs.data") as stream,
        ):
            rows = np.loadtxt(stream, delimiter=",", skiprows=1)
        group, y = rows[:, 0].astype(int), rows[:, 5]
        X = np.delete(rows, [0, 4, 5], axis=1)
    return Data("Parkinsons", X.astype(np.float64), (y - y.mean()) / y.std(), group)


def _in_folder(name: str) -> Path | None:
    here = data_folder()
    return here / name if here is not None and (here / name).exists() else None


def mnist() -> tuple[Data, Data]:
    """MNIST, training and test rows, pixels in [0, 1], labels 0 to 9."""
    path = _in_folder("mnist.npz")
    if path is not None:
        with np.load(path, allow_pickle=False) as content:
            parts = [(content[f"X_{p}"], content[f"y_{p}"]) for p in ("train", "test")]
    else:
        X, y = _openml_mnist()
        parts = [(X[:60_000], y[:60_000]), (X[60_000:], y[60_000:])]
    train, test = (Data("MNIST", X / 255.0, y.astype(np.int64)) for X, y in parts)
    return train, test


def _openml_mnist() -> tuple[Any, Any]:
    from sklearn.datasets import fetch_openml

    try:
        return fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)  # type: ignore[no-any-return]
    except OSError as error:
        raise BadFileError(
            "mnist",
            f"it is not in BILEVEL_DATA and could not be fetched ({error})",
            "Save X_train, y_train, X_test and y_test as mnist.npz in the folder of BILEVEL_DATA.",
        ) from error


def design(X: Any, backend: Backend) -> Design:
    """Move a host matrix to a backend as a design, float64."""
    dtype = backend.xp.float64
    if sparse.issparse(X):
        X = sparse.csr_array(X, copy=True)
        X.sum_duplicates()  # sorts too, which torch asks for
        kernel = backend.csr(X.data, X.indices, X.indptr, X.shape, dtype)
        return CSRDesign(kernel, backend)
    return DenseDesign(backend.asarray(np.ascontiguousarray(X), dtype=dtype), backend)


def logistic(train: Any, val: Any, backend: Backend, **options: Any) -> bilevel.Problem:
    """The ℓ2 logistic regression problem of two host parts."""
    (X, y), (X_val, y_val) = train, val
    xp = backend.xp
    return bilevel.logistic_regression(
        design(X, backend),
        backend.asarray(y, dtype=xp.float64),
        design(X_val, backend),
        backend.asarray(y_val, dtype=xp.float64),
        **options,
    )
