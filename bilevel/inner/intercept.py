"""A preconditioner for a linear model whose intercept has no penalty.

The Hessian is [A, B; Bᵀ, S]: S, c by c, belongs to the intercepts of c predictions, and
A ⪰ W, the diagonal penalty of the rest. It has no lower bound of its own, but

    H = Lᵀ diag(A - B S⁻¹ Bᵀ, S) L,   M = Lᵀ diag(W, S) L,   L = [I, 0; S⁻¹ Bᵀ, I],

and the data's part of A - B S⁻¹ Bᵀ is a Schur complement of a positive semidefinite matrix, so that
M⁻¹H ⪰ I: conjugate gradients in this metric have the condition of the penalised model, and a
known lower bound, which their stopping test needs. Where intercepts may be shifted together (the
multinomial loss) S is singular along 1; no right-hand side has a part there, since they are
gradients of functions that do not see the shift, and S gets the curvature of its own mean there.

B, (p c) by c, is kept where c is small. Of many classes it would take c times the memory of x, and
as many products as it could ever save: there each application makes a product with X and one with
Xᵀ instead (:class:`Coupling`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..backends import Array, Backend
from ..linalg import Preconditioner, Proven


class Coupling(Protocol):
    """The products with B, off the diagonal of the Hessian."""

    def down(self, b: Array) -> Array:
        """B b for b of shape (1, *tail) or (1, *tail, j): shape (p, *tail) or (p, *tail, j)."""
        ...

    def up(self, u: Array) -> Array:
        """Bᵀ u, the other way."""
        ...


@dataclass(frozen=True)
class KeptColumns:
    """B as K matrices of shape (p c, c)."""

    B: Array
    backend: Backend

    @classmethod
    def of(cls, columns: Array, n_outputs: int, backend: Backend) -> tuple[KeptColumns, Array]:
        """Take apart columns [B; S] of the Hessian, shape (p + 1, *tail, c): B, and S (K, c, c).

        They are its products with the c unit intercepts, each taken in all independent problems
        at once.
        """
        p, c = columns.shape[0] - 1, n_outputs
        k = math.prod(columns.shape[1:-1]) // c
        B = _stacked(columns[:-1, ...], p, c, k, backend)
        return cls(B, backend), _stacked(columns[-1:, ...], 1, c, k, backend)

    def down(self, b: Array) -> Array:
        return self._times(self.B, b)

    def up(self, u: Array) -> Array:
        return self._times(self.backend.xp.matrix_transpose(self.B), u)

    def _times(self, matrices: Array, a: Array) -> Array:
        k, high, wide = matrices.shape
        c = min(high, wide)
        product = self.backend.xp.matmul(matrices, _stacked(a, wide // c, c, k, self.backend))
        return _unstacked(product, (high // c, *a.shape[1:]), c, k, self.backend)


def free_intercept(
    coupling: Coupling,
    S: Array,
    weights: Array,
    tail: tuple[int, ...],
    backend: Backend,
    shift_invariant: bool = False,
) -> Preconditioner:
    """Return r ↦ M⁻¹ r.

    Parameters
    ----------
    coupling : Coupling
        B.
    S : array, shape (K, c, c)
        The Hessian of the intercepts, of c predictions in K independent problems.
    weights : array, broadcastable to (p, *tail)
        W.
    tail : tuple of int
        The axes of x after the first: c predictions (if more than one), then K problems (if any).
    backend : Backend
        Where the arrays live.
    shift_invariant : bool
        Whether S is singular along 1.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> columns = np.array([[1.0], [2.0]])  # H = [[w + data, 1], [1, 2]]
    >>> backend = bilevel.get_backend("numpy")
    >>> apply = free_intercept(*KeptColumns.of(columns, 1, backend), np.array([1.0]), (), backend)
    >>> apply(np.array([0.0, 2.0]))  # M = [[1.5, 1], [1, 2]]
    array([-1. ,  1.5])
    """
    xp = backend.xp
    k, c, _ = S.shape
    if shift_invariant:
        S = S + (xp.sum(S * xp.eye(c, dtype=S.dtype, device=backend.device)) / (k * c * c))
    inverse = _inverse(S, c, backend)

    def solved(b: Array) -> Array:
        product = xp.matmul(inverse, _stacked(b, 1, c, k, backend))
        return _unstacked(product, b.shape, c, k, backend)

    def apply(r: Array) -> Array:
        top, bottom = r[:-1, ...], r[-1:, ...]
        u = top - coupling.down(solved(bottom))
        u = u / (weights if u.ndim == 1 + len(tail) else weights[..., None])
        return xp.concat([u, solved(bottom - coupling.up(u))], axis=0)

    return Proven(apply)


def _inverse(S: Array, c: int, backend: Backend) -> Array:
    """S⁻¹, K matrices; what has no curvature (a flat loss) is left alone."""
    xp = backend.xp
    if c == 1:
        return _reciprocal(S, S > 0, backend)
    values, vectors = xp.linalg.eigh(S)
    floor = c * float(xp.finfo(S.dtype).eps) * xp.max(values, axis=-1, keepdims=True)
    found = _reciprocal(values, values > xp.maximum(floor, xp.zeros_like(floor)), backend)
    return xp.matmul(vectors * found[:, None, :], xp.matrix_transpose(vectors))


def _reciprocal(a: Array, where: Array, backend: Backend) -> Array:
    xp, one = backend.xp, backend.xp.ones_like(a)
    return xp.where(where, one / xp.where(where, a, one), xp.zeros_like(a))


def _stacked(a: Array, rows: int, c: int, k: int, backend: Backend) -> Array:
    """(rows, *tail, j) or (rows, *tail) as K matrices of shape (rows c, j)."""
    xp = backend.xp
    flat = xp.reshape(a, (rows * c, k, -1))
    return xp.permute_dims(flat, (1, 0, 2))


def _unstacked(a: Array, shape: tuple[int, ...], c: int, k: int, backend: Backend) -> Array:
    """The way back."""
    xp = backend.xp
    return xp.reshape(xp.permute_dims(a, (1, 0, 2)), shape)
