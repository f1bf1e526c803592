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
    is_number,
    numbers_of,
)
from ..meter import tick
from ..status import REFUTING, Status
from .accuracy import Accuracy, Progress, Residual
from .preconditioners import Preconditioner


@dataclass(frozen=True)
class CGResult:
    """What :func:`cg` found.

    Attributes
    ----------
    x : array
        The solution, the shape of b.
    status : Status
        CONVERGED, MAX_ITER, NEGATIVE_CURVATURE, SINGULAR (no convergence, and a direction without
        curvature beyond rounding), PRECONDITIONER (which is not symmetric and positive), REFUTED (μ
        is no lower bound), STALLED or NON_FINITE. Where the columns ended differently it is the
        worst of them.
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
        (:class:`~bilevel.linalg.Energy`), else None. Infinite where μ or the preconditioner was
        seen to be wrong: one column that shows it speaks for all.
    energy_estimates : tuple of float or None
        What the error is taken for: that bound, or an estimate
        (:class:`~bilevel.linalg.EstimatedEnergy`); None where the accuracy is of the residual.
    misjudged : float
        How many times larger than the estimate the error was where an estimate would have stopped,
        at most; 0 where no bound was there to show it.
    curvature : float
        A number below the least curvature uᵀA u / uᵀM u that the steps have shown, where the error
        is estimated; infinite elsewhere.
    """

    x: Array
    status: Status
    n_iter: int
    residual: Array
    residual_norms: tuple[float, ...]
    energies: tuple[float, ...]
    energy_errors: tuple[float, ...] | None
    energy_estimates: tuple[float, ...] | None
    misjudged: float = 0.0
    curvature: float = math.inf

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
    if overwrite_b and verify:
        raise ValueError("overwrite_b needs verify=False: the true residual takes b.")
    if columns:
        system = _System(operator, preconditioner, backend)
        return _solve(system, b, x0, accuracy, max_iter, verify, overwrite_b)
    one = _System(_of_one(operator, xp), preconditioner and _of_one(preconditioner, xp), backend)
    x0 = None if x0 is None else x0[..., None]
    found = _solve(one, b[..., None], x0, accuracy, max_iter, verify, overwrite_b)
    return replace(found, x=found.x[..., 0], residual=found.residual[..., 0])


@dataclass(frozen=True)
class _System:
    """A, M⁻¹ and where they are; both take blocks of columns."""

    operator: Callable[[Array], Array]
    preconditioner: Preconditioner | None
    backend: Backend

    def product(self, p: Array) -> Array:
        """A p, an array of its own: what follows writes into it."""
        ap = self.operator(p)
        return self.backend.xp.asarray(ap, copy=True) if ap is p else ap


def _of_one(operator: Callable[[Array], Array], xp: Any) -> Callable[[Array], Array]:
    """The same for a block of one column."""

    def of_one(block: Array) -> Array:
        column = block[..., 0]
        image = operator(column)
        return (xp.asarray(image, copy=True) if image is column else image)[..., None]

    return of_one


def _solve(
    system: _System,
    b: Array,
    x0: Array | None,
    accuracy: Accuracy,
    max_iter: int,
    verify: bool,
    overwrite_b: bool,
) -> CGResult:
    """Descend, and start again where the recursion has drifted from the true residual."""
    xp, n_columns = system.backend.xp, b.shape[-1]
    if x0 is None:
        x, r = xp.zeros_like(b), b if overwrite_b else xp.asarray(b, copy=True)
    else:
        x, r = _start(system, b, x0)
    if not verify:
        del b  # blocks are large: nothing below keeps one that it does not need
    rounding = _ROUNDINGS * float(xp.finfo(r.dtype).eps)
    progress = tuple(replace(accuracy.start(j), rounding=rounding) for j in range(n_columns))
    n_iter, previous = 0, math.inf
    while True:
        blocks = [x, r]
        del x, r
        x, r, progress, used, status = _Descent(system, blocks, progress).run(max_iter - n_iter)
        n_iter += used
        squares = tuple(p.rr for p in progress)
        if not verify:
            break
        r = b - system.operator(x)
        squares = system.backend.scalars(system.backend.column_dot(r, r))
        excess = _excess(squares, progress)
        if status is not Status.CONVERGED or excess <= 0:
            break
        if not excess < previous / 2 or used == 0:  # restarts no longer help: rounding is reached
            status = Status.STALLED
            break
        previous = excess
        progress = tuple(p.again() for p in progress)
    return _result(x, status, n_iter, r, tuple(map(_root, squares)), progress)


