"""Third derivatives and the Hessian of f: every model against differences of tight fits."""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from types import SimpleNamespace

import numpy as np
import pytest
from derivatives import check_bending, check_outer_bending, close
from scipy.optimize import minimize
from thin import first

import bilevel
from bilevel import Problem
from bilevel import inner as inners
from bilevel import outer as outers
from bilevel.design import Standardized, as_design
from bilevel.hypergrad import hessian
from bilevel.inner import (
    MLP,
    RBF,
    FunctionOperator,
    Matern32,
    Matern52,
    PenaltyTerm,
    Polynomial,
    Sigmoid,
    SingleL2,
    SmoothedElasticNet,
    Tanh,
    Tikhonov,
    UserKernel,
    kernel_ridge,
    linear_model,
    mlp,
)
from bilevel.inner.linear import LinearPoint
from bilevel.losses import (
    Huber,
    Logistic,
    Multinomial,
    Pointwise,
    Poisson,
    Squared,
    SquaredHinge,
)
from bilevel.outer import (
    gcv,
    held_out,
    held_out_kernel,
    held_out_mlp,
    marginal_likelihood,
    monte_carlo_sure,
    perturbed_targets,
    sure,
)
from bilevel.outer.gcv import GCVPoint
from bilevel.outer.held_out import LinearHeldOutPoint
from bilevel.problems import cross_validation, stacked
from bilevel.testing.problems import quadratic

NUMPY = bilevel.get_backend("numpy")
N, P, N_VAL = 30, 10, 20
RNG = np.random.default_rng(0)
X, X_VAL = RNG.standard_normal((N, P)), RNG.standard_normal((N_VAL, P))
TRUTH = RNG.standard_normal(P)
Y = X @ TRUTH + RNG.standard_normal(N)
Y_VAL = X_VAL @ TRUTH + RNG.standard_normal(N_VAL)
SIGNS, SIGNS_VAL = np.sign(Y), np.sign(Y_VAL)
CLASSES, CLASSES_VAL = np.digitize(Y, [-1.0, 1.0]), np.digitize(Y_VAL, [-1.0, 1.0])
COUNTS, COUNTS_VAL = np.floor(np.abs(Y)), np.floor(np.abs(Y_VAL))
ROWS = RNG.uniform(0.2, 2.0, N)
THREE = np.arange(P) % 3
FEW = X[:, :2]


def linear(loss, y, y_val, **options):
    def build(backend):
        send, given = backend.asarray, dict(options)
        if "sample_weight" in given:
            given["sample_weight"] = send(given["sample_weight"])
        if given.get("penalty") == "tikhonov":
            differences = as_design(send(np.diff(np.eye(P), axis=0)))
            operators = (differences, FunctionOperator(lambda v: 2 * v, lambda r: 2 * r))
            given["penalty"] = Tikhonov(operators)
        inner = linear_model(send(X), send(y), loss, **given)
        free = given.get("fit_intercept", False)
        return Problem(inner, held_out(send(X_VAL), send(y_val), loss, fit_intercept=free))

    return build


def standardized(backend):
    design = Standardized.fit(as_design(backend.asarray(3 * X + 1)))
    rows = Standardized(as_design(backend.asarray(3 * X_VAL + 1)), design.mean, design.scale)
    inner = linear_model(design, backend.asarray(SIGNS), Logistic(), groups=THREE)
    return Problem(inner, held_out(rows, backend.asarray(SIGNS_VAL), Logistic()))


def folds(backend):
    X, y = backend.asarray(FEW), backend.asarray(SIGNS)
    return cross_validation(X, y, Logistic(), folds=3, groups=np.array([0, 1]))


def stack(backend):
    """Folds that share λ alone."""
    send, fold = backend.asarray, np.arange(N) % 3

    def part(k):
        train, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = linear_model(send(FEW[train]), send(SIGNS[train]), Logistic(), groups="each")
        return Problem(inner, held_out(send(FEW[held]), send(SIGNS[held]), Logistic()))

    return stacked([part(k) for k in range(3)])


def kernel(make, weights=None):
    def build(backend):
        send = backend.asarray
        s = None if weights is None else send(weights)
        inner = kernel_ridge(send(FEW), send(Y), make(backend), sample_weight=s)
        outer = held_out_kernel(inner, send(X_VAL[:, :2]), send(Y_VAL), Squared())
        return Problem(inner, outer)

    return build


