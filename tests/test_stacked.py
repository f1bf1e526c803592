"""A stack of problems is their sum; a free intercept has a preconditioner with a known bound."""

from __future__ import annotations

import re

import numpy as np
import pytest

import bilevel
from bilevel import Problem
from bilevel.inner import RBF, kernel_ridge, linear_model
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.methods.path import following
from bilevel.outer import held_out, held_out_kernel
from bilevel.problems import cross_validation, stacked
from bilevel.problems.stacked import Layout, StackedInner, StackedOuter

RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 3)) + 2.0
Y = RNG.standard_normal(24)
SIGNS = np.where(RNG.standard_normal(24) > 0, 1.0, -1.0)
CLASSES = np.arange(24) % 3
FOLDS = np.arange(24) % 4


def folds_apart(loss, y, fit_intercept):
    def fold(k):
        train, held = np.flatnonzero(k != FOLDS), np.flatnonzero(k == FOLDS)
        inner = linear_model(X[train], y[train], loss, fit_intercept=fit_intercept)
        return Problem(inner, held_out(X[held], y[held], loss, fit_intercept=fit_intercept))

    return stacked([fold(k) for k in range(4)])


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(
    ("loss", "y"), [(Logistic(), SIGNS), (Squared(), Y), (Multinomial(3), CLASSES)], ids=str
)
def test_folds_that_are_stacked_are_folds_as_columns(loss, y, fit_intercept):
    apart = folds_apart(loss, y, fit_intercept)
    columns = cross_validation(X, y, loss, folds=FOLDS, fit_intercept=fit_intercept)
    one, other = (bilevel.minimize(p, tol=1e-8) for p in (apart, columns))
    assert one.fun == pytest.approx(other.fun, rel=1e-5)
    np.testing.assert_allclose(one.lam, other.lam, atol=2e-2)


def test_a_stack_has_the_derivatives_of_the_sum():
    problem = folds_apart(Logistic(), SIGNS, True)
    report = bilevel.testing.check_problem(problem, np.array([0.3]))
    assert report.ok, str(report)


def fold(X=X, y=Y, **options):
    loss = Squared()
    return Problem(linear_model(X, y, loss, **options), held_out(X, y, loss))


def single(a):
    return a.astype("float32")


