"""Many searches at once: each as it would be alone, all for fewer passes, and no thread left."""

import _thread
import dataclasses
import functools
import itertools
import signal
import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel import (
    Ball,
    Box,
    Costs,
    MultistartResult,
    Problem,
    Record,
    Result,
    Status,
    as_design,
    minimize,
    multistart,
)
from bilevel._cached import cached_property
from bilevel.design import CSRDesign, DenseDesign
from bilevel.inner import RBF, kernel_ridge, linear_model
from bilevel.inner import from_functions as inner_from_functions
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.methods import HOAG
from bilevel.multistart.lockstep import Task, stopping
from bilevel.multistart.shared import Product, Shared, serve
from bilevel.outer import OuterConstants, held_out, held_out_kernel
from bilevel.outer import from_functions as outer_from_functions
from bilevel.problems import cross_validation, stacked

STARTS = [4.0, 1.0, -1.0, 2.5, 0.0]
HAS_CSR = {"numpy", "torch", "cupy"}


def data(n=60, p=8, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, p)) * (rng.uniform(size=(2 * n, p)) < 0.6)
    y = np.where(X @ rng.standard_normal(p) + rng.standard_normal(2 * n) > 0, 1.0, -1.0)
    return X[:n], y[:n], X[n:], y[n:]


def matrix(backend, X, csr, dtype="float64"):
    kind = getattr(backend.xp, dtype)
    if not csr:
        return DenseDesign(backend.asarray(X.astype(dtype), dtype=kind), backend)
    rows = sparse.csr_array(X.astype(dtype))
    return CSRDesign(backend.csr(rows.data, rows.indices, rows.indptr, rows.shape, kind), backend)


def problem_on(backend, csr=False, dtype="float64"):
    X, y, X_val, y_val = data()
    kind = getattr(backend.xp, dtype)
    labels, labels_val = (backend.asarray(a.astype(dtype), dtype=kind) for a in (y, y_val))
    return bilevel.logistic_regression(
        matrix(backend, X, csr, dtype), labels, matrix(backend, X_val, csr, dtype), labels_val
    )


def alone(problem, lam0, **options):
    return minimize(problem, lam0, x0=problem.x(None), **options)


def no_search_is_left():
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = [t for t in threading.enumerate() if t.name.startswith("bilevel-search")]
        if not left:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def problem():
    return bilevel.logistic_regression(*data())


@pytest.fixture(autouse=True)
def _leaves_no_thread():
    yield
    assert no_search_is_left()


# -- each search is that search alone -------------------------------------------------------------


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_each_search_is_that_search_alone(backend, csr, method):
    if csr and backend.name not in HAS_CSR:
        pytest.skip(f"{backend.name} has no sparse arrays")
    starts = STARTS if backend.name == "numpy" else STARTS[:2]
    options = {"method": method, "max_iter": 6 if backend.name == "numpy" else 2, "tol": 0.0}
    problem = problem_on(backend, csr)
    found = multistart(problem, starts, **options)
    for lam0, ours in zip(starts, found.results, strict=True):
        theirs = alone(problem_on(backend, csr), lam0, **options)
        assert (ours.nit, ours.status) == (theirs.nit, theirs.status)
        for a, b in zip(ours.history, theirs.history, strict=True):
            np.testing.assert_allclose(backend.to_numpy(a.lam), backend.to_numpy(b.lam), atol=1e-8)
            assert a.value == pytest.approx(b.value, rel=1e-9)
        x, y = backend.to_numpy(ours.x), backend.to_numpy(theirs.x)
        np.testing.assert_allclose(x, y, atol=1e-7)


@pytest.mark.slow_on("jax")
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_float32_stays_float32(backend, csr):
    if csr and backend.name not in HAS_CSR:
        pytest.skip(f"{backend.name} has no sparse arrays")
    starts, options = [1.0, 3.0], {"method": "hoag", "max_iter": 3, "tol": 0.0}
    exact = multistart(problem_on(bilevel.get_backend("numpy")), starts, **options)
    found = multistart(problem_on(backend, csr, "float32"), starts, **options)
    for ours, theirs in zip(found.results, exact.results, strict=True):
        assert ours.lam.dtype == ours.x.dtype == backend.xp.float32
        np.testing.assert_allclose(backend.to_numpy(ours.lam), theirs.lam, atol=1e-3)


