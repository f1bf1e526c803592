"""Iterative differentiation of gradient descent and of the heavy ball, both ways.

    x_{t+1} = x_t - η ∂_x h(x_t, λ) + β (x_t - x_{t-1}),    t = 0, ..., T-1,   β = 0: descent

and p = dg(x_T(λ), λ)/dλ (Domke 2012, algorithms 1 to 4; Maclaurin et al. 2015; Franceschi et al.
2017). Forward mode carries Z_t = dx_t/dλ, m columns; reverse mode keeps the points and goes
back, with the adjoints

    a_t = (1 + β) a_{t+1} - η H_t a_{t+1} - β a_{t+2},    a_T = ∂_x g,
    p = ∂_λ g - Σ_t η B_tᵀ a_{t+1}.

The start x_0 is the point that is handed over, and a constant: dx_0/dλ = 0. Only the last
``truncate`` steps are differentiated where that is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..backends import COUNT, POSITIVE, Array, Maybe, Number, check_fields, pending
from ..inner import InnerPoint, Rounded, constants_at
from ..linalg import norm
from ..linalg.rounding import gamma, known, unit_roundoff, upper_norm
from ..outer import OuterPoint, RoundedOuter
from ..problem import Problem
from ..solvers import InnerResult, distance_bound, point_error
from ..status import Status
from ._protocol import HypergradResult
from .neumann import step_length
from .surrogate import MEANINGLESS, Walk, certified, tangent_bound, transient, value_error


@dataclass(frozen=True)
class Unrolled:
    """What forward and reverse mode share: the steps.

    Parameters
    ----------
    n_steps : int
        T ≥ 1.
    step : float, optional
        η; 1/‖H‖ by the bound that the objective states when omitted.
    momentum : float
        0 ≤ β < 1: 0 is gradient descent, else the heavy ball (Polyak 1964).
    truncate : int, optional
        Differentiate the last so many steps only.
    """

    n_steps: int = 100
    step: float | None = None
    momentum: float = 0.0
    truncate: int | None = None

    def __post_init__(self) -> None:
        check_fields(
            self,
            n_steps=COUNT,
            step=Maybe(POSITIVE),
            momentum=Number(at_least=0, below=1),
            truncate=Maybe(COUNT),
        )

    def walk(self, problem: Problem, point: InnerPoint) -> list[InnerPoint]:
        """Return the points x_0, ..., x_T."""
        eta = step_length(self.step, problem, point.lam)
        points, previous = [point], point.x
        for _ in range(self.n_steps):
            x = points[-1].x
            ahead = x - eta * points[-1].grad + self.momentum * (x - previous)
            previous = x
            points.append(problem.inner.at(ahead, point.lam))
        return points

    @property
    def n_differentiated(self) -> int:
        return self.n_steps if self.truncate is None else min(self.truncate, self.n_steps)


@dataclass(frozen=True)
class ReverseUnrolled(Unrolled):
    """Reverse mode: memory for T points, time for one Hessian product a step.

    ``tol`` of the call is what the status is judged by: CONVERGED, TRUNCATED where the number of
    steps left more undone, DIVERGED where they led away. ``residual`` and ``error_bound`` measure
    it. ``start`` is not used.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.hypergrad import unsolved
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> start = unsolved(problem, np.zeros(1), np.zeros(1))
    >>> ReverseUnrolled(n_steps=50)(problem, start, tol=0.0).n_iter
    50
    """

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        eta = step_length(self.step, problem, inner.point.lam)
        points = self.walk(problem, inner.point)
        outer = problem.outer.at(points[-1].x, points[-1].lam)
        ahead, after = outer.grad_x, problem.backend.xp.zeros_like(outer.grad_x)
        value, adjoint = outer.grad_lam, problem.backend.xp.zeros_like(outer.grad_x)
        for point in points[self.n_steps - 1 :: -1][: self.n_differentiated]:
            value = value - eta * point.cross_vjp(ahead)
            adjoint = adjoint + eta * ahead
            back = ahead - eta * point.hvp(ahead) + self.momentum * (ahead - after)
            ahead, after = back, ahead
        return certified(
            problem,
            points[-1],
            outer,
            value,
            adjoint,
            n_iter=self.n_differentiated,
            status=Status.CONVERGED,
            walk=Walk(problem, inner, tol, transient(self.momentum)),
        )


@dataclass(frozen=True)
class ForwardUnrolled(Unrolled):
    """Forward mode: no memory for the points, but m columns in each Hessian product.

    ``tol`` of the call is what the status is judged by, ‖H Z + B‖ taken relative to ‖B‖; that share
    of ‖∂_x g‖ is the ``residual``. ``start`` is not used.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.hypergrad import unsolved
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> start = unsolved(problem, np.zeros(1), np.zeros(1))
    >>> ForwardUnrolled(n_steps=50)(problem, start, tol=0.0).adjoint is None
    True
    """

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        backend, xp = problem.backend, problem.backend.xp
        eta = step_length(self.step, problem, inner.point.lam)
        points = self.walk(problem, inner.point)
        last = points[-1]
        tangent = xp.zeros_like(cross_matrix(problem, last))
        before = tangent
        for point in points[self.n_steps - self.n_differentiated : self.n_steps]:
            change = point.hvp(tangent) + cross_matrix(problem, point)
            step = tangent - eta * change + self.momentum * (tangent - before)
            tangent, before = step, tangent
        outer = problem.outer.at(last.x, last.lam)
        columns = xp.reshape(tangent, (-1, tangent.shape[-1]))
        value = outer.grad_lam + xp.matmul(columns.T, xp.reshape(outer.grad_x, (-1,)))
        cross = cross_matrix(problem, last)
        rest = last.hvp(tangent) + cross
        residual, slope, pull, whole, length = backend.scalars(
            *(norm(a, backend) for a in (rest, last.grad, outer.grad_x, cross, value))
        )
        constants = constants_at(problem.inner, last)
        left = residual / whole if whole > 0 else 0.0
        status = Walk(problem, inner, tol, transient(self.momentum)).status(
            last, constants, slope, pull, left
        )
        if not math.isfinite(residual + length):
            status = Status.NON_FINITE
        found = HypergradResult(
            value, None, None, left * pull, self.n_differentiated, status, outer, point=last
        )
        if status in MEANINGLESS:
            return found
        distance = point_error(last, constants.mu, backend)
        return replace(
            found,
            error_bound=_tangent_bound(problem, last, outer, tangent, rest),
            value_error=value_error(problem, outer, distance, last),
        )


def _tangent_bound(
    problem: Problem, point: InnerPoint, outer: OuterPoint, tangent: Array, rest: Array
) -> float | None:
    """The bound that Z gives p, None where a constant or the rounding is not known."""
    if not isinstance(point, Rounded) or not isinstance(outer, RoundedOuter):
        return None
    lost, lost_outer = point.rounding(tangent), outer.rounding()
    if lost is None or lost_outer is None:
        return None
    backend, constants = problem.backend, constants_at(problem.inner, point)
    residual, size, slope, pull, *others = backend.scalars(
        *(upper_norm(a, backend) for a in (rest, tangent, point.grad, outer.grad_x)),
        *(lost.grad, pending(lost.products).sum(), lost.cross),
        *(lost_outer.grad_x, lost_outer.grad_lam, upper_norm(outer.grad_lam, backend)),
    )
    lost_grad, lost_product, lost_cross, lost_pull, lost_direct, direct = others
    unit = unit_roundoff(problem.dtype, backend)
    terms = gamma(math.prod(point.x.shape) + 4, unit)
    return tangent_bound(
        constants,
        problem.outer_constants,
        inner_error=distance_bound(constants.mu, known(slope + lost_grad)),
        residual=residual * (1 + 2 * unit) + lost_product + lost_cross,
        tangent_norm=size,
        grad_x_norm=pull + lost_pull,
        rounding=lost_direct + 2 * unit * direct + size * (lost_pull + terms * pull),
    )


def cross_matrix(problem: Problem, point: InnerPoint) -> Array:
    """∂²_{xλ} h with its m columns on the last axis."""
    backend, m = problem.backend, problem.inner.n_hyperparameters
    eye = backend.xp.eye(m, dtype=point.x.dtype, device=backend.device)
    return backend.xp.stack([point.cross_jvp(eye[j, :]) for j in range(m)], axis=-1)


def unsolved(problem: Problem, lam: Array, x0: Array) -> InnerResult:
    """Wrap a start as an inner result, for methods that do their own inner steps."""
    point = problem.inner.at(x0, lam)
    (slope,) = problem.backend.scalars(norm(point.grad, problem.backend))
    bound = point_error(point, constants_at(problem.inner, point).mu, problem.backend)
    return InnerResult(point, Status.RUNNING, 0, slope, bound)
