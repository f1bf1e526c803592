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
from dataclasses import dataclass

from ..backends import Array
from ..inner import InnerConstants, InnerPoint, grad_rounding
from ..linalg import norm
from ..outer import OuterConstants, OuterPoint
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
from ._protocol import HypergradResult
from .bound import hypergradient_bound


def transient(momentum: float) -> float:
    """How far the iteration of a heavy ball may grow before it shrinks.

    The modes of a step that is not too long have roots of modulus √β: their powers grow by about
    2 / (1 - √β) at most, and not at all without momentum.
    """
    return 2 / (1 - math.sqrt(momentum)) if momentum > 0 else 1.0


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
    start, or q is worse than none by more than ``growth``. Elsewhere it was TRUNCATED.
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
        if not math.isfinite(after) or left > self.growth * (1 + 1e-6):
            return Status.DIVERGED
        grew = after > before + 1e-6 * max(abs(before), abs(after))
        return Status.DIVERGED if grew and not rests else Status.TRUNCATED


def certified(
    problem: Problem,
    point: InnerPoint,
    outer: OuterPoint,
    value: Array,
    adjoint: Array,
    *,
    n_iter: int,
    status: Status,
    walk: Walk | None = None,
) -> HypergradResult:
    """Return p with the bound that q gives it; ``None`` where a constant is not stated.

    ``walk`` says how a run of steps is judged whose status is CONVERGED so far.
    """
    backend = problem.backend
    implicit = outer.grad_lam - point.cross_vjp(adjoint)
    cross = point.cross_norm
    residual, gap, size, slope, pull, length, *cross_norm = backend.scalars(
        norm(point.hvp(adjoint) - outer.grad_x, backend),
        norm(value - implicit, backend),
        norm(adjoint, backend),
        norm(point.grad, backend),
        norm(outer.grad_x, backend),
        norm(value, backend),
        *([] if cross is None else [cross]),
    )
    if not math.isfinite(residual + gap):
        return HypergradResult(value, None, adjoint, residual, n_iter, Status.NON_FINITE, outer)
    constants = problem.inner.constants(point.lam)
    if walk is not None and status is Status.CONVERGED:
        asked = walk.tol * (cross_norm[0] if cross_norm else 1.0)
        same = gap <= max(asked, walk.floor * length)
        status = walk.status(point, constants, slope, pull, residual / pull if pull > 0 else 0.0)
        if status is Status.CONVERGED and not same:
            status = Status.TRUNCATED
    if status in MEANINGLESS:
        return HypergradResult(value, None, adjoint, residual, n_iter, status, outer)
    bound = hypergradient_bound(
        constants,
        problem.outer_constants,
        inner_error=distance_bound(constants, slope + grad_rounding(point, backend)),
        residual=residual,
        adjoint_norm=size,
        cross_norm=cross_norm[0] if cross_norm else None,
    )
    total = None if bound is None else bound + gap
    return HypergradResult(value, total, adjoint, residual, n_iter, status, outer)


def distance_bound(constants: InnerConstants, grad_norm: float) -> float | None:
    """‖∂_x h‖/μ ≥ ‖x - X(λ)‖, None without μ."""
    return grad_norm / constants.mu if constants.mu else None


def tangent_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    inner_error: float | None,
    residual: float,
    tangent_norm: float,
    grad_x_norm: float,
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
    return l_lam * inner_error + error * grad_x_norm + (tangent_norm + error) * l_g * inner_error
