"""Row numbers: they stay on the host, since they choose what is sent to a device."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._protocol import HostIndex


def check_rows(index: npt.ArrayLike, n: int) -> HostIndex:
    """Return row numbers, and refuse what is no integers in 0, ..., n-1.

    Raises
    ------
    ValueError
        If ``index`` has another dtype or shape, or numbers out of range.

    Examples
    --------
    >>> check_rows([2, 0], 3)
    array([2, 0])
    """
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
