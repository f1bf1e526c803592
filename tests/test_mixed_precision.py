"""A matrix in single precision under a model in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel.design import MixedPrecision, Standardized, WithIntercept, as_design

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
