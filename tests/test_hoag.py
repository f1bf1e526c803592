"""HOAG against a naive transcription of the paper's algorithm 1, and its parts."""

import functools
import math

import numpy as np
import pytest
from thin import first

import bilevel
from bilevel.methods import HOAG, AdaptiveStep, FixedStep
from bilevel.methods.hoag import StepState
from bilevel.schedules import Constant, Custom, Exponential, Power, cubic, quadratic
from bilevel.solvers import NewtonCG


def data(seed=0, n=60, p=6):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, p))
    y = np.where(X @ rng.standard_normal(p) + rng.standard_normal(2 * n) > 0, 1.0, -1.0)
    return X[:n], y[:n], X[n:], y[n:]


def transcription(X, y, X_val, y_val, groups, lam, n_iter, lower, upper, fixed=None, tol=1e-12):
    """Algorithm 1 with dense algebra: Newton's method for (i), an LU factorisation for (ii)."""

    def expit(t):
        return 1 / (1 + np.exp(-t))

    x, path, values = np.zeros(X.shape[1]), [], []
    L, before, moved, anchor, anchor_p = fixed, None, 0.0, None, None
    for _ in range(n_iter):
        weights = np.exp(lam)[groups]

        def gradient(x, weights=weights):
            return -X.T @ (y * expit(-y * (X @ x))) + weights * x

        def hessian(x, weights=weights):
            s = expit(-y * (X @ x))
            return X.T @ ((s * (1 - s))[:, None] * X) + np.diag(weights)

        for _ in range(50):
            x = x - np.linalg.solve(hessian(x), gradient(x))
        g = np.sum(np.log1p(np.exp(-y_val * (X_val @ x))))
        grad_g = -X_val.T @ (y_val * expit(-y_val * (X_val @ x)))
        q = np.linalg.solve(hessian(x), grad_g)
        p = np.array([-(weights * x * q)[groups == j].sum() for j in range(lam.size)])
        path.append(lam)
        values.append(g)
        if before is None:
            L = fixed or np.linalg.norm(p) / math.sqrt(lam.size)
            before, anchor, anchor_p = g, lam, p
        elif fixed is not None:
            anchor, anchor_p = lam, p
        else:
            slack = 0.25 * tol + tol * (0.25 + 1.0) * moved
            if g <= before + slack - L * moved**2 / 2:
                L, before, anchor, anchor_p = 0.95 * L, g, lam, p
            elif g >= 1.2 * before:
                L = 2 * L
            else:
                L, before, anchor, anchor_p = (2 if g > before else 1) * L, g, lam, p
        lam = np.clip(anchor - anchor_p / L, lower, upper)
        moved = np.linalg.norm(lam - anchor)
    return np.array(path), np.array(values)


