"""A matrix in single precision under a model in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel.design import MixedPrecision, Standardized, WithIntercept, as_design
from bilevel.design import rounded as rounded_form
from bilevel.domains import Box
from bilevel.inner import LinearModel
from bilevel.testing import linear
from bilevel.testing.theorems import records_hold

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 8)).astype(np.float32)
Y = np.where(X[:, 0] + RNG.standard_normal(60) > 0, 1.0, -1.0)


def test_products_are_those_of_the_rounded_matrix_in_double(backend: Any) -> None:
    xp = backend.xp
    design = MixedPrecision(as_design(backend.asarray(X, dtype=xp.float32)))
    v, r = RNG.standard_normal((8, 3)), RNG.standard_normal(60)
    wide = X.astype(np.float64)
    for found, exact in (
        (design.matmul(backend.asarray(v)), wide @ v),
        (design.rmatmul(backend.asarray(r)), wide.T @ r),
        (design.gram_diag(backend.asarray(np.abs(r))), (wide**2).T @ np.abs(r)),
        (design.square_matmul(backend.asarray(v)), (wide**2) @ v),
    ):
        assert found.dtype == xp.float64
        np.testing.assert_allclose(backend.to_numpy(found), exact, rtol=0, atol=5e-6 * 60)
    assert design.passes.total == 4


def test_wrappers_take_it() -> None:
    design = WithIntercept(Standardized.fit(MixedPrecision(as_design(X))))
    assert design.matmul(np.zeros(9)).dtype == np.float64
    assert design.rows(np.arange(5)).shape == (5, 9)


def test_double_precision_is_refused() -> None:
    with pytest.raises(TypeError, match=r"base must be of dtype float32, got float64"):
        MixedPrecision(as_design(X.astype(np.float64)))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_the_search_ends_where_double_precision_ends(form: Any) -> None:
    def search(train: Any, val: Any) -> bilevel.Result:
        return bilevel.minimize(bilevel.logistic_regression(train, Y[:40], val, Y[40:]))

    mixed = search(*(MixedPrecision(as_design(form(rows))) for rows in (X[:40], X[40:])))
    double = search(*(form(rows.astype(np.float64)) for rows in (X[:40], X[40:])))
    assert mixed.success
    assert mixed.lam.dtype == np.float64
    assert abs(mixed.lam[0] - double.lam[0]) < 1e-3
    assert mixed.passes <= 1.2 * double.passes


@pytest.fixture
def cheap_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every dense matrix were larger than the caches."""
    monkeypatch.setattr("bilevel.design.dense._LARGE", 0)


@pytest.mark.usefixtures("cheap_rounding")
def test_a_dense_matrix_rounds_on_the_same_counter_through_every_wrapper(backend: Any) -> None:
    xp = backend.xp
    wide = backend.asarray(X.astype(np.float64), dtype=xp.float64)
    design = WithIntercept(Standardized.fit(as_design(wide)))
    before = design.passes.total
    v = backend.asarray(RNG.standard_normal(9))
    rounded = design.rounded()
    assert rounded is not None
    found = rounded.matmul(v)
    assert found.dtype == xp.float64
    exact = backend.to_numpy(design.matmul(v))
    np.testing.assert_allclose(backend.to_numpy(found), exact, rtol=0, atol=1e-4)
    assert design.passes.total == rounded.passes.total == before + 2


def test_nothing_rounds_where_it_does_not_pay() -> None:
    assert as_design(X.astype(np.float64)).rounded() is None  # small
    assert rounded_form(as_design(sparse.csr_array(X.astype(np.float64)))) is None
    assert as_design(np.ones((1001, 1000), dtype=np.float32)).rounded() is None


@pytest.mark.usefixtures("cheap_rounding")
def test_bounds_proven_with_rounded_products_hold() -> None:
    for seed in range(6):
        known = linear(seed, loss="logistic", n=40, p=6, m=1, domain=Box(-4.0, 4.0))
        result = bilevel.minimize(known.problem, 1.0, max_iter=15, tol=1e-5)
        assert result.success
        assert "_rounded" in vars(known.problem.inner.design)  # the copy was made
        assert records_hold(known, result.history)["stated"] > 0


@pytest.mark.usefixtures("cheap_rounding")
def test_rounding_ends_where_the_condition_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """At λ = 0 products are rounded; at λ = -12, where κ is too large for that, none is."""
    wide = X.astype(np.float64)
    problem = bilevel.logistic_regression(wide[:40], Y[:40], wide[40:], Y[40:])
    used: list[float] = []
    at = LinearModel.at

    def noted(self: Any, x: Any, lam: Any, carry: Any = None) -> Any:
        if isinstance(self.design, MixedPrecision):
            used.append(float(lam[0]))
        return at(self, x, lam, carry)

    monkeypatch.setattr(LinearModel, "at", noted)
    zero = np.zeros(problem.inner.x_shape)
    for lam in (0.0, -12.0):
        for _ in zip(range(1), bilevel.iterate(problem, lam, x0=zero), strict=False):
            pass
    assert used
    assert set(used) == {0.0}


@pytest.mark.usefixtures("cheap_rounding")
def test_searches_share_rounded_products_too() -> None:
    wide = X.astype(np.float64)
    problem = bilevel.logistic_regression(wide[:40], Y[:40], wide[40:], Y[40:])
    bilevel.minimize(problem)  # what a search before it has kept must not be taken for shared
    found = bilevel.multistart(problem, [0.0, 1.0, 2.0])
    assert all(result.success for result in found.results)
    assert found.passes < 0.8 * sum(result.passes for result in found.results)
