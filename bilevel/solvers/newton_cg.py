"""Inexact Newton: the Newton system by conjugate gradients, then a line search.

CG stops at a residual of η ‖∇h‖ with the forcing term of Eisenstat and Walker (1996, choice 2),
η_k = γ (‖∇h_k‖ / ‖∇h_{k-1}‖)^α with γ = 0.9 and α = (1 + √5)/2: early systems are solved roughly,
and the convergence is superlinear all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..backends import COUNT, Array, Backend, Maybe, check_fields, flag, function
from ..inner import InnerPoint, Preconditioned
from ..linalg import cg, jacobi, norm
from ..status import Status
from ._protocol import Step
from .linesearch import WolfeSearch
from .progress import Progress


@dataclass(frozen=True)
class NewtonCG:
    """Newton-CG with a strong Wolfe search.

    An iteration on a linear model costs two passes for each step of CG, and two more: the ray
    and the gradient (and one for the diagonal where it is asked for).
    Where CG meets negative curvature its iterate until then is the direction, or the negative
    preconditioned gradient at the first step.

    Parameters
    ----------
    max_cg : int, optional
        Steps of CG an iteration at most; ten times the number of unknowns when omitted.
    precondition : bool
        Use the diagonal of the Hessian where the objective has it. It pays where the features
        are scaled badly and λ is small, and costs about a tenth of the passes elsewhere.
    search : WolfeSearch
        The line search.
    """

    max_cg: int | None = None
    precondition: bool = False
    search: WolfeSearch = WolfeSearch()

    def __post_init__(self) -> None:
        check_fields(self, max_cg=Maybe(COUNT), precondition=flag, search=function)

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        value, size = backend.scalars(point.value, norm(point.grad, backend))
        forcing = _LOOSEST
        progress = Progress(float(backend.xp.finfo(point.x.dtype).eps))
        yield Step(point, size)
        while size > 0 and not progress.ended(value, size):
            d = self._direction(point, max(forcing * size, target / 4))
            (slope,) = backend.scalars(backend.xp.sum(d * point.grad))
            if not slope < 0:
                d, slope = -point.grad, -size * size
            found = self.search(point.ray(d), value, slope, 1.0, backend, point.x.dtype)
            if found is None:
                return
            point, before = found, size
            value, size = backend.scalars(point.value, norm(point.grad, backend))
            forcing = _forcing(forcing, size / before)
            yield Step(point, size)
            if not math.isfinite(size):
                return

    def _direction(self, point: InnerPoint, tol: float) -> Array:
        """The Newton direction, to a residual of ``tol``."""
        preconditioner = point.preconditioner() if isinstance(point, Preconditioned) else None
        if preconditioner is None and self.precondition:
            diagonal = point.diag()
            preconditioner = None if diagonal is None else jacobi(diagonal)
        result = cg(
            point.hvp,
            -point.grad,
            tol=tol,
            preconditioner=preconditioner,
            max_iter=self.max_cg,
            verify=False,
        )
        if result.status in _FLAT and result.n_iter <= 1:
            return -point.grad
        return result.x


#: How CG ends where it met no positive curvature.
_FLAT = (Status.NEGATIVE_CURVATURE, Status.SINGULAR)

#: The forcing term at the start, and its upper limit.
_LOOSEST = 0.5


def _forcing(before: float, ratio: float) -> float:
    """Eisenstat and Walker's choice 2, with their safeguard against a drop too early."""
    gamma, alpha = 0.9, (1 + math.sqrt(5)) / 2
    slow = gamma * math.pow(before, alpha)
    return min(_LOOSEST, max(gamma * math.pow(ratio, alpha), slow if slow > 0.1 else 0.0))
