"""Design matrices against the dense matrix that they stand for, and their counters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

import bilevel
from bilevel.backends import _host_csr
from bilevel.design import Design, Standardized, WithIntercept, as_design, recounted

N, P = 12, 5
WITH_SPARSE = ("numpy", "torch", "cupy")

#: The passes of (matmul, rmatmul, gram_diag, square_matmul) of each kind, as documented.
PASSES = {
    "dense": (1, 1, 1, 1),
    "csr": (1, 1, 1, 1),
    "dense + intercept": (1, 1, 1, 1),
    "csr + intercept": (1, 1, 1, 1),
    "dense, standardised": (1, 1, 1, 1),
    "csr, standardised": (1, 1, 2, 2),
    "csr, standardised + intercept": (1, 1, 2, 2),
    "dense + intercept, standardised": (1, 1, 1, 1),
}


def matrix(seed: int = 0) -> Any:
    """Some zeros, a column of zeros, an empty row."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, P)) * (rng.random((N, P)) < 0.6) + 0.0
    X[:, 3] = 0.0
    X[4] = 0.0
    return X


def build(kind: str, X: Any, backend: Any, dtype: Any) -> tuple[Design, Any]:
    """A design of this kind, and the dense host matrix that it stands for."""
    if kind.startswith("csr"):
        if backend.name not in WITH_SPARSE:
            pytest.skip(f"{backend.name} has no sparse arrays")
        csr = sparse.csr_array(X)
        kernel = backend.csr(csr.data, csr.indices, csr.indptr, csr.shape, dtype)
        design: Design = bilevel.design.CSRDesign(kernel, backend)
    else:
        design = as_design(backend.asarray(X, dtype=dtype))
    for step in kind.replace("+", ",+").split(",")[1:]:
        if "intercept" in step:
            design, X = WithIntercept(design), np.hstack([X, np.ones((len(X), 1))])
        else:
            design, X = Standardized.fit(design), standardise(X)
    return recounted(design), X


def standardise(X: Any) -> Any:
    spread = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(spread < 1e-12, 1.0, spread)


