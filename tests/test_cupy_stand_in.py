"""The stand-in for CuPy refuses what CuPy refuses, and differs from NumPy where CuPy does.

Each case here was looked up in CuPy's own source: none of them is tested on CuPy by this.
"""

import copy
import importlib
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import launches
import numpy as np
import pytest
import scipy.sparse

import bilevel

_counts = pytest.importorskip("cupy._counts", reason="--backends cupy-stand-in asks for it")

SUPPORT = Path(__file__).parent / "support"
INDEFINITE = np.array([[4.0, 2.0, 1.0], [2.0, -3.0, 0.5], [1.0, 0.5, 2.0]])


@pytest.fixture
def cupy() -> Any:
    return importlib.import_module("cupy")


@pytest.fixture
def sparse() -> Any:
    return importlib.import_module("cupyx.scipy.sparse")


@pytest.fixture
def counting() -> Any:
    return _counts.counting


def host_csr() -> Any:
    rows = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, -1.0]])
    return scipy.sparse.csr_matrix(rows)


# -- refusals ----------------------------------------------------------------------------------


def test_arrays_do_not_become_numpy_arrays_unasked(cupy: Any) -> None:
    a = cupy.arange(3.0)
    for convert in (
        np.asarray,
        np.array,
        lambda a: np.ones(3) @ a,
        lambda a: np.add(np.ones(3), a),
    ):
        with pytest.raises(TypeError, match=r"Implicit conversion|Unsupported type"):
            convert(a)


@pytest.mark.parametrize(
    "call",
    [
        lambda cupy, a, host: a + host,
        lambda cupy, a, host: host * a,
        lambda cupy, a, host: cupy.maximum(a, host),
        lambda cupy, a, host: a @ host,
        lambda cupy, a, host: cupy.matmul(host, a),
        lambda cupy, a, host: cupy.sum(host),
        lambda cupy, a, host: cupy.where(host > 0, a, a),
        lambda cupy, a, host: cupy.concatenate([a, host]),
        lambda cupy, a, host: cupy.stack([host, host]),
        lambda cupy, a, host: cupy.linalg.norm(host),
        lambda cupy, a, host: a.__setitem__(slice(0, 2), host[:2]),
        lambda cupy, a, host: a.__iadd__(host),
    ],
)
def test_numpy_arrays_are_no_operands(cupy: Any, call: Any) -> None:
    with pytest.raises((TypeError, np.linalg.LinAlgError)):
        call(cupy, cupy.arange(3.0), np.arange(3.0))


@pytest.mark.parametrize(
    "call",
    [
        lambda cupy, a: cupy.sum(a, where=a > 0),
        lambda cupy, a: cupy.max(a, initial=0.0),
        lambda cupy, a: cupy.zeros(3, device="cpu"),
        lambda cupy, a: cupy.asarray(a, device="cpu"),
        lambda cupy, a: cupy.take(a, a, mode="clip"),
        lambda cupy, a: cupy.exp(a, order="C"),
        lambda cupy, a: cupy.linalg.solve(a, a, lower=True),
        lambda cupy, a: cupy.unique(a, sorted=True),
        lambda cupy, a: a.sum(where=True),
        lambda cupy, a: cupy.asarray(a, copy=True),  # which 13.3 does not know yet
    ],
)
def test_unknown_keywords_are_refused(cupy: Any, call: Any) -> None:
    with pytest.raises(TypeError, match=r"argument|sum"):
        call(cupy, cupy.arange(3.0))


def test_it_has_the_names_of_every_recorded_version_alone(cupy: Any) -> None:
    from cupy._names import names

    known = set(names("modules", "cupy"))
    public = {name for name in vars(cupy) if not name.startswith("_")} - {"annotations"}
    assert public <= known
    assert not hasattr(cupy, "vecdot")
    assert not hasattr(cupy, "concat")  # of 14.2 alone
    with pytest.raises(AttributeError):
        _ = cupy.ones(3).nothing
    with pytest.raises(NotImplementedError, match="stand-in"):
        cupy.kron(cupy.ones(2), cupy.ones(2))
    assert not hasattr(cupy.ndarray, "__index__")
    assert not hasattr(cupy.ndarray, "__array_namespace__")


