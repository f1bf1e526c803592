"""Array libraries and devices: the only package that knows their names.

>>> import bilevel
>>> backend = bilevel.get_backend("numpy")
>>> backend.to_numpy(backend.expit(backend.asarray([0.0])))
array([0.5])
"""

from ._protocol import Array, Backend, BackendUnavailableError, HostIndex, SparseKernel
from ._registry import (
    backend_names,
    backend_of,
    common_dtype,
    get_backend,
    is_sparse,
    same_backend,
)

__all__ = [
    "Array",
    "Backend",
    "BackendUnavailableError",
    "HostIndex",
    "SparseKernel",
    "backend_names",
    "backend_of",
    "common_dtype",
    "get_backend",
    "is_sparse",
    "same_backend",
]
