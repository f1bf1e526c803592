"""iterate and minimize: the stream, its ends, its budgets, and errors at the door."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel import Ball, Box, Status, iterate, logistic_regression, minimize
from bilevel.methods import HOAG, FixedStep, PathFollowing
from bilevel.record import Record


def data(n=30, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, p))
    y = np.where(X @ rng.standard_normal(p) + rng.standard_normal(2 * n) > 0, 1.0, -1.0)
    return X[:n], y[:n], X[n:], y[n:]


@pytest.fixture
def problem():
    return logistic_regression(*data())


def without_clock(record):
    costs = dataclasses.replace(record.costs, seconds=0.0)
    return repr(dataclasses.replace(record, costs=costs))


def test_minimize_is_iterate_drained(problem):
    result = minimize(problem, 1.0, max_iter=6, tol=0.0, method="hoag")
    stream = list(itertools.islice(iterate(logistic_regression(*data()), 1.0, method="hoag"), 6))
    assert [without_clock(r) for r in result.history] == [without_clock(r) for r in stream]


def test_a_method_can_be_stepped_by_hand(problem):
    method = HOAG()
    state = method.init(problem, np.array([1.0]), np.zeros(5), 0.0)
    for record in itertools.islice(iterate(problem, 1.0, method="hoag"), 4):
        state = method.step(problem, state)
        np.testing.assert_array_equal(state.record.lam, record.lam)


def test_records_are_immutable_and_do_not_change_later(problem):
    stream = iterate(problem, 1.0, method="hoag")
    first = next(stream)
    lam, p = first.lam.copy(), first.hypergrad.copy()
    for _ in range(5):
        next(stream)
    np.testing.assert_array_equal(first.lam, lam)
    np.testing.assert_array_equal(first.hypergrad, p)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.value = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        minimize(problem, max_iter=1, method="hoag").lam = None


def test_the_callers_arrays_are_not_changed(problem):
    lam0, x0 = np.array([1.0]), np.full(5, 0.3)
    minimize(problem, lam0, x0=x0, max_iter=4, method="hoag")
    np.testing.assert_array_equal(lam0, [1.0])
    np.testing.assert_array_equal(x0, 0.3)


def test_costs_add_up_to_the_counters_of_the_data(problem):
    result = minimize(problem, 1.0, max_iter=5, tol=0.0, method="hoag")
    passes = [record.passes for record in result.history]
    assert all(before < after for before, after in itertools.pairwise(passes))
    # Once it has ended, what is returned is bounded more sharply: that costs a few more.
    assert passes[-1] < result.passes <= passes[-1] + 12
    assert result.passes == problem.inner.passes
    assert result.column_passes == problem.inner.column_passes
    # Four an iteration: value and gradient, and with so few coefficients two for the bounds; as many
    # before and after a Newton step at the end. The constants belong to the data, off the counter.
    assert result.outer_passes == problem.outer.passes == 4 * 5 + 4 * 2
    assert 0 < result.history[-1].seconds < result.seconds


def test_success_means_the_stated_optimality(problem):
    result = minimize(problem, 0.0, tol=1e-5, max_iter=200, method="hoag")
    assert (result.success, result.status) == (True, Status.CONVERGED)
    assert result.message == Status.CONVERGED.message
    last = result.history[-1]
    assert last.optimality <= 1e-5 * last.value
    assert all(r.optimality > 1e-5 * r.value for r in result.history[:-1])
    np.testing.assert_array_equal(result.lam, last.lam)
    np.testing.assert_array_equal(result.jac, last.hypergrad)
    assert result.fun == last.value
    assert float(problem.outer.at(result.x, result.lam).value) == pytest.approx(result.fun)


def test_result_reads_like_scipys(problem):
    text = repr(minimize(problem, max_iter=2, tol=0.0, method="hoag"))
    for name in ("message", "success", "fun", "lam", "nit", "passes", "seconds"):
        assert f"{name}: " in text


# -- how a run ends ----------------------------------------------------------------------------


def test_max_iter_returns_the_best_by_what_is_certain(problem):
    """A loosely fitted x has too low a loss: the rank is value + proven error."""
    result = minimize(problem, 5.0, max_iter=7, tol=0.0, method="hoag")
    assert (result.status, result.nit, result.success) == (Status.MAX_ITER, 7, False)
    best = min(result.history, key=lambda r: r.at_most)
    assert result.fun == best.value
    np.testing.assert_array_equal(result.lam, best.lam)
    assert float(problem.outer.at(result.x, result.lam).value) == pytest.approx(best.value)


def test_max_passes(problem):
    result = minimize(problem, 5.0, max_passes=60, tol=0.0, max_iter=1000, method="hoag")
    assert result.status is Status.MAX_PASSES
    assert result.history[-2].passes < 60 <= result.passes


def test_max_seconds(problem):
    result = minimize(problem, 5.0, max_seconds=0.3, tol=0.0, max_iter=10**6, method="hoag")
    assert result.status is Status.MAX_SECONDS
    assert result.history[-2].seconds < 0.3 <= result.seconds


def test_callback_sees_each_record_and_may_stop(problem):
    seen = []
    result = minimize(
        problem, tol=0.0, method="hoag", callback=lambda r: seen.append(r) or r.k == 3
    )
    assert result.status is Status.INTERRUPTED
    assert tuple(seen) == result.history
    assert result.nit == 3


def test_a_callback_that_raises_is_not_swallowed(problem):
    def callback(record):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        minimize(problem, callback=callback, method="hoag")


@pytest.mark.parametrize("kind", [ZeroDivisionError, FloatingPointError, OverflowError])
@pytest.mark.parametrize("where", ["callback", "progress"])
def test_arithmetic_of_a_callback_is_not_the_method_s(problem, where, kind, monkeypatch):
    """It used to end the run as NON_FINITE: "a value became NaN or infinite"."""
    monkeypatch.setattr("bilevel.meter._EVERY", 0.0)
    calls = []

    def fails(told):
        calls.append(told)
        if isinstance(told, Record) or told.passes > 200:
            raise kind("mine")

    with pytest.raises(kind, match="mine"):
        minimize(problem, 5.0, tol=0.0, method="hoag", **{where: fails})
    assert len(calls) > (where == "progress")


def test_ctrl_c_in_a_callback_returns_the_best(problem):
    def callback(record):
        if record.k == 4:
            raise KeyboardInterrupt

    result = minimize(problem, 5.0, tol=0.0, callback=callback, method="hoag")
    assert (result.status, result.nit) == (Status.INTERRUPTED, 4)
    assert result.broken_off
    assert result.fun == min(result.history, key=lambda r: r.value + r.value_error).value


def test_a_callback_that_asks_for_the_end_breaks_nothing_off(problem):
    result = minimize(problem, 5.0, tol=0.0, callback=lambda record: record.k == 4)
    assert (result.status, result.nit, result.broken_off) == (Status.INTERRUPTED, 4, False)


def test_ctrl_c_in_what_is_said_of_the_end_leaves_the_end(problem):
    class Pressed(PathFollowing):
        def reported(self, *_):
            raise KeyboardInterrupt

    result, plain = (minimize(problem, 5.0, method=m) for m in (Pressed(), PathFollowing()))
    assert (result.status, result.fun) == (plain.status, plain.fun)
    assert (result.broken_off, plain.broken_off) == (True, False)


class Touched(bilevel.Box):
    """Ctrl-C where it is asked which of its bounds λ lies on."""

    def contact(self, lam, backend):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_ctrl_c_while_the_domain_is_asked_leaves_the_end(problem, method):
    """It left minimize, and the result was lost."""
    pressed = dataclasses.replace(problem, domain=Touched())
    result, plain = (minimize(p, 5.0, method=method) for p in (pressed, problem))
    assert (result.status, result.fun, result.nit) == (plain.status, plain.fun, plain.nit)
    assert (result.broken_off, plain.broken_off) == (True, False)


class Counted:
    """An inner objective that is interrupted at the n-th call for its constants."""

    def __init__(self, inner, n):
        self.inner, self.left, self.calls = inner, n, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def constants(self, lam):
        self.calls += 1
        if self.calls == self.left:
            raise KeyboardInterrupt
        return self.inner.constants(lam)


def test_ctrl_c_in_any_call_for_the_constants_is_told():
    """In the last calls it was swallowed: a caller's loop over problems went on."""
    problem = logistic_regression(*data())
    unbroken = Counted(problem.inner, -1)
    minimize(bilevel.Problem(unbroken, problem.outer), max_iter=2)
    for n in range(unbroken.calls - 6, unbroken.calls + 1):
        broken = bilevel.Problem(Counted(problem.inner, n), problem.outer)
        assert minimize(broken, max_iter=2).broken_off


