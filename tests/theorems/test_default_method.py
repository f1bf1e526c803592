"""The default method held to what it states: every proven bound, and the end of the run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

import bilevel
from bilevel.domains import Box
from bilevel.methods import PathFollowing
from bilevel.testing import KnownProblem, Violation, linear, quadratic
from bilevel.testing import strategies as sts
from bilevel.testing.reference import host, norm
from bilevel.testing.theorems import gap, records_hold

FEW = settings(max_examples=max(8, settings().max_examples // 2))
PROBLEMS = sts.known_problems(max_p=8, max_m=3)


@FEW
@given(PROBLEMS)
def test_every_bound_of_a_run_holds(known: KnownProblem) -> None:
    """‖p_k - ∇f(λ_k)‖ and |g(x_k, λ_k) - f(λ_k)| never exceed what the records state."""
    assume(math.isfinite(known.hypergradient_rounding))
    result = bilevel.minimize(known.problem, known.array(known.lam), max_iter=15, tol=1e-6)
    records_hold(known, result.history)


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_every_bound_of_a_run_holds_on_models(method: str, loss: str) -> None:
    for seed in range(4):
        known = linear(seed, loss=loss, n=30, p=6, m=1, domain=Box(-4.0, 4.0))
        result = bilevel.minimize(known.problem, 1.0, method=method, max_iter=15, tol=1e-6)
        figures = records_hold(known, result.history)
        assert figures["stated"] > 0


@pytest.mark.parametrize("m", [1, 2])
def test_every_bound_of_a_run_with_pairs_holds(m: int) -> None:
    """The bound of a solve that kept pairs precondition is proven, too: it ends many a run."""
    certified = 0
    for seed in range(6):
        known = linear(seed, n=60, p=12, m=m, domain=Box(-4.0, 4.0))
        method = PathFollowing(rank=0, pairs=4, worth=0.0)
        result = bilevel.minimize(known.problem, 1.0, method=method, max_iter=20, tol=1e-6)
        assert result.success, result.message
        records_hold(known, result.history)
        certified += result.history[-1].hypergrad_error is not None
    assert certified >= 4


def test_control_a_bound_that_is_too_small() -> None:
    known = linear(1, n=30, p=6, m=1, domain=Box(-4.0, 4.0))
    result = bilevel.minimize(known.problem, 1.0, method="hoag", max_iter=5)
    lying = [replace(r, hypergrad_error=(r.hypergrad_error or 0) / 1e4) for r in result.history]
    with pytest.raises(Violation, match="hypergrad_error"):
        records_hold(known, lying)


def test_control_a_value_that_is_off() -> None:
    known = linear(1, n=30, p=6, m=1, domain=Box(-4.0, 4.0))
    result = bilevel.minimize(known.problem, 1.0, method="hoag", max_iter=5)
    lying = [replace(r, value=r.value + 2 * (r.value_error or 0) + 1e-6) for r in result.history]
    with pytest.raises(Violation, match="value_error"):
        records_hold(known, lying)


@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_converged_run_ends_at_a_stationary_point(m: int, seed: int) -> None:
    known = linear(seed, n=40, p=8, m=m, domain=Box(-4.0, 4.0))
    result = bilevel.minimize(known.problem, 0.5, tol=1e-6, max_iter=100)
    assert result.success, result.message
    lam = known.host(result.lam)
    left = gap(known.problem.domain, lam, known.reference.hypergradient(lam))
    # The rule is the decrease that is left, tol · f; with curvature c it is p²/2c.
    assert left <= 1e-2 * abs(result.fun), left


@FEW
@given(sts.quadratics(kinds=("affine",), max_p=6, max_m=1, max_condition=30, max_scaling=1.0))
def test_a_quadratic_in_one_variable_is_solved(known: KnownProblem) -> None:
    """f is a parabola on an interval: its minimiser is a quotient, clipped."""
    assert known.curvature is not None
    curvature = float(known.curvature[0, 0])
    assume(curvature > 1e-3)
    zero = host([0.0])
    free = -float(known.reference.hypergradient(zero)[0]) / curvature
    best = known.problem.domain.project(np.array([free]), bilevel.get_backend("numpy"))
    result = bilevel.minimize(known.problem, known.array(known.lam), tol=1e-8, max_iter=60)
    f = known.reference.value
    assert f(known.host(result.lam)) - f(host(best)) <= 1e-6 * (1 + abs(f(host(best))))


def test_on_every_backend(backend: Any) -> None:
    known = quadratic(2, p=4, m=1, backend=backend)
    result = bilevel.minimize(known.problem, 0.5, tol=1e-6, max_iter=30)
    records_hold(known, result.history)
    assert norm(known.host(result.lam)) <= 2
