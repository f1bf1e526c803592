"""Every inner solver against every problem, and against SciPy's solvers."""

import functools
import itertools
import math
from functools import cached_property

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.datasets import load_breast_cancer, load_digits

import bilevel
from bilevel.inner import InnerConstants, linear_model
from bilevel.losses import Logistic
from bilevel.solvers import LBFGS, NewtonCG, solve
from bilevel.solvers.linesearch import Unbounded, WolfeSearch
from bilevel.status import Status

SOLVERS = {
    "lbfgs": LBFGS(),
    "lbfgs-short": LBFGS(history=3),
    "lbfgs-loose-search": LBFGS(search=WolfeSearch(c2=0.9)),
    "newton-cg": NewtonCG(),
    "newton-cg-preconditioned": NewtonCG(precondition=True),
    "newton-cg-few-steps": NewtonCG(max_cg=5),
}


def breast_cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * y - 1.0


def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, np.where(y % 2 == 0, 1.0, -1.0)


def text_like():
    """Sparse rows of unit length with word frequencies of Zipf's law."""
    rng = np.random.default_rng(0)
    n, p, words = 400, 1500, 40
    columns = (np.minimum(rng.zipf(1.3, n * words), p) - 1).astype(np.int32)
    X = sparse.csr_array((np.ones(n * words), (np.repeat(np.arange(n), words), columns)), (n, p))
    X.sum_duplicates()
    X.data = np.log1p(X.data)
    X = sparse.csr_array(sparse.diags_array(1 / np.sqrt(X.power(2).sum(axis=1))) @ X)
    return X, np.where(X @ rng.standard_normal(p) > 0, 1.0, -1.0)


def separable():
    """Four points that a plane separates: without the penalty there is no minimum."""
    return np.array([[2.0, 1.0], [1.0, 3.0], [-1.0, -1.0], [-3.0, 0.5]]), np.array([1, 1, -1, -1.0])


def one_column():
    return np.array([[1.0], [2.0], [-1.0], [0.5]]), np.array([1.0, -1.0, -1.0, 1.0])


DATA = {f.__name__: f for f in (breast_cancer, digits, text_like, separable, one_column)}
PROBLEMS = [(name, lam) for name in DATA for lam in (-5.0, 0.0, 3.0)]


def build(name, lam, **keywords):
    inner = linear_model(*DATA[name](), Logistic(), **keywords)
    return inner, np.full(inner.n_hyperparameters, lam), np.zeros(inner.x_shape)


