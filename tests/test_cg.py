"""Conjugate gradients against dense solves, on every backend."""

import functools
import math
import tracemalloc

import numpy as np
import pytest

import bilevel
from bilevel.linalg import Energy, EstimatedEnergy, cg, contradicted, jacobi
from bilevel.status import REFUTING, Status


def spd(p, condition, seed=0):
    """A dense symmetric positive definite matrix with eigenvalues from 1 to ``condition``."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((p, p)))
    return (basis * np.geomspace(1.0, condition, p)) @ basis.T


def on(backend, dtype="float64", **arrays):
    """The arrays on this backend, in the order they were given."""
    kind = getattr(backend.xp, dtype)
    return [backend.asarray(np.array(a, dtype=dtype), dtype=kind) for a in arrays.values()]


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_equals_a_dense_solve(backend, columns, warm, preconditioned):
    rng = np.random.default_rng(1)
    A, shape = spd(30, 1e3), (30, 3) if columns else (30,)
    b_host, start = rng.standard_normal(shape), rng.standard_normal(shape)
    A_, b, x0, diagonal = on(backend, A=A, b=b_host, x0=start, d=np.diag(A))
    result = cg(
        lambda v: A_ @ v,
        b,
        tol=1e-10,
        x0=x0 if warm else None,
        preconditioner=jacobi(diagonal) if preconditioned else None,
        columns=columns,
    )
    assert result.status is Status.CONVERGED
    assert result.x.shape == shape
    assert result.x.dtype == b.dtype
    assert bilevel.get_backend(result.x) == backend
    assert len(result.residual_norms) == (3 if columns else 1)
    x = backend.to_numpy(result.x)
    np.testing.assert_allclose(x, np.linalg.solve(A, b_host), rtol=0, atol=1e-10)
    # Nothing that belongs to the caller is overwritten.
    np.testing.assert_array_equal(backend.to_numpy(b), b_host)
    np.testing.assert_array_equal(backend.to_numpy(x0), start)


def test_float32_stays_float32(backend):
    A = spd(20, 10.0)
    A_, b = on(backend, "float32", A=A, b=np.ones(20))
    result = cg(lambda v: A_ @ v, b, tol=1e-4)
    assert result.status is Status.CONVERGED
    assert result.x.dtype == backend.xp.float32
    np.testing.assert_allclose(
        backend.to_numpy(result.x), np.linalg.solve(A, np.ones(20)), atol=1e-4
    )


def test_columns_in_lockstep_equal_columns_alone(backend):
    """Each column of a block is the same recursion as that column on its own."""
    rng = np.random.default_rng(2)
    A, b_host = spd(25, 10.0), rng.standard_normal((25, 3))
    tols = (1e-2, 1e-6, 1e-10)
    A_, b = on(backend, A=A, b=b_host)
    block = cg(lambda v: A_ @ v, b, tol=tols, columns=True, verify=False)
    assert block.status is Status.CONVERGED
    singles = []
    for j, tol in enumerate(tols):
        (column,) = on(backend, b=b_host[:, j])
        singles.append(cg(lambda v: A_ @ v, column, tol=tol, verify=False))
        np.testing.assert_allclose(
            backend.to_numpy(block.x)[:, j],
            backend.to_numpy(singles[j].x),
            rtol=0,
            atol=1e-3 * tol + 1e-10,
        )
        assert block.residual_norms[j] <= tol
    counts = [single.n_iter for single in singles]
    assert counts[0] < counts[1] < counts[2] == block.n_iter  # the loose columns stopped early


def test_a_column_may_have_a_shape_of_its_own(backend):
    A, b_host = spd(12, 10.0), np.random.default_rng(3).standard_normal((3, 4, 2))
    A_, b = on(backend, A=A, b=b_host)
    xp = backend.xp
    result = cg(
        lambda v: xp.reshape(A_ @ xp.reshape(v, (12, -1)), v.shape), b, tol=1e-10, columns=True
    )
    expected = np.linalg.solve(A, b_host.reshape(12, 2)).reshape(3, 4, 2)
    np.testing.assert_allclose(backend.to_numpy(result.x), expected, atol=1e-10)


@pytest.mark.parametrize("distinct", [1, 4, 12])
def test_exact_after_as_many_steps_as_distinct_eigenvalues(distinct):
    eigenvalues = np.resize(np.linspace(1.0, 3.0, distinct), 12)
    b = np.random.default_rng(4).standard_normal(12)
    result = cg(lambda v: eigenvalues * v, b, tol=1e-11)
    assert result.status is Status.CONVERGED
    assert result.n_iter == distinct
    np.testing.assert_allclose(result.x, b / eigenvalues, atol=1e-11)


def test_a_perfect_preconditioner_needs_one_step():
    diagonal = np.geomspace(1e-4, 1e4, 50)
    result = cg(lambda v: diagonal * v, np.ones(50), tol=1e-9, preconditioner=jacobi(diagonal))
    assert result.n_iter == 1


def test_a_start_at_the_solution_needs_no_step():
    A, b = spd(10, 50.0), np.ones(10)
    result = cg(lambda v: A @ v, b, tol=1e-8, x0=np.linalg.solve(A, b))
    assert (result.n_iter, result.status) == (0, Status.CONVERGED)


def test_zero_right_hand_side(backend):
    (b,) = on(backend, b=np.zeros(5))
    result = cg(lambda v: 2 * v, b, tol=0.0)
    assert (result.n_iter, result.status, result.residual_norm) == (0, Status.CONVERGED, 0.0)


@pytest.mark.parametrize("condition", [1e2, 1e8])
def test_the_residual_is_the_true_one(condition):
    A, b = spd(60, condition), np.random.default_rng(5).standard_normal(60)
    result = cg(lambda v: A @ v, b, tol=1e-7, max_iter=2000)
    true = np.linalg.norm(b - A @ result.x)
    assert result.residual_norm == pytest.approx(true, rel=1e-10)
    assert (result.status is Status.CONVERGED) == (true <= 1e-7)


def test_an_unreachable_tolerance_is_reported(backend):
    """Rounding stops the true residual near eps ‖A‖ ‖x‖, and CG says so."""
    A = spd(40, 1e6)
    A_, b = on(backend, A=A, b=np.ones(40))
    result = cg(lambda v: A_ @ v, b, tol=1e-16, max_iter=5000)
    assert result.status in (Status.STALLED, Status.MAX_ITER)
    assert 1e-16 < result.residual_norm < 1e-5


def test_max_iter(backend):
    A_, b = on(backend, A=spd(50, 1e6), b=np.ones(50))
    result = cg(lambda v: A_ @ v, b, tol=1e-12, max_iter=3)
    assert (result.n_iter, result.status) == (3, Status.MAX_ITER)


def test_negative_curvature_is_noticed(backend):
    d, b = on(backend, d=[1.0, 2.0, -3.0], b=[1.0, 1.0, 5.0])
    result = cg(lambda v: d * v, b, tol=1e-12)
    assert result.status is Status.NEGATIVE_CURVATURE
    assert np.isfinite(backend.to_numpy(result.x)).all()


def test_negative_curvature_in_one_column_leaves_the_others_alone():
    d = np.array([1.0, 2.0, 3.0, -1.0])
    b = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).T
    result = cg(lambda v: d[:, None] * v, b, tol=1e-12, columns=True)
    assert result.status is Status.NEGATIVE_CURVATURE
    np.testing.assert_allclose(result.x[:, 0], b[:, 0] / d, atol=1e-12)
    np.testing.assert_array_equal(result.x[:, 1], 0.0)


@pytest.mark.parametrize("goal", ["bound", "estimate", "residual"])
@pytest.mark.parametrize(
    ("apply", "status"),
    [
        (lambda r: -r, Status.PRECONDITIONER),
        (lambda r: 0 * r, Status.PRECONDITIONER),
        (lambda r: math.nan * r, Status.NON_FINITE),
        (lambda r: np.roll(r, 1, axis=0) - np.roll(r, -1, axis=0), Status.PRECONDITIONER),
    ],
)
def test_a_preconditioner_that_is_not_positive_is_no_convergence(apply, status, goal):
    """In the norm of M⁻¹ its residual looks like nothing at all."""
    d, b = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    tol = {
        "bound": Energy(1.0, (1e-9, 1e-9), (0.0, 0.0)),
        "estimate": EstimatedEnergy((1e-9, 1e-9), (0.0, 0.0)),
        "residual": 1e-9,
    }[goal]
    result = cg(lambda v: d[:, None] * v, b, tol=tol, preconditioner=apply, columns=True)
    assert result.status is status
    if goal != "residual" and status is Status.PRECONDITIONER:
        assert result.energy_estimates is not None
        assert result.energy_estimates[0] == math.inf
    if goal == "bound" and status is Status.PRECONDITIONER:
        assert result.energy_errors == (math.inf, math.inf)
    single = cg(lambda v: d * v, b[:, 0], tol=1e-9, preconditioner=apply)
    assert single.status is status


@pytest.mark.parametrize("steps", [1, 3, 10, 25])
def test_the_least_curvature_that_was_seen_lies_below_the_ritz_values(backend, steps):
    A, b_host = spd(30, 1e3), np.random.default_rng(steps).standard_normal(30)
    space = [b_host]  # the Krylov space, by Gram-Schmidt in the Euclidean product
    for _ in range(steps - 1):
        new = A @ space[-1]
        for _ in range(2):
            new = new - sum((v @ new) * v / (v @ v) for v in space)
        space.append(new)
    Q = np.stack([v / np.linalg.norm(v) for v in space], axis=1)
    ritz = np.linalg.eigvalsh(Q.T @ A @ Q)[0]
    A_, b = on(backend, A=A, b=b_host)
    tol = EstimatedEnergy((0.0,), (0.0,))
    result = cg(lambda v: A_ @ v, b, tol=tol, max_iter=steps, verify=False)
    assert ritz / 4.01 <= result.curvature <= ritz * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("factor", "refuted"), [(50.0, True), (2.0, True), (0.95, False)])
def test_no_error_is_bounded_by_more_than_the_least_eigenvalue(backend, factor, refuted, seed):
    """A μ, or an M, that is too large: the bound fell to nothing as soon as a Ritz value was less."""
    rng = np.random.default_rng(seed)
    A, b_host = spd(30, 1e3), rng.standard_normal((30, 2))
    least = float(np.linalg.eigvalsh(A)[0])
    A_, b, right = on(backend, A=A, b=b_host, right=A @ b_host)
    for mu, apply in ((factor * least, None), (1.0, lambda r: r / (factor * least))):
        accuracy = Energy(mu, (0.0, 0.0), (1e-6, 1e-6))
        result = cg(
            lambda v: A_ @ v,
            right,
            tol=accuracy,
            preconditioner=apply,
            columns=True,
            verify=False,
        )
        assert result.status is (Status.REFUTED if refuted else Status.CONVERGED)
        away = backend.to_numpy(result.x) - np.linalg.solve(A, A @ b_host)
        errors = np.sqrt(np.sum(away * (A @ away), axis=0))
        assert np.all(errors <= np.array(result.energy_errors))
        assert refuted == (result.energy_errors == (math.inf, math.inf))


def hiding(A, share, seed):
    """The root of A⁻¹, 1 ⪯ A, which sees one direction by ``share`` of itself."""
    values, vectors = np.linalg.eigh(A)
    u = np.random.default_rng(seed).standard_normal(len(A))
    u /= np.linalg.norm(u)
    Q = np.eye(len(A)) - (1 - share) * np.outer(u, u)
    return Q @ (vectors / np.sqrt(values)) @ vectors.T @ Q


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 1e-9, 1e-5])
def test_a_direction_that_a_preconditioner_hides_is_seen_in_the_residual(backend, share, seed):
    """No step goes there, and no product with M⁻¹ counts what is left of it."""
    A, b_host = spd(30, 1e3), np.random.default_rng(seed).standard_normal((30, 2))
    A_, M, b = on(backend, A=A, M=hiding(A, share, seed), b=b_host)
    results = [
        cg(
            lambda v: A_ @ v,
            b,
            tol=Energy(1.0, (0.0, 0.0), (1e-4, 1e-4), top),
            preconditioner=lambda r: M @ r,
            columns=True,
            verify=False,
        )
        for top in (None, float(np.linalg.eigvalsh(A)[-1]) * 1.01)
    ]
    away = backend.to_numpy(results[0].x) - np.linalg.solve(A, b_host)
    errors = np.sqrt(np.sum(away * (A @ away), axis=0))
    assert results[0].status is Status.CONVERGED
    assert np.all(errors > np.array(results[0].energy_errors))  # which is what was believed
    assert results[1].status is Status.REFUTED
    assert results[1].energy_errors == (math.inf, math.inf)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_no_right_preconditioner_hides_anything(backend, power, seed):
    """With the largest eigenvalue itself for the bound, and M between c I and A."""
    rng = np.random.default_rng(seed)
    A = spd(30, 1e3) / 1e3  # the largest eigenvalue is 1: A ⪯ A^power ⪯ I
    values, vectors = np.linalg.eigh(A)
    least = float(values[0] ** (1 - power))
    A_, M, b = on(
        backend, A=A, M=(vectors / values**power) @ vectors.T, b=rng.standard_normal((30, 2))
    )
    result = cg(
        lambda v: A_ @ v,
        b,
        tol=Energy(0.999 * least, (0.0, 0.0), (1e-10, 1e-10), float(values[-1])),
        preconditioner=lambda r: M @ r,
        columns=True,
        verify=False,
    )
    assert result.status is Status.CONVERGED


def test_a_preconditioner_that_is_not_symmetric_is_seen_in_a_block():
    rng = np.random.default_rng(0)
    A, b = spd(30, 1e3), rng.standard_normal((30, 2))
    skew = np.triu(rng.standard_normal((30, 30)), 1)
    M = np.diag(1 / np.diag(A)) + 0.01 * (skew - skew.T)
    accuracy = Energy(1e-4, (0.0, 0.0), (1e-6, 1e-6))
    result = cg(
        lambda v: A @ v, b, tol=accuracy, preconditioner=lambda r: M @ r, columns=True, verify=False
    )
    assert result.status is Status.PRECONDITIONER
    assert result.energy_errors == (math.inf, math.inf)


def test_nan_is_reported(backend):
    """In the right-hand side, in the start, and from the operator."""
    good, bad = on(backend, good=np.ones(4), bad=[1.0, np.nan, 1.0, 1.0])
    for result in (
        cg(lambda v: v, bad, tol=1e-3),
        cg(lambda v: v, good, tol=1e-3, x0=bad),
        cg(lambda v: v * bad, good, tol=1e-3),
        cg(lambda v: v, bad, tol=1e-3, verify=False),
    ):
        assert result.status is Status.NON_FINITE


def test_tolerance_zero_ends_without_a_false_alarm():
    """The residual runs down to underflow; p·Ap = 0 there is no negative curvature."""
    d = np.linspace(1.0, 2.0, 5)
    for dtype in (np.float32, np.float64):
        result = cg(lambda v: d.astype(v.dtype) * v, np.ones(5, dtype), tol=0.0, max_iter=1000)
        assert result.status in (Status.CONVERGED, Status.STALLED)
        np.testing.assert_allclose(result.x, 1 / d, rtol=4 * np.finfo(dtype).eps)


def test_one_scalar_read_an_iteration(backend, monkeypatch):
    reads = []
    original = type(backend).scalars
    monkeypatch.setattr(
        type(backend), "scalars", lambda self, *v: reads.append(len(v)) or original(self, *v)
    )
    A_, b = on(backend, A=spd(40, 1e4), b=np.ones(40))

    def count(n):
        reads.clear()
        assert cg(lambda v: A_ @ v, b, tol=0.0, max_iter=n).n_iter == n
        return len(reads)

    assert count(25) - count(5) == 20


@pytest.mark.parametrize("columns", [False, True])
def test_no_vector_is_allocated_in_an_iteration(columns):
    """Between two products with A nothing of the size of x is allocated on NumPy."""
    p, shape = 50_000, (50_000, 2) if columns else (50_000,)
    diagonal = np.linspace(1.0, 100.0, p)
    scale = diagonal[:, None] if columns else diagonal
    product, grown = np.empty(shape), []

    def operator(v):
        current, peak = tracemalloc.get_traced_memory()
        grown.append(peak - operator.before)
        np.multiply(scale, v, out=product)
        operator.before = current
        tracemalloc.reset_peak()
        return product

    operator.before = 0
    tracemalloc.start()
    try:
        cg(operator, np.ones(shape), tol=0.0, max_iter=20, columns=columns, verify=False)
    finally:
        tracemalloc.stop()
    assert len(grown) == 20
    # NumPy's buffer for a broadcast operand has a fixed size, some 64 KiB.
    assert max(grown[2:]) < p * 8 / 4


@pytest.mark.parametrize(("condition", "plateau"), [(10.0, False), (1e8, True)])
def test_a_bound_shows_what_an_estimate_would_have_missed(condition, plateau):
    """Where the last steps say little of those to come the estimate stops far from the solution."""
    A = spd(60, condition)
    b = np.linalg.cholesky(A) @ np.ones(60)
    goals = (0.0,), (0.3,)
    bounded, estimated = (
        cg(lambda v: A @ v, b[:, None], tol=tol, columns=True, verify=False, max_iter=2000)
        for tol in (Energy(1.0, *goals), EstimatedEnergy(*goals))
    )
    error = estimated.x[:, 0] - np.linalg.solve(A, b)
    missed = np.sqrt(error @ A @ error) / estimated.energy_estimates[0]
    assert (missed > 2) == plateau
    assert bounded.misjudged == pytest.approx(missed if plateau else 0.0, rel=0.5)
    assert estimated.misjudged == 0


@pytest.mark.parametrize("tol", [-1.0, float("nan"), [1e-3, 1e-3]])
def test_tolerance_is_checked_at_the_door(tol):
    with pytest.raises(ValueError, match="tol must be one number|must be finite and not neg"):
        cg(lambda v: v, np.ones(3), tol=tol)


@pytest.mark.parametrize("seed", range(300))
def test_a_right_inverse_in_single_precision_is_not_contradicted(seed):
    """Its products are neither symmetric nor positive beyond their rounding."""
    rng = np.random.default_rng(seed)
    A = spd(40, 10 ** rng.uniform(6, 7), seed).astype(np.float32)
    M = np.linalg.inv(A.astype(np.float64)).astype(np.float32)
    found = contradicted(
        lambda V: A @ V,
        np.zeros(40, dtype=np.float32),
        bilevel.get_backend("numpy"),
        1.0,
        top=float(np.linalg.eigvalsh(A.astype(np.float64))[-1]),
        preconditioner=lambda r: M @ r,
    )
    assert found in (None, Status.STALLED)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.0, 1e-9, 1e-3])
@pytest.mark.parametrize("stated", [True, False])
def test_a_hidden_direction_is_contradicted(backend, dtype, seed, share, stated):
    """With an upper bound of A, and by a product where none is stated."""
    A = spd(30, 1e3)
    inverse = np.linalg.inv(A)
    A_, wrong, right, like = on(
        backend, dtype, A=A, M=hiding(A, share, seed), right=inverse, like=np.zeros(30)
    )
    top = 1.01 * float(np.linalg.eigvalsh(A)[-1]) if stated else None
    ask = functools.partial(contradicted, lambda V: A_ @ V, like, backend, top=top)
    assert ask(1.0, preconditioner=lambda r: wrong @ r) in REFUTING
    assert ask(0.99, preconditioner=lambda r: right @ r) is None


def test_a_crude_bound_decides_when_to_stop_and_an_estimate_what_is_left(backend):
    """A μ of a millionth of the spectrum bounds the error, and says far too much of it."""
    rng, values = np.random.default_rng(0), np.geomspace(1, 30, 60)
    A = backend.asarray(np.diag(values))
    b = backend.asarray(rng.standard_normal((60, 2)))
    goals = (0.0, 0.0), (1e-3, 1e-3)
    bound, crude = (
        cg(lambda v: A @ v, b, tol=Energy(1e-6, *goals, None, crude), columns=True, verify=False)
        for crude in (False, True)
    )
    assert bound.n_iter == crude.n_iter
    assert bound.energy_errors == crude.energy_errors
    assert bound.energy_estimates == bound.energy_errors
    errors = backend.to_numpy(b) / values[:, None] - backend.to_numpy(crude.x)
    true = np.sqrt(np.sum(values[:, None] * errors**2, axis=0))
    assert np.all(true <= crude.energy_errors)
    assert np.all(true <= crude.energy_estimates)
    assert np.all(np.asarray(crude.energy_estimates) <= 0.1 * np.asarray(crude.energy_errors))
