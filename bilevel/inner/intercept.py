"""A preconditioner for a linear model whose intercept has no penalty.

The Hessian is [A, B; Bᵀ, S]: S, c by c, belongs to the intercepts of c predictions, and
A ⪰ W, the diagonal penalty of the rest. It has no lower bound of its own, but

    H = Lᵀ diag(A - B S⁻¹ Bᵀ, S) L,   M = Lᵀ diag(W, S) L,   L = [I, 0; S⁻¹ Bᵀ, I],

and the data's part of A - B S⁻¹ Bᵀ is a Schur complement of a positive semidefinite matrix, so that
M⁻¹H ⪰ I: conjugate gradients in this metric have the condition of the penalised model, and a
known lower bound, which their stopping test needs. Where intercepts may be shifted together (the
multinomial loss) S is singular along 1; no right-hand side has a part there, since they are
gradients of functions that do not see the shift, and S gets the curvature of its own mean there.
"""

from __future__ import annotations

import math

from ..backends import Array, Backend
from ..linalg import Preconditioner


def free_intercept(
    columns: Array,
    weights: Array,
    tail: tuple[int, ...],
    n_outputs: int,
    backend: Backend,
    shift_invariant: bool = False,
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
    shift_invariant : bool
        Whether S is singular along 1.

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
    if shift_invariant:
        S = S + (xp.sum(S * xp.eye(c, dtype=S.dtype, device=backend.device)) / (k * c * c))
    inverse = _inverse(S, c, backend)
    shift = xp.matmul(B, inverse)  # B S⁻¹

    def apply(r: Array) -> Array:
        top, bottom = r[:-1, ...], _stacked(r[-1:, ...], 1, c, k, backend)
        u = top - _unstacked(xp.matmul(shift, bottom), top.shape, c, k, backend)
        u = u / (weights if u.ndim == 1 + len(tail) else weights[..., None])
        b = xp.matmul(inverse, bottom)
        b = b - xp.matmul(xp.matrix_transpose(shift), _stacked(u, p, c, k, backend))
        return xp.concat([u, _unstacked(b, (1, *top.shape[1:]), c, k, backend)], axis=0)

    return apply


def _inverse(S: Array, c: int, backend: Backend) -> Array:
    """S⁻¹, K matrices; an intercept without curvature (a flat loss) is left alone."""
    xp = backend.xp
    if c > 1:
        eye = xp.eye(c, dtype=S.dtype, device=backend.device)
        return xp.linalg.solve(S, xp.broadcast_to(eye, S.shape))
    bent = S > 0
    one = xp.ones_like(S)
    return xp.where(bent, one / xp.where(bent, S, one), xp.zeros_like(S))


def _stacked(a: Array, rows: int, c: int, k: int, backend: Backend) -> Array:
    """(rows, *tail, j) or (rows, *tail) as K matrices of shape (rows c, j)."""
    xp = backend.xp
    flat = xp.reshape(a, (rows * c, k, -1))
    return xp.permute_dims(flat, (1, 0, 2))


def _unstacked(a: Array, shape: tuple[int, ...], c: int, k: int, backend: Backend) -> Array:
    """The way back."""
    xp = backend.xp
    return xp.reshape(xp.permute_dims(a, (1, 0, 2)), shape)
