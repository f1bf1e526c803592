"""What an outer method is: a start, and a step from one state to the next."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

from ..backends import Array, Backend, Pending, backend_of, each, pending
from ..domains import Box, Domain
from ..hypergrad import HypergradResult, smaller
from ..inner import InnerPoint, Preconditioned, RoundingAlong, constants_at
from ..linalg import cg, dot, norm
from ..outer import OuterPoint, ValueRounded
from ..problem import Problem
from ..record import Record
from ..solvers import InnerResult
from ..status import REFUTING, Status


class State(Protocol):
    """All that a method needs to go on, a frozen dataclass of arrays and numbers.

    A run that is resumed from its state makes the same steps to the last bit, where the products
    of the library repeat.
    """

    @property
    def record(self) -> Record | None:
        """The iteration that led here, None at the start."""
        ...

    @property
    def lam(self) -> Array:
        """Where the next iteration works."""
        ...

    @property
    def x(self) -> Array:
        """The model of the last iteration: that of its record, which is returned beside it."""
        ...

    @property
    def status(self) -> Status:
        """RUNNING, or why the method stopped."""
        ...


class Method(Protocol):
    """An outer loop, one iteration at a time; it can be stepped by hand.

    A method that needs more of a problem than every problem has says so in ``needs``, a tuple of
    names as ``"inner.rows"``; what is missing is refused where the run starts. What changes
    belongs into the state: one object may serve several runs, by turns.
    """

    def init(self, problem: Problem, lam0: Array, x0: Array | None, tol: float | None) -> State:
        """The state before the first iteration.

        ``tol`` is the relative tolerance of the method's own stopping rule: None for its
        default, 0 to go on for ever.
        """
        ...

    def step(self, problem: Problem, state: Any) -> State:
        """One outer iteration; the status of the new state says whether it was the last."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A method that has more to say of the iterate that is returned than of each on the way."""

    def reported(self, problem: Problem, record: Record, x: Array) -> Record:
        """The record of the iterate x, with sharper bounds where they are to be had."""
        ...


def optimality(domain: Domain, backend: Backend, lam: Array, hypergrad: Array) -> Pending:
    """‖P_D(λ - τ p) - λ‖ / τ, τ ‖p‖ being ‖p‖ cut to [10⁻³, 1].

    Zero exactly where ⟨p, α - λ⟩ ≥ 0 for all α in D, and ‖p‖ inside D. With τ = 1 the width of D
    would cut it short where p is longer than that, and λ - p would be λ where p is tiny, as it is
    where f is.
    """
    size = norm(hypergrad, backend)

    def share(size: Array, *_: Any) -> Array:
        """τ, which is 1 / ‖p‖ where that is less than 1, and at most what the shortest step is."""
        xp, one = backend.xp, backend.xp.ones_like(size)
        length = xp.minimum(xp.maximum(size, _SHORTEST * one), one)
        return length / xp.where(size > 0, size, one)

    tau = backend.fused("optimality_step", share, size, size, _SHORTEST)
    moved = norm(domain.project(lam - hypergrad * tau, backend) - lam, backend)
    return each(lambda moved, size: moved * (size / max(_SHORTEST, min(size, 1.0))), moved, size)


#: The shortest step of ``optimality``: far beyond the rounding of λ.
_SHORTEST = 1e-3


def recorded(inner: InnerResult, found: HypergradResult, **own: Any) -> Record:
    """The record of the two solves of an iteration, with what else its method knows of it."""
    return Record(
        hypergrad=found.value,
        hypergrad_error=found.error_bound,
        inner_error=smaller(inner.error_bound, found.inner_error),
        cg_residual=found.residual,
        inner_status=inner.status,
        cg_status=found.status,
        **own,
    )


def refuting(inner: InnerResult, found: HypergradResult) -> Status | None:
    """How one of the two solves of an iteration has refuted what the problem states."""
    return next((end for end in (inner.status, found.status) if end in REFUTING), None)


def free(lam: Array, p: Array, domain: Domain, backend: Backend) -> Array:
    """1 for the coordinates that a small step along -p changes, 0 for those that D holds.

    Each goes far enough to be told from λ: beside a large p_j that D holds, others would be lost.
    """
    xp = backend.xp
    largest = xp.max(xp.abs(p))
    some = largest > 0
    largest = xp.where(some, largest, xp.ones_like(largest))
    step = p * (1e-3 / largest)
    least = 8 * float(xp.finfo(lam.dtype).eps) * (1 + xp.abs(lam))
    away = xp.where(p < 0, xp.minimum(step, -least), step)
    step = xp.where(p > 0, xp.maximum(step, least), away)
    probe = domain.project(lam - step, backend) - lam
    return xp.astype((probe != 0) & some, p.dtype)


