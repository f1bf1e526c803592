"""Preconditioners: functions r ↦ M⁻¹ r, for one residual or several columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..backends import Array, get_backend

#: r ↦ M⁻¹ r, M symmetric positive definite.
Preconditioner: TypeAlias = Callable[[Array], Array]


def jacobi(diagonal: Array) -> Preconditioner:
    """Divide by the diagonal of the Hessian.

    Parameters
    ----------
    diagonal : array
        Of the shape of one right-hand side. Entries that are not positive, as a Hessian without
        full curvature has them, are left alone.

    Examples
    --------
    >>> import numpy as np
    >>> jacobi(np.array([2.0, 4.0]))(np.array([2.0, 2.0]))
    array([1. , 0.5])
    """
    xp = get_backend(diagonal).xp
    positive = diagonal > 0
    inverse = 1 / xp.where(positive, diagonal, xp.ones_like(diagonal))

    def apply(r: Array) -> Array:
        return inverse * r if r.ndim == inverse.ndim else inverse[..., None] * r

    return apply
