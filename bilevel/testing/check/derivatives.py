"""Each derivative against differences of what it is the derivative of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from ...linalg.rounding import underflow
from .._probe import Line, Probe, Vector, derivative, largest, length
from .causes import (
    CURVATURE,
    GRADIENT,
    chain_cause,
    close,
    cross_cause,
    likely_factor,
    penalty_cause,
)
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
    claimed: Callable[[Probe], Vector],
    eps: float,
    noise: float,
    agrees: Callable[[Vector, float], bool],
) -> tuple[Vector, float]:
    """The derivative along a line and its error, with shorter steps where the first disagree.

    Only what both refute is a fault: saturated functions may mislead one. A difference over
    [-t, t] is the mean of the derivative there, so it refutes none that varies as much between:
    at a kink, or where rows of a piecewise loss change sides, every derivative between is right.
    """
    for scale in (1.0, 0.04):
        truth, error, reach = derivative(
            lambda t: value(line(t)), scale, eps, noise=noise, jitter=line.jitter
        )
        if agrees(truth, error):
            return truth, error
    return truth, error + _unsteady(lambda t: claimed(line(t)), reach) / 5


def _unsteady(claimed: Callable[[float], Vector], reach: float) -> float:
    """How far the means of a derivative at ±t, t ≤ ``reach``, stay from it when extrapolated to 0.

    As the differences are: of a smooth one nothing is left, of a jump all.
    """
    here = claimed(0.0)
    means = [(claimed(t) + claimed(-t)) / 2 - here for t in (reach / 3**k for k in range(8))]
    left = math.inf
    for order in range(1, 5):
        left = min(left, max(map(length, means)))
        means = [b + (b - a) / (9**order - 1) for a, b in zip(means, means[1:], strict=False)]
    return left


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


@dataclass(frozen=True)
class Product:
    """A product with a derivative of a gradient, in the metric: as claimed, and by differences."""

    mine: Vector
    truth: Vector
    error: float


def of_gradient(
    place: Place,
    line: Line,
    gradient: Callable[[Probe], Vector],
    product: Callable[[Probe], Vector],
    noise: float,
    asked: float,
) -> Product:
    """``product`` at the place against the derivative of a gradient along a line."""
    metric = place.metric
    mine = metric * product(place.probe)

    def agrees(truth: Vector, error: float) -> bool:
        size = max(length(truth), length(mine))
        return length(mine - truth) <= asked * size + 10 * error

    truth, error = differences(
        line,
        lambda at: metric * gradient(at),
        lambda at: metric * product(at),
        place.eps,
        noise,
        agrees,
    )
    return Product(mine, truth, error)


_GRAD = attrgetter("grad")


def hessian(place: Place, book: Book, noise: float, lines: list[Line]) -> None:
    """``hvp`` against differences of ``grad``."""
    probe, metric = place.probe, place.metric
    asked = product_share(probe.problem, "hvp", place.eps)
    for line in lines:
        v: Any = line.dx

        def cause(mine: Vector, right: Vector, v: Vector = v) -> str | None:
            factor = likely_factor(mine, right)
            return factor or penalty_cause(CURVATURE, right - mine, v * metric, probe.lam)

        found = of_gradient(place, line, _GRAD, methodcaller("hvp", v), noise, asked)
        book.compare(
            "inner.hvp",
            found.mine / metric,
            found.truth / metric,
            10 * found.error,
            share=asked,
            metric=metric,
            cause=cause,
            reference="differences of grad",
        )


@dataclass(frozen=True)
class Columns:
    """Columns of ∂²_{xλ} h (p, columns) in the metric of x and the span of λ, two ways.

    Attributes
    ----------
    chosen : array of integers
        Whose.
    claimed, true : array
        By ``cross_jvp``, and by differences of ``grad`` in λ.
    error : float
        Of all of ``true``.
    asked : float
        The relative agreement asked for beside it.
    scales : array
        e^λ of each.
    """

    chosen: Any
    claimed: Vector
    true: Vector
    error: float
    asked: float
    scales: Vector

    @classmethod
    def of(cls, place: Place, book: Book, noise: float, most: int) -> Columns:
        problem, m = place.probe.problem, place.probe.m
        asked = max(product_share(problem, f"cross_{way}", place.eps) for way in ("jvp", "vjp"))
        chosen = coordinates(np.zeros(m), book.rng, most)
        found = []
        for unit in (place.span[j] * (np.arange(m) == j) for j in chosen):
            line, product = place.along_lam(unit), methodcaller("cross_jvp", unit)
            found.append(of_gradient(place, line, _GRAD, product, noise, asked))
        return cls(
            chosen,
            np.stack([column.mine for column in found], axis=1),
            np.stack([column.truth for column in found], axis=1),
            math.hypot(*(column.error for column in found)),
            asked,
            np.exp(np.clip(place.probe.lam[chosen], -700, 700)),
        )


def cross(place: Place, book: Book, noise: float, most: int = 8) -> None:
    """``cross_jvp`` and ``cross_vjp`` against differences of ``grad`` in λ."""
    columns = Columns.of(place, book, noise, most)
    chosen, shape = columns.chosen, columns.claimed.shape
    agrees = book.compare(
        "inner.cross_jvp",
        columns.claimed.reshape(-1),
        columns.true.reshape(-1),
        10 * columns.error,
        share=columns.asked,
        where=lambda k: f"x component {k // len(chosen)}, λ component {chosen[k % len(chosen)]}",
        cause=lambda a, b: cross_cause(a.reshape(shape), b.reshape(shape), columns.scales),
        reference="differences of grad in λ (per unit of the metric)",
    )
    transpose(place, book, columns)
    if agrees:
        adjoint(place, book, columns.asked)


def transpose(place: Place, book: Book, columns: Columns) -> None:
    """``cross_vjp`` against the true columns, so that one fault is not reported as two."""
    probe, metric, chosen = place.probe, place.metric, columns.chosen
    span = place.span[chosen]
    queries = book.rng.standard_normal((4, probe.p)) / probe.p**0.5
    got = np.stack([probe.cross_vjp(metric * q) for q in queries])[:, chosen] * span

    def cause(mine: Vector, other: Vector) -> str | None:
        a, b = mine.reshape(got.shape), other.reshape(got.shape)
        if probe.p == probe.m == len(chosen):
            plain = columns.true / metric[:, None] / span
            if close(a, (queries * metric) @ plain.T * span):
                return "transposed: ∂²_{xλ} h is applied where its transpose is asked for"
        return cross_cause(a, b, columns.scales)

    book.compare(
        "inner.cross_vjp",
        got.reshape(-1),
        (queries @ columns.true).reshape(-1),
        10 * columns.error * length(queries.reshape(-1)),
        share=columns.asked,
        where=lambda k: f"λ component {chosen[k % len(chosen)]}",
        cause=cause,
        reference="differences of grad in λ",
    )


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
        # A norm may have lost all its squares where these underflow.
        lost = underflow(probe.problem.dtype, probe.p, probe.problem.backend)
        book.constant("inner.cross_norm", stated, found, 100 * share(place.eps), lost)