@functools.cache
def tightly(name, lam):
    inner, lam, x0 = build(name, lam)
    return solve(inner, lam, x0, solver=NewtonCG(), tol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize(("name", "lam"), PROBLEMS)
def test_every_solver_certifies_its_distance(name, lam, solver):
    """‖∇h‖ ≤ μ ε at the end, hence ‖x - X(λ)‖ ≤ ε, held against a far tighter solution."""
    exact = tightly(name, lam).x
    inner, lam, x0 = build(name, lam)
    tol = 1e-4
    found = solve(inner, lam, x0, solver=solver, tol=tol)
    assert found.status is Status.CONVERGED
    assert found.error_bound <= tol
    assert np.linalg.norm(found.x - exact) <= found.error_bound + 1e-8
    # The certificate is about the point that is returned.
    fresh = inner.at(found.x, lam)
    assert found.grad_norm == pytest.approx(np.linalg.norm(fresh.grad), rel=1e-6, abs=1e-11)
    off = np.linalg.norm(found.point.margins - fresh.margins)
    assert off <= found.point.drift + fresh.drift
    assert found.point.drift <= 1e-9 * np.linalg.norm(fresh.margins)


class _ReachedError(Exception):
    pass


def scipy_passes(inner, lam, method, goal):
    """The least value, and the passes until a gradient of norm ``goal``, of SciPy's solver.

    It is given each point once, as a careful user would: value, gradient and Hessian products
    at the same x share its margins.
    """
    kept, before = {}, inner.passes

    def at(x):
        if "x" not in kept or not np.array_equal(kept["x"], x):
            kept.update(x=x.copy(), point=inner.at(x.copy(), lam))
        return kept["point"]

    def value_and_grad(x):
        point = at(x)
        if np.linalg.norm(point.grad) <= goal:
            raise _ReachedError
        return float(point.value), point.grad

    options = {
        "L-BFGS-B": {"maxcor": 10, "gtol": 0, "ftol": 0, "maxiter": 10**5, "maxfun": 10**5},
        "Newton-CG": {"xtol": 0, "maxiter": 10**4},
    }[method]
    products = {"hessp": lambda x, v: at(x).hvp(v)} if method == "Newton-CG" else {}
    with pytest.raises(_ReachedError):
        optimize.minimize(
            value_and_grad,
            np.zeros(inner.x_shape),
            jac=True,
            method=method,
            options=options,
            **products,
        )
    return float(kept["point"].value), inner.passes - before


@pytest.mark.parametrize("pair", [(LBFGS(), "L-BFGS-B"), (NewtonCG(), "Newton-CG")], ids=str)
@pytest.mark.parametrize("name", ["breast_cancer", "digits", "text_like"])
@pytest.mark.parametrize("lam", [-5.0, -2.0, 0.0, 3.0])
def test_no_more_passes_than_scipy_to_the_same_minimum(name, lam, pair):
    solver, theirs = pair
    least = float(tightly(name, lam).point.value)
    inner, lam, x0 = build(name, lam)
    # h - h* ≤ ‖∇h‖² / 2μ: this gradient makes the value right to 1e-11 relative.
    mu = inner.constants(lam).mu
    goal = math.sqrt(2e-11 * mu * least)
    value, budget = scipy_passes(inner, lam, theirs, goal)
    before = inner.passes
    found = solve(inner, lam, x0, solver=solver, tol=goal / mu)
    assert found.status is Status.CONVERGED
    assert float(found.point.value) == pytest.approx(value, rel=1e-10)
    assert inner.passes - before <= 1.1 * budget


@pytest.mark.parametrize("solver", [LBFGS(), NewtonCG()], ids=str)
def test_passes_are_what_the_docstring_says(solver):
    """L-BFGS: two an iteration, whatever the search does. Newton-CG: two more for a CG step."""
    inner, lam, x0 = build("text_like", -4.0)
    found = solve(inner, lam, x0, solver=solver, tol=1e-3)
    if isinstance(solver, LBFGS):
        assert inner.passes == 2 * found.n_iter + 2
    else:
        assert inner.passes % 2 == 0
        assert inner.passes > 4 * found.n_iter + 2


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_value_never_grows(solver):
    inner, lam, x0 = build("breast_cancer", -3.0)
    walk = solver.walk(inner.at(x0, lam), inner.backend, 1e-8)
    values = [float(step.point.value) for step, _ in zip(walk, range(200), strict=False)]
    slack = 1e-14 * values[0]
    assert all(after <= before + slack for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_good_start_is_left_alone_and_a_near_one_helps(solver):
    inner, lam, x0 = build("digits", -2.0)
    cold = solve(inner, lam, x0, solver=solver, tol=1e-6)
    again = solve(inner, lam, cold.x, solver=solver, tol=1e-6, carry=cold.point.carry)
    assert again.n_iter == 0
    assert again.point.carry is cold.point.carry  # the margins were not computed again
    warm = solve(inner, lam + 0.1, cold.x, solver=solver, tol=1e-6)
    assert warm.n_iter < solve(inner, lam + 0.1, x0, solver=solver, tol=1e-6).n_iter


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_max_iter_returns_the_last_point_with_its_bound(solver):
    inner, lam, x0 = build("digits", -5.0)
    found = solve(inner, lam, x0, solver=solver, tol=1e-9, max_iter=2)
    assert (found.status, found.n_iter) == (Status.MAX_ITER, 2)
    assert found.error_bound == pytest.approx(found.grad_norm / math.exp(-5.0))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_tolerance_below_rounding_stalls_and_says_so(solver):
    inner, lam, x0 = build("breast_cancer", 0.0)
    found = solve(inner, lam, x0, solver=solver, tol=1e-18, max_iter=1000)
    assert found.status is Status.STALLED
    assert found.error_bound > 1e-18
    assert found.grad_norm < 1e-12  # it went on as far as rounding allows
    assert found.error_bound < 1e-8  # at worst
    assert found.n_iter < 500


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_float32_stays_float32_and_converges(solver):
    X, y = breast_cancer()
    inner = linear_model(X.astype(np.float32), y.astype(np.float32), Logistic())
    lam, x0 = np.zeros(1, np.float32), np.zeros(30, np.float32)
    found = solve(inner, lam, x0, solver=solver, tol=1e-3)
    assert found.status is Status.CONVERGED
    assert found.x.dtype == np.float32
    reference, lam, x0 = build("breast_cancer", 0.0)
    exact = solve(reference, lam, x0, solver=NewtonCG(), tol=1e-9).x
    np.testing.assert_allclose(found.x, exact, atol=2e-3)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan")])
def test_tol_is_checked_at_the_door(tol):
    inner, lam, x0 = build("one_column", 0.0)
    with pytest.raises(ValueError, match="tol must be positive"):
        solve(inner, lam, x0, solver=LBFGS(), tol=tol)


# -- functions that are no linear model --------------------------------------------------------


class Function:
    """An inner objective from a plain function: no constants, nothing shared."""

    def __init__(self, value, grad, hess, p):
        self.functions, self.x_shape = (value, grad, hess), (p,)
        self.backend = bilevel.get_backend("numpy")
        self.passes = 0

    def constants(self, lam):
        return InnerConstants()

    def at(self, x, lam, carry=None):
        return FunctionPoint(self, x)


class FunctionPoint:
    def __init__(self, owner, x):
        self.owner, self.x, self.carry = owner, x, None

    @cached_property
    def value(self):
        return np.asarray(self.owner.functions[0](self.x))

    @cached_property
    def grad(self):
        return self.owner.functions[1](self.x)

    def hvp(self, v):
        return self.owner.functions[2](self.x) @ v

    def diag(self):
        return None

    def ray(self, d):
        return FunctionRay(self, d)


class FunctionRay:
    def __init__(self, start, d):
        self.start, self.d = start, d

    def at(self, t):
        return FunctionPoint(self.start.owner, self.start.x + t * self.d)

    def slope(self, point):
        return point.grad @ self.d


#: Functions of two numbers that fall for ever along a line, with the derivative of the first sum.
ENDLESS = {
    "linear": (lambda x: x.sum(), np.ones_like, lambda x: 0 * x),
    "concave": (lambda x: -x @ x / 2 - x.sum(), lambda x: -x - 1, lambda x: 0 * x - 1),
    "cubic": (lambda x: (x**3 + x).sum(), lambda x: 3 * x**2 + 1, lambda x: 6 * x),
    "quartic": (lambda x: -(x**4 + x).sum(), lambda x: -4 * x**3 - 1, lambda x: -12 * x**2),
    "hyperbola": (
        lambda x: (x / 2 - np.sqrt(1 + x**2)).sum(),
        lambda x: 0.5 - x / np.sqrt(1 + x**2),
        lambda x: -((1 + x**2) ** -1.5),
    ),
}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("name", ENDLESS)
def test_a_function_that_falls_for_ever_ends_the_solve_and_says_so(name, solver):
    value, grad, curvature = ENDLESS[name]
    calls = []

    def counted(x):
        calls.append(x)
        return value(x)

    inner = Function(counted, grad, lambda x: np.diag(curvature(x)), 2)
    found = solve(inner, np.zeros(1), np.zeros(2), solver=solver, tol=1e-8)
    assert found.status is Status.UNBOUNDED and found.lost
    assert len(calls) < 200
    assert np.isfinite(found.point.value) and found.error_bound is None


@pytest.mark.parametrize("solver", [LBFGS(), NewtonCG()], ids=["lbfgs", "newton-cg"])
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("curvature", [1e-30, 1.0, 1e30])
def test_a_minimum_is_found_however_far_it_is(scale, curvature, solver):
    """The way there may be 10³⁰ first trials long: that is no fall without end."""
    away = np.array([scale, -scale])
    inner = Function(
        lambda x: curvature * ((x - away) @ (x - away)) / 2,
        lambda x: curvature * (x - away),
        lambda x: curvature * np.eye(2),
        2,
    )
    goal = 1e-9 * scale * curvature
    found = solve(inner, np.zeros(1), np.zeros(2), solver=solver, tol=goal)
    assert found.status in (Status.CONVERGED, Status.STALLED)
    np.testing.assert_allclose(found.x, away, rtol=1e-8)


def rosenbrock():
    return Function(optimize.rosen, optimize.rosen_der, optimize.rosen_hess, 6), np.full(6, -1.2)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_curved_valley_with_negative_curvature(solver):
    """Rosenbrock's function: the Hessian is indefinite on the way, no μ is stated."""
    inner, x0 = rosenbrock()
    found = solve(inner, np.zeros(1), x0, solver=solver, tol=1e-7)
    assert found.status is Status.CONVERGED
    assert found.error_bound is None  # nothing was certified, and it does not pretend so
    np.testing.assert_allclose(np.abs(found.x[1:]), 1.0, atol=0.05)
    assert np.linalg.norm(optimize.rosen_der(found.x)) <= 1e-7


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("where", ["start", "later"])
def test_nan_is_reported_and_the_last_good_point_returned(solver, where):
    limit = 10.0 if where == "later" else -10.0
    inner = Function(
        lambda x: np.sum(np.cosh(x)) if np.max(np.abs(x)) < limit else np.nan,
        lambda x: np.sinh(x) if np.max(np.abs(x)) < limit else np.full(3, np.nan),
        lambda x: np.diag(np.cosh(x)),
        3,
    )
    found = solve(inner, np.zeros(1), np.array([9.0, -9.0, 5.0]), solver=solver, tol=1e-8)
    if where == "start":
        assert found.status is Status.NON_FINITE
    else:  # the search keeps inside the region where the function is finite
        assert found.status is Status.CONVERGED
        np.testing.assert_allclose(found.x, 0.0, atol=1e-7)


# -- the line search ---------------------------------------------------------------------------


def quartic(x):
    return Function(
        lambda x: np.sum(x**4) / 4 - x[0] ** 2 / 2,
        lambda x: x**3 - np.array([x[0], 0.0]),
        None,
        2,
    ).at(np.asarray(x), None)


@pytest.mark.parametrize("c2", [0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("t", [1e-6, 1e-2, 1.0, 100.0, 1e6])
def test_strong_wolfe_conditions_hold(c2, t):
    """h(x + t d) ≤ h(x) + c₁ t s and |s_t| ≤ c₂ |s|, from first trials over 12 decades."""
    start = quartic([-0.3, 2.0])
    d = -start.grad
    slope = float(start.grad @ d)
    search = WolfeSearch(c2=c2)
    ray = start.ray(d)
    found = search(ray, float(start.value), slope, t, bilevel.get_backend("numpy"), np.float64)
    step = (found.x - start.x) @ d / (d @ d)
    assert step > 0
    assert found.value <= start.value + search.c1 * step * slope
    assert abs(ray.slope(found)) <= c2 * abs(slope)


def test_the_search_gives_up_where_nothing_descends():
    """A slope that lies: every step climbs."""
    start = Function(lambda x: 2 * x[0], lambda x: np.array([2.0]), None, 1).at(np.ones(1), None)
    d = np.ones(1)
    backend = bilevel.get_backend("numpy")
    assert WolfeSearch()(start.ray(d), float(start.value), -1.0, 1.0, backend, np.float64) is None


def test_a_function_without_a_lower_bound_ends():
    line = Function(lambda x: -x[0], lambda x: np.array([-1.0]), None, 1).at(np.zeros(1), None)
    backend = bilevel.get_backend("numpy")
    with pytest.raises(Unbounded) as end:
        WolfeSearch()(line.ray(np.ones(1)), 0.0, -1.0, 1.0, backend, np.float64)
    assert end.value.point.value < -1e15


@pytest.mark.parametrize("factor", [0.5, 0.95, 1.0, 3.0, 1e4])
def test_a_step_shows_a_curvature_that_is_not_there(backend, factor):
    """No x is certified by a μ that H falls short of; one that is right, to the last digit, stands."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    A = (basis * np.geomspace(0.5, 50.0, 12)) @ basis.T
    b = A @ rng.standard_normal(12)
    A_, b_ = backend.asarray(A), backend.asarray(b)
    xp = backend.xp
    h = bilevel.inner.from_functions(
        lambda x, lam: (xp.sum(x * (A_ @ x)) / 2 - xp.sum(b_ * x), A_ @ x - b_),
        like=b_,
        x_shape=(12,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: A_ @ v,
        cross_jvp=lambda x, lam, d: 0 * x,
        cross_vjp=lambda x, lam, q: 0 * lam,
        constants=lambda lam: InnerConstants(mu=0.5 * factor, smoothness=50.001),
    )
    lam, start = backend.asarray(np.zeros(1)), backend.asarray(np.zeros(12))
    result = solve(h, lam, start, solver=LBFGS(), tol=1e-8)
    if factor > 1:
        assert result.status is Status.REFUTED
    else:
        assert result.status is Status.CONVERGED
        away = np.linalg.norm(backend.to_numpy(result.x) - np.linalg.solve(A, b))
        assert away <= 1.001e-8
