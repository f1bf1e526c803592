"""Squared distances of rows, as exact as the rows themselves.

‖x‖² + ‖z‖² - 2 xᵀz cancels: of an offset of 10⁶ beside a spread of 1 it leaves four digits, of
Unix time none. Sums of (x_k - z_k)² do not, whatever the offset: each difference has a relative
error of one rounding. They cost a pass over the block for each feature, so that rows of many
features go by a product of centred features, wherever that is as good:

    centred: the error is that of a sum of s = ‖x - c‖² + ‖z - c‖², so small beside ‖x - z‖² ≥ s/64.

A row's nearest neighbour, itself as a rule, is taken by differences in any case; where another
pair is nearer than s/64, so is the whole block.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator

from ..backends import Array, Backend

#: Up to so many features the differences cost no more than the product.
_FEW = 32

#: A product is trusted for pairs whose square distance is at least this share of s.
_APART = 1 / 64

#: Entries of a block of differences: it stays in the caches (1 MiB in float64).
_BLOCK_ENTRIES = 1 << 17


def distance_rounding(n_features: int, eps: float) -> float:
    """Bound the relative error of :func:`square_distances`.

    Differences: (1 + u)³ each and n - 1 sums, u = eps/2. Centred: the centring, the products and
    their sums are in error by (n + 4) eps s at most.

    Examples
    --------
    >>> distance_rounding(1, 1e-16)
    5e-16
    """
    terms = (n_features + 4) * eps
    return terms if n_features <= _FEW else terms / _APART


def square_distances(X: Array, Z: Array, backend: Backend) -> Array:
    """‖x_i - z_j‖², shape (n, m).

    Parameters
    ----------
    X, Z : array, shape (n, p) and (m, p)
        Rows.
    backend : Backend
        Where they live.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = np.array([[1.7e9], [1.7e9 + 0.5]])
    >>> square_distances(X, X, bilevel.get_backend("numpy"))
    array([[0.  , 0.25],
           [0.25, 0.  ]])
    """
    if X.shape[1] <= _FEW:
        return _by_differences(X, Z, backend)
    found = _by_product(X, Z, backend)
    return _by_differences(X, Z, backend) if found is None else found


def _by_differences(X: Array, Z: Array, backend: Backend) -> Array:
    """Σ_k (x_k - z_k)², a few rows at a time."""
    step = max(1, _BLOCK_ENTRIES // Z.shape[0])
    n = X.shape[0]
    parts = [
        functools.reduce(operator.iadd, _squares(X[start : min(start + step, n), :], Z))
        for start in range(0, n, step)
    ]
    return parts[0] if len(parts) == 1 else backend.xp.concat(parts, axis=0)


def _squares(X: Array, Z: Array) -> Iterator[Array]:
    for k in range(X.shape[1]):
        difference = X[:, k][:, None] - Z[:, k][None, :]
        yield difference * difference


def _by_product(X: Array, Z: Array, backend: Backend) -> Array | None:
    """‖x‖² + ‖z‖² - 2 xᵀz of centred features; None where a pair is too near for that."""
    xp = backend.xp
    centre = xp.mean(Z, axis=0)
    A, B = X - centre, Z - centre
    size = xp.sum(A * A, axis=1)[:, None] + xp.sum(B * B, axis=1)[None, :]
    found = size - 2 * xp.matmul(A, B.T)
    nearest = xp.argmin(found, axis=1)
    own = nearest[:, None] == xp.arange(Z.shape[0], device=backend.device)[None, :]
    if not bool(xp.all((found >= _APART * size) | own)):
        return None
    gap = X - xp.take(Z, nearest, axis=0)
    return xp.where(own, xp.sum(gap * gap, axis=1)[:, None], found)
