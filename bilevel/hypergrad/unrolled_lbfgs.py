"""Reverse differentiation through L-BFGS (Domke 2012, section 4: "back-L-BFGS").

    x_{t+1} = x_t + α_t d_t,   d_t = -(two-loop recursion of ∂_x h(x_t) and the last pairs)
    s_t = x_{t+1} - x_t,   y_t = ∂_x h(x_{t+1}) - ∂_x h(x_t)

The backward pass differentiates the two-loop recursion by hand, in the gradient and in the
pairs. The step lengths α_t come from a line search and are taken as constants, as Domke does;
near the solution they are 1. With ḡ_t the adjoint of the gradient at x_t:

    x̄_t gains H_t ḡ_t,    p = ∂_λ g + Σ_t B_tᵀ ḡ_t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..backends import COUNT, Array, Backend, Maybe, check_fields
from ..inner import InnerPoint
from ..linalg import dot, norm
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
from ._protocol import HypergradResult
from .surrogate import Walk, certified

#: A pair enters the memory where sᵀy ≥ this ‖s‖ ‖y‖: the curvature is positive beyond rounding.
_CURVATURE = 1e-10
_ARMIJO = 1e-4


@dataclass(frozen=True)
class Pair:
    """s, y and ρ = 1/sᵀy of one step."""

    index: int
    s: Array
    y: Array
    rho: Array


@dataclass(frozen=True)
class TwoLoop:
    """r = H_t g by the two-loop recursion, with what its derivative needs.

    Nocedal and Wright (2006), algorithm 7.4, initial matrix γ I with γ = sᵀy/yᵀy of the newest
    pair. ``q_before`` and ``r_before`` hold q and r as each pair finds them, oldest pair first.
    """

    pairs: tuple[Pair, ...]
    a: tuple[Array, ...]
    b: tuple[Array, ...]
    q_before: tuple[Array, ...]
    r_before: tuple[Array, ...]
    q: Array
    gamma: Array | None
    r: Array


def two_loop(pairs: tuple[Pair, ...], g: Array, backend: Backend) -> TwoLoop:
    """Apply the approximate inverse Hessian of these pairs (oldest first) to g."""
    q = g
    a: list[Array] = []
    q_before: list[Array] = []
    for pair in reversed(pairs):
        q_before.insert(0, q)
        a.insert(0, pair.rho * dot(pair.s, q, backend))
        q = q - a[0] * pair.y
    gamma = None
    if pairs:
        newest = pairs[-1]
        gamma = 1 / (newest.rho * dot(newest.y, newest.y, backend))
    r, b, r_before = (q if gamma is None else gamma * q), [], []
    for pair, a_i in zip(pairs, a, strict=True):
        r_before.append(r)
        b.append(pair.rho * dot(pair.y, r, backend))
        r = r + (a_i - b[-1]) * pair.s
    return TwoLoop(pairs, tuple(a), tuple(b), tuple(q_before), tuple(r_before), q, gamma, r)


def two_loop_vjp(
    loop: TwoLoop, r_bar: Array, backend: Backend
) -> tuple[Array, list[Array], list[Array]]:
    """Pull r̄ back: (ḡ, s̄ of each pair, ȳ of each pair)."""
    n = len(loop.pairs)
    zero = backend.xp.zeros_like(r_bar)
    s_bar, y_bar = [zero] * n, [zero] * n
    a_bar: list[Array] = [None] * n
    rho_bar: list[Array] = [None] * n
    for i in range(n - 1, -1, -1):  # the second loop, newest pair first
        pair, r = loop.pairs[i], loop.r_before[i]
        a_bar[i] = dot(pair.s, r_bar, backend)
        s_bar[i] = s_bar[i] + (loop.a[i] - loop.b[i]) * r_bar
        rho_bar[i] = -a_bar[i] * dot(pair.y, r, backend)
        y_bar[i] = y_bar[i] - a_bar[i] * pair.rho * r
        r_bar = r_bar - a_bar[i] * pair.rho * pair.y
    q_bar = r_bar
    if loop.gamma is not None:
        newest, gamma = loop.pairs[-1], loop.gamma
        square = dot(newest.y, newest.y, backend)
        gamma_bar = dot(r_bar, loop.q, backend) / square
        s_bar[-1] = s_bar[-1] + gamma_bar * newest.y
        y_bar[-1] = y_bar[-1] + gamma_bar * (newest.s - 2 * gamma * newest.y)
        q_bar = gamma * r_bar
    for i in range(n):  # the first loop, oldest pair first
        pair, q = loop.pairs[i], loop.q_before[i]
        slope = a_bar[i] - dot(pair.y, q_bar, backend)
        y_bar[i] = y_bar[i] - loop.a[i] * q_bar
        total = rho_bar[i] + slope * dot(pair.s, q, backend)
        s_bar[i] = s_bar[i] + slope * pair.rho * q - total * pair.rho * pair.rho * pair.y
        y_bar[i] = y_bar[i] - total * pair.rho * pair.rho * pair.s
        q_bar = q_bar + slope * pair.rho * pair.s
    return q_bar, s_bar, y_bar


@dataclass(frozen=True)
class Trajectory:
    """The points of a run, its recursions, pairs and step lengths."""

    points: tuple[InnerPoint, ...]
    loops: tuple[TwoLoop, ...]
    step_lengths: tuple[float, ...]


@dataclass(frozen=True)
class ReverseLBFGS:
    """Run T steps of L-BFGS from the point that is handed over and differentiate them.

    ``tol`` of the call ends the steps early where the gradient norm falls below it, before
    rounding makes the pairs meaningless, and is what the status is judged by: CONVERGED, or
    TRUNCATED where the steps differentiated leave more undone; ``start`` is not used.

    Parameters
    ----------
    n_steps : int
        T ≥ 1.
    memory : int
        Pairs kept.
    truncate : int, optional
        Differentiate the last so many steps only.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.hypergrad import unsolved
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> start = unsolved(problem, np.zeros(1), np.zeros(1))
    >>> result = ReverseLBFGS(n_steps=20)(problem, start, tol=1e-8)
    >>> result.residual < 1e-4
    True
    """

    n_steps: int = 30
    memory: int = 10
    truncate: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, n_steps=COUNT, memory=COUNT, truncate=Maybe(COUNT))

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        run = self.walk(problem, inner.point, tol)
        return self.differentiate(problem, run, Walk(problem, inner, tol, math.inf))

    def walk(
        self,
        problem: Problem,
        point: InnerPoint,
        tol: float,
        step_lengths: Sequence[float] | None = None,
    ) -> Trajectory:
        """Take the steps; given step lengths are replayed in place of the line search."""
        backend = problem.backend
        points, loops, lengths = [point], [], []
        pairs: tuple[Pair, ...] = ()
        n_steps = self.n_steps if step_lengths is None else len(step_lengths)
        for t in range(n_steps):
            here = points[-1]
            (size,) = backend.scalars(norm(here.grad, backend))
            if step_lengths is None and size <= tol:
                break
            loop = two_loop(pairs, here.grad, backend)
            if step_lengths is None:
                length = _backtrack(here, -loop.r, 1.0 if pairs else min(1.0, 1 / size), backend)
            else:
                length = step_lengths[t]
            if length == 0.0:
                break
            ahead = problem.inner.at(here.x - length * loop.r, here.lam)
            points.append(ahead)
            loops.append(loop)
            lengths.append(length)
            pairs = self._remember(pairs, t, ahead.x - here.x, ahead.grad - here.grad, backend)
        return Trajectory(tuple(points), tuple(loops), tuple(lengths))

    def _remember(
        self, pairs: tuple[Pair, ...], t: int, s: Array, y: Array, backend: Backend
    ) -> tuple[Pair, ...]:
        sy = dot(s, y, backend)
        found, floor = backend.scalars(sy, norm(s, backend) * norm(y, backend))
        if not found > _CURVATURE * floor:
            return pairs
        return (*pairs, Pair(t, s, y, 1 / sy))[-self.memory :]

    def differentiate(
        self, problem: Problem, run: Trajectory, judge: Walk | None = None
    ) -> HypergradResult:
        """Go back through the steps."""
        backend, xp = problem.backend, problem.backend.xp
        points, n = run.points, len(run.loops)
        outer = problem.outer.at(points[-1].x, points[-1].lam)
        zero = xp.zeros_like(outer.grad_x)
        x_bar, g_bar = [zero] * (n + 1), [zero] * (n + 1)
        s_bar, y_bar = [zero] * n, [zero] * n
        x_bar[n] = outer.grad_x
        value, adjoint = outer.grad_lam, zero
        first = 0 if self.truncate is None else max(0, n - self.truncate)
        for t in range(n - 1, first - 1, -1):
            x_bar[t + 1], x_bar[t] = x_bar[t + 1] + s_bar[t], x_bar[t] - s_bar[t]
            g_bar[t + 1], g_bar[t] = g_bar[t + 1] + y_bar[t], g_bar[t] - y_bar[t]
            ahead = points[t + 1]
            x_bar[t + 1] = x_bar[t + 1] + ahead.hvp(g_bar[t + 1])
            value = value + ahead.cross_vjp(g_bar[t + 1])
            adjoint = adjoint - g_bar[t + 1]
            x_bar[t] = x_bar[t] + x_bar[t + 1]
            pulled, s_new, y_new = two_loop_vjp(
                run.loops[t], -run.step_lengths[t] * x_bar[t + 1], backend
            )
            g_bar[t] = g_bar[t] + pulled
            for pair, s_add, y_add in zip(run.loops[t].pairs, s_new, y_new, strict=True):
                s_bar[pair.index] = s_bar[pair.index] + s_add
                y_bar[pair.index] = y_bar[pair.index] + y_add
        value = value + points[first].cross_vjp(g_bar[first])
        adjoint = adjoint - g_bar[first]
        return certified(
            problem,
            points[-1],
            outer,
            value,
            adjoint,
            n_iter=n - first,
            status=Status.CONVERGED,
            walk=judge,
        )


def _backtrack(point: InnerPoint, d: Array, length: float, backend: Backend) -> float:
    """Halve the step until it satisfies Armijo's condition; 0 where none does."""
    ray = point.ray(d)
    value, slope = backend.scalars(point.value, dot(point.grad, d, backend))
    for _ in range(40):
        (ahead,) = backend.scalars(ray.at(length).value)
        if ahead <= value + _ARMIJO * length * slope:
            return length
        length /= 2
    return 0.0
