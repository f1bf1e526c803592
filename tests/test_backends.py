"""What every backend promises: transfers, special functions, linear algebra, clear refusals."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from importlib.metadata import entry_points

import numpy as np
import pytest
import scipy.linalg
import scipy.special
from scipy import sparse

from bilevel import BackendUnavailableError, get_backend
from bilevel.backends import backend_names, backend_of, common_dtype, is_sparse, same_backend

#: From far below to far above what e^t can hold, in float64 and in float32.
EXTREME = np.array([-1e4, -800.0, -100.0, -1.0, 0.0, 1.0, 100.0, 800.0, 1e4])


# -- arrays in and out ---------------------------------------------------------------------------


def test_a_round_trip_changes_nothing(backend, dtype):
    numbers = np.array([[1.5, -2.0], [0.25, 1e3]])
    array = backend.asarray(numbers, dtype=dtype)
    assert array.dtype == dtype
    assert get_backend(array) == backend
    assert np.array_equal(backend.to_numpy(array), numbers)


def test_arrays_of_another_library_are_moved_when_asked(backend):
    numbers = np.array([1.0, 2.0, 3.0])
    there = backend.asarray(numbers)
    host = get_backend("numpy")
    assert np.array_equal(host.asarray(there), numbers)
    assert get_backend(backend.asarray(host.asarray(there))) == backend


def test_host_copy_is_independent(backend):
    if backend.name == "numpy":
        pytest.skip("NumPy arrays are on the host already")
    array = backend.asarray(np.zeros(2))
    host = backend.to_numpy(array)
    host[0] = 1.0
    assert backend.scalars(backend.xp.max(array)) == (0.0,)


def test_scalars_are_python_floats(backend, dtype):
    xp = backend.xp
    t = backend.asarray(np.array([1.0, 2.5]), dtype=dtype)
    found = backend.scalars(xp.sum(t), xp.max(t), t[0])
    assert found == (3.5, 2.5, 1.0)
    assert all(type(value) is float for value in found)
    assert backend.scalars(xp.all(t > 0)) == (1.0,)


def test_true_device_arrays_refuse_implicit_conversion(backend):
    if backend.name not in ("dpnp", "cupy"):
        pytest.skip("this library converts to NumPy when asked to")
    with pytest.raises(TypeError, match=r"[Ii]mplicit conversion"):
        np.asarray(backend.asarray(np.ones(2)))


def test_text_is_refused(backend):
    with pytest.raises(TypeError, match="Expected numbers"):
        backend.asarray(["a", "b"])


def test_jax_without_x64_says_what_to_do():
    pytest.importorskip("jax")
    code = (
        "import numpy as np, bilevel\n"
        "try: bilevel.get_backend('jax').asarray(np.ones(2))\n"
        "except bilevel.BackendUnavailableError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "JAX_ENABLE_X64": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "JAX_ENABLE_X64=1" in run.stdout


# -- special functions ---------------------------------------------------------------------------


def test_special_functions_at_extremes(backend, dtype, assert_close):
    name = str(dtype).rpartition(".")[2]
    t = backend.asarray(EXTREME, dtype=dtype)
    with np.errstate(all="raise", under="ignore"):
        expit, softplus = backend.expit(t), backend.softplus(t)
    eps = float(backend.xp.finfo(dtype).eps)
    assert_close(softplus, np.logaddexp(0.0, EXTREME), dtype=dtype, rtol=4 * eps)
    assert_close(expit, scipy.special.expit(EXTREME), dtype=dtype, rtol=4 * eps)
    # Small values must be accurate relative to themselves: they are the gradients far out.
    small = np.array([-80.0, -20.0, -5.0])
    for f, reference in ((backend.expit, scipy.special.expit), (backend.softplus, _softplus)):
        got = backend.to_numpy(f(backend.asarray(small, dtype=dtype)))
        np.testing.assert_allclose(got, reference(small), rtol=64 * eps, err_msg=name)


def _softplus(t):
    return np.logaddexp(0.0, t)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_logsumexp(backend, dtype, assert_close, axis):
    t = np.stack([EXTREME, -EXTREME, EXTREME / 3])
    actual = backend.logsumexp(backend.asarray(t, dtype=dtype), axis=axis)
    assert_close(actual, scipy.special.logsumexp(t, axis=axis), dtype=dtype)


def test_logsumexp_of_nothing_is_minus_infinity(backend):
    t = backend.asarray(np.array([[-np.inf, -np.inf], [0.0, -np.inf]]))
    assert backend.to_numpy(backend.logsumexp(t)).tolist() == [-np.inf, 0.0]


@pytest.mark.parametrize("columns", [None, 3])
def test_segment_sum(backend, dtype, assert_close, columns):
    rng = np.random.default_rng(0)
    values = rng.integers(-9, 9, (7, columns) if columns else 7).astype(float)
    segments = np.array([0, 3, 1, 0, 3, 3, 1])
    expected = np.zeros((4, *values.shape[1:]))
    np.add.at(expected, segments, values)
    actual = backend.segment_sum(backend.asarray(values, dtype=dtype), backend.asarray(segments), 4)
    assert_close(actual, expected, dtype=dtype)


# -- linear algebra that fails ---------------------------------------------------------------------

#: The third is singular to the last bit; the last two overflow, or hold no numbers.
NOT_DEFINITE = {
    "indefinite": [[1.0, 2.0], [2.0, 1.0]],
    "negative": [[-1.0, 0.0], [0.0, -2.0]],
    "singular": [[1.0, 1.0], [1.0, 1.0]],
    "late": [[4.0, 2.0, 2.0], [2.0, 5.0, 3.0], [2.0, 3.0, -3.0]],
    "infinite": [[np.inf, 0.0], [0.0, 1.0]],
    "NaN": [[np.nan, 0.0], [0.0, 1.0]],
}


def test_cholesky_and_solve(backend, dtype, assert_close):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((5, 5)), rng.standard_normal((5, 2))
    positive = a @ a.T + np.eye(5)
    send = lambda v: backend.asarray(v, dtype=dtype)
    factor = backend.cholesky(send(positive))
    rtol = 1e-4 if dtype == backend.xp.float32 else 1e-11
    assert_close(factor, np.linalg.cholesky(positive), dtype=dtype, rtol=rtol)
    assert_close(backend.solve(send(a), send(b)), np.linalg.solve(a, b), dtype=dtype, rtol=rtol)
    bent = positive - 3 * np.eye(5)  # regular, and not definite
    assert np.linalg.eigvalsh(bent)[0] < -0.1
    assert backend.cholesky(send(bent)) is None
    solved = backend.solve(send(bent), send(b))
    assert_close(solved, np.linalg.solve(bent, b), dtype=dtype, rtol=10 * rtol)


@pytest.mark.parametrize("kind", NOT_DEFINITE)
def test_what_has_no_factor_has_none(backend, dtype, kind):
    assert backend.cholesky(backend.asarray(np.array(NOT_DEFINITE[kind]), dtype=dtype)) is None


@pytest.mark.parametrize("kind", ["singular", "NaN"])
def test_what_has_no_solution_has_none(backend, dtype, kind):
    a = backend.asarray(np.array(NOT_DEFINITE[kind]), dtype=dtype)
    assert backend.solve(a, backend.asarray(np.ones((2, 1)), dtype=dtype)) is None


def test_eigh(backend, dtype, assert_close):
    a = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, -1.0]])
    values, vectors = backend.eigh(backend.asarray(a, dtype=dtype))
    assert_close(values, np.array([-1.0, 1.0, 3.0]), dtype=dtype)
    product = backend.xp.matmul(vectors * values, backend.xp.matrix_transpose(vectors))
    assert_close(product, a, dtype=dtype, rtol=1e-5 if dtype == backend.xp.float32 else 1e-13)
    assert backend.eigh(backend.asarray(np.full((2, 2), np.nan), dtype=dtype)) is None


def test_a_factor_that_stopped_at_its_pivot_is_none(monkeypatch):
    """LAPACK's leavings are finite: a library that does not look at what it reports hands them on."""
    backend = get_backend("numpy")

    def silent(a):
        return np.tril(scipy.linalg.lapack.dpotrf(a, lower=True, clean=True)[0])

    monkeypatch.setattr(backend.xp.linalg, "cholesky", silent)
    assert backend.cholesky(np.array([[4.0, 2.0], [2.0, 5.0]])).tolist() == [[2.0, 0.0], [1.0, 2.0]]
    for kind in ("indefinite", "negative", "singular", "late"):
        a = np.array(NOT_DEFINITE[kind])
        assert np.all(np.isfinite(silent(a)))
        assert backend.cholesky(a) is None


