"""Products with a matrix are linear, at every size of the direction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .._probe import Vector, length
from .places import Place
from .report import Book


def linear(
    place: Place,
    book: Book,
    name: str,
    product: Callable[[Vector], Vector],
    u: Vector,
    v: Vector,
    metric: Vector,
    asked: float,
) -> None:
    """F(2 u - 3 v) = 2 f(u) - 3 f(v), f(c u) = c f(u) for c small and large, f(0) = 0."""
    fu, fv = product(u), product(v)
    scale = length(fu * metric) + length(fv * metric)
    what = f"{name} is linear"
    reference = "H (2 u - 3 v) as 2 H u - 3 H v would"
    sound = book.compare(
        what,
        product(2 * u - 3 * v),
        2 * fu - 3 * fv,
        10 * asked * scale,
        share=asked,
        metric=metric,
        reference=reference,
    )
    large = 1e3 if place.eps > 1e-10 else 1e6
    for c in (1 / large, large):
        if sound:
            sound = book.compare(
                what,
                product(c * u) / c,
                fu,
                10 * asked * scale,
                share=asked,
                metric=metric,
                reference=f"products with {c:g} u over {c:g}, as H u would",
            )
    if sound:
        nothing = product(0.0 * u)
        if not np.all(nothing == 0):
            worst = nothing[int(np.argmax(np.abs(nothing)))]
            message = f"the product with 0 has an entry {worst:.6g}."
            book.add(what, "", math.inf, message, "a division by the length of the direction")
