"""The method of conjugate gradients, for one right-hand side or for several in lockstep.

Hestenes and Stiefel (1952); preconditioned as in Saad, *Iterative methods for sparse linear
systems* (2003), algorithm 9.1. The columns of a block share each product with the operator,
which is what costs, and each keeps its own step lengths and its own stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..backends import Array, get_backend
from ..status import Status
from .preconditioners import Preconditioner


@dataclass(frozen=True)
class CGResult:
    """What :func:`cg` found.

    Attributes
    ----------
    x : array
        The solution, the shape of b.
    status : Status
        CONVERGED, MAX_ITER, NEGATIVE_CURVATURE, STALLED or NON_FINITE. Where the columns ended
        differently it is the worst of them.
    n_iter : int
        Products with the operator inside the iteration.
    residual_norms : tuple of float
        ‖b - A x‖ of each column: the true residual where ``verify`` asked for it, else that of
        the recursion, which agrees with it up to rounding.
    """

    x: Array
    status: Status
    n_iter: int
    residual_norms: tuple[float, ...]

    @property
    def residual_norm(self) -> float:
        """The largest of the residual norms."""
        return max(self.residual_norms)


def cg(
    operator: Callable[[Array], Array],
    b: Array,
    *,
    tol: float | Sequence[float],
    x0: Array | None = None,
    preconditioner: Preconditioner | None = None,
    max_iter: int | None = None,
    columns: bool = False,
    verify: bool = True,
) -> CGResult:
    """Solve A x = b for a symmetric positive definite A that is known by its products.

    One scalar read (of two numbers) per iteration; vectors are updated in place where the
    library allows it.

    Parameters
    ----------
    operator : callable
        v ↦ A v, for arrays of the shape of b.
    b : array
        Right-hand side of any shape; with ``columns`` its last axis counts several.
    tol : float or sequence of float
        Absolute tolerance on ‖b - A x‖, one for all columns or one for each.
    x0 : array, optional
        Where to start, zero when omitted (which saves a product).
    preconditioner : callable, optional
        r ↦ M⁻¹ r.
    max_iter : int, optional
        Ten times the number of unknowns when omitted.
    columns : bool
        The last axis of b counts right-hand sides.
    verify : bool
        Compute the true residual at the end (a product more), and go on from there where the
        recursion had drifted from it.

    Returns
    -------
    CGResult

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([1.0, 2.0])
    >>> cg(lambda v: A @ v, np.array([1.0, 1.0]), tol=1e-12).x
    array([1. , 0.5])
    """
    backend = get_backend(b)
    xp = backend.xp
    n_columns = b.shape[-1] if columns else 1
    n_unknowns = math.prod(b.shape) // n_columns
    if max_iter is None:
        max_iter = 10 * n_unknowns
    tols = [float(tol)] * n_columns if isinstance(tol, (int, float)) else [float(t) for t in tol]
    if len(tols) != n_columns or not all(t >= 0 for t in tols):
        raise ValueError(f"tol must be one non-negative number, or {n_columns}, got {tol!r}.")
    goal = xp.asarray(tols if columns else tols[0], dtype=b.dtype, device=backend.device)

    def dot(u: Array, v: Array) -> Array:
        if columns:
            shape = (n_unknowns, n_columns)
            return xp.vecdot(xp.reshape(u, shape), xp.reshape(v, shape), axis=-2)
        return xp.vecdot(xp.reshape(u, (-1,)), xp.reshape(v, (-1,)))

    x = xp.zeros_like(b) if x0 is None else xp.asarray(x0, copy=True)
    r = xp.asarray(b, copy=True) if x0 is None else b - operator(x)
    zero = xp.zeros_like(goal)
    n_iter, status, previous = 0, Status.RUNNING, math.inf
    while True:
        state = _descend(operator, preconditioner, x, r, goal, dot, max_iter - n_iter)
        x, r, used, status = state
        n_iter += used
        if not verify:
            break
        r = b - operator(x)
        gap = xp.sqrt(dot(r, r)) - goal
        (excess,) = backend.scalars(xp.max(xp.where(gap > 0, gap, zero)))
        if status is not Status.CONVERGED or excess <= 0:
            break
        if not excess < previous / 2 or used == 0:  # restarts no longer help: rounding is reached
            status = Status.STALLED
            break
        previous = excess
    norms = xp.sqrt(dot(r, r))
    values = backend.scalars(*(norms[i] for i in range(n_columns))) if columns else (
        backend.scalars(norms)
    )
    return CGResult(x, status, n_iter, values)


def _descend(
    operator: Callable[[Array], Array],
    preconditioner: Preconditioner | None,
    x: Array,
    r: Array,
    goal: Array,
    dot: Callable[[Array, Array], Array],
    max_iter: int,
) -> tuple[Array, Array, int, Status]:
    """Run the recursion until every column has reached its goal or left the game."""
    backend = get_backend(r)
    xp = backend.xp
    one = xp.ones_like(goal)
    zero = xp.zeros_like(goal)

    def apply(v: Array) -> Array:
        return v if preconditioner is None else preconditioner(v)

    z = apply(r)
    rz, rr = dot(r, z), dot(r, r)
    active = rr > goal * goal
    left, size = backend.scalars(xp.sum(xp.where(active, one, zero)), xp.max(rr))
    if not math.isfinite(size):
        return x, r, 0, Status.NON_FINITE
    p = xp.asarray(z, copy=True)
    work = xp.empty_like(r)
    negative = xp.zeros_like(active)
    n_iter = 0
    while left > 0 and n_iter < max_iter:
        ap = operator(p)
        curvature = dot(p, ap)
        bent = active & (curvature <= 0)
        negative = negative | bent
        active = active & (curvature > 0)
        alpha = xp.where(active, rz / xp.where(active, curvature, one), zero)
        x = backend.axpy(alpha, p, x, work)
        r = backend.axpy(-alpha, ap, r, work)
        z = apply(r)
        rz_next, rr = dot(r, z), dot(r, r)
        active = active & (rr > goal * goal)
        beta = xp.where(active, rz_next / xp.where(rz > 0, rz, one), zero)
        p = backend.xpay(z, beta, p)
        rz = rz_next
        n_iter += 1
        left, size = backend.scalars(xp.sum(xp.where(active, one, zero)), xp.max(rr))
        if not math.isfinite(size):
            return x, r, n_iter, Status.NON_FINITE
    (bends,) = backend.scalars(xp.sum(xp.where(negative, one, zero)))
    if bends > 0:
        return x, r, n_iter, Status.NEGATIVE_CURVATURE
    return x, r, n_iter, Status.CONVERGED if left == 0 else Status.MAX_ITER
