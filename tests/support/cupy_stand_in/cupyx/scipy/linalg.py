"""The triangular solve, by cuBLAS: it never raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from cupy import _counts
from cupy._array import ndarray, wrap
from cupy._functions import _bound
from cupy._names import names
from cupy.linalg import _check

__all__ = ["solve_triangular"]


def solve_triangular(
    a: Any,
    b: Any,
    trans: Any = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = False,
) -> ndarray:
    """Of a matrix with a zero on its diagonal it is infinite or NaN."""
    left, right = _check(a, b)
    if left.ndim != 2:
        raise NotImplementedError("The stand-in solves one triangular system.")
    if left.shape[0] != left.shape[1]:
        raise ValueError("expected square matrix")
    if len(left) != len(right):
        raise ValueError("incompatible dimensions")
    if check_finite and not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("array must not contain infs or NaNs")
    _counts.launched("solve_triangular", 3)
    options = {"lower": lower, "unit_diagonal": unit_diagonal, "check_finite": False}
    with np.errstate(all="ignore"):
        try:
            found = scipy.linalg.solve_triangular(left, right, trans, **options)
        except scipy.linalg.LinAlgError:
            found = np.full(right.shape, np.inf, right.dtype)
    return wrap(np.asfortranarray(found))


solve_triangular = _bound(solve_triangular, names("modules", __name__)["solve_triangular"])