def two_parameters(backend):
    """e^{θ_0} exp(-e^{θ_1} ‖x - z‖²), whose second derivatives are no diagonal."""
    rbf, xp = RBF(), backend.xp

    def block(X, Z, theta):
        return xp.exp(theta[0]) * rbf.block(X, Z, theta[1:], backend)

    def derivatives(X, Z, theta):
        (bent,) = rbf.derivatives(X, Z, theta[1:], backend)
        return block(X, Z, theta), xp.exp(theta[0]) * bent

    def second(X, Z, theta):
        (twice,) = rbf.second_derivatives(X, Z, theta[1:], backend)
        return *derivatives(X, Z, theta), xp.exp(theta[0]) * twice

    def diag(X, theta):
        return xp.exp(theta[0]) * rbf.diag(X, theta[1:], backend)

    return UserKernel(2, block, derivatives, diag, function_second_derivatives=second)


def judged(criterion, make=None, groups=None):
    """Ridge regression, or kernel ridge regression, by a criterion of the training rows."""

    def build(backend):
        send = backend.asarray
        if make is None:
            inner = linear_model(send(X), send(Y), Squared(), groups=groups)
        else:
            inner = kernel_ridge(send(FEW), send(Y), make(backend))
        return Problem(inner, criterion(inner))

    return build


def wide(criterion):
    """More features than rows: the smoothers' other form."""

    def build(backend):
        send = backend.asarray
        inner = linear_model(send(X[:8, :]), send(Y[:8]), Squared(), groups=THREE)
        return Problem(inner, criterion(inner))

    return build


def monte_carlo(make=None):
    def build(backend):
        targets, probes, epsilon = perturbed_targets(backend.asarray(Y), 0.5, n_probes=2)
        rows = backend.asarray(FEW)
        if make is None:
            inner = linear_model(rows, targets, Squared(), groups="each")
        else:
            inner = kernel_ridge(rows, targets, make(backend))
        return Problem(inner, monte_carlo_sure(inner, probes, 0.5, epsilon))

    return build


def perceptron(backend, activation=None, weights=None):
    send = backend.asarray
    s = None if weights is None else send(weights)
    inner = mlp(
        send(FEW), send(CLASSES), Multinomial(3), [2], activation=activation, sample_weight=s
    )
    return Problem(inner, held_out_mlp(inner, send(X_VAL[:, :2]), send(CLASSES_VAL)))


def functions(backend):
    """h = Σ_i (x_i⁴/12 + e^{λ_0} x_i²/2 - x_i) + e^{λ_0 + λ_1} x_0², g = Σ x_i³ + λ_0 λ_1 x_0."""
    xp = backend.xp
    one = backend.asarray(np.array([1.0, 0.0, 0.0]))

    def weights(lam):
        return xp.exp(lam[0]), 2 * xp.exp(lam[0] + lam[1]) * one

    def value_and_grad(x, lam):
        a, b = weights(lam)
        quadratic = xp.sum((a + b) * x * x) / 2
        return xp.sum(x**4) / 12 + quadratic - xp.sum(x), x**3 / 3 + (a + b) * x - 1

    def crossed(x, lam, v):
        a, b = weights(lam)
        return xp.stack([xp.sum((a + b) * x * v), xp.sum(b * x * v)])

    def fold(x, lam, q, d):
        a, b = weights(lam)
        bent = xp.sum(b * q * x) * (d[0] + d[1])
        return xp.stack([xp.sum(a * q * x) * d[0] + bent, bent])

    inner = inners.from_functions(
        value_and_grad,
        like=one,
        x_shape=(3,),
        n_hyperparameters=2,
        hvp=lambda x, lam, v: (x * x + weights(lam)[0] + weights(lam)[1]) * v,
        cross_vjp=crossed,
        cross_jvp=lambda x, lam, d: d[0] * sum(weights(lam)) * x + d[1] * weights(lam)[1] * x,
        bend=lambda x, lam, q, v: 2 * x * q * v,
        cross_bend=lambda x, lam, q, v: crossed(q, lam, v),
        fold=fold,
    )
    outer = outers.from_functions(
        lambda x, lam: (xp.sum(x**3) + lam[0] * lam[1] * x[0], 3 * x * x + lam[0] * lam[1] * one),
        like=one,
        grad_lam=lambda x, lam: xp.flip(lam) * x[0],
        hvp=lambda x, lam, v: 6 * x * v,
        cross_vjp=lambda x, lam, v: xp.flip(lam) * v[0],
        lam_hvp=lambda x, lam, d: xp.flip(d) * x[0],
    )
    return Problem(inner, outer)


