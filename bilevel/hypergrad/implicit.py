"""The implicit hypergradient: Pedregosa (2016), algorithm 1, steps (ii) and (iii).

H q = ∂_x g  (by CG, to a residual of ε)     p = ∂_λ g - (∂²_{xλ} h)ᵀ q
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import COUNT, Array, Maybe, check_fields, flag
from ..linalg import cg, jacobi
from ..problem import Problem
from ..solvers import InnerResult
from ._protocol import HypergradResult
from .surrogate import certified


@dataclass(frozen=True)
class Implicit:
    """Solve the adjoint system with conjugate gradients.

    Parameters
    ----------
    precondition : bool
        Use the diagonal of the Hessian where the objective has it (a pass).
    max_iter : int, optional
        Steps of CG at most.
    verify : bool
        Go on where the recursion had drifted from the true residual (a product). The bound rests
        on the true one in any case.
    """

    precondition: bool = True
    max_iter: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        check_fields(self, precondition=flag, max_iter=Maybe(COUNT), verify=flag)

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        point = inner.point
        outer = problem.outer.at(point.x, point.lam)
        diagonal = point.diag() if self.precondition else None
        solved = cg(
            point.hvp,
            outer.grad_x,
            tol=tol,
            x0=start,
            preconditioner=None if diagonal is None else jacobi(diagonal),
            max_iter=self.max_iter,
            verify=self.verify,
        )
        q = solved.x
        return certified(
            problem,
            point,
            outer,
            None,
            q,
            n_iter=solved.n_iter,
            status=solved.status,
            inner_error=inner.error_bound,
            rest=-solved.residual if self.verify else None,
        )
