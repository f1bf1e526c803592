"""How H turns with x: sharper bounds than self-concordance, held against what is attained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...backends import described
from ...inner import InnerConstants, Leveraged, Pushable, Swinging, Turning
from .._probe import Probe, Vector, length
from .bounds import stated
from .differences import share
from .places import Place
from .report import Book

#: The lengths of u in the metric at which the change of H is looked at.
_LENGTHS = (0.1, 1.0, 3.0)

#: So many unit vectors at most are pushed for ``leverage``.
_UNITS = 64


def turning(place: Place, inner: InnerConstants, book: Book) -> None:
    """``swing`` and ``leverage``, where h is self-concordant."""
    point, R = place.probe.point, inner.self_concordance
    if not isinstance(point, Pushable) or R is None or not math.isfinite(R):
        return
    if isinstance(point, Swinging):
        with book.asking("inner.swing", "swing(pushed) returns two arrays, or None"):
            _swing(place, inner.mu or 0.0, R, book)
    if isinstance(point, Turning):
        with book.asking("inner.turning"):
            _turning(place, book)
    if isinstance(point, Leveraged) and place.probe.p <= _UNITS:
        with book.asking("inner.leverage"):
            _leverage(place, inner.mu or 0.0, book)


def _pushed(place: Place, directions: list[Vector]) -> Any:
    probe: Any = place.probe
    xp, axis = probe.problem.backend.xp, len(tuple(probe.problem.inner.x_shape))
    return probe.point.push(xp.stack([probe.send(v) for v in directions], axis=axis))


def _swing(place: Place, mu: float, R: float, book: Book) -> None:
    """abs(wᵀ ΔH v_j) ≤ M_j φ(R‖u‖) ‖w‖_A ‖u‖_A, and the same of v_0ᵀ ΔH v_j."""
    what, probe, rng = "inner.swing", place.probe, book.rng
    directions = [place.direction(rng) for _ in range(3)]
    point: Any = probe.point
    found = point.swing(_pushed(place, directions))
    if found is None:
        return
    if not isinstance(found, tuple) or len(found) != 2:
        message = f"got {described(found)}, expected a tuple of two arrays, or None."
        book.add(what, "", math.inf, message, None)
        return
    first = stated(place, book, what, found[0], (3,))
    second = stated(place, book, what, found[1], (2,))
    if first is None or second is None:
        return
    sharp = _Sharp(place, mu, R, directions, book)
    for size in _LENGTHS:
        for u in (*directions, place.direction(rng)):
            sharp.hold(size * u, first, second)


#: Shares of a step at which its turning is asked for: the last is taken for the linear part.
_SHARES = (1.0, 0.3, 0.01)


def _turning(place: Place, book: Book) -> None:
    """abs(qᵀ ΔH t) at a share of d, less the linear part, which the shortest step shows."""
    what, probe, rng = "inner.turning", place.probe, book.rng
    d, q, t = (place.direction(rng) for _ in range(3))
    point: Any = probe.point
    found = point.turning(_pushed(place, [d, q, t]), _SHARES)
    if found is None:
        return
    n = len(_SHARES)
    table = stated(place, book, what, found, (n, 3))
    if table is None:
        return
    bounds = np.reshape(table, (n, 3))[:, 2]
    Ht = probe.hvp(t)
    lost = 1e3 * place.eps * length(Ht * place.metric) * length(q / place.metric)
    changes = [float(q @ (probe.moved(part * d).hvp(t) - Ht)) for part in _SHARES]
    for part, change, bound in zip(_SHARES[:-1], changes, bounds, strict=False):
        times = part / _SHARES[-1]
        attained = abs(change - times * changes[-1]) - (1 + times) * lost
        most = bound + times * bounds[-1]
        if math.isfinite(attained) and attained > most * (1 + 100 * place.eps):
            ratio = attained / most if most > 0 else math.inf
            message = f"{most:.6g} is allowed beyond the linear part, but {attained:.6g} attained."
            book.add(what, "", ratio, message, "a row is left out, or a factor of the loss")


class _Sharp:
    """The two bounds of ``swing`` beside what a change of x does to the products."""

    def __init__(
        self, place: Place, mu: float, R: float, directions: list[Vector], book: Book
    ) -> None:
        self.place, self.mu, self.R, self.book = place, mu, R, book
        self.directions = directions
        self.products = [place.probe.hvp(v) for v in directions]

    def energy(self, w: Vector, product: Vector) -> float:
        """‖w‖_A with A = H - μ I, and what rounding may have taken from it."""
        whole, least = float(w @ product), self.mu * float(w @ w)
        return math.sqrt(max(whole - least, 0.0) + 100 * self.place.eps * (abs(whole) + least))

    def hold(self, u: Vector, first: Vector, second: Vector) -> None:
        place, v, Hv = self.place, self.directions, self.products
        ahead, rate = place.probe.moved(u), self.R * length(u)
        if rate > 30:
            return
        grown = math.expm1(rate) / rate if rate > 0 else 1.0
        moved = self.energy(u, place.probe.hvp(u)) * grown
        changes = [ahead.hvp(b) - before for b, before in zip(v, Hv, strict=True)]
        for j, change in enumerate(changes):
            lost = 1e3 * place.eps * length(Hv[j] * place.metric)
            for w, Hw in zip(v, Hv, strict=True):
                attained = abs(float(w @ change)) - lost * length(w / place.metric)
                self._at_most("M_j of the first", attained, first[j] * moved * self.energy(w, Hw))
            if j > 0:
                attained = abs(float(v[0] @ change)) - lost * length(v[0] / place.metric)
                self._at_most("M_j of the second", attained, second[j - 1] * moved)

    def _at_most(self, name: str, attained: float, bound: float) -> None:
        if attained > bound * (1 + 100 * share(self.place.eps)) and math.isfinite(attained):
            message = f"{name} allows a change of {bound:.6g} but {attained:.6g} is attained."
            ratio = attained / bound if bound > 0 else math.inf
            cause = "a row of large predictions is left out, or a factor of the loss"
            self.book.add("inner.swing", "", ratio, message, cause)


def _leverage(place: Place, mu: float, book: Book) -> None:
    """The curvature along u = W v grows by the factor e^{C ‖v‖} at most."""
    what, probe, rng = "inner.leverage", place.probe, book.rng
    W = np.stack([place.direction(rng) for _ in range(2)], axis=1)
    point: Any = probe.point
    bound = point.leverage(_pushed(place, list(np.eye(probe.p))), probe.send(W, W.shape))
    known = stated(place, book, what, bound)
    if known is None:
        return
    for v in (rng.standard_normal(2) for _ in range(4)):
        u = W @ v
        for z in (u, place.direction(rng)):
            _grown(place, book, z, u, mu, float(known[0]) * length(v))


def _grown(place: Place, book: Book, z: Vector, u: Vector, mu: float, most: float) -> None:
    def curvature(at: Probe) -> float:
        return float(z @ at.hvp(z)) - mu * float(z @ z)

    here, there = curvature(place.probe), curvature(place.probe.moved(u))
    rounding = 1e3 * place.eps * (max(here, there) + mu * float(z @ z))
    if not min(here, there) > 1e3 * rounding or not math.isfinite(here + there):
        return
    found = abs(math.log(there / here)) - 4 * rounding / min(here, there)
    if found > most * (1 + 100 * share(place.eps)):
        message = f"C ‖v‖ = {most:.6g}, but the logarithm of the curvature grows by {found:.6g}."
        ratio = found / most if most > 0 else math.inf
        book.add("inner.leverage", "", ratio, message, "a row is left out, or a factor of the loss")
