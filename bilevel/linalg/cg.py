"""The method of conjugate gradients, for one right-hand side or for several in lockstep.

Hestenes and Stiefel (1952); preconditioned as in Saad, *Iterative methods for sparse linear
systems* (2003), algorithm 9.1. The columns of a block share each product with the operator,
which is what costs; each keeps its own step lengths and its own stop, and leaves the block when
it has reached it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backends import (
    NOT_NEGATIVE,
    Array,
    Backend,
    Whole,
    common_dtype,
    dense_backend_of,
    flag,
    function,
    get_backend,
    is_number,
    numbers_of,
)
from ..meter import tick
from ..status import Status
from .accuracy import Accuracy, Progress, Residual
from .preconditioners import Preconditioner
from .products import dot


@dataclass(frozen=True)
class CGResult:
    """What :func:`cg` found.

    Attributes
    ----------
    x : array
        The solution, the shape of b.
    status : Status
        CONVERGED, MAX_ITER, NEGATIVE_CURVATURE, SINGULAR (no convergence, and a direction without
        curvature beyond rounding), STALLED or NON_FINITE. Where the columns ended differently it is
        the worst of them.
    n_iter : int
        Products with the operator inside the iteration.
    residual : array
        b - A x, the shape of b: the true residual where ``verify`` asked for it, else that of
        the recursion, which agrees with it up to rounding.
    residual_norms : tuple of float
        ‖b - A x‖ of each column.
    energies : tuple of float
        ‖x - x0‖_A of each column, which grows to ‖A⁻¹ b - x0‖_A.
    energy_errors : tuple of float or None
        A bound of ‖A⁻¹ b - x‖_A for each column where the accuracy states μ
        (:class:`~bilevel.linalg.Energy`), else None.
    energy_estimates : tuple of float or None
        What the error is taken for: that bound, or an estimate
        (:class:`~bilevel.linalg.EstimatedEnergy`); None where the accuracy is of the residual.
    """

    x: Array
    status: Status
    n_iter: int
    residual: Array
    residual_norms: tuple[float, ...]
    energies: tuple[float, ...]
    energy_errors: tuple[float, ...] | None
    energy_estimates: tuple[float, ...] | None

    @property
    def residual_norm(self) -> float:
        """The largest of the residual norms."""
        return max(self.residual_norms)


def cg(
    operator: Callable[[Array], Array],
    b: Array,
    *,
    tol: float | Sequence[float] | Accuracy,
    x0: Array | None = None,
    preconditioner: Preconditioner | None = None,
    max_iter: int | None = None,
    columns: bool = False,
    verify: bool = True,
    overwrite_b: bool = False,
) -> CGResult:
    """Solve A x = b for a symmetric positive definite A that is known by its products.

    One transfer of a few numbers to the host per iteration; vectors are updated in place where
    the library allows it.

    Parameters
    ----------
    operator : callable
        v ↦ A v, a new array, for arrays of the shape of b; with ``columns`` also for fewer columns.
    b : array
        Right-hand side of any shape; with ``columns`` its last axis counts several.
    tol : float, sequence of float, or Accuracy
        Absolute tolerance on ‖b - A x‖, one for all columns or one for each; or another test.
    x0 : array, optional
        Where to start, zero when omitted (which saves a product). A column whose residual there
        is larger than at zero starts at zero.
    preconditioner : callable, optional
        r ↦ M⁻¹ r, for one column or several.
    max_iter : int, optional
        Ten times the number of unknowns when omitted.
    columns : bool
        The last axis of b counts right-hand sides.
    verify : bool
        Compute the true residual at the end (a product more), and go on from there where the
        recursion had drifted from it.
    overwrite_b : bool
        Let the residual take the memory of b, where the library allows it; not with ``verify``.

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
    backend = dense_backend_of(b=b)
    xp = backend.xp
    common_dtype(backend, b=b)
    function(operator, "operator")
    n_columns = b.shape[-1] if flag(columns, "columns") else 1
    if max_iter is None:
        max_iter = 10 * math.prod(b.shape) // n_columns
    max_iter = Whole(at_least=0)(max_iter, "max_iter")
    accuracy = tol if isinstance(tol, Accuracy) else _residual(tol, n_columns)
    x = xp.zeros_like(b) if x0 is None else xp.asarray(x0, copy=True)
    if overwrite_b and verify:
        raise ValueError("overwrite_b needs verify=False: the true residual takes b.")
    r = b
    if x0 is not None:
        x, r = _start(backend, x, b, b - operator(x), columns)
    if x0 is None and not overwrite_b:
        r = xp.asarray(b, copy=True)
    if not verify:
        del b  # blocks are large: nothing below keeps one that it does not need
    rounding = _ROUNDINGS * float(xp.finfo(r.dtype).eps)
    progress = tuple(replace(accuracy.start(j), rounding=rounding) for j in range(n_columns))
    n_iter, previous = 0, math.inf
    while True:
        blocks = [x, r]
        del x, r
        x, r, progress, used, status = _descend(
            operator, preconditioner, blocks, progress, columns, max_iter - n_iter
        )
        n_iter += used
        norms = tuple(math.sqrt(max(p.rr, 0.0)) if p.rr == p.rr else p.rr for p in progress)
        if not verify:
            break
        r = b - operator(x)
        norms = tuple(math.sqrt(v) if v >= 0 else v for v in _dots(backend, r, r, columns))
        goals = [p.residual_goal for p in progress]
        excess = max(n - g for n, g in zip(norms, goals, strict=True))
        if status is not Status.CONVERGED or excess <= 0:
            break
        if not excess < previous / 2 or used == 0:  # restarts no longer help: rounding is reached
            status = Status.STALLED
            break
        previous = excess
        progress = tuple(replace(p, gamma=p.gamma0) for p in progress)
    return CGResult(
        x,
        status,
        n_iter,
        r,
        norms,
        tuple(math.sqrt(max(p.energy, 0.0)) for p in progress),
        _all_or_none([p.error for p in progress]),
        _all_or_none([p.estimate for p in progress]),
    )


