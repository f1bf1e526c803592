"""Descent with an inexact gradient, and Theorem 2 of Pedregosa (2016)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bilevel.domains import Ball, Box
from bilevel.hypergrad import HypergradResult, Implicit
from bilevel.methods import HOAG, AdaptiveStep, FixedStep
from bilevel.schedules import Constant, Custom, Exponential, Power, Schedule, cubic
from bilevel.solvers import NewtonCG
from bilevel.testing import KnownProblem, Violation, linear, quadratic, theorem_2
from bilevel.testing import strategies as sts
from bilevel.testing.reference import host, norm
from bilevel.testing.theorems import (
    descent,
    lipschitz_of_gradient,
    squared_steps,
    stationarity,
    summability,
    trace,
)

FEW = settings(max_examples=max(5, settings().max_examples // 3))
AFFINE = sts.quadratics(
    kinds=("affine",),
    max_p=8,
    max_condition=30,
    max_scaling=1.0,
    backends=sts.usable("numpy", "array_api_strict", "torch"),
)


def corner(known: KnownProblem) -> list[float]:
    """A start away from the middle, inside D or on its boundary."""
    return known.lam


# -- descent with the inexact gradient --------------------------------------------------------------


@FEW
@given(AFFINE, sts.schedules(), st.sampled_from([1.0, 1.5, 4.0]))
def test_descent_with_the_inexact_gradient(
    known: KnownProblem, schedule: Schedule, factor: float
) -> None:
    """f(λ⁺) ≤ f(λ) - (L - Lip/2) ‖Δ‖² + e ‖Δ‖ for any ε_k, summable or not."""
    lipschitz = lipschitz_of_gradient(known)
    assume(lipschitz > 1e-3)
    method = HOAG(tolerances=schedule, step_rule=FixedStep(factor * lipschitz))
    descent(trace(known, method, 12, corner(known)), known, lipschitz)


@pytest.mark.parametrize("seed", range(3))
def test_descent_for_a_logistic_model(seed: int) -> None:
    known = linear(seed, n=12, p=4, m=1, domain=Box(-2.0, 2.0))
    lipschitz = lipschitz_of_gradient(known)
    method = HOAG(tolerances="cubic", step_rule=FixedStep(lipschitz))
    descent(trace(known, method, 15, [1.5]), known, lipschitz)


def test_descent_control_a_step_that_is_too_long() -> None:
    """L = Lip/6 is outside the lemma's range: the promise of L = Lip is broken."""
    known = quadratic(1, p=4, m=2, kind="affine", domain=Box(-8.0, 8.0))
    lipschitz = lipschitz_of_gradient(known)
    method = HOAG(tolerances=Exponential(1e-6, 0.9), step_rule=FixedStep(lipschitz / 6))
    found = trace(known, method, 12, [4.0, -4.0])
    claimed = replace(found, lipschitz=[lipschitz] * 12)
    with pytest.raises(Violation, match="descent"):
        descent(claimed, known, lipschitz)


def test_descent_control_an_error_that_is_understated() -> None:
    known = quadratic(1, p=4, m=2, kind="affine")
    lipschitz = lipschitz_of_gradient(known)
    method = HOAG(
        tolerances="exponential", step_rule=FixedStep(lipschitz), hypergradient=Biased(3.0)
    )
    found = trace(known, method, 12, [0.0, 0.0])
    silent = replace(found, error=[0.0] * 12)
    descent(found, known, lipschitz)
    with pytest.raises(Violation, match="descent"):
        descent(silent, known, lipschitz)


@dataclass(frozen=True)
class Biased:
    """The hypergradient with a constant added to it, and no bound stated."""

    push: float

    def __call__(
        self, problem: Any, inner: Any, *, tol: float, start: Any = None
    ) -> HypergradResult:
        found = Implicit()(problem, inner, tol=tol, start=start)
        return replace(found, value=found.value + self.push, error_bound=None)


@FEW
@given(AFFINE)
def test_adaptive_rule_keeps_lipschitz_bounded(known: KnownProblem) -> None:
    """An L ≥ Lip(∇f) is doubled only by a growth that the errors of the values explain.

    So L ≤ max(L_1, 2 Lip) until the values no longer tell two iterates apart.
    """
    lipschitz = lipschitz_of_gradient(known)
    assume(lipschitz > 1e-3)
    method = HOAG(tolerances=Exponential(1e-6, 0.9), step_rule=AdaptiveStep())
    doublings_are_explained(trace(known, method, 15, corner(known)), lipschitz)


