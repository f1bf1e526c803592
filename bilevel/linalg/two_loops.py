"""The two-loop recursion of L-BFGS: Liu and Nocedal (1989); Nocedal and Wright (2006), 7.4."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import TypeAlias

from ..backends import Array, Backend
from .products import dot

#: (s, y, 1/⟨s, y⟩): a step, the change of the gradient along it, and a 0-d array.
Pair: TypeAlias = tuple[Array, Array, Array]


def two_loops(pairs: Collection[Pair], gamma: Array | float, v: Array, backend: Backend) -> Array:
    """H v, H the inverse Hessian that the pairs imply; no number leaves the device.

    Parameters
    ----------
    pairs : collection of Pair
        The oldest first; it is walked in both directions.
    gamma : float or 0-d array
        The inverse Hessian before the pairs is gamma I.
    v : array
        May be overwritten.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> s, y, backend = np.array([1.0, 0.0]), np.array([4.0, 0.0]), bilevel.get_backend("numpy")
    >>> two_loops([(s, y, np.asarray(0.25))], 1.0, np.array([8.0, 3.0]), backend)
    array([2., 3.])
    """
    work = backend.xp.empty_like(v)
    alphas = []
    for s, y, rho in reversed(list(pairs)):
        alpha = rho * dot(s, v, backend)
        alphas.append(alpha)
        v = backend.axpy(-alpha, y, v, work)
    v = v * gamma
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = rho * dot(y, v, backend)
        v = backend.axpy(alpha - beta, s, v, work)
    return v


class PairMemory:
    """The newest pairs as rows of one block, their inner products on the host.

    The recursion needs of the pairs s_iᵀy_j (i no newer than j), y_iᵀy_j, and their products with
    the gradient alone: two products with the block give what a new pair and gradient add to them.
    The recursion is then one of numbers, and a third product its result (Chen, Wang and Zhou 2014).

    Parameters
    ----------
    most : int
        How many pairs are kept.
    backend : Backend
        Where they live.
    """

    def __init__(self, most: int, backend: Backend) -> None:
        self._most, self._backend = most, backend
        # s_i and y_i are the rows 2i and 2i + 1; a pair that is no good displaces none.
        self._places = min(most + 1, _PLACES)
        self._block: Array | None = None
        self._sy: dict[tuple[int, int], float] = {}
        self._yy: dict[tuple[int, int], float] = {}
        self._along: Sequence[float] = ()  # products of the rows with the gradient
        self._kept: list[int] = []
        self._gamma = 1.0

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all pairs."""
        self._kept, self._gamma = [], 1.0

    @property
    def _free(self) -> int:
        return next(place for place in range(self._most + 1) if place not in self._kept)

    def _with_room(self, like: Array) -> Array:
        """The block, twice as large where it is full."""
        xp, block = self._backend.xp, self._block
        missing = 2 * self._places if block is None else 0
        if self._free >= self._places:
            more = min(2 * self._places, self._most + 1)
            missing, self._places = 2 * (more - self._places), more
        if missing:
            shape = (missing, like.shape[0])
            rows = xp.zeros(shape, dtype=like.dtype, device=self._backend.device)
            block = rows if block is None else xp.concat([block, rows], axis=0)
        return block

    def written(self, s: Array, y: Array, grad: Array) -> tuple[Array, Array]:
        """Write a pair down; return the products of all rows with y and the gradient, to be read.

        What was read of them is for :meth:`take`.
        """
        backend, xp, free = self._backend, self._backend.xp, self._free
        s, y, grad = (xp.reshape(a, (-1,)) for a in (s, y, grad))
        block = backend.with_row(self._with_room(s), 2 * free, s)
        self._block = block = backend.with_row(block, 2 * free + 1, y)
        return xp.matmul(block, y), xp.matmul(block, grad)

    def take(self, numbers: Sequence[float], tiny: float) -> float:
        """Keep the pair that was written, where sᵀy is above ``tiny``: below it 1/sᵀy overflows.

        Returns
        -------
        float
            sᵀy.
        """
        free, half = self._free, len(numbers) // 2
        by_y, self._along = numbers[:half], numbers[half:]
        sy, yy = by_y[2 * free : 2 * free + 2]
        if not sy > tiny:
            return sy
        self._kept = [*self._kept[max(0, len(self._kept) - self._most + 1) :], free]
        for i in self._kept:
            self._sy[i, free] = by_y[2 * i]
            self._yy[i, free] = self._yy[free, i] = by_y[2 * i + 1]
        self._gamma = sy / yy
        return sy

    def direction(self, grad: Array, square: float) -> tuple[Array, float]:
        """-H grad, and its product with grad; ``square`` is ‖grad‖²."""
        if not self._kept:
            return -grad, -square
        xp, backend = self._backend.xp, self._backend
        weights = self._recursion()
        slope = -self._gamma * square + sum(map(operator.mul, weights, self._along))
        there = xp.asarray(weights, dtype=grad.dtype, device=backend.device)
        pairs = xp.reshape(xp.matmul(there, self._block), grad.shape)
        return backend.stepped(pairs, -self._gamma, grad), slope

    def _recursion(self) -> list[float]:
        """The weights of the rows in -H grad, beside -gamma grad."""
        sy, yy, along, kept = self._sy, self._yy, self._along, self._kept
        alphas: dict[int, float] = {}
        for i in reversed(kept):
            newer = sum(alpha * sy[i, j] for j, alpha in alphas.items())
            alphas[i] = -(along[2 * i] + newer) / sy[i, i]
        by_s: dict[int, float] = {}
        for i in kept:
            by_y = along[2 * i + 1] + sum(alphas[j] * yy[i, j] for j in kept)
            older = sum(weight * sy[j, i] for j, weight in by_s.items())
            by_s[i] = alphas[i] + (self._gamma * by_y - older) / sy[i, i]
        weights = [0.0] * len(along)
        for i in kept:
            weights[2 * i : 2 * i + 2] = by_s[i], -self._gamma * alphas[i]
        return weights


#: Places of pairs that are made at once.
_PLACES = 11
