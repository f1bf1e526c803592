"""Members that shorten others: ``diag``, ``ray``, ``carry``, ``push`` and ``pull``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...inner import Pushable, Roundable
from .._probe import Probe, Vector, length
from .differences import coordinates, share
from .places import Place
from .report import Book


def consistency(place: Place, book: Book) -> None:
    """``diag``, ``ray``, ``carry``, ``push`` and ``pull`` against the members that they shorten."""
    probe, metric = place.probe, place.metric
    diagonal = probe.point.diag()
    if diagonal is not None:
        claimed = probe.host(diagonal)
        chosen = coordinates(claimed, book.rng, most=8)
        units = [(np.arange(probe.p) == j) * 1.0 for j in chosen]
        book.compare(
            "inner.diag",
            claimed[chosen],
            np.array([float(e @ probe.hvp(e)) for e in units]),
            0.0,
            share=10 * share(place.eps),
            metric=metric[chosen] ** 2,
            where=lambda j: f"component {chosen[j]}",
            reference="products with unit vectors",
        )
    rays(place, book)
    carried(place, book)
    if isinstance(probe.point, Pushable):
        pushed(place, book)
        combined(place, book)
    if isinstance(probe.point, Roundable):
        with book.asking("inner.rounded", "rounded() is a method that returns a point, or None"):
            rounded(place, book)


def rays(place: Place, book: Book) -> None:
    """``ray`` against points of its own."""
    probe, v = place.probe, place.direction(book.rng)
    ray = probe.point.ray(probe.send(v))
    ahead, direct = ray.at(0.25), probe.moved(0.25 * v)
    slack = _rounding(place, probe, direct)
    book.compare(
        "inner.ray().at",
        probe.host(ahead.grad),
        direct.grad,
        slack,
        share=10 * share(place.eps),
        metric=place.metric,
        reference="a point of its own would",
    )
    # The difference of two slopes cancels what both are known to.
    scale = length(direct.grad * place.metric) + slack / share(place.eps)
    book.compare(
        "inner.ray().slope",
        probe.host(ray.slope(ahead)),
        np.array([direct.grad @ v]),
        10 * share(place.eps) * scale,
        share=10 * share(place.eps),
        reference="⟨grad, d⟩ would",
    )


def _rounding(place: Place, *probes: Probe) -> float:
    """What rounding of x does to grad, in the metric: H δx with δx = eps x, and of grad."""
    with np.errstate(all="ignore"):
        far = length(place.probe.x / place.metric)
    grads = sum(length(probe.grad * place.metric) for probe in probes)
    return 100 * place.eps * (grads + far * place.probe.p**0.5)


def _compare(
    place: Place, book: Book, what: str, claimed: Any, truth: Vector, slack: float, said: str
) -> None:
    """Hold a way that spares a pass against the plain one, in columns of the length of x."""
    book.compare(
        what,
        place.probe.host(claimed),
        truth,
        slack,
        share=10 * share(place.eps),
        metric=np.repeat(place.metric, len(truth) // len(place.metric)),
        reference=said,
    )


def carried(place: Place, book: Book) -> None:
    """A point that is handed the ``carry`` of another λ against one that is not."""
    probe = place.probe
    carry = probe.point.carry
    if carry is None:
        return
    other = probe.moved(0.0, 0.25 * place.span)
    lam = probe.send(other.lam, (probe.m,))
    handed = probe.problem.inner.at(probe.send(probe.x), lam, carry)
    held = _rounding(place, probe, other)
    said = "a point without carry would"
    _compare(place, book, "inner.at(carry=...)", handed.grad, other.grad, held, said)


def pushed(place: Place, book: Book) -> None:
    """``pull`` of what ``push`` returns against ``grad`` and ``hvp``."""
    probe = place.probe
    shape = tuple(probe.problem.inner.x_shape)
    xp = probe.problem.backend.xp
    u, v = place.direction(book.rng), place.direction(book.rng)
    block = xp.stack([probe.send(u), probe.send(v)], axis=len(shape))
    point: Any = probe.point
    grad, products = point.pull(block, point.push(block))
    slack, both = _rounding(place, probe), np.stack([probe.hvp(u), probe.hvp(v)], axis=1)
    for what, claimed, truth in (
        ("inner.pull (its gradient)", grad, probe.grad),
        ("inner.pull (its products)", products, both.reshape(-1)),
    ):
        _compare(place, book, what, claimed, truth, slack, "grad and hvp")


def combined(place: Place, book: Book) -> None:
    """``joined`` and ``along``: sums of directions that went through X once."""
    probe, xp = place.probe, place.probe.problem.backend.xp
    axis = len(tuple(probe.problem.inner.x_shape))
    u, v, w, z = (place.direction(book.rng) for _ in range(4))
    first, second = (
        xp.stack([probe.send(a), probe.send(b)], axis=axis) for a, b in ((u, v), (w, z))
    )
    point: Any = probe.point
    with book.asking("inner.joined"):
        _, products = point.pull(
            first + second, point.joined(point.push(first), point.push(second))
        )
        sums = np.stack([probe.hvp(u + w), probe.hvp(v + z)], axis=1).reshape(-1)
        slack = _rounding(place, probe)
        _compare(place, book, "inner.joined", products, sums, slack, "products with the sums")
    with book.asking("inner.along"):
        d = 0.5 * u - 0.25 * v
        along = point.along(point.push(first), probe.send(np.array([0.5, -0.25]), (2,)))
        ahead, direct = point.ray(probe.send(d), along).at(0.5), probe.moved(0.5 * d)
        held = _rounding(place, probe, direct)
        said = "a point of its own, on the ray of the weighted sum,"
        _compare(place, book, "inner.along", ahead.grad, direct.grad, held, said)


def rounded(place: Place, book: Book) -> None:
    """The same point with products in single precision."""
    probe: Any = place.probe
    point, v = probe.point.rounded(), place.direction(book.rng)
    if point is not None:
        book.compare(
            "inner.rounded",
            probe.host(point.hvp(probe.send(v))),
            probe.hvp(v),
            0.0,
            share=_SINGLE,
            metric=place.metric,
            reference="products of the point itself",
        )


#: What products in single precision agree to.
_SINGLE = 1e-3
