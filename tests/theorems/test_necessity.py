"""Each condition of Theorem 2 is needed: drop it, and a construction breaks the conclusion.

The control is the same construction with the condition in force, which converges.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from bilevel.schedules import Constant, Custom, Exponential, Power, cubic
from bilevel.testing import Violation, quadratic, theorem_2
from bilevel.testing.counterexamples import drift, nearly_singular, singular, stall, unbounded
from bilevel.testing.theorems import slope


def test_constant_tolerance_stalls_at_order_epsilon() -> None:
    tolerances = [10.0**-k for k in range(1, 6)]
    distances = []
    for tol in tolerances:
        figures = stall(tol)
        assert figures["moved"] <= 1e-12 + 1e-6 * tol  # it has come to rest,
        assert figures["distance"] == pytest.approx(tol, rel=0.01)  # and not at λ*
        distances.append(figures["distance"])
    assert slope(tolerances, distances) == pytest.approx(1.0, abs=0.01)


def test_constant_tolerance_is_refused_by_theorem_2() -> None:
    with pytest.raises(Violation, match="Σ ε_k < ∞"):
        theorem_2(quadratic(0, kind="affine"), Constant(1e-3), lam0=[0.0, 0.0])


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_a_divergent_sum_lets_an_adversary_prevent_convergence(exponent: float) -> None:
    """ε_k = 1/k → 0, every p_k within C ε_k of ∇f(λ_k), and λ_k crosses D for ever.

    Each crossing of width w takes the sum over a stretch of k of at least w, and the harmonic
    series has infinitely many such stretches: from K on to about e^w K.
    """
    schedule = Power(1.0, exponent)
    assert not schedule.summable
    figures = drift(schedule)
    assert figures["error"] <= 2  # Theorem 1 holds all along, with C = 2 for these X and g
    assert figures["crossings"] >= 10
    assert figures["late"] == pytest.approx(0.5)  # from face to face, to the end
    again = drift(schedule, steps=1200)
    assert again["crossings"] > figures["crossings"]  # and it never ends


@pytest.mark.parametrize(
    "schedule",
    [
        Power(1.0, 2.0),
        cubic(1.0),
        Exponential(1.0, 0.8),
        Custom(lambda k: 1 / (k + 1) / math.log(k + 1) ** 3 / 4, summable=True),
    ],
)
def test_the_same_adversary_fails_where_the_sum_is_finite(schedule: Power) -> None:
    assert schedule.summable
    figures = drift(schedule)
    assert figures["crossings"] <= 1 + sum(schedule(k) for k in range(1, 600)) / 0.5
    tail = sum(schedule(k) for k in range(math.isqrt(600), 600))
    assert figures["late"] <= tail + 1e-12 < 0.2  # it can move by what is left of the sum alone


def test_a_singular_hessian_leaves_the_limit_to_the_start() -> None:
    low, high = singular(-0.5, 0.0), singular(0.5, 0.0)
    assert abs(low["lam"] - high["lam"]) == pytest.approx(1.0, abs=1e-6)
    assert low["stated"] == high["stated"] == 0.0  # and no bound is stated where there is none


def test_a_regular_hessian_forgets_the_start() -> None:
    low, high = singular(-0.5, 1.0), singular(0.5, 1.0)
    assert low["lam"] == pytest.approx(1.0, abs=1e-3)
    assert high["lam"] == pytest.approx(1.0, abs=1e-3)
    assert low["stated"] == high["stated"] == 1.0


def test_the_constant_of_theorem_1_has_no_bound_near_singularity() -> None:
    """‖∂_x h‖ ≤ ε is met, and the error of p grows like 1/s: so does C."""
    curvatures = [10.0**-k for k in range(1, 6)]
    figures = [nearly_singular(s) for s in curvatures]
    assert all(f["gradient"] <= 1.001e-6 for f in figures)
    assert slope(curvatures, [f["error"] for f in figures]) == pytest.approx(-1, abs=0.01)
    assert slope(curvatures, [f["C"] for f in figures]) == pytest.approx(-1, abs=0.15)


def test_an_unbounded_domain_lets_the_iterates_run_away() -> None:
    decades = [unbounded(steps) for steps in (5, 50, 500)]
    gained = np.diff([figures["lam"] for figures in decades])
    assert np.all(gained > 0.9)  # ½ log 10 = 1.15 for each decade of k, without end
    assert decades[-1]["optimality"] < 1e-3  # while the gradient vanishes: no point attains it


def test_a_bounded_domain_holds_them() -> None:
    figures = unbounded(100, upper=2.0)
    assert figures["lam"] == 2.0
    assert figures["step"] == 0.0
