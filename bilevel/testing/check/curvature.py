"""μ and the smoothness of h against extreme eigenvalues of its Hessian."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from ...inner import InnerConstants
from .._probe import Probe, Vector, length, ritz
from .causes import likely_mu, likely_ratio
from .differences import share
from .places import Place
from .report import Book


def points(place: Place, rng: np.random.Generator) -> Iterator[Probe]:
    """Here, at x = 0, and far out, where the curvature of a loss is often largest and smallest."""
    probe = place.probe
    for x in (
        probe.x,
        0.0 * probe.x,
        probe.x + 3.0 * rng.standard_normal(probe.p),
        probe.x + 30.0 * place.metric * rng.standard_normal(probe.p),
    ):
        yield Probe(probe.problem, x, probe.lam)


def curvature(place: Place, inner: InnerConstants, book: Book, *, thorough: bool) -> list[Vector]:
    """Extreme eigenvalues against μ and the smoothness; returns directions worth a closer look."""
    directions: list[Vector] = []
    book.made("extreme eigenvalues of the Hessian")
    if not thorough and inner.mu is None and inner.smoothness is None:
        return directions
    for number, at in enumerate(islice(points(place, book.rng), None if thorough else 2)):
        steps = 12 if not thorough else 40 if number == 0 else 20
        found = ritz(at.hvp, book.rng.standard_normal(at.p), steps)
        if found is None:
            continue
        (low, bottom), (high, top) = found
        directions += [bottom, top] if number < 2 else []
        if number == 0 and inner.mu is None and low <= 0:
            book.note(
                f"The Hessian has an eigenvalue of {low:.3g} or below at this x: Theorem 2 "
                "needs it non-singular at X(λ)."
            )
        _extremes(place, inner, low, high, book)
        if thorough and number <= 1:
            _climbs(place, inner, at, (bottom, top), book)
    return directions


def _climbs(
    place: Place, inner: InnerConstants, at: Probe, ends: tuple[Vector, Vector], book: Book
) -> None:
    """The constants that are stated, against what is found by moving x to where h bends more."""
    bottom, top = ends
    if inner.smoothness is not None:
        _extremes(place, inner, math.inf, _climb(place, at, top, 1), book)
    if inner.mu is not None:
        _extremes(place, inner, _climb(place, at, bottom, -1), -math.inf, book)


def _extremes(place: Place, inner: InnerConstants, low: float, high: float, book: Book) -> None:
    known = [abs(v) for v in (low, high) if math.isfinite(v)]
    size = max([*known, inner.smoothness or 0.0])
    noise = 1e3 * place.eps * size
    if inner.mu is not None and low < inner.mu * (1 - share(place.eps)) - noise:
        book.add(
            "inner.constants().mu",
            "",
            inner.mu / low if low > 0 else math.inf,
            f"μ = {inner.mu:.6g} is declared but the Hessian has an eigenvalue {low:.6g} or below.",
            likely_mu(inner.mu, low, place.probe.lam, noise),
        )
    if inner.smoothness is not None and high > inner.smoothness * (1 + share(place.eps)) + noise:
        ratio = high / inner.smoothness if inner.smoothness > 0 else math.inf
        book.add(
            "inner.constants().smoothness",
            "",
            ratio,
            f"‖H‖ ≤ {inner.smoothness:.6g} is declared but the Hessian has an eigenvalue "
            f"{high:.6g} or above.",
            likely_ratio(ratio),
        )


def _climb(place: Place, at: Probe, v: Vector, sign: int) -> float:
    """The largest (or smallest) vᵀ H(x) v on a few steps of x along its gradient D³h[v, v, ·]."""
    v = v / max(length(v), 1e-300)
    here = float(v @ at.hvp(v))
    tiny = 1e-3 / max(length(v / place.metric), 1e-300)
    for _ in range(3):
        turn = (at.moved(tiny * v).hvp(v) - at.moved(-tiny * v).hvp(v)) * place.metric**2
        size = length(turn / place.metric)
        if not size > 0 or not math.isfinite(size):
            break
        steps = [at.moved(sign * t / size * turn) for t in (0.1, 1.0, 10.0)]
        values = [float(v @ ahead.hvp(v)) for ahead in steps]
        best = int(np.argmax(sign * np.array(values)))
        if not sign * values[best] > sign * here:
            break
        at, here = steps[best], values[best]
    return here
