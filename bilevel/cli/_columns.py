"""From the rows of a file to designs on a backend, with no digit lost on the way unsaid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import bilevel
from bilevel.backends import is_sparse, row_blocks
from bilevel.design import COARSE, Design, MixedPrecision, Standardized, from_host

#: Of float32.
_UNIT = 2.0**-24


@dataclass(frozen=True)
class Scaling:
    """What is done to the columns of a file, in double precision, on the host.

    Attributes
    ----------
    mean, scale : array, shape (p,)
        What is subtracted from them, and what they are divided by then.
    spread : array, shape (p,)
        Their deviation, whether they are divided by it or not.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, X: Any) -> Self:
        """Take them of all rows."""
        found = Standardized.fit(from_host(X, bilevel.get_backend("numpy"), np.float64))
        return cls(found.mean, found.scale, found.scale)

    @classmethod
    def centring(cls, X: Any) -> Self:
        """Take the means alone of all rows; no column is scaled."""
        found = cls.fit(X)
        return replace(found, scale=np.ones_like(found.scale))

    def standardized(self, X: Any, dtype: Any) -> Any:
        """Return a dense X with mean 0 and deviation 1, rounded no sooner than at the end."""
        result = np.empty(X.shape, dtype=dtype)
        for rows in row_blocks(*X.shape):
            result[rows] = (X[rows] - self.mean) / self.scale
        return result


@dataclass(frozen=True)
class Columns:
    """What the matrix of a file becomes on a backend.

    Attributes
    ----------
    backend : Backend
    dtype : str
        ``float64``, ``float32`` or ``mixed``.
    scaling : Scaling or None
        What standardises the columns; None: they stay as they are.
    names : sequence of str or None
        Their names.
    """

    backend: Any
    dtype: str
    scaling: Scaling | None
    names: Sequence[str] | None

    def design(self, X: Any, source: str) -> Design:
        """Bring a host matrix to the backend.

        A dense one is standardised before it is rounded; centring a sparse one would fill it, so
        its products are centred.

        Raises
        ------
        ValueError
            If float32 does not hold a column to a small part of its spread.
        """
        if self.scaling is not None and not is_sparse(X):
            single = np.float64 if self.dtype == "float64" else np.float32
            return self._moved(self.scaling.standardized(X, single))
        if self.dtype != "float64":
            self._refuse_coarse(X, source)
        design = self._moved(X)
        if self.scaling is None:
            return design
        mean, scale = (
            self.backend.asarray(part, design.dtype)
            for part in (self.scaling.mean, self.scaling.scale)
        )
        return Standardized(design, mean, scale)

    def _moved(self, X: Any) -> Design:
        xp = self.backend.xp
        if self.dtype == "mixed":
            return MixedPrecision(from_host(X, self.backend, xp.float32))
        return from_host(X, self.backend, getattr(xp, self.dtype))

    def _refuse_coarse(self, X: Any, source: str) -> None:
        scaling = self.scaling or Scaling.fit(X)
        error = rounding_to_single(X)
        if self.scaling is not None:
            error = np.maximum(error, _UNIT * np.abs(scaling.mean))
        coarse = np.flatnonzero(error > COARSE * scaling.spread)
        if not len(coarse):
            return
        j = int(coarse[0])
        name = f"column {self.names[j]!r}" if self.names else f"feature {j + 1}"
        more = f" (and {len(coarse) - 1} more)" if len(coarse) > 1 else ""
        cure = "" if is_sparse(X) else "--standardize, which is done before rounding, or "
        raise ValueError(
            f"{source}: float32 rounds {name}{more}, of mean {scaling.mean[j]:g}, by "
            f"{error[j] / scaling.spread[j]:.1g} of its spread: give {cure}--dtype float64, or "
            "subtract its offset."
        )


def refuse_overflow(
    X: Any, source: str, names: Sequence[str] | None, dtype: str, *, standardize: bool
) -> None:
    """Refuse an entry so large that a sum of its squares overflows: every value would be NaN.

    Raises
    ------
    ValueError
        The message names the column and the entry.
    """
    single = dtype == "float32" and not (standardize and not is_sparse(X))
    number = np.float32 if single else np.float64
    most = math.sqrt(float(np.finfo(number).max)) / max(X.shape[0], 1)
    entries = X.data if is_sparse(X) else X
    if not entries.size or float(max(entries.max(), -entries.min())) <= most:
        return
    entry = int(np.argmax(np.abs(entries)))
    j = int(X.indices[entry]) if is_sparse(X) else entry % X.shape[1]
    name = f"column {names[j]!r}" if names else f"feature {j + 1}"
    raise ValueError(
        f"{source}: {name} holds {entries.reshape(-1)[entry]:g}, and sums of squares of such "
        f"numbers overflow {np.dtype(number).name}: correct it, or scale the column."
    )


def refuse_underflow(X: Any, source: str, names: Sequence[str] | None) -> None:
    """Refuse to standardise a column so small that its variance underflows.

    Raises
    ------
    ValueError
        The message names the column and its largest entry.
    """
    top, bottom = X.max(axis=0), X.min(axis=0)
    if is_sparse(X):  # SciPy warns where two sparse rows are compared
        top, bottom = (row.toarray().reshape(-1) for row in (top, bottom))
    largest = np.maximum(top, -bottom)
    known = np.finfo(np.float64)
    tiny = np.flatnonzero((largest > 0) & (largest < math.sqrt(known.smallest_normal / known.eps)))
    if len(tiny):
        j = int(tiny[0])
        name = f"column {names[j]!r}" if names else f"feature {j + 1}"
        raise ValueError(
            f"{source}: {name} holds numbers of at most {largest[j]:g}, whose squares underflow "
            "float64, so that it cannot be standardised: scale the column."
        )


def rounding_to_single(X: Any) -> npt.NDArray[np.float64]:
    """The most by which float32 moves an entry of each column, shape (p,).

    Examples
    --------
    >>> rounding_to_single(np.array([[2.0**24 + 1, 0.5]]))
    array([1., 0.])
    """
    if is_sparse(X):
        moved = X.copy()
        moved.data = _moves(X.data)
        largest: npt.NDArray[np.float64] = moved.max(axis=0).toarray().reshape(-1)
        return largest
    blocks = [_moves(X[rows]).max(axis=0) for rows in row_blocks(*X.shape)]
    return np.asarray(np.max(blocks, axis=0))


def _moves(entries: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    exact = entries.astype(np.float64)
    return np.abs(exact - entries.astype(np.float32))
