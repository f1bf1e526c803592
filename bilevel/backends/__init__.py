"""Array libraries and devices: the only package that knows their names.

>>> import bilevel
>>> backend = bilevel.get_backend("numpy")
>>> backend.to_numpy(backend.expit(backend.asarray([0.0])))
array([0.5])
"""

from ._arguments import (
    BOUND,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Has,
    Maybe,
    Number,
    OneOf,
    Rule,
    Whole,
    check_fields,
    described,
    dtype_name,
    flag,
    function,
    is_number,
    numbers_of,
    python_number,
)
from ._blocks import all_finite, row_blocks
from ._files import read_array, read_arrays, read_npz, write_npz
from ._indices import check_groups, check_rows, deal_batches, deal_folds, fold_indicators
from ._pending import Known, Pending, each, larger, pending, postponed
from ._protocol import Array, Backend, BackendUnavailableError, HostIndex, SparseKernel
from ._registry import (
    as_floats,
    backend_names,
    backend_of,
    common_dtype,
    constant,
    dense_backend_of,
    get_backend,
    is_array,
    is_sparse,
    lent,
    library_of,
    refuse_matrix_classes,
    register_backend,
    same_backend,
)
from ._sparse_check import check_sparse
from .array_api import ArrayAPIBackend

__all__ = [
    "BOUND",
    "COUNT",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SEED",
    "Array",
    "ArrayAPIBackend",
    "Backend",
    "BackendUnavailableError",
    "Has",
    "HostIndex",
    "Known",
    "Maybe",
    "Number",
    "OneOf",
    "Pending",
    "Rule",
    "SparseKernel",
    "Whole",
    "all_finite",
    "as_floats",
    "backend_names",
    "backend_of",
    "check_fields",
    "check_groups",
    "check_rows",
    "check_sparse",
    "common_dtype",
    "constant",
    "deal_batches",
    "deal_folds",
    "dense_backend_of",
    "described",
    "dtype_name",
    "each",
    "flag",
    "fold_indicators",
    "function",
    "get_backend",
    "is_array",
    "is_number",
    "is_sparse",
    "larger",
    "lent",
    "library_of",
    "numbers_of",
    "pending",
    "postponed",
    "python_number",
    "read_array",
    "read_arrays",
    "read_npz",
    "refuse_matrix_classes",
    "register_backend",
    "row_blocks",
    "same_backend",
    "write_npz",
]