#: Curvatures of h = ½ Σ c (x - 1)² + ½ e^λ ‖x‖², so that X(λ) = c / (c + e^λ).
CURVATURES = np.logspace(0, 4, 20)


def barely_fitted(starts):
    """One step of the inner solver at each start: the corrected value says nothing of f there."""

    def h(x, lam):
        weight, away = np.exp(lam[0]), x - 1
        value = np.sum(CURVATURES * away * away) + weight * np.sum(x * x)
        return value / 2, CURVATURES * away + weight * x

    def g(x, lam):
        return np.sum((x - 0.5) ** 2), 2 * (x - 0.5)

    like = np.zeros(1)
    inner = inner_from_functions(h, like=like, x_shape=(20,), n_hyperparameters=1)
    positive = OuterConstants(least=0.0)
    outer = outer_from_functions(g, like=like, grad_lam=lambda x, lam: 0 * lam, constants=positive)
    return multistart(Problem(inner, outer), starts, method=HOAG(max_inner=1), max_iter=1)


@pytest.mark.parametrize("starts", [[0.0, 2.0], [2.0, 0.0], [-5.0, 0.0, 2.0, -1.0]])
def test_the_best_of_searches_that_know_no_bound_is_the_likeliest(starts):
    """Not the first of them."""
    found = barely_fitted(starts)
    assert all(result.best.at_most == np.inf for result in found.results)
    f = [np.sum((CURVATURES / (CURVATURES + np.exp(s)) - 0.5) ** 2) for s in starts]
    assert found.best is found.results[int(np.argmin(f))]


def ended(**known):
    record = Record(1, **known)
    value = record.value
    return Result(np.zeros(1), np.zeros(1), value, None, Status.MAX_ITER, 1, (), Costs(), record)


def test_the_best_search_is_ranked_by_what_is_known_of_f():
    nothing = Result(np.zeros(1), np.zeros(1), np.nan, None, Status.INTERRUPTED, 0, (), Costs())
    ranked = [
        ended(value=3.0, value_error=0.5),
        ended(value=2.0, estimate=3.55, estimate_error=0.1),  # g of a loose x is below f
        ended(value=1.0, estimate=1.0, estimate_error=np.inf),  # of these nothing is known
        ended(value=2.0, estimate=2.0, estimate_error=np.inf),
    ]
    refuted = ended(value=0.5, value_error=1e-9)
    refuted = dataclasses.replace(refuted, status=Status.REFUTED)
    broken = [refuted, ended(value=np.nan), ended(value=np.inf, value_error=np.nan), nothing]
    for rest in range(len(ranked)):
        for results in itertools.permutations([*ranked[rest:], *broken], len(ranked) - rest + 4):
            assert MultistartResult(results, Costs()).best is ranked[rest]


def test_one_start_is_minimize_to_the_last_bit(problem):
    found = multistart(problem, [1.0])
    same = alone(bilevel.logistic_regression(*data()), 1.0)
    assert bits(found.results[0]) == bits(same)
    assert (found.passes, found.column_passes) == (same.passes, same.column_passes)
    assert found.outer_passes == same.outer_passes


def bits(result):
    records = [
        dataclasses.replace(r, costs=dataclasses.replace(r.costs, seconds=0.0), lam=0, hypergrad=0)
        for r in result.history
    ]
    arrays = [result.lam, result.x, result.jac, *(r.lam for r in result.history)]
    return repr(records), [a.tobytes() for a in arrays]


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_two_runs_are_equal_to_the_last_bit(method):
    runs = []
    for pause in (0.0, 2e-4):

        def dawdle(s, record, pause=pause):
            time.sleep(pause * s)

        problem = bilevel.logistic_regression(*data())
        runs.append(multistart(problem, STARTS, method=method, max_iter=8, callback=dawdle))
    one, other = runs
    assert [bits(r) for r in one.results] == [bits(r) for r in other.results]
    assert (one.passes, one.column_passes) == (other.passes, other.column_passes)


