"""No declared constant is refuted: the worst points and directions are searched for.

Whatever is measured here is attained: Rayleigh quotients for μ and the smoothness, difference
quotients for Lipschitz constants, ratios of curvatures for self-concordance. So a constant is
blamed only where it is false, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ...inner import InnerConstants, inner_constants
from .._probe import Probe, Vector, largest, length, ritz
from .causes import likely_mu, likely_ratio
from .derivatives import share
from .places import Place
from .report import Book

#: Where along a direction the curvature is looked at, in the metric.
_PROFILE = (-30.0, -10.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 10.0, 30.0)


def stated(place: Place) -> InnerConstants:
    """The constants of the objective at the λ of the place."""
    probe = place.probe
    found: InnerConstants = inner_constants(probe.problem.inner, probe.send(probe.lam, (probe.m,)))
    return found


def noted(place: Place, book: Book) -> None:
    """What the theory would like and the problem does not state."""
    inner, outer = stated(place), place.probe.problem.outer_constants
    if inner.mu is None:
        book.note("No μ is stated: no distance to X(λ) can be certified.")
    for name in ("smoothness", "hessian_lipschitz", "cross_lipschitz"):
        if getattr(inner, name) is None:
            book.note(f"The objective states no {name}.")
    for name in ("grad_x_lipschitz", "grad_lam_lipschitz"):
        if getattr(outer, name) is None:
            book.note(f"The criterion states no {name}: no bound of the error follows.")


def search(place: Place, book: Book, *, thorough: bool) -> None:
    """All constants of the objective at this λ, and those of the criterion.

    A thorough search starts at several points and in several directions, any other in one.
    """
    inner = stated(place)
    directions = curvature(place, inner, book, thorough=thorough)
    if inner.hessian_lipschitz is not None or inner.self_concordance is not None:
        third_derivative(place, inner, directions, book, thorough=thorough)
    if inner.cross_lipschitz is not None:
        cross_lipschitz(place, inner.cross_lipschitz, book, turns=4 if thorough else 2)
    criterion(place, book, thorough=thorough)


def _least(place: Place, least: float, book: Book) -> None:
    """No value of g is below the one that is declared the least."""
    what = "outer.constants().least"
    book.made(what)
    value = float(place.probe.outer_value[0])
    noise = 1e3 * place.eps * (abs(least) + abs(value) + length(place.probe.outer_grad_x))
    if math.isfinite(value) and value < least - noise:
        message = f"{least:.6g} is declared the least value but {value:.6g} is attained."
        book.add(what, "", least - value, message, None)


# -- curvature -----------------------------------------------------------------------------------


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
    for number, at in enumerate(points(place, book.rng)):
        if not thorough and number > 1:
            break
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
        if not thorough or number > 1:
            continue
        if inner.smoothness is not None:
            _extremes(place, inner, math.inf, _climb(place, at, top, 1), book)
        if inner.mu is not None:
            _extremes(place, inner, _climb(place, at, bottom, -1), -math.inf, book)
    return directions


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


# -- third derivatives ---------------------------------------------------------------------------


def _quotient(product: Callable[[Probe], Vector], at: Probe, u: Vector, t: float) -> Vector:
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
                turn = _quotient(lambda x: x.hvp(u), at, u, t)  # noqa: B023
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
            d = _quotient(lambda x: x.cross_vjp(u), probe, u, t)  # noqa: B023
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


# -- the criterion -------------------------------------------------------------------------------


def criterion(place: Place, book: Book, *, thorough: bool) -> None:
    """Lipschitz constants of the gradients of g along the directions of their own growth."""
    outer = place.probe.problem.outer_constants
    if outer.least is not None:
        _least(place, outer.least, book)
    for at in points(place, book.rng) if thorough else (place.probe,):
        for name, declared, member in (
            ("grad_x_lipschitz", outer.grad_x_lipschitz, "outer_grad_x"),
            ("grad_lam_lipschitz", outer.grad_lam_lipschitz, "outer_grad_lam"),
        ):
            if declared is not None:
                what = f"outer.constants().{name}"
                _steepest(place, at, what, declared, member, book)
        if thorough and outer.self_concordance is not None:
            _bending(place, at, outer.self_concordance, book)


def _steepest(place: Place, at: Probe, what: str, declared: float, member: str, book: Book) -> None:
    constant = member == "outer_grad_lam" and declared == 0
    for start in (book.rng.standard_normal(at.p), place.direction(book.rng)):
        u = start / length(start)
        for _ in range(1 if constant else 4):
            t = 0.1 / max(length(u / place.metric), 1e-300)
            turn = _quotient(lambda x: getattr(x, member), at, u, t)
            if not math.isfinite(length(turn)):
                break
            noise = 100 * place.eps * length(getattr(at, member)) / t
            # x itself is rounded, and with it the distance.
            noise += 100 * place.eps * length(at.x) / t * length(turn)
            if not book.constant(what, declared, length(turn), 100 * share(place.eps), noise):
                return
            if member != "outer_grad_x" or not length(turn) > 0:
                u = book.rng.standard_normal(at.p)
                u = u / length(u)
            else:
                u = turn / length(turn)


def _bending(place: Place, at: Probe, declared: float, book: Book) -> None:
    """How fast uᵀ G u grows along u: at most by the factor e^{R s} on the length s."""
    u = place.direction(book.rng)
    turn = at.moved(0.1 * u).outer_grad_x - at.moved(-0.1 * u).outer_grad_x
    for v in (u, turn):
        if not length(v) > 0 or not math.isfinite(length(v)):
            continue
        w = v / length(v)
        unit = 1 / max(length(w / place.metric), 1e-300)
        # Curvatures averaged over windows of one length, a step apart, keep the ratio.
        for t in (0.25 * unit, 1.0 * unit):
            _windows(place, at, w, t, declared, book)


def _windows(place: Place, at: Probe, w: Vector, t: float, declared: float, book: Book) -> None:
    gradients = [at.moved(k * t * w).outer_grad_x for k in range(-4, 5)]
    gains = np.diff([float(w @ gradient) for gradient in gradients])
    # All of a gradient is rounded, whatever part of it w sees, and x is with it.
    rounding = 1e3 * place.eps * max(map(length, gradients))
    rounding += 1e3 * place.eps * length(at.x) / t * max(map(abs, gains))
    for a, b in zip(gains, gains[1:], strict=False):
        if min(a, b) > 1e3 * rounding:
            book.constant(
                "outer.constants().self_concordance",
                declared,
                abs(math.log(b / a)) / t,
                100 * share(place.eps),
                4 * rounding / min(a, b) / t,
            )
