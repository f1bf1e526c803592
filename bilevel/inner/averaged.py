"""A preconditioner for a linear model with many rows: the mean curvature for that of every row.

The Hessian of a linear model with one ℓ2 constant is Σ_i s_i D_i ⊗ a_i a_iᵀ + μ I, D_i the c by c
curvature of the loss at row i. With the weighted mean D̄ in the place of each it is

    M = D̄ ⊗ G + μ I,   G = Xᵀ S X,

which two eigendecompositions invert for every μ: that of G, p by p, belongs to the data and is made
once; that of D̄, c by c, belongs to x. M⁻¹r costs two products with p by p matrices, p / n of a
Hessian product. (The Kronecker factors are those of Martens and Grosse 2015, exact here but for the
mean, as in a network of one layer.)

A free intercept is eliminated first, with the means x̄ for its coupling to the rest: with
G_c = G - (Σ s) x̄ x̄ᵀ

    M = Lᵀ diag(D̄ ⊗ G_c + μ I, (Σ s) D̄) L,   L = [I, 0; x̄ᵀ ⊗ I, I].

M⁻¹H has its eigenvalues near the spread of the rows about their mean. No bound but the crude one
is known: H ⪰ μ I and M ⪯ max M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..backends import Array, Backend
from ..design import Design, gram
from ..linalg import Preconditioner


@runtime_checkable
class Averaging(Protocol):
    """A point that may know a matrix M near its Hessian H, of which a crude bound alone is known.

    Solves with it take few steps. What is left of them is estimated, until a proof is wanted.
    """

    def averaged(self) -> tuple[Preconditioner, float] | None:
        """The function r ↦ M⁻¹ r, and b ≥ 0 with M⁻¹H ⪰ b; None where there is none, or no use."""
        ...


@dataclass(frozen=True)
class Spectrum:
    """What belongs to the data: G = U diag(g) Uᵀ, the means of a free intercept, and Σ s.

    Attributes
    ----------
    values : array, shape (p,)
        g, the smallest first.
    basis : array, shape (p, p)
        U.
    means : array, shape (p,), or None
        x̄ where the last column of the design is a free intercept, else None.
    total : array, shape ()
        Σ s.
    """

    values: Array
    basis: Array
    means: Array | None
    total: Array

    @classmethod
    def of(cls, design: Design, weights: Array | None, free: bool) -> Spectrum | None:
        """None where the design does not form Xᵀ S X, or where it has no eigendecomposition."""
        square = gram(design, weights)
        if square is None:
            return None
        backend = design.backend
        xp, n = backend.xp, design.shape[0]
        if weights is None:
            total = xp.asarray(n, dtype=square.dtype, device=backend.device)
        else:
            total = xp.sum(weights)
        means = None
        if free:
            means = square[:-1, -1] / total
            square = square[:-1, :-1] - total * means[:, None] * means[None, :]
        found = backend.eigh((square + square.T) / 2)
        if found is None:
            return None
        values, basis = found
        return cls(xp.maximum(values, xp.zeros_like(values)), basis, means, total)


@dataclass(frozen=True)
class Averaged:
    """r ↦ M⁻¹ r, for one residual or several columns.

    Attributes
    ----------
    spectrum : Spectrum
        Of the data.
    curvatures : array, shape (c,)
        Eigenvalues of D̄.
    outputs : array, shape (c, c)
        Its eigenvectors.
    mu : array, shape ()
        μ.
    backend : Backend
        Where the arrays live.
    """

    spectrum: Spectrum
    curvatures: Array
    outputs: Array
    mu: Array
    backend: Backend

    @classmethod
    def of(
        cls, spectrum: Spectrum, curvature: Array, mu: Array, backend: Backend
    ) -> Averaged | None:
        """From D̄, shape (c, c); None where it has no eigendecomposition."""
        found = backend.eigh((curvature + curvature.T) / 2)
        if found is None:
            return None
        values, vectors = found
        xp = backend.xp
        return cls(spectrum, xp.maximum(values, xp.zeros_like(values)), vectors, mu, backend)

    @property
    def bottom(self) -> Array:
        """μ / max M: M⁻¹H ⪰ this where H ⪰ μ I, but for the rounding of U, which a share covers."""
        most = self.backend.xp.max(self._diagonal)
        return _SHARE * self.mu / most

    @property
    def _diagonal(self) -> Array:
        """M in its eigenbasis, shape (p, c)."""
        return self.spectrum.values[:, None] * self.curvatures + self.mu

    def __call__(self, r: Array) -> Array:
        c = self.curvatures.shape[0]
        xp, rows = self.backend.xp, r.shape[0]
        blocks = xp.reshape(r, (rows, c, -1))
        if self.spectrum.means is None:
            return xp.reshape(self._solved(blocks), r.shape)
        means = self.spectrum.means[:, None, None]
        top, last = blocks[:-1, ...], blocks[-1:, ...]
        u = self._solved(top - means * last)
        b = self._last(last) - xp.sum(means * u, axis=0, keepdims=True)
        return xp.reshape(xp.concat([u, b], axis=0), r.shape)

    def _solved(self, blocks: Array) -> Array:
        """(D̄ ⊗ G + μ I)⁻¹ of an array (p, c, k)."""
        turned = self._turned(_times(self.spectrum.basis.T, blocks, self.backend), self.outputs.T)
        turned = turned / self._diagonal[..., None]
        return _times(self.spectrum.basis, self._turned(turned, self.outputs), self.backend)

    def _last(self, last: Array) -> Array:
        """((Σ s) D̄)⁻¹ of an array (1, c, k), nothing where D̄ has no curvature."""
        xp, d = self.backend.xp, self.curvatures
        floor = d.shape[0] * float(xp.finfo(d.dtype).eps) * xp.max(d)
        bends = d > floor
        one = xp.ones_like(d)
        inverse = xp.where(bends, one / xp.where(bends, d, one), xp.zeros_like(d))
        turned = self._turned(last, self.outputs.T)
        return self._turned(turned * (inverse / self.spectrum.total)[:, None], self.outputs)

    def _turned(self, blocks: Array, matrix: Array) -> Array:
        return blocks if matrix.shape[0] == 1 else self.backend.xp.matmul(matrix, blocks)


def _times(matrix: Array, blocks: Array, backend: Backend) -> Array:
    """The product of a matrix with the first axis."""
    xp = backend.xp
    flat = xp.reshape(blocks, (blocks.shape[0], -1))
    return xp.reshape(xp.matmul(matrix, flat), (matrix.shape[0], *blocks.shape[1:]))


#: What rounding may take of the orthonormality of U, and more.
_SHARE = 0.99