def _root(square: float) -> float:
    """√, of rounding below zero 0, of NaN itself."""
    return 0.0 if square < 0 else math.sqrt(square)


def _excess(squares: tuple[float, ...], progress: tuple[Progress, ...]) -> float:
    """How far the true residuals are above their goals, at most."""
    return max(_root(rr) - p.residual_goal for rr, p in zip(squares, progress, strict=True))


def _result(
    x: Array,
    status: Status,
    n_iter: int,
    r: Array,
    norms: tuple[float, ...],
    progress: tuple[Progress, ...],
) -> CGResult:
    return CGResult(
        x,
        status,
        n_iter,
        r,
        norms,
        tuple(math.sqrt(max(p.energy, 0.0)) for p in progress),
        _all_or_none([p.error for p in progress]),
        _all_or_none([p.estimate for p in progress]),
        max((p.misjudged for p in progress), default=0.0),
        min((p.curvature for p in progress), default=math.inf),
    )


#: Roundings that the length of a step may hold, in units of the machine epsilon.
_ROUNDINGS = 64


def _start(system: _System, b: Array, x0: Array) -> tuple[Array, Array]:
    """A copy of x0 and its residual; zero and b for each column that zero serves better.

    A start that is far too large leaves a residual of rounding, and no solve makes up for that.
    """
    xp, backend = system.backend.xp, system.backend
    x = xp.asarray(x0, copy=True)
    r = b - system.operator(x)
    worse = backend.column_dot(r, r) > backend.column_dot(b, b)  # NaN is to be seen
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


