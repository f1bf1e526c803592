"""Sparse matrices that are none: every door says so in a sentence, and changes nothing."""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel.backends import _blocks, all_finite, check_sparse
from bilevel.design import as_design
from bilevel.inner import RBF, kernel_ridge, linear, linear_model
from bilevel.losses import Multinomial

N, P = 6, 4
DENSE = np.random.default_rng(0).standard_normal((N, P)) * (
    np.random.default_rng(1).random((N, P)) < 0.6
)


def put(place, value):
    """Set one number of an index array."""

    def change(X):
        array = getattr(X, place[0])
        array[place[1]] = value

    return change


def cut(name, length):
    """Shorten an array."""

    def change(X):
        setattr(X, name, getattr(X, name)[:length])

    return change


COMPRESSED = {
    "too large": (put(("indices", 1), P), "indices must lie in 0, ..., 3, got numbers from 0 to 4"),
    "negative": (put(("indices", 1), -1), "indices must lie in 0, ..., 3, got numbers from -1"),
    "huge": (put(("indices", 0), 2**31 - 1), "indices must lie in 0"),
    "start": (put(("indptr", 0), 1), "indptr must start at 0, got 1"),
    "end": (put(("indptr", -1), 10**6), "indptr ends at 1000000, but X.indices holds"),
    "end too soon": (put(("indptr", -1), 9), "indptr (ends at 9|must not decrease)"),
    "falls": (put(("indptr", 2), 10**6), "indptr must not decrease"),
    "below": (put(("indptr", 2), -(10**6)), "indptr must not decrease"),
    "short data": (cut("data", 3), "X.data holds 3 numbers, but X.indices holds"),
    "short indices": (cut("indices", 3), "but X.indices holds 3: expected the same"),
    "short indptr": (cut("indptr", 3), r"X.indptr must hold \d numbers, got 3"),
    "floats": (
        lambda X: setattr(X, "indices", X.indices + 0.5),
        "X.indices must hold integers, got dtype float64",
    ),
    "a list": (lambda X: setattr(X, "indptr", list(X.indptr)), "X.indptr must be an array"),
    "two axes": (
        lambda X: setattr(X, "indices", X.indices[:, None]),
        "X.indices must have one axis",
    ),
}


@pytest.mark.parametrize("fault", COMPRESSED)
@pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "csc_matrix"])
def test_compressed_matrices(kind, fault):
    change, message = COMPRESSED[fault]
    square = DENSE[:P]  # the limits are those of CSR and of CSC
    X = getattr(sparse, kind)(square)
    change(X)
    with pytest.raises((ValueError, TypeError), match=message):
        as_design(X)


OTHERS = {
    "coo": {
        "row too large": (put(("row", 0), N), "X.row must lie in 0, ..., 5"),
        "col negative": (put(("col", 0), -1), "X.col must lie in 0, ..., 3"),
        "short data": (cut("data", 2), "X.row holds"),
    },
    "bsr": {
        "too large": (put(("indices", 0), 2), "X.indices must lie in 0, ..., 1"),
        "falls": (put(("indptr", 1), 99), "X.indptr must not decrease"),
        "short data": (cut("data", 2), "X.data holds 2"),
    },
    "dia": {
        "short offsets": (cut("offsets", 1), "X.offsets holds 1"),
        "twice": (lambda X: X.offsets.fill(0), "X.offsets must be different numbers"),
    },
    "lil": {
        "too large": (lambda X: X.rows[0].__setitem__(0, P), "X.rows must lie in 0, ..., 3"),
        "longer data": (lambda X: X.data[0].append(1.0), "lists of the same lengths"),
    },
    "dok": {
        "too large": (lambda X: X._dict.update({(0, P): 1.0}), "axis 1 must lie in 0, ..., 3"),
        "negative": (lambda X: X._dict.update({(-1, 0): 1.0}), "axis 0 must lie in 0, ..., 5"),
    },
}


