"""Row and group numbers: integers on the host, checked at the door."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._protocol import HostIndex


def check_rows(index: npt.ArrayLike, n: int) -> HostIndex:
    """Refuse row numbers that are no integers in 0, ..., n-1."""
    found = np.asarray(index)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"index must hold integers along one axis, got dtype {found.dtype} and shape "
            f"{found.shape}; np.flatnonzero turns a mask into numbers."
        )
    if found.size and (found.min() < 0 or found.max() >= n):
        raise ValueError(
            f"index must lie in 0, ..., {n - 1}, got numbers from {found.min()} to {found.max()}."
        )
    return found.astype(np.intp, copy=False)


def check_groups(groups: npt.ArrayLike, p: int) -> tuple[HostIndex, int]:
    """Return the group number of each of p coefficients, and how many groups there are.

    Raises
    ------
    ValueError
        If ``groups`` is not of shape (p,) or does not use each of 0, ..., m-1.
    TypeError
        If it does not hold integers.

    Examples
    --------
    >>> check_groups([0, 1, 0], 3)
    (array([0, 1, 0]), 2)
    """
    labels = np.asarray(groups)
    if labels.shape != (p,):
        raise ValueError(f"groups must have shape ({p},), got {labels.shape}.")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"groups must be integers, got dtype {labels.dtype}.")
    used = np.unique(labels)
    if not np.array_equal(used, np.arange(len(used))):
        raise ValueError(
            f"groups must use each of 0, ..., m-1, got the numbers {used[:10].tolist()}."
        )
    return labels.astype(np.int64), len(used)
