"""The data of the papers, as host arrays.

A set is looked for in the folder that BILEVEL_DATA names, then fetched from its official source
(checked and cached by the fetcher), and else an error says what to download.
"""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import bilevel
from bilevel.backends import Backend
from bilevel.design import CSRDesign, DenseDesign, Design


class DataMissingError(RuntimeError):
    """A data set that is neither here nor to be fetched; the message says what to do."""


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


def folder() -> Path | None:
    """The folder that BILEVEL_DATA names."""
    value = os.environ.get("BILEVEL_DATA")
    return Path(value).expanduser() if value else None


def cache() -> Path:
    """Where fetched files are kept: BILEVEL_CACHE, or ~/.cache/bilevel."""
    place = Path(os.environ.get("BILEVEL_CACHE", Path.home() / ".cache" / "bilevel"))
    place.mkdir(parents=True, exist_ok=True)
    return place


def find(*names: str) -> Path | None:
    """Return the first of these files that is in the folder of BILEVEL_DATA, or None."""
    here = folder()
    return None if here is None else next((here / n for n in names if (here / n).exists()), None)


def fetch(url: str, sha256: str | None, name: str) -> bytes:
    """Download a file once, refuse another than the expected one, keep it in the cache.

    Without a published checksum that of the first download is kept beside the file, and every
    later read is held to it.

    Raises
    ------
    DataMissingError
        If the source cannot be reached, or sends something else.
    """
    path = cache() / name
    known = path.with_suffix(path.suffix + ".sha256")
    if not path.exists():
        try:
            with urllib.request.urlopen(url, timeout=60) as reply:  # an https address, see callers
                content = reply.read()
        except OSError as error:
            raise DataMissingError(
                f"{name}: {url} could not be reached ({error}). Download it by hand into a folder "
                f"and name that folder in BILEVEL_DATA."
            ) from error
        path.write_bytes(content)
        known.write_text(hashlib.sha256(content).hexdigest())
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    expected = sha256 or (known.read_text().strip() if known.exists() else digest)
    if digest != expected:
        raise DataMissingError(
            f"{path} has the SHA-256 {digest}, expected {expected}: delete it and run again."
        )
    return content


def unit_rows(X: Any) -> Any:
    """Scale each row of a CSR matrix to length one; an empty row stays empty."""
    norms = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ X)


def _csr(content: Any, name: str) -> Any:
    data, indices, indptr, shape = (
        content[f"{name}_{part}"] for part in ("data", "indices", "indptr", "shape")
    )
    return sparse.csr_array((data.astype(np.float64), indices, indptr), tuple(map(int, shape)))


def _both_parts(path: Path) -> tuple[Any, Any]:
    """Training and test rows of an archive, one below the other: the experiments split anew."""
    with np.load(path, allow_pickle=False) as content:
        X = sparse.vstack([_csr(content, "X_train"), _csr(content, "X_test")], format="csr")
        y = np.concatenate([content["y_train"], content["y_test"]]).astype(np.float64)
    return sparse.csr_array(X), y


def news() -> Data:
    """20 Newsgroups, all 18,846 posts, the first ten groups against the others."""
    path = find("20news_vectorized.npz")
    if path is not None:
        X, y = _both_parts(path)
    else:
        X, y = _fetch_news()
    return Data("20 Newsgroups", unit_rows(X), y)


def _fetch_news() -> tuple[Any, Any]:
    from sklearn.datasets import fetch_20newsgroups_vectorized

    try:
        X, y = fetch_20newsgroups_vectorized(subset="all", return_X_y=True)
    except OSError as error:
        raise DataMissingError(
            f"20 Newsgroups could not be fetched ({error}). Run scikit-learn's "
            "fetch_20newsgroups_vectorized where there is a network, save X_train, y_train, "
            "X_test and y_test (CSR parts as X_train_data, ...) as 20news_vectorized.npz, and "
            "name its folder in BILEVEL_DATA."
        ) from error
    return sparse.csr_array(X.astype(np.float64)), np.where(y < 10, -1.0, 1.0)


_REAL_SIM = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/real-sim.bz2"


def real_sim() -> Data:
    """real-sim of LIBSVM; Reuters-21578 ("earn") where it is not to be had.

    The rows of real-sim have length one; those of Reuters are scaled to that.
    """
    from sklearn.datasets import load_svmlight_file

    path = find("real-sim", "real-sim.bz2", "real-sim.svm")
    if path is not None:
        X, y = load_svmlight_file(str(path), n_features=20_958)
        return Data("real-sim", sparse.csr_array(X), y)
    stand_in = find("reuters21578_earn_counts.npz")
    if stand_in is not None:
        X, y = _both_parts(stand_in)
        note = (
            "Stand-in: Reuters-21578 (topic “earn” or not, token counts scaled to unit rows, "
            "12,902 × 29,609) is used instead of real-sim, which is not in BILEVEL_DATA."
        )
        return Data("Reuters (for real-sim)", unit_rows(X), y, note=note)
    content = fetch(_REAL_SIM, None, "real-sim.bz2")
    import bz2

    X, y = load_svmlight_file(io.BytesIO(bz2.decompress(content)), n_features=20_958)
    return Data("real-sim", sparse.csr_array(X), y)


_PARKINSONS = "https://archive.ics.uci.edu/static/public/189/parkinsons+telemonitoring.zip"


def parkinsons() -> Data:
    """Parkinsons telemonitoring: 5,875 recordings of 42 patients; y is the total UPDRS.

    The patient's number is no feature, and the patients are the groups of a split. The target is
    centred and scaled to unit variance, the features are left to the experiment.
    """
    path = find("parkinsons_updrs.npz")
    if path is not None:
        with np.load(path, allow_pickle=False) as content:
            X, y, group = content["X"][:, 1:], content["y"], content["subject"]
    else:
        archive = zipfile.ZipFile(io.BytesIO(fetch(_PARKINSONS, None, "parkinsons.zip")))
        with archive.open("parkinsons_updrs.data") as stream:
            rows = np.loadtxt(stream, delimiter=",", skiprows=1)
        group, y = rows[:, 0].astype(int), rows[:, 5]
        X = np.delete(rows, [0, 4, 5], axis=1)
    return Data("Parkinsons", X.astype(np.float64), (y - y.mean()) / y.std(), group)


def mnist() -> tuple[Data, Data]:
    """MNIST, training and test rows, pixels in [0, 1], labels 0 to 9."""
    path = find("mnist.npz")
    if path is not None:
        with np.load(path, allow_pickle=False) as content:
            parts = [(content[f"X_{p}"], content[f"y_{p}"]) for p in ("train", "test")]
    else:
        from sklearn.datasets import fetch_openml

        try:
            X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
        except OSError as error:
            raise DataMissingError(
                f"MNIST could not be fetched ({error}). Save X_train, y_train, X_test, y_test as "
                "mnist.npz and name its folder in BILEVEL_DATA."
            ) from error
        y = y.astype(int)
        parts = [(X[:60_000], y[:60_000]), (X[60_000:], y[60_000:])]
    train, test = (Data("MNIST", X / 255.0, y.astype(np.int64)) for X, y in parts)
    return train, test


def design(X: Any, backend: Backend) -> Design:
    """Move a host matrix to a backend as a design, float64."""
    dtype = backend.xp.float64
    if sparse.issparse(X):
        X = sparse.csr_array(X)
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