PROBLEMS = {
    "ridge": linear(Squared(), Y, Y_VAL),
    "logistic": linear(Logistic(), SIGNS, SIGNS_VAL),
    "logistic, groups": linear(Logistic(), SIGNS, SIGNS_VAL, groups=THREE),
    "logistic, each": linear(Logistic(), SIGNS, SIGNS_VAL, groups="each"),
    "ridge, each": linear(Squared(), Y, Y_VAL, groups="each"),
    "poisson, groups": linear(Poisson(), COUNTS, COUNTS_VAL, groups=THREE),
    "multinomial, groups": linear(Multinomial(3), CLASSES, CLASSES_VAL, groups=THREE),
    "huber": linear(Huber(0.7), Y, Y_VAL, groups=THREE),
    "squared hinge": linear(SquaredHinge(), SIGNS, SIGNS_VAL, groups=THREE),
    "weights, intercept": linear(
        Logistic(), SIGNS, SIGNS_VAL, groups=THREE, sample_weight=ROWS, fit_intercept=True
    ),
    "elastic net": linear(Logistic(), SIGNS, SIGNS_VAL, penalty=SmoothedElasticNet(0.3)),
    "tikhonov": linear(Logistic(), SIGNS, SIGNS_VAL, penalty="tikhonov"),
    "standardized": standardized,
    "folds": folds,
    "stacked": stack,
    "rbf": kernel(lambda backend: RBF()),
    "matern 3/2, weights": kernel(lambda backend: Matern32(), ROWS),
    "matern 5/2": kernel(lambda backend: Matern52()),
    "polynomial": kernel(lambda backend: Polynomial(3)),
    "polynomial of degree 1": kernel(lambda backend: Polynomial(1)),
    "two parameters": kernel(two_parameters),
    "gcv": judged(gcv, groups=THREE),
    "gcv, wide": wide(gcv),
    "gcv, kernel": judged(gcv, two_parameters),
    "sure": judged(lambda h: sure(h, 0.5), groups=THREE),
    "sure, wide": wide(lambda h: sure(h, 0.5)),
    "sure, kernel": judged(lambda h: sure(h, 0.5), two_parameters),
    "likelihood": judged(lambda h: marginal_likelihood(h, noise=0.5), groups=THREE),
    "likelihood, wide": wide(marginal_likelihood),
    "likelihood, kernel": judged(marginal_likelihood, two_parameters),
    "monte-carlo sure": monte_carlo(),
    "monte-carlo sure, kernel": monte_carlo(lambda backend: Matern52()),
    "perceptron": perceptron,
    "perceptron, weights": lambda backend: perceptron(backend, Sigmoid(), ROWS),
    "known quadratic": lambda backend: quadratic(0, coupled=True, backend=backend).problem,
    "functions": functions,
}
#: Compiled anew for each shape elsewhere: one of each kind of sum is enough there.
EXAMPLES = (
    "logistic, groups",
    "multinomial, groups",
    "folds",
    "two parameters",
    "gcv, wide",
    "perceptron",
)
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def problem_on(backend, name):
    slow = backend.name not in ("numpy", "array_api_strict", "torch") and name not in EXAMPLES
    if slow:
        pytest.skip("one of each kind is enough here")
    return PROBLEMS[name](backend)


def hyperparameters(problem):
    return np.random.default_rng(1).uniform(-0.5, 0.5, problem.inner.n_hyperparameters)


def dense(inner, x, lam):
    """(∂_x h, H, B) on the host, flat."""
    size = int(np.prod(x.shape))
    point = inner.at(x, lam)
    basis = np.eye(size).reshape(*x.shape, size)
    H, B = (point.hvp(basis), np.stack([point.cross_jvp(d) for d in np.eye(lam.size)], axis=-1))
    return point.grad.reshape(-1), H.reshape(size, size), B.reshape(size, -1)


