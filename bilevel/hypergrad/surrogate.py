r"""A bound for every method that ends with some p and some q, wherever they came from.

Let q be any array of the shape of x, r = ‖H q - ∂_x g‖, and p(q) = ∂_λ g - (∂²_{xλ} h)ᵀ q. The
bound of :mod:`~bilevel.hypergrad.bound` holds for p(q), and by the triangle inequality

    ‖p - ∇f‖ ≤ ‖p - p(q)‖ + (the bound for p(q)).

An unrolled method has such a q for nothing: its p is ∂_λ g - Σ_t (∂²_{xλ} h(x_t))ᵀ q_t, and
q = Σ_t q_t. The bound costs one Hessian product and one cross product at the last point.

For forward mode, with Z ≈ dX/dλ, R = H Z + B and z = (‖R‖ + (L_H ‖Z‖ + L_B) e) / μ,

    ‖Z - dX/dλ‖ ≤ z,    ‖p - ∇f‖ ≤ L_λ e + z ‖∂_x g‖ + (‖Z‖ + z) L_g e,

from H(x*)(Z - Z*) = R + (H* - H) Z + (B* - B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..backends import Array, Backend, Pending
from ..inner import InnerConstants, InnerPoint, Rounded, Swinging, constants_at
from ..linalg import dot, norm
from ..linalg.rounding import gamma, known, unit_roundoff, upper_norm
from ..outer import Curved, OuterConstants, OuterPoint, RoundedOuter
from ..problem import Problem
from ..solvers import InnerResult, distance_bound
from ..solvers.distance import grad_size
from ..status import Status
from ._protocol import HypergradResult
from .bound import (
    Inexact,
    Nearness,
    hypergradient_bound,
    self_concordant_adjoint_bound,
    self_concordant_value_bound,
    value_bound,
)
from .whitened import Bounds, smaller, whitened_bounds


def transient(momentum: float) -> float:
    """How far the iteration of a heavy ball may grow before it shrinks.

    The modes of a step that is not too long have roots of modulus √β: their powers grow by about
    2 / (1 - √β) at most, and not at all without momentum.
    """
    return 2 / (1 - math.sqrt(momentum)) if momentum > 0 else 1.0


#: What a share undone may be where x still moves: H and ∂²_{xλ} h change under the sum, and one
#: step from far away can leave more than nothing at all (1.26 was seen where all went well).
MOVING = 10.0

#: A result with one of these is no approximation of anything, and has no bound.
MEANINGLESS = frozenset(
    {Status.DIVERGED, Status.OVERFLOW, Status.NON_FINITE, Status.NEGATIVE_CURVATURE}
)


@dataclass(frozen=True)
class Walk:
    """A run of steps that is differentiated: where it began, and what was asked of it.

    It has CONVERGED where both that which it differentiates has come to rest, ‖x - X(λ)‖ ≤ tol, or
    no worse than a start that was handed over as good enough, and the linear iteration that its
    derivative is, ‖H q - ∂_x g‖ ≤ tol; both up to rounding. It has DIVERGED where h ends above its
    start, or q is worse than none by more than ``growth``, and by :data:`MOVING` times that while x
    comes nearer to rest. Elsewhere it was TRUNCATED.
    """

    problem: Problem
    inner: InnerResult
    tol: float
    growth: float = 1.0

    @property
    def floor(self) -> float:
        """The share at which rounding may take over."""
        return 1e3 * float(self.problem.backend.xp.finfo(self.problem.dtype).eps)

    def status(
        self,
        point: InnerPoint,
        constants: InnerConstants,
        slope: float,
        pull: float,
        left: float,
    ) -> Status:
        """How it ended: ``slope`` is ‖∂_x h‖, ``pull`` ‖∂_x g‖, ``left`` the share undone of q."""
        start = self.inner
        goal = self.tol * (1.0 if constants.mu is None else constants.mu)
        before, after = self.problem.backend.scalars(start.point.value, point.value)
        handed = start.status is Status.CONVERGED and slope <= start.grad_norm
        rests = handed or slope <= max(goal, self.floor * start.grad_norm)
        solved = pull == 0 or left <= max(self.tol / pull, self.floor)
        if rests and solved:
            return Status.CONVERGED
        nearing = not rests and slope < start.grad_norm
        allowed = self.growth * (MOVING if nearing else 1 + 1e-6)
        if not math.isfinite(after) or left > allowed:
            return Status.DIVERGED
        grew = after > before + 1e-6 * max(abs(before), abs(after))
        return Status.DIVERGED if grew and not rests else Status.TRUNCATED

    def ended(
        self, point: InnerPoint, outer: OuterPoint, value: Array, residual: float, gap: float
    ) -> Status:
        """The same of reverse mode, whose p has to be that of its q, too."""
        backend, cross = self.problem.backend, point.cross_norm
        slope, pull, length, *cross_norm = backend.scalars(
            *(norm(a, backend) for a in (point.grad, outer.grad_x, value)),
            *([] if cross is None else [cross]),
        )
        constants = constants_at(self.problem.inner, point)
        left = residual / pull if pull > 0 else 0.0
        status = self.status(point, constants, slope, pull, left)
        asked = self.tol * (cross_norm[0] if cross_norm else 1.0)
        same = gap <= max(asked, self.floor * length)
        return Status.TRUNCATED if status is Status.CONVERGED and not same else status


def certified(
    problem: Problem,
    point: InnerPoint,
    outer: OuterPoint,
    value: Array | None,
    adjoint: Array,
    *,
    n_iter: int,
    status: Status,
    inner_error: float | None = None,
    rest: Array | None = None,
    pushed: Array | None = None,
    walk: Walk | None = None,
) -> HypergradResult:
    """Return p with the bounds that q gives it; ``None`` where a constant is not stated.

    Without a ``value`` p is p(q). ``inner_error`` is a bound of ‖x - X(λ)‖ where the caller has
    one, ``rest`` H q - ∂_x g as computed from q: the residual that a recursion carries may have
    little to do with it. With ``pushed``, q through X, each row answers for itself. ``walk`` says
    how a run of steps is judged whose status is CONVERGED so far.
    """
    backend = problem.backend
    implicit = outer.grad_lam - point.cross_vjp(adjoint)
    value = implicit if value is None else value
    rest = point.hvp(adjoint) - outer.grad_x if rest is None else rest
    apart = value - implicit
    residual, seen, gap = backend.scalars(
        norm(rest, backend), norm(apart, backend), upper_norm(apart, backend)
    )
    if not math.isfinite(residual + gap):
        status = Status.NON_FINITE
    elif walk is not None and status is Status.CONVERGED:
        status = walk.ended(point, outer, value, residual, seen)
    plain = HypergradResult(value, None, adjoint, residual, n_iter, status, outer, point=point)
    if status in MEANINGLESS:
        return plain
    found = Evidence.of(problem, point, outer, adjoint, rest, implicit, inner_error)
    if found is None:
        return plain
    bound = found.hypergradient_bound
    total = None if bound is None else bound + gap
    sharp = _sharp(problem, point, outer, adjoint, rest, pushed, found)
    turned = None if sharp.hypergrad is None else sharp.hypergrad + gap
    first = Bounds(sharp.distance, smaller(found.value_bound, sharp.value), smaller(total, turned))
    best = first.and_of(whitened_bounds(problem, point, outer, value))
    return replace(
        plain,
        error_bound=best.hypergrad,
        value_error=best.value,
        inner_error=None if inner_error is None else smaller(inner_error, best.distance),
    )


def _sharp(
    problem: Problem,
    point: InnerPoint,
    outer: OuterPoint,
    q: Array,
    rest: Array,
    pushed: Array | None,
    found: Evidence,
) -> Bounds:
    """What self-concordance makes of the same numbers, no pass; nothing where it is not stated."""
    inner = found.inner
    if not inner.mu or inner.self_concordance is None or found.cross is None:
        return Bounds()
    adjoint, top, correction = _adjoint(problem, point, outer, q, rest, pushed, found)
    decrement = found.grad / math.sqrt(inner.mu)
    near = Nearness.of(decrement, inner.self_concordance, inner.mu)
    return Bounds(
        None if near is None else known(near.distance),
        self_concordant_value_bound(
            inner,
            found.outer,
            decrement=decrement,
            correction=correction,
            adjoint=adjoint,
            top=top,
            rounding=found.value,
        ),
        self_concordant_adjoint_bound(
            inner,
            found.outer,
            decrement=decrement,
            adjoint=adjoint,
            cross_norm=found.cross,
            top=top,
            rounding=found.hypergrad,
        ),
    )


def _adjoint(
    problem: Problem,
    point: InnerPoint,
    outer: OuterPoint,
    q: Array,
    rest: Array,
    pushed: Array | None,
    found: Evidence,
) -> tuple[Inexact, float, float]:
    """What is known of q, the largest eigenvalue of G, and |qᵀ ∂_x h|."""
    backend, swing = problem.backend, None
    if isinstance(point, Swinging) and pushed is not None:
        swing = point.swing(pushed)
    bent = outer.top() if isinstance(outer, Curved) else None
    host = backend.scalars(
        dot(q, rest + outer.grad_x, backend),
        dot(q, point.grad, backend),
        *([] if swing is None else [swing[0][0]]),
        *([] if bent is None else [bent]),
    )
    terms = gamma(math.prod(point.x.shape) + 8, unit_roundoff(problem.dtype, backend))
    size, product = found.adjoint, found.residual + found.slope
    adjoint = Inexact(
        math.sqrt(max(host[0], 0.0) + size * (found.residual + 2 * terms * product)),
        size,
        found.residual / math.sqrt(found.inner.mu or 0.0),
        math.inf if swing is None else host[2],
    )
    top = math.inf if bent is None else host[-1] * (1 + 1e-4)
    return adjoint, top, abs(host[1]) + size * (terms * found.grad + found.lost_grad)


def value_error(
    problem: Problem,
    outer: OuterPoint,
    inner_error: float | None,
    point: InnerPoint | None = None,
) -> float | None:
    """Bound |g(x, λ) - f(λ)|, rounding included; None where a constant or that is not known.

    With the inner point the bound of :mod:`~bilevel.hypergrad.whitened` is taken where it is
    smaller.
    """
    few = None if point is None else whitened_bounds(problem, point, outer, None)
    return smaller(_by_distance(problem, outer, inner_error), None if few is None else few.value)


def _by_distance(problem: Problem, outer: OuterPoint, inner_error: float | None) -> float | None:
    """‖∂_x g‖ e + L_g e²/2, and the rounding."""
    lost = outer.rounding() if isinstance(outer, RoundedOuter) else None
    if lost is None or inner_error is None:
        return None
    slope, lost_slope, lost_value = problem.backend.scalars(
        slope_size(outer, problem.backend), lost.grad_x, lost.value
    )
    return value_bound(
        problem.outer_constants,
        inner_error=inner_error,
        grad_x_norm=slope + lost_slope,
        rounding=lost_value,
    )


def slope_size(outer: OuterPoint, backend: Backend) -> Pending:
    """An upper bound of ‖∂_x g‖ but for its rounding, which the point keeps."""
    kept: dict[str, Pending] = getattr(outer, "__dict__", {})
    if "_slope_size" not in kept:
        kept["_slope_size"] = upper_norm(outer.grad_x, backend)
    return kept["_slope_size"]


@dataclass(frozen=True)
class Evidence:
    """What is certain at (x, λ) with an adjoint q: norms from above, rounding included.

    Attributes
    ----------
    inner, outer : InnerConstants, OuterConstants
        What objective and criterion state of themselves.
    inner_error : float or None
        Of ‖x - X(λ)‖.
    residual : float
        Of ‖H q - ∂_x g‖.
    adjoint : float
        Of ‖q‖.
    slope : float
        Of ‖∂_x g‖.
    cross : float or None
        Of ‖∂²_{xλ} h‖.
    value, hypergrad : float
        The rounding of g and of p(q).
    grad, lost_grad : float
        Of ‖∂_x h‖, and the rounding in it.
    """

    inner: InnerConstants
    outer: OuterConstants
    inner_error: float | None
    residual: float
    adjoint: float
    slope: float
    cross: float | None
    value: float
    hypergrad: float
    grad: float
    lost_grad: float

    @classmethod
    def of(
        cls,
        problem: Problem,
        point: InnerPoint,
        outer: OuterPoint,
        q: Array,
        rest: Array,
        p: Array,
        inner_error: float | None = None,
    ) -> Evidence | None:
        """Gather it; None where a point can't say what rounding does to it."""
        if not isinstance(point, Rounded) or not isinstance(outer, RoundedOuter):
            return None
        lost, lost_outer = point.rounding(q[..., None]), outer.rounding()
        if lost is None or lost_outer is None:
            return None
        backend = problem.backend
        cross = point.cross_norm
        numbers = backend.scalars(
            *(upper_norm(a, backend) for a in (rest, q)),
            slope_size(outer, backend),
            *(upper_norm(a, backend) for a in (p, outer.grad_lam)),
            *(grad_size(point, backend), lost.grad, lost.products[0], lost.cross),
            *(lost_outer.value, lost_outer.grad_x, lost_outer.grad_lam),
            *([] if cross is None else [cross]),
        )
        residual, size, slope, norm_p, direct, grad = numbers[:6]
        lost_grad, lost_product, lost_cross, lost_value, lost_slope, lost_direct = numbers[6:12]
        unit = unit_roundoff(problem.dtype, backend)
        widest = (
            math.inf
            if cross is None
            else numbers[12] * (1 + gamma(math.prod(point.x.shape) + 8, unit)) + lost_cross
        )
        sums = gamma(math.prod(point.x.shape) + 4, unit) * widest
        constants = constants_at(problem.inner, point)
        if inner_error is None:
            inner_error = distance_bound(constants.mu, known(grad + lost_grad))
        return cls(
            inner=constants,
            outer=problem.outer_constants,
            inner_error=inner_error,
            residual=residual * (1 + 2 * unit) + lost_product + lost_slope,
            adjoint=size,
            slope=slope + lost_slope,
            cross=None if cross is None else widest,
            value=lost_value,
            hypergrad=lost_direct + (lost_cross + sums) * size + 2 * unit * (norm_p + direct),
            grad=known(grad + lost_grad),
            lost_grad=lost_grad,
        )

    @property
    def hypergradient_bound(self) -> float | None:
        """Of ‖p(q) - ∇f‖."""
        return hypergradient_bound(
            self.inner,
            self.outer,
            inner_error=self.inner_error,
            residual=self.residual,
            adjoint_norm=self.adjoint,
            cross_norm=self.cross,
            rounding=self.hypergrad,
        )

    @property
    def value_bound(self) -> float | None:
        """Of |g(x, λ) - f(λ)|."""
        return value_bound(
            self.outer,
            inner_error=self.inner_error,
            grad_x_norm=self.slope,
            rounding=self.value,
        )