def coordinatewise(domain: Domain, m: int) -> bool:
    """Whether D is known to hold each of m hyperparameters by itself, as a box does."""
    return m == 1 or isinstance(domain, Box)


def free_part(lam: Array, p: Array, domain: Domain, backend: Backend) -> Array:
    """What of p D leaves: its free coordinates, or on an oblique face what is not normal to it.

    That is (λ - P(λ - τ p)) / τ for a short step, τ ‖p‖ = 10⁻², and 0 where it is one of rounding.
    """
    if coordinatewise(domain, int(lam.shape[0])):
        return p * free(lam, p, domain, backend)
    xp = backend.xp
    size = norm(p, backend)
    tau = _SHORT / xp.where(size > 0, size, xp.ones_like(size))
    moved = lam - domain.project(lam - tau * p, backend)
    least = 8 * float(xp.finfo(lam.dtype).eps) * (1 + xp.max(xp.abs(lam)))
    return xp.where(xp.max(xp.abs(moved)) > least, moved / tau, xp.zeros_like(p))


#: The step by which it is seen what an oblique face leaves: of little curvature, beyond rounding.
_SHORT = 1e-2


def lost(problem: Problem, point: InnerPoint, outer: OuterPoint, q: Array) -> Pending:
    """About how far rounding may have moved g - qᵀ ∂_x h, no pass.

    What it did to g by its own account, or as if x had been rounded once more; and by way of q what
    it did to ∂_x h, which holds x to X(λ). Both are of the size that is likely, and doubled.
    """
    backend = problem.backend
    own = pending(outer.value_rounding) if isinstance(outer, ValueRounded) else _once(outer, point)
    if isinstance(point, RoundingAlong):
        along = point.rounding_along(q, dot(q, outer.grad_x, backend))
    else:
        along = _once(outer, point)
    total: Pending = own + pending(along)
    return 2 * total


def _once(outer: OuterPoint, point: InnerPoint) -> Pending:
    """What g loses where x is rounded once more."""
    backend = backend_of(x=point.x)
    flat = (backend.xp.reshape(a, (-1,)) for a in (outer.grad_x, point.x))
    size: Pending = abs(pending(outer.value)) + backend.absolute_sums(*flat)
    return 8 * float(backend.xp.finfo(point.x.dtype).eps) * size


#: The share of f that rounding may move before an end is no longer one.
_LOST = 0.01


def too_rounded(value: float, rounding: float) -> bool:
    """Whether so much of f is :func:`lost` that where it is least is not known.

    A kernel matrix in single precision with a small ridge is such a case, and generalised
    cross-validation of a model that interpolates.
    """
    return not rounding <= _LOST * abs(value)


def estimated(problem: Problem, value: float, correction: float) -> tuple[float, float]:
    """f(λ) as g(x, λ) less its correction qᵀ ∂_x h, and what the error of that is taken for.

    The correction is f to first order in x - X(λ); what it leaves is taken to be as large as
    itself. What is :func:`lost` in rounding, and no correction brings back, comes on top. A result
    that g can't have, NaN or below its least value, is beyond the validity of the first order and
    says nothing: then the error is inf.
    """
    found, least = value - correction, problem.outer_constants.least
    if not math.isfinite(found) or (least is not None and found < least - 1e-3 * abs(value)):
        return value, math.inf
    eps = float(problem.backend.xp.finfo(problem.dtype).eps)
    return found, abs(correction) + 8 * eps * abs(value)


#: Directions in which the curvature of h is asked for at an end.
_PROBES = 8


def bends_down(problem: Problem, point: InnerPoint) -> bool:
    """Whether H is seen to have a negative eigenvalue at a point that is taken for X(λ).

    A maximum or a saddle of h is stationary too, and where its gradient and that of g vanish no
    solve has met its curvature. Where h states no μ, nor an inverse of its own, conjugate
    gradients for a right-hand side of no meaning look through a few directions.
    """
    backend, xp = problem.backend, problem.backend.xp
    if constants_at(problem.inner, point).mu is not None or isinstance(point, Preconditioned):
        return False
    size = math.prod(point.x.shape)
    count = xp.arange(1, size + 1, dtype=point.x.dtype, device=backend.device)
    b = xp.reshape(xp.cos(12.9898 * count * count), tuple(point.x.shape))
    solved = cg(point.hvp, b, tol=0.0, max_iter=min(_PROBES, size), verify=False)
    return solved.status is Status.NEGATIVE_CURVATURE