def doublings_are_explained(found: Any, lipschitz: float) -> None:
    pairs = zip(found.records, found.records[1:], strict=False)
    for k, (before, after) in enumerate(pairs):
        if found.lipschitz[k + 1] <= found.lipschitz[k]:
            continue
        noise = (before.value_error or 0.0) + (after.value_error or 0.0)
        told_apart = after.value > before.value + noise + 1e-12 * abs(before.value)
        assert found.lipschitz[k] <= lipschitz * (1 + 1e-9) or not told_apart


@FEW
@given(AFFINE, st.floats(10, 1000))
def test_adaptive_rule_recovers_from_steps_that_are_too_long(
    known: KnownProblem, factor: float
) -> None:
    """However small the first L is, the values stay below the growth that takes a step back."""
    lipschitz = lipschitz_of_gradient(known)
    assume(lipschitz > 1e-3)
    found = trace(
        known,
        HOAG(tolerances=Exponential(1e-9, 0.99), step_rule=Short(lipschitz / factor)),
        15,
        corner(known),
    )
    doublings_are_explained(found, lipschitz)
    accepted = [value for value, kept in zip(found.value, found.accepted, strict=True) if kept]
    for before, after in zip(accepted, accepted[1:], strict=False):
        assert after <= before + 0.2 * abs(before) + 1e-9


@dataclass(frozen=True)
class Short(AdaptiveStep):
    """The adaptive rule with its first L given."""

    start: float = 1.0

    def __init__(self, start: float) -> None:
        super().__init__()
        object.__setattr__(self, "start", start)

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> Any:
        return replace(super().first(value, grad_norm, m, tol), lipschitz=self.start)


def test_adaptive_control_a_rule_that_always_doubles() -> None:
    class Doubling(AdaptiveStep):
        def next(self, state: Any, value: float, tol: float) -> Any:
            return replace(state, lipschitz=2 * state.lipschitz, value=value, tol=tol), True

    known = quadratic(1, p=4, m=2, kind="affine")
    found = trace(known, HOAG(step_rule=Doubling()), 12, [0.0, 0.0])
    with pytest.raises(AssertionError):
        doublings_are_explained(
            replace(found, records=[replace(r, value=float(r.k)) for r in found.records]),
            lipschitz_of_gradient(known),
        )


# -- tolerances --


@given(sts.schedules(summable=True))
def test_summability(schedule: Schedule) -> None:
    summability(schedule)


@given(sts.schedules(summable=False))
def test_summability_control(schedule: Schedule) -> None:
    """A sequence that is not summable is refused; most of them even if they claim to be."""
    with pytest.raises(Violation):
        summability(schedule)
    if isinstance(schedule, (Constant, Power)):
        with pytest.raises(Violation, match="condensation"):
            summability(Custom(schedule, summable=True))


# -- Theorem 2 --------------------------------------------------------------------------------------


@FEW
@given(AFFINE, sts.schedules(summable=True))
def test_theorem_2(known: KnownProblem, schedule: Schedule) -> None:
    lipschitz = lipschitz_of_gradient(known)
    assume(lipschitz > 1e-3)
    theorem_2(known, schedule, lam0=corner(known), steps=40, delta=0.1)


@pytest.mark.parametrize("domain", [Box(-2.0, 2.0), Box(-0.25, 0.25), Ball(0.5, 1.0)])
@pytest.mark.parametrize("seed", range(2))
def test_theorem_2_converges_to_a_stationary_point(domain: Any, seed: int) -> None:
    """Interior and boundary solutions, to a small δ; ε_k summable fast enough to see the end."""
    known = quadratic(seed, p=5, m=3, kind="affine", condition=4.0, coupled=True, domain=domain)
    start = [float(v) for v in np.asarray(known.lam)]
    theorem_2(known, Exponential(0.1, 0.85), lam0=start, steps=150, delta=1e-4)


def test_theorem_2_finds_the_minimiser_of_a_quadratic() -> None:
    """Inside D, λ_k → -(∂²f)⁻¹ ∇f(0), the minimiser that linear algebra finds."""
    known = quadratic(3, p=6, m=2, kind="affine", condition=4.0, domain=Box(-50.0, 50.0))
    assert known.curvature is not None
    zero = host([0.0, 0.0])
    gradient = np.asarray(known.reference.hypergradient(zero), float)
    best = host(-np.linalg.solve(np.asarray(known.curvature, float), gradient))
    assert norm(best) < 20
    method = HOAG(
        tolerances=Exponential(0.1, 0.9), step_rule=FixedStep(lipschitz_of_gradient(known))
    )
    found = trace(known, method, 250, [0.0, 0.0])
    distances = [norm(lam - best) for lam in found.lam]
    assert distances[-1] < 1e-5
    assert distances[-1] < 1e-2 * distances[60] < 1e-2 * distances[0]


