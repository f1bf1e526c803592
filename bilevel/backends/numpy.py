"""NumPy arrays on the host, with SciPy's or MKL's sparse products."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import numpy.typing as npt
import scipy.linalg
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

    name = "numpy"

    def __init__(self, device: Any = None) -> None:
        if device not in (None, "cpu"):
            raise ValueError(f"The numpy backend has the device 'cpu' alone, got {device!r}.")
        self.xp = xp
        self.device = "cpu"

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        return np.asarray(self._known(value), dtype=dtype)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def scalars(self, *values: Array) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    def describe(self) -> str:
        from ._host_csr import product_name

        return f"numpy {np.__version__}, scipy {scipy.__version__}; CSR products: {product_name()}"

    def expit(self, t: Array) -> Array:
        return scipy.special.expit(t)

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        if values.ndim == 2:
            columns = [self.segment_sum(c, segments, n_segments) for c in values.T]
            return np.stack(columns, axis=1)
        # bincount accumulates in float64 whatever the weights are: keep the dtype of the input.
        total = np.bincount(segments, weights=values, minlength=n_segments)
        return total.astype(values.dtype, copy=False)

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        return scipy.linalg.solve_triangular(a, b, lower=lower, check_finite=False)

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        y += np.multiply(x, alpha, out=work)
        return y

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        from ._host_csr import HostCSR

        return HostCSR(sparse.csr_array((self.asarray(data, dtype), indices, indptr), shape))

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        from ._host_csr import HostCSR

        return HostCSR(sparse.csr_array(matrix))
