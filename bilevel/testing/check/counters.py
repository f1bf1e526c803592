"""Counters count what is done, and never run backwards: budgets and costs rest on them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any

from ...backends import described
from ...meter import EVALUATIONS, PASSES
from .._probe import Probe
from .places import Place
from .report import Book


def reading(side: Any, name: str) -> float:
    """What a counter shows, NaN where that is no number."""
    found = getattr(side, name)
    number = isinstance(found, Real) and not isinstance(found, bool)
    return float(found) if number else math.nan


def spent(problem: Any) -> float:
    """Passes of both levels until now."""
    total = reading(problem.inner, "passes") + reading(problem.outer, "passes")
    return int(total) if total == total and total == int(total) else total


def counters(place: Place, book: Book) -> None:
    """``passes`` and ``column_passes`` of h, ``passes`` of g, over a few evaluations."""
    problem = place.probe.problem
    for what, side in (("inner", problem.inner), ("outer", problem.outer)):
        names = ("passes", "column_passes") if what == "inner" else ("passes",)
        _unit(book, what, side)
        numbers = [_number(book, f"{what}.{name}", getattr(side, name)) for name in names]
        if all(numbers):
            _counted(place, book, what, side, names)


def _unit(book: Book, what: str, side: Any) -> None:
    """``unit``, where it is stated, is one of the two that runs know."""
    found, known = getattr(side, "unit", PASSES), (PASSES, EVALUATIONS)
    book.made(f"{what}.unit")
    if found not in known:
        message = f"got {described(found)}, expected one of {', '.join(map(repr, known))}."
        cause = "it is taken for passes, and budgets with it"
        book.add(f"{what}.unit", "", math.inf, message, cause)


def _number(book: Book, what: str, found: Any) -> bool:
    """Whether a counter shows a number that can be one of passes."""
    book.made(what)
    real = isinstance(found, Real) and not isinstance(found, bool)
    if real and 0 <= float(found) < math.inf:
        return True
    cause = "a counter itself; its number is counter.total" if hasattr(found, "total") else None
    cause = "passes is a property" if callable(found) else cause
    message = f"got {described(found)}, expected a number that is not negative."
    book.add(what, "", math.inf, message, cause)
    return False


def _counted(place: Place, book: Book, what: str, side: Any, names: tuple[str, ...]) -> None:
    readings: dict[str, list[float]] = {name: [] for name in names}
    for _ in _work(place, what, book):
        for name in names:
            readings[name].append(reading(side, name))
    for name, seen in readings.items():
        back = [(a, b) for a, b in zip(seen, seen[1:], strict=False) if not b >= a]
        if back:
            message = f"it was {back[0][0]:.6g} and then {back[0][1]:.6g}: expected it to grow."
            cause = "a counter that each point, or each call, sets to 0"
            book.add(f"{what}.{name}", "", math.inf, message, cause)
            return
    grown = {name: seen[-1] - seen[0] for name, seen in readings.items()}
    if not grown["passes"] > 0:
        book.note(f"{what}.passes counts nothing: no budget of passes ends a run on it.")
    elif grown.get("column_passes", math.inf) < grown["passes"] * (1 - 1e-6):
        message = (
            f"it grew by {grown['column_passes']:.6g}, passes by {grown['passes']:.6g}: "
            "expected as much at least."
        )
        cause = "each right-hand side of a pass counts on its own"
        book.add(f"{what}.column_passes", "", math.inf, message, cause)


def _work(place: Place, what: str, book: Book) -> Iterator[None]:
    """Evaluations at new points: of h one of them with several directions."""
    probe, shape = place.probe, tuple(place.probe.problem.inner.x_shape)
    xp = probe.problem.backend.xp
    yield
    for _ in range(3):
        at = Probe(probe.problem, probe.x + place.direction(book.rng), probe.lam)
        yield
        if what == "outer":
            _ = at.outer_value, at.outer_grad_x
            yield
            continue
        _ = at.value, at.grad
        yield
        directions = [probe.send(place.direction(book.rng)) for _ in range(2)]
        at.point.hvp(xp.stack(directions, axis=len(shape)))
        yield
