"""The inner stop, and Theorem 1 of Pedregosa (2016) with its constant written out.

Each statement has a control: the same test of something that is wrong, which has to fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bilevel.hypergrad import HypergradResult, Implicit
from bilevel.solvers import LBFGS, NewtonCG, solve
from bilevel.status import Status
from bilevel.testing import (
    KnownProblem,
    Violation,
    inner_stop,
    known_losses,
    linear,
    order,
    products,
    quadratic,
    theorem_1,
)
from bilevel.testing import strategies as sts
from bilevel.testing.reference import host, norm, spectral
from bilevel.testing.theorems import (
    hypergradient_certificate,
    inner_certificate,
    shifted,
    slope,
    theorem_1_constant,
)

SOLVERS = st.sampled_from([LBFGS(), NewtonCG()])
ANY = sts.known_problems(
    backends=sts.usable("numpy", "array_api_strict", "torch"), dtypes=("float64", "float32")
)
#: At a condition number of 1e8 ten steps of CG for each unknown are not always enough.
PATIENT = Implicit(max_iter=100_000)
LARGE = sts.quadratics(max_p=200, max_m=200, max_condition=1e5)


def tolerance(known: KnownProblem, digits: float) -> float:
    """ε: so many digits of X(λ), and never nearer to the rounding errors than a factor of 50."""
    assume(norm(known.solution) > 0)
    tol = 10.0**-digits * norm(known.solution)
    floor = 50 * max(known.solution_rounding, known.adjoint_rounding)
    assume(math.isfinite(floor))
    return max(tol, floor)


# -- inner stop: ‖∂_x h‖ ≤ μ ε implies ‖x - X(λ)‖ ≤ ε --------------------------------------------


@given(ANY, st.floats(1, 10), SOLVERS)
def test_inner_stop(known: KnownProblem, digits: float, solver: Any) -> None:
    inner_stop(known, tolerance(known, digits), solver=solver)


@settings(max_examples=max(4, settings().max_examples // 4))
@given(LARGE, st.floats(1, 8))
def test_inner_stop_on_large_problems(known: KnownProblem, digits: float) -> None:
    inner_stop(known, tolerance(known, digits), solver=NewtonCG())


@pytest.mark.parametrize("condition", [5e4, 1e6, 1e8])
@pytest.mark.parametrize("solver", [LBFGS(), NewtonCG()])
def test_inner_stop_where_values_cancel(condition: float, solver: Any) -> None:
    """Here the terms of h cancel, and its values err by far more than the roundoff of h.

    A line search that takes every rise above that for a climb stalls on most of these problems.
    """
    for seed in range(8):
        known = quadratic(seed, p=6, m=1, kind="affine", condition=condition)
        tol = max(1e-5 * norm(known.solution), 50 * known.solution_rounding)
        inner_stop(known, tol, solver=solver)


@given(sts.quadratics(max_p=8, max_condition=1e3), st.floats(2, 6))
def test_inner_stop_control_a_plain_gradient_norm(known: KnownProblem, digits: float) -> None:
    """Stopping at ‖∂_x h‖ ≤ ε (no μ) leaves x further than ε along the flattest direction."""
    tol = tolerance(known, digits)
    values, vectors = np.linalg.eigh(
        np.asarray(known.reference.inner.hessian(known.solution, host(known.lam)), dtype=float)
    )
    assume(values[0] < 0.9)
    away = host(vectors[:, 0]) * tol / values[0]
    claimed = replace(shifted(known, away), error_bound=tol)
    with pytest.raises(Violation, match=r"‖x - X\(λ\)‖ ≤ ε"):
        inner_certificate(known, claimed, tol * 1.0)


def test_inner_stop_control_an_unconverged_result() -> None:
    known = quadratic(3, p=10, m=1, condition=1e4)
    result = solve(
        known.problem.inner,
        known.array(known.lam),
        known.problem.x(None),
        solver=LBFGS(),
        tol=1e-9,
        max_iter=2,
    )
    with pytest.raises(Violation, match="converges"):
        inner_certificate(known, result, 1e-9)


# -- Theorem 1: ‖p - ∇f(λ)‖ ≤ C ε ----------------------------------------------------------------


@given(ANY, st.floats(1, 10), SOLVERS)
def test_theorem_1(known: KnownProblem, digits: float, solver: Any) -> None:
    theorem_1(known, tolerance(known, digits), solver=solver, hypergradient=PATIENT)


@settings(max_examples=max(4, settings().max_examples // 4))
@given(LARGE, st.floats(1, 8))
def test_theorem_1_on_large_problems(known: KnownProblem, digits: float) -> None:
    theorem_1(known, tolerance(known, digits), solver=NewtonCG(), hypergradient=PATIENT)


def test_theorem_1_on_every_backend(backend: Any, dtype: Any) -> None:
    name = "float32" if "float32" in str(dtype) else "float64"
    known = linear(2, n=6, p=3, m=3, backend=backend, dtype=name)
    theorem_1(known, max(1e-6, 50 * known.solution_rounding), solver=NewtonCG())
    products(known)


@pytest.mark.parametrize("loss", known_losses())
def test_theorem_1_for_each_loss(loss: str) -> None:
    for seed in range(5):
        theorem_1(linear(seed, loss=loss, n=15, p=5, m=2), 1e-7)


@dataclass(frozen=True)
class Wrong:
    """The implicit hypergradient with one of its parts spoilt."""

    part: str

    def __call__(
        self, problem: Any, inner: Any, *, tol: float, start: Any = None
    ) -> HypergradResult:
        found = Implicit()(problem, inner, tol=tol)
        moved = found.outer.grad_lam - found.value  # Bᵀ q
        value = {
            "sign": found.outer.grad_lam + moved,
            "direct": -moved,
            "half": found.outer.grad_lam - moved / 2,
        }[self.part]
        return replace(found, value=value)


@pytest.mark.parametrize("part", ["sign", "direct", "half"])
def test_theorem_1_control_a_wrong_part(part: str) -> None:
    known = quadratic(4, p=6, m=2, coupled=True)
    theorem_1(known, 1e-6)
    with pytest.raises(Violation, match="Theorem 1"):
        theorem_1(known, 1e-6, hypergradient=Wrong(part))


def test_theorem_1_control_a_loose_adjoint() -> None:
    """A residual above ε is not what the theorem allows."""
    known = quadratic(4, p=6, m=2)
    inner = solve(
        known.problem.inner, known.array(known.lam), known.problem.x(None), solver=LBFGS(), tol=1e-8
    )
    found = Implicit(max_iter=2, precondition=False)(known.problem, inner, tol=1e-8)
    assert found.status is Status.MAX_ITER
    with pytest.raises(Violation, match=r"‖H q - ∂_x g‖ ≤ ε"):
        hypergradient_certificate(known, found, 1e-8)


# -- the computed bound: never exceeded, and how far it lies above the truth ----------------------


@given(ANY, st.floats(0, 6), st.integers(0, 3))
def test_bound_is_never_exceeded_at_any_x(known: KnownProblem, digits: float, seed: int) -> None:
    """Also far from X(λ), in a random direction and in that of least curvature."""
    tol = tolerance(known, digits)
    rng = np.random.default_rng(seed)
    p = known.reference.inner.p
    direction = rng.standard_normal(p)
    if seed == 0:
        hessian = known.reference.inner.hessian(known.solution, host(known.lam))
        direction = np.linalg.eigh(np.asarray(hessian, dtype=float))[1][:, 0]
    inner = shifted(known, host(direction / np.linalg.norm(direction)) * tol)
    found = Implicit()(known.problem, inner, tol=tol)
    error = norm(known.host(found.value) - known.hypergradient)
    if found.error_bound is not None:
        assert error <= found.error_bound + known.hypergradient_rounding


def test_bound_is_attained_when_all_errors_line_up() -> None:
    """h = ½ ‖x‖² - λᵀ Cᵀ x, g = ½ ‖x - t‖²: p - ∇f = Cᵀ (δ + ρ), and the bound is ‖C‖ (e + r)."""
    known = aligned()
    lam = host(known.lam)
    left = np.linalg.svd(np.asarray(known.reference.inner.cross(known.solution, lam), float))[0]
    away = 1e-3 * host(left[:, 0])
    inner = shifted(known, away)
    found = Implicit()(known.problem, inner, tol=1e-13)
    error = norm(known.host(found.value) - known.hypergradient)
    assert found.error_bound == pytest.approx(error, rel=1e-6)


def aligned() -> KnownProblem:
    from bilevel.domains import Box
    from bilevel.testing.problems import quadratic_from

    rng = np.random.default_rng(0)
    zero = np.zeros((4, 2))
    inner = {
        "matrix": np.eye(4),
        "offset": np.zeros(4),
        "slope": rng.standard_normal((4, 2)),
        "groups": zero,
    }
    outer = {
        "matrix": np.eye(4),
        "target": rng.standard_normal(4),
        "coupling": zero.T,
        "center": np.zeros(2),
    }
    return quadratic_from(inner, outer, domain=Box(-1.0, 1.0), lam=[0.5, -0.25])


@settings(max_examples=max(10, settings().max_examples))
@given(sts.quadratics(max_p=10, max_condition=100, max_scaling=1.0, kinds=("affine",)))
def test_bound_is_within_its_factor_of_the_worst_case(known: KnownProblem) -> None:
    """Bound ≤ 3 κ worst error + κ² part, when x errs in the worst direction of its length.

    The error is linear in δ = x - X(λ): p - ∇f = (N - Cᵀ... ) δ, of norm σ ‖δ‖ at worst. The bound
    is (L_λ + ‖B‖ L_g / μ) e with e ≤ κ ‖δ‖: the factor is at most κ times the share of
    cancellation, ``lost`` below, which is computed.
    """
    lam, x = host(known.lam), known.solution
    h, g = known.reference.inner, known.reference.outer
    hessian = np.asarray(h.hessian(x, lam), dtype=float)
    cross = np.asarray(h.cross(x, lam), dtype=float)
    outer: Any = g
    moved = np.asarray(outer.coupling, float) - cross.T @ np.linalg.solve(
        hessian, np.asarray(outer.matrix.T @ outer.matrix, float)
    )
    worst, direction = np.linalg.svd(moved)[1][0], np.linalg.svd(moved)[2][0]
    assume(worst > 1e-6)
    tol = 1e-3
    found = Implicit()(known.problem, shifted(known, tol * host(direction)), tol=1e-12)
    error = norm(known.host(found.value) - known.hypergradient)
    assert error == pytest.approx(worst * tol, rel=1e-3)
    values = np.linalg.eigvalsh(hessian)
    constants = known.problem.outer_constants
    parts = (constants.grad_lam_lipschitz or 0.0) + spectral(host(cross)) * (
        constants.grad_x_lipschitz or 0.0
    ) / values[0]
    lost = parts / worst
    kappa = values[-1] / values[0]
    slack = known.hypergradient_rounding
    assert error - slack <= found.error_bound <= 1.01 * kappa * lost * error + slack


def test_bound_control_without_the_strong_convexity() -> None:
    """Ten times the true μ makes the bound a lie."""
    known = aligned()
    inner = shifted(
        known,
        1e-3 * host(np.linalg.svd(known.host(known.problem.inner.slope).astype(float))[0][:, 0]),
    )
    lying = replace(inner, error_bound=inner.error_bound / 10)
    found = Implicit()(known.problem, lying, tol=1e-13)
    with pytest.raises(Violation, match="the computed bound"):
        hypergradient_certificate(known, found, 1.0)


# -- order: halving ε halves the error -------------------------------------------------------------

HALVINGS = [2.0**-k for k in range(8, 20)]


@given(sts.known_problems(max_p=8))
def test_order_of_theorem_1_in_x(known: KnownProblem) -> None:
    """Where x is at a distance of exactly ε: slope 1 ± 0.15, for CG."""
    noise = known.hypergradient_rounding + known.solution_rounding
    size = norm(known.solution)
    assume(size > 0)
    constant = theorem_1_constant(known, HALVINGS[-1])
    tolerances = [tol * min(size, 1.0) for tol in HALVINGS]
    first = measured(known, tolerances[0])
    assume(measured(known, tolerances[-1]) > 1e3 * noise and first > 0)
    # A direction in which the first derivative nearly vanishes has another order: skip it.
    if math.isfinite(constant):
        assume(first > 1e-3 * constant * tolerances[0] / 10)
    order(known, tolerances)


def measured(known: KnownProblem, tol: float) -> float:
    rng = np.random.default_rng(7)
    direction = host(rng.standard_normal(known.solution.shape))
    inner = shifted(known, tol * direction / norm(direction))
    found = Implicit()(known.problem, inner, tol=tol / 1000)
    return norm(known.host(found.value) - known.hypergradient)


def test_order_of_theorem_1_in_the_residual() -> None:
    """With x exact and CG stopped at ε, the mean order over many problems is one."""
    tolerances = [2.0**-k for k in range(4, 28)]
    slopes = []
    for seed in range(6):
        known = quadratic(seed, p=40, m=2, condition=300.0)
        inner = shifted(known, 0 * known.solution)
        errors = [
            norm(known.host(Implicit()(known.problem, inner, tol=tol).value) - known.hypergradient)
            for tol in tolerances
        ]
        slopes.append(slope(tolerances, errors))
    assert abs(float(np.mean(slopes)) - 1) <= 0.15, slopes


def test_order_of_the_whole_algorithm() -> None:
    """The same with L-BFGS stopped at ε too."""
    tolerances = [2.0**-k for k in range(4, 28)]
    slopes = []
    for seed in range(6):
        known = linear(seed, n=40, p=10, m=2)
        errors = [theorem_1(known, tol)["error"] for tol in tolerances]
        slopes.append(slope(tolerances, errors))
    assert abs(float(np.mean(slopes)) - 1) <= 0.15, slopes


def test_order_control_an_error_that_ignores_the_tolerance() -> None:
    known = quadratic(2)
    with pytest.raises(Violation, match="order"):
        order(known, HALVINGS, error=lambda tol: measured(known, 1e-3))


def test_order_control_half_an_order() -> None:
    known = quadratic(2)
    with pytest.raises(Violation, match="order"):
        order(known, HALVINGS, error=lambda tol: measured(known, tol**0.5))


# -- the products that all of this rests on ---------------------------------------------------------


@given(ANY, st.integers(0, 5))
def test_products(known: KnownProblem, seed: int) -> None:
    products(known, seed)


@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("hvp", lambda point, v: point.hvp(v) + 1.0),
        ("hvp", lambda point, v: 0 * v),
        ("cross_vjp", lambda point, q: -point.cross_vjp(q)),
        ("cross_jvp", lambda point, d: 2 * point.cross_jvp(d)),
    ],
)
def test_products_control(member: str, wrong: Any) -> None:
    known = quadratic(6, p=5, m=2)
    products(known)
    with pytest.raises(Violation):
        products(
            replace(
                known,
                problem=replace(known.problem, inner=Spoilt(known.problem.inner, member, wrong)),
            )
        )


class Spoilt:
    """An inner objective one product of which is replaced."""

    def __init__(self, inner: Any, member: str, wrong: Any) -> None:
        self.__dict__.update(inner=inner, member=member, wrong=wrong)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def at(self, x: Any, lam: Any, carry: Any = None) -> Any:
        point = self.inner.at(x, lam, carry)
        spoilt = SpoiltPoint(point)
        setattr(spoilt, self.member, lambda v: self.wrong(point, v))
        return spoilt


class SpoiltPoint:
    def __init__(self, point: Any) -> None:
        self.point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self.point, name)
