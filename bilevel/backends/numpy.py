"""NumPy arrays on the host, with SciPy's or MKL's sparse products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import numpy.typing as npt
import scipy
import scipy.special
from scipy import sparse

from ._protocol import Array, SparseKernel
from .array_api import ArrayAPIBackend


class NumPyBackend(ArrayAPIBackend):
    """NumPy on the host.

    Parameters
    ----------
    device : {"cpu", None}
        NumPy has one device.
    """

    def __init__(self, device: Any = None) -> None:
        if device not in (None, "cpu"):
            raise ValueError(f"The numpy backend has the device 'cpu' alone, got {device!r}.")
        self.name = "numpy"
        self.xp = xp
        self.device = "cpu"

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        array = np.asarray(value, dtype=dtype)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Expected numbers, got an array of dtype {array.dtype}.")
        return array

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def scalars(self, *values: Array) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    def synchronize(self) -> None:
        pass

    def describe(self) -> str:
        from ._host_csr import product_name

        return f"numpy {np.__version__}, scipy {scipy.__version__}; CSR products: {product_name()}"

    def expit(self, t: Array) -> Array:
        return scipy.special.expit(t)

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        # bincount accumulates in float64 whatever the weights are: keep the dtype of the input.
        total = np.bincount(segments, weights=values, minlength=n_segments)
        return total.astype(values.dtype, copy=False)

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        y += np.multiply(x, alpha, out=work)
        return y

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        y *= alpha
        y += x
        return y

    def normal(self, seed: int | Sequence[int], shape: tuple[int, ...], dtype: Any) -> Array:
        numbers = np.random.Generator(np.random.Philox(seed)).standard_normal(shape)
        return numbers.astype(dtype, copy=False)

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        from ._host_csr import HostCSR

        return HostCSR(sparse.csr_array((data.astype(dtype, copy=False), indices, indptr), shape))

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        from ._host_csr import HostCSR

        return HostCSR(sparse.csr_array(matrix))
