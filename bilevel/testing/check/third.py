"""Lipschitz constants of the second derivatives of h, and self-concordance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...inner import InnerConstants
from .._probe import Probe, Vector, largest, length
from .differences import share
from .places import Place
from .report import Book

#: Where along a direction the curvature is looked at, in the metric.
_PROFILE = (-30.0, -10.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0)


def quotient(product: Callable[[Probe], Vector], at: Probe, u: Vector, t: float) -> Vector:
    """(F(x + t u) - F(x - t u)) / 2t: at most the Lipschitz constant of F, for ‖u‖ = 1."""
    return (product(at.moved(t * u)) - product(at.moved(-t * u))) / (2 * t)


def third_derivative(
    place: Place, inner: InnerConstants, directions: list[Vector], book: Book, *, thorough: bool
) -> None:
    """The Lipschitz constant of the Hessian by power iterations of D³h, and self-concordance.

    A symmetric trilinear form takes its norm where its three arguments are one vector (Banach).
    """
    rng, probe = book.rng, place.probe
    starts = [*directions[-1:], rng.standard_normal(probe.p), place.direction(rng)]
    middle = Probe(probe.problem, 0.3 * place.direction(rng), probe.lam)
    for at in (probe, middle) if thorough else (probe,):
        for start in starts if thorough else starts[-1:]:
            u = start / max(length(start), 1e-300)
            for _ in range(4):
                t = 0.1 / max(length(u / place.metric), 1e-300)
                turn = quotient(lambda x: x.hvp(u), at, u, t)  # noqa: B023
                _lipschitz(place, at, inner.hessian_lipschitz, turn, u, t, book)
                if not length(turn) > 0 or not math.isfinite(length(turn)):
                    break
                u = turn / length(turn)
            if thorough:
                profile(place, at, u, inner, book)


def _lipschitz(
    place: Place, at: Probe, declared: float | None, turn: Vector, u: Vector, t: float, book: Book
) -> None:
    if declared is not None:
        noise = 100 * place.eps * length(at.hvp(u)) / t
        book.constant(
            "inner.constants().hessian_lipschitz",
            declared,
            length(turn),
            100 * share(place.eps),
            noise,
        )


def profile(place: Place, at: Probe, u: Vector, inner: InnerConstants, book: Book) -> None:
    """The curvature along u: its slope, and the slope of its logarithm."""
    u = u / max(length(u), 1e-300)
    unit = 1 / max(length(u / place.metric), 1e-300)
    steps = [t * unit for t in _PROFILE]
    values = [float(u @ at.moved(t * u).hvp(u)) for t in steps]
    mu = inner.mu or 0.0
    # Where a loss is saturated its curvature is what is left of larger terms, with their rounding.
    rounding = 200 * place.eps * max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    for t, s, a, b in zip(steps, steps[1:], values, values[1:], strict=False):
        if inner.hessian_lipschitz is not None and math.isfinite(a + b):
            found = abs(b - a) / (s - t)
            book.constant(
                "inner.constants().hessian_lipschitz",
                inner.hessian_lipschitz,
                found,
                100 * share(place.eps),
                rounding / (s - t),
            )
        low = min(a, b) - mu
        if inner.self_concordance is not None and low > 1e3 * rounding and math.isfinite(a + b):
            book.constant(
                "inner.constants().self_concordance",
                inner.self_concordance,
                abs(math.log((b - mu) / (a - mu))) / (s - t),
                100 * share(place.eps),
                4 * rounding / low / (s - t),
            )


def cross_lipschitz(place: Place, declared: float, book: Book, *, turns: int) -> None:
    """∂_u ∂_w ∂_d h is maximised over u = w and d by turns, then as a norm in between."""
    probe, rng = place.probe, book.rng
    for start in (rng.standard_normal(probe.p), place.direction(rng)):
        u = start / length(start)
        for _ in range(turns):
            t = 1.0 / max(length(u / place.metric), 1e-300)
            d = quotient(lambda x: x.cross_vjp(u), probe, u, t)  # noqa: B023
            if not length(d) > 0 or not math.isfinite(length(d)):
                break
            ahead, behind = probe.moved(t * u), probe.moved(-t * u)
            found = largest(
                lambda e: (ahead.cross_jvp(e) - behind.cross_jvp(e)) / (2 * t),  # noqa: B023
                lambda q: (ahead.cross_vjp(q) - behind.cross_vjp(q)) / (2 * t),  # noqa: B023
                d,
                3,
            )
            image = ahead.cross_jvp(d / length(d))
            book.constant(
                "inner.constants().cross_lipschitz",
                declared,
                found,
                100 * share(place.eps),
                100 * place.eps * length(image) / t,
            )
            step = 0.05 * place.span * d / max(float(np.max(np.abs(d))), 1e-300)
            turn = probe.moved(0.0, step).hvp(u) - probe.moved(0.0, -step).hvp(u)
            if not length(turn) > 0 or not math.isfinite(length(turn)):
                break
            u = turn / length(turn)
