"""One fixture runs a test on every array library that is here; see ``--backends``."""

from __future__ import annotations

import os
import sys
import zlib

os.environ.setdefault("JAX_ENABLE_X64", "1")  # before JAX is first imported

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest

from bilevel import BackendUnavailableError, get_backend
from bilevel.backends import Backend

#: Every (library, device) of the test matrix, by the name that ``--backends`` takes.
BACKENDS = {
    "numpy": ("numpy", None),
    "strict-cpu": ("array_api_strict", "CPU_DEVICE"),
    "strict-device1": ("array_api_strict", "device1"),
    "strict-device2": ("array_api_strict", "device2"),
    "torch": ("torch", "cpu"),
    "jax": ("jax", "cpu"),
    "dpnp": ("dpnp", None),
    "cupy": ("cupy", None),
    "torch-cuda": ("torch", "cuda"),
}
_NEEDS_GPU = {"cupy", "torch-cuda"}

#: NumPy under CuPy's names and refusals: by its own name alone, with no other backend beside it.
STAND_IN = "cupy-stand-in"

#: It is imported by that option alone, not to look for doctests.
collect_ignore = ["support/cupy_stand_in"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backends",
        default=os.environ.get("BILEVEL_BACKENDS", "all"),
        help="comma-separated, of: all, " + ", ".join(BACKENDS) + " (or BILEVEL_BACKENDS); "
        "a backend named here must be usable, while 'all' skips those that are not; or "
        f"{STAND_IN} alone, which tests nothing on CuPy",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--backends") == STAND_IN:
        BACKENDS[STAND_IN] = ("cupy", None)
        folder = str(Path(__file__).parent / "support" / "cupy_stand_in")
        sys.path.insert(0, folder)
        before = os.environ.get("PYTHONPATH")  # for the processes that tests start
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, before] if before else [folder])


def _asked(config: pytest.Config) -> list[str]:
    names = [name.strip() for name in config.getoption("--backends").split(",")]
    unknown = set(names) - set(BACKENDS) - {"all"}
    if unknown:
        raise pytest.UsageError(f"--backends knows {list(BACKENDS)}, got {sorted(unknown)}.")
    return list(BACKENDS) if "all" in names else names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        marks = {name: [pytest.mark.gpu] if name in _NEEDS_GPU else [] for name in BACKENDS}
        params = [pytest.param(name, marks=marks[name]) for name in _asked(metafunc.config)]
        metafunc.parametrize("backend", params, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    stand_in = STAND_IN in BACKENDS
    for item in items:
        marker = item.get_closest_marker("not_on_stand_in")
        if stand_in and marker:
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))
        marker = item.get_closest_marker("slow_on")
        if marker and item.callspec.params["backend"] in marker.args:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a module's ``RNG`` draw the same for a test whatever ran before it, on any worker."""
    module = getattr(item, "module", None)
    if hasattr(module, "RNG"):
        module.RNG = np.random.default_rng(zlib.crc32(item.nodeid.encode()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip what runs a kernel on the stand-in for CuPy where no compiler is."""
    try:
        return (yield)
    except Exception as error:
        found: BaseException | None = error
        while found is not None:
            if type(found).__name__ == "CompilerMissing":
                pytest.skip(str(found))
            found = found.__cause__ or found.__context__
        raise


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    """A backend; the test runs once for each."""
    library, device = BACKENDS[request.param]
    try:
        return get_backend(library, device=device)
    except BackendUnavailableError as error:
        if request.config.getoption("--backends") != "all":
            raise
        pytest.skip(str(error))


@pytest.fixture
def xp(backend: Backend) -> Any:
    """The namespace of :func:`backend`."""
    return backend.xp


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, backend: Backend) -> Any:
    """float32 and float64 of :func:`backend`."""
    return getattr(backend.xp, request.param)


@pytest.fixture
def no_mkl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve host CSR products by SciPy, as a plain installation does."""
    from bilevel.backends import _host_csr

    _host_csr._mkl_product.cache_clear()
    monkeypatch.setenv("BILEVEL_MKL", "0")
    yield
    _host_csr._mkl_product.cache_clear()


AssertClose = Callable[..., None]


@pytest.fixture
def assert_close(backend: Backend) -> AssertClose:
    """Compare an array of :func:`backend` with a host array: library, device, dtype, values.

    ``dtype`` is that of the expected host array unless it is given; ``rtol`` is relative to the
    largest number of the expected array.
    """

    def check(
        actual: Any,
        expected: Any,
        *,
        rtol: float | None = None,
        atol: float = 0.0,
        dtype: Any = None,
    ) -> None:
        expected = np.asarray(expected)
        if dtype is None:
            dtype = getattr(backend.xp, expected.dtype.name)
        if backend.name == "numpy":
            assert isinstance(actual, np.ndarray | np.generic), type(actual)
        else:
            assert get_backend(actual).name == backend.name, type(actual)
            assert array_api_compat.device(actual) == backend.device
        assert actual.dtype == dtype, f"dtype {actual.dtype}, expected {dtype}"
        assert tuple(actual.shape) == expected.shape, f"{actual.shape} is not {expected.shape}"
        if rtol is None:
            rtol = 1e-5 if dtype == backend.xp.float32 else 1e-12
        scale = np.max(np.abs(expected), initial=0.0)
        np.testing.assert_allclose(
            backend.to_numpy(actual), expected, rtol=0, atol=atol + rtol * scale
        )

    return check
