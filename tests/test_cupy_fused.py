"""The kernels of CuPy compute what the bodies by the standard do; run on the host by the stand-in."""

from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel.backends._fused import Fused

pytest.importorskip("cupy._counts", reason="--backends cupy-stand-in asks for it")

DTYPES = ("float32", "float64")


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cupy() -> Any:
    return bilevel.get_backend("cupy")


def agree(name: str, cupy: Any, launches: int, *arguments: Any) -> None:
    """One launch, and the numbers of the body."""
    from cupy import _counts

    cupy.column_dot(*(cupy.asarray(np.ones((2, 1))),) * 2)  # makes the workspace of the stream

    with _counts.counting() as counts:
        found = getattr(cupy, name)(*arguments)
    assert counts.launches.total() == launches
    expected = getattr(Fused, name)(cupy, *arguments)
    there, here = (np.asarray(cupy.to_numpy(a)) for a in (found, expected))
    assert there.shape == here.shape
    assert there.dtype == here.dtype
    scale = float(np.max(np.abs(here))) or 1.0
    assert np.max(np.abs(there.astype(float) - here)) <= 64 * np.finfo(here.dtype).eps * scale


@pytest.mark.parametrize("shape", [(1,), (700,), (5000,), (300, 3), (40, 2, 3)])
def test_sums_of_sizes(cupy: Any, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    v = cupy.asarray(rng.standard_normal(shape).astype(dtype))
    w = cupy.asarray(rng.standard_normal(shape[0]).astype(dtype))
    agree("absolute_sums", cupy, 1, v)
    agree("absolute_sums", cupy, 1, v, w)


def test_a_step_is_a_new_array(cupy: Any, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, d = (cupy.asarray(rng.standard_normal((500, 2)).astype(dtype)) for _ in range(2))
    before = cupy.to_numpy(x).copy()
    agree("stepped", cupy, 1, x, 0.3, d)
    assert np.array_equal(cupy.to_numpy(x), before)


def test_the_step_of_optimality(cupy: Any, dtype: str) -> None:
    from bilevel.methods._protocol import optimality

    domain = bilevel.Box(-12.0, 12.0)
    for size in (0.0, 1e-30, 1e-5, 0.5, 40.0):
        lam, p = np.array([1.0, 12.0], dtype), np.array([-size, size / 2], dtype)
        there = optimality(domain, cupy, cupy.asarray(lam), cupy.asarray(p))
        here = optimality(domain, bilevel.get_backend("numpy"), lam, p)
        (found,), (expected,) = cupy.scalars(there), bilevel.get_backend("numpy").scalars(here)
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 5, 8])
def test_small_arrays_are_joined(cupy: Any, dtype: str, count: int) -> None:
    rng = np.random.default_rng(2)
    shapes = [(), (3,), (1,), (2, 2)] * 2
    arrays = [cupy.asarray(np.asarray(rng.standard_normal(s), dtype)) for s in shapes[:count]]
    agree("joined", cupy, 1, arrays)
