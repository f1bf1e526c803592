"""A preconditioner for a linear model whose intercept has no penalty.

The Hessian is [A, B; Bᵀ, S]: S, c by c, belongs to the intercepts of c predictions, and
A ⪰ W, the diagonal penalty of the rest. It has no lower bound of its own, but

    H = Lᵀ diag(A - B S⁺ Bᵀ, S) L,   M = Lᵀ diag(W, S) L,   L = [I, 0; S⁺ Bᵀ, I],

and the data's part of A - B S⁺ Bᵀ is a Schur complement of a positive semidefinite matrix, so that
M⁻¹H ⪰ I: conjugate gradients in this metric have the condition of the penalised model, and a
known lower bound, which their stopping test needs. Where intercepts may be shifted together (the
multinomial loss) S is singular along that shift; S⁺ leaves it alone, and so do all right-hand
sides, which are gradients of functions that do not see it.
"""

from __future__ import annotations

import math

from ..backends import Array, Backend
from ..linalg import Preconditioner


def free_intercept(
    columns: Array, weights: Array, tail: tuple[int, ...], n_outputs: int, backend: Backend
) -> Preconditioner:
    """Return r ↦ M⁻¹ r.

    Parameters
    ----------
    columns : array, shape (p + 1, *tail, c)
        Columns [B; S] of the Hessian: its products with the c unit intercepts, each taken in all
        independent problems at once.
    weights : array, broadcastable to (p, *tail)
        W.
    tail : tuple of int
        The axes of x after the first: c predictions (if more than one), then K problems (if any).
    n_outputs : int
        c.
    backend : Backend
        Where the arrays live.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> columns = np.array([[1.0], [2.0]])  # H = [[w + data, 1], [1, 2]]
    >>> backend = bilevel.get_backend("numpy")
    >>> apply = free_intercept(columns, np.array([1.0]), (), 1, backend)
    >>> apply(np.array([0.0, 2.0]))  # M = [[1.5, 1], [1, 2]]
    array([-1. ,  1.5])
    """
    xp = backend.xp
    p, c, k = columns.shape[0] - 1, n_outputs, math.prod(tail) // n_outputs
    B = _stacked(columns[:-1, ...], p, c, k, backend)
    S = _stacked(columns[-1:, ...], 1, c, k, backend)
    inverse = xp.linalg.pinv(S)
    shift = xp.matmul(B, inverse)  # B S⁺

    def apply(r: Array) -> Array:
        top, bottom = r[:-1, ...], _stacked(r[-1:, ...], 1, c, k, backend)
        u = top - _unstacked(xp.matmul(shift, bottom), top.shape, c, k, backend)
        u = u / (weights if u.ndim == 1 + len(tail) else weights[..., None])
        b = xp.matmul(inverse, bottom)
        b = b - xp.matmul(xp.matrix_transpose(shift), _stacked(u, p, c, k, backend))
        return xp.concat([u, _unstacked(b, (1, *top.shape[1:]), c, k, backend)], axis=0)

    return apply


def _stacked(a: Array, rows: int, c: int, k: int, backend: Backend) -> Array:
    """(rows, *tail, j) or (rows, *tail) as K matrices of shape (rows c, j)."""
    xp = backend.xp
    flat = xp.reshape(a, (rows * c, k, -1))
    return xp.permute_dims(flat, (1, 0, 2))


def _unstacked(a: Array, shape: tuple[int, ...], c: int, k: int, backend: Backend) -> Array:
    """The way back."""
    xp = backend.xp
    return xp.reshape(xp.permute_dims(a, (1, 0, 2)), shape)
