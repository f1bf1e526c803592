"""A hypergradient: H written out, and its system solved by the library, for an x of few numbers."""

from dataclasses import dataclass
from typing import Any

from bilevel import Problem, Status
from bilevel.hypergrad import HypergradResult
from bilevel.linalg import norm
from bilevel.solvers import InnerResult


@dataclass(frozen=True)
class Dense:
    """p = ∂_λ g - (∂²_{xλ} h)ᵀ q, H q = ∂_x g, for an x of one axis."""

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Any = None
    ) -> HypergradResult:
        backend, point = problem.backend, inner.point
        xp, outer = backend.xp, problem.outer.at(point.x, point.lam)
        unit = xp.eye(point.x.shape[0], dtype=problem.dtype, device=backend.device)
        q = xp.linalg.solve(point.hvp(unit), outer.grad_x)
        (left,) = backend.scalars(norm(point.hvp(q) - outer.grad_x, backend))
        return HypergradResult(
            value=outer.grad_lam - point.cross_vjp(q),
            error_bound=None,  # nothing is proven
            adjoint=q,
            residual=left,
            n_iter=1,
            status=Status.CONVERGED,
            outer=outer,
        )