class Interrupted:
    """An inner objective that is interrupted at its n-th point."""

    def __init__(self, inner, n):
        self.inner, self.left = inner, n

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def at(self, *args):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.inner.at(*args)


@pytest.mark.parametrize("n", [0, 3])
def test_ctrl_c_inside_an_iteration_returns_what_is_there(problem, n):
    # Two points more: the door looks at what a model from outside makes.
    broken = bilevel.Problem(Interrupted(problem.inner, n + 2), problem.outer, problem.domain)
    result = minimize(broken, 2.0, tol=0.0, method="hoag")
    assert result.status is Status.INTERRUPTED
    assert result.nit == n
    if n == 0:
        assert math.isnan(result.fun)
        np.testing.assert_array_equal(result.lam, [2.0])
        np.testing.assert_array_equal(result.x, np.zeros(5))
    else:
        assert result.fun == min(result.history, key=lambda r: r.value + r.value_error).value


def test_nan_in_the_criterion_ends_the_run(problem):
    class Broken:
        def __init__(self, outer):
            self.outer = outer

        def __getattr__(self, name):
            return getattr(self.outer, name)

        def at(self, x, lam):
            point = self.outer.at(x, lam)
            if float(lam[0]) < 1.5:
                point.__dict__["value"] = np.asarray(np.nan)
            return point

    broken = bilevel.Problem(problem.inner, Broken(problem.outer), problem.domain)
    result = minimize(broken, 5.0, tol=0.0, max_iter=200, method="hoag")
    assert result.status is Status.NON_FINITE
    assert math.isfinite(result.fun)  # the best of what came before
    assert math.isfinite(float(result.lam[0]))