#: Roundings that the length of a step may hold, in units of the machine epsilon.
_ROUNDINGS = 64


def _start(backend: Backend, x: Array, b: Array, r: Array, columns: bool) -> tuple[Array, Array]:
    """X and its residual; zero and b for each column that zero serves better.

    A start that is far too large leaves a residual of rounding, and no solve makes up for that.
    """
    xp = backend.xp
    worse = _dot(backend, r, r, columns) > _dot(backend, b, b, columns)  # NaN is to be seen
    return xp.where(worse, xp.zeros_like(x), x), xp.where(worse, b, r)


def _all_or_none(values: list[float | None]) -> tuple[float, ...] | None:
    known = tuple(v for v in values if v is not None)
    return known if len(known) == len(values) else None


def _residual(tol: float | Sequence[float], n_columns: int) -> Residual:
    if is_number(tol):
        return Residual((NOT_NEGATIVE(tol, "tol"),) * n_columns)
    tols = numbers_of(tol, "tol", NOT_NEGATIVE)
    if len(tols) != n_columns:
        raise ValueError(f"tol must be one number, or {n_columns}, got {len(tols)}.")
    return Residual(tols)


def _dot(backend: Backend, u: Array, v: Array, columns: bool) -> Array:
    """Inner products of the columns, 0-d for one right-hand side."""
    xp = backend.xp
    if not columns:
        return dot(u, v, backend)
    shape = (-1, u.shape[-1])
    return xp.vecdot(xp.reshape(u, shape), xp.reshape(v, shape), axis=-2)


def _dots(backend: Backend, u: Array, v: Array, columns: bool) -> tuple[float, ...]:
    return _read(backend, columns, _dot(backend, u, v, columns))