@pytest.fixture(params=list(PASSES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("k", [None, 3])
def test_products_are_those_of_the_dense_matrix(backend, dtype, assert_close, kind, k):
    design, X = build(kind, matrix(), backend, dtype)
    rng = np.random.default_rng(1)
    v = rng.standard_normal(X.shape[1:] if k is None else (X.shape[1], k))
    r = rng.standard_normal(N if k is None else (N, k))
    v_there, r_there = backend.asarray(v, dtype=dtype), backend.asarray(r, dtype=dtype)
    rtol = 2e-5 if dtype == backend.xp.float32 else 1e-12
    close = {"dtype": dtype, "rtol": rtol}
    assert design.shape == X.shape
    assert design.dtype == dtype
    assert_close(design.matmul(v_there), X @ v, **close)
    assert_close(design.rmatmul(r_there), X.T @ r, **close)
    assert_close(design.gram_diag(r_there), (X * X).T @ r, **close)
    assert_close(design.square_matmul(v_there), (X * X) @ v, **close)
    centre = rng.standard_normal(X.shape[1])
    there, Z = backend.asarray(centre, dtype=dtype), X - centre
    assert_close(design.gram_diag(r_there, there), (Z * Z).T @ r, **close)
    assert_close(design.square_matmul(v_there, there), (Z * Z) @ v, **close)


def test_each_pass_is_counted(backend, kind):
    design, X = build(kind, matrix(), backend, backend.xp.float64)
    v = backend.asarray(np.ones((X.shape[1], 3)))
    r = backend.asarray(np.ones((N, 3)))
    calls: list[tuple[Callable[[Any], Any], Any]] = [
        (design.matmul, v),
        (design.rmatmul, r),
        (design.gram_diag, r),
        (design.square_matmul, v),
    ]
    for (call, argument), expected in zip(calls, PASSES[kind], strict=True):
        before = design.passes.total, design.passes.columns
        call(argument)
        assert design.passes.total - before[0] == expected
        assert design.passes.columns - before[1] == 3 * expected
    design.matmul(v[:, 0])
    assert design.passes.columns == 3 * sum(PASSES[kind]) + 1


def test_rows_in_any_order(backend, dtype, assert_close, kind):
    design, X = build(kind, matrix(), backend, dtype)
    index = np.array([7, 4, 0, 7])
    part = design.rows(index)
    v = backend.asarray(np.ones(X.shape[1]), dtype=dtype)
    rtol = 2e-5 if dtype == backend.xp.float32 else 1e-12
    assert part.shape == (4, X.shape[1])
    assert_close(part.matmul(v), X[index].sum(axis=1), dtype=dtype, rtol=rtol)
    r = backend.asarray(np.arange(4.0), dtype=dtype)
    assert_close(part.rmatmul(r), X[index].T @ np.arange(4.0), dtype=dtype, rtol=rtol)
    assert design.passes.total == 0  # a counter of its own


@pytest.mark.parametrize("index", [[True] * N, [0.5], [-1], [N], [[0]]])
def test_wrong_rows_are_refused(index):
    with pytest.raises(ValueError, match="index must"):
        as_design(matrix()).rows(np.array(index))


# -- standardisation -----------------------------------------------------------------------------


def test_standardised_columns_have_mean_0_and_spread_1(backend, dtype, assert_close):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((50, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, -1.0]
    design = Standardized.fit(as_design(backend.asarray(X, dtype=dtype)))
    ones = backend.asarray(np.full(50, 1 / 50), dtype=dtype)
    tol = 1e-4 if dtype == backend.xp.float32 else 1e-12
    assert_close(design.rmatmul(ones), np.zeros(3), dtype=dtype, atol=tol)
    assert_close(design.gram_diag(ones), np.ones(3), dtype=dtype, rtol=tol)


def test_a_mean_far_above_the_spread_does_no_harm(backend, dtype, assert_close):
    """E[x²] - E[x]² would lose every digit: the mean is 10⁸ (10⁴ in float32), the spread 1."""
    offset = 1e4 if dtype == backend.xp.float32 else 1e8
    X = np.random.default_rng(4).integers(-3, 4, (40, 2)) + offset
    design = Standardized.fit(as_design(backend.asarray(X, dtype=dtype)))
    rtol = 1e-3 if dtype == backend.xp.float32 else 1e-6
    assert_close(design.scale, X.std(axis=0), dtype=dtype, rtol=rtol)
    d = np.linspace(0.1, 1.0, 40)
    expected = (standardise(X) ** 2).T @ d
    assert_close(
        design.gram_diag(backend.asarray(d, dtype=dtype)), expected, dtype=dtype, rtol=rtol
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -1 / 3])
def test_a_constant_column_keeps_scale_1(backend, dtype, assert_close, value):
    X = np.stack([np.full(33, value), np.arange(33.0)], axis=1)
    scale = Standardized.fit(as_design(backend.asarray(X, dtype=dtype))).scale
    assert_close(scale, [1.0, X[:, 1].std()], dtype=dtype, rtol=1e-6)


def test_a_constant_column_of_a_sparse_matrix_keeps_scale_1():
    X = sparse.csr_array(np.stack([np.full(33, 0.1), np.arange(33.0)], axis=1))
    assert Standardized.fit(as_design(X)).scale[0] == 1.0


@pytest.mark.parametrize(
    ("offset", "spread", "dtype", "coarse"),
    [
        (20260115, 3, np.float32, True),
        (20260115, 3, np.float64, False),
        (2020, 1, np.float32, False),
        (1.7e9, 6e4, np.float32, False),
        (1.7e9, 3600, np.float32, True),
    ],
)
def test_entries_too_short_for_their_offset_are_said(
    offset: float, spread: float, dtype: Any, coarse: bool
) -> None:
    """Against the rounding itself; a column that is constant has lost nothing."""
    Z = np.random.default_rng(0).standard_normal((50, 1))
    X = np.concatenate([Z, np.full((50, 1), offset), offset + spread * Z], axis=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Standardized.fit(as_design(X.astype(dtype)))
    assert [str(w.message).rpartition("column ")[2][:1] for w in said] == ["2"] * coarse
    lost = np.abs(X[:, 2].astype(dtype) - X[:, 2]).max() / spread
    assert (lost > 2**-9) is np.bool_(coarse)


# -- adjointness, on any matrix ------------------------------------------------------------------

entries = st.floats(-100, 100, allow_subnormal=False, width=32)
#: Few shapes: JAX compiles anew for each.
matrices = st.sampled_from([(1, 1), (2, 5), (6, 3)]).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=entries)
)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(X=matrices, seed=st.integers(0, 2**32 - 1))
def test_matmul_and_rmatmul_are_adjoint(backend, kind, X, seed):
    """⟨X v, r⟩ = ⟨v, Xᵀ r⟩ up to rounding, for the operator itself: no dense twin is asked."""
    design, _ = build(kind, X, backend, backend.xp.float64)
    n, p = design.shape
    rng = np.random.default_rng(seed)
    v, r = rng.standard_normal(p), rng.standard_normal(n)
    left = backend.to_numpy(design.matmul(backend.asarray(v))) * r
    right = v * backend.to_numpy(design.rmatmul(backend.asarray(r)))
    size = np.sqrt(np.sum(np.abs(left)) * np.sum(np.abs(right))) + 100.0
    assert abs(np.sum(left) - np.sum(right)) <= 1e-12 * size * max(1.0, _largest_shift(design))


def _largest_shift(design: Design) -> float:
    """max |mean| / scale: the size of what a standardised column subtracts."""
    while isinstance(design, WithIntercept):
        design = design.base
    if not isinstance(design, Standardized):
        return 1.0
    (largest,) = design.backend.scalars(
        design.backend.xp.max(design.backend.xp.abs(design.mean) / design.scale)
    )
    return largest


# -- host CSR ------------------------------------------------------------------------------------


@pytest.fixture(params=["default", "SciPy"])
def kernel_choice(request: pytest.FixtureRequest) -> None:
    """Whatever is installed, and what a plain installation has."""
    if request.param == "SciPy":
        request.getfixturevalue("no_mkl")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [None, 2, 5, 19])
