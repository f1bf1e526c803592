"""The same run on every backend: the same iterates in float64, the same λ* in float32."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer

import bilevel


def halves():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * y - 1.0
    order = np.random.RandomState(0).permutation(len(y))
    train, held = order[: len(y) // 2], order[len(y) // 2 :]
    return X[train], y[train], X[held], y[held]


def problem_on(backend, dtype, csr):
    kind = getattr(backend.xp, dtype)
    arrays = []
    for array in halves():
        if array.ndim == 2 and csr:
            rows = sparse.csr_array(array.astype(dtype))
            parts = rows.data, rows.indices, rows.indptr, rows.shape
            kernel = backend.csr(*parts, dtype=kind)
            arrays.append(bilevel.design.CSRDesign(kernel, backend))
        else:
            arrays.append(backend.asarray(array.astype(dtype), dtype=kind))
    return bilevel.logistic_regression(*arrays)


@pytest.fixture(scope="module")
def reference():
    return bilevel.minimize(
        problem_on(bilevel.get_backend("numpy"), "float64", csr=False),
        max_iter=20,
        tol=0.0,
        method="hoag",
    )


HAS_CSR = {"numpy", "torch", "cupy"}


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_iterates_agree_in_float64(backend, csr, reference):
    if csr and backend.name not in HAS_CSR:
        pytest.skip(f"{backend.name} has no sparse arrays")
    problem = problem_on(backend, "float64", csr)
    result = bilevel.minimize(problem, max_iter=20, tol=0.0, method="hoag")
    assert result.nit == reference.nit == 20
    for ours, theirs in zip(result.history, reference.history, strict=True):
        assert (ours.n_inner, ours.n_cg) == (theirs.n_inner, theirs.n_cg)
        for name in ("lam", "hypergrad"):
            value = backend.to_numpy(getattr(ours, name))
            np.testing.assert_allclose(value, getattr(theirs, name), rtol=0, atol=1e-8)
        assert ours.value == pytest.approx(theirs.value, rel=1e-10)
    np.testing.assert_allclose(backend.to_numpy(result.x), reference.x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize(
    "method", ["path", pytest.param("hoag", marks=pytest.mark.slow_on("jax", "dpnp"))]
)
def test_float32_finds_the_same_lam(backend, csr, method):
    if csr and backend.name not in HAS_CSR:
        pytest.skip(f"{backend.name} has no sparse arrays")
    exact = bilevel.minimize(
        problem_on(bilevel.get_backend("numpy"), "float64", csr=False), method="path"
    )
    problem = problem_on(backend, "float32", csr)
    result = bilevel.minimize(problem, method=method, max_iter=60)
    assert result.success, result.message
    assert result.lam.dtype == result.x.dtype == backend.xp.float32
    np.testing.assert_allclose(backend.to_numpy(result.lam), exact.lam, rtol=0, atol=1e-2)