def test_errors_of_another_kind_are_not_taken_for_a_matrix_without_factor(monkeypatch):
    backend = get_backend("numpy")

    def full(a):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(backend.xp.linalg, "cholesky", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.cholesky(np.eye(2))


# -- threads -------------------------------------------------------------------------------------


def test_another_thread_can_compute_in_the_context(backend, assert_close):
    context, found = backend.context(), []
    x = backend.asarray(np.ones(3))

    def work():
        with context:
            found.append(x + x)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert_close(found[0], np.full(3, 2.0))


def test_torch_without_gradients_is_without_them_in_another_thread():
    torch = pytest.importorskip("torch")
    backend, seen = get_backend("torch", device="cpu"), []
    with torch.no_grad():
        context = backend.context()

    def work():
        before = torch.is_grad_enabled()
        with context:
            seen.append((before, torch.is_grad_enabled()))
        seen.append(torch.is_grad_enabled())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False), True]
    assert torch.is_grad_enabled()


# -- vector updates ------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [None, 3])
def test_axpy_and_xpay(backend, dtype, assert_close, columns):
    rng = np.random.default_rng(1)
    shape = (5, columns) if columns else (5,)
    x, y = rng.standard_normal(shape), rng.standard_normal(shape)
    alpha = rng.standard_normal(columns) if columns else np.array(0.3)
    a, x_there, y_there = (backend.asarray(v.copy(), dtype=dtype) for v in (alpha, x, y))
    copy = backend.xp.asarray(y_there, copy=True)
    work = backend.xp.empty_like(x_there)
    assert_close(backend.axpy(a, x_there, copy, work), y + alpha * x, dtype=dtype)
    assert_close(backend.xpay(x_there, a, y_there), x + alpha * y, dtype=dtype)
    assert_close(x_there, x, dtype=dtype)  # only y may change