def test_threads_split_rows_without_a_trace(kernel_choice, monkeypatch, dtype, k):
    monkeypatch.setattr(_host_csr, "_MIN_NNZ_PER_THREAD", 10)
    monkeypatch.setenv("BILEVEL_NUM_THREADS", "3")
    X = sparse.random_array((101, 37), density=0.2, rng=np.random.default_rng(5), dtype=dtype)
    design = as_design(X.tocsr())
    rng = np.random.default_rng(6)
    v = rng.standard_normal(37 if k is None else (37, k)).astype(dtype)
    r = rng.standard_normal(101 if k is None else (101, k)).astype(dtype)
    rtol = 1e-4 if dtype == np.float32 else 1e-12
    for actual, expected in ((design.matmul(v), X @ v), (design.rmatmul(r), X.T @ r)):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


def test_repeated_entries_are_summed_before_they_are_squared(kernel_choice):
    X = sparse.csr_array((np.array([1.0, 2.0]), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    design = as_design(X)
    assert design.gram_diag(np.ones(1)) == 9.0
    assert design.square_matmul(np.ones(1)) == 9.0
    assert X.nnz == 2  # the caller's matrix is as it was


@pytest.mark.parametrize("make", [sparse.coo_array, sparse.csc_array, sparse.csr_matrix])
def test_any_sparse_layout_will_do(kernel_choice, make):
    X = matrix()
    np.testing.assert_allclose(as_design(make(X)).matmul(np.ones(P)), X.sum(axis=1), atol=1e-14)


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csc", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse C:UserWarning")
def test_any_sparse_layout_of_torch_will_do(layout):
    torch = pytest.importorskip("torch")
    design = as_design(getattr(torch.from_numpy(matrix()), layout)())
    assert design.backend.name == "torch"
    expected = torch.from_numpy(matrix().sum(axis=1))
    torch.testing.assert_close(design.matmul(torch.ones(P, dtype=torch.float64)), expected)
    ones = torch.ones(N, dtype=torch.float64)
    torch.testing.assert_close(design.rmatmul(ones), torch.from_numpy(matrix().sum(axis=0)))


def test_wide_indices_are_no_obstacle(kernel_choice):
    X = sparse.csr_array(matrix())
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    np.testing.assert_allclose(as_design(X).matmul(np.ones(P)), matrix().sum(axis=1), atol=1e-14)


def test_a_matrix_of_zeros(kernel_choice):
    design = as_design(sparse.csr_array((3, 2)))
    assert np.array_equal(design.matmul(np.ones(2)), np.zeros(3))
    assert np.array_equal(design.rmatmul(np.ones(3)), np.zeros(2))


def test_the_number_of_threads_is_checked(monkeypatch):
    monkeypatch.setenv("BILEVEL_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="BILEVEL_NUM_THREADS must be a positive integer"):
        _host_csr._n_threads()


# -- errors at the door --------------------------------------------------------------------------


def test_wrong_matrices_are_refused_by_name(backend):
    for X, message in (
        (np.ones(3), "X_val must have two axes"),
        (np.ones((0, 3)), "X_val is empty"),
        (np.array([[1.0, np.nan]]), "X_val holds NaN"),
        (np.array([[1.0, np.inf]]), "X_val holds NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            as_design(backend.asarray(X), name="X_val")
    with pytest.raises(TypeError, match="X_val must be of dtype float32 or float64, got"):
        as_design(backend.asarray(np.ones((2, 2), dtype=np.int64)), name="X_val")


def test_counts_in_a_sparse_matrix_must_be_converted_too():
    with pytest.raises(TypeError, match="X must be of dtype float32 or float64, got int64"):
        as_design(sparse.csr_array(np.eye(2, dtype=np.int64)))


def test_a_matrix_elsewhere_is_refused(backend):
    here = bilevel.get_backend("numpy")
    X = backend.asarray(np.ones((2, 2)))
    if backend == here:
        assert as_design(X, backend=here).shape == (2, 2)
        return
    for given_matrix in (X, as_design(X)):
        with pytest.raises(ValueError, match=f"X is on {backend.name}.*expected numpy"):
            as_design(given_matrix, backend=here)


def test_a_list_is_no_matrix():
    with pytest.raises(TypeError, match="X must be an array, got list"):
        as_design([[1.0]])


def test_columns_whose_squares_underflow_are_told(backend):
    X = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0], [4.0, 2.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Standardized.fit(as_design(backend.asarray(X * [1e-140, 1, 1])))
    with pytest.warns(RuntimeWarning, match="underflow.* lost of column 0: "):
        Standardized.fit(as_design(backend.asarray(X * [1e-170, 1, 1])))
