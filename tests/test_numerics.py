"""Numbers that rounding, scale or a start at the wrong place would spoil, against exact ones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from derivatives import one_of_each_kind
from thin import first

import bilevel
from bilevel.inner import (
    RBF,
    Matern32,
    Matern52,
    Polynomial,
    from_functions,
    kernel_ridge,
    mlp,
)
from bilevel.inner.distances import distance_rounding, square_distances
from bilevel.inner.kernels import median_square_distance
from bilevel.losses import Logistic, Squared
from bilevel.outer import held_out_kernel, held_out_mlp
from bilevel.problems import stacked
from bilevel.solvers import LBFGS, solve

NUMPY = bilevel.get_backend("numpy")
LONG = np.longdouble
STATIONARY = (RBF(), Matern32(), Matern52())


def exact_squares(X, Z):
    """Square distances in long double."""
    return ((X.astype(LONG)[:, None] - Z.astype(LONG)[None]) ** 2).sum(2)


# -- kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e3, 1.7e9])
@pytest.mark.parametrize("p", [1, 3, 40])
def test_distances_are_as_exact_as_the_rows(backend, dtype, p, offset):
    one_of_each_kind(backend, p == 3)
    rng = np.random.default_rng(p)
    host = np.float32 if dtype == backend.xp.float32 else np.float64
    X = (rng.standard_normal((30, p)) + offset).astype(host)
    X[7] = X[3]
    X[:10] *= 1 + 1e-3 * (rng.random((10, 1)) > 0.5)  # far clusters, where there is an offset
    found = square_distances(backend.asarray(X[:12]), backend.asarray(X), backend)
    assert found.dtype == dtype
    found, exact = backend.to_numpy(found), exact_squares(X[:12], X)
    assert np.all(found[exact == 0] == 0)
    allowed = distance_rounding(p, float(np.finfo(host).eps))
    assert np.all(np.abs(found - exact) <= allowed * exact)


def test_a_product_serves_rows_of_many_features(monkeypatch):
    """Its pairs are far apart beside the centred rows, so that differences are not needed."""
    from bilevel.inner import distances

    X = np.random.default_rng(0).standard_normal((20, 50)) + 1e6
    expected = exact_squares(X, X)
    monkeypatch.setattr(distances, "_by_differences", None)
    found = square_distances(X, X, NUMPY)
    assert np.max(np.abs(found - expected)) <= distance_rounding(50, 2.3e-16) * expected.max()


@pytest.mark.parametrize("offset", [0.0, 1e9])
@pytest.mark.parametrize("apart", [0.0, 1e-3])
def test_a_product_serves_rows_that_come_twice(backend, monkeypatch, offset, apart):
    """Equal rows sent the whole block to the differences, ten times slower; so did near ones."""
    from bilevel.inner import distances

    one_of_each_kind(backend, apart == 0.0)
    rng = np.random.default_rng(0)
    X = np.tile(rng.standard_normal((15, 50)) + offset, (3, 1))
    X += apart * rng.standard_normal(X.shape)
    X = X[rng.permutation(45)]
    exact = exact_squares(X[:20], X)
    monkeypatch.setattr(distances, "_by_differences", None)
    found = backend.to_numpy(square_distances(backend.asarray(X[:20]), backend.asarray(X), backend))
    assert np.all(np.abs(found - exact) <= distance_rounding(50, 2.3e-16) * exact)


@pytest.mark.parametrize("kernel", STATIONARY)
def test_kernels_far_out_are_zero_and_their_derivatives_too(backend, kernel):
    """γ d² overflows in float32: ∞ · 0 is no derivative."""
    one_of_each_kind(backend, isinstance(kernel, RBF))
    X = backend.asarray(np.array([[0.0], [3e17]], dtype=np.float32))
    theta = backend.asarray(np.array([12.0], dtype=np.float32))
    (derivative,) = kernel.derivatives(X, X, theta, backend)
    assert np.array_equal(backend.to_numpy(kernel.block(X, X, theta, backend)), np.eye(2))
    assert np.array_equal(backend.to_numpy(derivative), np.zeros((2, 2)))


def kernel_problem(X, y, kernel, backend=NUMPY, domain=None):
    A, V, b, d = (backend.asarray(a) for a in (X[::2], X[1::2], y[::2], y[1::2]))
    h = kernel_ridge(A, b, kernel)
    return bilevel.Problem(h, held_out_kernel(h, V, d, Squared()), domain or bilevel.Box())


@pytest.mark.parametrize("kernel", STATIONARY)
@pytest.mark.parametrize("offset", [1e5, 1.7e9])
def test_an_offset_of_the_features_changes_nothing(backend, kernel, offset):
    """Multiples of 2⁻²² keep their differences at Unix time: X and X - offset are one problem."""
    one_of_each_kind(backend, isinstance(kernel, RBF) and offset > 1e6)
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((40, 2)) * 2.0**21) / 2.0**21
    y = np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(40)
    near, far = (kernel_problem(A, y, kernel, backend) for A in (X, X + offset))
    lam, x = backend.asarray(np.array([0.3, -2.0])), backend.asarray(rng.standard_normal(20))
    for a, b in (
        (near.inner.at(x, lam), far.inner.at(x, lam)),
        (near.outer.at(x, lam), far.outer.at(x, lam)),
    ):
        assert float(a.value) == pytest.approx(float(b.value), rel=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize("kernel", [RBF(), Polynomial(2, 1.0)])
def test_the_bound_of_x_covers_the_rounding_of_the_kernel(kernel, offset):
    """Against the solution in long double; where the rounding is beyond ρ there is no bound."""
    if np.finfo(LONG).eps > 1e-18:
        pytest.skip("long double is no longer than double here")
    rng = np.random.default_rng(1)
    X = rng.standard_normal((30, 2)) + offset
    y = rng.standard_normal(30)
    h = kernel_ridge(X, y, kernel)
    for lam in (np.array([0.0, -6.0]), np.array([-40.0, 2.0])):
        if h.constants(lam).mu is None:
            assert isinstance(kernel, Polynomial)
            assert offset > 0
            continue
        found = solve(h, lam, np.zeros(30), solver=LBFGS(), tol=1e-13, max_iter=2000)
        gamma, rho = np.exp(lam.astype(LONG))
        Z = X.astype(LONG)
        K = (
            np.exp(-gamma * exact_squares(X, X))
            if isinstance(kernel, RBF)
            else (gamma * Z @ Z.T + 1) ** 2
        )
        solution = solve_long(K + rho * np.eye(30), y)
        assert float(np.sqrt(((found.x - solution) ** 2).sum())) <= found.error_bound


def solve_long(A, b):
    """A⁻¹ b in long double, by elimination with pivots."""
    A, b = A.astype(LONG), b.astype(LONG).copy()
    A = A.copy()
    n = len(b)
    for k in range(n):
        top = k + int(np.argmax(np.abs(A[k:, k])))
        A[[k, top]], b[[k, top]] = A[[top, k]], b[[top, k]]
        for i in range(k + 1, n):
            share = A[i, k] / A[k, k]
            A[i, k:] -= share * A[k, k:]
            b[i] -= share * b[k]
    x = np.zeros(n, dtype=LONG)
    for k in range(n - 1, -1, -1):
        x[k] = (b[k] - A[k, k + 1 :] @ x[k + 1 :]) / A[k, k]
    return x


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("kernel", [*STATIONARY, Polynomial()])
def test_a_typical_parameter_sees_the_data(backend, kernel, scale):
    one_of_each_kind(backend, isinstance(kernel, RBF))
    X = np.random.default_rng(0).standard_normal((50, 3)) * scale
    h = kernel_ridge(backend.asarray(X), backend.asarray(X[:, 0]), kernel)
    lam = backend.asarray(np.array([*h.typical(), 0.0]))
    assert h.remark(lam) is None
    K = backend.to_numpy(h.matrix(lam).dense())
    assert 1e-2 < np.median(K) / np.median(np.diag(K)) < 0.99 or isinstance(kernel, Polynomial)


def test_the_median_distance():
    X = np.array([[0.0], [1.0], [1.0], [4.0]])
    assert median_square_distance(X, NUMPY) == 9.0  # of 1, 1, 9, 9, 16
    assert median_square_distance(np.ones((3, 1)), NUMPY) == 1.0


@pytest.mark.parametrize(("scale", "words"), [(1e5, "0 off its diagonal"), (1e-6, "equal rows")])
@pytest.mark.parametrize("method", ["path", "hoag"])
def test_a_search_where_the_kernel_sees_nothing_says_so(scale, words, method):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 2)) * scale
    problem = kernel_problem(X, np.sin(X[:, 0] / scale), RBF(), domain=bilevel.Box(-30.0, 30.0))
    result = bilevel.minimize(problem, [0.0, -2.0], method=method, max_iter=15)
    assert not result.success
    assert f"At the start, with the kernel parameters [0] the kernel matrix is {words}" in (
        result.message
    ) or (words in result.message)
    good = bilevel.minimize(problem, [*problem.inner.typical(), -2.0], max_iter=15)
    assert not any(note.startswith("At the start") for note in good.notes)
    assert good.fun < 0.5 * result.fun


# -- where networks and user functions start -------------------------------------------------------


def network(backend=NUMPY, dtype=None):
    rng = np.random.default_rng(1)
    X, V = rng.standard_normal((60, 2)), rng.standard_normal((40, 2))
    y, d = np.sign(X.sum(axis=1)), np.sign(V.sum(axis=1))
    A, b, B, c = (backend.asarray(a, dtype=dtype) for a in (X, y, V, d))
    h = mlp(A, b, Logistic(), [4])
    return bilevel.Problem(h, held_out_mlp(h, B, c, Logistic()))


def test_a_network_starts_at_the_same_random_weights_everywhere(backend, dtype):
    found = network(backend, dtype).x(None)
    assert found.dtype == dtype
    expected = network().x(None)
    assert np.linalg.norm(expected) > 1
    tolerance = 1e-6 if dtype == backend.xp.float32 else 1e-15
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=tolerance)
    assert np.array_equal(expected, network().inner.initial(0))


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_a_network_learns_without_x0(method):
    """From x = 0 both ended in the constant predictor, f = 27.5."""
    result = bilevel.minimize(network(), -1.0, method=method, max_iter=30)
    assert result.fun < 0.1
    hessian = bilevel.hypergrad.Direct().hessian(network().inner.at(result.x, result.lam), NUMPY)
    assert np.linalg.eigvalsh(hessian)[0] > -1e-3


def factorisation(start=None):
    """½ Σ (M - u vᵀ)² + ½ e^λ (‖u‖² + ‖v‖²): zero is a saddle."""
    M = np.outer([1.0, 2.0], [1.0, -1.0, 1.0])

    def value_and_grad(x, lam):
        u, v = x[:2], x[2:]
        rest, weight = np.outer(u, v) - M, np.exp(lam[0])
        value = 0.5 * np.sum(rest**2) + 0.5 * weight * np.sum(x * x)
        return value, np.concatenate([rest @ v, rest.T @ u]) + weight * x

    return from_functions(
        value_and_grad, like=np.zeros(1), x_shape=(5,), n_hyperparameters=1, start=start
    )


def test_a_user_function_can_state_its_start():
    outer = bilevel.outer.from_functions(
        lambda x, lam: (0.5 * float(x @ x), x), like=np.zeros(1), grad_lam=lambda x, lam: 0 * lam
    )
    start = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    problem = bilevel.Problem(factorisation(start), outer)
    assert np.array_equal(problem.x(None), start)
    assert np.array_equal(bilevel.Problem(factorisation(), outer).x(None), np.zeros(5))
    lam = problem.lam(-2.0)
    found = solve(problem.inner, lam, problem.x(None), solver=LBFGS(), tol=1e-8)
    # The best rank-one fit shrinks the singular value √30 by e^λ.
    assert found.grad_norm < 1e-8
    product = np.outer(found.x[:2], found.x[2:])
    expected = np.sqrt(5.0 * 3.0) - np.exp(-2.0)
    assert np.linalg.norm(product) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (np.zeros(4), "start must have shape"),
        (np.zeros(5, dtype=np.float32), "start must have shape"),
        (np.full(5, np.nan), "start must be finite"),
    ],
)
def test_a_start_that_is_no_x_is_refused(start, words):
    with pytest.raises(ValueError, match=words):
        factorisation(start)


def test_stacked_problems_start_where_their_parts_do():
    one = network()
    both = stacked([one, one])
    assert np.array_equal(both.x(None), np.concatenate([one.x(None), one.x(None)]))


# -- targets far from zero, tiny and huge ----------------------------------------------------------


@pytest.fixture(scope="module")
def ridge_estimator():
    pytest.importorskip("sklearn")
    from bilevel.estimators import BilevelRidge

    return BilevelRidge


def exact_ridge(X, y, alpha, intercept):
    """Coefficients and intercept by elimination in long double."""
    X, y = X.astype(LONG), y.astype(LONG)
    centre, level = (X.mean(axis=0), y.mean(axis=0)) if intercept else (0 * X[0], LONG(0))
    Z = X - centre
    coef = solve_long(Z.T @ Z + LONG(alpha) * np.eye(X.shape[1], dtype=LONG), Z.T @ (y - level))
    return coef, level - centre @ coef


def regression(scale=1.0, offset=0.0):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = X @ rng.standard_normal(4) + rng.standard_normal(60)
    return X, y * scale + offset


@pytest.mark.parametrize("host", [np.float64, np.float32])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1.7e9])
@pytest.mark.parametrize("cv", [0.3, 3])
def test_ridge_is_exact_wherever_the_targets_lie(
    ridge_estimator, host, intercept, scale, offset, cv
):
    if offset and scale < 1:
        pytest.skip("float64 holds no such targets")
    X, y = regression(scale, offset)
    model = ridge_estimator(fit_intercept=intercept, cv=cv, random_state=0).fit(X.astype(host), y)
    coef, level = exact_ridge(X.astype(host), y, model.alpha_, intercept)
    # Without an intercept the offset stays in the targets, which float32 rounds.
    rtol = (2e-6 if intercept else 2e-5) if host is np.float32 else 1e-12
    np.testing.assert_allclose(model.coef_, coef.astype(float), rtol=0, atol=rtol * max(abs(coef)))
    assert model.intercept_ == pytest.approx(
        float(level), rel=1e-14 if host is np.float64 else 1e-7, abs=rtol * scale
    )


def test_the_alpha_found_does_not_depend_on_units(ridge_estimator):
    def alpha(scale, offset):
        X, y = regression(scale, offset)
        return ridge_estimator(cv=3).fit(X, y).alpha_

    expected = alpha(1.0, 0.0)
    for scale, offset in ((1e-8, 0.0), (1e8, 0.0), (1.0, 1.7e9), (1e-60, 0.0)):
        assert alpha(scale, offset) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("host", [np.float64, np.float32])
def test_ridge_is_exact_wherever_the_features_lie(ridge_estimator, host):
    X, y = regression()
    X = (X * [1e-2, 1, 1e2, 1] + [0, 1e4, 1.7e6, -1e5]).astype(host)
    model = ridge_estimator(cv=0.3, random_state=0).fit(X, y)
    coef, _ = exact_ridge(X, y, model.alpha_, True)
    rtol = 1e-3 if host is np.float32 else 1e-10
    np.testing.assert_allclose(model.coef_, coef.astype(float), rtol=rtol)


def test_integer_targets_and_those_of_a_validation_set_are_centred_too(ridge_estimator):
    X, y = regression(10.0)
    y = np.round(y).astype(np.int64) + 1_700_000_000
    near = y - 1_700_000_000
    far = ridge_estimator(cv=(X[40:].astype(np.float32), y[40:]))
    plain = ridge_estimator(cv=(X[40:].astype(np.float32), near[40:]))
    a, b = (
        far.fit(X[:40].astype(np.float32), y[:40]),
        plain.fit(X[:40].astype(np.float32), near[:40]),
    )
    assert a.alpha_ == pytest.approx(b.alpha_, rel=1e-5)
    assert a.best_score_ == pytest.approx(b.best_score_, rel=1e-5)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-5)


@pytest.mark.slow_on("jax")
def test_targets_of_other_libraries_are_centred(backend, ridge_estimator):
    one_of_each_kind(backend, True)
    if backend.name == "array_api_strict":
        pytest.skip("scikit-learn does not take it")
    X, y = regression(1.0, 1.7e9)
    found = ridge_estimator(cv=0.3, random_state=0).fit(
        backend.asarray(X.astype(np.float32)), backend.asarray(y)
    )
    coef, _ = exact_ridge(X.astype(np.float32), y, float(found.alpha_), True)
    assert found.coef_.dtype == backend.xp.float32
    np.testing.assert_allclose(
        backend.to_numpy(found.coef_), coef.astype(float), rtol=0, atol=1e-5 * max(abs(coef))
    )


def test_coefficients_of_unlike_scales_are_all_exact():
    """The gradient is that of the largest: a goal for its norm left the others wrong by 85%."""
    pytest.importorskip("sklearn")
    from bilevel.estimators import BilevelLogisticRegression, BilevelRidge

    X, y = regression()
    X = X * [1e-3, 1.0, 1e-2, 1e2]
    for host, rtol in ((np.float64, 1e-11), (np.float32, 2e-5)):
        model = BilevelRidge(fit_intercept=False, cv=0.3, random_state=0).fit(X.astype(host), y)
        coef, _ = exact_ridge(X.astype(host), y, model.alpha_, False)
        np.testing.assert_allclose(model.coef_, coef.astype(float), rtol=rtol)
    labels = np.where(y > 0, 1, 0)
    model = BilevelLogisticRegression(cv=0.3, random_state=0).fit(X, labels)
    margins = X @ model.coef_[0] + model.intercept_[0]
    rest = 1 / (1 + np.exp(-margins)) - labels
    slope = X.T @ rest + model.coef_[0] / model.C_
    assert np.all(np.abs(slope) <= 1e-11 * (np.abs(X).T @ np.abs(rest)))
    assert abs(rest.sum()) <= 1e-11 * np.abs(rest).sum()


@pytest.mark.parametrize(
    ("method", "intercept"),
    [
        ("path", False),
        ("path", True),
        ("hoag", False),
        pytest.param("hoag", True, marks=pytest.mark.slow),
    ],
)
def test_tiny_and_huge_targets_end_where_others_do(method, intercept):
    """f scales by c², λ stays: an absolute tolerance ended y · 1e-8 where f was 3% too large."""
    X, y = regression()

    def found(c):
        loss = Squared()
        inner = bilevel.inner.linear_model(X[:40], y[:40] * c, loss, fit_intercept=intercept)
        outer = bilevel.outer.held_out(X[40:], y[40:] * c, loss, fit_intercept=intercept)
        return bilevel.minimize(bilevel.Problem(inner, outer), 3.0, method=method, max_iter=200)

    expected = found(1.0)
    assert expected.success
    for c in (1e-60, 1e-8, 1e8):
        result = found(c)
        assert result.success, (c, result.message)
        assert result.fun / c**2 == pytest.approx(expected.fun, rel=2e-4)


@pytest.mark.parametrize("c", [2.0**-66, 2.0**17, 2.0**66])
def test_targets_of_any_size_take_as_many_steps_in_several_hyperparameters(c):
    """Pairs were left out where f'' was beyond 1e8, an absolute number, and the run crept."""
    X, y = regression()

    def found(c):
        groups = [j % 2 for j in range(X.shape[1])]
        inner = bilevel.inner.linear_model(X[:40], y[:40] * c, Squared(), groups=groups)
        outer = bilevel.outer.held_out(X[40:], y[40:] * c, Squared())
        return bilevel.minimize(bilevel.Problem(inner, outer))

    expected, result = found(1.0), found(c)
    assert expected.success
    assert result.success, result.message
    assert result.passes <= 1.1 * expected.passes
    np.testing.assert_allclose(result.lam, expected.lam, rtol=1e-3)


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_tiny_targets_in_single_precision(method):
    """p is of the size of y²: its square underflows where it is smaller than 1e-23."""
    X, y = (a.astype(np.float32) for a in regression())

    def found(c):
        inner = bilevel.inner.linear_model(X[:40], y[:40] * c, Squared())
        outer = bilevel.outer.held_out(X[40:], y[40:] * c, Squared())
        return bilevel.minimize(bilevel.Problem(inner, outer), 3.0, method=method, max_iter=100)

    expected, tiny = found(np.float32(1.0)), found(np.float32(1e-12))
    assert tiny.fun / 1e-24 == pytest.approx(expected.fun, rel=1e-3)


def test_optimality_is_not_lost_in_the_rounding_of_lam(backend):
    from bilevel.domains import Box
    from bilevel.methods._protocol import optimality

    one_of_each_kind(backend, True)
    lam = backend.asarray(np.array([1.0, 12.0]))
    for size in (1e-300, 1e-20, 1e-5, 0.3, 5.0, 1e10):
        p = backend.asarray(np.array([size, -size]))  # the second is held by the bound
        (found,) = backend.scalars(optimality(Box(-12.0, 12.0), backend, lam, p))
        assert found == pytest.approx(size, rel=1e-12)
    zero = backend.asarray(np.zeros(2))
    assert backend.scalars(optimality(Box(-12.0, 12.0), backend, lam, zero)) == (0.0,)


def test_a_relative_goal_of_a_fit():
    h = bilevel.inner.linear_model(*regression(1e-8), Squared())
    lam, start = np.zeros(1), np.zeros(4)
    loose = solve(h, lam, start, solver=LBFGS(), tol=1e-3)
    assert loose.n_iter == 0  # all of x is smaller than that
    found = solve(h, lam, start, solver=LBFGS(), tol=1e-3, relative=True)
    X, y = regression(1e-8)
    expected, _ = exact_ridge(X, y, 1.0, False)
    assert np.linalg.norm(found.x - expected.astype(float)) <= 1e-3 * np.linalg.norm(found.x)
    assert found.error_bound <= 1e-3 * np.linalg.norm(found.x)


# -- kernel ridge estimators -----------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (3600.0, 1.7e9), (1e-5, 0.0)])
@pytest.mark.parametrize("kernel", ["rbf", "matern32", "matern52"])
def test_a_kernel_estimator_finds_the_scale_of_the_data(kernel, scale, offset):
    pytest.importorskip("sklearn")
    from bilevel.estimators import BilevelKernelRidge

    rng = np.random.default_rng(0)
    t = rng.standard_normal((80, 1))
    y = np.sin(2 * t[:, 0]) + 0.1 * rng.standard_normal(80)
    model = BilevelKernelRidge(kernel=kernel, cv=0.3, tol=1e-2, random_state=0)
    model.fit(scale * t + offset, y)
    assert model.score(scale * t + offset, y) > 0.97
    # γ has the units of 1/‖x‖², or of 1/‖x‖.
    unit = scale**-2 if kernel == "rbf" else 1 / scale
    assert 0.05 < model.gamma_ / unit < 20


def test_a_start_far_from_the_scale_of_the_data_is_warned_of():
    pytest.importorskip("sklearn")
    from sklearn.exceptions import ConvergenceWarning

    from bilevel.estimators import BilevelKernelRidge

    X = np.random.default_rng(0).standard_normal((60, 1)) * 1e4
    model = BilevelKernelRidge(gamma=1.0, gamma_bounds=(1e-2, 1e2), cv=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="the kernel matrix is 0 off its diagonal"):
        model.fit(X, np.sin(X[:, 0] / 1e4))


@pytest.mark.parametrize(
    ("cv", "targets", "host"),
    first(
        2,
        [
            (3, 2, np.float64),
            (0.3, 1, np.float32),
            (3, 1, np.float64),
            (3, 1, np.float32),
            (3, 2, np.float32),
            (0.3, 1, np.float64),
            (0.3, 2, np.float64),
            (0.3, 2, np.float32),
        ],
    ),
)
def test_a_kernel_estimator_with_an_intercept_does_not_see_the_level(cv, targets, host):
    pytest.importorskip("sklearn")
    from sklearn.exceptions import ConvergenceWarning

    from bilevel.estimators import BilevelKernelRidge

    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 1)).astype(host)
    y = np.sin(2 * X) * np.arange(1, targets + 1) + 0.5 * rng.standard_normal((60, targets))
    y = np.round(y * 2.0**20) / 2.0**20  # exact beside 1.7e9, too
    y = y[:, 0] if targets == 1 else y

    def fitted(offset):
        model = BilevelKernelRidge(fit_intercept=True, cv=cv, random_state=0)
        return model.fit(X, y + offset)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        near, far = fitted(0.0), fitted(1.7e9)
    # In single precision the search may say that it ends before f is known to a share of 1e-5:
    # where in the valley that is depends on the last bits of y.
    early = [w for w in caught if "ended early" in str(w.message)]
    assert not early or host is np.float32
    assert far.best_score_ == pytest.approx(near.best_score_, rel=2e-2 if early else 1e-3)
    K = np.exp(-far.gamma_ * exact_squares(X, X)).astype(float)
    expected = np.linalg.solve(K + far.alpha_ * np.eye(60), y - np.mean(y, axis=0))
    rtol = 1e-3 if host is np.float32 else 1e-6
    np.testing.assert_allclose(far.dual_coef_, expected, rtol=0, atol=rtol * np.max(expected))
    np.testing.assert_allclose(far.intercept_, np.mean(y, axis=0) + 1.7e9, rtol=1e-7)
    if host is np.float64:
        fitted_values = K @ expected + np.mean(y, axis=0)
        np.testing.assert_allclose(far.predict(X) - 1.7e9, fitted_values, atol=1e-5)