@pytest.mark.parametrize("step", [AdaptiveStep(), FixedStep(5.0)], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("solver", [None, NewtonCG()], ids=["lbfgs", "newton-cg"])
@pytest.mark.parametrize("lam0", [0.0, -4.0, 5.0])
@pytest.mark.parametrize("m", first(1, [1, 3]))
def test_equals_the_algorithm_of_the_paper(step, solver, lam0, m):
    """With exact inner solutions the path of λ is that of a transcription, to 1e-10."""
    X, y, X_val, y_val = data()
    groups = np.arange(6) % m
    box = (-5.0, 5.5)
    problem = bilevel.logistic_regression(
        X, y, X_val, y_val, groups=None if m == 1 else groups, domain=bilevel.Box(*box)
    )
    keywords = {} if solver is None else {"solver": solver}
    method = HOAG(tolerances="exact", step_rule=step, **keywords)
    result = bilevel.minimize(problem, lam0, method=method, max_iter=20, tol=0.0)
    fixed = getattr(step, "lipschitz", None)
    start = np.full(m, lam0)
    path, values = transcription(X, y, X_val, y_val, groups, start, 20, *box, fixed=fixed)
    np.testing.assert_allclose([r.lam for r in result.history], path, rtol=0, atol=1e-10)
    np.testing.assert_allclose([r.value for r in result.history], values, rtol=1e-11)


@functools.cache
def least_on_a_grid():
    """Of f by tight fits of the problem below."""
    problem, values = bilevel.logistic_regression(*data(n=40, p=8)), []
    for lam in np.linspace(-2, 6, 161):
        exact = bilevel.solvers.solve(
            problem.inner, np.array([lam]), np.zeros(8), solver=NewtonCG(), tol=1e-9
        )
        values.append(float(problem.outer.at(exact.x, exact.point.lam).value))
    return min(values)


@pytest.mark.parametrize("schedule", ["quadratic", "cubic", "exponential", "exact"])
@pytest.mark.parametrize("lam0", [0.0, -5.0, 5.0])
def test_every_schedule_reaches_the_minimum(schedule, lam0):
    problem = bilevel.logistic_regression(*data(n=40, p=8))
    found = bilevel.minimize(problem, lam0, method=HOAG(tolerances=schedule), max_iter=150)
    assert found.success, found.message
    exact = bilevel.solvers.solve(problem.inner, found.lam, found.x, solver=NewtonCG(), tol=1e-9)
    assert float(problem.outer.at(exact.x, found.lam).value) <= least_on_a_grid() * (1 + 1e-4)


@pytest.mark.parametrize("schedule", [quadratic(), cubic(), Exponential(0.3, 0.8)])
def test_each_iteration_is_as_precise_as_it_was_asked(schedule):
    """Steps (i) and (ii): both errors are at most ε_k, k = 1, 2, ..., by a bound, not a guess."""
    problem = bilevel.logistic_regression(*data())
    method = HOAG(tolerances=schedule)
    result = bilevel.minimize(problem, -2.0, method=method, max_iter=8, tol=0.0)
    for k, record in enumerate(result.history, start=1):
        assert record.k == k
        assert record.tol == schedule(k)
        assert record.inner_error <= record.tol
        assert record.cg_residual <= record.tol * (1 + 1e-9)
        exact = bilevel.solvers.solve(
            problem.inner, record.lam, np.zeros(6), solver=NewtonCG(), tol=1e-10
        )
        truth = float(problem.outer.at(exact.x, record.lam).value)
        assert abs(record.value - truth) <= record.value_error + 1e-9
    # The bounds shrink with the tolerances, to first order (Theorem 1).
    first, last = result.history[1], result.history[-1]
    assert last.hypergrad_error < 10 * first.hypergrad_error * last.tol / first.tol


def test_stays_where_it_has_arrived():
    """150 iterations without a stopping rule: λ reaches λ* and does not leave it again."""
    problem = bilevel.logistic_regression(*data(n=40, p=8))
    result = bilevel.minimize(problem, 0.0, max_iter=150, tol=0.0, method="hoag")
    path = np.array([float(record.lam[0]) for record in result.history])
    assert np.abs(path[75:] - path[-1]).max() < 1e-2
    assert result.history[-1].optimality < 1e-4


# -- the step rule -----------------------------------------------------------------------------

STATE = StepState(lipschitz=4.0, value=10.0, tol=0.0, moved=0.5)


@pytest.mark.parametrize(
    ("value", "factor", "accepted"),
    [
        (9.4, 0.95, True),  # fell by more than L Δ² / 2 = 0.5: a longer step
        (9.6, 1.0, True),  # fell by less: L stays
        (10.5, 2.0, True),  # grew: a shorter step
        (12.5, 2.0, False),  # grew by a quarter: taken back
    ],
)
def test_adaptive_step(value, factor, accepted):
    state, kept = AdaptiveStep().next(STATE, value, tol=0.0)
    assert (state.lipschitz, kept) == (4.0 * factor, accepted)
    assert state.value == (value if accepted else 10.0)


def test_adaptive_step_grants_the_slack_of_the_tolerances():
    """C ε_k + ε_{k-1} (C + M) Δ = 0.25 · 0.4 + 0.8 · 1.25 · 0.5 = 0.6."""
    before = StepState(lipschitz=4.0, value=10.0, tol=0.8, moved=0.5)
    assert AdaptiveStep().next(before, 10.0 + 0.6 - 0.5 - 1e-9, tol=0.4)[0].lipschitz == 3.8
    assert AdaptiveStep().next(before, 10.0 + 0.6 - 0.5 + 1e-9, tol=0.4)[0].lipschitz == 4.0
    assert AdaptiveStep().next(before, 10.0 + 0.6 + 1e-9, tol=0.4)[0].lipschitz == 8.0


def test_the_first_step_has_the_length_root_m():
    state = AdaptiveStep().first(value=1.0, grad_norm=30.0, m=9, tol=0.1)
    assert 30.0 / state.lipschitz == pytest.approx(3.0)
    assert AdaptiveStep().first(value=1.0, grad_norm=0.0, m=9, tol=0.1).lipschitz == 1.0


def test_a_step_that_is_taken_back_starts_again_from_its_origin():
    class Reckless(AdaptiveStep):
        def first(self, value, grad_norm, m, tol):
            return StepState(grad_norm / 8, value, tol)  # a first step of length 8

    problem = bilevel.logistic_regression(*data(n=40, p=8))
    method = HOAG(tolerances="exact", step_rule=Reckless(growth=1.01))
    first, second, third = bilevel.minimize(
        problem, 2.0, method=method, max_iter=3, tol=0.0
    ).history
    assert second.value > 1.01 * first.value
    origin, p = float(first.lam[0]), float(first.hypergrad[0])
    length = abs(float(second.lam[0]) - origin)
    assert float(third.lam[0]) == pytest.approx(origin - math.copysign(length / 2, p))


@pytest.mark.parametrize("lipschitz", [0.0, -1.0, float("nan")])
def test_fixed_step_is_checked_at_the_door(lipschitz):
    with pytest.raises(ValueError, match="lipschitz must be positive"):
        FixedStep(lipschitz)


# -- schedules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "summable"),
    [
        (quadratic(), True),
        (cubic(), True),
        (Exponential(0.1, 0.9), True),
        (Exponential(0.1, 1.0), False),
        (Power(0.1, 1.0), False),
        (Power(0.1, 1.5), True),
        (Constant(1e-12), False),
        (Custom(lambda k: 0.1 / k, summable=False), False),
    ],
)
def test_a_schedule_states_whether_its_sum_is_finite(schedule, summable):
    """The statement, held against the growth of the partial sums."""
    assert schedule.summable is summable
    sums = np.cumsum([schedule(k) for k in range(1, 20_001)])
    grows = sums[-1] - sums[9_999] > 0.01 * sums[9_999]
    assert grows == (not summable)
    assert all(schedule(k) > 0 for k in (1, 10, 1000))


