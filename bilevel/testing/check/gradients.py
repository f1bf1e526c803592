"""Gradients against differences of values: of h in x, of the criterion in x and in λ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._probe import Line, Probe, Vector, length
from .causes import GRADIENT, chain_cause, likely_factor, penalty_cause
from .differences import coordinates, differences, share
from .places import Place
from .report import Book

Cause = Callable[[Vector, Vector, Vector], str | None]


class Slopes:
    """A gradient against differences of a value: along random directions, then coordinates."""

    def __init__(
        self,
        what: str,
        gradient: Callable[[Probe], Vector],
        metric: Vector,
        value: Callable[[Probe], Vector],
        line: Callable[[Vector], Line],
        part: Callable[[Line], Any],
        noise: float,
        eps: float,
    ) -> None:
        self.what, self.gradient, self.metric, self.value = what, gradient, metric, value
        self.line, self.part, self.noise, self.eps = line, part, noise, eps

    def both(self, line: Line, direction: Vector) -> tuple[float, float, bool]:
        """The slope that is claimed, the true one, and whether they disagree."""
        claimed = self.gradient(line.at)
        mine = float(claimed @ direction)
        size = length(claimed * self.metric) / claimed.shape[0] ** 0.5

        def agrees(found: Vector, error: float) -> bool:
            largest = max(size, abs(mine), abs(float(found[0])))
            return abs(mine - float(found[0])) <= share(self.eps) * largest + 10 * error

        def slope(at: Probe) -> Vector:
            return np.array([self.gradient(at) @ direction])

        truth, error = differences(line, self.value, slope, self.eps, self.noise, agrees)
        return mine, float(truth[0]), not agrees(truth, error)

    def check(self, book: Book, lines: list[Line], cause: Cause) -> bool:
        book.made(self.what)
        if any(self.both(line, self.part(line))[2] for line in lines):
            self._locate(book, cause)
            return False
        return True

    def _locate(self, book: Book, cause: Cause) -> None:
        """Which components are wrong, and why."""
        here = self.gradient(self.line(self.metric).at) * self.metric
        n = here.shape[0]
        chosen = coordinates(here, book.rng)
        pairs = []
        for j in chosen:
            unit = np.zeros(n)
            unit[j] = self.metric[j]
            pairs.append(self.both(self.line(unit), unit))
        mine, truth = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
        wrong = np.array([pair[2] for pair in pairs])
        weight = np.abs(mine - truth) * np.where(wrong, 1.0, 1e-300)
        j = int(np.argmax(weight))
        relative = length(mine - truth) / max(length(truth), 1e-300)
        scale = self.metric[chosen[j]]
        message = (
            f"got {mine[j] / scale:.9g} but differences of the value give {truth[j] / scale:.9g}; "
            f"over {len(chosen)} components it is off by {relative:.2g} of its size."
        )
        found = cause(mine, truth, chosen) or likely_factor(mine, truth)
        book.add(self.what, f"component {chosen[j]}", relative, message, found)


def inner_gradient(place: Place, book: Book, noise: float, lines: list[Line]) -> bool:
    """``grad`` against differences of ``value``."""
    probe, metric = place.probe, place.metric

    def cause(mine: Vector, truth: Vector, chosen: Any) -> str | None:
        factor = likely_factor(mine, truth)
        # Both are in the metric, in which their errors are alike.
        return factor or penalty_cause(
            GRADIENT, truth - mine, probe.x[chosen] * metric[chosen], probe.lam
        )

    slopes = Slopes(
        "inner.grad",
        lambda at: at.grad,
        metric,
        lambda at: at.value,
        place.along,
        lambda line: line.dx,
        noise,
        place.eps,
    )
    return slopes.check(book, lines, cause)


def criterion(
    place: Place, book: Book, noise: float, lines: list[Line], lam_lines: list[Line]
) -> None:
    """``grad_x`` and ``grad_lam`` of the criterion against differences of its value."""
    probe = place.probe
    Slopes(
        "outer.grad_x",
        lambda at: at.outer_grad_x,
        place.metric,
        lambda at: at.outer_value,
        place.along,
        lambda line: line.dx,
        noise,
        place.eps,
    ).check(book, lines, lambda mine, truth, chosen: likely_factor(mine, truth))

    def cause(mine: Vector, truth: Vector, chosen: Any) -> str | None:
        scales = np.exp(np.clip(probe.lam[chosen], -700, 700))
        return chain_cause(mine, truth, scales) or likely_factor(mine, truth)

    Slopes(
        "outer.grad_lam",
        lambda at: at.outer_grad_lam,
        place.span,
        lambda at: at.outer_value,
        place.along_lam,
        lambda line: line.dlam,
        noise,
        place.eps,
    ).check(book, lam_lines, cause)