# -- domains -----------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", [Box(-1.0, 0.5), Ball(-2.0, 1.0)])
def test_every_iterate_is_in_the_domain(domain):
    problem = logistic_regression(*data(), groups=np.array([0, 0, 1, 1, 1]), domain=domain)
    method = HOAG(step_rule=FixedStep(0.3))
    with pytest.warns(UserWarning, match="lam0 lies outside of the domain"):
        result = minimize(problem, 5.0, max_iter=15, tol=0.0, method=method)
    for record in result.history:
        nearest = domain.project(record.lam, problem.backend)
        np.testing.assert_allclose(record.lam, nearest, atol=1e-15)


@pytest.mark.parametrize("domain", [Box((-1.0, -3.0), 2.0), Ball((0.5, -1.0), 1.5)])
def test_projections_are_the_nearest_points(domain):
    """⟨λ - P(λ), α - P(λ)⟩ ≤ 0 for all α in D, and P is nonexpansive and idempotent."""
    rng = np.random.default_rng(0)
    backend = bilevel.get_backend("numpy")
    points = [rng.normal(scale=4, size=2) for _ in range(40)]
    images = [domain.project(point, backend) for point in points]
    for (a, pa), (b, pb) in itertools.product(zip(points, images, strict=True), repeat=2):
        assert (a - pa) @ (pb - pa) <= 1e-12
        assert np.linalg.norm(pa - pb) <= np.linalg.norm(a - b) + 1e-12
    for image in images:
        np.testing.assert_allclose(domain.project(image, backend), image, atol=1e-15)


