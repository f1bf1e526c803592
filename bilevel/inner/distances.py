"""Squared distances of rows, as exact as the rows themselves.

‖x‖² + ‖z‖² - 2 xᵀz cancels: of an offset of 10⁶ beside a spread of 1 it leaves four digits, of
Unix time none. Sums of (x_k - z_k)² do not, whatever the offset: each difference has a relative
error of one rounding. They cost a pass over the block for each feature, so that rows of many
features go by a product of centred features, wherever that is as good:

    centred: the error is that of a sum of s = ‖x - c‖² + ‖z - c‖², so small beside ‖x - z‖² ≥ s/64.

A pair that is nearer, a row and itself as a rule, is taken by its differences; where a row has many
such neighbours, so is the whole block. Rows that are equal are taken once.
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
    (rows, row_of), (columns, column_of) = _distinct(X, backend), _distinct(Z, backend)
    found = _by_product(rows, columns, backend)
    if found is None:
        found = _by_differences(rows, columns, backend)
    found = found if row_of is None else backend.xp.take(found, row_of, axis=0)
    return found if column_of is None else backend.xp.take(found, column_of, axis=1)


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


def _distinct(X: Array, backend: Backend) -> tuple[Array, Array | None]:
    """The rows of X without those that equal another, and which of them each row is.

    Equal rows have equal sums, so that they are neighbours in the order of these, as a rule.
    """
    xp = backend.xp
    order = xp.argsort(xp.sum(X, axis=1))
    ordered = xp.take(X, order, axis=0)
    again = xp.all(ordered[1:, :] == ordered[:-1, :], axis=1)
    if not bool(xp.any(again)):
        return X, None
    new = xp.concat([xp.ones_like(again[:1]), ~again])
    (first,) = xp.nonzero(new)
    label = xp.cumulative_sum(xp.astype(new, order.dtype)) - 1
    return xp.take(ordered, first, axis=0), xp.take(label, xp.argsort(order), axis=0)


#: Near neighbours of a row at most, as a share of the features: with more, differences cost less.
_NEAR = 1 / 4


def _by_product(X: Array, Z: Array, backend: Backend) -> Array | None:
    """‖x‖² + ‖z‖² - 2 xᵀz of centred features; None where too many pairs are too near for that."""
    xp = backend.xp
    centre = xp.mean(Z, axis=0)
    A, B = X - centre, Z - centre
    size = xp.sum(A * A, axis=1)[:, None] + xp.sum(B * B, axis=1)[None, :]
    found = size - 2 * xp.matmul(A, B.T)
    near = ~(found >= _APART * size)
    most = int(xp.max(xp.sum(xp.astype(near, xp.int32), axis=1)))
    if most > max(1, _NEAR * X.shape[1]):
        return None
    count = xp.arange(Z.shape[0], device=backend.device)[None, :]
    for _ in range(most):  # a pair of each row at a time
        column = xp.argmax(xp.astype(near, xp.int32), axis=1)
        own = near & (column[:, None] == count)
        gap = X - xp.take(Z, column, axis=0)
        found = xp.where(own, xp.sum(gap * gap, axis=1)[:, None], found)
        near = near & ~own
    return found
