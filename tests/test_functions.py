"""Problems from plain functions and from autodiff, against the analytic linear model."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import inner, outer
from bilevel.hypergrad import Implicit
from bilevel.inner import InnerConstants, linear_model
from bilevel.losses import Logistic
from bilevel.outer import OuterConstants, held_out
from bilevel.problems import stacked
from bilevel.report import render_report
from bilevel.solvers import LBFGS, solve

N, P, M = 20, 6, 3
GROUPS = np.array([0, 1, 0, 2, 2, 1])


def numbers(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, P)), np.where(rng.random(N) < 0.4, -1.0, 1.0)


def analytic(backend: Any, dtype: Any) -> Any:
    X, y = (backend.asarray(a, dtype=dtype) for a in numbers())
    return linear_model(X, y, Logistic(), groups=GROUPS)


def directions(backend: Any, dtype: Any) -> tuple[Any, ...]:
    """x, λ, and directions v in x and d in λ."""
    rng = np.random.default_rng(1)
    shapes = (P, M, P, M)
    return tuple(backend.asarray(rng.standard_normal(n), dtype=dtype) for n in shapes)


def given_functions(model: Any, *names: str) -> dict[str, Any]:
    """The products of the analytic model as plain functions."""
    return {name: lambda x, lam, v, name=name: getattr(model.at(x, lam), name)(v) for name in names}


def build(model: Any, **functions: Any) -> Any:
    def value_and_grad(x: Any, lam: Any) -> Any:
        point = model.at(x, lam)
        return point.value, point.grad

    return inner.from_functions(
        value_and_grad, like=model.y, x_shape=(P,), n_hyperparameters=M, **functions
    )


@pytest.mark.parametrize("names", [(), ("hvp",), ("cross_jvp",), ("hvp", "cross_vjp", "cross_jvp")])
def test_what_is_missing_comes_from_differences(backend, dtype, assert_close, names):
    model = analytic(backend, dtype)
    h = build(model, **given_functions(model, *names))
    x, lam, v, d = directions(backend, dtype)
    point, expected = h.at(x, lam), model.at(x, lam)
    single = dtype == backend.xp.float32
    for name, argument in (("hvp", v), ("cross_vjp", v), ("cross_jvp", d)):
        origin = getattr(h.derivatives, name)
        exact = name in names or (name == "cross_vjp" and "cross_jvp" in names)
        assert origin == ("given" if exact else "differences")
        rtol = (1e-5 if single else 1e-12) if exact else (2e-3 if single else 1e-8)
        actual = getattr(point, name)(argument)
        host = backend.to_numpy(getattr(expected, name)(argument))
        assert_close(actual, host, dtype=dtype, rtol=rtol)
    assert_close(point.grad, backend.to_numpy(expected.grad), dtype=dtype)
    several = backend.xp.stack([v, x], axis=1)
    host = backend.to_numpy(expected.hvp(several))
    assert_close(point.hvp(several), host, dtype=dtype, rtol=2e-3 if single else 1e-8)


def test_a_zero_direction_gives_zero(backend):
    model = analytic(backend, backend.xp.float64)
    x, lam, v, _ = directions(backend, backend.xp.float64)
    product = build(model).at(x, lam).hvp(backend.xp.zeros_like(v))
    assert np.array_equal(backend.to_numpy(product), np.zeros(P))


def test_calls_are_counted():
    model = analytic(bilevel.get_backend("numpy"), np.float64)
    x, lam, v, d = directions(model.backend, np.float64)
    h = build(model)
    point = h.at(x, lam)
    for _ in range(2):
        _ = point.value, point.grad
    assert h.passes == 1
    point.hvp(v)
    assert h.passes == 3
    point.cross_jvp(d)
    assert h.passes == 5
    for _ in range(2):
        point.cross_vjp(v)
    assert h.passes == 5 + 2 * M


def test_a_ray_and_constants():
    model = analytic(bilevel.get_backend("numpy"), np.float64)
    x, lam, v, _ = directions(model.backend, np.float64)
    h = build(model, constants=lambda lam: InnerConstants(mu=float(np.exp(np.min(lam)))))
    ray = h.at(x, lam).ray(v)
    trial = ray.at(0.5)
    assert trial.value == model.at(x + 0.5 * v, lam).value
    assert ray.slope(trial) == pytest.approx(model.at(x + 0.5 * v, lam).grad @ v)
    assert h.constants(lam).mu == model.constants(lam).mu
    assert build(model).constants(lam) == InnerConstants()


def test_wrong_returns_are_refused_by_name(backend):
    like = backend.asarray(np.ones(1))
    x, lam = backend.asarray(np.ones(2)), backend.asarray(np.ones(1))
    arguments = {"like": like, "x_shape": (2,), "n_hyperparameters": 1}
    short = inner.from_functions(lambda x, lam: (1.0, x[:1]), **arguments)
    with pytest.raises(ValueError, match=r"gradient\) must return an array of shape \(2,\), got"):
        _ = short.at(x, lam).grad
    single = inner.from_functions(
        lambda x, lam: (1.0, backend.xp.astype(x, backend.xp.float32)), **arguments
    )
    with pytest.raises(TypeError, match=r"must return dtype .*float64, got .*float32"):
        _ = single.at(x, lam).grad
    nothing = inner.from_functions(lambda x, lam: (1.0, x), hvp=lambda x, lam, v: None, **arguments)
    with pytest.raises(TypeError, match="hvp must return an array of shape .* got None"):
        nothing.at(x, lam).hvp(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_shape": ()}, "x_shape must hold one positive integer"),
        ({"x_shape": (0,)}, r"x_shape\[0\] must be at least 1, got 0"),
        ({"n_hyperparameters": 0}, "n_hyperparameters must be at least 1"),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    arguments = {"like": np.ones(1), "x_shape": (2,), "n_hyperparameters": 1, **change}
    with pytest.raises(ValueError, match=message):
        inner.from_functions(lambda x, lam: (1.0, x), **arguments)


# -- autodiff ------------------------------------------------------------------------------------


def written_in(engine: str) -> Any:
    """h of the linear model with the functions of an engine."""
    X, y = numbers()
    if engine == "torch":
        torch = pytest.importorskip("torch")

        def h(x: Any, lam: Any) -> Any:
            A, b = (torch.as_tensor(a).to(x.dtype) for a in (X, y))
            loss = torch.nn.functional.softplus(-b * (A @ x)).sum()
            return loss + 0.5 * (torch.exp(lam)[torch.as_tensor(GROUPS)] * x * x).sum()

        return h
    jax = pytest.importorskip("jax")

    def h_jax(x: Any, lam: Any) -> Any:
        loss = jax.numpy.sum(jax.nn.softplus(-y.astype(x.dtype) * (X.astype(x.dtype) @ x)))
        return loss + 0.5 * jax.numpy.sum(jax.numpy.exp(lam)[GROUPS] * x * x)

    return h_jax


@pytest.fixture(params=["torch", "jax"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


def test_autodiff_agrees_for_arrays_that_change_hands(backend, dtype, assert_close, engine):
    arguments = {
        "engine": engine,
        "like": backend.asarray(np.ones(1), dtype=dtype),
        "x_shape": (P,),
        "n_hyperparameters": M,
    }
    h = inner.from_autodiff(written_in(engine), **arguments)
    x, lam, v, d = directions(backend, dtype)
    model = analytic(backend, dtype)
    point, expected = h.at(x, lam), model.at(x, lam)
    close = {"dtype": dtype, "rtol": 1e-4 if dtype == backend.xp.float32 else 1e-12}
    assert set(vars(h.derivatives).values()) == {"autodiff"}
    assert_close(point.value, backend.to_numpy(expected.value), **close)
    assert_close(point.grad, backend.to_numpy(expected.grad), **close)
    for name, argument in (("hvp", v), ("cross_vjp", v), ("cross_jvp", d)):
        actual = getattr(point, name)(argument)
        assert_close(actual, backend.to_numpy(getattr(expected, name)(argument)), **close)


MEMORY = {
    "Fortran": lambda a: np.asfortranarray(a),
    "backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "every second": lambda a: np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
}


def laid_out(backend: Any, a: Any, how: str) -> Any:
    """The same numbers in another order of memory, made by the library itself where it can."""
    if backend.name == "numpy":
        return MEMORY[how](a)
    xp = backend.xp
    if how == "backwards":
        return xp.flip(xp.flip(backend.asarray(a[::-1, ::-1]), axis=0), axis=1)
    if how == "every second":
        doubled = np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)
        return backend.asarray(doubled)[::2, ::2]
    return xp.permute_dims(backend.asarray(np.ascontiguousarray(a.T)), (1, 0))


@pytest.mark.parametrize("how", MEMORY)
def test_arrays_change_hands_in_any_order_of_memory_and_back(backend, engine, how):
    """h = Σ W ∘ sin(x) of a matrix x, and a product that comes back transposed by the engine."""
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 3, 2))
    library = pytest.importorskip("torch" if engine == "torch" else "jax.numpy")

    def h(x: Any, lam: Any) -> Any:
        turned = x.T  # gradients of it have the order of x the other way
        rows = turned[0] * 2.0 + turned[1] * 3.0
        return library.sum(library.sin(turned)) * 1.0 + library.sum(rows * rows) * library.exp(
            lam[0]
        )

    made = inner.from_autodiff(
        h, engine=engine, like=backend.asarray(np.ones(1)), x_shape=(3, 2), n_hyperparameters=1
    )
    lam, there = backend.asarray(np.array([0.3])), laid_out(backend, x, how)
    point = made.at(there, lam)
    rows = x @ np.array([2.0, 3.0])
    twice = 2 * np.exp(0.3) * rows[:, None] * np.array([2.0, 3.0])
    np.testing.assert_allclose(backend.to_numpy(point.grad), np.cos(x) + twice, rtol=1e-12)
    product = point.hvp(laid_out(backend, v, how))
    bent = 2 * np.exp(0.3) * (v @ np.array([2.0, 3.0]))[:, None] * np.array([2.0, 3.0])
    np.testing.assert_allclose(backend.to_numpy(product), bent - np.sin(x) * v, rtol=1e-12)
    cross = point.cross_vjp(laid_out(backend, v, how))
    np.testing.assert_allclose(backend.to_numpy(cross), [np.sum(twice * v)], rtol=1e-12)
    np.testing.assert_allclose(backend.to_numpy(there), x)  # as it was


def test_results_of_autodiff_may_be_overwritten(engine):
    """JAX lends its memory for reading alone; the core updates vectors in place."""
    h = inner.from_autodiff(
        written_in(engine), engine=engine, like=np.ones(1), x_shape=(P,), n_hyperparameters=M
    )
    x = np.ones(P)
    x.flags.writeable = False
    h.at(x, np.zeros(M)).grad[0] = 1.0


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="engine must be 'torch' or 'jax', got 'tapenade'"):
        outer.from_autodiff(lambda x, lam: 0.0, engine="tapenade", like=np.ones(1))


# -- outer criteria ------------------------------------------------------------------------------


def test_outer_from_functions(backend, dtype, assert_close):
    """g = ½ ‖x‖² Σ e^λ: depends on λ directly."""
    xp = backend.xp
    x, lam, _, _ = directions(backend, dtype)

    def value_and_grad(x: Any, lam: Any) -> Any:
        weight = xp.sum(xp.exp(lam))
        return weight * xp.sum(x * x) / 2, weight * x

    def grad_lam(x: Any, lam: Any) -> Any:
        return xp.exp(lam) * xp.sum(x * x) / 2

    like = backend.asarray(np.ones(1), dtype=dtype)
    constants = OuterConstants(grad_x_lipschitz=3.0)
    given = outer.from_functions(value_and_grad, like=like, grad_lam=grad_lam, constants=constants)
    missing = outer.from_functions(value_and_grad, like=like)
    assert (given.derivatives.grad_lam, missing.derivatives.grad_lam) == ("given", "differences")
    assert given.constants() == constants
    expected = backend.to_numpy(grad_lam(x, lam))
    assert_close(given.at(x, lam).grad_lam, expected, dtype=dtype)
    rtol = 2e-3 if dtype == xp.float32 else 1e-8
    assert_close(missing.at(x, lam).grad_lam, expected, dtype=dtype, rtol=rtol)
    assert missing.passes == 2 * M
    point = given.at(x, lam)
    assert_close(point.grad_x, backend.to_numpy(value_and_grad(x, lam)[1]), dtype=dtype)
    assert_close(point.value, backend.to_numpy(value_and_grad(x, lam)[0]), dtype=dtype)


def test_outer_from_autodiff(engine):
    A, b = numbers(7)
    g = outer.from_autodiff(written_in(engine), engine=engine, like=np.ones(1))
    backend = bilevel.get_backend("numpy")
    model = analytic(backend, np.float64)
    x, lam, _, _ = directions(backend, np.float64)
    point, expected = g.at(x, lam), model.at(x, lam)
    weights = np.exp(lam)[GROUPS]
    np.testing.assert_allclose(point.value, expected.value, rtol=1e-12)
    np.testing.assert_allclose(point.grad_x, expected.grad, rtol=1e-12)
    by_group = np.bincount(GROUPS, weights * x * x / 2)
    np.testing.assert_allclose(point.grad_lam, by_group, rtol=1e-12)
    assert g.passes == 2
    assert held_out(A, b, Logistic()).at(x, lam).value > 0


def test_a_whole_problem_from_functions():
    """The hypergradient is that of the analytic problem."""
    X, y = numbers()
    A, b = numbers(7)
    domain = bilevel.Box(-6.0, 6.0)
    analytic_problem = bilevel.Problem(
        linear_model(X, y, Logistic()), held_out(A, b, Logistic()), domain
    )
    model, validation = analytic_problem.inner, analytic_problem.outer

    def value_and_grad(x: Any, lam: Any) -> Any:
        point = model.at(x, lam)
        return point.value, point.grad

    def outer_value_and_grad(x: Any, lam: Any) -> Any:
        point = validation.at(x, lam)
        return point.value, point.grad_x

    def rounding(x: Any, lam: Any, v: Any) -> Any:
        found = model.at(x, lam).rounding(v[..., None])
        return found.grad, found.products[0], found.cross

    h = inner.from_functions(
        value_and_grad,
        like=X,
        x_shape=(P,),
        n_hyperparameters=1,
        constants=model.constants,
        rounding=rounding,
    )
    g = outer.from_functions(outer_value_and_grad, like=X, grad_lam=lambda x, lam: 0 * lam)
    values = []
    for problem in (analytic_problem, bilevel.Problem(h, g, domain)):
        lam, start = np.array([0.5]), np.zeros(P)
        solved = solve(problem.inner, lam, start, solver=LBFGS(), tol=1e-10)
        assert solved.error_bound is not None
        assert solved.error_bound <= 1e-10
        values.append(Implicit()(problem, solved, tol=1e-8).value)
    np.testing.assert_allclose(*values, rtol=1e-6)


def quadratic_functions(*, stated: bool) -> tuple[bilevel.Problem, Any]:
    """½ Σ_j (j + e^λ) x_j² - Σ x_j and ½ ‖x - 1‖², exact up to a few units; f' in closed form."""
    weights = np.arange(1.0, 5.0)

    def value_and_grad(x: Any, lam: Any) -> Any:
        grad = (weights + np.exp(lam[0])) * x - 1
        return float(0.5 * x @ (grad - 1)), grad

    def units(x: Any, lam: Any, v: Any) -> Any:
        top, eps = 4 + np.exp(lam[0]), np.finfo(float).eps
        sizes = (top * np.linalg.norm(x) + 2, top * np.linalg.norm(v))
        return *(10 * eps * s for s in sizes), 10 * eps * np.exp(lam[0]) * np.linalg.norm(x)

    h = inner.from_functions(
        value_and_grad,
        like=weights,
        x_shape=(4,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: (weights + np.exp(lam[0])) * v,
        cross_jvp=lambda x, lam, d: np.exp(lam[0]) * d[0] * x,
        constants=lambda lam: inner.InnerConstants(
            1 + math.exp(lam[0]), 4 + math.exp(lam[0]), 0.0, math.exp(lam[0]), 0.0
        ),
        cross_norm=(lambda x, lam: np.exp(lam[0]) * np.linalg.norm(x)) if stated else None,
        rounding=units if stated else None,
    )
    g = outer.from_functions(
        lambda x, lam: (float(0.5 * (x - 1) @ (x - 1)), x - 1),
        like=weights,
        grad_lam=lambda x, lam: 0 * lam,
        constants=outer.OuterConstants(1.0, 0.0, 0.0),
        rounding=lambda x, lam: (
            1e-15 * (4 + x @ x),
            1e-15 * (2 + np.linalg.norm(x)),
            0.0,
        ),
    )

    def derivative(lam: float) -> float:
        x = 1 / (weights + math.exp(lam))
        return float(-np.sum((x - 1) * math.exp(lam) * x * x))

    return bilevel.Problem(h, g, bilevel.Box(-3.0, 3.0)), derivative


def test_functions_that_state_what_it_takes_have_bounds_and_maid() -> None:
    problem, derivative = quadratic_functions(stated=True)
    found = bilevel.minimize(problem, 0.0, method="maid", max_iter=10)
    assert found.history
    for record in found.history:
        error = abs(record.hypergrad[0] - derivative(float(record.lam[0])))
        assert error <= record.hypergrad_error
        assert record.value_error is not None


def test_functions_that_say_nothing_of_their_rounding_prove_nothing() -> None:
    problem, _ = quadratic_functions(stated=False)
    solved = solve(problem.inner, np.zeros(1), np.zeros(4), solver=LBFGS(), tol=1e-8)
    assert solved.error_bound is None
    found = Implicit()(problem, solved, tol=1e-8)
    assert found.error_bound is None
    assert found.value_error is None
    with pytest.raises(ValueError, match="rounding"):
        bilevel.minimize(problem, 0.0, method="maid", max_iter=3)


class Counted:
    """h = ½ ‖x - 1‖² + ½ e^λ ‖x‖² and g = ½ ‖x - ½‖², which count their own calls."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.inner = self.outer = 0
        self._seconds = seconds

    def h(self, x: Any, lam: Any) -> Any:
        self.inner += 1
        time.sleep(self._seconds)
        weight, away = np.exp(lam[0]), x - 1
        return (away @ away + weight * (x @ x)) / 2, away + weight * x

    def hvp(self, x: Any, lam: Any, v: Any) -> Any:
        self.inner += 1
        return (1 + np.exp(lam[0])) * v

    def g(self, x: Any, lam: Any) -> Any:
        self.outer += 1
        return (x - 0.5) @ (x - 0.5) / 2, x - 0.5

    def grad_lam(self, x: Any, lam: Any) -> Any:
        self.outer += 1
        return 0 * lam

    def problem(self, price: float | None = None, outer_price: float | None = None) -> Any:
        like, shape = np.zeros(1), {"x_shape": (4,), "n_hyperparameters": 1}
        h = inner.from_functions(self.h, like=like, hvp=self.hvp, passes_per_call=price, **shape)
        g = outer.from_functions(
            self.g, like=like, grad_lam=self.grad_lam, passes_per_call=outer_price
        )
        return bilevel.Problem(h, g)


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_calls_of_no_known_price_are_evaluations_and_no_passes(method):
    """Counted by the functions themselves."""
    functions, seen = Counted(), []
    found = bilevel.minimize(
        functions.problem(), 2.0, method=method, max_iter=8, callback=seen.append
    )
    assert (found.evaluations, found.outer_evaluations) == (functions.inner, functions.outer)
    assert found.evaluations > 0
    assert found.outer_evaluations > 0
    assert found.passes == found.column_passes == found.outer_passes == 0
    shown = [record.evaluations for record in found.history]
    assert shown == sorted(shown) == [record.evaluations for record in seen]
    assert f"   evaluations: {functions.inner}\n" in repr(found)
    assert "passes" not in repr(found)


def test_progress_and_searches_say_evaluations():
    functions, seen = Counted(seconds=0.02), []
    found = bilevel.minimize(functions.problem(), 2.0, max_iter=3, progress=seen.append)
    assert all(costs.passes == 0 for costs in seen)
    assert all(costs.unit == "evaluations" for costs in seen if costs.work)
    assert 0 < seen[-1].evaluations <= found.evaluations
    functions = Counted()
    several = bilevel.multistart(functions.problem(), [2.0, -1.0], max_iter=8)
    assert (several.evaluations, several.outer_evaluations) == (functions.inner, functions.outer)
    assert several.evaluations == sum(result.evaluations for result in several.results)
    assert f"evaluations: {functions.inner}\n" in repr(several)
    assert "passes" not in repr(several)


def test_calls_of_a_stated_price_are_passes():
    """Both alike but for the price: so are the runs."""
    functions, others = Counted(), Counted()
    found = bilevel.minimize(functions.problem(2.0, 0.5), 2.0, max_iter=8)
    unpriced = bilevel.minimize(others.problem(), 2.0, max_iter=8)
    assert found.passes == found.column_passes == 2 * functions.inner == 2 * unpriced.evaluations
    assert found.outer_passes == 0.5 * functions.outer
    assert found.evaluations == found.outer_evaluations == 0
    assert "evaluations" not in repr(found)
    np.testing.assert_array_equal(found.lam, unpriced.lam)
    free = bilevel.minimize(Counted().problem(0, 0), 2.0, max_iter=8, max_passes=1)
    assert (free.passes, free.outer_passes, free.nit) == (0, 0, unpriced.nit)


@pytest.mark.parametrize("budget", [1, 5, 20])
def test_a_budget_of_passes_is_kept_where_the_price_is_stated(budget):
    functions = Counted()
    found = bilevel.minimize(functions.problem(2), 2.0, tol=0.0, max_passes=budget)
    assert found.status is bilevel.Status.MAX_PASSES
    assert found.passes == 2 * functions.inner == 2 * (budget // 2)


def test_a_budget_of_passes_is_refused_where_they_are_not_known():
    functions = Counted()
    problem = functions.problem(None, 1.0)
    folds = stacked([functions.problem(2.0), problem])
    for run in (
        lambda: bilevel.minimize(problem, max_passes=9),
        lambda: bilevel.minimize(folds, max_passes=9),
        lambda: bilevel.multistart(problem, 2, max_passes=9),
    ):
        with pytest.raises(ValueError, match="^max_passes is a budget .* state passes_per_call"):
            run()
    with pytest.raises(ValueError, match="^max_total_passes is a budget .* state passes_per_call"):
        bilevel.multistart(problem, 2, max_total_passes=9)
    assert functions.inner == functions.outer == 0  # before any work
    assert bilevel.minimize(problem, max_iter=1).outer_passes > 0


def test_a_sum_with_evaluations_is_one():
    one, two = Counted(), Counted()
    found = bilevel.minimize(stacked([one.problem(3.0, 1.0), two.problem(None, 1.0)]), max_iter=2)
    assert (found.passes, found.evaluations) == (0, 3 * one.inner + two.inner)
    assert (found.outer_passes, found.outer_evaluations) == (one.outer + two.outer, 0)


def test_the_pictures_and_the_report_say_what_was_counted():
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    functions = Counted()
    found = bilevel.minimize(functions.problem(), 2.0, max_iter=8)
    page = render_report(found, title="A run", settings={}, versions={})
    assert ">evaluations<" in page
    assert "evaluations of h" in page
    assert f">{found.history[-1].evaluations}<" in page
    assert "passes" not in page
    assert "evaluations" not in render_report(
        bilevel.minimize(functions.problem(1), 2.0, max_iter=8),
        title="A run",
        settings={},
        versions={},
    )


# -- what a function returns ---------------------------------------------------------------------


def made(called: str, engine: str, fun: Any, like: Any) -> Any:
    """The value of h or g of two numbers by an engine."""
    x, lam = np.ones(2, dtype=like.dtype), np.zeros(1, dtype=like.dtype)
    if called == "g":
        return outer.from_autodiff(fun, engine=engine, like=like).at(x, lam).value
    shape = {"x_shape": (2,), "n_hyperparameters": 1}
    return inner.from_autodiff(fun, engine=engine, like=like, **shape).at(x, lam).value


@pytest.mark.parametrize("called", ["h", "g"])
@pytest.mark.parametrize("library", ["torch", "jax"])
@pytest.mark.parametrize(
    ("fun", "got"),
    [
        (lambda x, lam: x**2, r"an array of shape \(2,\)"),
        (lambda x, lam: (x**2).sum()[None], r"an array of shape \(1,\)"),
        (lambda x, lam: 1.5, r"1\.5"),
        (lambda x, lam: None, "None"),
        (lambda x, lam: (x.sum(), x), "of type tuple"),
    ],
)
def test_a_function_that_returns_no_number_is_named(called, library, fun, got):
    """The engine's own sentence said nothing of which function it was."""
    pytest.importorskip(library)
    like = np.ones(1, dtype=np.float32)
    assert made(called, library, lambda x, lam: (x**2).sum(), like) == 2
    with pytest.raises(TypeError, match=rf"^{called} must return a number made by .*got .*{got}"):
        made(called, library, fun, like)


def test_jax_without_its_64_bits_names_the_switch():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        for called in ("h", "g"):
            with pytest.raises(TypeError, match="JAX_ENABLE_X64=1"):
                made(called, "jax", lambda x, lam: (x**2).sum(), np.ones(1))
    finally:
        jax.config.update("jax_enable_x64", before)
