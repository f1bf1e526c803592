"""Inexact Newton: the Newton system by preconditioned CG, then a line search.

Dembo, Eisenstat and Steihaug (1982): CG stops at a residual of η ‖∇h‖, η ≤ min(½, √(‖∇h‖/‖∇h₀‖)),
which gives superlinear convergence without solving the early systems precisely.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..backends import Array, Backend
from ..inner import InnerPoint
from ..linalg import cg, jacobi
from ..status import Status
from ._protocol import Step
from .linesearch import WolfeSearch


@dataclass(frozen=True)
class NewtonCG:
    """Newton-CG with a strong Wolfe search, preconditioned by the diagonal of the Hessian.

    An iteration on a linear model costs two passes for each step of CG, and three more: the
    diagonal, the ray and the gradient.
    Where CG meets negative curvature its iterate until then is the direction, or the negative
    preconditioned gradient at the first step.

    Parameters
    ----------
    max_cg : int, optional
        Steps of CG an iteration at most; ten times the number of unknowns when omitted.
    precondition : bool
        Use the diagonal of the Hessian where the objective has it.
    search : WolfeSearch
        The line search.
    """

    max_cg: int | None = None
    precondition: bool = True
    search: WolfeSearch = WolfeSearch()

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        value, first = backend.scalars(point.value, _norm(backend, point.grad))
        norm = first
        yield Step(point, norm)
        while norm > 0:
            d = self._direction(point, backend, norm, first, target)
            (slope,) = backend.scalars(backend.xp.sum(d * point.grad))
            if not slope < 0:
                d, slope = -point.grad, -norm * norm
            found = self.search(point.ray(d), value, slope, 1.0, backend, point.x.dtype)
            if found is None:
                return
            point = found
            value, norm = backend.scalars(point.value, _norm(backend, point.grad))
            yield Step(point, norm)
            if not math.isfinite(norm):
                return

    def _direction(
        self, point: InnerPoint, backend: Backend, norm: float, first: float, target: float
    ) -> Array:
        """The Newton direction, as precise as the forcing term and the caller's target ask."""
        diagonal = point.diag() if self.precondition else None
        preconditioner = None if diagonal is None else jacobi(diagonal)
        eta = min(0.5, math.sqrt(norm / first))
        result = cg(
            point.hvp,
            -point.grad,
            tol=max(eta * norm, 0.25 * target),
            preconditioner=preconditioner,
            max_iter=self.max_cg,
            verify=False,
        )
        if result.status is Status.NEGATIVE_CURVATURE and result.n_iter == 1:
            return -point.grad
        return result.x


def _norm(backend: Backend, v: Array) -> Array:
    flat = backend.xp.reshape(v, (-1,))
    return backend.xp.sqrt(backend.xp.vecdot(flat, flat))
