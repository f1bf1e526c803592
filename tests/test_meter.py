"""Budgets end an iteration, and each run counts its own passes."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest

import bilevel
from bilevel import Status, inner, outer
from bilevel.meter import Meter, Passes


def hard(n=3000, p=300, seed=0):
    """Columns of scales from 1 to 1000: the first fit alone takes thousands of passes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * np.logspace(0, 3, p)
    w = rng.standard_normal(p) / np.logspace(0, 3, p)
    y = np.where(X @ w + rng.standard_normal(n) > 0, 1.0, -1.0)
    return bilevel.logistic_regression(X[::2], y[::2], X[1::2], y[1::2], fit_intercept=True)


def easy(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 5))
    y = np.where(X[:, 0] + rng.standard_normal(60) > 0, 1.0, -1.0)
    return bilevel.logistic_regression(X[:30], y[:30], X[30:], y[30:])


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_max_passes_ends_the_first_iteration(method):
    problem = hard()
    result = bilevel.minimize(problem, method=method, max_passes=20)
    assert (result.status, result.nit, result.passes) == (Status.MAX_PASSES, 0, 20)
    assert problem.inner.passes == 20, "no product was made beyond the budget"
    assert not result.success and np.isnan(result.fun) and result.best is None
    assert "no model has been fitted" in result.message


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_max_seconds_ends_the_first_iteration(method):
    began = time.perf_counter()
    result = bilevel.minimize(hard(), method=method, max_seconds=0.2)
    assert time.perf_counter() - began < 5
    assert (result.status, result.nit) == (Status.MAX_SECONDS, 0)


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_a_budget_returns_the_best_of_the_iterations_before(method):
    whole = bilevel.minimize(easy(), 3.0, method=method, tol=0.0, max_iter=4)
    for budget in range(1, whole.passes, 1 + whole.passes // 15):
        part_problem = easy()
        part = bilevel.minimize(part_problem, 3.0, method=method, tol=0.0, max_passes=budget)
        done = [r for r in whole.history if r.passes <= budget]
        # What a half-done iteration has to offer comes on top.
        assert len(done) <= part.nit <= len(done) + 1
        assert [r.value for r in part.history[: len(done)]] == [r.value for r in done]
        assert part.passes <= budget
        if part.nit:
            best = min(part.history, key=lambda r: r.at_most)
            assert part.fun == best.value
            np.testing.assert_array_equal(part.lam, best.lam)
            inner, outer = part_problem.inner, part_problem.outer
            assert float(outer.at(part.x, part.lam).value) == pytest.approx(part.fun, rel=1e-12)
            assert np.isfinite(inner.at(part.x, part.lam).value)


def test_functions_of_a_user_end_by_time_too():
    def slow(x, lam):
        time.sleep(0.01)
        return 0.5 * (x - 1) @ (x - 1) + 0.5 * np.exp(lam[0]) * x @ x, (x - 1) + np.exp(lam[0]) * x

    h = inner.from_functions(slow, like=np.zeros(1), x_shape=(40,), n_hyperparameters=1)
    g = outer.from_functions(lambda x, lam: (x @ x, 2 * x), like=np.zeros(1))
    began = time.perf_counter()
    result = bilevel.minimize(bilevel.Problem(h, g), max_seconds=0.1, tol=0.0, max_iter=10**6)
    assert time.perf_counter() - began < 2
    assert result.status is Status.MAX_SECONDS


def test_progress_is_shown_inside_the_first_iteration():
    seen = []
    bilevel.minimize(hard(), max_seconds=0.7, progress=seen.append)
    assert len(seen) >= 2
    assert [costs.passes for costs in seen] == sorted(costs.passes for costs in seen)
    with pytest.raises(TypeError, match="progress must be callable, got 3"):
        bilevel.minimize(easy(), progress=3)


def test_runs_of_one_problem_in_threads_count_their_own():
    problem = easy()
    alone = [bilevel.minimize(easy(), lam0).passes for lam0 in (-3.0, 0.0, 3.0, 6.0)]
    found = [None] * 4

    def run(s, lam0):
        found[s] = bilevel.minimize(problem, lam0)

    threads = [
        threading.Thread(target=run, args=(s, lam0)) for s, lam0 in enumerate((-3.0, 0.0, 3.0, 6.0))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.passes for result in found] == alone
    for result in found:
        assert result.history[-1].passes == result.passes


def test_a_run_inside_a_run_counts_for_both_and_ends_with_the_outer_budget():
    problem, passes = easy(), []

    def within(x, lam):
        passes.append(bilevel.minimize(problem, max_iter=1).passes)
        return x @ x, 2 * x

    g = outer.from_functions(within, like=np.zeros(1))
    h = inner.from_functions(
        lambda x, lam: (0.5 * (x - lam) @ (x - lam), x - lam),
        like=np.zeros(1),
        x_shape=(1,),
        n_hyperparameters=1,
    )
    meter = Meter()
    with meter.running():
        bilevel.minimize(bilevel.Problem(h, g), max_iter=2)
    with meter.reading():
        assert problem.inner.passes == sum(passes) > 0
    began = time.perf_counter()
    result = bilevel.minimize(bilevel.Problem(h, g), max_seconds=0.05, tol=0.0, max_iter=10**6)
    assert result.status is Status.MAX_SECONDS
    assert time.perf_counter() - began < 2


def test_a_counter_is_copied_and_pickled():
    counter = Passes()
    counter.count_forward(np.zeros((3, 2)))
    counter.count_backward(np.zeros(3))
    for other in (deepcopy(counter), pickle.loads(pickle.dumps(counter))):
        other.count_call()
        assert (other.forward, other.backward, other.columns) == (2, 1, 4)
    assert (counter.total, counter.columns) == (2, 3)


def test_an_arithmetic_error_in_mid_run_returns_the_best():
    calls = [0]

    def breaks(x, lam):
        calls[0] += 1
        if calls[0] > 30:
            raise ZeroDivisionError("the user's own")
        return 0.5 * (x - lam) @ (x - lam), x - lam

    h = inner.from_functions(breaks, like=np.zeros(1), x_shape=(1,), n_hyperparameters=1)
    g = outer.from_functions(lambda x, lam: ((x - 3) @ (x - 3) + 1, 2 * (x - 3)), like=np.zeros(1))
    problem = bilevel.Problem(h, g)
    result = bilevel.minimize(problem, method="hoag", tol=0.0, max_iter=100)
    assert result.status is Status.NON_FINITE
    assert "ZeroDivisionError: the user's own" in result.message
    assert result.fun == result.best.value
    assert result.nit >= 1
    with pytest.raises(ZeroDivisionError):
        bilevel.minimize(problem, method="hoag")  # nothing has been found that could be returned


@dataclass(frozen=True)
class Batched:
    """Steps of λ by the rows of a seventh of the data, in this thread or in one of its own."""

    apart: bool = False

    def init(self, problem, lam0, x0, tol):
        return Stepping(lam0, problem.x(x0), 0, None)

    def step(self, problem, state):
        if not self.apart:
            return self._ahead(problem, state)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._ahead, problem, state).result()

    def _ahead(self, problem, state):
        index = (np.arange(4) + 5 * state.k) % problem.inner.n_rows
        point = problem.inner.rows(index).at(state.x, state.lam)
        value = problem.outer.at(state.x, state.lam).value
        record = bilevel.Record(lam=state.lam, value=value, hypergrad=0 * state.lam)
        lam = state.lam + 1e-3 * point.grad[:1]
        return Stepping(lam, state.x - 1e-3 * point.grad, state.k + 1, record)


