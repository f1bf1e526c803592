"""Array libraries and devices: the only package that knows their names.

>>> import bilevel
>>> backend = bilevel.get_backend("numpy")
>>> backend.to_numpy(backend.expit(backend.asarray([0.0])))
array([0.5])
"""

from ._blocks import all_finite, row_blocks
from ._files import read_npz, write_npz
from ._indices import check_groups, check_rows, deal_batches, deal_folds, fold_indicators
from ._protocol import Array, Backend, BackendUnavailableError, HostIndex, SparseKernel
from ._registry import (
    backend_names,
    backend_of,
    common_dtype,
    constant,
    get_backend,
    is_array,
    is_sparse,
    library_of,
    refuse_matrix_classes,
    same_backend,
)
from ._sparse_check import check_sparse

__all__ = [
    "Array",
    "Backend",
    "BackendUnavailableError",
    "HostIndex",
    "SparseKernel",
    "all_finite",
    "backend_names",
    "backend_of",
    "check_groups",
    "check_rows",
    "check_sparse",
    "common_dtype",
    "constant",
    "deal_batches",
    "deal_folds",
    "fold_indicators",
    "get_backend",
    "is_array",
    "is_sparse",
    "library_of",
    "read_npz",
    "refuse_matrix_classes",
    "row_blocks",
    "same_backend",
    "write_npz",
]