class _Descent:
    """The recursion, until every column has reached its goal or left the game.

    ``blocks``, x and r, is emptied: the caller keeps neither alive. ``block`` are the columns that
    go on, ``done`` what those have that have left it.
    """

    def __init__(
        self, system: _System, blocks: list[Array], progress: tuple[Progress, ...]
    ) -> None:
        self._system, self._backend = system, system.backend
        self._r, self._x = blocks.pop(), blocks.pop()
        self._now = list(progress)
        self._block = list(range(len(progress)))
        self._done: dict[int, tuple[Array, Array]] = {}
        self._n_iter, self._status = 0, Status.CONVERGED
        self._work: Array | None = None

    def run(self, max_iter: int) -> tuple[Array, Array, tuple[Progress, ...], int, Status]:
        """Return x, r, the progress of the columns, the steps made and how they ended."""
        if self._begin():
            while self._block and self._n_iter < max_iter and self._step():
                pass
            self._gather()
        if self._status in REFUTING:  # by one column, for all
            self._now = [replace(p, refuted=True) for p in self._now]
        return self._x, self._r, tuple(self._now), self._n_iter, self._status

    def _begin(self) -> bool:
        """Look at the residuals; whether there is a step to make."""
        xp, backend = self._backend.xp, self._backend
        rr = backend.column_dot(self._r, self._r)
        self._p, self._rz = self._apply(rr)
        k = len(self._now)
        measured = any(p.residual_goal == math.inf for p in self._now)  # by M⁻¹, not by r itself
        asked = self._system.preconditioner is not None and k > 1 and measured
        more = self._skew() if asked else ()
        host = backend.scalars(self._rz, rr, *more)
        self._now = [p.begin(host[j], host[k + j]) for j, p in enumerate(self._now)]
        if not all(math.isfinite(v) for v in host):
            self._status = Status.NON_FINITE
            return False
        if _underflown(backend, self._r, self._now):
            self._status = Status.STALLED
            return False
        eps = float(xp.finfo(self._x.dtype).eps)
        if more and _is_skew(host[:k], host[2 * k :], eps):
            self._status = Status.PRECONDITIONER
            self._now = [replace(p, refuted=True) for p in self._now]
        self._flatness = _Flatness(eps, self._rz, xp.zeros_like(self._rz))
        self._keep([j for j in range(k) if self._goes_on(j)])
        self._p = xp.asarray(self._p, copy=True)  # it may be r itself
        return bool(self._block)

    def _apply(self, rr: Array) -> tuple[Array, Array]:
        """M⁻¹ r and rᵀ M⁻¹ r, which are r and rᵀ r without M."""
        if self._system.preconditioner is None:
            return self._r, rr
        z = self._system.preconditioner(self._r)
        return z, self._backend.column_dot(self._r, z)

    def _skew(self) -> tuple[Array]:
        """r_jᵀ M⁻¹ r_i - r_iᵀ M⁻¹ r_j of each column i and the one before it, j."""
        backend, r, z = self._backend, self._r, self._p
        roll = backend.xp.roll
        forth = backend.column_dot(roll(r, 1, axis=-1), z)
        return (forth - backend.column_dot(roll(z, 1, axis=-1), r),)

    def _step(self) -> bool:
        """One product, and what follows from it; whether the numbers are finite."""
        tick()
        backend, before, flatness = self._backend, self._rz, self._flatness
        ap = self._system.product(self._p)
        alpha, share, flatness.top = backend.cg_length(
            backend.column_dot(self._p, ap), before, flatness.square, flatness.top, flatness.least
        )
        if self._work is None:  # A p may be kept by whoever has made it
            self._work = backend.scratch(self._r)
        blocks = alpha, self._p, ap, self._x, self._r
        self._x, self._r, rr = backend.cg_advance(*blocks, self._work)
        del ap
        z, self._rz = self._apply(rr)
        self._n_iter += 1
        host = backend.scalars(alpha, self._rz, rr, share)
        if not all(math.isfinite(v) for v in host):
            self._status = Status.NON_FINITE
            return False
        kept = self._advance(host)
        self._p, flatness.square = backend.cg_turn(z, self._p, self._rz, before, flatness.square)
        del z
        self._keep(kept)
        return True

    def _advance(self, host: tuple[float, ...]) -> list[int]:
        """Take the numbers of a step in; the places in the block of the columns that go on."""
        width, kept = len(self._block), []
        for i, j in enumerate(self._block):
            alpha, rz, rr, share = host[i::width]
            self._flatness.note(j, share)
            if alpha == 0:
                self._status = _worse(self._status, self._flatness.status(j))
                continue
            self._now[j] = self._now[j].advance(alpha, rz, rr)
            if self._goes_on(j):
                kept.append(i)
        return kept

    def _goes_on(self, j: int) -> bool:
        """Whether a column has further to go; one that M⁻¹ is not positive for can't."""
        now = self._now[j]
        if now.refuted:
            self._status = _worse(self._status, Status.REFUTED)
        if now.lost:
            self._status = _worse(self._status, Status.PRECONDITIONER)
        return not (now.lost or now.reached)

    def _keep(self, kept: list[int]) -> None:
        """Let the other columns leave the block."""
        backend, block = self._backend, self._block
        if len(kept) == len(block):
            return
        self._block = [block[i] for i in kept]
        if not kept and not self._done:  # all at once
            return
        gone = [i for i in range(len(block)) if i not in kept]
        self._done |= _leave(backend, self._x, self._r, gone, block)
        if kept:
            self._work = None
            # One after the other: each old block is free before the next new one is made.
            self._x = _take(backend, self._x, kept)
            self._r = _take(backend, self._r, kept)
            self._p = _take(backend, self._p, kept)
            self._rz = _take(backend, self._rz, kept)
            self._flatness.keep(backend, kept)

    def _gather(self) -> None:
        """Say how those ended that are still in the block, and put all columns together again."""
        block = self._block
        if block and self._status is Status.CONVERGED:
            # Fewer steps than unknowns may leave a system unsolved that has a solution.
            unknowns = math.prod(self._x.shape) // len(block)
            flat = self._n_iter >= unknowns and any(self._flatness.flat(j) for j in block)
            self._status = Status.SINGULAR if flat else Status.MAX_ITER
        del self._p, self._work
        if not self._done:
            return
        if block:
            rest = range(len(block))
            self._done |= _leave(self._backend, self._x, self._r, list(rest), block)
        del self._x, self._r
        columns = [self._done[j] for j in range(len(self._now))]
        self._x, self._r = (
            self._backend.xp.concat([column[i] for column in columns], axis=-1) for i in (0, 1)
        )


