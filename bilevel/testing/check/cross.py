"""The cross products of h: against differences in λ, adjoint to each other, and linear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from ...linalg.rounding import underflow
from .._probe import Vector, largest, length
from .causes import close, cross_cause
from .differences import coordinates, of_gradient, product_share, share
from .linear import linear
from .places import Place
from .report import Book

_GRAD = attrgetter("grad")


@dataclass(frozen=True)
class Columns:
    """Columns of ∂²_{xλ} h (p, columns) in the metric of x and the span of λ, two ways.

    Attributes
    ----------
    chosen : array of integers
        Whose.
    claimed, true : array
        By ``cross_jvp``, and by differences of ``grad`` in λ.
    error : float
        Of all of ``true``.
    asked : float
        The relative agreement asked for beside it.
    scales : array
        e^λ of each.
    """

    chosen: Any
    claimed: Vector
    true: Vector
    error: float
    asked: float
    scales: Vector

    @classmethod
    def of(cls, place: Place, book: Book, noise: float, most: int) -> Columns:
        problem, m = place.probe.problem, place.probe.m
        asked = max(product_share(problem, f"cross_{way}", place.eps) for way in ("jvp", "vjp"))
        chosen = coordinates(np.zeros(m), book.rng, most)
        found = []
        for unit in (place.span[j] * (np.arange(m) == j) for j in chosen):
            line, product = place.along_lam(unit), methodcaller("cross_jvp", unit)
            found.append(of_gradient(place, line, _GRAD, product, noise, asked))
        return cls(
            chosen,
            np.stack([column.mine for column in found], axis=1),
            np.stack([column.truth for column in found], axis=1),
            math.hypot(*(column.error for column in found)),
            asked,
            np.exp(np.clip(place.probe.lam[chosen], -700, 700)),
        )


def cross(place: Place, book: Book, noise: float, most: int = 8) -> None:
    """``cross_jvp`` and ``cross_vjp`` against differences of ``grad`` in λ."""
    columns = Columns.of(place, book, noise, most)
    chosen, shape = columns.chosen, columns.claimed.shape
    agrees = book.compare(
        "inner.cross_jvp",
        columns.claimed.reshape(-1),
        columns.true.reshape(-1),
        10 * columns.error,
        share=columns.asked,
        where=lambda k: f"x component {k // len(chosen)}, λ component {chosen[k % len(chosen)]}",
        cause=lambda a, b: cross_cause(a.reshape(shape), b.reshape(shape), columns.scales),
        reference="differences of grad in λ (per unit of the metric)",
    )
    transpose(place, book, columns)
    if agrees:
        adjoint(place, book, columns.asked)


def transpose(place: Place, book: Book, columns: Columns) -> None:
    """``cross_vjp`` against the true columns, so that one fault is not reported as two."""
    probe, metric, chosen = place.probe, place.metric, columns.chosen
    span = place.span[chosen]
    queries = book.rng.standard_normal((4, probe.p)) / probe.p**0.5
    got = np.stack([probe.cross_vjp(metric * q) for q in queries])[:, chosen] * span

    def cause(mine: Vector, other: Vector) -> str | None:
        a, b = mine.reshape(got.shape), other.reshape(got.shape)
        if probe.p == probe.m == len(chosen):
            plain = columns.true / metric[:, None] / span
            if close(a, (queries * metric) @ plain.T * span):
                return "transposed: ∂²_{xλ} h is applied where its transpose is asked for"
        return cross_cause(a, b, columns.scales)

    book.compare(
        "inner.cross_vjp",
        got.reshape(-1),
        (queries @ columns.true).reshape(-1),
        10 * columns.error * length(queries.reshape(-1)),
        share=columns.asked,
        where=lambda k: f"λ component {chosen[k % len(chosen)]}",
        cause=cause,
        reference="differences of grad in λ",
    )


def adjoint(place: Place, book: Book, asked: float) -> None:
    """⟨Bᵀ q, d⟩ = ⟨q, B d⟩, and the bound of ‖B‖."""
    probe, rng = place.probe, book.rng
    for _ in range(2):
        q, d = place.direction(rng), place.direction_lam(rng)
        back, forth = probe.cross_vjp(q), probe.cross_jvp(d)
        left, right = float(back @ d), float(q @ forth)
        scale = length(back * place.span) + length(forth * place.metric)
        if abs(left - right) > 4 * asked * scale:
            book.add(
                "inner.cross_vjp",
                "",
                abs(left - right) / scale,
                f"⟨Bᵀ q, d⟩ = {left:.6g} but ⟨q, B d⟩ = {right:.6g}.",
                "cross_vjp and cross_jvp are not adjoint to each other",
            )
    book.made("the cross products are adjoint")
    norm = probe.point.cross_norm
    if norm is not None:
        stated = float(probe.host(norm)[0])
        found = largest(probe.cross_jvp, probe.cross_vjp, rng.standard_normal(probe.m))
        # A norm may have lost all its squares where these underflow.
        lost = underflow(probe.problem.dtype, probe.p, probe.problem.backend)
        book.constant("inner.cross_norm", stated, found, 100 * share(place.eps), lost)


def structure(place: Place, book: Book) -> None:
    """The cross products are linear too."""
    probe, rng = place.probe, book.rng
    for name, product, u, v, metric in (
        (
            "inner.cross_vjp",
            probe.cross_vjp,
            place.direction(rng),
            place.direction(rng),
            place.span,
        ),
        (
            "inner.cross_jvp",
            probe.cross_jvp,
            place.direction_lam(rng),
            place.direction_lam(rng),
            place.metric,
        ),
    ):
        asked = product_share(probe.problem, name.removeprefix("inner."), place.eps)
        linear(place, book, name, product, u, v, metric, asked)


def block(place: Place, book: Book) -> None:
    """``cross_vjp`` of two directions at once: (m, 2)."""
    probe, what = place.probe, "inner.cross_vjp of two directions"
    if book.blames("inner.cross_"):
        return
    shape, xp = tuple(probe.problem.inner.x_shape), probe.problem.backend.xp
    u, v = place.direction(book.rng), place.direction(book.rng)
    with book.asking(what, "one more axis counts several directions"):
        found = probe.point.cross_vjp(xp.stack([probe.send(u), probe.send(v)], axis=len(shape)))
        if tuple(found.shape) != (probe.m, 2):
            message = f"got the shape {tuple(found.shape)}, expected {(probe.m, 2)}."
            book.add(what, "", math.inf, message, "one more axis counts several directions")
            return
        book.compare(
            what,
            probe.host(found),
            np.stack([probe.cross_vjp(u), probe.cross_vjp(v)], axis=1).reshape(-1),
            0.0,
            share=product_share(probe.problem, "cross_vjp", place.eps),
            metric=np.repeat(place.span, 2),
            reference="one after the other",
        )
