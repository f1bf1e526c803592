"""CuPy arrays on an NVIDIA GPU, with cuSPARSE products.

What an iteration does beside its products is done in few launches, by kernels of its own: each
takes some microseconds, which forty of them add up to more than a pass over less than 10⁷ entries.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ._cupy_fused import CuPyFused
from ._protocol import Array, BackendUnavailableError, SparseKernel
from ._sparse_check import check_csr, short_indices
from ._transposing_csr import TransposingCSR
from .array_api import ArrayAPIBackend


class CuPyBackend(CuPyFused, ArrayAPIBackend):
    """CuPy on its current device.

    Parameters
    ----------
    device : int, str ("cuda:0") or cupy.cuda.Device, optional
        The device; it must be the current one of CuPy.
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
        current = importlib.import_module("cupy").cuda.runtime.getDevice()
        if number != current:
            raise ValueError(
                f"The device {device!r} is not CuPy's current device ({current}): run inside "
                f"`with cupy.cuda.Device({number}):`."
            )
        return importlib.import_module("cupy").cuda.Device(number)

    def _probe(self, device: Any) -> Any:
        _count_devices()
        return super()._probe(device)

    def _device_name(self) -> Any:
        return int(self.device.id)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = importlib.import_module("cupy").asnumpy(array)
        return host

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
        if max(len(data), *shape) >= 2**31:
            raise ValueError(
                f"X has shape {shape} and {len(data)} entries: CuPy's sparse products have 32-bit "
                "indices, use the backend 'numpy'."
            )
        numbers = (self.asarray(part) for part in short_indices(indices, indptr, shape))
        arrays = (self.asarray(data, dtype=dtype), *numbers)
        return CuPyCSR(_sparse().csr_matrix(arrays, shape=shape))

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
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


def _sparse() -> Any:
    try:
        sparse = importlib.import_module("cupyx.scipy.sparse")
        importlib.import_module("cupyx.cusparse")
    except ImportError as error:
        raise BackendUnavailableError(
            f"CuPy's sparse products lack a CUDA library ({error}): "
            "`pip install 'cupy-cuda12x[ctk]'` brings it."
        ) from error
    return sparse


class CuPyCSR(TransposingCSR):
    """A cupyx.scipy.sparse CSR matrix as a :class:`SparseKernel`.

    Xᵀ is kept, since cuSPARSE multiplies a transposed CSR matrix by atomic additions, slowly and
    in no fixed order.
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