def fitted(inner, lam, x=None):
    """X(λ) by Newton's method with the dense Hessian, to rounding; of a network by BFGS first."""
    x = np.zeros(inner.x_shape) if x is None else x
    if isinstance(inner, MLP) and not np.any(x):
        x = minimize(
            lambda x: float(inner.at(x, lam).value),
            inner.start(),
            jac=lambda x: inner.at(x, lam).grad,
            method="BFGS",
        ).x
    for _ in range(60):
        grad, H, _ = dense(inner, x, lam)
        step = -np.linalg.lstsq(H, grad, rcond=1e-13)[0].reshape(x.shape)
        best = min((1.0, 0.3, 0.1, 0.01), key=lambda t: float(inner.at(x + t * step, lam).value))
        x = x + best * step
        if np.linalg.norm(step) <= 1e-13 * (1 + np.linalg.norm(x)):
            break
    return x


def solved(problem, lam):
    """X(λ), q and T by dense solves."""
    x = fitted(problem.inner, lam)
    _, H, B = dense(problem.inner, x, lam)
    right = np.concatenate([problem.outer.at(x, lam).grad_x.reshape(-1, 1), -B], axis=1)
    both = np.linalg.lstsq(H, right, rcond=1e-13)[0]
    return x, both[:, 0].reshape(x.shape), both[:, 1:].reshape(*x.shape, lam.size)


@cache
def reference(name):
    """λ, x, q, T, and directions with the second derivatives of f by differences of order four."""
    problem = PROBLEMS[name](NUMPY)
    lam = hyperparameters(problem)
    x, q, T = solved(problem, lam)
    m = lam.size

    def f(lam):
        return float(problem.outer.at(fitted(problem.inner, lam, x), lam).value)

    def along(d, h=1e-2):
        near, far = f(lam + h * d) + f(lam - h * d), f(lam + 2 * h * d) + f(lam - 2 * h * d)
        return (16 * near - far - 30 * f(lam)) / (12 * h * h)

    D = np.eye(m) if m <= 3 else np.random.default_rng(2).standard_normal((m, 3)) / m**0.5
    F = np.zeros((D.shape[1], D.shape[1]))
    for i, j in combinations_with_replacement(range(D.shape[1]), 2):
        bent = along(D[:, i]) if i == j else along(D[:, i] + D[:, j]) - along(D[:, i] - D[:, j])
        F[i, j] = F[j, i] = bent if i == j else bent / 4
    return lam, x, q, T, D, F


def points(problem, lam, x):
    send = problem.backend.asarray
    return problem.inner.at(send(x), send(lam)), problem.outer.at(send(x), send(lam))


@every_problem
def test_the_hessian_of_f_is_that_of_tight_fits(backend, name):
    problem = problem_on(backend, name)
    lam, x, q, T, D, F = reference(name)
    point, outer = points(problem, lam, x)
    send, host = backend.asarray, backend.to_numpy
    found = host(hessian(point, outer, send(q), send(T)))
    assert found.shape == (lam.size, lam.size)
    close(found, found.T, rtol=1e-10)
    close(D.T @ found @ D, F, rtol=2e-6)
    along = host(hessian(point, outer, send(q), send(T @ D), D=send(D)))
    close(along, D.T @ found @ D, rtol=1e-9)


@every_problem
def test_third_derivatives_are_those_of_the_products(backend, name):
    problem = problem_on(backend, name)
    lam = hyperparameters(problem)
    x = 0.5 * np.random.default_rng(3).standard_normal(problem.inner.x_shape)
    step = 1e-5 if name in ("huber", "squared hinge") else 1e-3
    check_bending(problem.inner, x, lam, step=step)
    check_outer_bending(problem.outer, backend, x, lam, step=step)


@pytest.mark.parametrize("name", ["logistic", "logistic, groups", "logistic, each", "elastic net"])
@pytest.mark.parametrize("member", ["bend", "cross_bend", "fold"])
def test_without_one_of_its_terms_the_hessian_is_another(name, member):
    """A negative control: differences of f see each of them."""
    lam, x, q, T, D, F = reference(name)
    point, outer = points(PROBLEMS[name](NUMPY), lam, x)
    whole = hessian(point, outer, q, T)

    members = {kept: getattr(point, kept) for kept in ("bend", "cross_bend", "fold")}
    members[member] = lambda *arguments: 0 * getattr(point, member)(*arguments)
    wrong = hessian(SimpleNamespace(lam=point.lam, **members), outer, q, T)
    assert np.linalg.norm(D.T @ wrong @ D - F) > 1e-2 * np.linalg.norm(F)
    close(D.T @ whole @ D, F, rtol=2e-6)