MANY = {
    "groups": lambda: bilevel.logistic_regression(*data(), groups=[0, 0, 0, 0, 1, 1, 1, 1]),
    "each": lambda: bilevel.logistic_regression(*data(), groups="each"),
    "intercept": lambda: bilevel.logistic_regression(*data(), fit_intercept=True),
    "folds": lambda: cross_validation(*data()[:2], Logistic(), folds=3),
    "classes": lambda: Problem(
        linear_model(data()[0], np.arange(60) % 3, Multinomial(3)),
        held_out(data()[2], np.arange(60) % 3, Multinomial(3)),
    ),
    "stacked": lambda: stacked(
        [bilevel.logistic_regression(*data(seed=s), domain=Box(-12, 12)) for s in (0, 1)]
    ),
}


@pytest.mark.parametrize("kind", list(MANY))
def test_every_linear_problem_shares(kind):
    """With folds and classes path following asks for nine columns, which fill a pass alone."""
    method = "hoag" if kind in ("folds", "classes") else "path"
    options = {"max_iter": 4, "tol": 0.0, "method": method}
    problem = MANY[kind]()
    starts = starts_of(problem, 3, seed=1)
    found = multistart(problem, 3, seed=1, **options)
    for lam0, ours in zip(starts, found.results, strict=True):
        theirs = alone(MANY[kind](), lam0, **options)
        assert ours.nit == theirs.nit
        assert ours.fun == pytest.approx(theirs.fun, rel=1e-6)
    assert found.passes < 0.85 * sum(r.passes for r in found.results)
    assert found.column_passes == sum(r.column_passes for r in found.results)


# -- what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize(("method", "factor"), [("path", 0.7), ("hoag", 0.5)])
def test_searches_share_passes(method, factor, csr):
    problem = problem_on(bilevel.get_backend("numpy"), csr)
    options = {"method": method, "max_iter": 10}
    found = multistart(problem, STARTS, **options)
    own = [result.passes for result in found.results]
    apart = [alone(problem_on(problem.backend, csr), s, **options).passes for s in STARTS]
    np.testing.assert_allclose(own, apart, rtol=0.1)  # what each would have cost alone
    assert max(own) <= found.passes <= factor * sum(apart)
    # Every column of every search went through the matrix once, and the counters are the data's.
    assert found.column_passes == sum(result.column_passes for result in found.results)
    assert (problem.inner.passes, problem.inner.column_passes) == (
        found.passes,
        found.column_passes,
    )
    assert found.outer_passes == problem.outer.passes
    assert found.outer_passes <= 0.8 * sum(result.outer_passes for result in found.results)


def test_nothing_is_shared_where_several_columns_are_no_cheaper(problem, monkeypatch):
    """The negative control: the gain is that of the kernel, and counted as such."""
    monkeypatch.setattr(DenseDesign, "columns_per_pass", 1)
    found = multistart(problem, STARTS, max_iter=3)
    assert found.passes == sum(result.passes for result in found.results)


def test_the_norms_of_the_rows_are_off_the_counter(problem):
    multistart(problem, [0.0, 1.0], max_iter=1, method="hoag")
    # f and its gradient once each for both searches, and the curvature of g for the bounds of each;
    # at the end the same again before and after a Newton step.
    assert problem.outer.passes == 3 * (2 + 2 * 2)


# -- the better of two valleys ---------------------------------------------------------------------


def two_valleys():
    """Ridge regression with an orthogonal design: f(λ) = Σ_j ½ (d_j s_j / (s_j + e^λ) - b_j)².

    The second and third coefficient want to be shrunk to 0.8 of theirs, which makes a valley near
    λ = log(s/4), -5.4 and 6.6; the first, between them, wants to be 0: the second valley is deeper.
    """
    s, d, b = np.exp([3.0, -4.0, 8.0]), np.array([2.0, 1.0, 2.0]), np.array([0.0, 0.8, 1.6])
    X, X_val = np.diag(np.sqrt(s)), np.diag(np.sqrt(s) * d)
    inner = linear_model(X, np.ones(3), Squared())
    return Problem(inner, held_out(X_val, b, Squared()), Box(-8.0, 9.0))


