"""The variational inequality at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...backends import get_backend
from ...domains import Ball, Box, Domain
from ..problems import KnownProblem, bounds
from ..reference import Host, host, norm
from .violation import Figures, require


def gap(domain: Domain, lam: Host, gradient: Host) -> float:
    """δ = -min ⟨p, α - λ⟩ over α in a box or a ball, in closed form.

    Zero exactly at a stationary point, never negative in D.

    Examples
    --------
    >>> gap(Box(-1, 1), host([1.0, 0.0]), host([-2.0, 0.5]))
    0.5
    """
    if isinstance(domain, Ball):
        center = host(np.broadcast_to(domain.center, lam.shape))
        return float(gradient @ (lam - center)) + domain.radius * norm(gradient)
    low, high = bounds(domain, lam.shape[0])
    away = np.where(gradient > 0, lam - low, high - lam)
    return float(np.sum(np.abs(gradient) * np.where(gradient == 0, 0, away)))


def vertices(domain: Domain, m: int, count: int = 64, seed: int = 0) -> Iterator[Host]:
    """Vertices of a box (all where there are few) and random points of the domain."""
    low, high = (host(b) for b in bounds(domain, m))
    rng = np.random.default_rng(seed)
    numpy_backend = get_backend("numpy")
    if isinstance(domain, Box):
        codes = range(2**m) if 2**m <= count else rng.integers(0, 2**20, count).tolist()
        for code in codes:
            bits = np.array([(code >> (j % 20)) & 1 for j in range(m)])
            yield np.where(bits == 1, high, low)
    for _ in range(count):
        point = np.asarray(low + (high - low) * host(rng.random(m)), dtype=np.float64)
        yield host(domain.project(point, numpy_backend))


def stationarity(known: KnownProblem, lam: Host, delta: float) -> Figures:
    """⟨∇f(λ*), α - λ*⟩ ≥ -δ for all vertices and random α of D, and in closed form."""
    gradient = known.reference.hypergradient(lam)
    worst = min(
        float(gradient @ (alpha - lam)) for alpha in vertices(known.problem.domain, known.m)
    )
    closed = gap(known.problem.domain, lam, gradient)
    require(worst >= -closed - 1e-9, "the closed form of min ⟨∇f, α - λ⟩", worst=worst, gap=closed)
    require(closed <= delta, "⟨∇f(λ*), α - λ*⟩ ≥ -δ for all α in D", gap=closed, delta=delta)
    return {"gap": closed, "delta": delta}
