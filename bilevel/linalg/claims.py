"""What is stated of a matrix and of its preconditioner, put to the question."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..backends import Array, Backend
from ..status import REFUTING, Status
from .accuracy import Energy
from .cg import CGResult, cg
from .preconditioners import Preconditioner

#: Steps in which it is asked.
_STEPS = 100


def contradicted(
    operator: Callable[[Array], Array],
    like: Array,
    backend: Backend,
    mu: float,
    *,
    top: float | None = None,
    preconditioner: Preconditioner | None = None,
) -> Status | None:
    """How M⁻¹A ⪰ μ fails, where a solve has seen it fail; None where it has not.

    STALLED where it looks so, and where the rounding of products with M⁻¹ is enough for that look.
    A residual that is of rounding alone may lie where A is singular, and shows anything. So the
    question is put with products of A, as far down as they are not rounding.

    Parameters
    ----------
    operator : callable
        V ↦ A V for columns.
    like : array
        Of the shape of one column.
    backend : Backend
        Where it lives.
    mu : float
        What is stated.
    top : float, optional
        An upper bound of the spectrum of A.
    preconditioner : callable, optional
        r ↦ M⁻¹ r.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> like, backend = np.zeros(3), bilevel.get_backend("numpy")
    >>> [contradicted(lambda V: 2.0 * V, like, backend, mu) is None for mu in (1.0, 3.0)]
    [True, False]
    """
    columns = backend.normal(0, (*like.shape, 2), like.dtype)
    images = operator(columns)
    share = math.sqrt(float(backend.xp.finfo(like.dtype).eps))
    found = cg(
        operator,
        images,
        tol=Energy(mu, (0.0, 0.0), (share, share), top),
        preconditioner=preconditioner,
        columns=True,
        verify=False,
        max_iter=_STEPS,
    )
    wrong = found.status if found.status in REFUTING else None
    if preconditioner is None:
        return wrong
    if wrong is None and _hides(operator, preconditioner, found, backend):
        wrong = Status.REFUTED
    if wrong is not None and _drowns(operator, preconditioner, columns, images, backend):
        return Status.STALLED
    return wrong


def _drowns(
    operator: Callable[[Array], Array],
    preconditioner: Preconditioner,
    columns: Array,
    images: Array,
    backend: Backend,
) -> bool:
    """Whether the rounding of M⁻¹r, where A is steep, is as large as rᵀM⁻¹r.

    In single precision the product with an inverse of a condition of 10⁶ is neither symmetric nor
    positive. What M⁻¹ makes of a random vector is about the mean of its eigenvalues, of which the
    largest, which counts, is a multiple.
    """
    pairs = (
        (columns, preconditioner(columns)),
        (columns, columns),
        (images, operator(images)),
        (images, images),
    )
    host = backend.scalars(*(backend.column_dot(u, v) for u, v in pairs))
    k = columns.shape[-1]
    eps = float(backend.xp.finfo(columns.dtype).eps)
    numbers = (host[j::k] for j in range(k))
    return any(
        _ROUNDINGS * eps * abs(seen) * bent > _DROWNED * square * size
        for seen, square, bent, size in numbers
    )


#: The share of rᵀM⁻¹r that rounding may be.
_DROWNED = 0.1


def _hides(
    operator: Callable[[Array], Array],
    preconditioner: Preconditioner,
    found: CGResult,
    backend: Backend,
) -> bool:
    """Whether an error is larger than its bound: rᵀA⁻¹r ≥ (rᵀr)² / rᵀAr, a product.

    M⁻¹ may hide a direction from all that the steps show of it. What it makes of r is rounded as a
    share of what it makes of others, such as A r.
    """
    r = found.residual
    assert found.energy_errors is not None
    eps = float(backend.xp.finfo(r.dtype).eps)
    ahead = operator(r)
    products = (
        (r, ahead),
        (ahead, ahead),
        (ahead, preconditioner(ahead)),
        (r, r),
        (r, preconditioner(r)),
    )
    host = backend.scalars(*(backend.column_dot(u, v) for u, v in products))
    k = r.shape[-1]
    for j, error in enumerate(found.energy_errors):
        along, square, seen, rr, rz = host[j::k]
        if not (along > 0 and square > 0 and rr > 0):
            continue
        most = error * error + _ROUNDINGS * eps * max(seen / square, rz / rr) * rr
        if 2 * most * along < rr * rr:
            return True
    return False


#: Roundings that a product with M⁻¹ may hold, in units of the machine epsilon.
_ROUNDINGS = 64
