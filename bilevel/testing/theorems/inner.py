"""The inner problem: its stopping test bounds the distance to X(λ)."""

from __future__ import annotations

import math

from ...solvers import LBFGS, InnerResult, Solver, solve
from ...status import Status
from ..problems import KnownProblem
from ..reference import norm
from .violation import Figures, require


def inner_stop(known: KnownProblem, tol: float, *, solver: Solver | None = None) -> Figures:
    """‖∂_x h(x, λ)‖ ≤ μ ε implies ‖x - X(λ)‖ ≤ ε (design of algorithm 1, step (i)).

    Parameters
    ----------
    known : KnownProblem
        The problem and the point λ.
    tol : float
        ε; it must be well above :meth:`KnownProblem.solution_rounding`.
    solver : Solver, optional
        L-BFGS when omitted.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> figures = inner_stop(quadratic(0), 1e-6)
    >>> figures["error"] <= figures["bound"] <= 1e-6
    True
    """
    problem, lam = known.problem, known.array(known.lam)
    result = solve(problem.inner, lam, problem.x(None), solver=solver or LBFGS(), tol=tol)
    return inner_certificate(known, result, tol)


def inner_certificate(known: KnownProblem, result: InnerResult, tol: float) -> Figures:
    """The same for a result that is there already: converged, certified, and truly so."""
    error = norm(known.host(result.x) - known.solution)
    slack = known.solution_rounding
    bound = math.inf if result.error_bound is None else result.error_bound
    require(
        result.status is Status.CONVERGED,
        f"The inner solver converges ({result.status.message})",
        gradient=result.grad_norm,
        tol=tol,
    )
    require(bound <= tol, "the error bound ≤ ε", bound=bound, tol=tol)
    require(error <= tol + slack, "‖x - X(λ)‖ ≤ ε", error=error, tol=tol, rounding=slack)
    require(
        error <= bound + slack,
        "‖x - X(λ)‖ ≤ ‖∂_x h‖/μ",
        error=error,
        bound=bound,
        rounding=slack,
    )
    return {"error": error, "bound": bound, "rounding": slack}
