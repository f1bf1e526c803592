"""Each derivative against differences of what it is the derivative of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._probe import Line, Probe, Vector, derivative, largest, length
from .causes import chain_cause, close, cross_cause, diagonal_cause, likely_factor, penalty_cause
from .places import Place
from .report import Book

Cause = Callable[[Vector, Vector, Vector], str | None]


def share(eps: float) -> float:
    """The relative agreement asked for beside the errors: 1e-9 in float64, 1e-4 in float32."""
    return float(eps**0.58)


def product_share(problem: Any, member: str, eps: float) -> float:
    """The same of a product: what the package itself takes by differences is less precise."""
    origins = getattr(problem.inner, "derivatives", None)
    if getattr(origins, member, "given") != "differences":
        return share(eps)
    return max(1e-5, 30 * eps**0.5)


def coordinates(v: Vector, rng: np.random.Generator, most: int = 64) -> Any:
    """All components where they are few; else the largest ones and some at random."""
    n = v.shape[0]
    if n <= most:
        return np.arange(n)
    large = np.argsort(-np.abs(v))[: most // 2]
    rest = np.setdiff1d(np.arange(n), large)
    return np.sort(np.concatenate([large, rng.choice(rest, most - most // 2, replace=False)]))


def differences(
    line: Line,
    value: Callable[[Probe], Vector],
    eps: float,
    noise: float,
    agrees: Callable[[Vector, float], bool],
) -> tuple[Vector, float]:
    """The derivative along a line and its error, with shorter steps where the first disagree.

    Only what both refute is a fault: kinks and saturated functions may mislead one.
    """
    found = np.zeros(0), math.inf
    for scale in (1.0, 0.04):
        found = derivative(lambda t: value(line(t)), scale, eps, noise=noise, jitter=line.jitter)
        if agrees(*found):
            break
    return found


class Slopes:
    """A gradient against differences of a value: along random directions, then coordinates."""

    def __init__(
        self,
        what: str,
        claimed: Vector,
        metric: Vector,
        value: Callable[[Probe], Vector],
        line: Callable[[Vector], Line],
        part: Callable[[Line], Any],
        noise: float,
        eps: float,
    ) -> None:
        self.what, self.claimed, self.metric, self.value = what, claimed, metric, value
        self.line, self.part, self.noise, self.eps = line, part, noise, eps

    def both(self, line: Line, direction: Vector) -> tuple[float, float, bool]:
        """The slope that is claimed, the true one, and whether they disagree."""
        mine = float(self.claimed @ direction)
        size = length(self.claimed * self.metric) / self.claimed.shape[0] ** 0.5

        def agrees(found: Vector, error: float) -> bool:
            largest = max(size, abs(mine), abs(float(found[0])))
            return abs(mine - float(found[0])) <= share(self.eps) * largest + 10 * error

        truth, error = differences(line, self.value, self.eps, self.noise, agrees)
        return mine, float(truth[0]), not agrees(truth, error)

    def check(self, book: Book, lines: list[Line], cause: Cause) -> bool:
        book.made(self.what)
        if any(self.both(line, self.part(line))[2] for line in lines):
            self._locate(book, cause)
            return False
        return True

    def _locate(self, book: Book, cause: Cause) -> None:
        """Which components are wrong, and why."""
        n = self.claimed.shape[0]
        chosen = coordinates(self.claimed * self.metric, book.rng)
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
        return factor or penalty_cause(truth - mine, probe.x[chosen] * metric[chosen], probe.lam)

    slopes = Slopes(
        "inner.grad",
        probe.grad,
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
        probe.outer_grad_x,
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
        probe.outer_grad_lam,
        place.span,
        lambda at: at.outer_value,
        place.along_lam,
        lambda line: line.dlam,
        noise,
        place.eps,
    ).check(book, lam_lines, cause)


def of_gradient(
    place: Place,
    line: Line,
    gradient: Callable[[Probe], Vector],
    noise: float,
    claimed: Vector,
    asked: float,
) -> tuple[Vector, float]:
    """The derivative of a gradient along a line, in the metric, and its error."""
    metric, mine = place.metric, claimed * place.metric

    def value(at: Probe) -> Vector:
        return metric * gradient(at)

    def agrees(truth: Vector, error: float) -> bool:
        size = max(length(truth), length(mine))
        return length(mine - truth) <= asked * size + 10 * error

    found = differences(line, value, place.eps, noise, agrees)
    if agrees(*found):
        return found
    return found[0], found[1] + kink(line, value) / 10


#: The step at which the two sides of a point are compared, and how much they differ at a kink.
_SIDE, _KINKED = 1e-4, 1e-2


def kink(line: Line, value: Callable[[Probe], Vector]) -> float:
    """How far the slopes to both sides are apart where that is more than curvature makes; else 0.

    At a kink, as the squared hinge has them, every second derivative between the two is right.
    """
    ahead, here, behind = (value(line(t)) for t in (_SIDE, 0.0, -_SIDE))
    right, left = (ahead - here) / _SIDE, (here - behind) / _SIDE
    apart = length(right - left)
    return apart if apart > _KINKED * max(length(right), length(left)) else 0.0


def hessian(place: Place, book: Book, noise: float, lines: list[Line]) -> None:
    """``hvp`` against differences of ``grad``."""
    probe, metric = place.probe, place.metric
    asked = product_share(probe.problem, "hvp", place.eps)
    for line in lines:
        v: Any = line.dx
        claimed = probe.hvp(v)

        def cause(mine: Vector, right: Vector, v: Vector = v) -> str | None:
            factor = likely_factor(mine, right)
            return factor or diagonal_cause(right - mine, v * metric, probe.lam)

        truth, error = of_gradient(place, line, lambda at: at.grad, noise, claimed, asked)
        book.compare(
            "inner.hvp",
            claimed,
            truth / metric,
            10 * error,
            share=asked,
            metric=metric,
            cause=cause,
            reference="differences of grad",
        )


def cross(place: Place, book: Book, noise: float, most: int = 8) -> None:
    """``cross_jvp`` and ``cross_vjp`` against differences of ``grad`` in λ."""
    probe, metric, eps = place.probe, place.metric, place.eps
    m, p = probe.m, probe.p
    asked = max(product_share(probe.problem, member, eps) for member in ("cross_jvp", "cross_vjp"))
    chosen = coordinates(np.zeros(m), book.rng, most)
    units = [place.span[j] * (np.arange(m) == j) for j in chosen]
    claimed_columns = [probe.cross_jvp(unit) for unit in units]
    truths, errors = [], []
    for unit, column in zip(units, claimed_columns, strict=True):
        line = place.along_lam(unit)
        truth, error = of_gradient(place, line, lambda at: at.grad, noise, column, asked)
        truths.append(truth)
        errors.append(error)
    true = np.stack(truths, axis=1)  # (p, columns), in the metric
    claimed = np.stack(claimed_columns, axis=1) * metric[:, None]
    scales = np.exp(np.clip(probe.lam[chosen], -700, 700))

    def cause(mine: Vector, right: Vector) -> str | None:
        return cross_cause(mine.reshape(claimed.shape), right.reshape(claimed.shape), scales)

    agrees = book.compare(
        "inner.cross_jvp",
        claimed.reshape(-1),
        true.reshape(-1),
        10 * math.hypot(*errors),
        share=asked,
        where=lambda k: f"x component {k // len(chosen)}, λ component {chosen[k % len(chosen)]}",
        cause=cause,
        reference="differences of grad in λ (per unit of the metric)",
    )
    # The vjp against the true columns, so that one fault is not reported as two.
    queries = book.rng.standard_normal((4, p)) / p**0.5
    got = np.stack([probe.cross_vjp(metric * q) for q in queries])[:, chosen] * place.span[chosen]
    right = queries @ true

    def transposed(mine: Vector, other: Vector) -> str | None:
        a, b = mine.reshape(got.shape), other.reshape(got.shape)
        if p == m == len(chosen):
            plain = true / metric[:, None] / place.span[chosen]
            other_way = (queries * metric) @ plain.T * place.span[chosen]
            if close(a, other_way):
                return "transposed: ∂²_{xλ} h is applied where its transpose is asked for"
        return cross_cause(a, b, scales)

    book.compare(
        "inner.cross_vjp",
        got.reshape(-1),
        right.reshape(-1),
        10 * math.hypot(*errors) * length(queries.reshape(-1)),
        share=asked,
        where=lambda k: f"λ component {chosen[k % len(chosen)]}",
        cause=transposed,
        reference="differences of grad in λ",
    )
    if agrees:
        adjoint(place, book, asked)


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
        book.constant("inner.cross_norm", stated, found, 100 * share(place.eps), 0.0)
