"""The hypergradient by a dense Cholesky factor of the Hessian (Bengio 2000, section 3).

H is formed from Hessian products with the columns of the identity, H = L Lᵀ, and
q = L⁻ᵀ L⁻¹ ∂_x g: for few parameters, and as the exact answer to hold the others against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backends import COUNT, Array, Backend, check_fields
from ..inner import InnerPoint
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
from ._protocol import HypergradResult
from .surrogate import certified


@dataclass(frozen=True)
class Direct:
    """Solve the adjoint system with a Cholesky factor.

    The residual is what rounding leaves; ``tol`` and ``start`` of the call are not used. Where
    the Hessian is not positive definite the system is solved all the same, the status says
    NEGATIVE_CURVATURE, and there is no bound.

    Parameters
    ----------
    columns : int
        Columns of the Hessian that one product forms.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.solvers import LBFGS, solve
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> lam = np.zeros(1)
    >>> inner = solve(problem.inner, lam, np.zeros(1), solver=LBFGS(), tol=1e-10)
    >>> Direct()(problem, inner, tol=0.0).value.shape
    (1,)
    """

    columns: int = 256

    def __post_init__(self) -> None:
        check_fields(self, columns=COUNT)

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        backend, point = problem.backend, inner.point
        xp = backend.xp
        outer = problem.outer.at(point.x, point.lam)
        H = self.hessian(point, backend)
        b = xp.reshape(outer.grad_x, (-1, 1))
        factor = backend.cholesky(H)
        if factor is None:
            solved = backend.solve(H, b)
            q = xp.full_like(b, math.nan) if solved is None else solved
            status = Status.NEGATIVE_CURVATURE
        else:
            half = backend.solve_triangular(factor, b)
            q = backend.solve_triangular(factor.T, half, lower=False)
            status = Status.CONVERGED
        q = xp.reshape(q, point.x.shape)
        value = outer.grad_lam - point.cross_vjp(q)
        return certified(
            problem,
            point,
            outer,
            value,
            q,
            n_iter=1,
            status=status,
            inner_error=inner.error_bound,
        )

    def hessian(self, point: InnerPoint, backend: Backend) -> Array:
        """∂²_{xx} h as a matrix, shape (p, p) with p all the entries of x."""
        xp, size = backend.xp, math.prod(point.x.shape)
        eye = xp.eye(size, dtype=point.x.dtype, device=backend.device)
        parts = []
        for first in range(0, size, self.columns):
            block = eye[:, first : min(first + self.columns, size)]
            product = point.hvp(xp.reshape(block, (*point.x.shape, block.shape[1])))
            parts.append(xp.reshape(product, (size, block.shape[1])))
        H = xp.concat(parts, axis=1)
        return (H + H.T) / 2