@pytest.mark.parametrize("loss", [Logistic(), Poisson()])
def test_groups_that_move_together_are_one(loss):
    """With every λ equal, 1ᵀF1 of ten hyperparameters is that of one, and F sums by groups."""
    y, y_val = (SIGNS, SIGNS_VAL) if isinstance(loss, Logistic) else (COUNTS, COUNTS_VAL)
    found = {}
    for name, groups in (("one", None), ("three", THREE), ("each", "each")):
        problem = linear(loss, y, y_val, groups=groups)(NUMPY)
        lam = np.full(problem.inner.n_hyperparameters, 0.3)
        x, q, T = solved(problem, lam)
        found[name] = hessian(*points(problem, lam, x), q, T)
    into = np.eye(3)[THREE]
    close(into.T @ found["each"] @ into, found["three"], rtol=1e-10)
    close(np.sum(found["three"]), np.sum(found["one"]), rtol=1e-10)


def test_vectors_that_went_through_x_save_the_pass():
    problem = PROBLEMS["logistic, groups"](NUMPY)
    lam, x, q, T, _, _ = reference("logistic, groups")
    point, outer = points(problem, lam, x)
    _ = point.margins, outer.value
    pushed = point.push(np.concatenate([q[:, None], T], axis=1))
    passes, held = problem.inner.passes, problem.outer.passes
    with_pushed = hessian(point, outer, q, T, pushed=pushed)
    assert (problem.inner.passes - passes, problem.outer.passes - held) == (0, 1)
    close(with_pushed, hessian(point, outer, q, T), rtol=1e-12)
    assert problem.inner.passes - passes == 1


def test_a_quadratic_needs_no_pass_at_all():
    problem = PROBLEMS["ridge, each"](NUMPY)
    lam, x, q, T, _, _ = reference("ridge, each")
    point = problem.inner.at(x, lam)
    before = problem.inner.passes
    assert np.all(point.bend(q, T) == 0)
    assert np.all(point.cross_bend(q, T).shape == (10, 10))
    assert problem.inner.passes == before


class Silent(Pointwise):
    """The logistic loss, of which no third derivative is said."""

    value, derivative, curvature = Logistic.value, Logistic.derivative, Logistic.curvature


class SilentTerm(PenaltyTerm):
    """e^λ/2 ‖x‖², the same."""

    value = property(lambda self: np.sum(self.grad * self.x) / 2)
    grad = property(lambda self: np.exp(self.lam[0]) * self.x)

    def hvp(self, v):
        return np.exp(self.lam[0]) * v


class SilentPenalty(SingleL2):
    def at(self, x, lam, backend):
        return SilentTerm(self, x, lam, backend)


@pytest.mark.parametrize("what", ["loss", "penalty", "criterion"])
def test_what_is_not_known_makes_no_hessian(what):
    loss = Silent() if what == "loss" else Logistic()
    options = {"penalty": SilentPenalty()} if what == "penalty" else {}
    inner = linear_model(X, SIGNS, loss, **options)
    outer = held_out(X_VAL, SIGNS_VAL, Logistic())
    if what == "criterion":
        outer = outers.from_functions(lambda x, lam: (np.sum(x), 0 * x + 1), like=X)
    x, lam, T = np.ones(P), np.zeros(1), np.ones((P, 1))
    assert hessian(inner.at(x, lam), outer.at(x, lam), x, T) is None
    known = linear_model(X, SIGNS, Logistic()), held_out(X_VAL, SIGNS_VAL, Logistic())
    assert hessian(known[0].at(x, lam), known[1].at(x, lam), x, T) is not None


ENGINES = {"torch": "torch", "jax": "jax.numpy"}


@pytest.mark.parametrize("engine", ENGINES)
def test_autodiff_gives_what_functions_were_given(engine):
    """h and g of the problem of functions, written for an engine and differentiated by it."""
    lib = pytest.importorskip(ENGINES[engine])

    def h(x, lam):
        quadratic = lib.exp(lam[0]) * (x**2).sum() / 2 + lib.exp(lam[0] + lam[1]) * x[0] ** 2
        return (x**4).sum() / 12 + quadratic - x.sum()

    inner = inners.from_autodiff(
        h, engine=engine, like=np.ones(1), x_shape=(3,), n_hyperparameters=2
    )
    outer = outers.from_autodiff(
        lambda x, lam: (x**3).sum() + lam[0] * lam[1] * x[0], engine=engine, like=np.ones(1)
    )
    lam, x, q, T, _, F = reference("functions")
    problem = Problem(inner, outer)
    check_bending(inner, x, lam)
    check_outer_bending(outer, NUMPY, x, lam)
    found = hessian(*points(problem, lam, x), q, T)
    close(found, F, rtol=2e-6)
    close(found, hessian(*points(PROBLEMS["functions"](NUMPY), lam, x), q, T), rtol=1e-12)


