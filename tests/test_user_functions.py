"""What users state and what their functions do with the arrays they are handed and hand back."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import Problem, Status, inner, outer

#: The λ at which X(λ) = 1/(1 + e^λ) is 0.3, where g is 0.
BEST = math.log(7 / 3)


def h(x: Any, lam: Any) -> Any:
    w = np.exp(lam[0])
    return 0.5 * w * (x @ x) + 0.5 * (x - 1) @ (x - 1), w * x + (x - 1)


def g(x: Any, lam: Any) -> Any:
    return 0.5 * (x - 0.3) @ (x - 0.3), x - 0.3


def problem(h: Any = h, g: Any = g, **stated: Any) -> Problem:
    like = np.zeros(2)
    objective = inner.from_functions(h, like=like, x_shape=(2,), n_hyperparameters=1, **stated)
    criterion = outer.from_functions(
        g,
        like=like,
        grad_lam=lambda x, lam: 0 * lam,
        constants=outer.OuterConstants(1.0, 0.0),
        rounding=lambda *_: (1e-12,) * 3,
    )
    return Problem(objective, criterion)


# -- constants ---------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
NO_BOUND = [NAN, -1, -INF, "1", 1j, True, -(10**400)]
NO_CONSTANT = {
    inner.InnerConstants: {
        "mu": [*NO_BOUND, INF, 10**400],
        "smoothness": NO_BOUND,
        "hessian_lipschitz": NO_BOUND,
        "cross_lipschitz": NO_BOUND,
        "self_concordance": NO_BOUND,
    },
    outer.OuterConstants: {
        "grad_x_lipschitz": NO_BOUND,
        "grad_lam_lipschitz": NO_BOUND,
        "self_concordance": NO_BOUND,
        "least": [NAN, INF, "0", 1j, True, 10**400],
    },
}


@pytest.mark.parametrize("kind", NO_CONSTANT)
def test_constants_that_bound_nothing_are_refused(kind):
    """Of μ = inf or L = -inf a run "converged" anywhere, its error "at most" -inf."""
    for name, values in NO_CONSTANT[kind].items():
        assert getattr(kind(**{name: np.float32(0.5)}), name) == 0.5
        for value in values:
            with pytest.raises((ValueError, TypeError), match=f"^{name} must"):
                kind(**{name: value})
    assert outer.OuterConstants(least=-INF).least == -INF


def test_constants_of_a_users_class_are_checked_too():
    right = problem()

    class Objective:
        def __getattr__(self, name: str) -> Any:
            return getattr(right.inner, name)

        def constants(self, lam: Any) -> Any:
            return SimpleNamespace(mu=INF)

    with pytest.raises(TypeError, match="inner.constants must return InnerConstants"):
        bilevel.minimize(Problem(Objective(), right.outer))


@pytest.mark.parametrize("name", ["smoothness", "hessian_lipschitz", "cross_lipschitz"])
@pytest.mark.parametrize("method", ["path", "maid"])
def test_an_infinite_bound_proves_nothing(name, method):
    known = {"smoothness": 1e6, "hessian_lipschitz": 0.0, "cross_lipschitz": 1e3}
    constants = inner.InnerConstants(1.0, self_concordance=0.0, **{**known, name: INF})
    stated = problem(
        constants=constants,
        cross_norm=lambda x, lam: np.exp(lam[0]) * np.sqrt(x @ x),
        rounding=lambda *_: (1e-12,) * 3,
    )
    found = bilevel.minimize(stated, method=method, max_iter=4)
    error = None if found.best is None else found.best.hypergrad_error
    assert error is None or error > 0


def test_weights_beyond_the_floats_state_finite_curvature():
    """e^λ overflows: a lower bound stays finite, an upper one is infinite, and none is NaN."""
    operators = (bilevel.as_design(np.eye(2)),) * 2
    penalties = [
        inner.SingleL2(),
        inner.SmoothedElasticNet(),
        inner.Tikhonov(operators, norms=(0.0, 1.0), smallest_singular_value=1.0),
    ]
    for penalty in penalties:
        lam = np.full(penalty.n_hyperparameters, 1000.0)
        found = penalty.constants(lam, bilevel.get_backend("numpy"))
        assert 1e300 < found.mu < INF
        assert found.smoothness == INF


@pytest.mark.parametrize("stated", [-1.0, NAN, -INF])
def test_a_stated_bound_below_zero_proves_nothing(stated):
    """With an error of rounding of at most -1 that of p was at most something below zero."""
    whole = {
        "constants": inner.InnerConstants(1.0, 1e6, 0.0, 1e3, 0.0),
        "cross_norm": lambda x, lam: np.exp(lam[0]) * np.sqrt(x @ x),
        "rounding": lambda *_: (1e-12,) * 3,
    }
    wrong = {**whole, "rounding": lambda *_: (stated,) * 3}
    right, found = (bilevel.minimize(problem(**how), max_iter=8).best for how in (whole, wrong))
    assert 0 < right.hypergrad_error < 1e-3
    assert found.hypergrad_error in (None, INF)
    point = problem(cross_norm=lambda x, lam: stated).inner.at(np.ones(2), np.zeros(1))
    assert point.cross_norm == INF


# -- arrays that go out to users' functions, and come back --------------------------------------


def writes(f: Any) -> Any:
    """The same, into whose arrays it writes at its end."""

    def call(*arrays: Any) -> Any:
        found = f(*(np.array(a) for a in arrays))
        for array in arrays:
            array[...] = 7.0
        return found

    return call


def in_one_buffer(f: Any) -> Any:
    """The same, whose gradient or product comes in the same array each time."""
    buffer = None

    def call(*arrays: Any) -> Any:
        nonlocal buffer
        found = f(*arrays)
        array = found[1] if isinstance(found, tuple) else found
        buffer = np.empty_like(array) if buffer is None else buffer
        buffer[...] = array
        return (found[0], buffer) if isinstance(found, tuple) else buffer

    return call


PRODUCTS = {
    "hvp": lambda x, lam, v: (np.exp(lam[0]) + 1) * v,
    "cross_jvp": lambda x, lam, d: np.exp(lam[0]) * d[0] * x,
    "cross_vjp": lambda x, lam, q: np.exp(lam) * (x @ q),
}


@pytest.mark.parametrize("wrap", [writes, in_one_buffer])
@pytest.mark.parametrize("method", ["path", "hoag"])
def test_users_functions_may_do_what_they_like_with_their_arrays(wrap, method):
    """Those that wrote into x, or reused a buffer, "converged" at λ = 0."""
    wrapped = problem(wrap(h), wrap(g), **{name: wrap(f) for name, f in PRODUCTS.items()})
    plain = problem(h, g, **PRODUCTS)
    found, right = (bilevel.minimize(p, method=method) for p in (wrapped, plain))
    assert (found.status, found.fun) == (right.status, right.fun)
    np.testing.assert_array_equal(found.lam, right.lam)
    assert found.lam[0] == pytest.approx(BEST, abs=1e-3 if method == "path" else 0.1)


@pytest.mark.parametrize("wrap", [writes, in_one_buffer])
def test_users_kernels_and_operators_may_do_the_same(wrap):
    def k(X: Any, Z: Any, theta: Any) -> Any:
        return np.exp(theta[0]) * (X @ Z.T)

    def diag(X: Any, theta: Any) -> Any:
        return np.exp(theta[0]) * np.sum(X * X, axis=1)

    rng = np.random.default_rng(0)
    X, y, v = rng.standard_normal((8, 3)), rng.standard_normal(8), rng.standard_normal(8)
    lam, other = np.array([0.5, -1.0]), np.array([-0.5, 1.0])

    def slopes(k: Any) -> Any:
        return lambda *arrays: (k(*arrays),)

    kernels = (
        inner.UserKernel(1, k, slopes(k), diag),
        inner.UserKernel(1, wrap(k), slopes(wrap(k)), wrap(diag)),
    )
    models = [inner.kernel_ridge(X.copy(), y, kernel) for kernel in kernels]
    points = [model.at(y, at) for model in models for at in (lam, other)]
    products = [(p.grad, p.hvp(v), p.cross_vjp(v)) for p in points]
    for right, found in zip(products[:2], products[2:], strict=True):
        for a, b in zip(right, found, strict=True):
            np.testing.assert_array_equal(a, b)
    twice = inner.FunctionOperator(wrap(lambda v: 2 * v), wrap(lambda v: 2 * v))
    first, second = twice.matmul(v), twice.matmul(y)
    np.testing.assert_array_equal([first, second], [2 * v, 2 * y])


def test_a_start_belongs_to_the_run():
    """A callback that writes into the x0 or the lam0 that it was begun with changes nothing."""
    x0, lam0 = np.full(2, 0.5), np.zeros(1)

    def spoil(record: Any) -> None:
        x0[:], lam0[:] = 7.0, 5.0

    p = problem()
    assert p.x(x0) is not x0
    assert p.lam(lam0) is not lam0
    right = bilevel.minimize(p, lam0.copy(), x0=x0.copy())
    found = bilevel.minimize(p, lam0, x0=x0, callback=spoil)
    assert (found.lam[0], found.history[0].lam[0]) == (right.lam[0], 0.0)


def test_a_record_belongs_to_who_is_handed_it():
    """One that a callback changed was the next λ of the run, and "converged" there."""

    def spoil(record: Any) -> None:
        record.lam[:] = 5.0
        record.hypergrad[:] = 0.0

    found, right = bilevel.minimize(problem(), callback=spoil), bilevel.minimize(problem())
    assert (found.status, found.lam[0], found.jac[0]) == (right.status, right.lam[0], right.jac[0])
    several = bilevel.multistart(problem(), [0.0], callback=lambda s, record: spoil(record))
    assert several.results[0].lam[0] == right.lam[0]
    stream, last = bilevel.iterate(problem(), tol=None), 0.0
    for record in stream:
        last = record.lam[0]
        spoil(record)
    assert last == right.lam[0]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("calls", [0, 12])
def test_a_value_that_is_no_number_is_said(bad, method, calls):
    """Of an h that is NaN while its gradient is not, the searches "stalled"."""
    made = 0

    def broken(x: Any, lam: Any) -> Any:
        nonlocal made
        made += 1
        value, grad = h(x, lam)
        return (bad if made > calls else value), grad

    assert bilevel.minimize(problem(broken), method=method).status is Status.NON_FINITE


def test_what_users_functions_return_is_named():
    torch = pytest.importorskip("torch")
    returned = {
        r"value_and_grad \(its gradient\) must be a plain array, got a MaskedArray": (
            lambda x, lam: (h(x, lam)[0], np.ma.array(x, mask=[0, 1]))
        ),
        r"value_and_grad \(its value\) must be a plain array": lambda x, lam: (np.ma.masked, x),
        r"value_and_grad \(its gradient\) must return an array of numpy, got .* torch.Tensor": (
            lambda x, lam: (0.0, torch.zeros(2, dtype=torch.float64))
        ),
    }
    for said, f in returned.items():
        with pytest.raises(TypeError, match=said):
            bilevel.minimize(problem(f))
    with pytest.raises(TypeError, match="returned by hvp must be a plain array"):
        bilevel.minimize(problem(h, hvp=lambda x, lam, v: np.ma.array(v)))


def test_an_answer_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(TypeError, match=r"callback must return .* got an array of shape \(2,\)"):
        bilevel.minimize(problem(), callback=lambda record: np.zeros(2))


# -- an h without a minimum -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("slope", [1.0, 1e-3, 1e6])
def test_a_run_on_an_h_without_a_minimum_ends_and_says_so(method, slope):
    """h = s Σ x_j has none at any λ."""
    calls = []

    def falls(x, lam):
        calls.append(x)
        return slope * float(x.sum()), slope * np.ones_like(x)

    like = np.zeros(1)
    h_ = inner.from_functions(
        falls,
        like=like,
        x_shape=(2,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: 0 * v,
        cross_vjp=lambda x, lam, q: 0 * lam,
    )
    g_ = outer.from_functions(
        lambda x, lam: (float(x @ x) / 2, x), like=like, grad_lam=lambda x, lam: 0 * lam
    )
    found = bilevel.minimize(Problem(h_, g_), method=method)
    assert found.status is Status.UNBOUNDED and not found.success
    assert "no minimum" in found.message
    assert len(calls) < 200


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_where_h_loses_its_minimum_on_the_way_the_best_iterate_before_is_returned(method):
    """h = (λ + 1) x²/2 - x has X = 1 / (λ + 1) while λ > -1, and f = 1 / X falls towards -1."""

    def h_of(x, lam):
        c = float(lam[0]) + 1
        return c * float(x @ x) / 2 - float(x[0]), c * x - 1

    like = np.zeros(1)
    h_ = inner.from_functions(
        h_of,
        like=like,
        x_shape=(1,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: (lam[0] + 1) * v,
        cross_vjp=lambda x, lam, q: np.array([x @ q]),
        cross_jvp=lambda x, lam, d: d[0] * x,
    )
    g_ = outer.from_functions(
        lambda x, lam: (3.0 - np.tanh(float(x[0]) / 3), -(1 - np.tanh(x / 3) ** 2) / 3),
        like=like,
        grad_lam=lambda x, lam: 0 * lam,
    )
    found = bilevel.minimize(Problem(h_, g_), 1.0, method=method, max_iter=200, tol=0.0)
    assert not found.success
    lam = float(found.lam[0])
    assert lam > -1
    assert found.fun == pytest.approx(3 - np.tanh(1 / (lam + 1) / 3), rel=1e-2)