def tangent_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    inner_error: float | None,
    residual: float,
    tangent_norm: float,
    grad_x_norm: float,
    rounding: float = 0.0,
) -> float | None:
    """Bound ‖p - ∇f(λ)‖ for p = ∂_λ g + Zᵀ ∂_x g, or None where a constant is not stated.

    Parameters
    ----------
    inner, outer : InnerConstants, OuterConstants
        What objective and criterion state of themselves.
    inner_error : float or None
        e.
    residual : float
        ‖H Z + B‖.
    tangent_norm : float
        ‖Z‖.
    grad_x_norm : float
        ‖∂_x g‖.
    rounding : float
        How far the computed p may be from ∂_λ g + Zᵀ ∂_x g; the other numbers have to hold their
        own.

    Examples
    --------
    >>> tangent_bound(InnerConstants(2.0, None, 0.0, 0.0), OuterConstants(1.0, 0.0),
    ...               inner_error=0.0, residual=1.0, tangent_norm=1.0, grad_x_norm=4.0)
    2.0
    """
    mu, l_h, l_b = inner.mu, inner.hessian_lipschitz, inner.cross_lipschitz
    l_g, l_lam = outer.grad_x_lipschitz, outer.grad_lam_lipschitz
    if mu is None or l_h is None or l_b is None or l_g is None or l_lam is None:
        return None
    if inner_error is None:
        return None
    error = (residual + (l_h * tangent_norm + l_b) * inner_error) / mu
    turned = error * grad_x_norm + (tangent_norm + error) * l_g * inner_error
    return known(l_lam * inner_error + turned + rounding)
