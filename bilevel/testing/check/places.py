"""Where a problem is looked at: λ over all of D, x from tiny to far beyond the solution.

Each place has a metric, the lengths by which x_j has to move for h to change by about ½: steps and
directions are measured in it, so that an income beside a ratio is asked as closely as the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._cached import cached_property
from ...domains import Ball, Box
from ...problem import Problem
from .._probe import Line, Probe, Vector, length

#: The lengths of x at which h is looked at: in the metric, or as they are.
SIZES = (
    (1e-3, True),
    (1.0, False),
    (1.0, True),
    (6.0, False),
    (8.0, True),
    (40.0, False),
    (300.0, False),
)

#: So many unit vectors at most are multiplied for the diagonal of the Hessian.
_UNITS = 64


@dataclass(frozen=True)
class Place:
    """A point, the metric of x there, and the length of a step of each λ."""

    probe: Probe
    metric: Vector
    span: Vector
    name: str

    @cached_property
    def eps(self) -> float:
        return self.probe.eps

    @cached_property
    def smallest(self) -> float:
        """The smallest normal number: what underflow may take from each operation."""
        problem = self.probe.problem
        return float(problem.backend.xp.finfo(problem.dtype).smallest_normal)

    def direction(self, rng: np.random.Generator) -> Vector:
        """A random direction of x of length 1 in the metric."""
        z = rng.standard_normal(self.probe.p)
        return self.metric * (z / length(z))

    def direction_lam(self, rng: np.random.Generator) -> Vector:
        """A random direction of λ that stays in D for a quarter of it."""
        z = rng.standard_normal(self.probe.m)
        return self.span * (z / length(z))

    def along(self, dx: Vector) -> Line:
        with np.errstate(all="ignore"):
            far = length(self.probe.x / self.metric) / max(length(dx / self.metric), 1e-300)
        return Line(self.probe, dx, 0.0, self.eps * far)

    def along_lam(self, dlam: Vector) -> Line:
        far = length(self.probe.lam) / max(length(dlam), 1e-300)
        return Line(self.probe, 0.0, dlam, self.eps * far)

    def at(self, x: Vector, lam: Vector | None = None) -> Place:
        """Another x (and λ) with the same metric."""
        probe = Probe(self.probe.problem, x, self.probe.lam if lam is None else lam)
        return Place(probe, self.metric, self.span, self.name)


@dataclass(frozen=True)
class Window:
    """The part of D that is looked at: all of it where it is bounded, else 12 on each side."""

    problem: Problem
    low: Vector
    high: Vector
    bounded: bool

    @classmethod
    def of(cls, problem: Problem, lam: Vector) -> Window:
        domain, m = problem.domain, lam.shape[0]
        if isinstance(domain, Ball):
            center = np.broadcast_to(np.asarray(domain.center, dtype=np.float64), (m,))
            return cls(problem, center - domain.radius, center + domain.radius, True)
        low, high = np.full(m, -math.inf), np.full(m, math.inf)
        if isinstance(domain, Box):
            low = np.broadcast_to(np.asarray(domain.lower, dtype=np.float64), (m,))
            high = np.broadcast_to(np.asarray(domain.upper, dtype=np.float64), (m,))
        bounded = bool(np.all(np.isfinite(low)) and np.all(np.isfinite(high)))
        down = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 24, lam - 12))
        up = np.where(np.isfinite(high), high, np.where(np.isfinite(low), low + 24, lam + 12))
        return cls(problem, np.minimum(down, lam), np.maximum(up, lam), bounded)

    @cached_property
    def span(self) -> Vector:
        """The step of each λ: 1 at most, and a small part of D."""
        width = np.maximum(self.high - self.low, 1e-3 * (1 + np.abs(self.low)))
        return np.minimum(1.0, 0.04 * width)

    def project(self, lam: Vector) -> Vector:
        probe = Probe(self.problem, np.zeros(0), lam)
        moved = self.problem.domain.project(probe.send(lam, lam.shape), self.problem.backend)
        return probe.host(moved)

    def inside(self, lam: Vector) -> Vector:
        """The nearest λ from which steps in every direction stay in D."""
        domain = self.problem.domain
        if isinstance(domain, Ball):
            center = (self.low + self.high) / 2
            away = self.project(lam) - center
            most = 0.97 * domain.radius
            return center + away * min(1.0, most / max(length(away), 1e-300))
        if isinstance(domain, Box):
            middle = (self.low + self.high) / 2
            margin = np.minimum(0.25 * self.span, (self.high - self.low) / 2)
            return np.where(
                self.high > self.low, np.clip(lam, self.low + margin, self.high - margin), middle
            )
        return self.project(lam)

    def strata(self, n: int, rng: np.random.Generator) -> Iterator[Vector]:
        """N points of D, of which each λ visits every nth part, the first and last at its end."""
        m = self.low.shape[0]
        parts = np.stack([rng.permutation(n) for _ in range(m)], axis=1)
        share = (parts + rng.uniform(0.1, 0.9, parts.shape)) / n
        share = np.where(parts == 0, 0.02, np.where(parts == n - 1, 0.98, share))
        for row in share:
            yield self.inside(self.low + row * (self.high - self.low))

    def corners(self) -> Iterator[Vector]:
        """The ends of D in all λ at once."""
        if isinstance(self.problem.domain, (Box, Ball)) and self.bounded:
            yield from (self.project(self.low), self.project(self.high))


def place(probe: Probe, window: Window, name: str, rng: np.random.Generator) -> Place:
    """The point with its metric, from the curvature there and at x = 0."""
    p = probe.p
    zero = Probe(probe.problem, np.zeros(p), probe.lam)
    curvature = np.zeros(p)
    for at in (probe, zero):
        found = np.abs(_diagonal(at, rng))
        curvature = np.fmax(curvature, np.where(np.isfinite(found), found, 0.0))
    top = float(np.max(curvature))
    fallback = 1 + length(probe.x) / p**0.5
    if not top > 0:
        return Place(probe, np.full(p, fallback), window.span, name)
    # A component without any curvature says nothing of its scale.
    known = curvature > 1e-24 * top
    metric = np.where(known, 1 / np.sqrt(np.where(known, curvature, 1.0)), fallback)
    return Place(probe, _shortened(probe, metric, rng), window.span, name)


def _shortened(probe: Probe, metric: Vector, rng: np.random.Generator) -> Vector:
    """The metric, shorter where h bends by more over it than its curvature at the ends says.

    Rows of a piecewise loss that are saturated here and at 0 may be curved in between.
    """
    p = probe.p
    for _ in range(8):
        step = metric * rng.choice([-1.0, 1.0], p)
        bend = float((probe.moved(step).grad - probe.moved(-step).grad) @ step) / 2
        if not 4 * p < bend < math.inf:
            break
        metric = metric * math.sqrt(p / bend)
    return metric


def _diagonal(probe: Probe, rng: np.random.Generator) -> Vector:
    """Diag H: as stated, by unit vectors, or estimated by random signs where these are many."""
    stated: Any = probe.point.diag()
    if stated is not None:
        return probe.host(stated)
    p = probe.p
    if p <= _UNITS:
        return np.array([probe.hvp(unit)[j] for j, unit in enumerate(np.eye(p))])
    signs = [rng.choice([-1.0, 1.0], p) for _ in range(16)]
    products = np.stack([s * probe.hvp(s) for s in signs])
    # An estimate near 0 is noise of the others: no component counts for less than that.
    return np.maximum(np.abs(np.mean(products, axis=0)), 0.1 * np.std(products, axis=0))