def test_the_better_of_two_valleys_is_found():
    trapped = alone(two_valleys(), -6.0)
    found = multistart(two_valleys(), 5)
    assert trapped.success
    assert float(trapped.lam[0]) == pytest.approx(-5.4, abs=0.3)
    assert float(found.best.lam[0]) == pytest.approx(6.6, abs=0.3)
    assert found.best.fun < 0.5 * trapped.fun
    assert any(result.fun == pytest.approx(trapped.fun, rel=1e-3) for result in found.results)
    assert found.best.fun == min(result.fun for result in found.results)


def test_the_best_is_the_one_of_which_the_least_is_known(problem):
    results = multistart(problem, [0.0, 3.0]).results
    record = dataclasses.replace(results[1].best, value=results[1].fun - 1, value_error=0.5)
    lower = dataclasses.replace(
        results[1], fun=results[1].fun - 1, best=record, status=Status.MAX_ITER
    )
    nothing = dataclasses.replace(results[1], fun=np.nan, status=Status.NON_FINITE)
    whole = bilevel.MultistartResult((nothing, lower, results[0]), bilevel.Costs())
    assert whole.best is lower
    vague = dataclasses.replace(
        lower, best=dataclasses.replace(record, value_error=1e9, estimate=None)
    )
    assert dataclasses.replace(whole, results=(nothing, vague, results[0])).best is results[0]
    assert dataclasses.replace(whole, results=(nothing,)).best is nothing
    for text in ("starts: 3", "1 max_iter", "best:", "passes"):
        assert text in repr(whole)


# -- nothing to share: in turn ---------------------------------------------------------------------


def test_a_kernel_has_no_design_and_runs_in_turn():
    X, y, X_val, y_val = data(20, 3)

    def problem():
        inner = kernel_ridge(X, y, RBF())
        return Problem(inner, held_out_kernel(inner, X_val, y_val, Squared()), Box(-4.0, 4.0))

    starts = [[0.0, 0.0], [1.0, -1.0]]
    shared = problem()
    found = multistart(shared, starts, max_iter=3, method="hoag")
    for lam0, ours in zip(starts, found.results, strict=True):
        assert bits(ours) == bits(alone(problem(), lam0, max_iter=3, method="hoag"))
    assert found.passes == shared.inner.passes == sum(r.passes for r in found.results)

    heard = []
    broken = multistart(
        problem(), starts, max_iter=3, callback=lambda s, r: heard.append((s, r.k)) or r.k == 2
    )
    assert heard == [(0, 1), (0, 2)]
    assert [r.status for r in broken.results] == [Status.INTERRUPTED] * 2
    assert [r.nit for r in broken.results] == [2, 0]


# -- how it ends -----------------------------------------------------------------------------------


class Wrapped:
    """A criterion or model of a user's own around one of ours."""

    def __init__(self, base):
        self.base = base

    def __getattr__(self, name):
        return getattr(self.base, name)


class NaNBelow(Wrapped):
    def at(self, x, lam):
        point = self.base.at(x, lam)
        if float(lam[0]) < -7:
            point.__dict__["value"] = np.asarray(np.nan)
        return point


def test_a_search_that_fails_ends_alone(problem):
    broken = Problem(problem.inner, NaNBelow(problem.outer), problem.domain)
    found = multistart(broken, [-8.0, 1.0, 3.0], method="hoag", max_iter=100)
    assert [r.status for r in found.results] == [
        Status.NON_FINITE,
        Status.CONVERGED,
        Status.CONVERGED,
    ]
    assert found.best.success


class RaisesAt(Wrapped):
    def at(self, x, lam):
        if float(lam[0]) < -2:
            raise ZeroDivisionError("mine")
        return self.base.at(x, lam)


def test_an_error_in_one_search_reaches_the_caller(problem):
    broken = Problem(problem.inner, RaisesAt(problem.outer), problem.domain)
    with pytest.raises(ZeroDivisionError, match="mine"):
        multistart(broken, [1.0, -4.0, 3.0], method="hoag")
    assert no_search_is_left()


@dataclasses.dataclass(frozen=True)
class NoMemory(Wrapped):
    """A design whose products fail from the eleventh on."""

    base: object
    calls: itertools.count = dataclasses.field(default_factory=itertools.count)

    def matmul(self, v):
        if next(self.calls) >= 10:
            raise MemoryError("too wide")
        return self.base.matmul(v)


