"""What an inner solver is, and the loop that stops each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..backends import COUNT, POSITIVE, Array, Backend, Has, Whole
from ..inner import Inner, InnerPoint
from ..meter import tick
from ..status import Status


@dataclass(frozen=True)
class Step:
    """Where a solver stands after one of its iterations."""

    point: InnerPoint
    grad_norm: float


class Solver(Protocol):
    """Minimises x ↦ h(x, λ) by walking from point to point."""

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        """Yield the start, then a point an iteration; end where no progress is possible.

        ``target`` is the gradient norm that the caller will stop at: a solver may use it to
        work no more precisely than that, and must not stop because of it.
        """
        ...


#: What takes the place of a solver has to be one.
SOLVER = Has("a solver", "walk")


@dataclass(frozen=True)
class InnerResult:
    """An inner solution with its certificate.

    Attributes
    ----------
    point : InnerPoint
        The last point; its margins and gradient are computed already.
    status : Status
        CONVERGED, MAX_ITER, STALLED or NON_FINITE.
    n_iter : int
        Iterations of the solver.
    grad_norm : float
        ‖∂_x h‖ at the point.
    error_bound : float or None
        ‖∂_x h‖ / μ ≥ ‖x - X(λ)‖, None where the objective states no μ.
    """

    point: InnerPoint
    status: Status
    n_iter: int
    grad_norm: float
    error_bound: float | None

    @property
    def x(self) -> Array:
        return self.point.x


def solve(
    inner: Inner,
    lam: Array,
    x0: Array,
    *,
    solver: Solver,
    tol: float,
    carry: Array | None = None,
    min_iter: int = 0,
    max_iter: int = 10_000,
) -> InnerResult:
    """Minimise x ↦ h(x, λ) until ‖x - X(λ)‖ ≤ tol is certain.

    With h(., λ) μ-strongly convex, ‖∂_x h‖ ≤ μ tol certifies the distance. Where the objective
    states no μ nothing can be certified: then the gradient norm itself is held to ``tol``, and
    ``error_bound`` is None.

    Parameters
    ----------
    inner : Inner
        h.
    lam : array, shape (m,)
        The hyperparameters.
    x0 : array
        Where to start; a value near X(λ) saves iterations.
    solver : Solver
        How to walk.
    tol : float
        ε, in the units of x.
    carry : array, optional
        The ``carry`` of a point at x0.
    min_iter, max_iter : int
        Iterations of the solver at least (where progress is possible) and at most.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from bilevel.solvers import LBFGS, solve
    >>> from bilevel.losses import Logistic
    >>> h = bilevel.inner.linear_model(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> result = solve(h, np.zeros(1), np.zeros(2), solver=LBFGS(), tol=1e-9)
    >>> result.x.round(4), result.status.value
    (array([ 0.4011, -0.4011]), 'converged')
    """
    SOLVER(solver, "solver")
    tol = POSITIVE(tol, "tol")
    min_iter, max_iter = Whole(0)(min_iter, "min_iter"), COUNT(max_iter, "max_iter")
    mu = inner.constants(lam).mu
    target = tol if mu is None else mu * tol
    point = inner.at(x0, lam, carry)
    status, n_iter = Status.STALLED, 0
    last = None
    for n_iter, step in enumerate(solver.walk(point, inner.backend, target)):
        tick()
        if not math.isfinite(step.grad_norm):
            status, last = Status.NON_FINITE, last or step
            break
        last = step
        if step.grad_norm <= target and (n_iter >= min_iter or step.grad_norm == 0):
            status = Status.CONVERGED
            break
        if n_iter >= max_iter:
            status = Status.MAX_ITER
            break
    assert last is not None  # a walk yields its start
    bound = None if mu is None else (last.grad_norm / mu if mu > 0 else math.inf)
    return InnerResult(last.point, status, n_iter, last.grad_norm, bound)
