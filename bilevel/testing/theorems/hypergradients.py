"""Theorem 1: the error of a hypergradient is at most C ε, and of that order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...hypergrad import Hypergradient, HypergradResult, Implicit
from ...solvers import LBFGS, InnerResult, Solver, solve
from ...status import Status
from ..problems import KnownProblem
from ..reference import Host, host, norm, spectral
from .violation import Figures, require


def theorem_1_constant(known: KnownProblem, tol: float) -> float:
    """C of ‖p - ∇f(λ)‖ ≤ C ε, from the constants and the values at X(λ) alone.

    With ‖x - X(λ)‖ ≤ ε and a residual ≤ ε: ‖q‖ ≤ (‖∂_x g(X)‖ + (1 + L_g) ε)/μ, and the bound of
    :mod:`bilevel.hypergrad.bound` is then C ε with

        C = L_λ + L_B ‖q‖ + (‖B(X)‖ + 2 L_B ε) (1 + L_g + L_H ‖q‖)/μ.
    """
    lam, x = host(known.lam), known.solution
    inner = known.problem.inner.constants(known.array(known.lam))
    outer = known.problem.outer_constants
    mu, l_h, l_b = inner.mu, inner.hessian_lipschitz, inner.cross_lipschitz
    l_g, l_lam = outer.grad_x_lipschitz, outer.grad_lam_lipschitz
    if None in (mu, l_h, l_b, l_g, l_lam):
        return math.inf
    assert mu is not None and l_h is not None and l_b is not None
    assert l_g is not None and l_lam is not None
    grad = norm(known.reference.outer.grad_x(x, lam))
    cross = spectral(known.reference.inner.cross(x, lam))
    adjoint = (grad + (1 + l_g) * tol) / mu
    return l_lam + l_b * adjoint + (cross + 2 * l_b * tol) * (1 + l_g + l_h * adjoint) / mu


def theorem_1(
    known: KnownProblem,
    tol: float,
    *,
    solver: Solver | None = None,
    hypergradient: Hypergradient | None = None,
) -> Figures:
    """Theorem 1: ‖p - ∇f(λ)‖ ≤ C ε, and never above the bound that the result states.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> figures = theorem_1(quadratic(0), 1e-6)
    >>> figures["error"] <= figures["bound"] and figures["error"] <= figures["C"] * 1e-6
    True
    """
    problem, lam = known.problem, known.array(known.lam)
    inner = solve(problem.inner, lam, problem.x(None), solver=solver or LBFGS(), tol=tol)
    require(inner.status is Status.CONVERGED, "the inner solver converges", tol=tol)
    found = (hypergradient or Implicit())(problem, inner, tol=tol)
    return hypergradient_certificate(known, found, tol)


def hypergradient_certificate(
    known: KnownProblem, found: HypergradResult, tol: float, constant: float | None = None
) -> Figures:
    """Hold a hypergradient to the truth, to its own bound, and to C ε."""
    error = norm(known.host(found.value) - known.hypergradient)
    slack = known.hypergradient_rounding
    constant = theorem_1_constant(known, tol) if constant is None else constant
    bound = math.inf if found.error_bound is None else found.error_bound
    figures = {"error": error, "bound": bound, "C": constant, "rounding": slack}
    residual = found.residual or 0.0
    require(
        residual <= tol + known.adjoint_rounding,
        f"‖H q - ∂_x g‖ ≤ ε ({found.status.message})",
        residual=residual,
        tol=tol,
    )
    require(error <= constant * tol + slack, "Theorem 1, ‖p - ∇f‖ ≤ C ε", tol=tol, **figures)
    require(error <= bound + slack, "the computed bound of ‖p - ∇f‖", **figures)
    return figures


def shifted(known: KnownProblem, away: Host) -> InnerResult:
    """An inner result at X(λ) + away: what a solver of exactly that error would return."""
    inner = known.problem.inner
    lam = known.array(known.lam)
    point = inner.at(known.array(known.solution + away), lam)
    flat = known.problem.backend.xp.reshape(point.grad, (-1,))
    (square,) = known.problem.backend.scalars(known.problem.backend.xp.vecdot(flat, flat))
    mu, size = inner.constants(lam).mu, math.sqrt(square)
    return InnerResult(point, Status.CONVERGED, 0, size, size / mu if mu else None)


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """The slope of log error against log size, by least squares.

    Examples
    --------
    >>> round(slope([1.0, 0.1, 0.01], [2.0, 0.02, 0.0002]), 6)
    2.0
    """
    fitted = np.polyfit(np.log(np.asarray(sizes)), np.log(np.asarray(errors)), 1)
    return float(fitted[0])


def order(
    known: KnownProblem,
    tolerances: Sequence[float],
    *,
    error: Callable[[float], float] | None = None,
    expected: float = 1.0,
    within: float = 0.15,
) -> Figures:
    """Theorem 1 is sharp in its order: halving ε halves the error.

    ``error(tol)`` measures ‖p - ∇f‖ at a tolerance; when omitted, at an x whose distance from
    X(λ) is exactly ε, with the adjoint system solved to a thousandth of it.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> round(order(quadratic(0), [2.0**-k for k in range(6, 16)])["slope"], 1)
    1.0
    """

    def measured(tol: float) -> float:
        rng = np.random.default_rng(7)
        direction = host(rng.standard_normal(known.solution.shape))
        inner = shifted(known, tol * direction / norm(direction))
        found = Implicit()(known.problem, inner, tol=tol / 1000)
        return norm(known.host(found.value) - known.hypergradient)

    errors = [(error or measured)(tol) for tol in tolerances]
    found = slope(tolerances, errors)
    require(
        abs(found - expected) <= within,
        "the order of the error in ε",
        slope=found,
        expected=expected,
    )
    return {"slope": found, "first": errors[0], "last": errors[-1]}
