"""Shapes, dtypes, finite values; symmetry and linearity; members that shorten others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...inner import Pushable
from ...outer import Curved
from .._probe import Probe, Vector, length, ritz
from .derivatives import coordinates, of_gradient, product_share, share
from .places import Place
from .report import Book


@dataclass(frozen=True)
class Member:
    """A member of a point: how to ask for it with new arrays, and the shape that it should have.

    ``ask`` takes a point of h (or of g) and a direction as an array of the problem.
    """

    name: str
    outer: bool
    kind: str
    ask: Callable[[Any, Any], Any]
    shape: tuple[int, ...]


def members(probe: Probe) -> tuple[Member, ...]:
    """All that every problem has; ``kind`` is that of the direction: "", "x" or "lam"."""
    shape, m = tuple(probe.problem.inner.x_shape), (probe.m,)
    return (
        Member("inner.value", False, "", lambda at, _: at.value, ()),
        Member("inner.grad", False, "", lambda at, _: at.grad, shape),
        Member("inner.hvp", False, "x", lambda at, v: at.hvp(v), shape),
        Member("inner.cross_vjp", False, "x", lambda at, q: at.cross_vjp(q), m),
        Member("inner.cross_jvp", False, "lam", lambda at, d: at.cross_jvp(d), shape),
        Member("outer.value", True, "", lambda at, _: at.value, ()),
        Member("outer.grad_x", True, "", lambda at, _: at.grad_x, shape),
        Member("outer.grad_lam", True, "", lambda at, _: at.grad_lam, m),
    )


def direction_of(member: Member, probe: Probe, v: Vector, d: Vector) -> Any:
    """A new array for a member's direction, None where it takes none."""
    if member.kind == "x":
        return probe.send(v)
    return probe.send(d, (probe.m,)) if member.kind == "lam" else None


def finite(probe: Probe, book: Book) -> bool:
    """Every member is finite, of the right shape and dtype."""
    v, d = book.rng.standard_normal(probe.p), book.rng.standard_normal(probe.m)
    sound = True
    for member in members(probe):
        point = probe.outer if member.outer else probe.point
        array = member.ask(point, direction_of(member, probe, v, d))
        book.made(f"{member.name} is finite, of shape {member.shape} and of the dtype")
        found = tuple(array.shape)
        if found != member.shape:
            message = f"got the shape {found}, expected {member.shape}."
            transposed = "transposed" if found == member.shape[::-1] else None
            book.add(member.name, "", math.inf, message, transposed)
            sound = False
            continue
        if array.dtype != probe.problem.dtype:
            message = f"got the dtype {array.dtype}, expected {probe.problem.dtype}."
            book.add(member.name, "", math.inf, message, "a constant of another dtype")
        sound = _all_finite(member.name, probe.host(array), book) and sound
    return sound


def _all_finite(name: str, values: Vector, book: Book) -> bool:
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        book.add(
            name,
            f"component {bad[0]}",
            math.inf,
            f"got {values[bad[0]]}, {bad.size} of {values.size} are not finite.",
            "overflow of an exponential, a logarithm of 0 or a division by 0",
        )
    return not bad.size


def sizes(probe: Probe) -> Iterator[tuple[str, float]]:
    """The largest entry of each member, for finding where one ceases to be finite."""
    v, d = np.ones(probe.p), np.ones(probe.m)
    for member in members(probe):
        point = probe.outer if member.outer else probe.point
        values = probe.host(member.ask(point, direction_of(member, probe, v, d)))
        yield member.name, float(np.max(np.abs(values)))


def overflow(probe: Probe, book: Book) -> bool:
    """Whether all is finite at x; where it is not, h or g itself has to be that large.

    An exponential that overflows inside shows by a jump: a value of a few hundred beside one that
    is infinite or NaN. What grows until the largest number there is, is so by right.
    """
    first = {name for name, size in sizes(probe) if not math.isfinite(size)}
    if not first:
        return True
    low, high = 0.0, 1.0
    broken, before = first, dict(sizes(Probe(probe.problem, 0.0 * probe.x, probe.lam)))
    if not all(map(math.isfinite, before.values())):
        return False  # λ is to blame, and that is looked at elsewhere
    for _ in range(24):
        middle = (low + high) / 2
        found = dict(sizes(Probe(probe.problem, middle * probe.x, probe.lam)))
        bad = {name for name, size in found.items() if not math.isfinite(size)}
        if bad:
            high, broken = middle, bad
        else:
            low, before = middle, found
    by_right = float(np.sqrt(np.finfo(np.float32 if probe.eps > 1e-10 else np.float64).max))
    if max(before.values()) < by_right:
        name = min(broken)
        book.add(
            name,
            f"x of size {length(high * probe.x):.4g}",
            math.inf,
            f"it is not finite there, and {before[name]:.4g} at an x that is shorter by "
            f"{(high - low) / high:.1g} of its length.",
            "an exponential overflows inside: take the largest exponent out of it",
        )
    return False


# -- the Hessian ---------------------------------------------------------------------------------


def hessian_structure(place: Place, book: Book) -> None:
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
    _linear(place, book, "inner.hvp", probe.hvp, u, v, metric, asked)
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


def cross_structure(place: Place, book: Book) -> None:
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
        _linear(place, book, name, product, u, v, metric, asked)


def _linear(
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


# -- members that shorten others -----------------------------------------------------------------


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


def carried(place: Place, book: Book) -> None:
    """A point that is handed the ``carry`` of another λ against one that is not."""
    probe = place.probe
    carry = probe.point.carry
    if carry is None:
        return
    other = probe.moved(0.0, 0.25 * place.span)
    lam = probe.send(other.lam, (probe.m,))
    handed = probe.problem.inner.at(probe.send(probe.x), lam, carry)
    book.compare(
        "inner.at(carry=...)",
        probe.host(handed.grad),
        other.grad,
        _rounding(place, probe, other),
        share=10 * share(place.eps),
        metric=place.metric,
        reference="a point without carry would",
    )


def pushed(place: Place, book: Book) -> None:
    """``pull`` of what ``push`` returns against ``grad`` and ``hvp``."""
    probe = place.probe
    shape = tuple(probe.problem.inner.x_shape)
    xp = probe.problem.backend.xp
    u, v = place.direction(book.rng), place.direction(book.rng)
    block = xp.stack([probe.send(u), probe.send(v)], axis=len(shape))
    point: Any = probe.point
    grad, products = point.pull(block, point.push(block))
    slack = _rounding(place, probe)
    for what, claimed, truth, metric in (
        ("inner.pull (its gradient)", grad, probe.grad, place.metric),
        (
            "inner.pull (its products)",
            products,
            np.stack([probe.hvp(u), probe.hvp(v)], axis=1).reshape(-1),
            np.repeat(place.metric, 2),
        ),
    ):
        book.compare(
            what,
            probe.host(claimed),
            truth,
            slack,
            share=10 * share(place.eps),
            metric=metric,
            reference="grad and hvp",
        )


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
