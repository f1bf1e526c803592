"""Preconditioners: functions r ↦ M⁻¹ r, for one residual or several columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..backends import Array, get_backend

#: r ↦ M⁻¹ r, M symmetric positive definite.
Preconditioner: TypeAlias = Callable[[Array], Array]


def jacobi(diagonal: Array) -> Preconditioner:
    """Divide by the diagonal of the Hessian.

    Parameters
    ----------
    diagonal : array
        Of the shape of one right-hand side. Entries that are not positive, as a Hessian without
        full curvature has them, are left alone.

    Examples
    --------
    >>> import numpy as np
    >>> jacobi(np.array([2.0, 4.0]))(np.array([2.0, 2.0]))
    array([1. , 0.5])
    """
    xp = get_backend(diagonal).xp
    positive = diagonal > 0
    inverse = 1 / xp.where(positive, diagonal, xp.ones_like(diagonal))

    def apply(r: Array) -> Array:
        return inverse * r if r.ndim == inverse.ndim else inverse[..., None] * r

    return apply


@dataclass(frozen=True)
class Nystrom:
    """A randomised approximation U diag(s) Uᵀ of a positive semi-definite A, of low rank.

    Frangella, Tropp and Udell (2023), algorithm 2.1. It lies below A (their lemma 2.2), so that

        M = (U diag(s + μ) Uᵀ + (s_r + μ)(I - U Uᵀ)) / (s_r + μ)

    has M⁻¹(A + μ I) ⪰ μ I: the lower bound that :class:`~bilevel.linalg.Energy` asks for stays μ.
    One sketch serves A + μ I for every μ > 0.

    Attributes
    ----------
    basis : array, shape (n, r)
        U, with orthonormal columns.
    values : array, shape (r,)
        s ≥ 0, the largest first.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([9.0, 4.0, 0.0])
    >>> sketch = Nystrom.of(lambda v: A @ v, np.zeros(3), rank=2, seed=0)
    >>> sketch.values
    array([9., 4.])
    """

    basis: Array
    values: Array

    @classmethod
    def of(cls, operator: Callable[[Array], Array], like: Array, rank: int, seed: int) -> Nystrom:
        """Sketch A with one product of ``rank`` columns.

        Parameters
        ----------
        operator : callable
            V ↦ A V for V of shape (*like.shape, rank).
        like : array
            A vector of the space.
        rank : int
            r, at most the number of unknowns.
        seed : int
            Of the random test vectors, which are the same on every backend.
        """
        backend = get_backend(like)
        xp = backend.xp
        n = like.size if isinstance(like.size, int) else xp.reshape(like, (-1,)).shape[0]
        rank = min(rank, n)
        test, _ = xp.linalg.qr(backend.normal(seed, (n, rank), like.dtype))
        image = xp.reshape(operator(xp.reshape(test, (*like.shape, rank))), (n, rank))
        # A shift of rounding size keeps the Cholesky factor real; it is taken off again below.
        shift = xp.sqrt(xp.sum(image * image)) * xp.finfo(like.dtype).eps * 10
        image = image + shift * test
        core = xp.matmul(test.T, image)
        eye = xp.eye(rank, dtype=like.dtype, device=backend.device)
        factor = xp.linalg.cholesky((core + core.T) / 2 + shift * eye)
        half = backend.solve_triangular(factor, image.T, lower=True).T
        basis, singular, _ = xp.linalg.svd(half, full_matrices=False)
        values = singular * singular - 2 * shift
        return cls(basis, xp.where(values > 0, values, xp.zeros_like(values)))

    def inverse(self, mu: float) -> Preconditioner:
        """r ↦ M⁻¹ r for A + μ I."""
        xp = get_backend(self.basis).xp
        factor = (self.values[-1] + mu) / (self.values + mu) - 1

        def apply(r: Array) -> Array:
            flat = xp.reshape(r, (self.basis.shape[0], -1))
            inside = factor[:, None] * xp.matmul(self.basis.T, flat)
            return r + xp.reshape(xp.matmul(self.basis, inside), r.shape)

        return apply