def test_a_minimum_on_the_boundary_is_stationary():
    problem = logistic_regression(*data(), domain=Box(4.0, 6.0))
    result = minimize(problem, 5.0, max_iter=100, method="hoag")
    assert result.success
    np.testing.assert_array_equal(result.lam, [4.0])
    assert float(result.jac[0]) > 0  # the gradient points out of the box


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Box(1.0, 0.0), r"lower must not exceed upper, got lower 1.0 > upper 0.0"),
        (lambda: Box(float("nan"), 0.0), "must not be NaN"),
        (lambda: Box((0.0, 0.0), (1.0, 1.0, 1.0)), "lower has 2 bounds but upper has 3"),
        (lambda: Box([0], [1, 2]), "lower has 1 bounds but upper has 2"),
        (lambda: Ball(0.0, 0.0), "radius must be positive and finite, got 0.0"),
        (lambda: Ball(0.0, float("nan")), "radius must be positive"),
        (lambda: Ball(float("nan"), 1.0), "center must be finite, got nan"),
        (lambda: Ball((0.0, float("inf")), 1.0), r"center\[1\] must be finite, got inf"),
    ],
)
def test_domains_are_checked_when_they_are_made(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("domain", [Box((0.0, 1.0), 2.0), Ball((0.0, 1.0), 2.0)])
def test_a_domain_of_another_dimension_is_refused_at_the_door(domain):
    with pytest.raises(ValueError, match="2 .*but there are 3 hyperparameters"):
        logistic_regression(*data(p=3), groups="each", domain=domain)


@pytest.mark.parametrize("domain", [Box([0.0], [1.0]), Box(0.0, [1.0]), Ball([0.0], 2.0)])
def test_a_list_of_one_is_no_number_for_all(domain):
    with pytest.raises(ValueError, match="1 .*but there are 3 hyperparameters"):
        logistic_regression(*data(p=3), groups="each", domain=domain)
    assert logistic_regression(*data(p=3), domain=domain).inner.n_hyperparameters == 1


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "foo"}, "method must be one of"),
        ({"lam0": math.nan}, "lam0 must be finite"),
        ({"tol": -1.0}, "tol must be"),
    ],
)
def test_iterate_checks_its_arguments_when_it_is_called(problem, keywords, message):
    with pytest.raises(ValueError, match=message):
        iterate(problem, **keywords)


def test_a_budget_of_passes_need_not_be_whole(problem):
    """Products with some of the rows are shares of a pass."""
    assert minimize(problem, method="hoag", max_passes=7.5, tol=0.0).passes == 7


# -- errors at the door ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"lam0": float("nan")}, ValueError, "lam0 must be finite, got nan"),
        ({"lam0": np.array([1.0, 2.0])}, ValueError, r"lam0 must have shape \(1,\), got \(2,\)"),
        ({"lam0": np.array([np.inf])}, ValueError, "lam0 must be finite"),
        ({"lam0": np.array([1.0], np.float32)}, TypeError, "lam0 has dtype float32"),
        (
            {"lam0": "0"},
            TypeError,
            "lam0 must be a number, a list of numbers or an array of shape .* got '0'",
        ),
        ({"x0": np.zeros(4)}, ValueError, r"x0 must have shape \(5,\), got \(4,\)"),
        ({"x0": np.full(5, np.nan)}, ValueError, "x0 must be finite"),
        ({"x0": [0.0] * 5}, TypeError, "x0 must be an array, got list"),
        ({"method": "newton"}, ValueError, r"method must be one of .*'hoag'.* got 'newton'"),
        ({"method": 3}, TypeError, "method must be .* got int"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer, got 2.5"),
        ({"tol": -1.0}, ValueError, "tol must be finite and not negative, got -1.0"),
        ({"tol": float("nan")}, ValueError, "tol must be finite and not negative, got nan"),
        ({"max_passes": 0}, ValueError, "max_passes must be positive, got 0"),
        ({"max_seconds": -1.0}, ValueError, "max_seconds must be positive, got -1.0"),
        ({"max_seconds": float("nan")}, ValueError, "max_seconds must be positive, got nan"),
        ({"callback": 3}, TypeError, "callback must be callable, got 3"),
        ({"resume": True}, ValueError, "resume needs the path of a checkpoint"),
        ({"checkpoint": "no/such/folder/run.npz"}, ValueError, "checkpoint .* no such folder"),
    ],
)
def test_minimize_checks_every_argument(problem, keywords, error, message):
    before = problem.inner.passes
    with pytest.raises(error, match=message):
        minimize(problem, **{"method": "hoag", **keywords})
    assert problem.inner.passes == before  # refused before any work


