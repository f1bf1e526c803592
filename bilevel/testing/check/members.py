"""What every problem has to answer: shapes, dtypes and finite values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import described, is_array, is_sparse
from .._probe import Probe, Vector, length
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
        if is_sparse(array) or not is_array(array):
            message = f"got {described(array)}, expected an array of shape {member.shape}."
            cause = f"{member.name} is a property" if callable(array) else None
            book.add(member.name, "", math.inf, message, cause)
            sound = False
            continue
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
            finite=False,
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


def within_reach(origin: Probe, step: Vector) -> Vector:
    """The step, halved until all is finite at its end, where all is at its origin.

    A sum of exponentials of large features is infinite at a random x by right.
    """
    with np.errstate(all="ignore"):
        try:
            for k in range(_HALVINGS):
                ahead = step / 2.0**k
                if all(math.isfinite(size) for _, size in sizes(origin.moved(ahead))):
                    return ahead
        except Exception:  # that is for the checks to find, and to name
            return step
    return step


#: A step is no shorter than so many powers of 2.
_HALVINGS = 16
