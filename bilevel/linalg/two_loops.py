"""The two-loop recursion of L-BFGS: Liu and Nocedal (1989); Nocedal and Wright (2006), 7.4."""

from __future__ import annotations

from collections.abc import Collection
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
