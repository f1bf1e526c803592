"""Outer criteria: both gradients against differences, values against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from derivatives import central, check_outer, close, one_of_each_kind
from scipy import stats

import bilevel
from bilevel.backends import deal_folds, fold_indicators
from bilevel.hypergrad import ReverseUnrolled
from bilevel.inner import RBF, Matern52, SmoothedElasticNet, kernel_ridge, linear_model
from bilevel.losses import Huber, Logistic, Multinomial, Poisson, Squared, SquaredHinge
from bilevel.methods import HOAG
from bilevel.outer import (
    gcv,
    held_out,
    held_out_kernel,
    marginal_likelihood,
    monte_carlo_sure,
    perturbed_targets,
    sure,
)
from bilevel.outer.effective import smoother
from bilevel.problems import cross_validation

N, P = 14, 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, P))
X_VAL = RNG.standard_normal((6, P))
Y = X @ np.array([1.0, -1.0, 0.5]) + 0.3 * RNG.standard_normal(N)
Y_VAL = RNG.standard_normal(6)
SIGNS, SIGNS_VAL = np.sign(Y), np.sign(Y_VAL)
GROUPS = np.array([0, 1, 1])
NOISE = 0.3


def linear_criterion(loss, y, **options):
    def build(backend):
        send = backend.asarray
        options_sent = {
            name: send(value) if isinstance(value, np.ndarray) else value
            for name, value in options.items()
        }
        tail = (*loss.output_shape, *options.get("tail", ()))
        options_sent.pop("tail", None)
        outer = held_out(send(X_VAL), send(y), loss, **options_sent)
        return outer, (P + bool(options.get("fit_intercept")), *tail), 1

    return build


def ridge_criterion(make, groups=None):
    def build(backend):
        send = backend.asarray
        inner = linear_model(send(X), send(Y), Squared(), groups=groups)
        return make(inner), inner.x_shape, inner.n_hyperparameters

    return build


def kernel_criterion(make, kernel):
    def build(backend):
        inner = kernel_ridge(backend.asarray(X), backend.asarray(Y), kernel)
        return make(inner), inner.x_shape, inner.n_hyperparameters

    return build


def kernel_held_out(backend):
    send = backend.asarray
    inner = kernel_ridge(send(X), send(Y), RBF())
    return held_out_kernel(inner, send(X_VAL), send(Y_VAL), Squared()), inner.x_shape, 2


def monte_carlo(backend, kernel=False):
    targets, probes, epsilon = perturbed_targets(backend.asarray(Y), NOISE, n_probes=2, seed=3)
    inner = (
        kernel_ridge(backend.asarray(X), targets, Matern52())
        if kernel
        else linear_model(backend.asarray(X), targets, Squared())
    )
    outer = monte_carlo_sure(inner, probes, NOISE, epsilon)
    return outer, inner.x_shape, inner.n_hyperparameters


CRITERIA = {
    "squared": linear_criterion(Squared(), Y_VAL),
    "huber": linear_criterion(Huber(0.5), Y_VAL),
    "logistic": linear_criterion(Logistic(), SIGNS_VAL),
    "logistic, weights": linear_criterion(
        Logistic(), SIGNS_VAL, sample_weight=RNG.uniform(0, 1, 6), fit_intercept=True
    ),
    "logistic, folds": linear_criterion(
        Logistic(), SIGNS_VAL, sample_weight=RNG.uniform(0, 1, (6, 2)), tail=(2,)
    ),
    "squared hinge": linear_criterion(SquaredHinge(), SIGNS_VAL),
    "poisson": linear_criterion(Poisson(), np.arange(6.0)),
    "multinomial": linear_criterion(Multinomial(3), np.array([0, 1, 2, 0, 1, 2])),
    "kernel held-out": kernel_held_out,
    "gcv": ridge_criterion(gcv),
    "gcv, groups": ridge_criterion(gcv, GROUPS),
    "gcv, kernel": kernel_criterion(gcv, RBF()),
    "marginal likelihood": ridge_criterion(lambda h: marginal_likelihood(h, noise=0.5)),
    "marginal likelihood, each": ridge_criterion(marginal_likelihood, "each"),
    "marginal likelihood, kernel": kernel_criterion(marginal_likelihood, Matern52()),
    "sure": ridge_criterion(lambda h: sure(h, NOISE), GROUPS),
    "sure, kernel": kernel_criterion(lambda h: sure(h, NOISE), RBF()),
    "monte-carlo sure": monte_carlo,
    "monte-carlo sure, kernel": lambda backend: monte_carlo(backend, kernel=True),
}
EXAMPLES = (
    "logistic, folds",
    "multinomial",
    "gcv, kernel",
    "sure",
    "marginal likelihood, each",
    "monte-carlo sure",
)
DIRECT = {"gcv", "gcv, groups", "gcv, kernel", "kernel held-out", "sure", "sure, kernel"}


@pytest.mark.parametrize("name", CRITERIA)
def test_gradients_match_central_differences(backend, name):
    one_of_each_kind(backend, name in EXAMPLES)
    outer, x_shape, m = CRITERIA[name](backend)
    rng = np.random.default_rng(2)
    x, lam = 0.5 * rng.standard_normal(x_shape), rng.uniform(-0.5, 0.5, m)
    step = 1e-5 if "hinge" in name or "huber" in name else 1e-3
    check_outer(outer, backend, x, lam, step=step)
    if name in DIRECT or "likelihood" in name:
        grad_lam = backend.to_numpy(outer.at(backend.asarray(x), backend.asarray(lam)).grad_lam)
        assert np.linalg.norm(grad_lam) > 1e-3


@pytest.mark.parametrize("name", CRITERIA)
def test_stated_lipschitz_constants_hold(name):
    outer, x_shape, m = CRITERIA[name](bilevel.get_backend("numpy"))
    rng = np.random.default_rng(4)
    constants = outer.constants()
    lam = rng.uniform(-0.5, 0.5, m)
    for scale in (1e-2, 1.0, 10.0):
        x, y = rng.standard_normal((2, *x_shape))
        y = x + scale * y
        first, second = outer.at(x, lam), outer.at(y, lam)
        distance = np.linalg.norm(x - y)
        if constants.grad_x_lipschitz is not None:
            gap = np.linalg.norm(first.grad_x - second.grad_x)
            assert gap <= constants.grad_x_lipschitz * distance * (1 + 1e-9)
        if constants.grad_lam_lipschitz is not None:
            gap = np.linalg.norm(first.grad_lam - second.grad_lam)
            assert gap <= constants.grad_lam_lipschitz * distance + 1e-12


def ridge_solution(lam, y=Y):
    return np.linalg.solve(X.T @ X + np.exp(lam) * np.eye(P), X.T @ y)


def test_ridge_criteria_match_their_definitions():
    inner = linear_model(X, Y, Squared())
    lam = np.array([0.4])
    x = ridge_solution(0.4)
    S = X @ np.linalg.solve(X.T @ X + np.exp(0.4) * np.eye(P), X.T)
    residual = Y - S @ Y
    expected = N * residual @ residual / (N - np.trace(S)) ** 2
    assert gcv(inner).at(x, lam).value == pytest.approx(expected)
    risk = residual @ residual - N * NOISE**2 + 2 * NOISE**2 * np.trace(S)
    assert sure(inner, NOISE).at(x, lam).value == pytest.approx(risk)
    covariance = 0.25 * (np.eye(N) + X @ X.T / np.exp(0.4))
    expected = -stats.multivariate_normal.logpdf(Y, np.zeros(N), covariance)
    assert marginal_likelihood(inner, noise=0.5).at(x, lam).value == pytest.approx(expected)


def test_gcv_matches_scikit_learns_shortcut():
    """With equal leverages GCV is the mean leave-one-out error, which RidgeCV computes."""
    linear = pytest.importorskip("sklearn.linear_model")
    t = 2 * np.pi * np.arange(8) / 8
    F = np.stack([np.cos(t), np.sin(t)], axis=1)  # all rows have the same norm
    y = np.random.default_rng(1).standard_normal(8)
    other = linear.RidgeCV(alphas=[0.7], fit_intercept=False, store_cv_results=True).fit(F, y)
    inner = linear_model(F, y, Squared())
    found = gcv(inner).at(other.coef_, np.log(np.array([0.7]))).value
    assert found == pytest.approx(other.cv_results_.mean())


def test_kernel_criteria_match_their_definitions():
    gp = pytest.importorskip("sklearn.gaussian_process")
    inner = kernel_ridge(X, Y, RBF())
    lam = np.array([-0.6, -1.0])
    K = inner.matrix(lam).dense()
    A = K + np.exp(-1.0) * np.eye(N)
    alpha = np.linalg.solve(A, Y)
    # sklearn's RBF has exp(-d²/(2 l²)), so γ = 1/(2 l²)
    kernel = gp.kernels.RBF(np.sqrt(1 / (2 * np.exp(-0.6)))) + gp.kernels.WhiteKernel(np.exp(-1.0))
    other = gp.GaussianProcessRegressor(kernel, optimizer=None).fit(X, Y)
    point = marginal_likelihood(inner).at(alpha, lam)
    assert point.value == pytest.approx(-other.log_marginal_likelihood_value_, rel=1e-8)
    assert np.linalg.norm(point.grad_x) < 1e-12  # the envelope theorem
    S = K @ np.linalg.inv(A)
    residual = Y - S @ Y
    expected = N * residual @ residual / (N - np.trace(S)) ** 2
    assert gcv(inner).at(alpha, lam).value == pytest.approx(expected)


def test_monte_carlo_sure_has_the_right_divergence():
    """For ridge regression t is linear in y: the finite difference is δᵀ S δ, exactly."""
    targets, probes, epsilon = perturbed_targets(Y, NOISE, n_probes=3, seed=1)
    inner = linear_model(X, targets, Squared())
    x = np.stack([ridge_solution(0.2, targets[:, j]) for j in range(4)], axis=1)
    S = X @ np.linalg.solve(X.T @ X + np.exp(0.2) * np.eye(P), X.T)
    point = monte_carlo_sure(inner, probes, NOISE, epsilon).at(x, np.array([0.2]))
    assert point.divergence == pytest.approx(np.einsum("ij,ik,kj->", probes, S, probes) / 3)
    # and E δᵀ S δ = tr S
    _, directions, epsilon = perturbed_targets(Y, NOISE, n_probes=20000, seed=1)
    assert np.mean(np.sum(directions * (S @ directions), axis=0)) == pytest.approx(
        np.trace(S), rel=0.02
    )
    assert epsilon == pytest.approx(2 * NOISE / N**0.3)


def test_sure_is_unbiased_for_the_risk():
    rng = np.random.default_rng(5)
    truth = X @ np.array([1.0, -1.0, 0.5])
    lam = np.array([1.0])
    estimates, risks = [], []
    for _ in range(400):
        y = truth + NOISE * rng.standard_normal(N)
        x = ridge_solution(1.0, y)
        estimates.append(float(sure(linear_model(X, y, Squared()), NOISE).at(x, lam).value))
        risks.append(np.sum((truth - X @ x) ** 2))
    gap = np.array(estimates) - risks
    assert abs(gap.mean()) < 4 * gap.std() / 20


def test_sugar_is_the_gradient_of_the_risk_estimate_at_the_solution():
    """dSURE/dλ along X(λ): direct part plus adjoint part, against differences of the whole."""
    targets, probes, epsilon = perturbed_targets(Y, NOISE, n_probes=2, seed=1)
    inner = linear_model(X, targets, Squared(), groups=GROUPS)
    outer = monte_carlo_sure(inner, probes, NOISE, epsilon)

    def solution(lam):
        W = np.diag(np.exp(lam)[GROUPS])
        return np.linalg.solve(X.T @ X + W, X.T @ targets)

    lam, d = np.array([0.1, -0.4]), np.array([0.3, 0.8])
    x = solution(lam)
    point, at = inner.at(x, lam), outer.at(x, lam)
    hessian = X.T @ X + np.diag(np.exp(lam)[GROUPS])
    p = at.grad_lam - point.cross_vjp(np.linalg.solve(hessian, at.grad_x))
    difference = central(lambda t: outer.at(solution(lam + t * d), lam).value, 1e-3)
    close(p @ d, difference)


@pytest.mark.parametrize("intercept", [False, True])
def test_batched_folds_are_the_separate_folds(intercept):
    folds = deal_folds(N, 3, seed=1)
    problem = cross_validation(X, SIGNS, Logistic(), folds=folds, fit_intercept=intercept)
    x = RNG.standard_normal(problem.inner.x_shape)
    lam = np.array([0.2])
    together, parts = problem.outer.at(x, lam), []
    for k in range(3):
        rows = folds == k
        alone = held_out(X[rows], SIGNS[rows], Logistic(), fit_intercept=intercept)
        parts.append(alone.at(x[:, k], lam))
        close(together.grad_x[:, k], parts[-1].grad_x, rtol=1e-12)
    assert together.value == pytest.approx(sum(float(part.value) for part in parts))
    assert problem.outer.passes == 2
    assert problem.inner.passes == 0  # counted apart


def test_folds_share_the_passes_of_one_run():
    """K folds at once: the passes of about one run, where K runs need K times as many."""
    folds = deal_folds(N, 4, seed=0)
    lam = np.array([0.0])
    problem = cross_validation(X, SIGNS, Logistic(), folds=folds)
    from bilevel.solvers import LBFGS, solve

    result = solve(problem.inner, lam, np.zeros((P, 4)), solver=LBFGS(), tol=1e-8)
    together = problem.inner.passes
    apart = []
    for k in range(4):
        rows = folds != k
        inner = linear_model(X[rows], SIGNS[rows], Logistic())
        alone = solve(inner, lam, np.zeros(P), solver=LBFGS(), tol=1e-8)
        close(result.x[:, k], alone.x, rtol=1e-6)
        apart.append(inner.passes)
    assert together <= 2 * max(apart) < sum(apart)
    assert problem.inner.column_passes == 4 * together


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gcv(linear_model(X, SIGNS, Logistic())), TypeError, "squared loss"),
        (
            lambda: gcv(linear_model(X, Y, Squared(), penalty=SmoothedElasticNet())),
            TypeError,
            "penalty",
        ),
        (lambda: gcv(linear_model(X, Y, Squared(), fit_intercept=True)), TypeError, "penalty"),
        (
            lambda: gcv(linear_model(X, Y, Squared(), sample_weight=np.ones(N))),
            ValueError,
            "weights",
        ),
        (lambda: sure(linear_model(X, Y, Squared()), 0.0), ValueError, "noise"),
        (lambda: marginal_likelihood(kernel_ridge(X, Y, RBF()), noise=2.0), ValueError, "noise"),
        (lambda: perturbed_targets(Y, 1.0, n_probes=0), ValueError, "n_probes"),
        (
            lambda: held_out_kernel(kernel_ridge(X, Y, RBF()), X_VAL[:, :2], Y_VAL, Squared()),
            ValueError,
            "features",
        ),
        (lambda: cross_validation(X, Y, Squared(), folds=N + 1), ValueError, "folds"),
        (
            lambda: fold_indicators([0, 2], 2),
            ValueError,
            "folds must use",
        ),
    ],
)
def test_errors_say_what_was_expected(call, error, words):
    with pytest.raises(error, match=words):
        call()


def exact_gcv(X, y, lam):
    """By the singular values: 1 - s²/(s² + w) = w/(s² + w) is no difference."""
    u, s, _ = np.linalg.svd(X, full_matrices=False)
    d = np.exp(lam) / (s * s + np.exp(lam))
    return len(y) * np.sum((d * (u.T @ y)) ** 2) / np.sum(d) ** 2


@pytest.mark.parametrize("lam", [-9.0, -2.0, 20.0])
def test_what_a_smoother_leaves_keeps_its_digits_where_p_is_above_n(lam):
    """As n - tr S it was 0 or below from e^λ/σ² = 1e-13 on, and GCV 10¹⁰ times too small."""
    X = 100 * np.random.default_rng(0).random((12, 30))
    s = np.linalg.svd(X, compute_uv=False)
    d = np.exp(lam) / (s * s + np.exp(lam))
    found = smoother(linear_model(X, X[:, 0], Squared())).at(np.array([lam]))
    relative = {"rel": 1e-8, "abs": 0}
    assert float(found.left) == pytest.approx(d.sum(), **relative)
    assert float(found.trace) == pytest.approx((1 - d).sum(), rel=1e-8)
    assert float(found.trace_grad[0]) == pytest.approx(-(d * (1 - d)).sum(), rel=1e-7)
    assert float(found.log_det) == pytest.approx(-np.log(d).sum(), rel=1e-8)
    assert float(found.log_det_grad[0]) == pytest.approx(-(1 - d).sum(), rel=1e-8)


@pytest.mark.parametrize("log_ridge", [-30.0, 30.0])
def test_what_a_kernel_smoother_leaves_and_keeps_has_its_digits(log_ridge):
    X = np.random.default_rng(0).standard_normal((9, 2))
    lam = np.array([1.0, log_ridge])
    s = np.linalg.eigvalsh(np.exp(-np.e * ((X[:, None] - X[None]) ** 2).sum(-1)))
    rho = np.exp(log_ridge)
    found = smoother(kernel_ridge(X, X[:, 0], RBF())).at(lam)
    assert float(found.left) == pytest.approx(np.sum(rho / (s + rho)), rel=1e-9, abs=0)
    assert float(found.trace) == pytest.approx(np.sum(s / (s + rho)), rel=1e-9, abs=0)
    slope = -np.sum(s * rho / (s + rho) ** 2)
    assert float(found.trace_grad[-1]) == pytest.approx(slope, rel=1e-9, abs=0)


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_gcv_of_more_coefficients_than_rows_is_what_it_says(method):
    rng = np.random.default_rng(0)
    X = 100 * rng.random((20, 200))
    y = X @ rng.standard_normal(200) / 100 + 0.01 * rng.standard_normal(20)
    h = linear_model(X, y, Squared())
    result = bilevel.minimize(bilevel.Problem(h, gcv(h)), -8.0, method=method, max_iter=40)
    f = exact_gcv(X, y, result.lam[0])
    assert result.fun == pytest.approx(f, rel=1e-4)
    assert abs(result.best.estimate - f) <= result.best.estimate_error


@pytest.mark.parametrize("most", [12, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["path", "hoag"])
def test_gcv_that_is_lost_in_rounding_does_not_converge(method, most):
    """T is y but for rounding, where e^λ/σ² is that of the unit roundoff: f is known to nothing."""
    rng = np.random.default_rng(0)
    X = 1e5 * rng.random((20, 200))
    y = X[:, 0] + rng.standard_normal(20)
    h = linear_model(X, y, Squared())
    problem = bilevel.Problem(h, gcv(h), bilevel.Box(-12.0, -11.0))
    result = bilevel.minimize(problem, -11.5, method=method, max_iter=most)
    assert not result.success
    f = exact_gcv(X, y, result.lam[0])
    assert not abs(result.best.estimate - f) > result.best.estimate_error


def exact_kernel(X, y, lam, kind):
    """The criteria in long double by one factor of K + ρ I; K from the rounded rows."""
    X, y, lam = (np.asarray(a).astype(np.longdouble) for a in (X, y, lam))
    A = np.exp(-np.exp(lam[0]) * ((X[:, None] - X[None]) ** 2).sum(-1))
    n, rho, R = len(y), np.exp(lam[1]), np.zeros_like(A)
    A = A + rho * np.eye(n)
    for j in range(n):
        R[j, j] = np.sqrt(A[j, j] - R[:j, j] @ R[:j, j])
        R[j, j + 1 :] = (A[j, j + 1 :] - R[:j, j] @ R[:j, j + 1 :]) / R[j, j]
    half = np.concatenate([np.eye(n), y[:, None]], axis=1).astype(np.longdouble)
    for j in range(n):
        half[j] = (half[j] - R[:j, j] @ half[:j]) / R[j, j]
    C, alpha = half[:, :n].T @ half[:, :n], half[:, :n].T @ half[:, n]
    square = rho**2 * (alpha @ alpha)
    if kind == "gcv":
        return n * square / (rho * np.trace(C)) ** 2
    if kind == "sure":
        return square - n * 0.3**2 + 2 * 0.3**2 * (n - rho * np.trace(C))
    return y @ alpha / 2 + np.log(np.diag(R)).sum() + n / 2 * np.log(2 * np.pi)


@pytest.mark.parametrize("kind", ["gcv", "sure", "likelihood"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_of_an_estimate_holds_the_rounding_of_f(kind, dtype):
    """It was taken for 8 units of f, and a sixth of the estimates were false."""
    X = np.random.default_rng(1).standard_normal((12, 2)).astype(dtype)
    h = kernel_ridge(X, np.sin(3 * X[:, 0]), RBF())
    g = {"gcv": gcv, "sure": lambda h: sure(h, 0.3), "likelihood": marginal_likelihood}[kind](h)
    result = bilevel.minimize(bilevel.Problem(h, g), [-1.0, -8.0], max_iter=8)
    for record in result.history:
        f = exact_kernel(X, h.y, record.lam, kind)
        # NaN claims nothing: where K + e^λ I can't be factored in single precision f is not known.
        assert not abs(record.estimate - f) > record.estimate_error
        assert math.isfinite(record.value) or (dtype is np.float32 and not result.success)
    assert sum(map(math.isfinite, (record.value for record in result.history))) >= 3


def test_a_q_that_is_no_solve_is_counted_against_the_estimate():
    rng = np.random.default_rng(0)
    X, Z = rng.standard_normal((2, 10, 1)) + 0.01 * rng.standard_normal((2, 10, 6))
    y, z = X @ np.ones(6), Z @ np.ones(6) + 1
    h = linear_model(X, y, Squared())
    problem = bilevel.Problem(h, held_out(Z, z, Squared()))
    method = HOAG(hypergradient=ReverseUnrolled(n_steps=5), tolerances="cubic")
    for record in bilevel.minimize(problem, -6.0, method=method, max_iter=5).history:
        x = np.linalg.solve(X.T @ X + np.exp(record.lam[0]) * np.eye(6), X.T @ y)
        f = np.sum((Z @ x - z) ** 2) / 2
        assert not abs(record.estimate - f) > record.estimate_error
