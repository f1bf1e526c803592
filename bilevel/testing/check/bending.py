"""Third derivatives of h and second ones of g, of points that offer them, against differences.

They are the Hessian of f. A wrong one leaves every gradient right, and spoils steps alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Array
from ...inner import Bending
from ...outer import BendingOuter
from .._probe import Line, Probe, Vector, length
from .differences import differences, product_share, share
from .places import Place
from .purity import Noise
from .report import Book


@dataclass(frozen=True)
class _Member:
    """A second derivative along two directions: what is claimed, and what it is the change of.

    Attributes
    ----------
    what : str
        Its name.
    ask : callable
        The array (rows, k) that a probe's points return, or None.
    shape : tuple of int
        What that should be.
    column : callable
        The numbers of it that ``change`` has along ``line``.
    change : callable
        The first derivatives.
    line : Line
        Along which they change.
    noise, asked : float
        Of the first derivatives, and the agreement asked for.
    """

    what: str
    ask: Callable[[Probe], Any]
    shape: tuple[int, int]
    column: Callable[[Vector], Vector]
    change: Callable[[Probe], Vector]
    line: Line
    noise: float
    asked: float


def bending(place: Place, book: Book, noise: Mapping[str, Noise]) -> None:
    """Those of h, then those of g, where the derivatives that they are the change of are right."""
    probe = place.probe
    members: list[_Member] = []
    if isinstance(probe.point, Bending) and not book.blames("inner.grad", "inner.hvp", "inner.cr"):
        members += _inner(place, book, noise)
    if isinstance(probe.outer, BendingOuter) and not book.blames("outer.grad"):
        members += _outer(place, book, noise)
    for member in members:
        try:
            _compared(member, place, book)
        except Exception as error:  # whatever a user's function raises
            message = f"it raises {type(error).__name__}: {error}"
            book.add(member.what, "", math.inf, message, None)


@dataclass(frozen=True)
class _Directions:
    """Two directions of x and one of λ, and how derivatives are measured along them."""

    place: Place
    u: Vector
    v: Vector
    d: Vector

    @classmethod
    def drawn(cls, place: Place, book: Book) -> _Directions:
        u, v = (place.direction(book.rng) for _ in range(2))
        return cls(place, u, v, place.direction_lam(book.rng))

    def both(self, probe: Probe) -> Array:
        """U and v side by side."""
        shape = tuple(probe.problem.inner.x_shape)
        columns = [probe.send(a) for a in (self.u, self.v)]
        return probe.problem.backend.xp.stack(columns, axis=len(shape))

    def one(self, probe: Probe) -> Array:
        return probe.send(self.d, (probe.m, 1))

    def against(self, gradient: Vector) -> Vector:
        """⟨u, .⟩ and ⟨v, .⟩."""
        return np.array([self.u @ gradient, self.v @ gradient])

    def spanned(self, numbers: Vector) -> Vector:
        """In the lengths of a step of each λ."""
        return self.place.span * numbers

    @property
    def along_x(self) -> Line:
        return self.place.along(self.v)

    @property
    def along_lam(self) -> Line:
        return self.place.along_lam(self.d)


def _second(matrix: Vector) -> Vector:
    """That of v, the second column."""
    return matrix.reshape(-1, 2)[:, 1]


def _inner(place: Place, book: Book, noise: Mapping[str, Noise]) -> Iterator[_Member]:
    along, q, problem = _Directions.drawn(place, book), place.direction(book.rng), place.probe
    m, eps = place.probe.m, place.eps
    hvp, vjp = (product_share(problem.problem, name, eps) for name in ("hvp", "cross_vjp"))
    crossed = noise["inner.cross_vjp"].level
    yield _Member(
        "inner.bend",
        lambda at: at.point.bend(at.send(q), along.both(at)),
        (2, 2),
        _second,
        lambda at: along.against(at.hvp(q)),
        along.along_x,
        noise["inner.hvp"].level,
        hvp,
    )
    yield _Member(
        "inner.cross_bend",
        lambda at: at.point.cross_bend(at.send(q), along.both(at)),
        (m, 2),
        lambda found: along.spanned(_second(found)),
        lambda at: along.spanned(at.cross_vjp(q)),
        along.along_x,
        crossed,
        vjp,
    )
    yield _Member(
        "inner.fold",
        lambda at: at.point.fold(at.send(q), along.one(at)),
        (m, 1),
        along.spanned,
        lambda at: along.spanned(at.cross_vjp(q)),
        along.along_lam,
        crossed,
        vjp,
    )


def _outer(place: Place, book: Book, noise: Mapping[str, Noise]) -> Iterator[_Member]:
    along, m, asked = _Directions.drawn(place, book), place.probe.m, share(place.eps)
    direct = noise["outer.grad_lam"].level
    yield _Member(
        "outer.gram",
        lambda at: at.outer.gram(along.both(at)),
        (2, 2),
        _second,
        lambda at: along.against(at.outer_grad_x),
        along.along_x,
        noise["outer.grad_x"].level,
        asked,
    )
    yield _Member(
        "outer.cross_gram",
        lambda at: at.outer.cross_gram(along.both(at)),
        (m, 2),
        lambda found: along.spanned(_second(found)),
        lambda at: along.spanned(at.outer_grad_lam),
        along.along_x,
        direct,
        asked,
    )
    yield _Member(
        "outer.fold",
        lambda at: at.outer.fold(along.one(at)),
        (m, 1),
        along.spanned,
        lambda at: along.spanned(at.outer_grad_lam),
        along.along_lam,
        direct,
        asked,
    )


def _compared(member: _Member, place: Place, book: Book) -> None:
    """Its shape, and its numbers against differences; nothing of one that says None."""
    found = member.ask(place.probe)
    if found is None:
        return
    book.made(member.what)
    if tuple(found.shape) != member.shape:
        message = f"got the shape {tuple(found.shape)}, expected {member.shape}."
        book.add(member.what, "", math.inf, message, None)
        return

    def claimed(at: Probe) -> Vector:
        return member.column(at.host(member.ask(at)))

    mine = claimed(place.probe)

    def agrees(truth: Vector, error: float) -> bool:
        size = max(length(truth), length(mine))
        return length(mine - truth) <= member.asked * size + 10 * error

    truth, error = differences(member.line, member.change, claimed, place.eps, member.noise, agrees)
    book.compare(member.what, mine, truth, 10 * error, share=member.asked)
