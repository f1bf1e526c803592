"""Where a search starts, which iterate it returns, and what CONVERGED claims."""

import itertools

import numpy as np
import pytest
from dense import DenseModel, draw
from scipy import optimize

import bilevel
from bilevel import Box, Status, inner, losses, outer
from bilevel.inner import InnerConstants
from bilevel.methods import PathFollowing

LOSSES = {"squared": losses.Squared, "logistic": losses.Logistic}


def problem_of(dense: DenseModel, domain=None):
    loss = LOSSES[dense.loss]()
    groups = None if dense.m == 1 else dense.groups
    return bilevel.Problem(
        inner.linear_model(dense.X, dense.y, loss, groups=groups),
        outer.held_out(dense.X_val, dense.y_val, loss),
        Box() if domain is None else domain,
    )


def curve(g, dg):
    """f = g: X(λ) = λ, so that a function of one number is the whole problem."""

    def value_and_grad(x, lam):
        return 0.5 * float((x - lam) @ (x - lam)), x - lam

    h = inner.from_functions(
        value_and_grad,
        like=np.zeros(1),
        x_shape=(1,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: v,
        cross_vjp=lambda x, lam, q: -q,
        cross_jvp=lambda x, lam, d: -d,
        constants=InnerConstants(mu=1.0, smoothness=1.0, hessian_lipschitz=0.0),
    )
    criterion = outer.from_functions(
        lambda x, lam: (float(g(x[0])), np.asarray([dg(x[0])])),
        like=np.zeros(1),
        grad_lam=lambda x, lam: 0 * lam,
    )
    return bilevel.Problem(h, criterion)


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


#: Functions of one number with their derivatives: plateaus, walls, waves.
CURVES = {
    "plateau to the right": (lambda t: 2 - np.tanh(t), lambda t: -(np.cosh(t) ** -2)),
    "slow plateau": (lambda t: 2 - np.tanh(t / 3), lambda t: -(np.cosh(t / 3) ** -2) / 3),
    "plateau to the left": (lambda t: 2 + np.tanh(t), lambda t: np.cosh(t) ** -2),
    "falls for ever": (lambda t: 1 + np.exp(-t), lambda t: -np.exp(-t)),
    "steep wall": (
        lambda t: 1 + 0.1 * (t - 1) ** 2 + 0.5 * sigmoid(80 * (t + 0.5)),
        lambda t: 0.2 * (t - 1) + 40 * sigmoid(80 * (t + 0.5)) * sigmoid(-80 * (t + 0.5)),
    ),
    "waves": (lambda t: 3 + np.cos(2 * t) + t**2 / 20, lambda t: -2 * np.sin(2 * t) + t / 10),
    "no curvature at its minimum": (lambda t: 1 + t**4, lambda t: 4 * t**3),
    "parabola": (lambda t: 1 + (t - 0.3) ** 2, lambda t: 2 * (t - 0.3)),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("lam0", [-6.0, -1.0, 0.0, 2.0, 5.0])
def test_scipy_gains_nothing_from_a_converged_end(name, lam0):
    g, dg = CURVES[name]
    result = bilevel.minimize(curve(g, dg), lam0, max_iter=100)
    assert result.success, result.message
    assert result.history[0].lam[0] == lam0
    further = optimize.minimize(
        lambda t: g(t[0]),
        result.lam,
        jac=lambda t: np.asarray([dg(t[0])]),
        method="L-BFGS-B",
        bounds=[(-12, 12)],
    )
    assert result.fun - further.fun <= 2e-5 * abs(result.fun)
    assert result.fun <= g(lam0) * (1 + 1e-12), "no worse than where it began"


def test_a_kink_is_no_end_before_the_solves_are_precise():
    """HOAG took p = 0 from a loose x for the end, where f' was 1."""
    g = (lambda t: 1 + np.hypot(t - 2, 1e-3), lambda t: (t - 2) / np.hypot(t - 2, 1e-3))
    result = bilevel.minimize(curve(*g), 0.0, method="hoag", max_iter=300)
    assert not result.success or abs(g[1](result.lam[0])) <= 1e-3


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_a_flat_f_is_an_end(method):
    X, y = np.zeros((20, 3)), np.resize([1.0, -1.0], 20)
    result = bilevel.minimize(bilevel.logistic_regression(X, y, X, y), 1.5, method=method)
    assert result.success
    assert result.nit <= 3
    assert result.fun == pytest.approx(20 * np.log(2))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lam0", [0.0, -4.0])
def test_features_of_unlike_scales_end_in_a_basin_below_the_start(seed, lam0):
    """It started at λ = 12, beyond a maximum of f, and stayed there."""
    rng = np.random.default_rng(seed)
    n = 40
    X = np.column_stack([1e4 * rng.lognormal(size=(2 * n, 2)), rng.standard_normal((2 * n, 3))])
    t = 1e-5 * X[:, 0] - 2 * X[:, 2] + X[:, 3] + 0.5 * rng.standard_normal(2 * n)
    y = np.where(t > np.median(t), 1.0, -1.0)
    dense = DenseModel(X[:n], y[:n], X[n:], y[n:], "logistic", np.zeros(5, dtype=int))
    result = bilevel.minimize(problem_of(dense), lam0)
    assert result.history[0].lam[0] == lam0
    assert dense(result.lam)[0] <= dense([lam0])[0] * (1 + 1e-9)
    assert result.success
    assert dense.lower(result.lam) <= 2e-5


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("seed", range(12))
def test_a_stranger_gains_nothing_from_a_converged_end(seed, method):
    dense = draw(seed)
    result = bilevel.minimize(problem_of(dense), 1.0, method=method, max_iter=100)
    f, _ = dense(result.lam)
    if result.success or method == "path":
        assert result.fun == pytest.approx(f, rel=1e-3)
    if result.success and method == "path":
        assert dense.lower(result.lam) <= 2e-5
    if result.success and method == "hoag":  # its tol is of the slope
        _, p = dense(result.lam)
        moved = np.clip(result.lam - p / max(np.linalg.norm(p), 1), -12, 12) - result.lam
        assert np.linalg.norm(moved) * max(np.linalg.norm(p), 1) <= 2e-4 * abs(f)


@pytest.mark.parametrize("seed", range(2))
def test_many_hyperparameters_are_at_an_end_or_do_not_say_so(seed):
    """With a λ for each of 30 weights 0.1 to 2.7% of f was left, and tol said 1e-5."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((140, 30))
    t = X @ (rng.standard_normal(30) * (rng.random(30) < 0.2)) + rng.standard_normal(140)
    dense = DenseModel(X[:80], t[:80], X[80:], t[80:], "squared", np.arange(30))
    result = bilevel.minimize(problem_of(dense), 1.0, max_iter=1000, max_passes=8000)
    assert result.fun == pytest.approx(dense(result.lam)[0], rel=1e-3)
    if result.success:
        assert dense.lower(result.lam) <= 1e-4
    assert result.fun < dense(np.ones(30))[0]


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("max_iter", [1, 3, 6, 10])
def test_the_best_iterate_is_the_best_by_a_tight_fit(method, max_iter):
    """Value + bound returned one of the first: 48 where 0.008 had been seen."""
    for seed in range(3):
        dense = draw(seed, m=6)
        result = bilevel.minimize(problem_of(dense), method=method, max_iter=max_iter)
        seen = [dense(record.lam)[0] for record in result.history]
        assert dense(result.lam)[0] <= min(seen) + 0.05 * abs(min(seen))


def test_a_loose_fit_does_not_win_by_its_early_stop():
    def record(k, value, estimate, error, bound=None):
        return bilevel.Record(
            k, np.zeros(1), value, bound, np.zeros(1), None, 0.1, None, None, 1.0, 1.0, 1, 1,
            Status.CONVERGED, Status.CONVERGED, estimate=estimate, estimate_error=error,
        )  # fmt: skip

    loose, tight = record(1, 1.0, 3.0, 2.0), record(2, 2.0, 2.0, 1e-6)
    assert tight.at_most < loose.at_most
    assert loose.at_least == 1.0
    assert record(3, 2.0, 2.0, 1e-3, bound=1e9).at_most == pytest.approx(2.001)
    assert record(3, np.nan, 2.0, 1e-3).at_most == np.inf
    assert record(3, 2.0, None, None).at_most == 2.0
    assert record(3, 2.0, 2.0, np.inf, bound=0.5).at_most == 2.5


def test_a_correction_beyond_the_range_of_the_loss_is_none():
    """A corrected logistic loss of -42 once let a step from 0.008 to 54 pass."""
    from bilevel.methods._protocol import estimated

    problem = problem_of(draw(1))  # any loss without negative values
    assert problem.outer_constants.least == 0
    assert estimated(problem, 54.5, 96.5) == (54.5, np.inf)
    value, error = estimated(problem, 54.5, 0.5)
    assert (value, error) == (54.0, pytest.approx(0.5))
    assert estimated(problem, 54.5, np.nan) == (54.5, np.inf)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (losses.Logistic(), [1.0, -1.0]),
        (losses.Squared(), [0.3, -2.0]),
        (losses.Huber(), [0.3, -2.0]),
        (losses.SquaredHinge(), [1.0, -1.0]),
        (losses.Poisson(), [0.0, 3.0]),
    ],
)
def test_losses_know_their_least_value(loss, labels):
    backend, y = bilevel.get_backend("numpy"), np.asarray(labels)
    least = loss.least(y, backend)
    for label, low in zip(y, least, strict=True):
        found = optimize.minimize_scalar(
            lambda t, label=label: float(loss.value(label, np.asarray(t), backend)),
            bounds=(-60, 60),
            method="bounded",
        )
        assert low == pytest.approx(found.fun, abs=1e-6)


def test_a_bound_of_the_domain_is_said():
    dense = DenseModel(
        *(np.eye(3),) * 1, np.ones(3), np.eye(3), -np.ones(3), "squared", np.zeros(3, int)
    )
    result = bilevel.minimize(problem_of(dense, Box(-3, 2)))
    assert result.success
    assert "λ[0] lies at its upper bound 2" in result.message
    assert "widen the domain" in result.message
    inside = bilevel.minimize(problem_of(draw(4)))
    at_bound = abs(inside.lam[0]) == 12
    assert ("bound" in inside.message) == at_bound
    ball = problem_of(dense, bilevel.Ball(0.0, 2.0))
    assert "boundary of the ball" in bilevel.minimize(ball).message


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
@pytest.mark.parametrize("scale", [1e160, 1e200])
def test_overflow_is_no_success(method, scale):
    dense = draw(2)
    X, y = dense.X * scale, np.where(dense.y > 0, 1.0, -1.0)
    y[0], y[1] = 1.0, -1.0
    with np.errstate(all="ignore"):
        result = bilevel.minimize(bilevel.logistic_regression(X, y, X, y), method=method)
    assert result.status in (Status.NON_FINITE, Status.STALLED)
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("after", [3, 8, 20, 60])
@pytest.mark.parametrize("what", ["value", "grad", "hvp", "cross_vjp"])
def test_nan_in_mid_run_returns_the_best_iterate(method, after, what):
    """It ended in an assertion without text, or in "success" with an x that had not moved."""
    calls = itertools.count()

    def broken(name, a):
        return a * np.nan if name == what and next(calls) > after else a

    def value_and_grad(x, lam):
        value = 0.5 * (x - 1) @ (x - 1) + 0.5 * np.exp(lam[0]) * x @ x
        grad = (x - 1) + np.exp(lam[0]) * x
        return float(broken("value", value)), broken("grad", grad)

    h = inner.from_functions(
        value_and_grad,
        like=np.zeros(1),
        x_shape=(3,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: broken("hvp", (1 + np.exp(lam[0])) * v),
        cross_vjp=lambda x, lam, q: broken("cross_vjp", np.exp(lam[0]) * np.asarray([x @ q])),
        cross_jvp=lambda x, lam, d: np.exp(lam[0]) * x * d[0],
    )
    g = outer.from_functions(
        lambda x, lam: (float((x - 0.3) @ (x - 0.3)) + 1, 2 * (x - 0.3)), like=np.zeros(1)
    )
    result = bilevel.minimize(bilevel.Problem(h, g), 3.0, method=method, tol=0.0, max_iter=200)
    assert not result.success
    if result.best is not None and np.isfinite(result.fun):
        finite = [r for r in result.history if np.isfinite(r.value)]
        assert result.best.at_most == min(r.at_most for r in finite)
        assert np.isfinite(result.lam).all() and np.isfinite(result.x).all()


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("signs", [[-1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
def test_a_stationary_point_that_is_no_minimum_of_h_is_no_end(method, signs):
    """At x = 0 every gradient vanishes, so no solve met the curvature: it said CONVERGED."""
    s = np.asarray(signs)
    h = inner.from_functions(
        lambda x, lam: (float(x @ (s * x)) / 2, s * x),
        like=np.zeros(1),
        x_shape=(3,),
        n_hyperparameters=1,
    )
    g = outer.from_functions(lambda x, lam: (float(x @ x) + 1, 2 * x), like=np.zeros(1))
    result = bilevel.minimize(bilevel.Problem(h, g), method=method, max_iter=20)
    assert not result.success


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e4, 1e8])
def test_targets_of_any_size_make_the_same_search(scale):
    """Tiny targets ended a hundred times too early: some tolerance was absolute."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((80, 6))
    y = X @ rng.standard_normal(6) + 4 * rng.standard_normal(80)
    one, scaled = (
        DenseModel(X[:40], s * y[:40], X[40:], s * y[40:], "squared", np.zeros(6, int))
        for s in (1.0, scale)
    )
    expected, found = (bilevel.minimize(problem_of(d), 3.0) for d in (one, scaled))
    assert found.success and expected.success
    assert found.fun / scale**2 == pytest.approx(expected.fun, rel=2e-5)
    assert scaled.lower(found.lam) <= 2e-5


def test_a_start_at_a_small_lam_comes_down_to_it():
    """The first fit is found along the path from above, and λ_1 is lam0 all the same."""
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_breast_cancer(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), 2.0 * y - 1
    problem = bilevel.logistic_regression(X[::2], y[::2], X[1::2], y[1::2])
    passes = {}
    for first in (1e4, np.inf):
        method = PathFollowing(first_condition=first)
        result = bilevel.minimize(problem, -8.0, method=method)
        assert result.success
        assert result.history[0].lam[0] == -8.0
        passes[first] = result.passes
    assert passes[1e4] < 0.95 * passes[np.inf]
