"""Some of the rows: what stands for all, on both levels, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import inner, outer
from bilevel.losses import Logistic, Multinomial, Squared

RNG = np.random.default_rng(5)
X, W = RNG.standard_normal((12, 3)), RNG.uniform(0.5, 2.0, 12)
LABELS = {
    "logistic": (Logistic(), np.sign(X[:, 0])),
    "squared": (Squared(), X @ [1.0, -2.0, 0.5]),
    "multinomial": (Multinomial(3), np.arange(12) % 3),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_the_mean_over_all_single_rows_is_the_whole(backend, name, weighted, intercept):
    loss, y = LABELS[name]
    options = {"fit_intercept": intercept}
    if weighted:
        options["sample_weight"] = backend.asarray(W)
    data, labels = backend.asarray(X), backend.asarray(y)
    h = inner.linear_model(data, labels, loss, **options)
    g = outer.held_out(data, labels, loss, **options)
    x = backend.asarray(RNG.standard_normal(h.x_shape))
    lam = backend.asarray(np.array([0.3]))
    whole_h, whole_g = h.at(x, lam), g.at(x, lam)
    ones = [np.array([i]) for i in range(12)]
    for whole, parts in (
        (whole_h.grad, [h.rows(i).at(x, lam).grad for i in ones]),
        (whole_h.hvp(x), [h.rows(i).at(x, lam).hvp(x) for i in ones]),
        (whole_g.grad_x, [g.rows(i).at(x, lam).grad_x for i in ones]),
        (whole_g.value, [g.rows(i).at(x, lam).value for i in ones]),
    ):
        mean = np.mean([backend.to_numpy(part) for part in parts], axis=0)
        np.testing.assert_allclose(mean, backend.to_numpy(whole), rtol=1e-10, atol=1e-12)


def test_rows_that_come_twice_count_twice():
    loss, y = LABELS["squared"]
    h, x, lam = inner.linear_model(X, y, loss), np.ones(3), np.zeros(1)
    twice = h.rows(np.array([4, 4, 7])).at(x, lam).grad
    X3, y3 = X[[4, 4, 7]], y[[4, 4, 7]]
    np.testing.assert_allclose(twice, 4 * X3.T @ (X3 @ x - y3) + x)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_a_product_with_some_rows_costs_their_share(csr):
    sparse = pytest.importorskip("scipy.sparse")
    data = sparse.csr_array(X) if csr else X
    loss, y = LABELS["logistic"]
    h, g = inner.linear_model(data, y, loss), outer.held_out(data, y, loss)
    part = h.rows(np.arange(3))
    _ = part.at(np.ones(3), np.zeros(1)).grad  # two products
    assert (part.passes, h.passes, h.column_passes) == (2, 0.5, 0.5)
    part.at(np.ones(3), np.zeros(1)).hvp(np.ones((3, 4)))  # margins and one product of each kind
    assert (h.passes, h.column_passes) == (1.25, 2.75)
    _ = g.rows(np.arange(6)).at(np.ones(3), np.zeros(1)).grad_x
    assert g.passes == 1
    for _ in range(9):
        _ = h.rows(np.arange(4)).at(np.ones(3), np.zeros(1)).value
    assert h.passes == 4.25  # thirds that add up to a number


@dataclass(frozen=True)
class State:
    lam: Any
    x: Any
    v: Any
    k: int = 0
    record: Any = None
    status: bilevel.Status = bilevel.Status.RUNNING


@dataclass(frozen=True)
class Stochastic:
    """SOBA (Dagréou et al. 2022) with batches of both levels."""

    size: int = 5

    def init(self, problem, lam0, x0, tol):
        x = problem.x(x0)
        return State(problem.domain.project(lam0, problem.backend), x, 0 * x)

    def step(self, problem, s):
        index = np.random.default_rng(s.k).integers(0, 10, self.size)
        h, g = problem.inner.rows(index).at(s.x, s.lam), problem.outer.rows(index).at(s.x, s.lam)
        p = g.grad_lam - h.cross_vjp(s.v)
        lam = problem.domain.project(s.lam - 0.01 * p, problem.backend)
        record = bilevel.Record(lam=s.lam, value=g.value, hypergrad=p)
        x, v = s.x - 0.01 * h.grad, s.v - 0.01 * (h.hvp(s.v) - g.grad_x)
        return State(lam, x, v, s.k + 1, record)


def small():
    y = np.sign(X[:, 0] + 0.1)
    return bilevel.logistic_regression(X, y, X, y)


def test_a_stochastic_method_has_costs_budgets_and_checkpoints(tmp_path):
    whole = bilevel.minimize(small(), method=Stochastic(), max_iter=48)
    assert whole.passes == 48 * 4 * 5 / 12  # margins, gradient, and two of a Hessian product
    assert whole.costs.outer_passes == 48 * 2 * 5 / 12
    path = tmp_path / "run.npz"
    ended = bilevel.minimize(small(), method=Stochastic(), max_passes=20, checkpoint=path)
    assert ended.status is bilevel.Status.MAX_PASSES
    assert ended.passes <= 20
    again = bilevel.minimize(
        small(), method=Stochastic(), max_iter=48, checkpoint=path, resume=True
    )
    np.testing.assert_array_equal(again.lam, whole.lam)
    np.testing.assert_array_equal(again.x, whole.x)
