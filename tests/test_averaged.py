"""The mean curvature as a preconditioner: what it is, what it proves, and what it saves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bilevel
from bilevel import Problem
from bilevel.design import Standardized, as_design, gram
from bilevel.inner import linear_model
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.methods import PathFollowing
from bilevel.outer import held_out
from bilevel.solvers import NewtonCG, solve

N, P, C = 40, 5, 3
LAM = np.array([0.7])


def data(seed: int = 0, n: int = N, p: int = P) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) * np.geomspace(1, 30, p) + rng.standard_normal(p)


def point_of(loss: Any, backend: Any, *, weighted: bool, fit_intercept: bool = False) -> Any:
    rng = np.random.default_rng(1)
    labels = {
        Squared: rng.standard_normal(N),
        Logistic: np.sign(rng.standard_normal(N)),
        Multinomial: rng.integers(0, C, N),
    }[type(loss)]
    s = rng.uniform(0, 2, N) if weighted else None
    model = linear_model(
        backend.asarray(data()),
        backend.asarray(labels),
        loss,
        sample_weight=None if s is None else backend.asarray(s),
        fit_intercept=fit_intercept,
    )
    x = 0.05 * rng.standard_normal(model.x_shape)
    return model.at(backend.asarray(x), backend.asarray(LAM))


def matrix(apply: Any, point: Any, backend: Any) -> np.ndarray:
    """What a linear map of x does, its columns at once."""
    shape = tuple(point.x.shape)
    size = int(np.prod(shape))
    columns = backend.asarray(np.eye(size).reshape((*shape, size)))
    return backend.to_numpy(apply(columns)).reshape(size, size)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_it_is_the_inverse_where_every_row_bends_alike(backend, weighted, fit_intercept):
    point = point_of(Squared(), backend, weighted=weighted, fit_intercept=fit_intercept)
    apply, _ = point.averaged()
    both = matrix(lambda v: apply(point.hvp(v)), point, backend)
    np.testing.assert_allclose(both, np.eye(both.shape[0]), atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", [Logistic(), Multinomial(C)], ids=["logistic", "multinomial"])
def test_it_is_the_mean_curvature_and_its_bound_holds(backend, loss, weighted, fit_intercept):
    """M by Kronecker products, row by row, and M⁻¹H ⪰ b by its eigenvalues."""
    point = point_of(loss, backend, weighted=weighted, fit_intercept=fit_intercept)
    apply, bottom = point.averaged()
    inverse = matrix(apply, point, backend)
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-9 * np.abs(inverse).max())
    M = _mean_hessian(point, backend, fit_intercept)
    # Where intercepts may be shifted together M is singular; no gradient has a part there.
    np.testing.assert_allclose(M @ inverse @ M, M, atol=1e-9 * np.abs(M).max())
    if fit_intercept:
        assert bottom == 0
    else:
        values = np.linalg.eigvals(inverse @ matrix(point.hvp, point, backend)).real
        assert 0 < bottom <= values.min()


def _mean_hessian(point: Any, backend: Any, fit_intercept: bool) -> np.ndarray:
    X, n = data(), N
    if fit_intercept:
        X = np.hstack([X, np.ones((n, 1))])
    s = point.model.sample_weight
    s = np.ones(n) if s is None else backend.to_numpy(s).reshape(n)
    p = backend.to_numpy(point.curvature)
    bends = (q.reshape(1, 1) if p.ndim == 1 else np.diag(q) - np.outer(q, q) for q in p)
    rows = np.stack(list(bends))
    mean = np.einsum("i,ijk->jk", s, rows) / s.sum()
    penalty = np.exp(LAM[0]) * np.eye(X.shape[1])
    if fit_intercept:
        penalty[-1, -1] = 0.0
    return np.kron((X.T * s) @ X, mean) + np.kron(penalty, np.eye(mean.shape[0]))


@pytest.mark.parametrize("kind", ["dense", "intercept", "standardized"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram(backend, assert_close, kind, weighted):
    X, s = data(), np.random.default_rng(2).uniform(0, 2, N) if weighted else None
    design, known = as_design(backend.asarray(X)), X
    if kind == "intercept":
        design, known = bilevel.design.WithIntercept(design), np.hstack([X, np.ones((N, 1))])
    if kind == "standardized":
        design, known = Standardized.fit(design), (X - X.mean(0)) / X.std(0)
    before = design.passes.total
    found = gram(design, None if s is None else backend.asarray(s))
    assert design.passes.total > before
    assert_close(found, (known.T * (1.0 if s is None else s)) @ known, rtol=1e-9)


def test_there_is_none_where_it_is_of_no_use(backend):
    X, y = backend.asarray(data()), backend.asarray(np.sign(np.arange(N) % 3 - 0.5))
    few = backend.asarray(data(n=8))
    groups = linear_model(X, y, Logistic(), groups=np.arange(P))
    folds = linear_model(X, y, Logistic(), sample_weight=backend.asarray(np.ones((N, 2))))
    wide = linear_model(few, y[:8], Logistic())
    for model in (groups, folds, wide):
        x = backend.asarray(np.zeros(model.x_shape))
        lam = backend.asarray(np.zeros(model.n_hyperparameters))
        assert model.at(x, lam).averaged() is None


def test_a_point_of_another_class_has_none():
    """Its Hessian may be another."""

    class Other(type(point_of(Logistic(), bilevel.get_backend("numpy"), weighted=False))):
        pass

    point = point_of(Logistic(), bilevel.get_backend("numpy"), weighted=False)
    assert point.averaged() is not None
    assert Other(point.model, point.x, point.lam).averaged() is None


def probe(dtype: str, fit_intercept: bool = False, n: int = 700) -> Problem:
    """Features of unlike scales and many rows: a linear probe in small."""
    rng = np.random.default_rng(3)
    p, c = 30, 4
    X = rng.standard_normal((n, p)) @ rng.standard_normal((p, p)) * np.geomspace(1, 0.01, p)
    X = (6 * X).astype(dtype)
    W = rng.standard_normal((p, c))
    y = np.argmax(X @ W + 8 * rng.gumbel(size=(n, c)), axis=1)
    loss, half = Multinomial(c), n // 2
    return Problem(
        linear_model(X[:half], y[:half], loss, fit_intercept=fit_intercept),
        held_out(X[half:], y[half:], loss, fit_intercept=fit_intercept),
    )


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_search_with_it_takes_fewer_passes_to_the_same_end(fit_intercept):
    problem = probe("float64", fit_intercept)
    without = bilevel.minimize(problem, 0.0, method=PathFollowing(rank=0))
    found = bilevel.minimize(problem, 0.0)
    assert without.success
    assert found.success
    assert found.fun == pytest.approx(without.fun, rel=2e-5)
    assert found.passes < 0.8 * without.passes


def test_the_pairs_of_the_last_solve_over_it_save_more():
    """Each correction begins anew in the directions that are slow with the mean curvature."""
    problem = probe("float64", n=4000)  # more rows than the pairs would fill
    without, found = (
        bilevel.minimize(problem, 0.0, method=PathFollowing(pairs=pairs)) for pairs in (0, 8)
    )
    assert without.success
    assert found.success
    assert found.fun == pytest.approx(without.fun, rel=2e-5)
    assert found.passes < 0.95 * without.passes


def test_its_end_is_proven():
    problem = probe("float64")
    found = bilevel.minimize(problem, 0.0)
    assert found.success
    inner = solve(problem.inner, found.lam, found.x, solver=NewtonCG(), tol=1e-10)
    value = problem.outer.at(inner.x, found.lam).value
    assert abs(found.best.value - value) <= found.best.value_error < 1e-2 * value


def test_a_proof_that_rounding_forbids_is_not_sought_again_and_again():
    """In float32 each further correction cost as much as the search, and proved nothing."""
    problem = probe("float32")
    certified = bilevel.minimize(problem, 0.0)
    plain = bilevel.minimize(problem, 0.0, method=PathFollowing(certify=False))
    assert plain.success
    assert certified.success
    assert certified.passes <= 2 * plain.passes


# -- what a further step turns --------------------------------------------------------------------


def turning_ratios(name: str, seed: int) -> float:
    """What is beyond the linear part, over its bound."""
    rng = np.random.default_rng(seed)
    X = data(seed) / 10
    loss = Logistic() if name == "logistic" else Multinomial(C)
    y = np.sign(rng.standard_normal(N)) if name == "logistic" else rng.integers(0, C, N)
    model = linear_model(X, y, loss)
    x = rng.standard_normal(model.x_shape)
    d = rng.standard_normal(model.x_shape) * 10 ** rng.uniform(-2, 0)
    q, t = rng.standard_normal((2, *model.x_shape))
    point, lam = model.at(x, LAM), LAM
    (row,) = point.turning(point.push(np.stack([d, q, t], axis=-1)), (1.0,))
    change = np.sum(q * (model.at(x + d, lam).hvp(t) - point.hvp(t)))
    bend = point.bend(d, np.stack([q, t], axis=-1))
    linear = bend[0, 1]
    return abs(change - linear) / row[2]


@pytest.mark.parametrize("name", ["logistic", "multinomial"])
@given(seed=st.integers(0, 10_000))
def test_turning_bounds_what_is_beyond_the_linear_part(name, seed):
    assert turning_ratios(name, seed) <= 1 + 1e-6


def test_control_a_hundredth_of_it_is_exceeded():
    assert max(turning_ratios("logistic", seed) for seed in range(50)) > 1 / 100


def test_turning_is_for_any_array(backend, assert_close):
    point = point_of(Multinomial(C), backend, weighted=True)
    here = point_of(Multinomial(C), bilevel.get_backend("numpy"), weighted=True)
    directions = np.random.default_rng(4).standard_normal((*here.x.shape, 4))
    shares = (1.0, 0.1)
    known = here.turning(here.push(directions), shares)
    found = point.turning(point.push(backend.asarray(directions)), shares)
    assert_close(found, known, rtol=1e-9)
    assert np.all(known[1] < known[0])


def test_turning_of_a_step_beyond_all_bounds_is_a_number():
    """The sum of its squares overflowed in single precision, with a warning."""
    rng = np.random.default_rng(0)
    X = (30 * rng.standard_normal((200, 5))).astype(np.float32)
    point = linear_model(X, rng.integers(0, 3, 200), Multinomial(3)).at(
        np.zeros((5, 3), np.float32), np.zeros(1, np.float32)
    )
    pushed = point.push((1e3 * rng.standard_normal((5, 3, 3))).astype(np.float32))
    assert np.all(np.isfinite(point.turning(pushed, (1.0, 0.1))))


def test_none_where_the_penalty_bends_too():
    penalty = bilevel.inner.SmoothedElasticNet(0.3)
    model = linear_model(data(), np.sign(np.arange(N) % 3 - 0.5), Logistic(), penalty=penalty)
    point = model.at(np.zeros(P), np.zeros(2))
    assert point.turning(point.push(np.ones((P, 3))), (1.0,)) is None
    assert replace(point).averaged() is None