def test_an_error_in_a_product_reaches_the_caller(problem):
    inner = dataclasses.replace(problem.inner, design=NoMemory(problem.inner.design))
    with pytest.raises(MemoryError, match="too wide"):
        multistart(Problem(inner, problem.outer), [1.0, 0.0, 3.0])
    assert no_search_is_left()


@pytest.mark.parametrize("error", [RuntimeError("mine"), SystemExit(3)])
def test_an_error_in_the_callback_reaches_the_caller(problem, error):
    def callback(s, record):
        if (s, record.k) == (1, 2):
            raise error

    with pytest.raises(type(error)):
        multistart(problem, [0.0, 1.0, 2.0], tol=0.0, callback=callback)
    assert no_search_is_left()


def interrupt(s, record):
    if (s, record.k) == (1, 3):
        raise KeyboardInterrupt
    return False


@pytest.mark.parametrize(
    "callback", [interrupt, lambda s, record: (s, record.k) == (1, 3)], ids=["ctrl-c", "true"]
)
def test_an_end_from_the_callback_returns_what_is_there(problem, callback):
    threads = set()

    def heard(s, record):
        threads.add(threading.current_thread())
        return callback(s, record)

    found = multistart(problem, [0.0, 1.0, 2.0], tol=0.0, method="hoag", callback=heard)
    assert threads == {threading.current_thread()}  # the caller's
    assert {r.status for r in found.results} == {Status.INTERRUPTED}
    assert found.results[1].nit == 3
    assert all(1 <= r.nit <= 4 for r in found.results)
    assert np.isfinite(found.best.fun)


def test_budgets_are_each_searchs_own(problem):
    found = multistart(problem, [3.0, 1.0], tol=0.0, max_passes=60, method="hoag", max_iter=1000)
    for result in found.results:
        assert result.status is Status.MAX_PASSES
        assert result.history[-2].passes < 60 <= result.passes
    found = multistart(problem, [3.0, 1.0], tol=0.0, max_seconds=0.05, max_iter=10**6)
    assert {r.status for r in found.results} <= {Status.MAX_SECONDS, Status.STALLED}


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("most", [1, 60, 90])
def test_a_budget_of_the_whole_is_kept_by_all_together(method, most):
    options = {"tol": 0.0, "method": method, "max_iter": 1000}
    problem = bilevel.logistic_regression(*data())
    found = multistart(problem, STARTS, max_total_passes=most, **options)
    assert found.passes == problem.inner.passes <= most
    assert found.passes > most - 5  # what is left is too little for the next pass of any
    assert {result.status for result in found.results} == {Status.MAX_PASSES}
    best = [result.best.at_most for result in found.results if result.best is not None]
    assert not best or found.best.best.at_most == min(best)
    assert bool(best) == (most > 1)


def test_the_time_of_the_whole_is_kept_by_all_together(problem):
    begun = time.monotonic()
    options = {"tol": 0.0, "max_iter": 10**6, "method": "hoag"}
    found = multistart(problem, STARTS, max_total_seconds=0.2, **options)
    assert time.monotonic() - begun < 5
    assert Status.MAX_SECONDS in {result.status for result in found.results}
    assert np.isfinite(found.best.fun)


def test_a_budget_of_the_whole_is_kept_in_turn():
    """The first search spends it, and the others find nothing left."""
    X, y, X_val, y_val = data(20, 3)
    inner = kernel_ridge(X, y, RBF())
    problem = Problem(inner, held_out_kernel(inner, X_val, y_val, Squared()), Box(-4.0, 4.0))
    options = {"max_iter": 1000, "method": "hoag", "tol": 0.0}
    found = multistart(problem, [[0.0, 0.0], [1.0, -1.0]], max_total_passes=40, **options)
    assert found.passes <= 40
    assert [result.status for result in found.results] == [Status.MAX_PASSES] * 2
    assert [result.nit > 0 for result in found.results] == [True, False]
    assert found.best is found.results[0]
    with pytest.raises(ValueError, match="max_total_seconds"):
        multistart(problem, 2, max_total_seconds=0)