def test_a_sparse_matrix_has_no_device(cupy: Any, sparse: Any) -> None:
    matrix = sparse.csr_matrix(host_csr())
    with pytest.raises(NotImplementedError):
        _ = matrix.device
    with pytest.raises(TypeError, match="ambiguous"):
        len(matrix)
    with pytest.raises(TypeError):
        np.ones((1, 2)) @ matrix
    with pytest.raises(ValueError, match="Only bool"):
        sparse.csr_matrix(host_csr().astype(int))
    with pytest.raises(ValueError, match="1-D cupy arrays"):
        sparse.csr_matrix((host_csr().data, host_csr().indices, host_csr().indptr), shape=(2, 3))


def test_it_does_not_load_where_the_real_one_and_a_device_are(tmp_path: Path) -> None:
    """Beside a package of that name and a driver with one device: both of them made up here."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").touch()
    code = (
        "import ctypes\n"
        "class Driver:\n"
        "    def cuInit(self, flags): return 0\n"
        "    def cuDeviceGetCount(self, count): count._obj.value = 1; return 0\n"
        "ctypes.CDLL = lambda name: Driver()\n"
        "import cupy\n"
    )
    for paths, loads in (([str(tmp_path)], False), ([], True)):
        path = os.pathsep.join([str(SUPPORT / "cupy_stand_in"), *paths])
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is loads, done.stderr
        assert ("does not load" in done.stderr) is not loads


# -- devices and streams -----------------------------------------------------------------------


def test_arrays_of_another_device_are_refused(cupy: Any) -> None:
    here = cupy.ones(3)
    with cupy.cuda.Device(1):
        there = cupy.ones(3)
        with pytest.raises(ValueError, match="current device"):
            here + there
        assert float(there.sum()) == 3.0
        moved = cupy.asarray(here)
        assert moved.device == cupy.cuda.Device(1)
        assert here.device == cupy.cuda.Device(0)
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        cupy.exp(there)
    assert there.get().tolist() == [1.0, 1.0, 1.0]  # a copy to the host works from everywhere
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
        cupy.cuda.Device(2).use()


def test_the_current_device_is_a_thread_s_own(cupy: Any) -> None:
    with cupy.cuda.Device(1), ThreadPoolExecutor(1) as pool:
        assert cupy.cuda.runtime.getDevice() == 1
        assert pool.submit(cupy.cuda.runtime.getDevice).result() == 0
        a = cupy.ones(2)
        with pytest.raises(ValueError, match="current device"):
            pool.submit(lambda: a + 1).result()


def test_the_current_stream_is_a_thread_s_own(cupy: Any) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    found = []
    with stream:
        assert cupy.cuda.get_current_stream() == stream
        thread = threading.Thread(target=lambda: found.append(cupy.cuda.get_current_stream()))
        thread.start()
        thread.join()
    assert found == [cupy.cuda.Stream.null]
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null


def test_what_another_stream_writes_is_not_used_before_it_is_done(cupy: Any) -> None:
    from cupy.cuda._stream import RaceError

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        a = cupy.ones(3)
        b = a[1:] + 1
    for use in (lambda: b * 2, lambda: a.get(), lambda: a[0] + 1):
        with pytest.raises(RaceError):
            use()
    other = cupy.cuda.Stream(non_blocking=True)
    other.wait_event(stream.record())
    with other:
        assert float(b[0]) == 2.0
    stream.synchronize()
    assert float(b[0]) == 2.0


def test_the_null_stream_waits_for_streams_that_block(cupy: Any) -> None:
    from cupy.cuda._stream import RaceError

    first, second = cupy.cuda.Stream(), cupy.cuda.Stream()
    with first:
        a = cupy.ones(3)
    assert float(a.sum()) == 3.0
    with first:
        a += 1
    with second, pytest.raises(RaceError):
        a.sum()
    cupy.cuda.Device().synchronize()
    with second:
        assert float(a.sum()) == 6.0


# -- where it differs from NumPy -----------------------------------------------------------------


def test_cholesky_of_an_indefinite_matrix_is_finite_and_wrong(cupy: Any) -> None:
    import cupyx

    a = cupy.asarray(INDEFINITE)
    found = cupy.linalg.cholesky(a).get()
    assert np.isfinite(found).all()
    assert not np.allclose(found @ found.T, INDEFINITE, atol=0.1)
    assert found[0].tolist() == [2.0, 0.0, 0.0]  # what came before the bad pivot is right
    with cupyx.errstate(linalg="raise"), pytest.raises(np.linalg.LinAlgError):
        cupy.linalg.cholesky(a)
    np.testing.assert_allclose(
        cupy.linalg.cholesky(cupy.asarray(INDEFINITE @ INDEFINITE)).get(),
        np.linalg.cholesky(INDEFINITE @ INDEFINITE),
    )


def test_solves_of_singular_matrices_do_not_raise(cupy: Any) -> None:
    import cupyx
    from cupyx.scipy.linalg import solve_triangular

    a, b = cupy.ones((2, 2)), cupy.ones(2)
    assert not np.isfinite(cupy.linalg.solve(a, b).get()).any()
    assert not np.isfinite(solve_triangular(cupy.zeros((2, 2)), b, lower=True).get()).any()
    with cupyx.errstate(linalg="raise"), pytest.raises(np.linalg.LinAlgError):
        cupy.linalg.solve(a, b)


def test_what_errstate_asks_for_is_a_thread_s_own(cupy: Any) -> None:
    import cupyx

    with cupyx.errstate(linalg="raise"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: cupyx.geterr()["linalg"]).result() == "ignore"
    assert cupyx.geterr()["linalg"] == "ignore"


def test_results_without_axes_stay_arrays(cupy: Any) -> None:
    a = cupy.arange(4.0)
    for found in (a.sum(), a[1], a @ a, cupy.max(a), -a.sum(), next(iter(a))):
        assert isinstance(found, cupy.ndarray)
        assert found.shape == ()


def test_numbers_out_of_range_go_round(cupy: Any, sparse: Any) -> None:
    a = cupy.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        cupy.take(a, cupy.asarray([3, -4]), axis=0).get(), a.get()[[0, 2]]
    )
    np.testing.assert_array_equal(a[cupy.asarray([4, 2])].get(), a.get()[[1, 2]])
    np.testing.assert_array_equal(a[..., cupy.asarray([4])].get(), a.get()[..., [0]])
    np.testing.assert_array_equal(a[:, None, cupy.asarray([5])].get(), a.get()[:, None, [1]])
    rows = sparse.csr_matrix(host_csr())[np.array([3, 0])]
    np.testing.assert_array_equal(rows.toarray().get(), host_csr().toarray()[[1, 0]])


def test_float32_stays_float32(cupy: Any) -> None:
    a = cupy.ones(3, dtype=cupy.float32)
    for found in (a + 1.0, 2 * a, cupy.exp(a), a.sum(), a @ a, a**2, cupy.where(a > 0, a, 0.0)):
        assert found.dtype == np.float32
    assert (a + cupy.ones(())).dtype == np.float64
    with pytest.raises(TypeError, match="Cannot cast"):
        cupy.arange(3).__iadd__(0.5)


def test_products_of_sparse_matrices(cupy: Any, sparse: Any, counting: Any) -> None:
    matrix = sparse.csr_matrix(host_csr())
    right = np.arange(6.0).reshape(3, 2)
    for order, copies in (("C", 1), ("F", 0)):
        with counting() as counts:
            found = matrix @ cupy.asarray(np.array(right, order=order))  # type: ignore[call-overload]
        assert found.flags.f_contiguous
        assert not found.flags.c_contiguous
        assert counts.launches["asfortranarray"] == copies
        np.testing.assert_array_equal(found.get(), host_csr() @ right)
    with pytest.raises(ValueError, match="dimension mismatch"):
        matrix @ cupy.ones(2)
    transposed = matrix.T.tocsr()
    np.testing.assert_array_equal(transposed.toarray().get(), host_csr().toarray().T)


def test_repeated_entries_are_noticed_once_and_summed_in_place(cupy: Any, sparse: Any) -> None:
    parts = (cupy.asarray([1.0, 2.0, 5.0]), cupy.asarray([1, 1, 0]), cupy.asarray([0, 2, 3]))
    matrix = sparse.csr_matrix(parts, shape=(2, 3))
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert not matrix.has_canonical_format
    assert matrix.nnz == 3
    matrix @ cupy.ones(3)
    assert matrix.nnz == 2
    assert matrix.has_canonical_format
    matrix.indices = matrix.indices[::-1].copy()
    assert matrix.has_canonical_format  # as noted: nobody looks again


def test_entries_by_row_and_column_are_summed_on_the_way(cupy: Any, sparse: Any) -> None:
    send = cupy.asarray
    numbers = (send([1, 0, 1]), send([2, 1, 2]))
    matrix = sparse.coo_matrix((send([3.0, 2.0, -4.0]), numbers), shape=(2, 3))
    assert matrix.nnz == 3
    rows = matrix.tocsr()
    assert rows.nnz == 2
    assert rows.has_canonical_format
    expected = [[0.0, 2.0, 0.0], [0.0, 0.0, -1.0]]
    assert rows.toarray().get().tolist() == expected
    assert matrix.tocsc().toarray().get().tolist() == expected
    assert rows[1:].toarray().get().tolist() == expected[1:]
    with pytest.raises(ValueError, match="column index exceeds"):
        sparse.coo_matrix((send([1.0]), (send([0]), send([3]))), shape=(2, 3))
    with pytest.raises(NotImplementedError):
        _ = matrix.device


def test_copies_and_pickles(cupy: Any, sparse: Any) -> None:
    a = cupy.arange(3.0)
    for made in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        made += 1
        assert a.get().tolist() == [0.0, 1.0, 2.0]
        assert made.get().tolist() == [1.0, 2.0, 3.0]
    view = a[1:]
    view += 1
    assert a.get().tolist() == [0.0, 2.0, 3.0]


def test_launches_reads_and_writes_are_counted(cupy: Any, counting: Any) -> None:
    with counting() as counts:
        a = cupy.asarray(np.ones((4, 2)))
        _ = a.T.reshape(-1)  # a copy
        _ = a.reshape(-1)[2:]  # two views
        _ = a[cupy.asarray([0, 1])]
        _ = float((a @ cupy.ones(2)).sum())
        _ = a.get()
    assert counts.writes == {"array": 2}
    assert counts.reads == {"float": 1, "get": 1}
    assert counts.launches == {"reshape": 1, "getitem": 1, "ones": 1, "matmul": 1, "sum": 1}
    assert counts.largest_copy == 64
    before = counts.launches.total()
    _ = a + 1
    assert counts.launches.total() == before


# -- kernels -------------------------------------------------------------------------------------

SUMS = r"""
template <typename T>
__device__ T square(T x) { return x * x; }

