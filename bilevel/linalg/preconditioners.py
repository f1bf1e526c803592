"""Preconditioners: functions r ↦ M⁻¹ r, for one residual or several columns."""

from __future__ import annotations

import math
from collections import deque
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
class Proven:
    """A preconditioner of which M⁻¹A ⪰ I is a theorem; of any other it is what somebody says.

    Examples
    --------
    >>> Proven(lambda r: 2 * r)(1.0)
    2.0
    """

    apply: Preconditioner

    def __call__(self, r: Array) -> Array:
        return self.apply(r)


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
        factor = backend.cholesky((core + core.T) / 2 + shift * eye)
        if factor is None:  # A is not what it should be, or overflows: zero lies below more of them
            return cls(test, xp.zeros(rank, dtype=like.dtype, device=backend.device))
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


class Recorder:
    """An operator that remembers the last few vectors it was given, and their products.

    Wrapped around the operator of :func:`~bilevel.linalg.cg` it keeps conjugate directions at no
    product more.

    Parameters
    ----------
    operator : callable
        v ↦ A v.
    keep : int
        The pairs of so many calls at most.
    columns : bool
        The last axis of v counts columns.
    every : bool
        Of a block every column is kept, else the first alone.

    Examples
    --------
    >>> import numpy as np
    >>> operator = Recorder(lambda v: 2.0 * v, keep=1, columns=False)
    >>> operator(np.array([1.0])), operator(np.array([3.0]))
    (array([2.]), array([6.]))
    >>> operator.take()
    (array([[3.]]), array([[6.]]))
    """

    def __init__(
        self, operator: Callable[[Array], Array], keep: int, columns: bool, every: bool = False
    ) -> None:
        self._operator, self._columns, self._every = operator, columns, every
        self._vectors: deque[Array] = deque(maxlen=keep)
        self._products: deque[Array] = deque(maxlen=keep)

    def __call__(self, v: Array) -> Array:
        product = self._operator(v)
        xp = get_backend(v).xp
        for kept, a in ((self._vectors, v), (self._products, product)):
            # A copy: the caller may write over v, and a view would hold the whole block.
            block = a if self._columns else a[..., None]
            kept.append(xp.asarray(block if self._every else block[..., :1], copy=True))
        return product

    def __len__(self) -> int:
        return len(self._vectors)

    def take(self) -> tuple[Array, Array]:
        """Hand over S and A S, each of shape (*shape, m), the oldest first, and forget them."""
        stacked = []
        for kept in (self._vectors, self._products):
            stacked.append(get_backend(kept[0]).xp.concat(list(kept), axis=-1))
            kept.clear()
        return stacked[0], stacked[1]


