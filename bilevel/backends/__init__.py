"""Array libraries and devices: the only package that knows their names.

>>> import bilevel
>>> backend = bilevel.get_backend("numpy")
>>> backend.to_numpy(backend.expit(backend.asarray([0.0])))
array([0.5])
"""

from ._files import read_array, read_arrays, read_npz, write_npz
from ._indices import check_groups, check_rows, deal_batches, deal_folds, fold_indicators
from ._protocol import Array, Backend, BackendUnavailableError, HostIndex, SparseKernel
from ._registry import (
    backend_names,
    backend_of,
    common_dtype,
    get_backend,
    is_array,
    is_sparse,
    library_of,
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
    "check_groups",
    "check_rows",
    "common_dtype",
    "deal_batches",
    "deal_folds",
    "fold_indicators",
    "get_backend",
    "is_array",
    "is_sparse",
    "library_of",
    "read_array",
    "read_arrays",
    "read_npz",
    "same_backend",
    "write_npz",
]
