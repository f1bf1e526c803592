"""What a problem states of its own rounding: bounds that can be ones, and that are not refuted.

Nothing here is estimated where it blames: products of directions with few digits are sums that
rounding alone keeps from adding up; a gradient shows the noise of close points, of which that is
taken off which the rounding of x and λ has to make.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from ...backends import described, lent
from ...inner import FunctionInner, Rounded, Rounding, RoundingAlong, RoundingKnown
from ...outer import (
    Curved,
    CurvedRounded,
    FunctionOuter,
    OuterRounding,
    RoundedOuter,
    ValueRounded,
)
from .._probe import Probe, Vector, length
from .places import Place
from .purity import CLOSE, Noise, noises, short
from .report import UNKNOWN, Book

_METHOD = "rounding() is a method that returns the bounds, or None"


def bounds(place: Place, book: Book, noise: dict[str, Noise]) -> None:
    """All that the points of h and g say of their own errors."""
    probe = place.probe
    _declared(place, book)
    if isinstance(probe.point, Rounded):
        with book.asking("inner.rounding", _METHOD):
            _inner(place, book, noise)
    if isinstance(probe.outer, RoundedOuter):
        with book.asking("outer.rounding", _METHOD):
            _outer(place, book, noise)
    if isinstance(probe.outer, Curved) and isinstance(probe.outer, CurvedRounded):
        with book.asking("outer.product_rounding"):
            _curved(place, book)
    _numbers(place, book)


def _declared(place: Place, book: Book) -> None:
    """What functions state by themselves: runs take a negative or NaN number of theirs for inf."""
    probe, inner, outer = place.probe, place.probe.problem.inner, place.probe.problem.outer
    backend, v = probe.problem.backend, probe.send(place.metric)
    of: list[tuple[str, Any, tuple[Any, ...]]] = []
    if isinstance(inner, FunctionInner):
        of.append(("inner.cross_norm", inner.cross_norm, ()))
        of.append(("inner.rounding", inner.declared_rounding, (v,)))
    if isinstance(outer, FunctionOuter):
        of.append(("outer.rounding", outer.declared_rounding, ()))
    for what, ask, more in of:
        if ask is None:
            continue
        with book.asking(what):
            found = ask(*lent(backend, probe.point.x, probe.point.lam, *more))
            for number in found if isinstance(found, (tuple, list)) else (found,):
                real = number if isinstance(number, Real) else backend.scalars(number)[0]
                book.can_bound(what, float(real))


def stated(
    place: Place, book: Book, what: str, found: Any, shape: tuple[int, ...] = ()
) -> Vector | None:
    """A stated bound on the host; None where it can be none, which is a finding."""
    got = getattr(found, "shape", None)
    if got is None or tuple(got) != shape:
        shown = described(found) if got is None else f"the shape {tuple(got)}"
        message = f"got {shown}, expected an array of shape {shape}."
        cause = "a number of Python where an array is meant" if got is None else None
        book.add(what, "", math.inf, message, cause)
        return None
    values = place.probe.host(found)
    if np.any(np.isnan(values)):
        book.add(what, "", math.inf, "got NaN, expected an upper bound.", UNKNOWN)
        return None
    if np.any(values < 0):
        message = f"got {np.min(values):.6g}, expected no number below 0."
        book.add(what, "", math.inf, message, "the bound of a signed error, without its size")
        return None
    return values


def _fields(
    place: Place, book: Book, what: str, found: Any, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Vector] | None:
    """The fields of a :class:`Rounding`, or of that of a criterion, if all can be bounds."""
    kind = Rounding if "products" in shapes else OuterRounding
    if not isinstance(found, kind):
        message = f"got {described(found)}, expected a {kind.__name__} or None."
        book.add(what, "", math.inf, message, f"return {kind.__name__}({', '.join(shapes)})")
        return None
    known = {
        name: stated(place, book, what, getattr(found, name), shape)
        for name, shape in shapes.items()
    }
    return {name: v for name, v in known.items() if v is not None} if _whole(known) else None


def _whole(known: dict[str, Vector | None]) -> bool:
    return all(value is not None for value in known.values())


def _scaling(
    place: Place, book: Book, what: str, ask: Callable[[Any], Any], names: dict[str, Any]
) -> dict[str, Vector] | None:
    """The bounds in the metric, if they grow with the scale that is handed over."""
    plain = ask(None)
    if plain is None:
        return None
    before = _fields(place, book, what, plain, names)
    stretched = _fields(place, book, what, ask(place.probe.send(_LONGER + 0 * place.metric)), names)
    scaled = _fields(place, book, what, ask(place.probe.send(place.metric)), names)
    if before is None or stretched is None or scaled is None:
        return None
    for name in ("grad", "products", "grad_x"):
        if name in names and np.max(stretched[name]) < np.max(before[name]) * math.sqrt(_LONGER):
            message = (
                f"{name} is {np.max(before[name]):.6g}, and {np.max(stretched[name]):.6g} with a "
                f"scale of {_LONGER:.3g}: expected so many times as much."
            )
            book.add(what, "", math.inf, message, "the argument scale is left out")
            return None
    return scaled


#: A scale that no bound can leave out and be one, unless it is a thousand times too large.
_LONGER = 2.0**20


def _inner(place: Place, book: Book, noise: dict[str, Noise]) -> None:
    far = _far(place, book.rng)
    probe, shape = far.probe, tuple(place.probe.problem.inner.x_shape)
    parts = _short(place, book.rng)
    block = probe.problem.backend.xp.stack([probe.send(v) for v in parts], axis=len(shape))

    def ask(scale: Any) -> Any:
        return probe.point.rounding(block, None, scale)

    shapes: dict[str, tuple[int, ...]] = {"grad": (), "products": (3,), "cross": ()}
    found = _scaling(place, book, "inner.rounding", ask, shapes)
    if found is None:
        return
    _adds_up(place, book, "inner.rounding (products)", probe.hvp, parts, found["products"])
    _noisy(far, book, "inner.grad", found["grad"], noise, lambda at: at.grad, place.metric)


def _outer(place: Place, book: Book, noise: dict[str, Noise]) -> None:
    shapes: dict[str, tuple[int, ...]] = {"value": (), "grad_x": (), "grad_lam": ()}
    far = _far(place, book.rng)
    point: Any = far.probe.outer
    found = _scaling(place, book, "outer.rounding", point.rounding, shapes)
    if found is None:
        return
    for name, ask, metric in (
        ("value", lambda at: at.outer_value, 1.0),
        ("grad_x", lambda at: at.outer_grad_x, place.metric),
    ):
        _noisy(far, book, f"outer.{name}", found[name], noise, ask, metric)


def _far(place: Place, rng: np.random.Generator) -> Place:
    """Beyond the close points that show noise: x may be tiny beside their way, or on a kink."""
    return place.at(place.probe.x + _BEYOND * CLOSE * short(place.eps) * place.direction(rng))


#: How many times their way.
_BEYOND = 20


def _curved(place: Place, book: Book) -> None:
    probe, parts = place.probe, _short(place, book.rng)
    shape = tuple(probe.problem.inner.x_shape)
    block = probe.problem.backend.xp.stack([probe.send(v) for v in parts], axis=len(shape))
    point: Any = probe.outer
    found = point.product_rounding(block)
    known = None if found is None else stated(place, book, "outer.product_rounding", found, (3,))
    if known is not None:

        def product(v: Vector) -> Vector:
            return probe.host(point.hvp(probe.send(v, (*shape, 1))))

        _adds_up(place, book, "outer.product_rounding", product, parts, known, metric=1.0)


def _numbers(place: Place, book: Book) -> None:
    """Numbers that are about right, and no proof: they have to be numbers."""
    probe, xp = place.probe, place.probe.problem.backend.xp
    if isinstance(probe.point, RoundingKnown):
        with book.asking("inner.grad_rounding"):
            stated(place, book, "inner.grad_rounding", probe.point.grad_rounding)
    if isinstance(probe.point, RoundingAlong):
        with book.asking("inner.rounding_along"):
            q = place.direction(book.rng)
            energy = xp.asarray(
                float(q @ probe.hvp(q)),
                dtype=probe.problem.dtype,
                device=probe.problem.backend.device,
            )
            found = probe.point.rounding_along(probe.send(q), energy)
            stated(place, book, "inner.rounding_along", found)
    if isinstance(probe.outer, ValueRounded):
        with book.asking("outer.value_rounding", "value_rounding is a property, 0-d"):
            stated(place, book, "outer.value_rounding", probe.outer.value_rounding)


# -- refuted by what rounding does ---------------------------------------------------------------


def _short(place: Place, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    """Two directions and their sum, with so few digits that all three are exact."""
    unit = 2.0 ** (np.ceil(np.log2(place.metric)) - 8)
    u, v = (unit * np.round(place.direction(rng) / unit) for _ in range(2))
    return u, v, u + v


def _adds_up(
    place: Place,
    book: Book,
    what: str,
    product: Callable[[Vector], Vector],
    parts: tuple[Vector, Vector, Vector],
    bound: Vector,
    metric: Vector | float | None = None,
) -> None:
    """‖H (u + v) - H u - H v‖ is rounding alone, of all three products."""
    book.made(what)
    first, second, both = (product(v) for v in parts)
    metric = place.metric if metric is None else metric
    found, most = length((both - first - second) * metric), float(np.sum(bound))
    if found > most * (1 + 1e-6) + _tiny(place):
        message = (
            f"H u + H v is {found:.3g} from H (u + v), of which the bounds of the three allow "
            f"{most:.3g}."
        )
        book.add(what, "", found / most if most > 0 else math.inf, message, _TOO_SMALL)


_TOO_SMALL = "the bound counts too few operations, or not the size of what is summed"


def _tiny(place: Place) -> float:
    """What underflow may do, in the metric."""
    return place.smallest * place.probe.p * (1 + float(np.max(place.metric)))


def _noisy(
    place: Place,
    book: Book,
    member: str,
    bound: Vector,
    noise: dict[str, Noise],
    ask: Callable[[Probe], Vector],
    metric: Vector | float,
) -> None:
    """The noise of close points, less that which the rounding of x and λ makes."""
    what = f"{member.partition('.')[0]}.rounding ({member.partition('.')[2]})"
    book.made(what)
    found, most = noise[member].level, float(bound[0])
    most += place.smallest
    if not found > 3 * most or not found > 3 * (most + _shaken(place, book.rng, ask, metric)):
        return
    # A kink between the points shows as noise too: it is not met again from here, each time.
    again = (noises(place, book.rng, 3, shorter)[member].level for shorter in (1.0, 0.25))
    found = min(found, *again)
    if not found > 3 * (most + _shaken(place, book.rng, ask, metric)):
        return
    message = f"close points show noise of {found:.3g}, {most:.3g} is stated as its bound."
    book.add(what, "", found / most if most > 0 else math.inf, message, _TOO_SMALL)


def _shaken(
    place: Place,
    rng: np.random.Generator,
    ask: Callable[[Probe], Vector],
    metric: Vector | float,
) -> float:
    """How far the rounding of x and λ themselves moves what is asked: no error of its own."""
    probe, most = place.probe, 0.0
    here = ask(probe)
    for _ in range(3):
        size = np.abs(probe.x) + CLOSE * short(place.eps) * place.metric
        dx = _SHAKE * size * rng.choice([-1.0, 1.0], probe.p)
        dlam = _SHAKE * np.abs(probe.lam) * rng.choice([-1.0, 1.0], probe.m)
        dlam = np.clip(dlam, -0.2 * place.span, 0.2 * place.span)
        most = max(most, length((ask(probe.moved(dx, dlam)) - here) * metric))
    return most * place.eps / _SHAKE


#: A shake that is far above rounding and far below what bends a function.
_SHAKE = 1e-4
