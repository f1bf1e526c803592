"""The domain: its projection leads to the nearest point of one closed convex set."""

from __future__ import annotations

import math

import numpy as np

from ...answers import refuse_other_array
from ...problem import Problem
from .._probe import Probe, Vector, length
from .report import Book

#: How far away λ are projected: inside of most domains, and well beyond them.
_SIZES = (0.1, 1.0, 10.0, 100.0)

#: So many of each size.
_EACH = 6


def domain(problem: Problem, lam: Vector, book: Book) -> None:
    """``project``: its argument untouched, λ of the problem, idempotent, nearest."""
    what = "domain.project"
    with book.asking(what, "project(lam, backend) returns an array like lam"):
        probe = Probe(problem, np.zeros(0), lam)
        far = [s * book.rng.standard_normal(lam.shape) for s in _SIZES for _ in range(_EACH)]
        given = [lam, *(lam + away for away in far)]
        found = [_projected(probe, z, book) for z in given]
        if not book.blames(what):
            _unmoved(probe, found, book)
        if not book.blames(what):
            _nearest(probe, given, found, book)


def _projected(probe: Probe, z: Vector, book: Book) -> Vector:
    """P z, whose argument stays as it is."""
    problem, what = probe.problem, "domain.project"
    array = probe.send(z, z.shape)
    before = probe.host(array)
    found = problem.domain.project(array, problem.backend)
    refuse_other_array(found, f"{what}(lam)", z.shape, problem.backend, problem.dtype)
    if not np.array_equal(before, probe.host(array)):
        cause = "an operation in place, as out=lam; take a copy"
        book.add(what, "", math.inf, "it changes λ, which it is given to read.", cause)
    values = probe.host(found)
    if not np.all(np.isfinite(values)):
        message = f"of λ = {_shown(z)} it returns {_shown(values)}, which is not finite."
        book.add(what, "", math.inf, message, None)
    return values


def _unmoved(probe: Probe, found: list[Vector], book: Book) -> None:
    """What lies in D stays where it is, as far as an iterative projection would come."""
    for point in found:
        off = length(_projected(probe, point, book) - point) / (1 + length(point))
        if off > probe.eps**0.5:
            message = f"it moves {_shown(point)}, a point of D that it led to, by {off:.2g}."
            book.add("domain.project", "", off, message, "it is no projection: P(Pλ) must be Pλ")


def _nearest(probe: Probe, given: list[Vector], found: list[Vector], book: Book) -> None:
    """⟨z - Pz, y - Pz⟩ ≤ 0 for all y of D: else D holds a point between that is nearer to z."""
    for z, near in zip(given, found, strict=True):
        away = z - near
        for y in found:
            along = y - near
            sizes = length(away) * length(along)
            rounding = 100 * probe.eps * (1 + length(z)) * (length(along) + length(away))
            cosine = float(away @ along) / max(sizes, 1e-300)
            if cosine > _ASKEW and float(away @ along) > rounding:
                message = (
                    f"it leads from {_shown(z)} to {_shown(near)}, but on the way from there to "
                    f"{_shown(y)}, which is in D too, are points that are nearer."
                )
                cause = "it is not the nearest point, or D is not convex"
                book.add("domain.project", "", cosine, message, cause)


#: The cosine of an angle up to which an iterative projection is taken for right.
_ASKEW = 1e-3


def _shown(point: Vector) -> str:
    shown = ", ".join(f"{value:.4g}" for value in point[:3])
    return f"({shown}{', …' if len(point) > 3 else ''})"
