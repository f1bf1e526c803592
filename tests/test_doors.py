"""What comes in at the doors: numbers of every library, one class, pairs that do not fit, layouts."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from doors import CLASSES, SIGNS, SIGNS_VAL, TARGETS, X_VAL, X, all_doors, fault, problem, ridge
from scipy import sparse

import bilevel
from bilevel import Box, Problem, Status, get_backend, inner, losses, outer
from bilevel.backends import COUNT, Number, Whole, flag, python_number
from bilevel.inner.penalties import FreeLast, SingleL2
from bilevel.linalg import cg
from bilevel.methods import HOAG, MAID, PathFollowing
from bilevel.problems import cross_validation, weighted_validation

N, P = X.shape


# -- bad values --------------------------------------------------------------------------------


@pytest.mark.parametrize("door", all_doors(), ids=lambda door: door.name)
def test_a_bad_value_ends_in_a_sentence_that_names_it(door):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        door.knock()  # opens with good arguments
        faults = [
            f"{name}={value!r}"[:80] + f": {found}"
            for name, value in door.cases()
            if (found := fault(door, name, value)) is not None
        ]
    assert faults == []


@pytest.mark.parametrize("other", ["torch", "jax", "array_api_strict"])
def test_two_libraries_do_not_mix(other):
    try:
        elsewhere = get_backend(other).asarray
    except bilevel.BackendUnavailableError as error:
        pytest.skip(str(error))
    parts = {"X": X, "y": SIGNS, "X_val": X_VAL, "y_val": SIGNS_VAL}
    for name, value in parts.items():
        with pytest.raises(ValueError, match="is on|is a"):
            bilevel.logistic_regression(**{**parts, name: elsewhere(value)})
    with pytest.raises(ValueError, match="sample_weight is on"):
        inner.linear_model(X, SIGNS, losses.Logistic(), sample_weight=elsewhere(np.ones(N)))
    for name, value in (("lam0", np.zeros(1)), ("x0", np.zeros(P))):
        with pytest.raises(ValueError, match=f"{name} is on {other}"):
            bilevel.minimize(problem(), **{name: elsewhere(value)})


def test_tensors_without_numbers_are_refused():
    """Torch said that Tensor.item() cannot be called, from deep inside."""
    torch = pytest.importorskip("torch")
    void = torch.zeros((N, P), device="meta")
    for door in (
        lambda: get_backend("torch", device="meta"),
        lambda: bilevel.as_design(void),
        lambda: bilevel.Box(void[0, :], 1.0),
        lambda: bilevel.minimize(problem(), void[0, 0]),
    ):
        with pytest.raises(ValueError, match="'meta' hold no numbers"):
            door()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_tensors_of_several_lengths_are_refused():
    torch = pytest.importorskip("torch")
    nested = torch.nested.nested_tensor([torch.zeros(2)])
    for door in (
        lambda: bilevel.as_design(nested),
        lambda: bilevel.Box(nested),
        lambda: bilevel.minimize(problem(), nested),
    ):
        with pytest.raises(TypeError, match="A nested tensor has rows of several lengths"):
            door()


def test_arrays_that_jax_traces_are_refused():
    """JAX spoke of booleans, from deep inside."""
    jax = pytest.importorskip("jax")
    for door in (
        bilevel.as_design,
        lambda rows: bilevel.Box(rows[0]),
        get_backend("numpy").asarray,
    ):
        with pytest.raises(TypeError, match="call bilevel outside of jax.jit"):
            jax.jit(door)(X)


def test_a_masked_array_becomes_no_array_of_ours(backend):
    """NumPy drops the mask and hands on what is under it."""
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    for door in (backend.asarray, Box, bilevel.design.DenseDesign(X, backend).rows):
        with pytest.raises(TypeError, match="must be a plain array, got a MaskedArray"):
            door(masked)


def test_a_sparse_matrix_is_no_dense_array():
    matrix = sparse.csr_array(X)
    squared = losses.Squared()
    calls = {
        "X": lambda: inner.kernel_ridge(matrix, TARGETS, inner.RBF()),
        "y": lambda: inner.linear_model(X, sparse.csr_array(TARGETS[:, None]), squared),
        "sample_weight": lambda: inner.linear_model(
            X, TARGETS, squared, sample_weight=sparse.csr_array(np.ones((N, 1)))
        ),
        "like": lambda: inner.from_functions(abs, like=matrix, x_shape=(1,), n_hyperparameters=1),
        "x0": lambda: bilevel.minimize(problem(), x0=matrix),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name} must be a dense array, got a sparse matrix"):
            call()


# -- numbers -----------------------------------------------------------------------------------

NUMBERS = [2, 2.0, np.int64(2), np.uint8(2), np.float32(2), np.float16(2), np.asarray(2.0)]
WHOLE = [2, np.int64(2), np.int8(2), np.uint64(2), np.asarray(2), np.asarray(2, dtype=np.int32)]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_of_numpy_are_numbers(value):
    assert type(Number(above=0)(value, "tol")) is float
    found = bilevel.minimize(problem(), value, tol=value, max_seconds=value, max_iter=1)
    assert found.history[0].lam[0] == 2.0
    assert Box(0, value) == Box(0.0, 2.0)
    assert losses.Huber(value) == losses.Huber(2.0)
    assert PathFollowing(trust=value) == PathFollowing(trust=2.0)
    assert bilevel.Ball(value, value).project(np.zeros(1), get_backend("numpy")) == 0.0


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_integers_of_numpy_are_integers(value):
    assert type(COUNT(value, "n")) is int
    found = bilevel.minimize(problem(), max_iter=value, max_passes=value, method=HOAG())
    assert found.nit <= 2
    assert bilevel.multistart(problem(), value, seed=value, max_iter=1).results[1].nit <= 1
    validation = cross_validation(X, TARGETS, losses.Squared(), folds=value, seed=value)
    assert validation.inner.x_shape == (P, 2)
    assert losses.Multinomial(value).output_shape == (2,)
    assert MAID(max_backtracks=value).max_backtracks == 2
    assert len(inner.minibatches(ridge(), value, seed=value)) == 2
    net = inner.mlp(X, TARGETS, losses.Squared(), [value])
    assert net.network.sizes == (P, 2, 1)


def test_0d_arrays_of_every_library_are_numbers(backend):
    one = backend.asarray(np.asarray(1.0))
    assert python_number(one) == 1.0
    assert Whole(1)(backend.asarray(np.asarray(3)), "n") == 3
    assert flag(backend.asarray(np.asarray(True)), "flag") is True
    with pytest.raises(TypeError, match="tol must be a number, got"):
        Number()(backend.asarray(np.asarray(True)), "tol")
    with pytest.raises(TypeError, match=r"tol must be a number, got an array of shape \(1,\)"):
        Number()(backend.asarray(np.ones(1)), "tol")
    small = bilevel.logistic_regression(*(backend.asarray(a) for a in (X, SIGNS, X_VAL, SIGNS_VAL)))
    lam = small.lam(one)
    assert get_backend(lam) == backend
    assert tuple(lam.shape) == (1,)


@pytest.mark.parametrize("lam0", [[0.5], (0.5,), [np.float32(0.5)], [np.asarray(0.5)]], ids=repr)
def test_lists_are_hyperparameters(lam0):
    np.testing.assert_array_equal(problem().lam(lam0), [0.5])


def test_a_seed_of_numpy_draws_the_same():
    drawn = [cross_validation(X, TARGETS, losses.Squared(), seed=s) for s in (3, np.int64(3))]
    np.testing.assert_array_equal(*(p.inner.sample_weight for p in drawn))


# -- where the search starts -------------------------------------------------------------------


def test_a_start_outside_of_the_domain_is_said():
    small = problem(domain=Box(1.0, 2.0))
    with pytest.warns(UserWarning, match=r"lam0 lies outside of the domain, Box\(lower=1.0"):
        found = bilevel.minimize(small, 3.0, max_iter=1, method="hoag")
    assert found.history[0].lam[0] == 2.0
    found = bilevel.minimize(small, max_iter=1, method="hoag")  # nothing was asked for
    assert found.history[0].lam[0] == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_start_at_a_bound_lies_inside(dtype):
    """Also where 0.1 is not the same number in float32; and on a sphere, within rounding."""
    parts = (a.astype(dtype) for a in (X, SIGNS, X_VAL, SIGNS_VAL))
    at_bound = bilevel.logistic_regression(*parts, domain=Box(-0.1, 0.1))
    bilevel.minimize(at_bound, 0.1, max_iter=1)
    ball = bilevel.Ball((0.3, 0.1, -0.2), 0.7)
    parts = (a.astype(dtype) for a in (X, SIGNS, X_VAL, SIGNS_VAL))
    round_one = bilevel.logistic_regression(*parts, groups="each", domain=ball)
    backend = round_one.backend
    for seed in range(20):
        away = backend.asarray(np.random.default_rng(seed).normal(size=3) * 9, dtype=dtype)
        bilevel.minimize(round_one, ball.project(away, backend), max_iter=1)


def test_an_estimator_says_where_it_starts_instead():
    estimators = pytest.importorskip("bilevel.estimators")
    with pytest.warns(UserWarning, match=r"C = 100 lies outside of its bounds, 0.01 to 10"):
        estimators.BilevelLogisticRegression(C=100.0, C_bounds=(0.01, 10.0)).fit(X, SIGNS)
    with pytest.warns(UserWarning, match=r"alpha = 1 lies outside of its bounds, 2 to 3"):
        estimators.BilevelRidge(alpha_bounds=(2.0, 3.0)).fit(X, TARGETS)


# -- models without a minimum ------------------------------------------------------------------

ONES = np.ones(N)
LAST = np.where(np.arange(N) == N - 1, 1.0, -1.0)
ZEROS = np.zeros(N)
WITHOUT_LAST = (np.arange(N) < N - 1).astype(float)

#: Loss, labels, weights: with a free intercept h has no (unique) minimum.
NO_MINIMUM = {
    "logistic": (losses.Logistic(), ONES, None, "class -1"),
    "logistic -": (losses.Logistic(), -ONES, None, r"class \+1"),
    "logistic weights": (losses.Logistic(), LAST, WITHOUT_LAST, r"class \+1 of positive sample_w"),
    "hinge": (losses.SquaredHinge(), ONES, None, "class -1"),
    "hinge weights": (losses.SquaredHinge(), LAST, WITHOUT_LAST, r"class \+1"),
    "multinomial": (losses.Multinomial(4), CLASSES, None, "class 3"),
    "multinomial weights": (losses.Multinomial(3), CLASSES, (CLASSES != 1) * 1.0, "class 1"),
    "probabilities": (losses.Multinomial(2), np.stack([ONES, ZEROS], axis=1), None, "class 1"),
    "poisson": (losses.Poisson(), ZEROS, None, "a count above 0"),
    "poisson weights": (losses.Poisson(), (LAST > 0) * 1.0, WITHOUT_LAST, "a count above 0"),
    "one fold of several": (
        losses.Logistic(),
        LAST,
        np.stack([ONES, WITHOUT_LAST], axis=1),
        r"class \+1 .* in training part 1",
    ),
    "one target of several": (losses.Logistic(), np.stack([SIGNS, ONES], axis=1), None, "part 1"),
}


@pytest.mark.parametrize("name", NO_MINIMUM)
def test_a_free_intercept_without_a_best_value_is_refused(backend, name):
    loss, y, weights, said = NO_MINIMUM[name]
    rows, labels = backend.asarray(X), backend.asarray(y)
    s = None if weights is None else backend.asarray(weights)
    with pytest.raises(ValueError, match=f"y must hold .*{said}"):
        inner.linear_model(rows, labels, loss, sample_weight=s, fit_intercept=True)
    inner.linear_model(rows, labels, loss, sample_weight=s)  # x = 0 is best, or another finite one


@pytest.mark.parametrize("name", NO_MINIMUM)
def test_a_problem_built_by_hand_is_refused(name):
    loss, y, weights, said = NO_MINIMUM[name]
    plain = inner.linear_model(X, y, loss, sample_weight=weights)
    by_hand = inner.LinearModel(
        bilevel.design.WithIntercept(plain.design),
        plain.y,
        loss,
        FreeLast(SingleL2()),
        plain.tail,
        plain.sample_weight,
    )
    held = outer.held_out(X, y, loss, sample_weight=weights, fit_intercept=True)
    with pytest.raises(ValueError, match=f"y must hold .*{said}"):
        Problem(by_hand, held)


def test_the_intercept_of_one_class_runs_away():
    """What is refused: the loss falls without end along the intercept, and each fit says more."""
    b = np.arange(0.0, 700.0, 50.0)
    falling = np.log1p(np.exp(-b))
    assert np.all(np.diff(falling) < 0)
    assert falling[-1] < 1e-280


@pytest.mark.parametrize(
    "build",
    [
        lambda **k: bilevel.logistic_regression(X, ONES, X_VAL, SIGNS_VAL, **k),
        lambda **k: cross_validation(X, LAST, losses.Logistic(), folds=3, **k),
        lambda **k: cross_validation(X, CLASSES * 0, losses.Multinomial(2), **k),
        lambda **k: cross_validation(X, (LAST > 0) * 1.0, losses.Poisson(), folds=4, **k),
        lambda **k: weighted_validation(
            X, LAST, losses.SquaredHinge(), WITHOUT_LAST[:, None], (1 - WITHOUT_LAST)[:, None], **k
        ),
    ],
)
def test_every_way_to_a_problem_refuses_it(build):
    with pytest.raises(ValueError, match="since with a free intercept there is no best model"):
        build(fit_intercept=True)
    assert bilevel.minimize(build(fit_intercept=False), max_iter=2).nit > 0


@pytest.mark.parametrize("loss", [losses.Squared(), losses.Huber()])
def test_a_mean_needs_one_row_alone(loss):
    weights = (np.arange(N) == 3) * 1.0
    inner.linear_model(X, TARGETS, loss, sample_weight=weights, fit_intercept=True)
    with pytest.raises(ValueError, match="sample_weight must be positive in one row at least"):
        inner.linear_model(X, TARGETS, loss, sample_weight=ZEROS, fit_intercept=True)


def test_a_loss_of_a_users_own_is_not_asked():
    class Own:
        """Squared, without the member that says what an intercept needs."""

        def __getattr__(self, name: str) -> Any:
            if name == "support":
                raise AttributeError(name)
            return getattr(losses.Squared(), name)

    assert inner.linear_model(X, TARGETS, Own(), fit_intercept=True).x_shape == (P + 1,)


# -- what does not belong together -------------------------------------------------------------


def test_an_intercept_on_one_side_only_is_said():
    h = inner.linear_model(X, TARGETS, losses.Squared(), fit_intercept=True)
    g = outer.held_out(X_VAL, X_VAL[:, 0], losses.Squared())
    with pytest.raises(ValueError, match="fit_intercept is True for the training rows but False"):
        Problem(h, g)
    wide = np.hstack([X_VAL, np.ones((len(X_VAL), 1))])
    with pytest.raises(ValueError, match="fit_intercept is True for the training rows but False"):
        Problem(h, outer.held_out(wide, X_VAL[:, 0], losses.Squared()))  # the shapes agree


def test_a_domain_that_does_not_project_is_refused():
    class Shrinks:
        def project(self, lam: Any, backend: Any) -> Any:
            return lam[:0]

    with pytest.raises(ValueError, match=r"domain\.project\(lam\) must be .* shape \(1,\)"):
        Problem(problem().inner, problem().outer, Shrinks())


def test_one_split_for_as_many_problems():
    """Held-out rows as many as problems would broadcast the wrong way."""
    k = len(X_VAL)
    h = inner.linear_model(X, np.stack([TARGETS] * k, axis=1), losses.Squared())
    g = outer.held_out(X_VAL, X_VAL[:, 0], losses.Squared())
    with pytest.raises(ValueError, match=f"the inner model has {k} column"):
        Problem(h, g)


# -- arrays that change hands ------------------------------------------------------------------


def layouts(backend: Any) -> dict[str, Any]:
    """Rows of shape (3, 4) with the same numbers, laid out in every way a library has."""
    a = np.arange(12.0).reshape(3, 4)
    whole = backend.asarray(np.arange(48.0).reshape(6, 8))
    found = {
        "plain": backend.asarray(a),
        "transposed": backend.asarray(np.ascontiguousarray(a.T)).T,
        "steps": whole[::2, ::2],
        "empty": whole[:0, :],
        "0-d": whole[0, 0],
        "row of one": backend.xp.broadcast_to(backend.asarray(a[0]), (3, 4)),
    }
    if backend.name != "torch":  # which has none
        found["backwards"] = whole[::-1, ::-1]
    if backend.name == "numpy":
        locked = a.copy()
        locked.flags.writeable = False
        odd = np.frombuffer(b"x" + a.tobytes(), dtype=np.float64, offset=1).reshape(3, 4)
        found |= {"read-only": locked, "Fortran": np.asfortranarray(a), "odd address": odd}
        found |= {"byte order": a.astype(">f8")}
    return found


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_every_layout_is_handed_over_and_back(backend, engine):
    pytest.importorskip(engine)
    from bilevel.backends import autodiff

    for name, array in layouts(backend).items():
        given = autodiff._hand_over(array, engine, backend)
        back = autodiff._hand_back(given * 2, engine, backend)
        assert get_backend(back) == backend, name
        expected = 2 * backend.to_numpy(array)
        np.testing.assert_array_equal(backend.to_numpy(back), expected, err_msg=name)
        assert tuple(back.shape) == tuple(array.shape)


A, B = (np.random.default_rng(1).normal(size=size) for size in ((8, 3), (8, 2)))


def written_in(engine: str, shape: tuple[int, ...], like: Any) -> tuple[Any, Any]:
    """A ridge regression by autodiff, with as many λ as x has axes, and a criterion."""
    namespace = importlib.import_module({"torch": "torch", "jax": "jax.numpy"}[engine])
    rows, targets = namespace.asarray(A), namespace.asarray(B if len(shape) > 1 else B[:, 0])

    def h(x: Any, lam: Any) -> Any:
        misfit = ((rows @ x - targets) ** 2).sum() / 2
        return misfit + namespace.exp(lam).sum() * (x * x).sum() / 2

    objective = inner.from_autodiff(
        h, engine=engine, like=like, x_shape=shape, n_hyperparameters=len(shape)
    )
    criterion = outer.from_autodiff(lambda x, lam: ((x - 0.1) ** 2).sum(), engine=engine, like=like)
    return objective, criterion


@pytest.mark.parametrize("engine", ["torch", "jax"])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_blocks_of_every_library_go_through_every_engine(backend, engine, shape):
    """A column of a block is no compact array: the default method works on blocks."""
    pytest.importorskip(engine)
    objective, criterion = written_in(engine, shape, backend.asarray(np.zeros(1)))
    rng, lam = np.random.default_rng(2), np.full(len(shape), 0.5)
    x, block = rng.normal(size=shape), rng.normal(size=(*shape, 3))
    point = objective.at(*(backend.asarray(a) for a in (x, lam)))
    H = A.T @ A + np.exp(lam).sum() * np.eye(3)
    product = backend.to_numpy(point.hvp(backend.asarray(block)))
    np.testing.assert_allclose(product, np.tensordot(H, block, axes=1), rtol=1e-12)
    pulled = backend.to_numpy(point.cross_vjp(backend.asarray(block)))
    sums = np.sum(x[..., None] * block, axis=tuple(range(x.ndim)))
    np.testing.assert_allclose(pulled, np.exp(lam)[:, None] * sums, rtol=1e-12)
    grad = criterion.at(point.x, point.lam).grad_x
    np.testing.assert_allclose(backend.to_numpy(grad), 2 * (x - 0.1), rtol=1e-12)


@pytest.mark.parametrize("engine", ["torch", "jax"])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_arrays_of_numpy_run_in_the_default_method(engine, shape):
    """The hypergradient at the end is that of a direct solve."""
    pytest.importorskip(engine)
    problem = Problem(*written_in(engine, shape, np.zeros(1)))
    found = bilevel.minimize(problem, 0.5, max_iter=1)
    assert found.status is not Status.NON_FINITE
    H = A.T @ A + np.exp(found.lam).sum() * np.eye(3)
    x = np.linalg.solve(H, A.T @ (B if len(shape) > 1 else B[:, 0]))
    expected = -np.exp(found.lam) * np.sum(np.linalg.solve(H, 2 * (x - 0.1)) * x)
    size = np.abs(expected).max()
    np.testing.assert_allclose(found.jac, expected, atol=0.3 * size + 1e-3)


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_a_product_that_stands_for_many_may_be_overwritten(engine):
    """The gradient of a sum is one number in memory: adding to it would change each entry often."""
    pytest.importorskip(engine)
    h = inner.from_autodiff(
        lambda x, lam: x.sum() ** 2 / 2,
        engine=engine,
        like=np.ones(1),
        x_shape=(4,),
        n_hyperparameters=1,
    )
    product = h.at(np.ones(4), np.zeros(1)).hvp(np.arange(4.0))
    product += np.arange(4.0)
    np.testing.assert_array_equal(product, [6.0, 7.0, 8.0, 9.0])


# -- systems without a solution ----------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_cg_says_that_a_singular_system_has_no_solution(backend, dtype, warm, columns):
    """b has a part in the null space of A, which no A x takes away."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    spectrum = np.array([4.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0])
    matrix = backend.asarray(basis * spectrum @ basis.T, dtype=dtype)
    b = basis @ np.ones(9)
    b = backend.asarray(np.stack([b, b / 3], axis=1) if columns else b, dtype=dtype)
    start = backend.asarray(rng.normal(size=tuple(b.shape)), dtype=dtype) if warm else None
    found = cg(lambda v: backend.xp.matmul(matrix, v), b, tol=1e-3, x0=start, columns=columns)
    assert found.status in (Status.SINGULAR, Status.NEGATIVE_CURVATURE)
    assert found.status is Status.SINGULAR or not found.status.success
    assert np.all(np.isfinite(backend.to_numpy(found.x)))
    least = np.sqrt(3.0) / (3 if columns else 1)
    assert min(found.residual_norms) >= 0.9 * least


