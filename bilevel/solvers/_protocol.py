"""What an inner solver is, and the loop that stops each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from .._ours import is_ours
from ..backends import COUNT, POSITIVE, Array, Backend, Has, Whole, described
from ..inner import (
    Inner,
    InnerConstants,
    InnerPoint,
    constants_at,
    grad_rounding,
)
from ..linalg import contradicted, norm
from ..meter import tick
from ..status import Status
from .distance import certain_slope, point_error
from .linesearch import Unbounded


@dataclass(frozen=True)
class Step:
    """Where a solver stands after one of its iterations.

    Attributes
    ----------
    point : InnerPoint
        The point that it has come to.
    grad_norm : float
        ‖∂_x h‖ there.
    slant : tuple of float, optional
        sᵀy and sᵀs of the step s, y being the change of the gradient, where the solver has them:
        by these a μ that is too large is seen.
    """

    point: InnerPoint
    grad_norm: float
    slant: tuple[float, float] | None = None


class Solver(Protocol):
    """Minimises x ↦ h(x, λ) by walking from point to point."""

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        """Yield the start, then a point an iteration; end where no progress is possible.

        ``target`` is the gradient norm that the caller will stop at: a solver may use it to
        work no more precisely than that, and must not stop because of it.
        """
        ...


#: What takes the place of a solver has to be one.
SOLVER = Has("a solver", "walk")


@dataclass(frozen=True)
class InnerResult:
    """An inner solution with its certificate.

    Attributes
    ----------
    point : InnerPoint
        The last point; its margins and gradient are computed already.
    status : Status
        CONVERGED, MAX_ITER, STALLED, NON_FINITE, UNBOUNDED (h has no minimum), or REFUTED (μ is no
        lower bound of the Hessian).
    n_iter : int
        Iterations of the solver.
    grad_norm : float
        ‖∂_x h‖ at the point.
    error_bound : float or None
        ‖∂_x h‖ / μ ≥ ‖x - X(λ)‖, the rounding of ∂_x h included; None where the objective states
        no μ, or its points no rounding.
    """

    point: InnerPoint
    status: Status
    n_iter: int
    grad_norm: float
    error_bound: float | None

    @property
    def x(self) -> Array:
        return self.point.x

    @property
    def lost(self) -> bool:
        """Whether the point is none near X(λ), nor on the way there."""
        return self.status in (Status.NON_FINITE, Status.UNBOUNDED)


@dataclass(frozen=True)
class _Goal:
    """The gradient norm that is asked for: ``absolute``, or ``share`` ‖x‖ where that is less."""

    absolute: float
    share: float
    backend: Backend

    @classmethod
    def of(cls, constants: InnerConstants, tol: float, relative: bool, backend: Backend) -> _Goal:
        mu = constants.mu
        unit = constants.smoothness if mu is None else mu
        share = math.inf if unit is None or not relative else unit * tol
        return cls(tol if mu is None else mu * tol, share, backend)

    def at(self, x: Array) -> float:
        if math.isinf(self.share):
            return self.absolute
        return min(self.absolute, self.share * self.backend.scalars(norm(x, self.backend))[0])


@dataclass(frozen=True)
class _Asked:
    """What a solve is asked for, and how it stands."""

    goal: _Goal
    constants: InnerConstants
    min_iter: int
    max_iter: int
    backend: Backend

    def after(self, step: Step, n_iter: int) -> Status:
        """RUNNING while the walk should go on."""
        status = Status.RUNNING
        enough = n_iter >= self.min_iter or step.grad_norm == 0
        if step.grad_norm <= self.goal.absolute:  # else no ‖x‖ makes it small enough
            target = self.goal.at(step.point.x)
            certain = self.constants.mu is not None
            status = _judged(step, target, certain, enough, self.backend)
        spent = status is Status.RUNNING and n_iter >= self.max_iter
        return Status.MAX_ITER if spent else status

    def at_last(self, last: Step, n_iter: int, status: Status, bent: bool) -> Status:
        """How it ended; the walk knew no further step where the status is RUNNING."""
        if status is Status.RUNNING:
            lost = grad_rounding(last.point, self.backend)
            near = last.grad_norm + lost <= self.goal.at(last.point.x)
            # Its rounding is not within the target, as might have been.
            status = Status.CONVERGED if near and n_iter >= self.min_iter else Status.STALLED
        if status is Status.STALLED and not math.isfinite(*self.backend.scalars(last.point.value)):
            status = Status.NON_FINITE  # no search finds what is less than NaN
        if bent and status is not Status.NON_FINITE:
            status = _asked(last.point, self.constants, self.backend) or status
        return status


def solve(
    inner: Inner,
    lam: Array,
    x0: Array,
    *,
    solver: Solver,
    tol: float,
    carry: Array | None = None,
    relative: bool = False,
    min_iter: int = 0,
    max_iter: int = 10_000,
) -> InnerResult:
    """Minimise x ↦ h(x, λ) until ‖x - X(λ)‖ ≤ tol is certain.

    With h(., λ) μ-strongly convex, ‖∂_x h‖ ≤ μ tol certifies the distance. The rounding of ∂_x h
    is held within it, too, where half of it is enough; where what is known of the rounding is
    above that, the computed gradient alone decides, and ``error_bound`` says what is certain. Where
    the objective states no μ nothing can be certified: then the gradient norm itself is held to
    ``tol``, and ``error_bound`` is None.

    Parameters
    ----------
    inner : Inner
        h.
    lam : array, shape (m,)
        The hyperparameters.
    x0 : array
        Where to start; a value near X(λ) saves iterations.
    solver : Solver
        How to walk.
    tol : float
        ε, in the units of x.
    carry : array, optional
        The ``carry`` of a point at x0.
    relative : bool
        Ask for tol ‖x‖ where that is less than ``tol``: a tolerance in units of its own would stop
        at once where all of x is smaller. Where there is no μ a bound of ‖∂²_{xx} h‖ takes its
        place, and ``tol`` is absolute where there is none either.
    min_iter, max_iter : int
        Iterations of the solver at least (where progress is possible) and at most.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from bilevel.solvers import LBFGS, solve
    >>> from bilevel.losses import Logistic
    >>> h = bilevel.inner.linear_model(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> result = solve(h, np.zeros(1), np.zeros(2), solver=LBFGS(), tol=1e-9)
    >>> result.x.round(4), result.status.value
    (array([ 0.4011, -0.4011]), 'converged')
    """
    SOLVER(solver, "solver")
    tol = POSITIVE(tol, "tol")
    min_iter, max_iter = Whole(0)(min_iter, "min_iter"), COUNT(max_iter, "max_iter")
    point = inner.at(x0, lam, carry)
    constants = constants_at(inner, point, lam)
    mu, goal = constants.mu, _Goal.of(constants, tol, relative, inner.backend)
    asked = _Asked(goal, constants, min_iter, max_iter, inner.backend)
    status, n_iter, last, bent = Status.RUNNING, 0, None, False
    for n_iter, step in enumerate(_steps(solver, point, inner.backend, goal.at(x0))):
        if step is None:
            status = Status.UNBOUNDED
            break
        tick()
        if not math.isfinite(step.grad_norm):
            status, last = Status.NON_FINITE, last or step
            break
        last, bent = step, bent or _bent(step, constants, inner.backend)
        status = asked.after(step, n_iter)
        if status is not Status.RUNNING:
            break
    if last is None:
        name = f"{type(solver).__name__}.walk"
        raise TypeError(f"{name} must yield a Step at its start, and then one an iteration.")
    if not is_ours(solver):
        _refuse_other_slope(solver, last, inner.backend)
    status = asked.at_last(last, n_iter, status, bent)
    bound = point_error(last.point, mu, inner.backend)
    return InnerResult(last.point, status, n_iter, last.grad_norm, bound)


def _steps(
    solver: Solver, point: InnerPoint, backend: Backend, target: float
) -> Iterator[Step | None]:
    """The steps of a walk, and None where it found that h has no minimum."""
    walked, name = solver.walk(point, backend, target), f"{type(solver).__name__}.walk"
    if not isinstance(walked, Iterable):
        raise TypeError(f"{name} must return an iterator of Steps, got {described(walked)}.")
    try:
        for step in walked:
            if not isinstance(step, Step):
                raise TypeError(f"{name} must yield Steps, got {described(step)}.")
            yield step
    except Unbounded:
        yield None


def _refuse_other_slope(solver: Solver, last: Step, backend: Backend) -> None:
    """Refuse a walk that states another slope than its last point has: it decides the end.

    Raises
    ------
    ValueError
        If it does, by more than rounding.
    """
    (slope,) = backend.scalars(norm(last.point.grad, backend))
    off = abs(slope - last.grad_norm)
    if off > _OFF * slope + grad_rounding(last.point, backend):
        raise ValueError(
            f"{type(solver).__name__}.walk must yield Steps whose grad_norm is that of their "
            f"point, {slope:.6g}, got {last.grad_norm:.6g}."
        )


#: The share of a slope up to which another way to compute it is taken for rounding.
_OFF = 1e-3


def _bent(step: Step, constants: InnerConstants, backend: Backend) -> bool:
    """Whether h bends less along a step than its μ says, beyond the rounding of its slopes."""
    if not constants.mu or step.slant is None or not step.slant[1] > 0:
        return False
    sy, ss = step.slant
    least = _BENT * constants.mu * ss
    return sy < least and sy + 4 * grad_rounding(step.point, backend) * math.sqrt(ss) < least


def _asked(point: InnerPoint, constants: InnerConstants, backend: Backend) -> Status | None:
    """How the μ that a step has spoken against fails, by products with the Hessian."""
    assert constants.mu
    return contradicted(point.hvp, point.x, backend, constants.mu, top=constants.smoothness)


#: The share of μ down to which h may bend without a word.
_BENT = 0.9


def _judged(step: Step, target: float, certain: bool, enough: bool, backend: Backend) -> Status:
    """Whether a step is within the target; ``certain``: whether that has to be certified."""
    lost = grad_rounding(step.point, backend)
    if enough and step.grad_norm + lost <= target:
        status = _certified(step, target, backend) if certain else Status.CONVERGED
        if status is not Status.RUNNING:
            return status
    # Smaller than what is certain of it, no step leads on.
    return Status.STALLED if step.grad_norm <= min(target, lost) else Status.RUNNING


def _certified(step: Step, target: float, backend: Backend) -> Status:
    """Go on where the rounding of the gradient could be within the target, too, and is not yet."""
    found = certain_slope(step.point, backend)
    if found is None or step.grad_norm == 0:
        return Status.CONVERGED
    slope, lost = found
    return Status.RUNNING if slope > target and 2 * lost < target else Status.CONVERGED