UNLIKE = {
    "hyperparameters": (
        lambda: fold(groups="each"),
        "must have the number of hyperparameters of {0}[0], 1, got 3.",
    ),
    "dtype": (
        lambda: fold(single(X), single(Y)),
        "must have the dtype of {0}[0], float64, got float32.",
    ),
    "backend": (
        lambda: fold(*map(bilevel.get_backend("array_api_strict").asarray, (X, Y))),
        "must have the backend of {0}[0], numpy (cpu), got array_api_strict",
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_problems_that_differ_are_not_stacked(kind):
    make, sentence = UNLIKE[kind]
    one, two = fold(), make()
    with pytest.raises(ValueError, match=re.escape("problems[1] " + sentence.format("problems"))):
        stacked([one, two])
    layout = Layout(((3,), (3,)), one.backend)
    with pytest.raises(ValueError, match=re.escape("parts[1] " + sentence.format("parts"))):
        StackedInner((one.inner, two.inner), layout)


def test_parts_of_a_stack_are_refused_at_its_door():
    one = fold()
    layout = Layout(((3,), (3,)), one.backend)
    with pytest.raises(ValueError, match="problems must hold one at least"):
        stacked([])
    with pytest.raises(ValueError, match="parts must hold one at least, got none"):
        StackedInner((), layout)
    with pytest.raises(TypeError, match="parts must be a tuple, got "):
        StackedInner(one.inner, layout)
    with pytest.raises(TypeError, match=r"parts\[1\] must be an inner objective, got 3, without"):
        StackedInner((one.inner, 3), layout)
    with pytest.raises(
        ValueError, match=r"of shapes \(\(3,\),\) on numpy .* got \(\(3,\), \(3,\)\)"
    ):
        StackedInner((one.inner,), layout)
    with pytest.raises(TypeError, match="layout must be a Layout, got None"):
        StackedInner((one.inner,), None)
    with pytest.raises(TypeError, match=r"parts\[0\] must be an outer criterion, got None"):
        StackedOuter((None, one.outer), layout)
    with pytest.raises(ValueError, match="parts must be 2, one for each x_k of the layout, got 1"):
        StackedOuter((one.outer,), layout)
    assert StackedInner([one.inner, one.inner], layout).parts == (one.inner, one.inner)


def test_intercepts_without_curvature_are_left_alone(backend):
    """A saturated multinomial: S is zero, and solving with it raised LinAlgError."""
    model = linear_model(
        backend.asarray(1e9 * X), backend.asarray(CLASSES), Multinomial(3), fit_intercept=True
    )
    x = backend.normal(3, model.x_shape, model.dtype)
    apply = model.at(x, backend.asarray(np.array([0.0]))).preconditioner()
    found = backend.to_numpy(apply(backend.xp.ones_like(x)))
    assert np.all(np.isfinite(found))


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize(
    ("loss", "y"), [(Logistic(), SIGNS), (Squared(), Y), (Multinomial(3), CLASSES)], ids=str
)
@pytest.mark.parametrize("folds", [False, True])
def test_the_free_intercept_is_preconditioned_to_at_least_one(backend, loss, y, folds):
    """M is symmetric, and the spectrum of M⁻¹H is 1 and more (0 along a common shift)."""
    data, labels = backend.asarray(X), backend.asarray(y)
    if folds:
        model = cross_validation(data, labels, loss, folds=FOLDS, fit_intercept=True).inner
    else:
        model = linear_model(data, labels, loss, fit_intercept=True)
    size = int(np.prod(model.x_shape))
    point = model.at(
        backend.normal(1, model.x_shape, model.dtype), backend.asarray(np.array([0.5]))
    )
    unit = backend.xp.reshape(backend.asarray(np.eye(size)), (*model.x_shape, size))
    apply = point.preconditioner()
    H, inverse = (backend.to_numpy(a).reshape(size, size) for a in (point.hvp(unit), apply(unit)))
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-10)
    spectrum = np.sort(np.linalg.eigvals(inverse @ H).real)
    shifts = 0 if loss.output_shape == () else int(np.prod(model.tail)) // 3
    np.testing.assert_allclose(spectrum[:shifts], 0, atol=1e-9)
    assert spectrum[shifts] >= 1 - 1e-9
    assert spectrum[-1] < np.linalg.cond(H + 1e-9 * np.eye(size))
    one = backend.to_numpy(apply(unit[..., 0]))
    np.testing.assert_allclose(one.reshape(-1), inverse[:, 0], atol=1e-12)


def test_the_free_intercept_costs_no_more_than_a_penalised_one():
    """Ten classes and a far-off column: without its preconditioner this took 20 times as much."""
    far = X + np.array([30.0, 0.0, 0.0])
    passes = {}
    for name, problem in (
        ("free", cross_validation(far, SIGNS, Logistic(), folds=FOLDS, fit_intercept=True)),
        ("none", cross_validation(X, SIGNS, Logistic(), folds=FOLDS)),
    ):
        result = bilevel.minimize(problem)
        assert result.success
        passes[name] = result.passes
    assert passes["free"] < 4 * passes["none"]


def test_the_decrease_left_is_not_cut_short_by_the_domain():
    """p is far longer than D is wide where f is large: the units of y must not move λ."""
    small = cross_validation(X, Y, Squared(), folds=FOLDS)
    large = cross_validation(X, 1e4 * Y, Squared(), folds=FOLDS)
    one, other = bilevel.minimize(small), bilevel.minimize(large)
    np.testing.assert_allclose(one.lam, other.lam, atol=1e-6)
    assert other.fun == pytest.approx(1e8 * one.fun)


# -- row weights of kernel ridge regression -------------------------------------------------------

LAM = np.array([-0.7, 0.4])


def exact(model, lam):
    n = int(np.prod(model.x_shape))
    point = model.at(np.zeros(model.x_shape), lam)
    H = point.hvp(np.eye(n).reshape(*model.x_shape, n)).reshape(n, n)
    return np.linalg.solve(H, -point.grad.reshape(-1)).reshape(model.x_shape)


def test_kernel_ridge_with_weights_is_that_of_repeated_rows():
    weights = np.arange(24) % 3 * 1.0
    rows = np.repeat(np.arange(24), weights.astype(int))
    weighted = kernel_ridge(X, Y, RBF(), sample_weight=weights)
    repeated = kernel_ridge(X[rows], Y[rows], RBF())
    news = RNG.standard_normal((5, 3))

    def value(model):
        outer = held_out_kernel(model, news, np.zeros(5), Squared())
        return float(outer.at(exact(model, LAM), LAM).value)

    assert value(weighted) == pytest.approx(value(repeated), rel=1e-10)
    assert np.all(weighted.scale(exact(weighted, LAM))[weights == 0] == 0)


def test_kernel_folds_share_a_matrix_and_are_the_separate_folds():
    held = np.equal(FOLDS[:, None], np.arange(4)).astype(float)
    model = kernel_ridge(X, Y, RBF(), sample_weight=1 - held)
    together = held_out_kernel(model, X, Y, Squared(), sample_weight=held)
    total = 0.0
    for k in range(4):
        train, out = k != FOLDS, k == FOLDS
        one = kernel_ridge(X[train], Y[train], RBF())
        total += float(
            held_out_kernel(one, X[out], Y[out], Squared()).at(exact(one, LAM), LAM).value
        )
    assert float(together.at(exact(model, LAM), LAM).value) == pytest.approx(total, rel=1e-10)


def test_kernel_weights_have_the_derivatives_and_constants_that_they_state():
    weights = RNG.uniform(0, 2, (24, 2))
    model = kernel_ridge(X, Y, RBF(), sample_weight=weights)
    outer = held_out_kernel(model, X, Y, Squared(), sample_weight=2 - weights)
    report = bilevel.testing.check_problem(Problem(model, outer), LAM)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "sample_weight must have shape"),
        (-np.ones(24), "finite and not negative"),
        (np.ones((24, 2, 1)), "sample_weight must have shape"),
        (np.ones((24, 0)), "sample_weight must have shape"),
    ],
)
def test_kernel_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        kernel_ridge(X, Y, RBF(), sample_weight=weights)


def test_kernel_weights_have_a_column_for_each_target():
    with pytest.raises(ValueError, match=r"a column for each of y, of shape \(24, 2\), got 3"):
        kernel_ridge(X, np.ones((24, 2)), RBF(), sample_weight=np.ones((24, 3)))


def test_a_residual_of_rounding_refutes_no_preconditioner(monkeypatch):
    """Classes shift together: along 1 lies what rounding leaves of a residual, and H is zero."""
    asked, ask = [], following.contradicted

    def heard(problem, look):
        asked.append(ask(problem, look))
        return asked[-1]

    monkeypatch.setattr(following, "contradicted", heard)
    for seed in (10, 20, 30):
        rng = np.random.default_rng(seed)
        X = (1e-2 * rng.standard_normal((80, 2))).astype(np.float32)
        y, loss = rng.integers(0, 3, 80), Multinomial(3)
        problem = Problem(
            linear_model(X[:40], y[:40], loss, fit_intercept=True),
            held_out(X[40:], y[40:], loss, fit_intercept=True),
            bilevel.Box(-12.0, 12.0),
        )
        assert bilevel.minimize(problem, np.float32([rng.uniform(-6, 6)])).success
    assert asked
    assert set(asked) == {None}
