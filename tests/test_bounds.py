"""What a bound has to hold: rounding, a residual that was computed, and a start that is no harm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bounded import UNIT, draw, norm
from hypothesis import given
from hypothesis import strategies as st

import bilevel
from bilevel.design import MixedPrecision, Reach, Standardized, as_design
from bilevel.hypergrad import Direct, Implicit, whitened, whitened_bounds
from bilevel.inner import linear_model
from bilevel.linalg import cg
from bilevel.linalg.rounding import gamma, upper_norm
from bilevel.losses import (
    Huber,
    Logistic,
    Multinomial,
    Poisson,
    Squared,
    SquaredHinge,
)
from bilevel.methods import HOAG
from bilevel.methods.correction import reported
from bilevel.outer import held_out
from bilevel.solvers import LBFGS, InnerResult, NewtonCG, solve
from bilevel.status import Status

LONG = np.longdouble
NUMPY = bilevel.get_backend("numpy")
LINEAR = ("logistic", "multinomial", "poisson", "squared", "folds", "elastic net")


def long(a: Any) -> Any:
    return np.asarray(a, dtype=LONG)


# -- the pieces, each against long double ----------------------------------------------------------


def designs(seed: int) -> list[tuple[Any, Any, Any]]:
    """A design, the matrix that it stands for, and that of the numbers that enter its sums."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 7)) * 10.0 ** rng.uniform(-3, 3, 7) + 100
    single = X.astype(np.float32)
    standard = Standardized.fit(as_design(single.copy()))
    mean, scale = long(standard.mean), long(standard.scale)
    return [
        (as_design(X), long(X), long(X)),
        (as_design(single), long(single), long(single)),
        (MixedPrecision(as_design(single)), long(single), long(single)),
        (standard, (long(single) - mean) / scale, (np.abs(long(single)) + np.abs(mean)) / scale),
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:Far from zero")  # some are drawn so
def test_products_are_within_their_reach(seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    for design, exact, entries in designs(seed):
        reach = Reach.of(design)
        v = (rng.standard_normal(7) * 10.0 ** rng.uniform(-4, 4, 7)).astype(design.dtype)
        r = rng.standard_normal(60).astype(design.dtype)
        assert norm(np.abs(entries) @ np.abs(long(v))) <= reach(v)
        assert norm(np.abs(entries).T @ np.abs(long(r))) <= reach.total * norm(r)
        assert norm(long(design.matmul(v)) - exact @ long(v)) <= reach.forward * reach(v)
        off = norm(long(design.rmatmul(r)) - exact.T @ long(r))
        assert off <= reach.backward * reach.total * norm(r)


PLAIN = {
    "logistic": Logistic(),
    "squared": Squared(),
    "poisson": Poisson(),
    "huber": Huber(0.7),
    "squared_hinge": SquaredHinge(),
    "multinomial": Multinomial(3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PLAIN)
def test_losses_know_their_rounding(name: str, dtype: Any) -> None:
    import bounded

    exact = {"huber": bounded._huber(0.7), "squared_hinge": bounded._hinge}
    exact |= {k: getattr(bounded, f"_{k}") for k in PLAIN if k not in exact}
    rng, loss = np.random.default_rng(0), PLAIN[name]
    size = (400, 3) if name == "multinomial" else (400,)
    spread = 3 if name == "poisson" else 30
    t = (spread * rng.standard_normal(size)).astype(dtype)
    y: Any = np.where(rng.random(400) < 0.5, 1.0, -1.0).astype(dtype)
    if name == "poisson":
        y = rng.poisson(3.0, 400).astype(dtype)
    if name == "multinomial":
        y = loss.encode(rng.integers(0, 3, 400), NUMPY, dtype, "y")
    flat = (lambda a: long(a)) if name == "multinomial" else (lambda a: long(a)[:, None])
    value, slope, _ = exact[name](flat(y), flat(t))
    unit = float(np.finfo(dtype).eps) / 2
    bound_value, bound_slope = loss.rounding(y, t, NUMPY)
    tiny = float(np.finfo(dtype).smallest_normal)
    off = np.abs(long(loss.value(y, t, NUMPY)).reshape(value.shape) - value)
    assert np.all(off <= unit * long(bound_value).reshape(value.shape) + tiny)
    off = np.abs(long(loss.derivative(y, t, NUMPY)).reshape(slope.shape) - slope)
    assert np.all(off <= unit * long(bound_slope).reshape(slope.shape) + tiny)


@given(seed=st.integers(0, 100_000), family=st.sampled_from((*LINEAR, "huber", "squared_hinge")))
def test_a_point_knows_its_rounding(seed: int, family: str) -> None:
    """∂_x h, H v and what went through X, at a point that walked: margins drift as they are moved."""
    drawn = draw(seed, family)
    rng, h = np.random.default_rng(seed), drawn.problem.inner
    dtype, lam = drawn.lam0.dtype, drawn.lam0
    point = h.at(np.zeros(h.x_shape, dtype), lam)
    for _ in range(5):
        d = (rng.standard_normal(h.x_shape) * 10 ** rng.uniform(-3, 0)).astype(dtype)
        point = h.at(point.x, lam, point.carry).ray(d).at(float(rng.uniform(0.1, 2)))
    v = rng.standard_normal((*h.x_shape, 2)).astype(dtype)
    with np.errstate(all="ignore"):
        lost = point.rounding(v)
        lost_grad, *lost_products = NUMPY.scalars(lost.grad, lost.products)
        flat = long(point.x).reshape(h.x_shape[0], -1)
        _, grad, H = drawn.reference.parts(flat, long(lam))
        assert not norm(long(point.grad).ravel() - grad.ravel()) > lost_grad * (1 + 1e-6)
        if not np.all(np.isfinite(lost_products)):
            return
        product = point.hvp(v)
        for j in range(2):
            exact = H @ long(v[..., j]).ravel()
            assert norm(long(product[..., j]).ravel() - exact) <= lost_products[j] * (1 + 1e-6)


@given(seed=st.integers(0, 100_000))
def test_a_kernel_model_that_walked_far_knows_its_rounding(seed: int) -> None:
    """K α is moved along 200 rays, as in a solve that goes to the last bit."""
    drawn = draw(seed, "kernel")
    rng, h, lam = np.random.default_rng(seed), drawn.problem.inner, drawn.lam0
    point = h.at(np.zeros(h.x_shape, lam.dtype), lam)
    for _ in range(200):
        point = point.ray(rng.standard_normal(h.x_shape).astype(lam.dtype)).at(0.5)
    gamma, ridge = np.exp(long(lam))
    X, x = drawn.reference.X, long(point.x)
    D = np.sum((X[:, None] - X[None]) ** 2, axis=2)
    exact = np.exp(-gamma * D) @ x + ridge * x - drawn.reference.y
    (lost,) = NUMPY.scalars(point.rounding(point.x[..., None]).grad)
    assert norm(long(point.grad) - exact) <= lost


def test_a_kernel_model_that_was_solved_to_the_last_bit_has_a_bound() -> None:
    """200 steps of L-BFGS moved K α, each right to a unit of what it was then."""
    drawn = draw(2429, "kernel")
    problem, method = drawn.problem, HOAG(tolerances="exact", max_inner=200)
    state = method.init(problem, problem.lam(drawn.lam0), None, 1e-6)
    for _ in range(6):
        state = method.step(problem, state)
        truth = drawn.truth(state.record.lam)
        assert norm(long(state.x) - truth.x) <= state.record.inner_error + truth.unsure[0]


@given(seed=st.integers(0, 100_000), family=st.sampled_from(LINEAR))
def test_directions_that_were_summed_know_their_drift(seed: int, family: str) -> None:
    drawn = draw(seed, family)
    rng, h = np.random.default_rng(seed), drawn.problem.inner
    dtype, x = drawn.lam0.dtype, np.zeros(h.x_shape, drawn.lam0.dtype)
    point = h.at(x, drawn.lam0)
    total = np.zeros((*h.x_shape, 2), dtype)
    pushed = point.push(total)
    for _ in range(4):
        more = (rng.standard_normal(total.shape) * 10 ** rng.uniform(-3, 3)).astype(dtype)
        total, pushed = total + more, point.joined(pushed, point.push(more))
    weights = rng.standard_normal(2).astype(dtype)
    along = point.along(pushed, weights)
    step = long(total) @ long(weights)
    exact = np.tensordot(drawn.reference.X, step, axes=(1, 0))
    # The sums of the directions are rounded as well, and X times that is not in the drift.
    slack = 8 * np.finfo(dtype).eps * h.reach(np.abs(total) @ np.abs(weights))
    off = np.sqrt(np.sum((long(along[:-1]) - exact) ** 2, axis=0))
    assert np.all(off <= along[-1] + 5 * slack)


def test_norms_are_not_below_what_they_are() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 10, 1000):
        for scale in (1e-30, 1e-18, 1.0, 1e15):
            v = (scale * rng.standard_normal(size)).astype(np.float32)
            assert NUMPY.scalars(upper_norm(v, NUMPY)) >= (norm(v),)
    assert gamma(10, 0.2) == math.inf


# -- warm starts and residuals ---------------------------------------------------------------------


def test_cg_drops_a_start_that_is_worse_than_zero(backend: Any) -> None:
    """In float32 a start of size 10⁷ leaves nothing but rounding in b - A x₀."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    A = ((basis * np.geomspace(1e-2, 1e3, 12)) @ basis.T).astype(np.float32)
    b, far = rng.standard_normal(12).astype(np.float32), rng.standard_normal(12)
    A_, b_, x0 = (backend.asarray(a.astype(np.float32)) for a in (A, b, 3e7 * far))
    found = cg(lambda v: A_ @ v, b_, tol=1e-3, x0=x0, max_iter=300)
    x = backend.to_numpy(found.x)
    assert np.linalg.norm(b - A.astype(float) @ x.astype(float)) <= 1e-2
    both = backend.asarray(np.stack([b, b], axis=1))
    near = np.linalg.solve(A.astype(float), b)
    starts = backend.asarray(np.stack([near, 3e7 * far], axis=1).astype(np.float32))
    block = cg(lambda v: A_ @ v, both, tol=1e-1, x0=starts, columns=True, max_iter=300)
    host = backend.to_numpy(block.x)
    assert np.allclose(host[:, 0], near, rtol=1e-3, atol=1e-3)  # this one was kept as it was
    assert np.linalg.norm(host[:, 1]) < 1e5


def badly_scaled(dtype: Any) -> tuple[Any, Any, Any]:
    """Rows from 10⁻³ to 10³ in size, a ridge problem, and its exact parts."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((30, 6)) * 10.0 ** rng.uniform(-3, 3, (30, 1))
    X = X.astype(dtype)
    y = (X @ rng.standard_normal(6) + rng.standard_normal(30)).astype(dtype)
    h, g = linear_model(X[:20], y[:20], Squared()), held_out(X[20:], y[20:], Squared())
    return bilevel.Problem(h, g), long(X), long(y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e4, 3e7])
def test_the_residual_of_a_hypergradient_is_the_true_one(dtype: Any, size: float) -> None:
    problem, X, y = badly_scaled(dtype)
    lam = np.full(1, -4.0, dtype)
    weight = np.exp(LONG(-4.0))
    H = X[:20].T @ X[:20] + weight * np.eye(6)
    inverse = np.linalg.inv(H.astype(float))
    x = long(inverse) @ (X[:20].T @ y[:20])
    for _ in range(4):
        x = x + long(inverse) @ (X[:20].T @ y[:20] - H @ x)
    near = solve(problem.inner, lam, x.astype(dtype), solver=LBFGS(), tol=1e-3, max_iter=50)
    start = (size * np.random.default_rng(0).standard_normal(6)).astype(dtype)
    found = Implicit(max_iter=100)(problem, near, tol=1e-9, start=start)
    pull = X[20:].T @ (X[20:] @ long(near.x) - y[20:])
    true = norm(H @ long(found.adjoint) - pull)
    (lost,) = NUMPY.scalars(
        problem.inner.at(near.x, lam).rounding(found.adjoint[..., None]).products
    )
    assert abs(found.residual - true) <= lost + 1e-3 * norm(pull)
    slope = X[20:].T @ (X[20:] @ x - y[20:])
    q = long(inverse) @ slope
    for _ in range(4):
        q = q + long(inverse) @ (slope - H @ q)
    assert abs(long(found.value)[0] + weight * (x @ q)) <= found.error_bound


def test_exact_tolerances_in_float32_state_no_bound_of_zero() -> None:
    problem, X, y = badly_scaled(np.float32)
    method = HOAG(tolerances="exact", max_inner=100)
    state = method.init(problem, problem.lam(0.0), None, None)
    for _ in range(4):
        state = method.step(problem, state)
        record = state.record
        weight = np.exp(long(record.lam)[0])
        H = (X[:20].T @ X[:20] + weight * np.eye(6)).astype(float)
        x = np.linalg.solve(H, (X[:20].T @ y[:20]).astype(float))
        value = float(np.sum((X[20:] @ x - y[20:]) ** 2) / 2)
        assert 0 < abs(record.value - value) <= record.value_error
        assert np.linalg.norm(state.x - x) <= record.inner_error


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_the_model_of_a_result_is_that_of_its_lambda(method: str) -> None:
    """Within the bound of its record; MAID returned the model of the λ that came next."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((80, 5))
    y = X @ rng.standard_normal(5) + rng.standard_normal(80)
    h, g = linear_model(X[:40], y[:40], Squared()), held_out(X[40:], y[40:], Squared())
    problem = bilevel.Problem(h, g)
    for steps in (1, 2, 3, 5):
        found = bilevel.minimize(problem, 3.0, method=method, max_iter=steps)
        record = next(r for r in reversed(found.history) if r.lam[0] == found.lam[0])
        H = X[:40].T @ X[:40] + math.exp(found.lam[0]) * np.eye(5)
        exact = np.linalg.solve(H, X[:40].T @ y[:40])
        assert np.linalg.norm(found.x - exact) <= record.inner_error


# -- few coefficients ------------------------------------------------------------------------------


@given(seed=st.integers(0, 100_000), family=st.sampled_from(("logistic", "squared", "poisson")))
def test_bounds_in_the_norm_of_the_hessian(seed: int, family: str) -> None:
    """At a random x near X(λ), for a p that is wrong by a known vector too."""
    drawn = draw(seed, family)
    problem, rng = drawn.problem, np.random.default_rng(seed)
    lam = problem.lam(drawn.lam0)
    truth = drawn.truth(lam)
    if truth is None:
        return
    dtype = drawn.lam0.dtype
    x = truth.x.ravel() * (1 + 10 ** rng.uniform(-6, -1) * rng.standard_normal(truth.x.size))
    point = problem.inner.at(x.reshape(problem.inner.x_shape).astype(dtype), lam)
    outer = problem.outer.at(point.x, lam)
    with np.errstate(all="ignore"):
        off = rng.standard_normal(lam.shape).astype(dtype) * dtype.type(10 ** rng.uniform(-6, 0))
        p = Direct()(problem, InnerResult(point, Status.RUNNING, 0, 0.0, None), tol=0.0).value + off
        found = whitened_bounds(problem, point, outer, p)
    if found is None or not np.all(np.isfinite(p)):
        return
    assert norm(long(point.x).ravel() - truth.x.ravel()) <= found.distance + truth.unsure[0]
    assert abs(long(outer.value) - truth.value) <= found.value + truth.unsure[1]
    assert norm(long(p) - truth.hypergrad) <= found.hypergrad + truth.unsure[2]


def test_bounds_in_the_norm_of_the_hessian_are_near_the_truth() -> None:
    """Unit scales, 60 rows, 4 coefficients: within 1.1, 1.2 and 20 times the truth."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 4))
    y = np.where(X[:, 0] + rng.standard_normal(120) > 0, 1.0, -1.0)
    problem = bilevel.logistic_regression(X[:60], y[:60], X[60:], y[60:])
    lam = np.zeros(1)
    tight = solve(problem.inner, lam, np.zeros(4), solver=LBFGS(), tol=1e-13)
    exact = Direct()(problem, tight, tol=0.0)
    ratios = []
    for seed in range(20):
        away = 1e-3 * np.random.default_rng(seed).standard_normal(4)
        point = problem.inner.at(tight.x + away, lam)
        outer = problem.outer.at(point.x, lam)
        p = Direct()(problem, InnerResult(point, Status.RUNNING, 0, 0.0, None), tol=0.0).value
        found = whitened_bounds(problem, point, outer, p)
        errors = (
            np.linalg.norm(point.x - tight.x),
            abs(float(outer.value - exact.outer.value)),
            abs(float(p[0] - exact.value[0])),
        )
        bounds = (found.distance, found.value, found.hypergrad)
        ratios.append([b / e for b, e in zip(bounds, errors, strict=True)])
    assert np.all(np.array(ratios) >= 1 - 1e-9)
    assert np.all(np.median(ratios, axis=0) <= [1.1, 1.2, 20.0])
    assert UNIT < 1e-18, "long double is no longer than double here: the truths above are unsure"


@pytest.mark.parametrize("formed", [100, 0], ids=["a matrix", "blocks"])
@pytest.mark.parametrize("method", ["hoag", "maid", HOAG(tolerances="quadratic")])
@pytest.mark.parametrize("m", [1, 2])
def test_what_is_returned_is_known_about_as_well_as_it_is(
    method: Any, m: int, formed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 24 coefficients of uneven scales the bounds of p lay 10³ to 10⁵ times above."""
    monkeypatch.setattr(reported, "_FORMED", formed)
    rng = np.random.default_rng(3)
    X = rng.standard_normal((120, 24)) * 10 ** rng.uniform(-1, 1, 24)
    margins = X @ rng.standard_normal(24)
    y = np.where(margins / np.std(margins) + rng.standard_normal(120) > 0, 1.0, -1.0)
    groups = None if m == 1 else np.arange(24) % m
    problem = bilevel.logistic_regression(X[:60], y[:60], X[60:], y[60:], groups=groups)
    found = bilevel.minimize(problem, method=method, max_iter=10)
    tight = solve(problem.inner, found.lam, found.x, solver=NewtonCG(), tol=1e-12)
    exact, best = Direct()(problem, tight, tol=0.0), found.best
    assert best is not None and best.hypergrad_error is not None
    for bound, error, most in (
        (best.inner_error, norm(found.x - tight.x), 2),
        (best.value_error, abs(found.fun - float(exact.outer.value)), 2),
        (best.hypergrad_error, norm(found.jac - exact.value), 10),
    ):
        assert error > 1e-8, "too near for a ratio"
        assert (1 - 1e-6) * error <= bound <= most * error
    assert found.passes <= 1.12 * found.history[-1].passes + 12


@pytest.mark.parametrize("seed", range(4))
def test_the_hessian_of_few_coefficients_is_formed_at_the_end_alone(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formed at every correction it cost a seventh of the passes of a small problem."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((120, 4))
    y = np.where(X[:, 0] + rng.standard_normal(120) > 0, 1.0, -1.0)
    problem = bilevel.logistic_regression(X[:60], y[:60], X[60:], y[60:])
    found = bilevel.minimize(problem)
    monkeypatch.setattr(whitened, "FEW", 0)
    without = bilevel.minimize(problem)
    assert found.success and found.best is not None
    assert found.best.hypergrad_error is not None
    assert found.passes <= without.passes + 4