def test_cg_solves_what_has_a_solution(backend, dtype):
    """A singular system with b in the range of A; and one whose condition is 1/eps."""
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    spectrum = np.array([3.0, 2.0, 1.0, 0.5, 0.0, 0.0])
    matrix = backend.asarray(basis * spectrum @ basis.T, dtype=dtype)
    b = backend.asarray(basis[:, :4] @ np.ones(4), dtype=dtype)
    found = cg(lambda v: backend.xp.matmul(matrix, v), b, tol=1e-4)
    assert found.status is Status.CONVERGED
    steep = backend.asarray(np.array([1.0, 1e-3, 1e-6, 1e-9]), dtype=dtype)
    found = cg(lambda v: steep * v, steep * 2, tol=1e-7, max_iter=200)
    assert found.status in (Status.CONVERGED, Status.STALLED)


def test_a_flat_direction_is_singular_and_a_bent_one_negative():
    flat, bent = np.diag([1.0, 0.0]), np.diag([1.0, -1.0])
    b = np.array([0.0, 1.0])
    assert cg(lambda v: flat @ v, b, tol=1e-9).status is Status.SINGULAR
    assert cg(lambda v: bent @ v, b, tol=1e-9).status is Status.NEGATIVE_CURVATURE
    both = np.stack([b, b], axis=1)
    assert cg(lambda v: flat @ v, both, tol=1e-9, columns=True).status is Status.SINGULAR
