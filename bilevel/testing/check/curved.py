"""The curvature of a criterion that knows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...outer import Curved
from .._probe import Probe, Vector, ritz
from .differences import of_gradient, share
from .places import Place
from .report import Book


def curved(place: Place, book: Book, noise: float) -> None:
    """``hvp`` and ``top`` of a criterion that has them, against differences of ``grad_x``."""
    probe = place.probe
    point: Any = probe.outer
    if not isinstance(point, Curved):
        return
    shape = (*probe.problem.inner.x_shape, 1)

    def product(v: Vector, at: Probe = probe) -> Vector:
        return at.host(at.outer.hvp(at.send(v, shape)))

    line = place.along(place.direction(book.rng))
    found = of_gradient(
        place,
        line,
        lambda at: at.outer_grad_x,
        lambda at: product(np.asarray(line.dx), at),
        noise,
        share(place.eps),
    )
    book.compare(
        "outer.hvp",
        found.mine / place.metric,
        found.truth / place.metric,
        10 * found.error,
        share=share(place.eps),
        metric=place.metric,
        reference="differences of grad_x",
    )
    top = float(probe.host(point.top())[0])
    ends = ritz(product, book.rng.standard_normal(probe.p), 12)
    if ends is not None:
        noise = 1e3 * place.eps * (probe.problem.outer_constants.grad_x_lipschitz or top)
        book.constant("outer.top", top, ends[1][0], 100 * share(place.eps), noise)
