"""Host matrices as designs on any backend."""

from __future__ import annotations

from typing import Any

from ..backends import Backend, is_sparse
from ._protocol import Design
from .csr import CSRDesign
from .dense import DenseDesign


def from_host(X: Any, backend: Backend, dtype: Any) -> Design:
    """Copy a host matrix to a backend.

    Parameters
    ----------
    X : NumPy array or SciPy CSR matrix, shape (n, p)
        The matrix.
    backend : Backend
        Where it goes.
    dtype : dtype of the backend
        What its entries become.

    Returns
    -------
    Design
        The matrix on the backend, dense or CSR as it was.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from_host(np.eye(2), bilevel.get_backend("numpy"), np.float32).dtype
    dtype('float32')
    """
    if is_sparse(X):
        n, p = X.shape
        kernel = backend.csr(X.data, X.indices, X.indptr, (int(n), int(p)), dtype)
        return CSRDesign(kernel, backend)
    return DenseDesign(backend.asarray(X, dtype), backend)
