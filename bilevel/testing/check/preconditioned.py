"""A preconditioner of a point: a fixed symmetric positive M⁻¹, with M⁻¹H ⪰ I where it is asked.

A wrong one leaves every derivative right. It spoils what the solves with H say of their errors:
the lower bound 1 of M⁻¹H is what their stopping test, and each proof that follows, rest on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...inner import Preconditioned
from .._probe import Vector, length
from .differences import product_share
from .places import Place
from .report import Book

_WHAT = "inner.preconditioner"


def preconditioned(place: Place, book: Book) -> None:
    """All that a stated M⁻¹ has to be, the plainest first: one fault is reported once."""
    if not isinstance(place.probe.point, Preconditioned):
        return
    with book.asking(_WHAT, "preconditioner() is a method that returns r ↦ M⁻¹ r, or None"):
        apply = place.probe.point.preconditioner()
        if apply is not None:
            # Residuals are sums of products with H: where H is singular, M⁻¹ is asked on its range.
            u, v = (place.probe.hvp(place.direction(book.rng)) for _ in range(2))
            if _plain(place, book, apply, u, v) and _symmetric(place, book, apply, u, v):
                _above_one(place, book, apply, u)


def _plain(place: Place, book: Book, apply: Callable[[Any], Any], u: Vector, v: Vector) -> bool:
    """Shape, finite values, its argument left alone, and a block column by column."""
    probe, shape = place.probe, tuple(place.probe.problem.inner.x_shape)
    xp = probe.problem.backend.xp
    parts = [probe.send(u), probe.send(v)]
    for asked in (parts[0], xp.stack(parts, axis=len(shape))):
        kept = probe.host(asked)
        found = apply(asked)
        if tuple(found.shape) != tuple(asked.shape):
            message = f"got the shape {tuple(found.shape)}, expected {tuple(asked.shape)}."
            book.add(_WHAT, "", math.inf, message, None)
            return False
        if not np.array_equal(kept, probe.host(asked)):
            cause = "an operation in place, as r *= 2; take a copy"
            book.add(_WHAT, "", math.inf, "it changes the residual.", cause)
            return False
        if not np.all(np.isfinite(probe.host(found))):
            book.add(_WHAT, "", math.inf, "it is not finite.", None)
            return False
    return book.compare(
        _WHAT,
        probe.host(found),
        np.stack([probe.host(apply(part)) for part in parts], axis=1).reshape(-1),
        _rounding(place, book, apply, u),
        share=_asked(place),
        metric=np.repeat(1 / place.metric, 2),
        reference="one column after the other would",
    )


def _rounding(place: Place, book: Book, apply: Callable[[Any], Any], r: Vector) -> float:
    """What the rounding of a residual makes of M⁻¹r, as far as a solve with M may be off."""
    probe, most = place.probe, 0.0
    here = probe.host(apply(probe.send(r)))
    for _ in range(3):
        moved = r + _SHAKE * length(r) * book.rng.standard_normal(probe.p) / probe.p**0.5
        off = probe.host(apply(probe.send(moved))) - here
        most = max(most, length(off / place.metric))
    return 10 * most * place.eps / _SHAKE


#: A shake of a residual that is far above its rounding.
_SHAKE = 1e-2


def _symmetric(place: Place, book: Book, apply: Callable[[Any], Any], u: Vector, v: Vector) -> bool:
    """UᵀM⁻¹v = vᵀM⁻¹u, both with a positive square."""
    probe = place.probe
    mu, mv = (probe.host(apply(probe.send(r))) for r in (u, v))
    for square in (float(u @ mu), float(v @ mv)):
        if not square > 0:
            message = f"rᵀM⁻¹r = {square:.6g} for a residual r that is not 0."
            book.add(_WHAT, "", math.inf, message, "M⁻¹ has to be positive definite")
            return False
    forth, back = float(u @ mv), float(v @ mu)
    scale = length(u * place.metric) * length(mv / place.metric)
    scale += length(v * place.metric) * length(mu / place.metric)
    if abs(forth - back) <= 4 * _asked(place) * scale:
        return True
    message = f"uᵀM⁻¹v = {forth:.9g} but vᵀM⁻¹u = {back:.9g}."
    book.add(_WHAT, "", abs(forth - back) / scale, message, "M⁻¹ has to be symmetric")
    return False


def _above_one(place: Place, book: Book, apply: Callable[[Any], Any], start: Vector) -> None:
    """No quotient zᵀHz / zᵀMz is below 1: of all z where they are few, else that Lanczos finds."""
    probe = place.probe

    def inverse(r: Vector) -> Vector:
        return probe.host(apply(probe.send(r)))

    if probe.p <= _DENSE:
        lowest, lost = _least(inverse, probe.hvp, probe.p, place.eps)
    else:
        lowest, lost = _quotients(inverse, probe.hvp, start, place.eps)
    if lowest < 1 - 100 * _asked(place) - lost:
        message = f"M⁻¹H ⪰ I is asked for, but has the quotient {lowest:.6g}."
        book.add(_WHAT, "", 1 / lowest if lowest > 0 else math.inf, message, "M is too large")


#: Coefficients up to which M⁻¹ and H are made whole.
_DENSE = 256


def _least(
    inverse: Callable[[Vector], Vector],
    product: Callable[[Vector], Vector],
    p: int,
    eps: float,
) -> tuple[float, float]:
    """The least eigenvalue of M⁻¹H on the range of H, and what rounding may have taken of it.

    That of H^½ M⁻¹ H^½, both matrices made of their products with the unit vectors.
    """
    H, S = (np.stack([f(unit) for unit in np.eye(p)], axis=1) for f in (product, inverse))
    values, vectors = np.linalg.eigh((H + H.T) / 2)
    kept = values > 10 * p * eps * values[-1]
    root = vectors[:, kept] * np.sqrt(values[kept])
    lowest = float(np.linalg.eigvalsh(root.T @ ((S + S.T) / 2) @ root)[0])
    return lowest, 10 * eps * float(np.linalg.norm(S, 2)) * float(values[-1])


def _quotients(
    inverse: Callable[[Vector], Vector],
    product: Callable[[Vector], Vector],
    r: Vector,
    eps: float,
) -> tuple[float, float]:
    """The least Ritz value of M⁻¹H, or what the last r shows, and what rounding may have taken.

    Lanczos in the metric of M, which is known by its inverse alone: the basis z is kept with
    w = M z, so that zᵀw' is the inner product. It ends where ``share``, of what the products are
    beside those before, leaves rounding: that may lie where H is 0. Directions that M⁻¹ hides are
    left in r, where rᵀM⁻¹r rᵀHr ≥ (rᵀr)² is asked.
    """
    basis: list[tuple[Vector, Vector, Vector]] = []
    share, steepest = 1.0, 0.0
    for _ in range(min(_STEPS, r.shape[0])):
        known = sum(float(z @ r) ** 2 for z, _, _ in basis)
        for _ in range(2):
            for z, w, _ in basis:
                r = r - (z @ r) * w
        image = inverse(r)
        square = float(image @ r)
        steepest = max(steepest, square / float(r @ r) if np.any(r) else 0.0)
        share *= square / (square + known) if square > 0 else 0.0
        if not share > 1e3 * eps:
            break
        z, w = image / math.sqrt(square), r / math.sqrt(square)
        r = product(z)
        basis.append((z, w, r))
    core = np.array([[z @ hz for _, _, hz in basis] for z, _, _ in basis])
    values = np.linalg.eigvalsh((core + core.T) / 2)
    lowest, lost = float(values[0]), 1e3 * eps * float(values[-1])
    bent, rr = float(r @ product(r)), float(r @ r)
    # A last r of rounding says nothing.
    if rr > (1e3 * eps * float(np.linalg.norm(basis[-1][2]))) ** 2 and bent > 0:
        hidden = (float(r @ inverse(r)) + 100 * eps * steepest * rr) * bent / rr**2
        lowest = min(lowest, hidden)
    return lowest, lost


#: Products with H, and so many applications of M⁻¹.
_STEPS = 20


def _asked(place: Place) -> float:
    return product_share(place.probe.problem, "hvp", place.eps)