def test_a_function_that_returns_another_shape_is_refused():
    inner = inners.from_functions(
        lambda x, lam: (np.sum(x * x) / 2, x),
        like=X,
        x_shape=(2,),
        n_hyperparameters=1,
        bend=lambda x, lam, q, v: np.zeros(3),
    )
    point = inner.at(np.ones(2), np.ones(1))
    with pytest.raises(ValueError, match=r"bend must return an array of shape \(2,\), got \(3,\)"):
        point.bend(np.ones(2), np.ones((2, 1)))
    assert point.fold(np.ones(2), np.ones((1, 1))) is None


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in EXAMPLES else pytest.mark.slow) for name in PROBLEMS],
)
def test_a_check_is_silent_about_right_third_derivatives(name):
    problem = PROBLEMS[name](NUMPY)
    report = bilevel.testing.check_problem(problem, hyperparameters(problem))
    assert report.ok, str(report)
    members = {"bend", "cross_bend", "fold"}, {"gram", "cross_gram", "fold"}
    for side, names in zip(("inner", "outer"), members, strict=True):
        assert {f"{side}.{name}" for name in names} <= set(report.checked)


SIDES = {
    "inner": (LinearPoint, ("bend", "cross_bend", "fold")),
    "outer": (LinearHeldOutPoint, ("gram",)),
    "direct": (GCVPoint, ("gram", "cross_gram", "fold")),
}


@pytest.mark.parametrize(
    ("side", "member"), [(side, name) for side, (_, names) in SIDES.items() for name in names]
)
@pytest.mark.parametrize(
    "fault",
    first(1, [lambda a: 1.001 * a, lambda a: -a, lambda a: a[:1, :]]),
    ids=["scale", "sign", "shape"],
)
def test_a_check_names_the_third_derivative_that_is_wrong(monkeypatch, side, member, fault):
    point = SIDES[side][0]
    right = getattr(point, member)
    monkeypatch.setattr(point, member, lambda *arguments: fault(right(*arguments)))
    problem = PROBLEMS["gcv" if side == "direct" else "logistic, groups"](NUMPY)
    report = bilevel.testing.check_problem(problem, hyperparameters(problem))
    where = "inner" if side == "inner" else "outer"
    assert {finding.what for finding in report.findings} == {f"{where}.{member}"}


class Bare:
    """An activation of two derivatives."""

    value, slopes = Tanh.value, Tanh.slopes


def test_a_network_of_another_activation_and_a_plain_kernel_say_what_they_know():
    network = mlp(FEW, CLASSES, Multinomial(3), [2], activation=Bare())
    point = network.at(network.start(), np.zeros(2))
    q, T = np.ones(network.x_shape), np.ones((*network.x_shape, 2))
    assert point.bend(q, T) is None
    assert point.cross_bend(q, T).shape == (2, 2)
    rbf = RBF()
    plain = UserKernel(
        1,
        lambda X, Z, theta: rbf.block(X, Z, theta, NUMPY),
        lambda X, Z, theta: rbf.derivatives(X, Z, theta, NUMPY),
        lambda X, theta: rbf.diag(X, theta, NUMPY),
    )
    inner = kernel_ridge(FEW, Y, plain)
    x, lam, D = np.ones(N), np.zeros(2), np.eye(2)
    assert inner.at(x, lam).fold(x, D) is None
    for criterion in (gcv(inner), sure(inner, 0.5), marginal_likelihood(inner)):
        outer = criterion.at(x, lam)
        assert outer.fold(D) is None
        assert outer.gram(np.eye(N)).shape == (N, N)


def test_a_check_is_silent_about_saturated_rows():
    """The Hessian had lost what rows far on the wrong side give it, and ℓ''' was blamed."""
    rng = np.random.default_rng(3)
    X, w = rng.standard_normal((40, 5)), rng.standard_normal(5)
    y = np.sign(X @ w + 0.5 * np.random.default_rng(1002).standard_normal(40))
    X = 100 * X
    problem = bilevel.logistic_regression(X[::2], y[::2], X[1::2], y[1::2])
    report = bilevel.testing.check_problem(problem)
    assert report.ok, str(report)
    assert "inner.bend" in report.checked
