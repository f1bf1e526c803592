"""Functions have to be functions: the same each time, arguments untouched, results their own.

And as precise as their dtype: a float32 inside a float64 shows as noise far above its rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...contracts import touching
from ...problem import Problem
from .._probe import Probe, Vector, length
from .members import Member, direction_of, members
from .places import Place
from .report import Book


@dataclass(frozen=True)
class _Asked:
    """One call of a member with arrays of its own."""

    result: Any
    values: Vector
    touched: str


def _ask(member: Member, place: Place, probe: Probe, v: Vector, d: Vector) -> _Asked:
    """Call a member at a new point; ``touched`` names the arguments that it changed."""
    x, lam = probe.send(probe.x), probe.send(probe.lam, (probe.m,))
    direction = direction_of(member, probe, v, d)
    arguments = {"x": x, "λ": lam, "the direction": direction}
    before = {name: probe.host(a) for name, a in arguments.items() if a is not None}
    side = probe.problem.outer if member.outer else probe.problem.inner
    result = member.ask(side.at(x, lam), direction)
    touched = [
        name
        for name, values in before.items()
        if not np.array_equal(values, probe.host(arguments[name]), equal_nan=True)
    ]
    return _Asked(result, probe.host(result), " and ".join(touched))


def pure(place: Place, other: Place, book: Book) -> None:
    """Each member twice here, with another point between: same result, nothing overwritten."""
    rng = book.rng
    v, d = place.direction(rng), place.direction_lam(rng)
    w, e = place.direction(rng), place.direction_lam(rng)
    for member in members(place.probe):
        book.made(f"{member.name} leaves its arguments alone and repeats itself")
        first = _ask(member, place, place.probe, v, d)
        again = _ask(member, place, place.probe, v, d)
        between = _ask(member, place, other.probe, w, e)
        kept = place.probe.host(first.result)
        later = _ask(member, place, place.probe, v, d)
        if first.touched or between.touched:
            message = f"it changes {first.touched or between.touched}, which it is given to read."
            book.add(f"{member.name} leaves its arguments alone", "", math.inf, message, _IN_PLACE)
        elif not np.array_equal(kept, first.values, equal_nan=True):
            message = "its result changes when it is asked again."
            book.add(f"{member.name} returns its own array", "", math.inf, message, _BUFFER)
        elif _differs(first, again, place.eps):
            off = _differs(first, again, place.eps)
            message = f"asked twice at one point it differs by {off:.2g} of its size."
            book.add(f"{member.name} repeats itself", "", off, message, _RANDOM)
        elif _differs(first, later, place.eps):
            off = _differs(first, later, place.eps)
            message = f"after another point was asked it differs by {off:.2g} of its size."
            book.add(f"{member.name} repeats itself", "", off, message, _STALE)


def data(problem: Problem, book: Book) -> bool:
    """Whether a loss, kernel or design from outside writes into what it is handed, or has returned.

    It is handed copies here. Each check that follows would be made with other data.
    """
    book.made("losses, kernels and designs leave labels, rows and directions alone")
    faults = list(touching(problem))
    for member, fault in faults:
        book.add(member.removeprefix("problem."), "", math.inf, f"it {fault}", None)
    if faults:
        book.note("Nothing else was checked: mend this, and ask again.")
    return bool(faults)


def _differs(first: _Asked, other: _Asked, eps: float) -> float:
    """The difference of two results as a share of them, 0 where it is rounding."""
    size = max(length(first.values), length(other.values), 1e-300)
    off = length(first.values - other.values) / size
    return off if off > 1e3 * eps else 0.0


_IN_PLACE = "an operation in place, as x *= 2; take a copy"
_BUFFER = "one buffer is returned each time; return a copy"
_RANDOM = "random numbers are drawn in each call; draw them once, before"
_STALE = "a cache that takes one point for another"


@dataclass(frozen=True)
class Noise:
    """The rounding of a member as it shows: in the metric, beside the size of the member."""

    level: float
    size: float

    @property
    def relative(self) -> float:
        return self.level / self.size if self.size > 0 else 0.0


#: So many close points.
CLOSE = 7


def short(eps: float) -> float:
    """The way from one of them to the next, in the metric."""
    return 4e-5 if eps < 1e-10 else 7e-4


def noises(
    place: Place, rng: np.random.Generator, lines: int = 1, shorter: float = 1.0
) -> dict[str, Noise]:
    """The noise of every member: fourth differences of values at seven close points.

    Moré and Wild (2011): on so short a way a smooth function leaves nothing in them but rounding.
    x, λ and directions move together, by steps whose fourth power is below eps and that still
    cross the grid of half as many digits. Seven evaluations of each member a line; of several
    lines the middle one counts, since one may run along a level of a function, or over a kink. On a
    ``shorter`` way less is left of what is not rounding.
    """
    found = [_noises(place, rng, shorter * short(place.eps)) for _ in range(lines)]
    return {
        name: sorted((f[name] for f in found), key=lambda noise: noise.level)[lines // 2]
        for name in found[0]
    }


def _noises(place: Place, rng: np.random.Generator, tiny: float) -> dict[str, Noise]:
    dx, dlam = place.direction(rng), place.direction_lam(rng)
    v, w = place.direction(rng), place.direction(rng)
    d, e = place.direction_lam(rng), place.direction_lam(rng)
    rows: dict[str, list[Vector]] = {}
    for i in range(CLOSE):
        t = i * tiny
        probe = place.probe.moved(t * dx, t * dlam)
        for member in members(probe):
            point = probe.outer if member.outer else probe.point
            asked = member.ask(point, direction_of(member, probe, v + t * w, d + t * e))
            rows.setdefault(member.name, []).append(probe.host(asked) * _metric(member, place))
    # The variance of a fourth difference is 1 + 16 + 36 + 16 + 1 times that of a value.
    return {
        name: Noise(
            length(np.diff(np.stack(values), 4, axis=0).reshape(-1)) / math.sqrt(3 * 70),
            length(values[0]),
        )
        for name, values in rows.items()
    }


def _metric(member: Member, place: Place) -> Vector | float:
    if not member.shape:
        return 1.0
    return place.span if member.name in ("inner.cross_vjp", "outer.grad_lam") else place.metric


def precise(problem: Any, found: list[dict[str, Noise]], book: Book) -> None:
    """No member is far less precise than its dtype, at all of several points.

    At one point the terms of a sum may cancel; at all of them they don't.
    """
    eps = float(problem.backend.xp.finfo(problem.dtype).eps)
    most = float(eps**0.62)  # 2e-10 in float64, 5e-5 in float32: between rounding and the leak
    inner = getattr(problem.inner, "derivatives", None)
    outer = getattr(problem.outer, "derivatives", None)
    for name in found[0]:
        side, member = name.split(".")
        origins = inner if side == "inner" else outer
        book.made(f"{name} is as precise as its dtype")
        worst = min(noise[name].relative for noise in found)
        if getattr(origins, member, "given") == "differences" or not worst > most:
            continue
        message = f"close points show noise of {worst:.2g} of its size, eps is {eps:.2g}."
        book.add(f"{name} is as precise as its dtype", "", worst, message, _leak(worst, eps))


def _leak(relative: float, eps: float) -> str:
    if eps < 1e-10 and 1e-10 < relative < 1e-5:
        return "a computation in float32 inside, or results that are rounded"
    if 1e-5 <= relative < 5e-2:
        return "a computation in half precision inside, or an iteration that ends early"
    return "random numbers, rounding of an argument, or an iteration that ends early"
