"""Design matrices: dense, CSR, with an intercept, standardised; every product is counted."""

from __future__ import annotations

from typing import Any

from ..backends import (
    COUNT,
    NOT_NEGATIVE,
    Backend,
    Has,
    Whole,
    all_finite,
    backend_of,
    check_sparse,
    common_dtype,
    constant,
    described,
    is_array,
    is_sparse,
)
from ..meter import Passes, SharedPasses
from ._host import from_host
from ._protocol import Design, Grams, Rounds, Summing, gram, rounded
from ._reach import Reach
from ._recount import part_of, recounted, row_square_norms
from ._wrapper import Wrapper
from .csr import CSRDesign
from .dense import DenseDesign
from .intercept import WithIntercept
from .mixed import MixedPrecision
from .standardized import COARSE, Standardized

__all__ = [
    "COARSE",
    "CSRDesign",
    "DenseDesign",
    "Design",
    "Grams",
    "MixedPrecision",
    "Passes",
    "Reach",
    "Rounds",
    "SharedPasses",
    "Standardized",
    "Summing",
    "WithIntercept",
    "Wrapper",
    "as_design",
    "from_host",
    "gram",
    "part_of",
    "recounted",
    "rounded",
    "row_square_norms",
]


#: What multiplies from both sides is no array: it is to be a whole design.
_DESIGN = Has(
    "a design",
    *("backend", "passes", "shape", "dtype", "columns_per_pass", "entries", "matmul", "rmatmul"),
    *("gram_diag", "square_matmul", "centred_rounding", "rows"),
)


#: Members of which one is enough to be taken for a design: arrays of no library have them.
_PRODUCTS = ("matmul", "rmatmul", "matvec", "rmatvec", "gram_diag", "square_matmul")


def _check(X: Design, name: str) -> None:
    """A design from outside keeps a counter of the products that it makes, and states numbers."""
    if not isinstance(X.passes, Passes):
        raise TypeError(
            f"{name}.passes must be a bilevel.design.Passes, got {described(X.passes)}."
        )
    if len(X.shape) != 2 or min(X.shape) < 1:
        raise ValueError(f"{name} must have the shape (rows, features), got {tuple(X.shape)}.")
    for size in X.shape:
        COUNT(size, f"each number of {name}.shape")
    COUNT(X.columns_per_pass, f"{name}.columns_per_pass")
    Whole(0)(X.entries, f"{name}.entries")
    NOT_NEGATIVE(X.centred_rounding, f"{name}.centred_rounding")


def as_design(X: Any, *, name: str = "X", backend: Backend | None = None) -> Design:
    """Wrap a dense or sparse matrix of any library as a design matrix.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p), float32 or float64, or Design
        The matrix; a design is returned as it is.
    name : str
        How the argument is called in an error message.
    backend : Backend, optional
        Refuse a matrix that lives elsewhere.

    Returns
    -------
    Design
        The matrix with counted products.

    Raises
    ------
    ValueError
        If X is not two-dimensional, is empty, holds NaN or infinity, lives on another backend, or
        is sparse with indices that lie outside it.
    TypeError
        If X is no array, or neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> bilevel.as_design(np.ones((3, 2))).shape
    (3, 2)
    """
    given = _given(X, name)
    found = backend_of(**{name: X}) if given is None else given.backend
    if backend is not None and found != backend:
        raise ValueError(
            f"{name} is on {found.name} ({found.device}), expected {backend.name} "
            f"({backend.device}): move it first."
        )
    if given is not None:
        _check(given, name)
        return given
    if X.ndim != 2:
        raise ValueError(f"{name} must have two axes (rows, features), got shape {X.shape}.")
    if 0 in tuple(X.shape):
        raise ValueError(f"{name} is empty: shape {tuple(X.shape)}.")
    return _wrapped(X, name, found)


def _given(X: Any, name: str) -> Design | None:
    """X where it is a design already."""
    # A nested tensor fails on the mere question for its shape, which a design has as well.
    if is_array(X) or is_sparse(X):
        return None
    if isinstance(X, Design):
        return X
    if any(hasattr(type(X), product) for product in _PRODUCTS):
        _DESIGN(X, name)  # half a design, or an operator of SciPy
    return None


def _wrapped(X: Any, name: str, found: Backend) -> Design:
    """The design of a matrix, which is checked once."""
    X = constant(X)
    check_sparse(X, name)
    common_dtype(found, **{name: X})
    if is_sparse(X):
        kernel = found.sparse_kernel(X)
        design: Design = CSRDesign(kernel, found)
        entries = kernel.values()
    else:
        design = DenseDesign(X, found)
        entries = X
    if not all_finite(entries, found):
        raise ValueError(f"{name} holds NaN or infinite values; every entry must be finite.")
    return design
