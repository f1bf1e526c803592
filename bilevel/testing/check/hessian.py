"""The Hessian of h: products against differences of the gradient; symmetry and linearity."""

from __future__ import annotations

import math
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from .._probe import Line, Vector, length
from .causes import CURVATURE, likely_factor, penalty_cause
from .differences import of_gradient, product_share
from .linear import linear
from .places import Place
from .report import Book

_GRAD = attrgetter("grad")


def hessian(place: Place, book: Book, noise: float, lines: list[Line]) -> None:
    """``hvp`` against differences of ``grad``."""
    probe, metric = place.probe, place.metric
    asked = product_share(probe.problem, "hvp", place.eps)
    for line in lines:
        v: Any = line.dx

        def cause(mine: Vector, right: Vector, v: Vector = v) -> str | None:
            factor = likely_factor(mine, right)
            return factor or penalty_cause(CURVATURE, right - mine, v * metric, probe.lam)

        found = of_gradient(place, line, _GRAD, methodcaller("hvp", v), noise, asked)
        book.compare(
            "inner.hvp",
            found.mine / metric,
            found.truth / metric,
            10 * found.error,
            share=asked,
            metric=metric,
            cause=cause,
            reference="differences of grad",
        )


def structure(place: Place, book: Book) -> None:
    """Symmetry, linearity at every size, and several directions at once."""
    probe, metric, rng = place.probe, place.metric, book.rng
    asked = product_share(probe.problem, "hvp", place.eps)
    u, v = place.direction(rng), place.direction(rng)
    hu, hv = probe.hvp(u), probe.hvp(v)
    scale = length(hu * metric) + length(hv * metric)
    skew = abs(float(u @ hv) - float(v @ hu))
    book.made("the Hessian is symmetric")
    if skew > 4 * asked * scale:
        book.add(
            "inner.hvp is symmetric",
            "",
            skew / scale,
            f"uᵀ H v = {float(u @ hv):.9g} but vᵀ H u = {float(v @ hu):.9g}.",
            "a factor is transposed, or one triangle of a matrix is used alone",
        )
    linear(place, book, "inner.hvp", probe.hvp, u, v, metric, asked)
    shape = tuple(probe.problem.inner.x_shape)
    xp = probe.problem.backend.xp
    block = probe.point.hvp(xp.stack([probe.send(u), probe.send(v)], axis=len(shape)))
    if tuple(block.shape) != (*shape, 2):
        message = f"got the shape {tuple(block.shape)}, expected {(*shape, 2)}."
        book.add("inner.hvp of two directions", "", math.inf, message, None)
        return
    book.compare(
        "inner.hvp of two directions",
        probe.host(block),
        np.stack([hu, hv], axis=1).reshape(-1),
        0.0,
        share=asked,
        metric=np.repeat(metric, 2),
        reference="one after the other",
    )
