"""The hypergradient by a truncated Neumann series (Lorraine, Vicol and Duvenaud 2020).

    H⁻¹ = η Σ_j (I - η H)^j,    q_J = η Σ_{j<J} (I - η H)^j ∂_x g

The residual ∂_x g - H q_J is the next term (I - η H)^J ∂_x g itself, so that the series knows
its own error: ‖q_J - q‖ ≤ ‖that term‖/μ ≤ (1 - η μ)^J ‖∂_x g‖/μ for η ≤ 1/‖H‖.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import COUNT, POSITIVE, Array, Maybe, check_fields
from ..inner import inner_constants
from ..linalg import norm
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
from ._protocol import HypergradResult
from .surrogate import certified


@dataclass(frozen=True)
class Neumann:
    """Sum the Neumann series until the residual is ``tol``, or ``tol`` ‖∂_x g‖ where that is less.

    Parameters
    ----------
    n_terms : int
        Terms at most, each a Hessian product.
    step : float, optional
        η; 1/‖H‖ by the bound that the objective states when omitted.

    Raises
    ------
    ValueError
        If no step is given and the objective states no bound of ‖H‖.

    Notes
    -----
    The norm of the terms cannot grow where 0 ⪯ η H ⪯ 2 I. Where it does, η is too long or H
    has negative curvature: the sum stops with the status DIVERGED. Where ``n_terms`` are spent
    before the residual is ``tol`` the status is TRUNCATED.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.solvers import LBFGS, solve
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> inner = solve(problem.inner, np.zeros(1), np.zeros(1), solver=LBFGS(), tol=1e-10)
    >>> Neumann()(problem, inner, tol=1e-8).status.value
    'converged'
    """

    n_terms: int = 1000
    step: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, n_terms=COUNT, step=Maybe(POSITIVE))

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        backend, point = problem.backend, inner.point
        xp = backend.xp
        outer = problem.outer.at(point.x, point.lam)
        eta = step_length(self.step, problem, point.lam)
        q = xp.zeros_like(point.x) if start is None else start
        term = outer.grad_x if start is None else outer.grad_x - point.hvp(q)
        size, pull = backend.scalars(norm(term, backend), norm(outer.grad_x, backend))
        tol = tol * min(1.0, pull)
        status, n_iter = Status.CONVERGED, 0
        while size > tol:
            if n_iter == self.n_terms:
                status = Status.TRUNCATED
                break
            q = q + eta * term
            term = term - eta * point.hvp(term)
            n_iter += 1
            previous, (size,) = size, backend.scalars(norm(term, backend))
            if not size <= previous * (1 + 1e-6):
                status = Status.DIVERGED
                break
        value = outer.grad_lam - point.cross_vjp(q)
        return certified(
            problem,
            point,
            outer,
            value,
            q,
            n_iter=n_iter,
            status=status,
            inner_error=inner.error_bound,
        )


def step_length(step: float | None, problem: Problem, lam: Array) -> float:
    """Return the step, or 1/‖H‖ by the bound that the objective states."""
    if step is not None:
        return step
    smoothness = inner_constants(problem.inner, lam).smoothness
    if smoothness is None:
        raise ValueError(
            f"step must be given: {type(problem.inner).__name__} states no bound of its Hessian."
        )
    return 1 / smoothness
