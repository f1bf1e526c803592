"""Iterative differentiation converges at the rate of the iteration that it differentiates.

On a quadratic h with eigenvalues in [μ, L] gradient descent with step η has the rate
ρ = max(1 - η μ, η L - 1); the error of x_T is of order ρᵀ and that of dx_T/dλ of order T ρᵀ
(Grazzi et al. 2020, theorem 2.1). The heavy ball has the rate √β where β is large enough. In
terms of ε = ‖x_T - X(λ)‖ the order is one, up to the logarithm that T is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bilevel.domains import Box
from bilevel.hypergrad import ForwardUnrolled, Neumann, ReverseUnrolled, unsolved
from bilevel.testing import KnownProblem, quadratic
from bilevel.testing.reference import host, norm
from bilevel.testing.theorems import shifted, slope

STEPS = range(100, 400, 25)
#: The heavy ball is at the rounding errors sooner.
BALL = range(30, 130, 7)


def problem() -> tuple[KnownProblem, float, float]:
    known = quadratic(3, p=6, m=2, condition=25.0, lam=[-4.5, -5.0], domain=Box(-6.0, -3.0))
    hessian = known.reference.inner.hessian(known.solution, host(known.lam))
    values = np.linalg.eigvalsh(np.asarray(hessian, dtype=float))
    return known, float(values[0]), float(values[-1])


def errors(known: KnownProblem, method: Any, counts: range = STEPS) -> list[float]:
    lam = known.array(known.lam)
    start = unsolved(known.problem, lam, known.problem.x(None))
    return [
        norm(known.host(method(steps)(known.problem, start, tol=0.0).value) - known.hypergradient)
        for steps in counts
    ]


def rate(found: list[float], polynomial: int, counts: range = STEPS) -> float:
    """The factor per step of errors that behave as T^polynomial ρᵀ."""
    steps = np.array(list(counts), dtype=float)
    logs = np.log(np.array(found)) - polynomial * np.log(steps)
    return float(math.exp(np.polyfit(steps, logs, 1)[0]))


@pytest.mark.parametrize("mode", [ForwardUnrolled, ReverseUnrolled])
def test_gradient_descent_has_its_own_rate(mode: Any) -> None:
    known, mu, top = problem()
    eta = 1 / top
    found = errors(known, lambda steps: mode(n_steps=steps, step=eta))
    expected = 1 - eta * mu
    measured = rate(found, polynomial=1)
    assert math.log(measured) == pytest.approx(math.log(expected), rel=0.15)


@pytest.mark.parametrize("mode", [ForwardUnrolled, ReverseUnrolled])
def test_the_heavy_ball_has_its_own_rate(mode: Any) -> None:
    known, mu, top = problem()
    beta, eta = 0.7, 1 / top
    assert beta >= (1 - math.sqrt(eta * mu)) ** 2  # every root is complex, of modulus √β
    found = errors(known, lambda steps: mode(n_steps=steps, step=eta, momentum=beta), BALL)
    # The roots turn: the errors oscillate under their envelope, which the mean sees.
    measured = rate(found, polynomial=1, counts=BALL)
    assert math.log(measured) == pytest.approx(math.log(beta) / 2, rel=0.2)


def test_rates_control_a_step_that_is_half() -> None:
    """Half the step is another rate: the test tells one from the other."""
    known, mu, top = problem()
    found = errors(known, lambda steps: ReverseUnrolled(n_steps=steps, step=0.5 / top))
    assert math.log(rate(found, polynomial=1)) != pytest.approx(math.log(1 - mu / top), rel=0.15)


def test_neumann_series_has_the_rate_of_its_terms() -> None:
    known, mu, top = problem()
    inner = shifted(known, 0 * known.solution)
    found = [
        norm(
            known.host(Neumann(n_terms=steps, step=1 / top)(known.problem, inner, tol=1e-300).value)
            - known.hypergradient
        )
        for steps in STEPS
    ]
    assert math.log(rate(found, polynomial=0)) == pytest.approx(math.log(1 - mu / top), rel=0.15)


@pytest.mark.parametrize("mode", [ForwardUnrolled, ReverseUnrolled])
def test_order_in_the_error_of_x(mode: Any) -> None:
    """‖p - ∇f‖ against ‖x_T - X(λ)‖, less the factor T: slope 1 ± 0.15."""
    known, _, top = problem()
    found = errors(known, lambda steps: mode(n_steps=steps, step=1 / top))
    lam = known.array(known.lam)
    start = unsolved(known.problem, lam, known.problem.x(None))
    away = [
        norm(
            known.host(mode(n_steps=steps, step=1 / top).walk(known.problem, start.point)[-1].x)
            - known.solution
        )
        for steps in STEPS
    ]
    reduced = [error / steps for error, steps in zip(found, STEPS, strict=True)]
    assert slope(away, reduced) == pytest.approx(1.0, abs=0.15)
