"""Pairs as a preconditioner: what they are in theory, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bilevel.linalg import QuasiNewton, Recorder, Residual, cg, jacobi
from bilevel.linalg.preconditioners import Nystrom
from bilevel.testing import strategies as sts


def spd(spectrum: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))
    return (basis * np.asarray(spectrum)) @ basis.T


def dense(apply: Any, p: int) -> Any:
    """M⁻¹ as a matrix, asked for as one block."""
    return apply(np.eye(p))


def seen_by_cg(operator: Any, b: Any, keep: int, steps: int) -> tuple[Any, Any]:
    recorder = Recorder(operator, keep, columns=False)
    cg(recorder, b, tol=0.0, max_iter=steps, verify=False)
    return recorder.take()


def test_all_conjugate_pairs_are_the_inverse(backend: Any) -> None:
    A = spd(np.geomspace(1.0, 50.0, 6))
    A_, b = (backend.asarray(a) for a in (A, np.arange(1.0, 7.0)))
    pairs = QuasiNewton.of(*seen_by_cg(lambda v: A_ @ v, b, keep=6, steps=6))
    assert pairs is not None and pairs.directions.shape == (6, 6)
    rhs = np.random.default_rng(1).standard_normal((6, 3))
    inverse = pairs.inverse(None, pairs.gamma(None, 1.0))
    found = inverse(backend.asarray(rhs))
    np.testing.assert_allclose(backend.to_numpy(found), np.linalg.solve(A, rhs), rtol=1e-8)
    one = inverse(backend.asarray(rhs[:, 0]))
    np.testing.assert_allclose(backend.to_numpy(one), np.linalg.solve(A, rhs[:, 0]), rtol=1e-8)


def test_float32_stays_float32(backend: Any) -> None:
    single = backend.xp.float32
    A = backend.asarray(spd([1.0, 2.0, 9.0]), dtype=single)
    b = backend.asarray(np.ones(3), dtype=single)
    pairs = QuasiNewton.of(*seen_by_cg(lambda v: A @ v, b, keep=2, steps=2))
    assert pairs is not None and pairs.products.dtype == single
    assert pairs.inverse(jacobi(b), pairs.gamma(jacobi(b), None))(b).dtype == single


@given(
    sts.definite_systems(max_condition=1e6), st.integers(1, 4), st.integers(0, 99), st.booleans()
)
def test_the_spectrum_is_bounded_below(
    system: tuple[Any, Any, int], m: int, seed: int, scaled: bool
) -> None:
    """M⁻¹A ⪰ γ μ, and 1 on the span of any directions, over I and over the diagonal."""
    A = np.asarray(system[0], dtype=np.float64)
    p = len(A)
    S = np.random.default_rng(seed).standard_normal((p, min(m, p)))
    pairs = QuasiNewton.of(S, A @ S)
    if pairs is None:
        return
    base = jacobi(np.diag(A)) if scaled else None
    root = np.sqrt(np.diag(A)) if scaled else np.ones(p)
    mu = np.linalg.eigvalsh(A / root[:, None] / root).min()
    gamma = pairs.gamma(base, mu)
    M = dense(pairs.inverse(base, gamma), p)
    factor = np.linalg.cholesky(A)
    spectrum = np.linalg.eigvalsh(factor.T @ (M + M.T) / 2 @ factor)
    assert np.linalg.norm(M - M.T) <= 1e-8 * np.linalg.norm(M)
    assert gamma * mu <= 1
    assert spectrum.min() >= gamma * mu * (1 - 1e-6)
    kept = pairs.directions
    np.testing.assert_allclose(M @ (A @ kept), kept, atol=1e-6 * np.linalg.norm(kept))


def test_pairs_of_another_matrix_keep_it_definite_and_not_the_bound() -> None:
    """The negative control of the bound, and why it asks for the same Hessian."""
    A, other = spd(np.geomspace(1.0, 100.0, 8)), 40 * spd(np.geomspace(1.0, 100.0, 8), seed=3)
    S = np.random.default_rng(0).standard_normal((8, 3))
    pairs = QuasiNewton.of(S, other @ S)
    assert pairs is not None
    gamma = pairs.gamma(None, 1.0)
    M = dense(pairs.inverse(None, gamma), 8)
    np.testing.assert_allclose(M, M.T, atol=1e-12)
    assert np.linalg.eigvalsh(M).min() > 0
    factor = np.linalg.cholesky(A)
    assert np.linalg.eigvalsh(factor.T @ M @ factor).min() < 0.5 * gamma


def test_outliers_are_paid_for_once() -> None:
    """Six large eigenvalues cost the next solve nothing; those of another matrix no less."""
    spectrum = np.concatenate([np.geomspace(1e3, 1e6, 6), np.linspace(1.0, 2.0, 54)])
    A, other = spd(spectrum), spd(spectrum, seed=3)
    b, c = np.random.default_rng(0).standard_normal((2, 60))

    exact = np.linalg.solve(A, c)

    def steps(pairs: QuasiNewton | None) -> int:
        """To a millionth of the error, truly measured: of another A the bound says nothing."""
        inverse = None if pairs is None else pairs.inverse(None, pairs.gamma(None, 1.0))
        for k in range(1, 200):
            found = cg(lambda v: A @ v, c, tol=0.0, max_iter=k, preconditioner=inverse)
            error = found.x - exact
            if error @ A @ error <= 1e-12 * exact @ A @ exact:
                return k
        raise AssertionError("no convergence")

    plain = steps(None)
    learnt = steps(QuasiNewton.of(*seen_by_cg(lambda v: A @ v, b, keep=8, steps=plain)))
    unlearnt = steps(QuasiNewton.of(*seen_by_cg(lambda v: other @ v, b, keep=8, steps=plain)))
    assert learnt <= plain / 2
    assert unlearnt >= plain


def test_recording_costs_no_product_and_bounded_memory(backend: Any) -> None:
    A = backend.asarray(spd(np.geomspace(1.0, 1e3, 12)))
    b = backend.asarray(np.random.default_rng(0).standard_normal((12, 2)))
    calls = []

    def operator(v: Any) -> Any:
        calls.append(v.shape)
        return A @ v

    recorder = Recorder(operator, 4, columns=True)
    seen = cg(recorder, b, tol=Residual((1e-8, 1e-8)), columns=True, verify=False)
    assert len(calls) == seen.n_iter > 4
    assert len(recorder) == 4
    directions, products = recorder.take()
    assert len(recorder) == 0
    # Copies: what CG does to its block afterwards does not reach them.
    S, Y = backend.to_numpy(directions), backend.to_numpy(products)
    assert S.shape == (12, 4)
    np.testing.assert_allclose(Y, backend.to_numpy(A) @ S, rtol=1e-6, atol=1e-12 * np.abs(Y).max())


def test_recording_every_column(backend: Any) -> None:
    A = backend.asarray(spd(np.geomspace(1.0, 1e3, 12)))
    b = np.random.default_rng(0).standard_normal((12, 3))
    recorder = Recorder(lambda v: A @ v, 2, columns=True, every=True)
    for block in (b, b + 1, b[:, :2]):  # a block narrows where a column has come to its end
        recorder(backend.asarray(block))
    S, Y = (backend.to_numpy(a) for a in recorder.take())
    np.testing.assert_array_equal(S, np.concatenate([b + 1, b[:, :2]], axis=1))
    np.testing.assert_allclose(Y, backend.to_numpy(A) @ S, rtol=1e-6, atol=1e-12 * np.abs(Y).max())


def test_pairs_without_curvature_are_left_out(backend: Any) -> None:
    S = np.eye(4)[:, :3]
    Y = S * np.array([2.0, -1.0, 0.0])  # convex, concave and flat
    pairs = QuasiNewton.of(backend.asarray(S), backend.asarray(Y))
    assert pairs is not None and pairs.directions.shape == (4, 1)
    assert QuasiNewton.of(backend.asarray(S[:, 1:]), backend.asarray(Y[:, 1:])) is None
    assert QuasiNewton.of(backend.asarray(S * np.nan), backend.asarray(Y)) is None
    # The same direction twice, up to rounding, counts once.
    twice = backend.asarray(np.stack([S[:, 0], S[:, 0] * (1 + 1e-12)], axis=-1))
    again = QuasiNewton.of(twice, 2.0 * twice)
    assert again is not None and again.directions.shape == (4, 1)


@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_blocks_of_any_shape(shape: tuple[int, ...]) -> None:
    A = spd(np.geomspace(1.0, 50.0, 6))
    rng = np.random.default_rng(0)
    S = rng.standard_normal((6, 2))
    base = jacobi(np.diag(A).reshape(shape))
    pairs = QuasiNewton.of(S.reshape(*shape, 2), (A @ S).reshape(*shape, 2))
    flat = QuasiNewton.of(S, A @ S)
    assert pairs is not None and flat is not None
    r = rng.standard_normal((6, 3))
    there = flat.inverse(jacobi(np.diag(A)), 0.5)(r)
    np.testing.assert_allclose(pairs.inverse(base, 0.5)(r.reshape(*shape, 3)).reshape(6, 3), there)


@pytest.mark.parametrize("spectrum", [[1.0, -2.0, 0.5], [np.nan, 1.0, 1.0]], ids=["bent", "NaN"])
def test_a_sketch_of_what_is_not_positive_changes_nothing(backend: Any, spectrum: Any) -> None:
    """It asks for a Cholesky factor that is not there: some libraries raise, some give numbers."""
    A = backend.asarray(np.diag(spectrum))
    like = backend.asarray(np.ones(3))
    sketch = Nystrom.of(lambda v: A @ v, like, rank=3, seed=0)
    r = np.array([1.0, 2.0, 3.0])
    assert backend.to_numpy(sketch.values).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(backend.to_numpy(sketch.inverse(1.0)(backend.asarray(r))), r)


def test_pairs_whose_image_overflows_speak_for_no_scale(backend: Any) -> None:
    pairs = QuasiNewton.of(backend.asarray(np.eye(3)[:, :2]), backend.asarray(np.eye(3)[:, :2]))
    assert pairs is not None
    with np.errstate(invalid="ignore"):
        assert pairs.gamma(lambda r: r + np.inf, 4.0) == 0.25
        assert pairs.gamma(lambda r: r + np.inf, None) == 1.0