// Σ x², by warps, then by the block, then by the block that comes last.
template <typename T>
__global__ void __launch_bounds__(64)
squares(const T* __restrict__ x, long long n, T* partial, unsigned int* done, T* out) {
    __shared__ T of_warp[2];
    __shared__ bool last;
    T sum = 0;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x)
        sum += square(x[i]);
    for (int away = 16; away > 0; away /= 2) sum += __shfl_down_sync(0xffffffffu, sum, away);
    if (threadIdx.x % warpSize == 0) of_warp[threadIdx.x / warpSize] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = of_warp[0] + of_warp[1];
        __threadfence();
        last = atomicInc(done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        T total = 0;
        for (int block = 0; block < gridDim.x; ++block) total += partial[block];
        *out = total;
    }
}

extern "C" __global__ void histogram(const int* x, int n, int* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&out[x[i]], 1);
}

extern "C" {
/* Through shared memory of the launch's size; who has nothing to do has left before. */
__global__ void reversed(const double* x, double* y, int n) {
    extern __shared__ double held[];
    if (threadIdx.x >= n) return;
    held[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = held[n - 1 - threadIdx.x];
}

#define NUMBERED(name) name##_numbered
__global__ void NUMBERED(places)(int* out) {
    const int block = blockIdx.x + gridDim.x * blockIdx.y;
    const int thread = threadIdx.x + blockDim.x * threadIdx.y;
    out[block * blockDim.x * blockDim.y + thread] = 100 * block + thread;
}
}
"""


@pytest.fixture
def module(cupy: Any) -> Any:
    names = ["squares<float>", "squares<double>"]
    return cupy.RawModule(code=SUMS, options=("-std=c++17",), name_expressions=names)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_template_kernel_sums_over_warps_and_blocks(
    cupy: Any, module: Any, counting: Any, dtype: str
) -> None:
    kernel = module.get_function(f"squares<{'float' if dtype == 'float32' else 'double'}>")
    x = cupy.arange(1000, dtype=dtype) % 7
    partial, out = cupy.zeros(5, dtype=dtype), cupy.zeros((), dtype=dtype)
    done = cupy.zeros(1, dtype=cupy.uint32)
    with counting() as counts:
        for _ in range(3):  # the counter is back at 0 each time
            kernel((5,), (64,), (x, np.int64(1000), partial, done, out))
    assert counts.launches.total() == 3
    assert not counts.reads
    assert float(out) == np.sum((np.arange(1000) % 7) ** 2)
    assert int(done[0]) == 0


def test_atomics_lose_nothing(cupy: Any, module: Any) -> None:
    x = cupy.asarray(np.arange(3000) % 5, dtype=cupy.int32)
    out = cupy.zeros(5, dtype=cupy.int32)
    module.get_function("histogram")((24,), (128,), (x, np.int32(3000), out))
    assert out.get().tolist() == [600] * 5


def test_shared_memory_of_the_launch(cupy: Any, module: Any) -> None:
    kernel = module.get_function("reversed")
    x, y = cupy.arange(20.0), cupy.full(20, -1.0)
    kernel((1,), (32,), (x, y, np.int32(20)), shared_mem=160)
    assert y.get().tolist() == list(range(19, -1, -1))
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="shared_mem"):
        kernel((1,), (32,), (x, y, np.int32(20)))


def test_places_in_grids_and_blocks(cupy: Any, module: Any) -> None:
    out = cupy.zeros(36, dtype=cupy.int32)
    module.get_function("places_numbered")((3, 2), (2, 3), (out,))
    assert out.get().tolist() == [100 * block + thread for block in range(6) for thread in range(6)]


@pytest.mark.parametrize(
    ("args", "index"),
    [
        (lambda c: (c.ones(4), 4, c.zeros(1), c.zeros(1, dtype="u4"), c.zeros((), dtype="f4")), 4),
        (lambda c: (c.ones(4), np.int32(4), c.zeros(1), c.zeros(1, dtype="u4"), c.zeros(())), 1),
        (lambda c: (c.ones(4), 4.0, c.zeros(1), c.zeros(1, dtype="u4"), c.zeros(())), 1),
        (lambda c: (c.ones(4), 4, c.zeros(1), 0, c.zeros(())), 3),
    ],
)
def test_arguments_that_a_device_would_misread_are_refused(
    cupy: Any, module: Any, args: Any, index: int
) -> None:
    kernel = module.get_function("squares<double>")
    with pytest.raises(TypeError, match=f"Argument {index} is"):
        kernel((1,), (64,), args(cupy))
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel((1,), (64,), (np.ones(4), *args(cupy)[1:]))
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="5 parameters"):
        kernel((1,), (64,), args(cupy)[:4])


def test_an_integer_is_read_by_its_low_bytes_where_it_fits(cupy: Any, module: Any) -> None:
    kernel = module.get_function("histogram")
    x, out = cupy.zeros(40, dtype=cupy.int32), cupy.zeros(1, dtype=cupy.int32)
    kernel((2,), (32,), (x, 40, out))
    assert out.get().tolist() == [40]
    with pytest.raises(TypeError, match="Argument 1 is int64"):
        kernel((2,), (32,), (x, 2**32 + 40, out))


def test_launches_that_no_device_takes_are_refused(cupy: Any, module: Any) -> None:
    out = cupy.zeros(4, dtype=cupy.int32)
    for grid, block in (((1,), (2048,)), ((1, 70000), (1,)), ((1,), (32, 64))):
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match="INVALID"):
            module.get_function("places_numbered")(grid, block, (out,))
    with cupy.cuda.Device(1), pytest.raises(ValueError, match="current device"):
        module.get_function("places_numbered")((1,), (1,), (out,))
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="NOT_FOUND"):
        module.get_function("squares<int>")
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="NOT_FOUND"):
        cupy.RawKernel("__global__ void mangled(int* x) {}", "mangled").compile()


@pytest.mark.parametrize(
    "source",
    [
        '#include <cmath>\nextern "C" __global__ void f(double* x) { *x = 1; }',
        'extern "C" __global__ void f(double* x) { *x = std::exp(1.0); }',
        'extern "C" __global__ void f(int64_t* x) { *x = 1; }',
        'extern "C" __global__ void f(long long* x) { atomicAdd(x, 1); }',
        'extern "C" __global__ void f(double* x) { *x = nothing; }',
    ],
)
def test_sources_that_nvrtc_does_not_take_are_refused(cupy: Any, source: str) -> None:
    with pytest.raises(cupy.cuda.compiler.CompileException):
        cupy.RawKernel(source, "f").compile()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[threadIdx.x] = __shfl_down_sync(1u, x[0], 1);", "mask"),
        ("if (threadIdx.x < 9) x[0] = __shfl_down_sync(~0u, x[0], 1);", "mask"),
        ("if (threadIdx.x < 9) __syncthreads(); else __syncwarp();", "do not reach"),
    ],
)
def test_threads_that_a_device_would_hang_on_are_refused(
    cupy: Any, body: str, message: str
) -> None:
    kernel = cupy.RawKernel(f'extern "C" __global__ void f(int* x) {{ {body} }}', "f")
    for _ in range(2):  # and the next launch begins anew
        with pytest.raises(cupy.cuda.driver.CUDADriverError, match=message):
            kernel((1,), (64,), (cupy.zeros(64, dtype=cupy.int32),))


@pytest.mark.parametrize("synchronized", [True, False])
def test_a_barrier_that_is_missing_shows(cupy: Any, synchronized: bool) -> None:
    barrier = "__syncthreads();" if synchronized else ""
    source = (
        'extern "C" __global__ void f(int* x) { __shared__ int held[32];'
        f"held[threadIdx.x] = x[threadIdx.x]; {barrier} x[threadIdx.x] = held[threadIdx.x ^ 1]; }}"
    )
    x = cupy.arange(32, dtype=cupy.int32)
    cupy.RawKernel(source, "f")((1,), (32,), (x,))
    right = bool(np.all(x.get() == np.arange(32) ^ 1))
    assert right is synchronized


def test_kernels_without_a_compiler(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cupy import _compiled

    monkeypatch.setattr(_compiled, "compiler", lambda: None)
    with pytest.raises(_compiled.CompilerMissing, match="not here"):
        cupy.RawKernel('extern "C" __global__ void g(int* x) {}', "g").compile()


# -- the package on it ---------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True])
def test_repeated_entries_are_summed_before_they_are_squared(
    cupy: Any, sparse: Any, stale: bool
) -> None:
    """The squares first of all: a product would sum the entries on its way."""
    send, indptr = cupy.asarray, [0, 2, 3]
    first = [0, 1, 2] if stale else [1, 1, 2]
    parts = (send([3.0, 4.0, 5.0]), send(first), send(indptr))
    matrix = sparse.csr_matrix(parts, shape=(2, 3))
    assert matrix.has_canonical_format is stale
    matrix.indices = send(np.array([1, 1, 2], dtype=np.int32))
    expected = np.array([[0.0, 7.0, 0.0], [0.0, 0.0, 5.0]]) ** 2
    for call, right, left in (
        ("square_matmul", np.ones(3), expected),
        ("square_rmatmul", np.ones((2, 2)), expected.T),
    ):
        kernel = bilevel.get_backend("cupy").sparse_kernel(matrix)
        np.testing.assert_array_equal(getattr(kernel, call)(send(right)).get(), left @ right)


@pytest.mark.parametrize("kind", launches.KINDS)
@pytest.mark.parametrize("where", ["device", "stream"])
def test_searches_stay_on_the_device_and_the_stream_of_their_caller(
    cupy: Any, where: str, kind: str
) -> None:
    """A thread that fell back to device 0 or to the null stream would be refused here."""
    starts = np.array([[0.0], [2.0], [-3.0]])
    host = bilevel.get_backend("numpy")
    expected = bilevel.multistart(launches.problem(kind, host), starts).best
    stream = cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.Device(1) if where == "device" else stream:
        backend = bilevel.get_backend("cupy")
        found = bilevel.multistart(launches.problem(kind, backend), backend.asarray(starts)).best
        assert found.lam.device == backend.device
        np.testing.assert_allclose(found.lam.get(), expected.lam, rtol=1e-4)