@pytest.mark.parametrize(
    ("kind", "fault"), [(kind, fault) for kind in OTHERS for fault in OTHERS[kind]]
)
def test_other_formats(kind, fault):
    change, message = OTHERS[kind][fault]
    X = sparse.csr_array(DENSE)
    X = X.tobsr((2, 2)) if kind == "bsr" else X.asformat(kind)
    change(X)
    with pytest.raises((ValueError, TypeError), match=message):
        as_design(X)


def test_numbers_that_count_from_one_are_told_so():
    X = sparse.csr_array(DENSE)
    X.indices += 1
    with pytest.raises(ValueError, match="If they count from 1, subtract 1"):
        bilevel.logistic_regression(DENSE, np.ones(N), X, np.ones(N))


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr"])
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_tensors(layout):
    torch = pytest.importorskip("torch")
    blocks = {"blocksize": (2, 2)} if layout == "bsr" else {}
    X = getattr(torch.from_numpy(DENSE), f"to_sparse_{layout}")(**blocks)
    expected = torch.from_numpy(DENSE.sum(axis=1))
    torch.testing.assert_close(as_design(X).matmul(torch.ones(P, dtype=X.dtype)), expected)
    part = {
        "csr": lambda: X.col_indices(),
        "bsr": lambda: X.col_indices(),
        "csc": lambda: X.row_indices(),
        "coo": lambda: X._indices()[1],
    }[layout]()
    part[0] = 10**6
    with pytest.raises(ValueError, match=r"X.\w+\(\)(\[1\])? must lie in 0, .* to 1000000"):
        as_design(X)


def test_a_tensor_with_dense_rows_is_refused():
    torch = pytest.importorskip("torch")
    X = torch.sparse_coo_tensor([[0, 2]], torch.ones((2, P)), (N, P), check_invariants=False)
    with pytest.raises(ValueError, match="X is a hybrid tensor"):
        as_design(X)


@pytest.mark.parametrize("kind", ["BCOO", "BCSR"])
def test_sparse_arrays_of_jax_are_refused(kind):
    pytest.importorskip("jax")
    from jax.experimental import sparse as jax_sparse

    X = getattr(jax_sparse, kind).fromdense(DENSE)
    with pytest.raises(bilevel.BackendUnavailableError, match="no sparse arrays"):
        as_design(X)


def test_the_arrays_of_a_host_matrix_are_checked(backend):
    if backend.name not in ("numpy", "torch", "cupy"):
        pytest.skip(f"{backend.name} has no sparse arrays")
    X = sparse.csr_array(DENSE)
    with pytest.raises(ValueError, match="X.indices must lie in 0, ..., 3"):
        backend.csr(X.data, X.indices + 1, X.indptr, X.shape, backend.xp.float64)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, ">i4", ">i8"])
@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo"])
def test_any_integers_will_do(kind, dtype):
    X = sparse.csr_array(DENSE).asformat(kind)
    for name in ("row", "col") if kind == "coo" else ("indices", "indptr"):
        setattr(X, name, getattr(X, name).astype(dtype))
    np.testing.assert_allclose(as_design(X).matmul(np.ones(P)), DENSE.sum(axis=1), atol=1e-14)


def jumbled(csr):
    """The same matrix, its rows in no order and every entry in two parts."""
    order = np.concatenate(
        [
            np.random.default_rng(3).permutation(np.repeat(np.arange(a, b), 2))
            for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)
        ]
    ).astype(np.intp)
    return csr.data[order] / 2, csr.indices[order], 2 * csr.indptr


@pytest.mark.parametrize("how", ["host arrays", "own matrix"])
def test_unsorted_and_repeated_entries(backend, assert_close, how):
    if backend.name not in ("numpy", "torch", "cupy"):
        pytest.skip(f"{backend.name} has no sparse arrays")
    parts = jumbled(sparse.csr_array(DENSE))
    kernel = backend.csr(*parts, DENSE.shape, backend.xp.float64)
    if how == "own matrix" and backend.name == "torch":
        import torch

        there = [torch.as_tensor(part, device=backend.device) for part in parts]
        X = torch.sparse_csr_tensor(
            there[1 + 1], there[1], there[0], size=DENSE.shape, check_invariants=False
        )
        kernel = backend.sparse_kernel(X)
    elif how == "own matrix":
        pytest.skip("built from host arrays here, too")
    design = bilevel.design.CSRDesign(kernel, backend)
    v, r = np.arange(1.0, P + 1), np.arange(1.0, N + 1)
    there_v, there_r = backend.asarray(v), backend.asarray(r)
    assert_close(design.matmul(there_v), DENSE @ v)
    assert_close(design.rmatmul(there_r), DENSE.T @ r)
    assert_close(design.gram_diag(there_r), (DENSE * DENSE).T @ r)
    assert_close(design.square_matmul(there_v), (DENSE * DENSE) @ v)
    index = np.array([5, 0, 0])
    assert_close(design.rows(index).matmul(there_v), DENSE[index] @ v)