def test_axpy_takes_a_float(backend, assert_close):
    x, y = backend.asarray(np.ones(3)), backend.asarray(np.arange(3.0))
    assert_close(backend.axpy(0.5, x, y), np.arange(3.0) + 0.5)


# -- random numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, (3, 1, 4)])
def test_normal_numbers_are_equal_on_every_backend(backend, dtype, assert_close, seed):
    host = get_backend("numpy")
    expected = host.normal(seed, (4, 2), np.float64)
    assert_close(backend.normal(seed, (4, 2), dtype), expected, dtype=dtype, rtol=1e-7)
    assert not np.array_equal(expected, host.normal(7, (4, 2), np.float64))


# -- dense linear algebra ------------------------------------------------------------------------


def test_factorisations_solve(backend, dtype, assert_close):
    rng = np.random.default_rng(2)
    B = rng.standard_normal((6, 4))
    A, b = B.T @ B + np.eye(4), rng.standard_normal((4, 2))
    linalg = backend.xp.linalg
    A_there, b_there = backend.asarray(A, dtype=dtype), backend.asarray(b, dtype=dtype)
    L = linalg.cholesky(A_there)
    half = backend.solve_triangular(L, b_there, lower=True)
    whole = backend.solve_triangular(L.T, half, lower=False)
    rtol = 1e-4 if dtype == backend.xp.float32 else 1e-12
    assert_close(whole, np.linalg.solve(A, b), dtype=dtype, rtol=rtol)
    assert_close(linalg.solve(A_there, b_there), np.linalg.solve(A, b), dtype=dtype, rtol=rtol)
    assert_close(linalg.eigh(A_there)[0], np.linalg.eigvalsh(A), dtype=dtype, rtol=rtol)
    column = backend.solve_triangular(L, b_there[:, 0])
    expected = scipy.linalg.solve_triangular(np.linalg.cholesky(A), b[:, 0], lower=True)
    assert_close(column, expected, dtype=dtype, rtol=rtol)


# -- devices, names, refusals --------------------------------------------------------------------


