"""The implicit hypergradient: Pedregosa (2016), algorithm 1, steps (ii) and (iii).

H q = ∂_x g  (by CG, to a residual of ε)     p = ∂_λ g - (∂²_{xλ} h)ᵀ q
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import COUNT, Array, Maybe, check_fields, flag
from ..linalg import cg, jacobi, norm
from ..problem import Problem
from ..solvers import InnerResult
from ._protocol import HypergradResult
from .bound import hypergradient_bound


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
        Spend a product on the true residual, on which the bound then rests.
    relative : bool
        Solve to a residual of ``tol`` ‖∂_x g‖ where that is less than ``tol``: q = 0 would be good
        enough where all of g is small.
    """

    precondition: bool = True
    max_iter: int | None = None
    verify: bool = False
    relative: bool = True

    def __post_init__(self) -> None:
        check_fields(self, precondition=flag, max_iter=Maybe(COUNT), verify=flag, relative=flag)

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        backend, point = problem.backend, inner.point
        outer = problem.outer.at(point.x, point.lam)
        diagonal = point.diag() if self.precondition else None
        if self.relative:
            tol = tol * min(1.0, *backend.scalars(norm(outer.grad_x, backend)))
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
        value = outer.grad_lam - point.cross_vjp(q)
        cross = point.cross_norm
        adjoint_norm, *cross_norm = backend.scalars(
            norm(q, backend), *([] if cross is None else [cross])
        )
        bound = hypergradient_bound(
            problem.inner.constants(point.lam),
            problem.outer_constants,
            inner_error=inner.error_bound,
            residual=solved.residual_norm,
            adjoint_norm=adjoint_norm,
            cross_norm=cross_norm[0] if cross_norm else None,
        )
        return HypergradResult(
            value, bound, q, solved.residual_norm, solved.n_iter, solved.status, outer
        )