@pytest.mark.parametrize("schedule", [Exponential(), Power(0.1, 80.0)])
def test_schedules_stay_positive_where_their_formula_underflows(schedule):
    assert 0 < schedule(20_000) < 1e-300


def test_schedules_are_those_of_the_paper():
    assert [quadratic()(k) for k in (1, 2, 10)] == pytest.approx([0.1, 0.025, 0.001])
    assert [cubic()(k) for k in (1, 2, 10)] == pytest.approx([0.1, 0.0125, 0.0001])
    assert [Exponential()(k) for k in (1, 2)] == pytest.approx([0.09, 0.081])
    assert Constant()(7) == 1e-12


@pytest.mark.parametrize("build", [lambda v: Power(v), lambda v: Exponential(v), Constant])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_schedules_refuse_what_is_not_positive(build, value):
    with pytest.raises(ValueError, match="must be positive"):
        build(value)


def test_a_users_schedule_is_checked_when_it_is_asked():
    with pytest.raises(ValueError, match="iteration 3 must be positive and finite, got -1"):
        Custom(lambda k: 2 - k, summable=True)(3)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"tolerances must be a Schedule or one of .*'exact'"):
        HOAG(tolerances="linear")


@pytest.mark.parametrize("lam0", [6.0, 12.0])
def test_a_start_that_is_near_enough_is_not_taken_for_a_solution(lam0):
    """At a large λ, x = 0 lies within ε_1 of X(λ), and its p is zero: no stationary point."""
    problem = bilevel.logistic_regression(*data())
    assert np.linalg.norm(problem.inner.at(np.zeros(6), np.array([lam0])).grad) < 0.09 * np.exp(
        lam0
    )
    result = bilevel.minimize(problem, lam0, method="hoag", max_iter=3)
    assert result.history[0].n_inner > 0
    assert abs(float(result.history[0].hypergrad[0])) > 1e-4