class _Flatness:
    """How little A bends along the directions p, as a share of the most that it did.

    In the metric M of the preconditioner, where ‖p_k‖² = r_kᵀz_k + β² ‖p_{k-1}‖². A share of the
    roundoff is no curvature for certain only if the product was rounded that much; so CG goes on
    (a product Xᵀ(X p) is far more precise) down to its square, and it is what did not converge that
    is called singular. The further steps along such a direction are as long as 1/share.
    """

    def __init__(self, eps: float, square: Array, top: Array) -> None:
        self.eps, self.square, self.top = eps, square, top
        self._least: dict[int, float] = {}

    @property
    def least(self) -> float:
        """The share below which a direction has no curvature."""
        return self.eps**2

    def keep(self, backend: Backend, kept: list[int]) -> None:
        self.square, self.top = (_take(backend, a, kept) for a in (self.square, self.top))

    def note(self, j: int, share: float) -> None:
        self._least[j] = min(share, self._least.get(j, 1.0))

    def flat(self, j: int) -> bool:
        return self._least.get(j, 1.0) <= 4 * self.eps

    def status(self, j: int) -> Status:
        """Of a column that met a direction without positive curvature."""
        negative = self._least.get(j, 1.0) < -4 * self.eps
        return Status.NEGATIVE_CURVATURE if negative else Status.SINGULAR


def _worse(status: Status, other: Status) -> Status:
    """What is found for certain is said before singularity."""
    return status if status in _CERTAIN else other


#: The ends that no rounding brings about.
_CERTAIN = (Status.NEGATIVE_CURVATURE, *REFUTING)

#: Of ‖u‖ ‖v‖ in the norm of M⁻¹, uᵀM⁻¹v and vᵀM⁻¹u may differ by this share: less than that does
#: little to what the steps say. In single precision rounding does more, and 300 √ε are granted.
_SKEW = 0.01


def _is_skew(squares: Sequence[float], apart: Sequence[float], eps: float) -> bool:
    """Whether M⁻¹ is not symmetric for two neighbouring columns with such rᵀM⁻¹r."""
    sizes = [math.sqrt(max(square, 0.0)) for square in squares]
    products = [size * sizes[j - 1] for j, size in enumerate(sizes)]
    share = max(_SKEW, 300 * math.sqrt(eps))
    return any(abs(d) > share * most > 0 for d, most in zip(apart, products, strict=True))


def _underflown(backend: Backend, r: Array, progress: Sequence[Progress]) -> bool:
    """Whether a column of r is not zero but its square is: the products of CG would say nothing."""
    lost = [j for j, p in enumerate(progress) if p.rr == 0]
    if not lost:
        return False
    xp = backend.xp
    return any(top > 0 for top in backend.scalars(*(xp.max(xp.abs(r[..., j])) for j in lost)))


def _leave(
    backend: Backend, x: Array, r: Array, places: list[int], block: list[int]
) -> dict[int, tuple[Array, Array]]:
    """Copies of single columns of x and r, under the numbers that they have outside the block."""
    return {block[i]: (_take(backend, x, [i]), _take(backend, r, [i])) for i in places}


def _take(backend: Backend, a: Array, kept: list[int]) -> Array:
    index = backend.xp.asarray(kept, device=backend.device)
    return backend.xp.take(a, index, axis=a.ndim - 1)
