"""Projections on D: nonexpansive, idempotent, and the variational inequality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilevel import get_backend
from bilevel.domains import Ball, Box, Domain
from bilevel.testing import Violation, projection
from bilevel.testing import strategies as sts
from bilevel.testing.problems import bounds
from bilevel.testing.reference import Host, host
from bilevel.testing.theorems import gap, vertices

M = 3
NUMPY = get_backend("numpy")


def on_host(domain: Domain, backend: Any = NUMPY) -> Any:
    def project(v: Host) -> Host:
        return host(
            backend.to_numpy(domain.project(backend.asarray(np.asarray(v, np.float64)), backend))
        )

    return project


def inside(domain: Domain) -> Any:
    """Membership, written without the projection."""
    if isinstance(domain, Ball):
        return lambda v: float(np.sum((v - domain.center) ** 2)) <= domain.radius**2 + 1e-9
    low, high = bounds(domain, M)
    return lambda v: bool(np.all(v >= low - 1e-12) and np.all(v <= high + 1e-12))


def inner_point(domain: Domain, share: Host) -> Host:
    """A point of the domain: a box corner to corner, or inside the ball."""
    low, high = bounds(domain, M)
    corner = low + (high - low) * np.asarray(np.abs(share) % 1.0, dtype=np.float64)
    return on_host(domain)(host(corner))


@given(sts.domains(M), sts.points(M), sts.points(M), sts.points(M))
def test_projection(domain: Domain, a: Host, b: Host, share: Host) -> None:
    projection(on_host(domain), a, b, inner_point(domain, share), contains=inside(domain))


@given(sts.domains(M), sts.points(M), sts.points(M))
def test_projection_of_neighbours(domain: Domain, a: Host, step: Host) -> None:
    """Two points that lie close to each other, where a discontinuity would show."""
    projection(
        on_host(domain), a, a + 1e-6 * step, inner_point(domain, step), contains=inside(domain)
    )


@pytest.mark.parametrize(
    "domain", [Box(-1.0, 0.5), Box((-1.0, 0.0, 0.25), (0.5, 0.0, 1.0)), Ball(0.5, 0.75)]
)
def test_projection_on_every_backend(backend: Any, domain: Domain) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b, share = (host(2 * rng.standard_normal(M)) for _ in range(3))
        projection(
            on_host(domain, backend), a, b, inner_point(domain, share), contains=inside(domain)
        )


CONTROLS = {
    "none": lambda v: v,
    "half way": lambda v: v + 0.5 * (np.clip(v, -1, 1) - v),
    "one face only": lambda v: np.minimum(v, 1.0),
    "wrap round": lambda v: (v + 1) % 2 - 1,
    "to the centre": lambda v: np.where(np.max(np.abs(v)) > 1, 0 * v, v),
    "onto a face": lambda v: np.sign(v) * np.maximum(np.abs(np.clip(v, -1, 1)), 0.5),
    "scaled into the box": lambda v: v / max(1.0, float(np.max(np.abs(v)))),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_projection_control(name: str) -> None:
    """Maps that are no projection on [-1, 1]³ are told from the one that is."""

    def search(project: Any) -> None:
        rng = np.random.default_rng(1)
        for _ in range(200):
            a, b = host(2 * rng.standard_normal(M)), host(2 * rng.standard_normal(M))
            projection(project, a, b, host(rng.uniform(-1, 1, M)), contains=inside(Box(-1.0, 1.0)))

    search(lambda v: np.clip(v, -1, 1))
    with pytest.raises(Violation):
        search(CONTROLS[name])


@given(sts.domains(M), sts.points(M), sts.points(M, 5.0))
def test_gap_is_the_worst_vertex(domain: Domain, a: Host, gradient: Host) -> None:
    """The closed form of -min ⟨p, α - λ⟩ is never below what any α of D attains."""
    lam = on_host(domain)(a)
    closed = gap(domain, lam, gradient)
    attained = max(-float(gradient @ (alpha - lam)) for alpha in vertices(domain, M))
    assert attained <= closed + 1e-9
    if isinstance(domain, Box):
        assert attained == pytest.approx(closed, abs=1e-9)
    assert closed >= -1e-9


@given(st.integers(-8, 8), st.integers(1, 16), sts.points(M, 5.0))
def test_gap_of_a_ball_is_attained(center: int, radius: int, gradient: Host) -> None:
    ball = Ball(center / 8, radius / 8)
    size = float(np.sqrt(gradient @ gradient))
    if size == 0:
        return
    lam = on_host(ball)(host(np.full(M, 3.0)))
    worst = host(np.full(M, center / 8)) - radius / 8 * gradient / size
    assert gap(ball, lam, gradient) == pytest.approx(-float(gradient @ (worst - lam)), abs=1e-9)
