"""A derivative against differences of what it is the derivative of, and how well they agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._probe import Line, Probe, Vector, derivative, length
from .places import Place


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
