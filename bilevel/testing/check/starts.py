"""Where a solve begins, what a point is handed of another, and what is remarked on λ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...answers import without_carry
from ...backends import described
from ...inner import Remarking, Startable
from ...problem import Problem
from .._probe import Probe, Vector, length
from .places import Place
from .report import Book


def start(place: Place, book: Book) -> None:
    """``start``: an x of the problem, the same each time."""
    what, probe = "inner.start", place.probe
    inner = probe.problem.inner
    if not isinstance(inner, Startable):
        return
    with book.asking(what, "start() is a method that returns an array"):
        first = inner.start()
        probe.problem.x(first, "the start that h states")  # shape, dtype, device, finite
        kept = probe.host(first)
        _ = Probe(probe.problem, kept + place.direction(book.rng), probe.lam).grad
        again = probe.host(inner.start())
        if not np.array_equal(kept, probe.host(first)):
            message = "the array that it returned has changed since: expected one of its own."
            book.add(what, "", math.inf, message, "one buffer is returned each time")
        elif not np.array_equal(kept, again):
            off = length(again - kept) / max(length(kept), 1e-300)
            message = f"asked twice it differs by {off:.2g} of its size, expected the same x."
            cause = "random numbers are drawn in each call: draw them once, from a seed"
            book.add(what, "", off, message, cause)


def carry(problem: Problem, book: Book) -> None:
    """``at`` takes what another point carries: every run hands it on."""
    book.made("inner.at takes carry")
    wrong = without_carry(problem.inner)
    if wrong is not None:
        cause = "carry is optional to use, not to take"
        book.add("inner.at", "", math.inf, f"{wrong}.", cause)


def remark(place: Place, lams: Iterable[Vector], book: Book) -> None:
    """``remark``: a sentence or None at every λ, which it leaves alone."""
    what, probe = "inner.remark", place.probe
    inner = probe.problem.inner
    if not isinstance(inner, Remarking):
        return
    with book.asking(what, "remark(lam) is a method that returns a sentence, or None"):
        for lam in lams:
            array = probe.send(lam, (probe.m,))
            kept = probe.host(array)
            found: Any = inner.remark(array)
            again = inner.remark(array)
            if not (found is None or isinstance(found, str)):
                message = f"got {described(found)}, expected a sentence or None."
                book.add(what, "", math.inf, message, "a truth value where a sentence is meant")
            elif not np.array_equal(kept, probe.host(array)):
                cause = "an operation in place, as lam *= 2; take a copy"
                book.add(what, "", math.inf, "it changes λ, which it is given to read.", cause)
            elif found != again:
                message = f"asked twice it says {found!r} and {again!r}, expected the same."
                book.add(what, "", math.inf, message, "what it has said before is remembered")