@pytest.mark.parametrize("upper", [3.0, 0.125])
def test_theorem_2_for_a_logistic_model(upper: float) -> None:
    """f is no longer convex; with D = [-3, ⅛] the solution is at the face."""
    known = linear(4, n=14, p=4, m=1, domain=Box(-3.0, upper))
    theorem_2(known, cubic(0.1), lam0=[-1.0], steps=60, delta=1e-3)


def test_theorem_2_with_many_hyperparameters() -> None:
    known = linear(5, n=20, p=8, m=8, domain=Box(-1.0, 2.0))
    theorem_2(known, cubic(0.1), lam0=[0.5] * 8, steps=60, delta=1e-3)


def test_theorem_2_with_newton_cg() -> None:
    known = quadratic(2, p=6, m=2, condition=1e3)
    theorem_2(
        known, cubic(0.1), lam0=[1.0, -1.0], steps=40, delta=0.05, method=HOAG(solver=NewtonCG())
    )


@pytest.mark.slow
def test_theorem_2_in_the_limit() -> None:
    """A thousand iterations of a slow sequence, to a δ of 10⁻⁶."""
    known = quadratic(7, p=5, m=3, kind="affine", condition=10.0, coupled=True)
    theorem_2(
        known,
        Custom(lambda k: 0.1 / k**1.5, summable=True),
        lam0=[0.5, -0.5, 0.0],
        steps=1000,
        delta=1e-6,
    )


# -- controls ---------------------------------------------------------------------------------------


def control() -> KnownProblem:
    return quadratic(0, p=4, m=2, kind="affine", condition=5.0, coupled=True, domain=Box(-4.0, 4.0))


def run(known: KnownProblem, **options: Any) -> None:
    theorem_2(known, cubic(0.1), lam0=[2.0, -2.0], steps=80, **{"delta": 2e-4, **options})


def test_theorem_2_control_is_sound() -> None:
    run(control())


@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_theorem_2_control_a_hypergradient_of_the_wrong_sign(sign: float) -> None:
    @dataclass(frozen=True)
    class Scaled:
        def __call__(self, problem: Any, inner: Any, *, tol: float, start: Any = None) -> Any:
            found = Implicit()(problem, inner, tol=tol, start=start)
            return replace(found, value=sign * found.value)

    with pytest.raises(Violation):
        run(control(), method=HOAG(hypergradient=Scaled()))


def test_theorem_2_control_no_projection() -> None:
    """A method that ignores D leaves it."""

    @dataclass(frozen=True)
    class Nowhere(Box):
        def project(self, lam: Any, backend: Any) -> Any:
            return lam

    known = control()
    # Of the solution of the free problem no coordinate is in this box.
    box = Box(-0.125, 0.125)
    free = replace(known, problem=replace(known.problem, domain=box))
    theorem_2(free, cubic(0.1), lam0=[0.0, 0.0], steps=80, delta=1e-4)
    loose = replace(known, problem=replace(known.problem, domain=Nowhere(-0.125, 0.125)))
    method = HOAG(tolerances="cubic", step_rule=FixedStep(lipschitz_of_gradient(known)))
    found = trace(loose, method, 20, [0.0, 0.0])
    from bilevel.testing.theorems import inside

    with pytest.raises(Violation, match="in D"):
        inside(found, box, known)


def test_theorem_2_control_too_few_steps() -> None:
    with pytest.raises(Violation, match=r"⟨∇f"):
        theorem_2(control(), cubic(0.1), lam0=[2.0, -2.0], steps=2, delta=1e-6)


def test_theorem_2_control_a_constant_error() -> None:
    """An error that does not vanish keeps the iterates away from a stationary point."""
    with pytest.raises(Violation):
        run(control(), method=HOAG(hypergradient=Biased(20.0)))


def test_theorem_2_control_tolerances_that_are_not_met() -> None:
    with pytest.raises(Violation, match=r"condition \(i\)"):
        run(control(), method=HOAG(max_inner=1))


def test_theorem_2_control_an_adjoint_that_is_not_solved() -> None:
    with pytest.raises(Violation, match=r"condition \(ii\)"):
        run(control(), method=HOAG(hypergradient=Implicit(max_iter=1, precondition=False)))


def test_theorem_2_control_the_sum_of_squares() -> None:
    """Steps longer than descent can pay for break the bound of the proof."""
    known = control()
    lipschitz = lipschitz_of_gradient(known)
    found = trace(
        known,
        HOAG(tolerances="cubic", step_rule=FixedStep(lipschitz / 1.9)),
        30,
        [2.0, -2.0],
    )
    with pytest.raises(Violation, match="Σ"):
        squared_steps(found, 8 * lipschitz)


def test_stationarity_control_a_point_that_is_none() -> None:
    known = control()
    with pytest.raises(Violation, match=r"⟨∇f"):
        stationarity(known, host([4.0, 4.0]), 1e-3)