@dataclass(frozen=True)
class QuasiNewton:
    """The inverse that pairs (s_j, A s_j) imply, over another preconditioner M₀.

    Morales and Nocedal (2000) keep the pairs of one run of conjugate gradients for the next. With S
    scaled so that Sᵀ A S = I and Y = A S, all pairs at once are the block form of BFGS (Schnabel
    1983; Gower and Richtárik 2017),

        M⁻¹ = γ (I - S Yᵀ) M₀⁻¹ (I - Y Sᵀ) + S Sᵀ,

    symmetric positive definite for any S and Y. M⁻¹A is 1 on the span of S. On its A-conjugate
    complement W, which M⁻¹A maps to itself, it has the quotients γ wᵀA M₀⁻¹ A w / wᵀA w. Hence

        M₀⁻¹A ⪰ μ  and  γ μ ≤ 1   imply   M⁻¹A ⪰ γ μ,

    which is the bound that :class:`~bilevel.linalg.Energy` asks for; the directions need not have
    been conjugate for it, nor from one run. Rounding enters by Sᵀ Y - I alone.

    Attributes
    ----------
    directions, products : array, shape ``(*shape, m)``
        S and Y.

    Examples
    --------
    >>> import numpy as np
    >>> A, s = np.diag([9.0, 2.0, 1.0]), np.array([[1.0], [0.0], [0.0]])
    >>> pairs = QuasiNewton.of(s, A @ s)
    >>> pairs.inverse(None, gamma=0.5)(np.array([9.0, 2.0, 1.0]))
    array([1. , 1. , 0.5])
    """

    directions: Array
    products: Array

    @classmethod
    def of(cls, directions: Array, products: Array) -> QuasiNewton | None:
        """Scale m pairs, the last axis of both; None where none is fit to be used.

        A pair is left out where its curvature sᵀAs is not positive or is lost in rounding,
        sᵀAs ≤ √ε ‖s‖ ‖As‖, and so are combinations of pairs that nearly vanish.
        """
        backend = get_backend(directions)
        xp, (*shape, m) = backend.xp, directions.shape
        small = math.sqrt(xp.finfo(directions.dtype).eps)
        s, y = (xp.reshape(a, (-1, m)) for a in (directions, products))
        squares = [xp.vecdot(u, v, axis=-2) for u, v in ((s, y), (s, s), (y, y))]
        host = backend.scalars(*squares)
        kept, scales = [], []
        for j, (sy, ss, yy) in enumerate(
            zip(host[:m], host[m : 2 * m], host[2 * m :], strict=True)
        ):
            if math.isfinite(yy) and sy > small * math.sqrt(ss) * math.sqrt(yy):
                kept.append(j)
                scales.append(1 / math.sqrt(sy))
        if not kept:
            return None
        if len(kept) < m:
            index = xp.asarray(kept, device=backend.device)
            s, y = xp.take(s, index, axis=1), xp.take(y, index, axis=1)
        scale = backend.asarray(scales, dtype=directions.dtype)
        core = scale[:, None] * xp.matmul(s.T, y) * scale
        found = backend.eigh((core + core.T) / 2)
        if found is None:
            return None
        values, basis = found
        on_host = backend.scalars(values)
        first = sum(v <= small * on_host[-1] for v in on_host)
        change = scale[:, None] * basis[:, first:] / xp.sqrt(values[first:])
        return cls(*(xp.reshape(xp.matmul(a, change), (*shape, -1)) for a in (s, y)))

    def gamma(self, base: Preconditioner | None, mu: float | None) -> float:
        """The largest γ that the pairs speak for: the largest of sᵀy / yᵀM₀⁻¹y over their span.

        The complement then is scaled as the flattest known direction is; smaller choices were
        measured, and cost a third more products. γ μ ≤ 1 where μ is given.
        """
        backend = get_backend(self.products)
        xp, m = backend.xp, self.products.shape[-1]
        image = self.products if base is None else base(self.products)
        flat, image = (xp.reshape(a, (-1, m)) for a in (self.products, image))
        core = xp.matmul(flat.T, image)
        found = backend.eigh((core + core.T) / 2)
        if found is None:  # a product with the base overflows: the pairs say nothing
            return 1.0 if mu is None else min(1.0, 1 / mu)
        low, high = backend.scalars(found[0][0], found[0][-1])
        gamma: float = 1 / max(low, xp.finfo(flat.dtype).eps * high)
        return gamma if mu is None else min(gamma, 1 / mu)

    def inverse(self, base: Preconditioner | None, gamma: float) -> Preconditioner:
        """r ↦ M⁻¹ r, for one residual or several columns: four products with m vectors."""
        xp, m = get_backend(self.directions).xp, self.directions.shape[-1]
        s, y = (xp.reshape(a, (-1, m)) for a in (self.directions, self.products))

        def apply(r: Array) -> Array:
            flat = xp.reshape(r, (s.shape[0], -1))
            inside = xp.matmul(s.T, flat)
            rest = xp.reshape(flat - xp.matmul(y, inside), r.shape)
            rest = gamma * (rest if base is None else base(rest))
            inside = inside - xp.matmul(y.T, xp.reshape(rest, flat.shape))
            return rest + xp.reshape(xp.matmul(s, inside), r.shape)

        return apply