def test_what_scipy_noted_before_is_not_believed():
    """The order was asked for once, then the arrays were changed in place."""
    X = sparse.csr_array((np.array([1.0, 2.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert X.has_canonical_format
    X.indices[1] = 0
    assert as_design(X).gram_diag(np.ones(1))[0] == 9.0


def test_the_matrix_is_not_touched():
    X = sparse.csr_array(DENSE)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    before = copy.deepcopy(X)
    check_sparse(X)
    as_design(X)
    assert vars(X).keys() == vars(before).keys()
    for name in ("data", "indices", "indptr"):
        assert getattr(X, name).dtype == getattr(before, name).dtype
        assert np.array_equal(getattr(X, name), getattr(before, name))


def test_the_estimators_check_before_scikit_learn_converts():
    from sklearn.linear_model import LogisticRegression

    from bilevel.estimators import BilevelLogisticRegression, HyperparameterSearchCV

    good, bad = sparse.csc_array(DENSE), sparse.csc_array(DENSE)
    bad.indices[0] = 10**6
    y = np.array([0, 1, 0, 1, 0, 1])
    for estimator in (
        BilevelLogisticRegression(cv=2),
        HyperparameterSearchCV(LogisticRegression(), cv=2),
    ):
        with pytest.raises(ValueError, match="X.indices must lie in 0, ..., 5"):
            estimator.fit(bad, y)
    fitted = BilevelLogisticRegression(cv=2).fit(good, y)
    with pytest.raises(ValueError, match="X.indices must lie in 0, ..., 5"):
        fitted.predict(bad)
    with pytest.raises(ValueError, match="must lie in 0, ..., 5"):
        HyperparameterSearchCV(LogisticRegression(), cv=(bad, y)).fit(good, y)


# -- dense doors ---------------------------------------------------------------------------------


def test_a_masked_array_is_refused():
    X = np.ma.masked_invalid(np.array([[1.0, np.nan], [2.0, 3.0]]))
    with pytest.raises(TypeError, match="X must be a plain array, got a MaskedArray"):
        as_design(X)
    with pytest.raises(TypeError, match="y must be a plain array"):
        bilevel.logistic_regression(DENSE, np.ma.ones(N), DENSE, np.ones(N))


def test_a_numpy_matrix_is_refused():
    with pytest.raises(TypeError, match="X must be a plain array, got a matrix"):
        as_design(DENSE.view(np.matrix))


def test_dense_models_refuse_sparse_features():
    with pytest.raises(TypeError, match="X must be a dense array"):
        kernel_ridge(sparse.csr_array(DENSE), np.ones(N), RBF())


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 3), (2, 9), (3, 4, 5)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_entry_is_looked_at(backend, monkeypatch, shape, bad):
    monkeypatch.setattr(_blocks, "BLOCK_ENTRIES", 4)
    X = np.ones(shape)
    assert all_finite(backend.asarray(X), backend)
    for place in np.ndindex(shape):
        spoilt = X.copy()
        spoilt[place] = bad
        assert not all_finite(backend.asarray(spoilt), backend)


def test_no_temporary_of_the_size_of_the_data():
    """A mask of this matrix would take 10 MB, a block takes 1."""
    X = np.ones((10_000, 1_000), dtype=np.float32)
    tracemalloc.start()
    try:
        as_design(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


# -- many classes --------------------------------------------------------------------------------


def test_a_free_intercept_of_many_classes_takes_the_memory_of_its_predictions():
    """(n, c, c) would take 1 GB here, (p, c, c) 80 MB."""
    rng = np.random.default_rng(0)
    n, p, c = 500, 1, 500
    y = rng.permutation(np.arange(n) % c)
    model = linear_model(rng.standard_normal((n, p)), y, Multinomial(c), fit_intercept=True)
    point = model.at(rng.standard_normal(model.x_shape), np.zeros(1))
    tracemalloc.start()
    try:
        point.preconditioner()(point.grad)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15 * 8 * n * c


@pytest.mark.parametrize("weights", [None, 1, 3])
def test_kept_in_parts_or_not_at_all_the_preconditioner_is_the_same(
    backend, monkeypatch, assert_close, weights
):
    rng = np.random.default_rng(0)
    n, p, c = 30, 3, 5
    X, y = rng.standard_normal((n, p)), rng.permutation(np.arange(n) % c)
    s = None if weights is None else rng.random(n if weights == 1 else (n, weights))
    model = linear_model(
        backend.asarray(X),
        backend.asarray(y),
        Multinomial(c),
        fit_intercept=True,
        sample_weight=None if s is None else backend.asarray(s),
    )
    x = backend.asarray(rng.standard_normal(model.x_shape))
    r = backend.asarray(rng.standard_normal((*model.x_shape, 2)))

    def applied():
        apply = model.at(x, backend.asarray(np.zeros(1))).preconditioner()
        return apply(r), apply(r[..., 0])

    kept = [backend.to_numpy(a) for a in applied()]
    with monkeypatch.context() as patch:
        patch.setattr(linear, "_COLUMN_ENTRIES", 1)
        parts = applied()
    monkeypatch.setattr(linear, "_MOST_KEPT", 1)
    for found in (parts, applied()):
        for ours, theirs in zip(found, kept, strict=True):
            assert_close(ours, theirs, rtol=1e-11)


# -- how arrays lie in memory --------------------------------------------------------------------


def every_other(array):
    spread = np.full(2 * len(array), 7, dtype=array.dtype)
    spread[::2] = array
    return spread[::2]


def reversed_twice(array):
    return array[::-1].copy()[::-1]


@pytest.mark.parametrize("lay", [every_other, reversed_twice])
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_the_arrays_of_a_sparse_matrix_may_lie_anyhow(lay, part):
    """MKL's products want them in one piece."""
    X = sparse.csr_array(DENSE)
    setattr(X, part, lay(getattr(X, part)))
    design = as_design(X)
    np.testing.assert_allclose(design.matmul(np.ones(P)), DENSE.sum(axis=1), atol=1e-14)
    np.testing.assert_allclose(design.rmatmul(np.ones(N)), DENSE.sum(axis=0), atol=1e-14)


@pytest.mark.parametrize(
    "lay",
    [lambda X: X[::-1], lambda X: X[:, ::2], np.asfortranarray, lambda X: X.astype(">f8")],
    ids=["reversed", "every other", "by columns", "big-endian"],
)
def test_host_arrays_may_lie_anyhow(backend, assert_close, lay):
    X = lay(DENSE)
    expected = np.asarray(X, dtype=np.float64)
    assert_close(backend.asarray(X, dtype=backend.xp.float64), expected)


def test_large_numbers_keep_64_bits():
    p = 3 * 2**31
    parts = np.ones(2), np.array([0, p - 1]), np.array([0, 1, 2])
    kernel = as_design(sparse.csr_array(parts, shape=(2, p))).kernel
    assert kernel.matrix.indices.dtype == np.int64
    assert kernel.matrix.indices[-1] == p - 1
    torch = pytest.importorskip("torch")
    kernel = bilevel.get_backend("torch").csr(*parts, (2, p), torch.float64)
    assert kernel.matrix.col_indices()[-1] == p - 1


def test_no_record_is_kept_of_what_is_done_with_a_tensor():
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(DENSE).requires_grad_()
    assert not as_design(X).matmul(torch.ones(P, dtype=X.dtype)).requires_grad
    assert X.requires_grad
