"""The implicit hypergradient: Pedregosa (2016), algorithm 1, steps (ii) and (iii).

H q = ∂_x g  (by CG, to a residual of ε)     p = ∂_λ g - (∂²_{xλ} h)ᵀ q
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backends import COUNT, Array, Maybe, check_fields, flag
from ..inner import InnerPoint, Pushable, constants_at
from ..linalg import (
    Accuracy,
    CGResult,
    Preconditioner,
    Residual,
    cg,
    contradicted,
    jacobi,
    norm,
)
from ..outer import OuterPoint
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
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
    relative : bool
        Solve to a residual of ``tol`` ‖∂_x g‖ where that is less than ``tol``: q = 0 would be good
        enough where all of g is small.
    """

    precondition: bool = True
    max_iter: int | None = None
    verify: bool = True
    relative: bool = True

    def __post_init__(self) -> None:
        check_fields(self, precondition=flag, max_iter=Maybe(COUNT), verify=flag, relative=flag)

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        point = inner.point
        outer = problem.outer.at(point.x, point.lam)
        tol, apply, asked = self._asked(problem, point, outer, tol)
        solved = self._solve(point, outer.grad_x, asked, apply, start)
        q, n_iter, status = solved.x, solved.n_iter, solved.status
        if status is Status.REFUTED:
            status = _asked_again(problem, point, solved, tol)
        rest, pushed, size = self._rest(problem, point, outer, q)
        for _ in range(_CORRECTIONS if self.verify else 0):
            if status is not Status.CONVERGED or size <= tol:
                break
            solved = self._solve(point, -rest, tol, apply, None)
            q, n_iter, status = q + solved.x, n_iter + solved.n_iter, solved.status
            rest, pushed, size = self._rest(problem, point, outer, q)
        if self.verify and status is Status.CONVERGED and size > tol:
            status = Status.STALLED  # rounding is reached
        return certified(
            problem,
            point,
            outer,
            None,
            q,
            n_iter=n_iter,
            status=status,
            inner_error=inner.error_bound,
            rest=rest,
            pushed=pushed,
        )

    def _asked(
        self, problem: Problem, point: InnerPoint, outer: OuterPoint, tol: float
    ) -> tuple[float, Preconditioner | None, Residual]:
        """The residual asked for, the preconditioner, and both as CG is told them, with μ."""
        diagonal = point.diag() if self.precondition else None
        tops = [] if diagonal is None else [problem.backend.xp.max(diagonal)]
        pull, *most = problem.backend.scalars(norm(outer.grad_x, problem.backend), *tops)
        if self.relative:
            tol = tol * min(1.0, pull)
        apply = None if diagonal is None else jacobi(diagonal)
        mu = constants_at(problem.inner, point).mu or 0.0
        bottom = mu / (most[0] if most and most[0] > 0 else 1.0)
        return tol, apply, Residual((tol,), bottom)

    def _solve(
        self,
        point: InnerPoint,
        right: Array,
        tol: float | Accuracy,
        apply: Preconditioner | None,
        start: Array | None,
    ) -> CGResult:
        return cg(
            point.hvp,
            right,
            tol=tol,
            x0=start,
            preconditioner=apply,
            max_iter=self.max_iter,
            verify=False,
        )

    @staticmethod
    def _rest(
        problem: Problem, point: InnerPoint, outer: OuterPoint, q: Array
    ) -> tuple[Array, Array | None, float]:
        """H q - ∂_x g as it is, q through X where H is seen through it, and the norm: a product."""
        pushed = None
        if isinstance(point, Pushable):
            pushed = point.push(q[..., None])
            product = point.pull(q[..., None], pushed)[1][..., 0]
        else:
            product = point.hvp(q)
        rest = product - outer.grad_x
        (size,) = problem.backend.scalars(norm(rest, problem.backend))
        return rest, pushed, size


def _asked_again(problem: Problem, point: InnerPoint, solved: CGResult, tol: float) -> Status:
    """How a solve has ended that refutes μ: REFUTED where the question is answered so again."""
    constants = constants_at(problem.inner, point)
    assert constants.mu
    wrong = contradicted(
        point.hvp, point.x, problem.backend, constants.mu, top=constants.smoothness
    )
    if wrong is not None:
        return wrong
    return Status.CONVERGED if solved.residual_norm <= tol else Status.MAX_ITER


#: How often a solve goes on from the residual that its recursion had drifted from.
_CORRECTIONS = 2
