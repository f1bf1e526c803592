"""NumPy arrays on the host, with SciPy's or MKL's sparse products."""

from __future__ import annotations

import itertools
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.special

from ._blocks import Writable
from ._protocol import Array, SparseKernel
from ._sparse_check import check_csr
from .array_api import ArrayAPIBackend


class NumPyBackend(Writable, ArrayAPIBackend):
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

    def _read(self, arrays: list[Array]) -> list[float]:
        flat = itertools.chain.from_iterable(np.ravel(array).tolist() for array in arrays)
        return list(map(float, flat))

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

    def scratch(self, like: Array) -> Array | None:
        return np.empty_like(like)

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        y += _by_column(x, alpha, work)
        return y

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        y = _by_column(y, alpha, y)
        y += x
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

        check_csr(data, indices, indptr, shape, "X")
        return HostCSR(self.asarray(data, dtype), indices, indptr, shape)

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        from ._host_csr import HostCSR

        rows = matrix.tocsr()
        return HostCSR(rows.data, rows.indices, rows.indptr, rows.shape)


#: Rows that share one inner loop in :func:`_by_column`.
_ROWS = 64


def _by_column(x: Array, alpha: Array, out: Array | None) -> Array:
    """x times a number for each of its last axis.

    NumPy's inner loop would run over those few columns: 130,000 × 3 take 0.63 ms with the sum. With
    alpha repeated it runs over 64 rows at once, 0.21 ms, and the products are the same to the bit.
    """
    alpha = np.asarray(alpha)
    result = np.empty_like(x) if out is None else out
    plain = x.flags.c_contiguous and result.flags.c_contiguous and x.size >= 4096
    if alpha.ndim != 1 or not plain or alpha.shape[0] > _ROWS:
        return np.multiply(x, alpha, out=result)
    width = _ROWS * alpha.shape[0]
    whole = x.size // width * width
    flat, into = x.reshape(-1), result.reshape(-1)
    np.multiply(
        flat[:whole].reshape(-1, width), np.tile(alpha, _ROWS), out=into[:whole].reshape(-1, width)
    )
    rest = flat[whole:].reshape(-1, alpha.shape[0])
    np.multiply(rest, alpha, out=into[whole:].reshape(rest.shape))
    return result