def _read(backend: Backend, columns: bool, *values: Array) -> tuple[float, ...]:
    """Read a few (k,) or 0-d arrays to the host in one transfer, one after the other."""
    if not columns:
        return backend.scalars(*values)
    return backend.scalars(*(v[j] for v in values for j in range(v.shape[0])))


def _descend(
    operator: Callable[[Array], Array],
    preconditioner: Preconditioner | None,
    blocks: list[Array],
    progress: tuple[Progress, ...],
    columns: bool,
    max_iter: int,
) -> tuple[Array, Array, tuple[Progress, ...], int, Status]:
    """Run the recursion until every column has reached its goal or left the game.

    ``blocks``, x and r, is emptied: the caller keeps neither alive.
    """
    r, x = blocks.pop(), blocks.pop()
    backend = get_backend(r)
    xp = backend.xp

    def apply(r: Array) -> tuple[Array, Array, Array]:
        """M⁻¹ r, rᵀ M⁻¹ r and rᵀ r, which are the same two without M."""
        rr = _dot(backend, r, r, columns)
        if preconditioner is None:
            return r, rr, rr
        z = preconditioner(r)
        return z, _dot(backend, r, z, columns), rr

    done: dict[int, tuple[Array, Array]] = {}  # the columns that have left the block below
    z, rz, rr = apply(r)
    host = _read(backend, columns, rz, rr)
    k = len(progress)
    now = [p.begin(host[j], host[k + j]) for j, p in enumerate(progress)]
    if not all(math.isfinite(p.rr) for p in now):
        return x, r, tuple(now), 0, Status.NON_FINITE
    if _underflown(backend, r, now, columns):
        return x, r, tuple(now), 0, Status.STALLED
    block = [j for j in range(k) if not now[j].reached]
    status = Status.CONVERGED
    if len(block) < k:
        done = _leave(backend, x, r, [j for j in range(k) if j not in block], list(range(k)))
        if not block:
            return x, r, tuple(now), 0, status
        x, r, z, rz = (_take(backend, a, block) for a in (x, r, z, rz))
    p = xp.asarray(z, copy=True)
    del z
    flatness = _Flatness(float(xp.finfo(x.dtype).eps), rz, xp.zeros_like(rz), xp)
    n_iter = 0
    while block and n_iter < max_iter:
        tick()
        ap = operator(p)
        if ap is p:  # the identity; what follows writes into A p
            ap = xp.asarray(p, copy=True)
        curvature = _dot(backend, p, ap, columns)
        share = flatness.share(curvature)
        bent = share <= flatness.eps**2
        alpha = xp.where(bent, xp.zeros_like(rz), rz / xp.where(bent, xp.ones_like(rz), curvature))
        r = backend.axpy(-alpha, ap, r, ap)
        x = backend.axpy(alpha, p, x, ap)
        del ap
        z, rz_next, rr = apply(r)
        beta = rz_next / xp.where(rz > 0, rz, xp.ones_like(rz))
        n_iter += 1
        flatness.turn(rz_next, beta)
        host = _read(backend, columns, alpha, rz_next, rr, share)
        if not all(math.isfinite(v) for v in host):
            status = Status.NON_FINITE
            break
        width, kept = len(block), []
        for i, j in enumerate(block):
            a, next_rz, next_rr = host[i], host[width + i], host[2 * width + i]
            flatness.note(j, host[3 * width + i])
            if a == 0:
                status = _worse(status, flatness.status(j))
                continue
            now[j] = now[j].advance(a, next_rz, next_rr)
            if not now[j].reached:
                kept.append(i)
        p = backend.xpay(z, beta, p)
        del z
        rz = rz_next
        if len(kept) < width:
            gone = [i for i in range(width) if i not in kept]
            if not kept and not done:  # all at once
                return x, r, tuple(now), n_iter, status
            done |= _leave(backend, x, r, gone, block)
            block = [block[i] for i in kept]
            if kept:
                # One after the other: each old block is free before the next new one is made.
                x = _take(backend, x, kept)
                r = _take(backend, r, kept)
                p = _take(backend, p, kept)
                rz = _take(backend, rz, kept)
                flatness.keep(backend, kept)
    if block:
        # Fewer steps than unknowns may leave a system unsolved that has a solution.
        unknowns = math.prod(x.shape) // len(block)
        flat = n_iter >= unknowns and any(flatness.flat(j) for j in block)
        if status is Status.CONVERGED:
            status = Status.SINGULAR if flat else Status.MAX_ITER
        if not done:
            return x, r, tuple(now), n_iter, status
        done |= _leave(backend, x, r, list(range(len(block))), block)
    del x, r, p
    x, r = (xp.concat([done[j][i] for j in range(k)], axis=-1) for i in (0, 1))
    return x, r, tuple(now), n_iter, status


