"""What the backend of CuPy does before a kernel runs: devices, libraries, refusals. No CuPy here."""

from __future__ import annotations

import importlib
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cuda import FakeCuda
from scipy import sparse

from bilevel import BackendUnavailableError, get_backend
from bilevel.backends import cupy as ours
from bilevel.backends import is_sparse, library_of
from bilevel.backends._registry import _device_of


@pytest.fixture
def fake(monkeypatch):
    yield FakeCuda().install(monkeypatch)
    ours._check_libraries.cache_clear()


# -- which device ---------------------------------------------------------------------------------


class Unimplemented:
    """A matrix of cupyx, as far as one asks where it is."""

    def __init__(self, where):
        self.data = SimpleNamespace(device=where)

    def tocsr(self):
        return self

    @property
    def device(self):
        raise NotImplementedError


Unimplemented.__module__ = "cupyx.scipy.sparse._csr"


def test_a_sparse_matrix_is_where_its_numbers_are():
    matrix = Unimplemented("there")
    assert library_of(matrix) == "cupy"
    assert is_sparse(matrix)
    assert _device_of(matrix) == "there"


def test_a_sparse_matrix_finds_its_backend(fake):
    assert get_backend(Unimplemented(fake.Device(0))).device == fake.Device(0)


@pytest.mark.parametrize("name", ["cuda:1", "1", 1])
def test_a_device_that_is_named_becomes_the_current_one(fake, name):
    assert get_backend("cupy", device=name).device == fake.Device(1)
    assert fake.current() == 1
    assert get_backend("cupy").device == fake.Device(1)


def test_an_array_elsewhere_is_refused_and_changes_nothing(fake):
    with pytest.raises(ValueError, match=r"not CuPy's current device \(0\): run inside"):
        get_backend("cupy", device=fake.Device(1))
    assert fake.current() == 0


def test_a_copy_in_another_process_makes_its_device_the_current_one(fake):
    cls, arguments = get_backend("cupy", device="cuda:1").__reduce__()
    fake.Device(0).use()
    assert cls(*arguments).device == fake.Device(1)


def test_a_device_that_is_not_there(fake):
    with pytest.raises(BackendUnavailableError, match=r"finds 2 device\(s\) here, not number 2"):
        get_backend("cupy", device="cuda:2")
    assert fake.current() == 0


