"""Each part against a truth of its own, and in the loop with all that belongs to it."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outside import arrays
from outside.backend import OutsideBackend
from outside.criterion import WrongPairs
from outside.design import Sharded
from outside.domain import HalfSpace
from outside.hypergradient import Dense
from outside.loss import LogCosh
from outside.method import SOBA
from outside.model import Curve, curve
from outside.penalty import FusedRidge
from outside.solver import Steepest
from outside.steps import Bold
from scipy import optimize

import bilevel
from bilevel import inner, outer
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.testing import check_problem

METHODS = {"path": {}, "hoag": {"max_iter": 8}}
rng = np.random.default_rng(3)
X, X_val = rng.standard_normal((60, 4)), rng.standard_normal((40, 4))
x_true = np.array([1.0, 0.8, -0.5, -0.7])
y, y_val = (A @ x_true + 0.5 * rng.standard_normal(len(A)) for A in (X, X_val))
signs, signs_val = np.sign(y), np.sign(y_val)


def same_when_resumed(problem: bilevel.Problem, tmp_path: Path, **options: Any) -> bilevel.Result:
    """A run that is broken off and resumed ends as the unbroken one, to the last bit."""
    whole = bilevel.minimize(problem, **options)
    path = tmp_path / "run.npz"
    parts = {**options, "checkpoint": path}
    bilevel.minimize(problem, **{**parts, "max_iter": 2})
    again = bilevel.minimize(problem, **parts, resume=True)
    to_numpy = problem.backend.to_numpy
    np.testing.assert_array_equal(to_numpy(again.lam), to_numpy(whole.lam))
    np.testing.assert_array_equal(to_numpy(again.x), to_numpy(whole.x))
    assert again.passes == whole.passes
    return whole


def a_budget_ends_it(problem: bilevel.Problem, budget: int = 7, **options: Any) -> None:
    ended = bilevel.minimize(problem, max_passes=budget, **options)
    assert ended.status is bilevel.Status.MAX_PASSES
    assert ended.passes <= budget


def is_reported(result: bilevel.Result) -> None:
    if importlib.util.find_spec("jinja2") and importlib.util.find_spec("matplotlib"):
        from bilevel.report import render_report

        assert "<svg" in render_report(result)


# -- the method ----------------------------------------------------------------------------------


def ridge(**changes: Any) -> bilevel.Problem:
    h = inner.linear_model(X, y, Squared())
    return bilevel.Problem(h, outer.held_out(X_val, y_val, Squared()), **changes)


def test_soba_finds_the_ridge_of_the_closed_form() -> None:
    grid = np.linspace(-4, 4, 4001)
    x = [np.linalg.solve(X.T @ X + math.exp(lam) * np.eye(4), X.T @ y) for lam in grid]
    best = grid[np.argmin([np.sum((X_val @ z - y_val) ** 2) for z in x])]
    soba = SOBA(rho=4e-3, gamma=0.05, size=20)
    found = bilevel.minimize(ridge(), method=soba, max_iter=2000, every=50)
    tail = np.mean([record.lam[0] for record in found.history[-20:]])
    assert tail == pytest.approx(best, abs=0.3)
    assert len(found.history) == 41
    assert found.passes == pytest.approx(2000 * 4 * 20 / 60)
    is_reported(found)


def test_soba_has_all_that_belongs_to_a_run(tmp_path: Path) -> None:
    soba = SOBA(rho=2e-3, gamma=0.02, size=6)
    found = same_when_resumed(ridge(), tmp_path, method=soba, max_iter=30)
    assert found.best.k == 30  # no batch is taken for f: the last iterate, not the luckiest
    whole = ridge()
    exact = bilevel.minimize(whole, method=replace(soba, size=40), max_iter=3)
    draw = np.random.default_rng((0, 2)).integers  # of the last step: the batch of its value
    _, held_out = draw(60, size=40), draw(40, size=40)
    batch = whole.outer.rows(held_out).at(exact.x, exact.lam)
    assert exact.fun == float(batch.value)  # x and λ are those that the value is of
    a_budget_ends_it(ridge(), method=soba)
    several = bilevel.multistart(ridge(), 3, method=soba, max_iter=5)
    assert [r.nit for r in several.results] == [5, 5, 5]


def test_soba_says_what_it_needs() -> None:
    h, g = curve(y, np.ones(60)), outer.from_functions(lambda x, lam: (x @ x / 2, x), like=y)
    with pytest.raises(TypeError, match=r"SOBA needs problem\.inner\.rows, which a FunctionInner"):
        bilevel.minimize(bilevel.Problem(h, g), method=SOBA(0.1, 0.1, 5))


# -- solver, hypergradient, step rule -------------------------------------------------------------


def best_ridge() -> float:
    def f(lam: float) -> float:
        z = np.linalg.solve(X.T @ X + math.exp(lam) * np.eye(4), X.T @ y)
        return float(np.sum((X_val @ z - y_val) ** 2) / 2)

    return float(optimize.minimize_scalar(f, bounds=(-4, 4), method="bounded").fun)


@pytest.mark.parametrize(
    "part", [{"solver": Steepest()}, {"hypergradient": Dense()}, {"step_rule": Bold()}]
)
def test_what_hoag_is_made_of_may_be_another(part: Any, tmp_path: Path) -> None:
    hoag = bilevel.methods.HOAG(tolerances="cubic", **part)
    found = same_when_resumed(ridge(), tmp_path, method=hoag, max_iter=200)
    assert found.success
    assert found.fun == pytest.approx(best_ridge(), rel=1e-4)
    a_budget_ends_it(ridge(), method=hoag)


def test_the_walk_of_steepest_descent_is_told_when_it_is_there() -> None:
    h = inner.linear_model(X, signs, Logistic())
    lam, x = np.zeros(1), np.zeros(4)
    found = bilevel.solvers.solve(h, lam, x, solver=Steepest(), tol=1e-6)
    other = bilevel.solvers.solve(h, lam, x, solver=bilevel.solvers.LBFGS(), tol=1e-6)
    assert found.status is bilevel.Status.CONVERGED
    np.testing.assert_allclose(found.x, other.x, atol=2e-6)


# -- the model -----------------------------------------------------------------------------------


def smooth(make: Any = Curve, xp: Any = np) -> bilevel.Problem:
    t = np.linspace(0, 1, 30)
    values = xp.asarray(np.sin(7 * t) + 0.2 * np.random.default_rng(0).standard_normal(30))
    w = xp.asarray(1.0 * (np.arange(30) % 2 == 0))

    def criterion(x: Any, lam: Any) -> tuple[Any, Any]:
        r = (1 - w) * (x - values)
        return xp.sum(r * r) / 2, r

    g = outer.from_functions(criterion, like=values, grad_lam=lambda x, lam: 0 * lam)
    return bilevel.Problem(make(values, w), g)


def test_the_curve_is_that_of_the_closed_form() -> None:
    h = smooth().inner
    D = np.diff(np.eye(30), n=2, axis=0)
    x, lam, v = np.linspace(-1, 1, 30), np.array([0.7]), np.eye(30)[:, :3]
    H = np.diag(h.w) + math.exp(0.7) * D.T @ D + h.mu * np.eye(30)
    point = h.at(x, lam)
    np.testing.assert_allclose(point.grad, H @ x - h.w * h.y)
    np.testing.assert_allclose(point.hvp(v), H @ v)
    assert point.value == pytest.approx(x @ H @ x / 2 - x @ (h.w * h.y) + h.w @ h.y**2 / 2)
    constants, spectrum = h.constants(lam), np.linalg.eigvalsh(H)
    assert constants.mu <= spectrum[0] + 1e-12
    assert constants.smoothness >= spectrum[-1]


@pytest.mark.parametrize("make", [Curve, curve])
def test_both_curves_are_right_where_they_can_be_checked(make: Any) -> None:
    check_problem(smooth(make)).raise_for_findings()


@pytest.mark.parametrize("method", METHODS)
def test_both_curves_run(method: str, tmp_path: Path) -> None:
    options = {"method": method, **METHODS[method]}
    found = same_when_resumed(smooth(), tmp_path, **options)
    other = bilevel.minimize(smooth(curve), **options)
    assert found.fun == pytest.approx(other.fun, rel=1e-3)
    a_budget_ends_it(smooth(), method=method)
    is_reported(found)


def test_the_curve_is_searched_from_several_starts() -> None:
    several = bilevel.multistart(smooth(), 3)
    assert several.best.fun == pytest.approx(min(r.fun for r in several.results))


# -- loss, penalty, criterion --------------------------------------------------------------------


def test_log_cosh_is_that_of_numpy() -> None:
    backend, t = bilevel.get_backend("numpy"), np.linspace(-30, 30, 241)
    zero, loss, step = np.zeros_like(t), LogCosh(), 1e-5
    np.testing.assert_allclose(loss.value(zero, t, backend), np.log(np.cosh(t)), atol=1e-13)
    slopes = (loss.value(zero, t + step, backend) - loss.value(zero, t - step, backend)) / 2 / step
    np.testing.assert_allclose(loss.derivative(zero, t, backend), slopes, atol=1e-8)
    np.testing.assert_allclose(loss.curvature(zero, t, backend), np.cosh(t) ** -2.0, rtol=1e-12)


def fused(loss: Any = None, xp: Any = np, **options: Any) -> bilevel.Problem:
    loss = LogCosh() if loss is None else loss
    send = xp.asarray
    h = inner.linear_model(send(X), send(y), loss, penalty=FusedRidge(), **options)
    intercept = options.get("fit_intercept", False)
    g = outer.held_out(send(X_val), send(y_val), loss, fit_intercept=intercept)
    return bilevel.Problem(h, g)


def test_the_fused_ridge_is_that_of_the_closed_form() -> None:
    lam, D = np.array([0.3, 1.2]), np.diff(np.eye(4), axis=0)
    h = fused(Squared()).inner
    H = X.T @ X + math.exp(0.3) * np.eye(4) + math.exp(1.2) * D.T @ D
    x = np.linalg.solve(H, X.T @ y)
    np.testing.assert_allclose(h.at(x, lam).grad, 0, atol=1e-12)
    np.testing.assert_allclose(h.at(x, lam).hvp(np.eye(4)), H)
    constants = h.penalty.constants(lam, h.backend)
    spectrum = np.linalg.eigvalsh(H - X.T @ X)
    assert constants.mu <= spectrum[0] + 1e-12
    assert constants.smoothness >= spectrum[-1]


def loss_of_the_fit(problem: bilevel.Problem, lam: Any) -> float:
    """f(λ) by SciPy."""
    h, start = problem.inner, np.zeros(problem.inner.x_shape)
    fit = optimize.minimize(
        lambda x: float(h.at(x, lam).value), start, jac=lambda x: h.at(x, lam).grad, tol=1e-10
    )
    return float(problem.outer.at(fit.x, lam).value)


@pytest.mark.parametrize("options", [{}, {"fit_intercept": True}])
def test_loss_and_penalty_are_right_where_they_can_be_checked(options: Any) -> None:
    check_problem(fused(**options), 0.5).raise_for_findings()


def test_the_penalty_takes_coefficients_of_several_columns() -> None:
    labels, loss = np.digitize(y, [-1.0, 1.0]), Multinomial(3)
    h = inner.linear_model(X, labels, loss, penalty=FusedRidge())
    g = outer.held_out(X_val, np.digitize(y_val, [-1.0, 1.0]), loss)
    check_problem(bilevel.Problem(h, g)).raise_for_findings()


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_penalty_run(method: str, tmp_path: Path) -> None:
    found = same_when_resumed(fused(), tmp_path, method=method, **METHODS[method])
    assert found.fun == pytest.approx(loss_of_the_fit(fused(), found.lam), rel=1e-2)
    a_budget_ends_it(fused(), method=method)
    is_reported(found)


def test_loss_and_penalty_are_searched_from_several_starts() -> None:
    several = bilevel.multistart(fused(), 3)
    assert several.passes < sum(r.passes for r in several.results)  # which they share


def test_the_loss_is_proven_and_the_penalty_is_not() -> None:
    """Accounts of rounding are optional; without one nothing is claimed."""
    h = inner.linear_model(X, y, LogCosh())
    proven = bilevel.minimize(bilevel.Problem(h, outer.held_out(X_val, y_val, LogCosh())))
    assert proven.best.hypergrad_error < 1e-2 * proven.best.value
    assert bilevel.minimize(fused()).best.hypergrad_error is None


def ranked(width: float = 0.1) -> bilevel.Problem:
    h = inner.linear_model(X, signs, Logistic(), groups=[0, 0, 1, 1])
    return bilevel.Problem(h, WrongPairs(bilevel.as_design(X_val), signs_val, width))


def test_the_criterion_tends_to_the_auc() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    x, g = x_true[::-1].copy(), ranked(1e-6).outer
    wrong = 1 - metrics.roc_auc_score(signs_val, X_val @ x)
    assert g.at(x, np.zeros(2)).value == pytest.approx(wrong)


def test_the_criterion_is_right_and_runs(tmp_path: Path) -> None:
    check_problem(ranked()).raise_for_findings()
    start = bilevel.minimize(ranked(), method="hoag", max_iter=1)
    for method in METHODS:
        found = same_when_resumed(ranked(), tmp_path, method=method, **METHODS[method])
        assert found.fun < start.fun
        is_reported(found)
    a_budget_ends_it(ranked())


# -- the design ----------------------------------------------------------------------------------


def sharded(design: Any = Sharded, **options: Any) -> bilevel.Problem:
    parts = design([X[:10], X[10:45], X[45:]])
    return bilevel.logistic_regression(parts, signs, X_val, signs_val, **options)


def test_the_shards_are_the_matrix() -> None:
    whole, parts = bilevel.as_design(X), Sharded([X[:10], X[10:45], X[45:]])
    index, centre = rng.integers(0, 60, 25), X.mean(axis=0)
    for left, right in ((whole, parts), (whole.rows(index), parts.rows(index))):
        n = left.shape[0]
        assert right.shape == left.shape
        v, r = rng.standard_normal((4, 3)), rng.standard_normal((n, 3))
        np.testing.assert_allclose(right.matmul(v), left.matmul(v))
        np.testing.assert_allclose(right.rmatmul(r), left.rmatmul(r))
        np.testing.assert_allclose(right.gram_diag(r, centre), left.gram_diag(r, centre))
        np.testing.assert_allclose(right.square_matmul(v, centre), left.square_matmul(v, centre))
        assert (right.passes.total, right.passes.columns) == (4, 12)


@pytest.mark.parametrize("method", METHODS)
def test_the_shards_run_as_the_matrix_does(method: str, tmp_path: Path) -> None:
    options = {"method": method, **METHODS[method]}
    found = same_when_resumed(sharded(fit_intercept=True), tmp_path, **options)
    dense = bilevel.minimize(sharded(np.concatenate, fit_intercept=True), **options)
    assert found.history[-1].lam == pytest.approx(dense.history[-1].lam, rel=1e-6)
    assert found.history[-1].passes == dense.history[-1].passes
    a_budget_ends_it(sharded(), method=method)
    is_reported(found)


def test_the_shards_are_right_share_passes_and_have_rows() -> None:
    check_problem(sharded()).raise_for_findings()
    several = bilevel.multistart(sharded(), 3)
    assert several.passes < sum(r.passes for r in several.results)
    found = bilevel.minimize(sharded(), method=SOBA(1e-3, 1e-3, 6), max_iter=5)
    assert found.passes == pytest.approx(5 * 4 * 6 / 60)


def test_nothing_is_proven_of_a_design_that_does_not_say_how_it_sums() -> None:
    def silent(parts: Any) -> Any:
        made = Sharded(parts)
        del made.longest_row
        return made

    assert bilevel.minimize(sharded()).best.hypergrad_error is not None
    assert bilevel.minimize(sharded(silent)).best.hypergrad_error is None


# -- the domain ----------------------------------------------------------------------------------


def test_the_domain_holds_a_sum_of_hyperparameters() -> None:
    h = inner.linear_model(X, y, Squared(), penalty=inner.GroupL2(np.array([0, 0, 1, 1]), 2))
    g = outer.held_out(X_val, y_val, Squared())
    free = bilevel.minimize(bilevel.Problem(h, g), 0.0, tol=1e-9)
    level = float(np.sum(free.lam)) - 1
    held = bilevel.Problem(h, g, HalfSpace((1.0, 1.0), level))
    check_problem(held).raise_for_findings()

    def f(first: float) -> float:  # along the line on which the sum is the level
        lam = np.array([first, level - first])
        z = np.linalg.solve(X.T @ X + np.diag(np.exp(lam[[0, 0, 1, 1]])), X.T @ y)
        return float(g.at(z, lam).value)

    found = bilevel.minimize(held, [-9.0, -9.0], tol=1e-9)
    assert float(np.sum(found.lam)) == pytest.approx(level)
    near = (found.lam[0] - 1, found.lam[0] + 1)
    best = optimize.minimize_scalar(f, bounds=near, method="bounded")
    assert found.fun == pytest.approx(best.fun, rel=1e-6)
    assert found.fun > free.fun


# -- the backend ---------------------------------------------------------------------------------


def test_the_backend_is_found_by_its_entry_point() -> None:
    backend = bilevel.get_backend(arrays.asarray([1.0]))
    assert isinstance(backend, OutsideBackend)
    assert "outside" in bilevel.backend_names()
    assert backend.describe().startswith("outside ")


@pytest.mark.parametrize("make", [smooth, fused])
def test_the_backend_solves_what_numpy_solves(make: Any, tmp_path: Path) -> None:
    found = same_when_resumed(make(xp=arrays), tmp_path)
    host = bilevel.minimize(make())
    assert bilevel.get_backend(found.lam).name == "outside"
    assert found.fun == pytest.approx(host.fun, rel=1e-6)


def test_soba_needs_no_library_of_its_own() -> None:
    send = arrays.asarray
    there = bilevel.logistic_regression(send(X), send(signs), send(X_val), send(signs_val))
    here = bilevel.logistic_regression(X, signs, X_val, signs_val)
    soba = replace(SOBA(1e-2, 1e-2, 10), seed=4)
    found, host = (bilevel.minimize(p, method=soba, max_iter=20) for p in (there, here))
    assert OutsideBackend().to_numpy(found.lam) == pytest.approx(host.lam)
