"""CuPy arrays on an NVIDIA GPU, with cuSPARSE products.

What an iteration does beside its products is done in few launches, by kernels of its own: each
takes some microseconds, which forty of them add up to more than a pass over less than 10⁷ entries.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ._blocks import Writable
from ._cupy_fused import CuPyFused
from ._processes import NotForked
from ._protocol import Array, BackendUnavailableError, SparseKernel
from ._sparse_check import check_csr, short_indices
from ._transposing_csr import TransposingCSR
from .array_api import ArrayAPIBackend


class CuPyBackend(Writable, CuPyFused, NotForked, ArrayAPIBackend):
    """CuPy on one device, which is the current one of CuPy in this thread.

    Parameters
    ----------
    device : int, str ("cuda:0") or cupy.cuda.Device, optional
        A number or a name makes that device the current one of this thread, as ``Device.use`` does.
        A Device, as every array has one, must be the current one.
    """

    name = "cupy"
    module = "array_api_compat.cupy"
    install = "pip install 'bilevel[cuda12]'` or, for CUDA 13, `pip install 'bilevel[cuda13]'"

    def _parse_device(self, device: Any) -> Any:
        number = _device_number(device)
        count = _count_devices()
        if number >= count:
            raise BackendUnavailableError(
                f"CuPy finds {count} device(s) here, not number {number}: choose a smaller number."
            )
        cuda = importlib.import_module("cupy").cuda
        found = cuda.Device(number)
        if not hasattr(device, "id"):
            found.use()
        current = cuda.runtime.getDevice()
        if number != current:
            raise ValueError(
                f"The device {device!r} is not CuPy's current device ({current}): run inside "
                f"`with cupy.cuda.Device({number}):`."
            )
        return found

    def _probe(self, device: Any) -> Any:
        _count_devices()
        cuda = importlib.import_module("cupy").cuda
        found = cuda.Device() if device is None else device
        _check_libraries(int(found.id))
        return found

    def _device_name(self) -> Any:
        return int(self.device.id)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = importlib.import_module("cupy").asnumpy(array)
        return host

    def context(self) -> AbstractContextManager[Any]:
        with self.device:
            return _entered(self.device, importlib.import_module("cupy").cuda.get_current_stream())

    def synchronize(self) -> None:
        self.device.synchronize()

    def describe(self) -> str:
        cupy = importlib.import_module("cupy")
        properties = cupy.cuda.runtime.getDeviceProperties(self.device.id)
        return f"{super().describe()} ({properties['name'].decode()})"

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        total = self.xp.zeros((n_segments, *values.shape[1:]), dtype=values.dtype)
        importlib.import_module("cupy").add.at(total, segments, values)
        return total

    # CuPy looks at what cuSOLVER reports only where it is told to raise: else a matrix without a
    # factor gives finite numbers. The setting is the thread's own.

    def cholesky(self, a: Array) -> Array | None:
        with importlib.import_module("cupyx").errstate(linalg="raise"):
            return super().cholesky(a)

    def solve(self, a: Array, b: Array) -> Array | None:
        with importlib.import_module("cupyx").errstate(linalg="raise"):
            return super().solve(a, b)

    def eigh(self, a: Array) -> tuple[Array, Array] | None:
        with importlib.import_module("cupyx").errstate(linalg="raise"):
            return super().eigh(a)

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        linalg = importlib.import_module("cupyx.scipy.linalg")
        return linalg.solve_triangular(a, b, lower=lower)

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        check_csr(data, indices, indptr, shape, "X")
        _refuse_long(len(data), shape)
        numbers = (self.asarray(part) for part in short_indices(indices, indptr, shape))
        arrays = (self.asarray(data, dtype=dtype), *numbers)
        return CuPyCSR(_sparse().csr_matrix(arrays, shape=shape))

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        _refuse_long(int(matrix.nnz), matrix.shape)
        rows = matrix.tocsr()
        # Built anew: what is noted about the order of the entries may be older than they are.
        arrays = (rows.data, rows.indices, rows.indptr)
        return CuPyCSR(_sparse().csr_matrix(arrays, shape=rows.shape))


def _device_number(device: Any) -> int:
    """Read 0, "0", "cuda", "cuda:0" or a Device as a number."""
    if hasattr(device, "id"):
        return int(device.id)
    text = str(device).removeprefix("cuda").removeprefix(":") or "0"
    if not text.isdigit():
        raise ValueError(f"device must be a number or 'cuda:NUMBER' for CuPy, got {device!r}.")
    return int(text)


def _count_devices() -> int:
    """Count the GPUs, or say why there is none."""
    runtime = importlib.import_module("cupy").cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        raise BackendUnavailableError(
            f"CuPy is installed but cannot reach a GPU ({error}): install or update the NVIDIA "
            "driver, or use the backend 'numpy'."
        ) from error
    if count == 0:
        raise BackendUnavailableError(
            "CuPy finds no NVIDIA GPU here: make one visible (CUDA_VISIBLE_DEVICES), or use the "
            "backend 'numpy'."
        )
    return count


#: The wheels of CuPy bring no CUDA library of their own; since CuPy 14 they have this extra.
_CTK = "`pip install 'cupy-cuda12x[ctk]'` or, for CUDA 13, `pip install 'cupy-cuda13x[ctk]'`"


@functools.cache
def _check_libraries(number: int) -> None:
    """Compute on the current device, once: a kernel, a product and a solve load a library each."""
    cupy = importlib.import_module("cupy")
    try:
        ones = cupy.ones((2, 2))
        product = (ones + ones) @ ones + cupy.eye(2)
        importlib.import_module("cupyx.scipy.linalg")
        found = cupy.linalg.solve(product, product)[0, 0]
        cupy.cuda.Device(number).synchronize()
    except Exception as error:  # of import, of the compiler, of the driver: classes of their own
        raise BackendUnavailableError(
            f"CuPy reaches the GPU {number}, but cannot compute on it "
            f"({type(error).__name__}: {_first_line(error)}). Where a CUDA library is missing, "
            f"{_CTK} brings it."
        ) from error
    if not abs(float(found) - 1) < 1e-6:
        raise BackendUnavailableError(
            f"The GPU {number} computes A⁻¹A = {float(found)} instead of 1 by CuPy: the driver and "
            f"the CUDA libraries do not fit. {_CTK} brings matching ones."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


@contextmanager
def _entered(device: Any, stream: Any) -> Iterator[None]:
    with device, stream:
        yield


def _refuse_long(nnz: int, shape: tuple[int, int]) -> None:
    """Refuse what CuPy 13 would cut down to 32 bits without a word."""
    if max(nnz, *shape) >= 2**31:
        raise ValueError(
            f"X has shape {tuple(shape)} and {nnz} entries: CuPy's sparse products have 32-bit "
            "indices, use the backend 'numpy'."
        )


def _sparse() -> Any:
    try:
        sparse = importlib.import_module("cupyx.scipy.sparse")
        importlib.import_module("cupyx.cusparse")
    except ImportError as error:
        raise BackendUnavailableError(
            f"CuPy's sparse products lack a CUDA library ({_first_line(error)}): {_CTK} brings it."
        ) from error
    return sparse


class CuPyCSR(TransposingCSR):
    """A cupyx.scipy.sparse CSR matrix as a :class:`SparseKernel`.

    Xᵀ is kept, since cuSPARSE multiplies a transposed CSR matrix by atomic additions, slowly and
    in no fixed order. Of its other products it does not promise the same bits each time either, and
    CuPy does not let one choose the algorithms that do.
    """

    #: cuSPARSE's product with several columns reads the matrix once for all of them. The number
    #: is that of the CPU kernels: not measured on a GPU yet.
    columns_per_pass = 8

    def __init__(self, matrix: Any) -> None:
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()  # the squares of repeated entries would be wrong
        super().__init__(matrix)

    @property
    def nnz(self) -> int:
        return int(self.matrix.nnz)

    @staticmethod
    def _transpose(matrix: Any) -> Any:
        return matrix.T.tocsr()

    @staticmethod
    def _square(matrix: Any) -> Any:
        data = matrix.data
        arrays = (data * data, matrix.indices, matrix.indptr)
        return _sparse().csr_matrix(arrays, shape=matrix.shape)

    def values(self) -> Array:
        return self.matrix.data

    def parts(self) -> tuple[Array, Array, Array]:
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    def rows(self, index: npt.NDArray[np.intp]) -> CuPyCSR:
        return CuPyCSR(self.matrix[np.asarray(index)])