def test_another_thread_enters_device_and_stream(fake):
    backend = get_backend("cupy", device="cuda:1")
    fake.local.stream = fake.as_stream("mine")
    context, seen = backend.context(), []

    def work():
        before = (fake.current(), fake.stream().name)
        with context:
            inside = (fake.current(), fake.stream().name)
        seen.append((before, inside, (fake.current(), fake.stream().name)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [((0, "null"), (1, "mine"), (0, "null"))]
    assert (fake.current(), fake.stream().name) == (1, "mine")


# -- whether it computes --------------------------------------------------------------------------


def test_a_device_is_tried_once_by_computing(fake):
    for _ in range(3):
        get_backend("cupy")
    get_backend("cupy", device=1)
    assert fake.computed == [0, 1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CuPy failed to load libnvrtc.so.12: OSError\nmany more lines"),
        ImportError("libcublas.so.12: cannot open shared object file"),
        type("CompileException", (Exception,), {})("cannot open source file"),
    ],
)
@pytest.mark.parametrize("place", ["ones", "eye"])
def test_libraries_that_do_not_load_are_named_with_their_cure(fake, monkeypatch, error, place):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(sys.modules["cupy"], place, fail)
    expected = rf"{type(error).__name__}: .*missing, `pip install 'cupy-cuda12x\[ctk\]'"
    for _ in range(2):  # what failed is not remembered as having worked
        with pytest.raises(BackendUnavailableError, match=expected) as info:
            get_backend("cupy")
        assert "\n" not in str(info.value)


def test_a_missing_solver_library_is_named(fake, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupyx.scipy.linalg", None)
    with pytest.raises(
        BackendUnavailableError, match=r"ModuleNotFoundError: .*cupy-cuda12x\[ctk\]"
    ):
        get_backend("cupy")


def test_a_device_that_computes_nonsense_is_refused(fake, monkeypatch):
    monkeypatch.setattr(sys.modules["cupy"].linalg, "solve", lambda a, b: np.zeros((2, 2)))
    with pytest.raises(BackendUnavailableError, match=r"computes A⁻¹A = 0\.0 instead of 1"):
        get_backend("cupy")


def test_the_extras_bring_the_cuda_libraries():
    tomllib = importlib.import_module("tomllib")
    from pathlib import Path

    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    assert [extras[name][0].partition(">")[0] for name in ("cuda12", "cuda13")] == [
        "cupy-cuda12x[ctk]",
        "cupy-cuda13x[ctk]",
    ]


# -- linear algebra that says nothing -------------------------------------------------------------


def test_it_is_told_to_report_what_has_no_factor(fake):
    backend = get_backend("cupy")
    bent, singular = np.diag([1.0, -1.0]), np.ones((2, 2))
    assert np.all(np.isfinite(backend.xp.linalg.cholesky(bent)))  # as CuPy does
    assert np.all(np.isfinite(backend.xp.linalg.solve(singular, bent)))
    assert backend.cholesky(bent) is None
    assert backend.solve(singular, bent) is None
    assert backend.eigh(np.full((2, 2), np.nan)) is None
    assert not fake.raising  # the user's setting is as it was
    found = backend.solve(2 * np.eye(2), bent)
    assert found.tolist() == [[0.5, 0.0], [0.0, -0.5]]
    assert backend.cholesky(4 * np.eye(2)).tolist() == [[2.0, 0.0], [0.0, 2.0]]


# -- indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nnz", "shape"), [(2**31, (3, 3)), (4, (3, 2**31)), (4, (2**31, 3))])
def test_indices_of_more_than_32_bits_are_refused_before_they_are_cut(fake, nnz, shape):
    backend = get_backend("cupy")
    huge = SimpleNamespace(nnz=nnz, shape=shape)  # its tocsr is never called
    with pytest.raises(ValueError, match="32-bit indices, use the backend 'numpy'"):
        backend.sparse_kernel(huge)


def test_the_squares_of_a_matrix_are_made_once(monkeypatch):
    made = []

    class Counting(ours.CuPyCSR):
        @staticmethod
        def _square(matrix):
            made.append(matrix)
            return matrix.multiply(matrix)

    X = sparse.random_array((6, 4), density=0.5, format="csr", rng=np.random.default_rng(0))
    kernel = Counting(X)
    for _ in range(3):
        assert np.allclose(kernel.square_matmul(np.ones(4)), (X.toarray() ** 2).sum(axis=1))
        assert np.allclose(kernel.square_rmatmul(np.ones(6)), (X.toarray() ** 2).sum(axis=0))
    assert len(made) == 2


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_repeated_entries_are_summed_before_they_are_squared(fake, monkeypatch, form):
    """The kernel of CuPy around matrices of SciPy, whose methods have the same names."""
    monkeypatch.setattr(ours, "_sparse", lambda: sparse)
    dense = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0], [4.0, 3.0, 0.0], [0.5, 0.0, 1.0]])
    row, column = (np.tile(part, 2)[::-1] for part in np.nonzero(dense))
    matrix = sparse.coo_matrix((dense[row, column] / 2, (row, column)), shape=dense.shape)
    if form != "coo":  # SciPy's own conversion would sum them
        key, other = (row, column) if form == "csr" else (column, row)
        order = np.lexsort((-other, key))
        sizes = np.bincount(key, minlength=dense.shape[form == "csc"])
        parts = (matrix.data[order], other[order], np.concatenate([[0], np.cumsum(sizes)]))
        matrix = getattr(sparse, f"{form}_matrix")(parts, shape=dense.shape)
    matrix.has_canonical_format = True  # noted before someone changed the entries
    before = [getattr(matrix, name).copy() for name in vars(matrix) if name in ("data", "indices")]
    kernel = get_backend("cupy").sparse_kernel(matrix)
    v, r, index = np.arange(1.0, 4), np.arange(1.0, 5), np.array([3, 0, 3])
    np.testing.assert_allclose(kernel.matmul(v), dense @ v)
    np.testing.assert_allclose(kernel.rmatmul(r), dense.T @ r)
    np.testing.assert_allclose(kernel.square_matmul(v), dense**2 @ v)
    np.testing.assert_allclose(kernel.square_rmatmul(r), (dense**2).T @ r)
    np.testing.assert_allclose(kernel.rows(index).square_matmul(v), dense[index] ** 2 @ v)
    assert kernel.nnz == np.count_nonzero(dense)
    after = [getattr(matrix, name) for name in vars(matrix) if name in ("data", "indices")]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)  # the user's matrix is as it was
