"""The constants of the criterion: its least value, Lipschitz constants, self-concordance."""

from __future__ import annotations

import math

import numpy as np

from .._probe import Probe, Vector, length
from .curvature import points
from .differences import share
from .places import Place
from .report import Book
from .third import quotient


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


def _least(place: Place, least: float, book: Book) -> None:
    """No value of g is below the one that is declared the least."""
    what = "outer.constants().least"
    book.made(what)
    value = float(place.probe.outer_value[0])
    noise = 1e3 * place.eps * (abs(least) + abs(value) + length(place.probe.outer_grad_x))
    if math.isfinite(value) and value < least - noise:
        message = f"{least:.6g} is declared the least value but {value:.6g} is attained."
        book.add(what, "", least - value, message, None)


def _steepest(place: Place, at: Probe, what: str, declared: float, member: str, book: Book) -> None:
    constant = member == "outer_grad_lam" and declared == 0
    for start in (book.rng.standard_normal(at.p), place.direction(book.rng)):
        u = start / length(start)
        for _ in range(1 if constant else 4):
            t = 0.1 / max(length(u / place.metric), 1e-300)
            turn = quotient(lambda x: getattr(x, member), at, u, t)
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