def test_a_backend_is_equal_to_itself_alone(backend):
    again = get_backend(backend.name, device=backend.device)
    assert again == backend
    assert hash(again) == hash(backend)
    assert (backend == get_backend("numpy")) == (backend.name == "numpy")


def test_describe_names_the_library(backend):
    backend.synchronize()
    assert backend.name in backend.describe()


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"Unknown backend 'matlab'.*numpy"):
        get_backend("matlab")
    with pytest.raises(TypeError, match="type dict"):
        get_backend({})
    with pytest.raises(ValueError, match="'cpu' alone, got 'cuda'"):
        get_backend("numpy", device="cuda")


def test_mixed_libraries_are_refused_by_name(backend):
    there, host = backend.asarray(np.ones(2)), np.ones(2)
    if backend.name == "numpy":
        assert backend_of(X=there, y=host) == backend
        return
    with pytest.raises(ValueError, match=rf"y is on numpy \(cpu\) but X is on {backend.name} "):
        backend_of(X=there, y=host)


def test_mixed_devices_are_refused_by_name():
    pytest.importorskip("array_api_strict")
    first, second = (get_backend("array_api_strict", device=f"device{i}") for i in (1, 2))
    message = r"y is on .*device2.* but X is on .*device1"
    with pytest.raises(ValueError, match=message):
        backend_of(X=first.asarray(np.ones(2)), y=second.asarray(np.ones(2)))
    with pytest.raises(ValueError, match=message):
        same_backend(first, second, "X", "y")
    moved = second.asarray(first.asarray(np.ones(2)))
    assert get_backend(moved) == second


def test_dtypes_are_checked_by_name(backend):
    X = backend.asarray(np.ones(2))
    y = backend.asarray(np.ones(2), dtype=backend.xp.float32)
    assert common_dtype(backend, X=X, y=None) == backend.xp.float64
    with pytest.raises(TypeError, match=r"y has dtype .*float32 but X has dtype .*float64"):
        common_dtype(backend, X=X, y=y)
    with pytest.raises(TypeError, match=r"X must be of dtype float32 or float64, got .*int"):
        common_dtype(backend, X=backend.asarray(np.array([1, 2])))


@pytest.mark.parametrize("value", [[1.0], 1.0, None, np.float64(1.0)])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(TypeError, match="array"):
        backend_of(X=value)


def test_sparse_is_for_libraries_that_have_it(backend):
    matrix = sparse.eye_array(3, format="csr")
    arrays = (matrix.data, matrix.indices, matrix.indptr, matrix.shape, backend.xp.float64)
    if backend.name in ("numpy", "cupy", "torch"):
        assert backend.csr(*arrays).nnz == 3
        return
    with pytest.raises(BackendUnavailableError, match=r"no sparse arrays: use the backend 'numpy'"):
        backend.csr(*arrays)
    assert is_sparse(matrix)


FROM_OUTSIDE = {point.name for point in entry_points(group="bilevel.backends")}


@pytest.mark.parametrize("name", [n for n in backend_names() if n not in FROM_OUTSIDE])
def test_a_missing_library_says_how_to_install_it(name, monkeypatch):
    if name == "numpy":
        pytest.skip("NumPy is always there")
    modules = {"torch": "array_api_compat.torch", "cupy": "array_api_compat.cupy"}
    monkeypatch.setitem(sys.modules, {"jax": "jax.numpy", **modules}.get(name, name), None)
    with pytest.raises(BackendUnavailableError, match=r"not installed: `pip install") as info:
        get_backend(name)
    assert "\n" not in str(info.value)


def test_cupy_without_a_driver_or_a_gpu_says_so():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    import cupy

    if cupy.is_available():
        pytest.skip("a GPU is here")
    for device in (None, 0, "cuda:0"):
        with pytest.raises(BackendUnavailableError, match=r"driver|GPU") as info:
            get_backend("cupy", device=device)
        assert "use the backend 'numpy'" in str(info.value)
        assert "\n" not in str(info.value)


def test_devices_that_are_not_there(backend):
    wrong = {"torch": "cuda:7", "jax": "tpu", "dpnp": "opencl:gpu:7", "cupy": "cuda:99"}
    if backend.name not in wrong:
        pytest.skip("no device of this library can be missing")
    with pytest.raises(BackendUnavailableError):
        get_backend(backend.name, device=wrong[backend.name])