@pytest.fixture
def listening():
    """Ctrl-C raises here, however the tests were started."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c(*after):
    """Press so many seconds from now; the answer waits until it is done.

    threading.Timer would not do: an interrupt inside its start may break its locks.
    """
    done, begun = [], time.monotonic()

    def press():
        for pause in sorted(after):
            time.sleep(max(0.0, begun + pause - time.monotonic()))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        done.append(True)

    def wait():
        while True:
            try:
                while not done:
                    time.sleep(0.001)
                return time.sleep(0.001)
            except KeyboardInterrupt:
                continue

    _thread.start_new_thread(press, ())
    return wait


needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="signals are sent as on POSIX"
)
ENDLESS = {"tol": 0.0, "method": "hoag", "max_iter": 10**6}


@needs_signals
def test_ctrl_c_stops_all_searches_at_once(problem, listening):
    wait = press_ctrl_c(0.3)
    clock = time.monotonic()
    found = multistart(problem, STARTS, **ENDLESS)
    assert time.monotonic() - clock < 5
    wait()
    assert {r.status for r in found.results} == {Status.INTERRUPTED}
    assert any(r.nit > 1 for r in found.results)  # all of them, where the machine is not busy
    assert no_search_is_left()


@needs_signals
def test_ctrl_c_at_any_moment_leaves_no_thread(problem, listening):
    """Also while threads are born, and twice in a row."""
    for k in range(40):
        clock = time.monotonic()
        wait = press_ctrl_c(0.0005 * k, 0.0005 * k + 0.0003 * (k % 4))
        try:
            multistart(problem, STARTS, **ENDLESS)
        except KeyboardInterrupt:
            pass  # before the searches had begun, or the second one
        finally:
            wait()
        assert time.monotonic() - clock < 5
        assert no_search_is_left()


def test_inside_a_thread_of_the_users():
    found = []

    def work():
        problem = bilevel.logistic_regression(*data())
        found.append(multistart(problem, [0.0, 2.0], max_iter=3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert len(found[0].results) == 2


# -- the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts", "error", "text"),
    [
        (0, ValueError, "starts must be at least 1, got 0"),
        (True, TypeError, "starts must be an integer"),
        (2.5, TypeError, "starts must be an integer"),
        ("12", TypeError, "starts must be an integer"),
        ([], ValueError, "at least one start"),
        (np.zeros((0, 1)), ValueError, "at least one start"),
        ([0.0, float("nan")], ValueError, r"starts\[1\] must be finite"),
        (np.array([[0.0], [np.inf]]), ValueError, r"starts\[1\] must be finite"),
        ([[0.0], [1.0, 2.0]], ValueError, r"starts\[1\] must have shape \(1,\), got \(2,\)"),
        (np.zeros((3, 2)), ValueError, r"starts\[0\] must have shape \(1,\), got \(2,\)"),
        (np.zeros((3, 1, 1)), ValueError, r"starts must have shape \(S, 1\) or \(S,\)"),
        (np.zeros(3, dtype=np.float32), TypeError, r"starts\[0\] has dtype float32"),
    ],
)
def test_bad_starts_are_refused(problem, starts, error, text):
    with pytest.raises(error, match=text):
        multistart(problem, starts)


def test_bad_starts_for_several_hyperparameters():
    problem = MANY["groups"]()
    for starts in ([1.0, 2.0], np.zeros(4)):
        with pytest.raises(ValueError, match=r"starts must have shape \(S, 2\)"):
            multistart(problem, starts)


def test_other_arguments_are_refused_as_by_minimize(problem):
    for options, error in (
        ({"max_iter": 0}, ValueError),
        ({"method": "none"}, ValueError),
        ({"tol": -1.0}, ValueError),
        ({"callback": 3}, TypeError),
        ({"x0": np.zeros(3)}, ValueError),
    ):
        with pytest.raises(error):
            multistart(problem, [0.0, 1.0], **options)
    with pytest.raises(TypeError, match="problem must be a Problem"):
        multistart(3, 2)


def starts_of(problem, n, **options):
    """Where the searches begin: λ of the first iteration."""
    found = multistart(problem, n, max_iter=1, method="hoag", **options)
    return [result.history[0].lam for result in found.results]


def test_starts_outside_the_domain_are_projected(problem):
    small = dataclasses.replace(problem, domain=Box(-1.0, 2.0))
    with pytest.warns(UserWarning, match=r"starts\[\d\] lies outside of the domain"):
        found = starts_of(small, [-5.0, 9.0, 0.5])
    np.testing.assert_array_equal(found, [[-1.0], [2.0], [0.5]])


def test_starts_of_every_form_are_the_same(problem):
    expected = starts_of(problem, [0.0, 1.5])
    for form in ((0, 1.5), [[0.0], [1.5]], np.array([0.0, 1.5]), np.array([[0.0], [1.5]])):
        np.testing.assert_array_equal(starts_of(problem, form), expected)


def test_drawn_starts_are_a_latin_hypercube():
    problem = dataclasses.replace(MANY["each"](), domain=Box(-1.0, 3.0))
    drawn = np.array(starts_of(problem, 4, seed=3))
    assert drawn.shape == (4, 8)
    middles = np.tile([[-0.5], [0.5], [1.5], [2.5]], 8)
    np.testing.assert_allclose(np.sort(drawn, axis=0), middles)
    np.testing.assert_array_equal(drawn, starts_of(problem, 4, seed=3))
    assert not np.array_equal(drawn, starts_of(problem, 4, seed=4))


def test_starts_are_drawn_from_a_ball_and_from_no_unknown_domain():
    groups = MANY["groups"]()
    ball = dataclasses.replace(groups, domain=Ball((1.0, 0.0), 2.0))
    drawn = np.array(starts_of(ball, 9))
    away = np.linalg.norm(drawn - [1.0, 0.0], axis=1)
    assert np.all(away <= 2.0)
    assert np.sum(away < 1.0) >= 2  # not all at the edge

    class Half:
        def project(self, lam, backend):
            return backend.xp.minimum(lam, backend.xp.zeros_like(lam))

    for domain, text in ((Half(), "Half draws no starts"), (Box(0, np.inf), "infinite bounds")):
        with pytest.raises((TypeError, ValueError), match=text):
            multistart(dataclasses.replace(groups, domain=domain), 3)


# -- the parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["matmul", "rmatmul", "gram_diag", "square_matmul"])
@pytest.mark.parametrize(
    ("widths", "passes"),
    [
        ((0, 0), 1),
        ((0, 3, 1), 1),
        ((3, 3, 3), 2),  # nine columns
        ((3, 3, 3, 3, 3, 3, 3, 3), 3),
        ((9, 0, 2), 2),  # the first is as wide as a pass by itself
        ((9, 10), 2),
        ((1,), 1),
    ],
)
def test_joined_products_are_the_single_ones(backend, name, widths, passes):
    X = as_design(backend.asarray(data(12, 5)[0]))
    rows = X.shape[1] if name in ("matmul", "square_matmul") else X.shape[0]
    wanted = []
    for k, width in enumerate(widths):
        shape = (rows, width) if width else (rows,)
        wanted.append(Product(X, name, backend.normal(k, shape, X.dtype)))
    answers = serve(wanted)
    assert X.passes.total == passes
    assert X.passes.columns == sum(max(width, 1) for width in widths)
    for product, answer in zip(wanted, answers, strict=True):
        expected = backend.to_numpy(product(product.operand))
        assert tuple(answer.shape) == expected.shape
        np.testing.assert_allclose(backend.to_numpy(answer), expected, atol=1e-12)


def test_answers_share_no_memory():
    X = as_design(np.eye(4))
    operands = [np.ones(4), np.ones((4, 2)), np.ones(4)]
    answers = serve([Product(X, "matmul", v) for v in operands])
    for a, b in itertools.combinations([*operands, *answers], 2):
        assert not np.shares_memory(a, b)


def test_a_shared_design_is_the_design():
    base = as_design(data(12, 5)[0])
    X = Shared(base, lambda product: serve([product])[0])
    assert isinstance(X, bilevel.design.Design)
    assert (X.shape, X.dtype, X.entries) == (base.shape, base.dtype, base.entries)
    assert X.columns_per_pass == base.columns_per_pass
    assert X.centred_rounding == base.centred_rounding
    v, centre = np.ones(5), np.full(5, 0.5)
    np.testing.assert_array_equal(X.square_matmul(v, centre), base.square_matmul(v, centre))
    d = np.ones(12)
    np.testing.assert_array_equal(X.gram_diag(d, centre), base.gram_diag(d, centre))
    np.testing.assert_allclose(X.rows(np.array([1])).matmul(v), base.matmul(v)[1:2])


def waits_in(property_):
    """Two tasks, each of which asks inside a cached property of its own instance."""

    class Point:
        def __init__(self, ask):
            self.ask = ask

        @property_
        def value(self):
            return self.ask("value")

    Point.value.__set_name__(Point, "value")
    return [Task(lambda ask: Point(ask).value, f"bilevel-search-{k}") for k in range(2)]


def test_cached_properties_hold_no_lock():
    tasks = waits_in(cached_property)
    with stopping(tasks):
        assert [task.start() for task in tasks] == ["value", "value"]
        assert [task.answer(k) for k, task in enumerate(tasks)] == [None, None]
    assert [task.result for task in tasks] == [0, 1]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="functools has no lock any more")
def test_functools_would_wait_for_ever():
    tasks = waits_in(functools.cached_property)
    with stopping(tasks):
        assert tasks[0].start() == "value"
        tasks[1]._thread.start()
        tasks[1]._thread.join(0.2)
        assert tasks[1]._side.questions.empty()  # it waits for the lock of the other


def test_a_stopped_task_raises_at_its_next_question():
    seen = []

    def work(ask):
        try:
            ask(1)
        except KeyboardInterrupt:
            seen.append("first")
            ask(2)

    task = Task(work, "bilevel-search")
    with stopping([task]):
        assert task.start() == 1
    assert seen == ["first"]
    assert task.result is None
    never = Task(work, "bilevel-search")
    with stopping([never]):
        pass  # not started: nothing to wait for


def test_a_task_that_is_lost_ends_its_thread():
    task = Task(lambda ask: ask(1), "bilevel-search")
    assert task.start() == 1
    assert any(t.name == "bilevel-search" for t in threading.enumerate())
    del task
    assert no_search_is_left()


def test_a_numpy_error_state_reaches_the_searches():
    def work(ask):
        return np.geterr()["divide"]

    with np.errstate(divide="raise"):
        task = Task(work, "bilevel-search")
        with stopping([task]):
            task.start()
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert task.result == "raise"


def test_a_custom_method_runs_in_lockstep(problem):
    found = multistart(problem, [0.0, 2.0], method=HOAG(), max_iter=4)
    assert found.passes < sum(r.passes for r in found.results)


def test_a_crowd_of_searches_is_refused_before_it_is_drawn():
    """300000 threads: no budget covers their start."""
    problem = bilevel.logistic_regression(*data())
    started = time.monotonic()
    for starts in (300_000, [0.0] * 2001, np.zeros(2001)):
        with pytest.raises(ValueError, match="starts must be at most 2000 .* several calls"):
            multistart(problem, starts, max_seconds=1)
    assert time.monotonic() - started < 5


def test_no_more_threads_is_an_error_and_no_waiting(monkeypatch):
    def full(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    task = Task(lambda ask: ask("?"), "none")
    with pytest.raises(RuntimeError, match="can't start new thread"), stopping([task]):
        task.start()


def test_each_search_computes_in_the_context_of_its_caller(monkeypatch):
    """Else on a GPU its work would run on another device, or beside the caller's stream."""
    from contextlib import contextmanager

    from bilevel.backends.numpy import NumPyBackend

    caller, entered, inside, computed = threading.current_thread(), [], set(), []

    def context(self):
        assert threading.current_thread() is caller  # what is current is asked of the caller
        return within()

    @contextmanager
    def within():
        thread = threading.current_thread()
        entered.append(thread)
        inside.add(thread)
        yield
        inside.remove(thread)

    expit = NumPyBackend.expit

    def counted(self, t):
        thread = threading.current_thread()
        computed.append(thread is caller or thread in inside)
        return expit(self, t)

    X, y, X_val, y_val = data()
    problem = bilevel.logistic_regression(X, y, X_val, y_val)
    monkeypatch.setattr(NumPyBackend, "context", context)
    monkeypatch.setattr(NumPyBackend, "expit", counted)
    found = multistart(problem, STARTS, max_iter=3)
    assert len(found.results) == len(entered) == len(set(entered)) == len(STARTS)
    assert caller not in entered and not inside
    assert len(computed) > len(STARTS) and all(computed)
