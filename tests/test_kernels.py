"""The kernels of ``kernels.cu``, run on the host by the stand-in, against the bodies by the standard.

They have run on no device; ``tests/cupy_contract`` compiles them for one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel.backends import _cupy_kernels as kernels
from bilevel.losses import Huber, Logistic, Poisson, Squared, SquaredHinge

_counts = pytest.importorskip("cupy._counts", reason="--backends cupy-stand-in asks for it")

NUMPY = bilevel.get_backend("numpy")
#: (shape of a block): few, one, many columns; one block of threads and many.
SHAPES = [(1, 1), (7, 3), (60, 4), (1024, 1), (1025, 2), (40, 5, 3), (2, 256), (3000, 3)]


@pytest.fixture
def backend() -> Any:
    found = bilevel.get_backend("cupy")
    found.norm(found.asarray(np.ones(2)))  # the sums of a process have their memory from here on
    return found


def close(found: Any, expected: Any, dtype: Any) -> None:
    rtol = 1e-12 if dtype is np.float64 else 2e-5
    sizes = np.abs(np.asarray(expected))
    scale = np.max(sizes[np.isfinite(sizes)], initial=1e-300)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


def compare(backend: Any, name: str, *arguments: Any) -> None:
    """The same operation by kernel and by NumPy, on copies of the arguments, in one launch."""
    dtype = next(a.dtype.type for a in arguments if isinstance(a, np.ndarray))
    own = [backend.asarray(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments]
    with _counts.counting() as counts:
        found = getattr(backend, name)(*own)
    assert counts.launches.total() == 1, counts.launches
    host = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
    expected = getattr(NUMPY, name)(*host)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for a, b in pairs:
        assert a.dtype == b.dtype
        assert a.shape == np.shape(b)
        close(backend.to_numpy(a), b, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks(backend: Any, shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(len(shape))

    def block() -> Any:
        return rng.standard_normal(shape).astype(dtype)

    def numbers() -> Any:
        return rng.uniform(0.5, 2, shape[-1]).astype(dtype)

    compare(backend, "column_dot", block(), block())
    compare(backend, "column_norm", block())
    compare(backend, "dot", block(), block())
    compare(backend, "norm", block())
    compare(backend, "cg_advance", numbers(), *(block() for _ in range(4)))
    compare(backend, "cg_turn", block(), block(), *(numbers() for _ in range(3)))
    compare(backend, "axpy", numbers(), block(), block())
    compare(backend, "xpay", block(), numbers(), block())
    compare(backend, "axpy", np.asarray(0.3, dtype=dtype), block(), block())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_length_of_a_step(backend: Any, dtype: Any) -> None:
    """Also along directions without curvature, of nothing, and where numbers are none."""
    curvature = np.array([2.0, -1.0, 0.0, 1e-30, np.nan, 3.0], dtype=dtype)
    rz = np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.inf], dtype=dtype)
    square = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 1.0], dtype=dtype)
    top = np.array([0.0, 1.0, 0.0, 5.0, 1.0, 1.0], dtype=dtype)
    compare(backend, "cg_length", curvature, rz, square, top, 1e-20)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_the_norm_of_few_entries_has_full_range(backend: Any, size: float, dtype: Any) -> None:
    few = size * np.random.default_rng(0).standard_normal((40, 3)).astype(dtype)
    found = backend.to_numpy(backend.column_norm(backend.asarray(few)))
    close(found, np.linalg.norm(few.astype(float), axis=0), dtype)
    assert np.all(found > 0)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_number_that_is_none_is_seen(backend: Any, odd: float) -> None:
    a = np.ones((50, 2))
    a[7, 1] = odd
    found = backend.to_numpy(backend.column_norm(backend.asarray(a)))
    assert found[0] == pytest.approx(50**0.5)
    assert not np.isfinite(found[1])
    assert not np.isfinite(backend.to_numpy(backend.column_dot(*[backend.asarray(a)] * 2))[1])


@pytest.mark.parametrize("loss", [Logistic(), Squared(), Huber(0.7), Poisson(), SquaredHinge()])
@pytest.mark.parametrize("member", ["value", "derivative", "curvature"])
@pytest.mark.parametrize("shape", [(50,), (50, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses(backend: Any, loss: Any, member: str, shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    t = (3 * rng.standard_normal(shape)).astype(dtype)
    t[:4] = np.array([0.0, 60.0, -60.0, 1.0], dtype=dtype).reshape(4, *(1,) * (len(shape) - 1))
    y = np.sign(rng.standard_normal((50, *(1,) * (len(shape) - 1)))).astype(dtype)
    if isinstance(loss, Poisson):
        y, t = np.abs(y), np.minimum(t, dtype(20))
    with _counts.counting() as counts:
        found = getattr(loss, member)(backend.asarray(y), backend.asarray(t), backend)
    expected = getattr(loss, member)(y, t, NUMPY)
    close(backend.to_numpy(found), np.broadcast_to(expected, t.shape), dtype)
    named = f"{_name(loss)}_{member}"
    assert (counts.launches.total() == 1) or not kernels.has(named)


def _name(loss: Any) -> str:
    """squared_hinge of SquaredHinge."""
    words = "".join("_" + c.lower() if c.isupper() else c for c in type(loss).__name__)
    return words.lstrip("_")


def test_a_kernel_is_known_by_its_name() -> None:
    known = ("column_dot", "cg_turn", "logistic_value", "huber_curvature", "expit_of")
    assert all(map(kernels.has, known))
    assert not kernels.has("column")
    assert not kernels.has("logistic")


def test_what_the_kernels_are_not_written_for_is_left_to_the_standard(backend: Any) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 40))
    strided = backend.asarray(a).T
    close(backend.to_numpy(backend.column_norm(strided)), np.linalg.norm(a.T, axis=0), np.float64)
    wide = rng.standard_normal((3, 300))
    found = backend.to_numpy(backend.column_dot(*[backend.asarray(wide)] * 2))
    close(found, np.sum(wide * wide, axis=0), np.float64)
