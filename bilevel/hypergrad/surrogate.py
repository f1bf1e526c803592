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

from ..backends import Array
from ..inner import InnerConstants, InnerPoint, grad_rounding
from ..linalg import norm
from ..outer import OuterConstants, OuterPoint
from ..problem import Problem
from ..status import Status
from ._protocol import HypergradResult
from .bound import hypergradient_bound


def certified(
    problem: Problem,
    point: InnerPoint,
    outer: OuterPoint,
    value: Array,
    adjoint: Array,
    *,
    n_iter: int,
    status: Status,
) -> HypergradResult:
    """Return p with the bound that q gives it; ``None`` where a constant is not stated."""
    backend = problem.backend
    implicit = outer.grad_lam - point.cross_vjp(adjoint)
    cross = point.cross_norm
    residual, gap, size, slope, *cross_norm = backend.scalars(
        norm(point.hvp(adjoint) - outer.grad_x, backend),
        norm(value - implicit, backend),
        norm(adjoint, backend),
        norm(point.grad, backend),
        *([] if cross is None else [cross]),
    )
    if not math.isfinite(residual + gap):
        return HypergradResult(value, None, adjoint, residual, n_iter, Status.NON_FINITE, outer)
    constants = problem.inner.constants(point.lam)
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