def test_minimize_refuses_what_is_no_problem():
    with pytest.raises(TypeError, match="problem must be a Problem, got 3"):
        minimize(3)
    with pytest.raises(TypeError, match="problem must be a Problem, got \\(1, 2\\)"):
        next(iterate((1, 2)))


X, Y, X_VAL, Y_VAL = data()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"X": X[0]}, ValueError, r"X must have two axes .* got shape \(5,\)"),
        ({"X": X.tolist()}, TypeError, "X must be an array, got list"),
        ({"X": X.astype(int)}, TypeError, "X must be of dtype float32 or float64, got int64"),
        ({"X": np.zeros((0, 5))}, ValueError, r"X is empty: shape \(0, 5\)"),
        ({"X": np.where(X > 2, np.nan, X)}, ValueError, "X holds NaN or infinite values"),
        ({"X": sparse.csr_array(np.where(X > 2, np.inf, X))}, ValueError, "X holds NaN"),
        ({"y": Y[:-1]}, ValueError, r"y must have shape \(30,\).* row of X, got \(29,\)"),
        ({"y": (Y + 1) / 2}, ValueError, r"y must hold the labels -1 and \+1 alone, got \[0.0"),
        ({"y": Y.astype(np.float32)}, TypeError, "y has dtype float32"),
        ({"y": np.where(Y > 0, np.nan, Y)}, ValueError, "y holds NaN"),
        ({"y": Y.tolist()}, TypeError, "y must be an array, got list"),
        ({"X_val": X_VAL[:, :4]}, ValueError, "X_val has 4 features but X has 5"),
        ({"X_val": np.full_like(X_VAL, np.nan)}, ValueError, "X_val holds NaN"),
        ({"y_val": Y_VAL[:-1]}, ValueError, r"y_val must have shape \(30,\).* row of X_val"),
        ({"y": Y[:, None]}, ValueError, r"has 1 column.*, as y of shape \(30, 1\) says, and y_val"),
        ({"y_val": Y_VAL[:, None]}, ValueError, r"no columns, as y of .* y_val .* has \(30, 1\)"),
        ({"y_val": 2 * Y_VAL}, ValueError, "y_val must hold the labels"),
        (
            {"X_val": X_VAL.astype(np.float32), "y_val": Y_VAL.astype(np.float32)},
            TypeError,
            "X_val has dtype float32 but X has dtype float64",
        ),
        ({"groups": "all"}, ValueError, "groups must be None, 'each' or an array, got 'all'"),
        ({"groups": np.zeros(4, int)}, ValueError, "groups"),
        ({"groups": np.array([0, 0, 1, 1, 3])}, ValueError, "groups"),
        ({"groups": np.array([0, 0, 1, 1, -1])}, ValueError, "groups"),
        (
            {"domain": (-1.0, 1.0)},
            TypeError,
            "domain must .*Box.* got .-1.0, 1.0., without project",
        ),
    ],
)
def test_logistic_regression_checks_every_argument(changed, error, message):
    arguments = {"X": X, "y": Y, "X_val": X_VAL, "y_val": Y_VAL, **changed}
    with pytest.raises(error, match=message):
        logistic_regression(**arguments)


def test_mixed_backends_are_refused():
    strict = bilevel.get_backend("array_api_strict")
    problem = logistic_regression(X, Y, X_VAL, Y_VAL)
    with pytest.raises(ValueError, match="lam0 is on array_api_strict .* the problem is on numpy"):
        minimize(problem, strict.asarray(np.zeros(1)), method="hoag")
    with pytest.raises(ValueError, match="y is on array_api_strict"):
        logistic_regression(X, strict.asarray(Y), X_VAL, Y_VAL)
    with pytest.raises(ValueError, match="X_val is on array_api_strict"):
        logistic_regression(X, Y, strict.asarray(X_VAL), strict.asarray(Y_VAL))