@dataclass(frozen=True)
class Stepping:
    lam: np.ndarray
    x: np.ndarray
    k: int
    record: bilevel.Record | None
    status: Status = Status.RUNNING


def test_shares_of_a_pass_spend_a_budget_alike_wherever_a_run_was_broken_off(tmp_path):
    """2/15 and 1 a step: their sums differ by rounding with the order in which they are added."""
    budget = {"max_iter": 1000, "max_passes": 20}
    whole = bilevel.minimize(easy(), -2.0, method=Batched(), **budget)
    assert whole.status is Status.MAX_PASSES and whole.passes <= 20
    for cut in range(1, whole.nit, 4):
        path = tmp_path / f"{cut}.npz"
        bilevel.minimize(easy(), -2.0, method=Batched(), max_iter=cut, checkpoint=path)
        found = bilevel.minimize(
            easy(), -2.0, method=Batched(), **budget, checkpoint=path, resume=True
        )
        assert (found.nit, found.passes) == (whole.nit, whole.passes), cut
        assert np.array_equal(found.lam, whole.lam)


def test_products_in_threads_of_a_method_are_not_known_and_this_is_said():
    """A thread does not inherit the run whose work it does."""
    known = bilevel.minimize(easy(), -2.0, method=Batched(), max_iter=5)
    unknown = bilevel.minimize(easy(), -2.0, method=Batched(apart=True), max_iter=5)
    assert known.passes > 0
    assert not any("outside the run" in note for note in known.notes)
    assert any("outside the run" in note for note in unknown.notes)
