"""Linear models: every loss, penalty, weight and tail against differences and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import check_constants, check_inner, close, one_of_each_kind
from scipy import optimize

import bilevel
from bilevel.inner import FunctionOperator, SmoothedElasticNet, Tikhonov, linear_model
from bilevel.losses import Huber, Logistic, Multinomial, Poisson, Squared, SquaredHinge

N, P, K = 15, 4, 3
NUMPY = bilevel.get_backend("numpy")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, P))
SIGNS = np.sign(RNG.standard_normal(N))
CLASSES = RNG.integers(0, 3, N)
REALS = RNG.standard_normal(N)
COUNTS = RNG.poisson(2.0, N).astype(float)
ROWS = RNG.uniform(0.2, 2.0, N)
FOLDS = (RNG.permutation(N)[:, None] % K != np.arange(K)).astype(float)
L = RNG.standard_normal((6, P))

PROBLEMS = {
    "squared": (Squared(), REALS, {}),
    "huber": (Huber(0.5), REALS, {}),
    "logistic": (Logistic(), SIGNS, {}),
    "squared hinge": (SquaredHinge(), SIGNS, {}),
    "poisson": (Poisson(), COUNTS, {}),
    "multinomial": (Multinomial(3), CLASSES, {}),
    "intercept": (Logistic(), SIGNS, {"fit_intercept": True}),
    "weights": (Logistic(), SIGNS, {"sample_weight": ROWS}),
    "groups": (Squared(), REALS, {"groups": np.array([0, 1, 1, 0])}),
    "each": (Logistic(), SIGNS, {"groups": "each"}),
    "folds": (Logistic(), SIGNS, {"sample_weight": FOLDS}),
    "folds, each, intercept": (
        Logistic(),
        SIGNS,
        {"sample_weight": FOLDS, "groups": "each", "fit_intercept": True},
    ),
    "folds, groups": (Squared(), REALS, {"sample_weight": FOLDS, "groups": np.array([0, 1, 1, 0])}),
    "targets": (Squared(), RNG.standard_normal((N, 2)), {"sample_weight": ROWS}),
    "multinomial, each": (Multinomial(3), CLASSES, {"groups": "each"}),
    "multinomial, groups, intercept": (
        Multinomial(3),
        CLASSES,
        {"groups": np.array([0, 1, 1, 0]), "fit_intercept": True, "sample_weight": ROWS},
    ),
    "multinomial, folds": (Multinomial(3), CLASSES, {"sample_weight": FOLDS, "groups": "each"}),
    "elastic net": (Squared(), REALS, {"penalty": SmoothedElasticNet(0.3)}),
    "elastic net, folds": (
        Logistic(),
        SIGNS,
        {"penalty": SmoothedElasticNet(0.3), "sample_weight": FOLDS},
    ),
    "tikhonov": (Squared(), REALS, {"penalty": "tikhonov"}),
    "tikhonov, folds, intercept": (
        Squared(),
        REALS,
        {"penalty": "tikhonov", "sample_weight": FOLDS, "fit_intercept": True},
    ),
}
EXAMPLES = ("multinomial, folds", "folds, each, intercept", "tikhonov", "elastic net")
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def build(name, backend):
    loss, y, options = PROBLEMS[name]
    options = dict(options)
    if "sample_weight" in options:
        options["sample_weight"] = backend.asarray(options["sample_weight"])
    if options.get("penalty") == "tikhonov":
        design = bilevel.as_design(backend.asarray(L))
        function = FunctionOperator(lambda v: 2 * v, lambda r: 2 * r)
        norm = float(np.linalg.norm(L, 2))
        least = min(float(np.linalg.svd(L)[1][-1]), 2.0)
        options["penalty"] = Tikhonov((design, function), (norm, 2.0), least)
    return linear_model(backend.asarray(X), backend.asarray(y), loss, **options)


def start(inner, seed=1):
    rng = np.random.default_rng(seed)
    lam = rng.uniform(-1, 1, inner.n_hyperparameters)
    return 0.5 * rng.standard_normal(inner.x_shape), lam


@every_problem
def test_derivatives(backend, name):
    one_of_each_kind(backend, name in EXAMPLES)
    inner = build(name, backend)
    # A short step where the curvature jumps: no kink may lie between the points.
    step = 1e-5 if "hinge" in name or "huber" in name else 1e-3
    check_inner(inner, *start(inner), step=step)


@every_problem
def test_declared_constants_are_not_exceeded(name):
    inner = build(name, NUMPY)
    check_constants(inner, start(inner)[1])


def solve(inner, lam):
    shape = inner.x_shape

    def f(x):
        point = inner.at(x.reshape(shape), lam)
        return float(point.value), point.grad.reshape(-1)

    found = optimize.minimize(
        f,
        np.zeros(int(np.prod(shape))),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30},
    )
    return found.x.reshape(shape)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_squared_loss_is_scikit_learns_ridge(fit_intercept):
    linear = pytest.importorskip("sklearn.linear_model")
    inner = linear_model(X, REALS, Squared(), sample_weight=ROWS, fit_intercept=fit_intercept)
    x = solve(inner, np.array([0.3]))
    ridge = linear.Ridge(alpha=np.exp(0.3), fit_intercept=fit_intercept, tol=1e-12)
    ridge.fit(X, REALS, sample_weight=ROWS)
    expected = [*ridge.coef_, ridge.intercept_] if fit_intercept else ridge.coef_
    close(x, expected, rtol=1e-6)


def test_multinomial_loss_is_scikit_learns_logistic_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    inner = linear_model(X, CLASSES, Multinomial(3), sample_weight=ROWS, fit_intercept=True)
    x = solve(inner, np.array([-0.5]))
    other = linear.LogisticRegression(C=np.exp(0.5), tol=1e-12, max_iter=10000)
    other.fit(X, CLASSES, sample_weight=ROWS)
    ours = X @ x[:-1] + x[-1]
    close(np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True), other.predict_proba(X), rtol=1e-5)


def test_poisson_loss_is_scikit_learns_poisson_regressor():
    linear = pytest.importorskip("sklearn.linear_model")
    inner = linear_model(X, COUNTS, Poisson(), fit_intercept=True)
    x = solve(inner, np.array([np.log(N * 0.1)]))
    other = linear.PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=10000).fit(X, COUNTS)
    close(x, [*other.coef_, other.intercept_], rtol=1e-5)


def test_squared_hinge_loss_is_scikit_learns_linear_svc():
    svm = pytest.importorskip("sklearn.svm")
    inner = linear_model(X, SIGNS, SquaredHinge())
    x = solve(inner, np.array([0.2]))
    other = svm.LinearSVC(C=np.exp(-0.2), fit_intercept=False, tol=1e-10, max_iter=100000)
    close(x, other.fit(X, SIGNS).coef_[0], rtol=1e-5)


def test_folds_are_separate_problems_for_the_passes_of_one():
    folds = linear_model(X, SIGNS, Logistic(), sample_weight=FOLDS)
    lam = np.array([0.1])
    x, v = RNG.standard_normal((2, P, K))
    point = folds.at(x, lam)
    together, curved = point.grad, point.hvp(v)
    assert folds.passes == 4  # X x, Xᵀ ℓ', X v, Xᵀ D X v
    assert folds.column_passes == 4 * K
    for k in range(K):
        rows = FOLDS[:, k] == 1
        alone = linear_model(X[rows], SIGNS[rows], Logistic()).at(x[:, k], lam)
        close(together[:, k], alone.grad, rtol=1e-12)
        close(curved[:, k], alone.hvp(v[:, k]), rtol=1e-12)


def test_a_row_of_weight_two_counts_twice():
    weights = np.ones(N)
    weights[3] = 2.0
    weighted = linear_model(X, SIGNS, Logistic(), sample_weight=weights)
    repeated = linear_model(np.vstack([X, X[3:4]]), np.append(SIGNS, SIGNS[3]), Logistic())
    x, lam = start(weighted)
    close(weighted.at(x, lam).grad, repeated.at(x, lam).grad, rtol=1e-12)


def test_free_intercept_states_mu_only_where_one_holds():
    lam = np.array([0.0])
    assert linear_model(X, SIGNS, Logistic(), fit_intercept=True).constants(lam).mu is None
    mu = linear_model(X, REALS, Squared(), fit_intercept=True).constants(lam).mu
    assert mu is not None
    assert 0 < mu <= 0.5


def test_elastic_net_tends_to_scikit_learns():
    linear = pytest.importorskip("sklearn.linear_model")
    inner = linear_model(X, REALS, Squared(), penalty=SmoothedElasticNet(1e-4))
    x = solve(inner, np.log(np.array([0.05, 0.2])))
    other = linear.ElasticNet(
        alpha=0.25 / N, l1_ratio=0.05 / 0.25, fit_intercept=False, tol=1e-12, max_iter=100000
    )
    assert np.max(np.abs(x - other.fit(X, REALS).coef_)) < 1e-3


def test_elastic_net_constants_are_reached():
    """Second derivative 1/ε at 0 and third 48/(25 √5 ε²) at ε/2, sought on a grid."""
    epsilon, lam = 0.3, np.array([0.0, -40.0])
    constants = SmoothedElasticNet(epsilon).constants(lam, NUMPY)
    t = np.linspace(-2, 2, 100001)
    curvature = SmoothedElasticNet(epsilon).at(t, lam, NUMPY).diag()
    third = np.abs(np.diff(curvature) / np.diff(t))
    assert 0.9999 * constants.smoothness <= curvature.max() <= constants.smoothness
    assert 0.9999 * constants.hessian_lipschitz <= third.max() <= constants.hessian_lipschitz


def test_gradient_matches_torch_autodiff():
    torch = pytest.importorskip("torch")
    backend = bilevel.get_backend("torch")
    for name in PROBLEMS:
        inner = build(name, backend)
        x, lam = (torch.tensor(a, requires_grad=True) for a in start(inner))
        grad = torch.autograd.grad(inner.at(x, lam).value, x, create_graph=True)[0]
        v = torch.ones_like(x)
        hv, bv = torch.autograd.grad((grad * v).sum(), (x, lam))
        point = inner.at(x.detach(), lam.detach())
        close(point.grad, grad.detach())
        close(point.hvp(v), hv)
        close(point.cross_vjp(v), bv)


def test_float32_stays_float32():
    for loss, y in ((Logistic(), SIGNS), (Multinomial(3), CLASSES)):
        inner = linear_model(
            X.astype(np.float32),
            y.astype(np.int64),
            loss,
            sample_weight=FOLDS.astype(np.float32),
            fit_intercept=True,
        )
        x = np.ones(inner.x_shape, dtype=np.float32)
        lam = np.zeros(1, dtype=np.float32)
        point = inner.at(x, lam)
        for array in (point.value, point.grad, point.hvp(x), point.cross_vjp(x), point.diag()):
            assert array.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": SIGNS[:-1]}, "y must have shape"),
        ({"sample_weight": ROWS[:-1]}, "sample_weight must have shape"),
        ({"sample_weight": -ROWS}, "not negative"),
        ({"groups": np.array([0, 2, 0, 0])}, "groups must use each"),
        ({"groups": np.zeros(3, dtype=int)}, "groups must have shape"),
        ({"groups": "all"}, "'each'"),
        ({"groups": "each", "penalty": SmoothedElasticNet()}, "not both"),
        ({"y": np.stack([SIGNS] * 2, 1), "sample_weight": FOLDS}, "columns"),
    ],
)
def test_errors_name_the_argument(change, words):
    arguments = {"y": SIGNS, **change}
    y = arguments.pop("y")
    with pytest.raises(ValueError, match=words):
        linear_model(X, y, Logistic(), **arguments)