class _Flatness:
    """How little A bends along the directions p, as a share of the most that it did.

    In the metric M of the preconditioner, where ‖p_k‖² = r_kᵀz_k + β² ‖p_{k-1}‖². A share of the
    roundoff is no curvature for certain only if the product was rounded that much; so CG goes on
    (a product Xᵀ(X p) is far more precise) down to its square, and it is what did not converge that
    is called singular. The further steps along such a direction are as long as 1/share.
    """

    def __init__(self, eps: float, square: Array, top: Array, xp: Any) -> None:
        self.eps, self._square, self._top, self._xp = eps, square, top, xp
        self._least: dict[int, float] = {}

    def share(self, curvature: Array) -> Array:
        """PᵀA p / ‖p‖²_M, as a share of the largest until now."""
        xp = self._xp
        one = xp.ones_like(self._square)
        bend = curvature / xp.where(self._square > 0, self._square, one)
        self._top = xp.maximum(self._top, xp.abs(bend))
        return bend / xp.where(self._top > 0, self._top, one)

    def turn(self, rz: Array, beta: Array) -> None:
        """To the next direction."""
        self._square = rz + beta * beta * self._square

    def keep(self, backend: Backend, kept: list[int]) -> None:
        self._square, self._top = (_take(backend, a, kept) for a in (self._square, self._top))

    def note(self, j: int, share: float) -> None:
        self._least[j] = min(share, self._least.get(j, 1.0))

    def flat(self, j: int) -> bool:
        return self._least.get(j, 1.0) <= 4 * self.eps

    def status(self, j: int) -> Status:
        """Of a column that met a direction without positive curvature."""
        negative = self._least.get(j, 1.0) < -4 * self.eps
        return Status.NEGATIVE_CURVATURE if negative else Status.SINGULAR


def _worse(status: Status, other: Status) -> Status:
    """Negative curvature is found for certain: it is said before singularity."""
    return status if status is Status.NEGATIVE_CURVATURE else other


def _underflown(backend: Backend, r: Array, progress: Sequence[Progress], columns: bool) -> bool:
    """Whether a column of r is not zero but its square is: the products of CG would say nothing."""
    lost = [j for j, p in enumerate(progress) if p.rr == 0]
    if not lost:
        return False
    xp = backend.xp
    parts = [r[..., j] for j in lost] if columns else [r]
    return any(top > 0 for top in backend.scalars(*(xp.max(xp.abs(part)) for part in parts)))


def _leave(
    backend: Backend, x: Array, r: Array, places: list[int], block: list[int]
) -> dict[int, tuple[Array, Array]]:
    """Copies of single columns of x and r, under the numbers that they have outside the block."""
    return {block[i]: (_take(backend, x, [i]), _take(backend, r, [i])) for i in places}


def _take(backend: Backend, a: Array, kept: list[int]) -> Array:
    index = backend.xp.asarray(kept, device=backend.device)
    return backend.xp.take(a, index, axis=a.ndim - 1)
