"""Sparse matrices of each library itself at every public door: as they come, repeated, cut out."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel.backends import check_sparse, is_sparse
from bilevel.design import as_design
from bilevel.estimators import BilevelLogisticRegression, BilevelRidge
from bilevel.inner import linear_model
from bilevel.losses import Logistic, Squared
from bilevel.outer import held_out
from bilevel.problem import Problem

N, P = 12, 4
RNG = np.random.default_rng(0)
DENSE = np.round(RNG.standard_normal((N, P)), 1) * (RNG.random((N, P)) < 0.6)
LABELS = np.where(RNG.random(N) < 0.5, -1.0, 1.0)

#: Each entry in two parts, the rows in no order: what a user gets from a list of events.
ROW, COLUMN = (np.tile(part, 2)[::-1].copy() for part in np.nonzero(DENSE))
VALUE = DENSE[ROW, COLUMN] / 2


def scipy_matrix(kind, send):
    module = sparse
    if kind == "cut out":
        return module.csr_matrix(np.vstack([DENSE, DENSE]))[N:]
    return _compressed(module, kind, send)


def cupyx_matrix(kind, send):
    module = importlib.import_module("cupyx.scipy.sparse")
    if kind == "cut out":
        twice = sparse.csr_matrix(np.vstack([DENSE, DENSE]))
        parts = tuple(send(part) for part in (twice.data, twice.indices, twice.indptr))
        return module.csr_matrix(parts, shape=twice.shape)[N:]
    return _compressed(module, kind, send)


def _compressed(module, kind, send):
    repeated = module.coo_matrix((send(VALUE), (send(ROW), send(COLUMN))), shape=(N, P))
    if kind == "coo":
        return repeated
    if kind == "csc":
        host = sparse.csc_matrix(DENSE)
        parts = tuple(send(part) for part in (host.data, host.indices, host.indptr))
        return module.csc_matrix(parts, shape=(N, P))
    parts = _repeated_rows() if kind == "repeated" else _parts(sparse.csr_matrix(DENSE))
    return module.csr_matrix(tuple(map(send, parts)), shape=(N, P))


def _parts(matrix):
    return matrix.data, matrix.indices, matrix.indptr


def _repeated_rows():
    """The three arrays of a CSR matrix whose rows name each column twice, the last first."""
    order = np.lexsort((-COLUMN, ROW))
    counts = np.bincount(ROW, minlength=N)
    return VALUE[order], COLUMN[order], np.concatenate([[0], np.cumsum(counts)])


def torch_matrix(kind, send):
    torch = importlib.import_module("torch")
    if kind == "coo":
        numbers = send(np.stack([ROW, COLUMN]))
        return torch.sparse_coo_tensor(numbers, send(VALUE), (N, P), check_invariants=False)
    if kind == "cut out":  # views of longer tensors, with strides
        coo = sparse.coo_matrix(DENSE)
        numbers = send(np.repeat(np.stack([coo.row, coo.col]).astype(np.int64), 2, axis=1))
        return torch.sparse_coo_tensor(
            numbers[:, ::2], send(np.repeat(coo.data, 2))[::2], (N, P), check_invariants=False
        )
    if kind == "csc":
        host = sparse.csc_matrix(DENSE)
        return torch.sparse_csc_tensor(
            send(host.indptr.astype(np.int64)),
            send(host.indices.astype(np.int64)),
            send(host.data),
            (N, P),
            check_invariants=False,
        )
    data, indices, indptr = (
        _repeated_rows() if kind == "repeated" else _parts(sparse.csr_matrix(DENSE))
    )
    return torch.sparse_csr_tensor(
        send(indptr.astype(np.int64)),
        send(indices.astype(np.int64)),
        send(data),
        (N, P),
        check_invariants=False,
    )


MAKE = {"numpy": scipy_matrix, "cupy": cupyx_matrix, "torch": torch_matrix}
KINDS = ["csr", "csc", "coo", "repeated", "cut out"]
#: Whose products differ in nothing from those of the others.
ALIKE = ["csc", "coo", "cut out"]


@pytest.fixture(params=KINDS)
def own(request, backend):
    if backend.name not in MAKE:
        pytest.skip("a library without sparse products here")
    return MAKE[backend.name](request.param, backend.asarray)


def test_the_repeated_one_repeats():
    data, indices, indptr = _repeated_rows()
    matrix = sparse.csr_matrix((data, indices, indptr), shape=(N, P))
    assert matrix.nnz == 2 * np.count_nonzero(DENSE)
    np.testing.assert_array_equal(matrix.toarray(), DENSE)


def test_where_it_is(backend, own):
    assert is_sparse(own)
    assert bilevel.get_backend(own) == backend
    check_sparse(own)


def test_products(backend, own, assert_close):
    design = as_design(own)
    v, r = np.arange(1.0, P + 1), np.arange(1.0, N + 1)
    send = backend.asarray
    assert design.shape == (N, P)
    for columns in (1, 3):
        V, R = np.stack([v] * columns, axis=1), np.stack([r] * columns, axis=1)
        assert_close(design.matmul(send(V)), DENSE @ V)
        assert_close(design.rmatmul(send(R)), DENSE.T @ R)
        assert_close(design.gram_diag(send(R)), (DENSE**2).T @ R)
        assert_close(design.square_matmul(send(V)), DENSE**2 @ V)
    index = np.array([5, 0, 5])
    assert_close(design.rows(index).matmul(send(v)), DENSE[index] @ v)
    assert_close(design.rows(index).square_matmul(send(v)), DENSE[index] ** 2 @ v)


def test_rows_by_numbers_that_are_there(backend, own, assert_close):
    index = np.array([5, 0, 5])
    v = np.arange(1.0, P + 1)
    part = as_design(own).rows(backend.asarray(index))
    assert_close(part.matmul(backend.asarray(v)), DENSE[index] @ v)


def test_problems(backend, own, assert_close):
    y, send = LABELS, backend.asarray
    make = [
        lambda X, y: bilevel.logistic_regression(X, y, X, y),
        lambda X, y: bilevel.logistic_regression(X, y, X, y, groups="each"),
        lambda X, y: Problem(linear_model(X, y, Logistic()), held_out(X, y, Logistic())),
        lambda X, y: Problem(linear_model(as_design(X), y, Squared()), held_out(X, y, Squared())),
    ]
    for build in make:
        sparse_one, dense_one = build(own, send(y)), build(DENSE, y)
        lam = np.full(dense_one.inner.n_hyperparameters, -1.0)
        x = np.arange(1.0, P + 1)
        there = sparse_one.inner.at(send(x), send(lam))
        here = dense_one.inner.at(x, lam)
        assert_close(there.grad, here.grad, rtol=1e-11)
        assert_close(there.hvp(send(x)), here.hvp(x), rtol=1e-11)
        assert_close(there.diag(), here.diag(), rtol=1e-11)
        outer = sparse_one.outer.at(send(x), send(lam))
        assert_close(outer.grad_x, dense_one.outer.at(x, lam).grad_x, rtol=1e-11)


@pytest.mark.parametrize(
    "own",
    [pytest.param(kind, marks=pytest.mark.slow if kind in ALIKE else []) for kind in KINDS],
    indirect=True,
)
def test_estimators(backend, own):
    y = backend.asarray(LABELS)
    for cls in (BilevelRidge, BilevelLogisticRegression):
        with np.errstate(all="ignore"):
            found, expected = (cls(cv=2).fit(X, t) for X, t in ((own, y), (DENSE, LABELS)))
        assert bilevel.get_backend(found.coef_) == backend
        np.testing.assert_allclose(
            backend.to_numpy(found.coef_).reshape(-1),
            expected.coef_.reshape(-1),
            rtol=1e-3,
            atol=1e-6,
        )
        predicted = backend.to_numpy(found.predict(own))
        assert np.isfinite(predicted).all() and predicted.shape == (N,)


def test_groups_and_rows_may_lie_on_the_device(backend, assert_close):
    send, groups = backend.asarray, np.array([0, 1, 1, 0])
    X, y = send(DENSE), send(LABELS)
    there, here = (linear_model(X, y, Logistic(), groups=g) for g in (send(groups), groups))
    x, lam = send(np.ones(P)), send(np.array([0.5, -1.0]))
    assert_close(there.at(x, lam).grad, backend.to_numpy(here.at(x, lam).grad), rtol=0)
    index = np.array([5, 0, 5])
    part = as_design(X).rows(send(index))
    assert_close(part.matmul(x), DENSE[index] @ np.ones(P))
    with pytest.raises(ValueError, match="index must lie in 0, ..., 11"):
        as_design(X).rows(send(np.array([N])))
    with pytest.raises(ValueError, match="index must hold integers"):
        as_design(X).rows(send(np.array([0.5])))


def test_libraries_without_sparse_products_say_so():
    jax = pytest.importorskip("jax.experimental.sparse")
    X = jax.BCOO.fromdense(DENSE)
    with pytest.raises(bilevel.BackendUnavailableError, match="has no sparse arrays"):
        as_design(X)
