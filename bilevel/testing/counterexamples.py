"""Why Theorem 2 asks for what it asks: one construction for each condition that is dropped.

In all of them X(λ) = λ or nearly so, and an *adversary* uses the freedom that the conditions (i)
and (ii) of algorithm 1 leave it: it returns an x_k at a distance of exactly ε_k from X(λ_k), or a
q_k with a residual of exactly ε_k, in the direction that does most harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends import Array, Backend
from ..domains import Box
from ..hypergrad import HypergradResult, Implicit
from ..inner import InnerPoint
from ..methods import HOAG, FixedStep
from ..problem import Problem
from ..schedules import Constant, Schedule
from ..solvers import InnerResult, Step
from ..status import Status
from .problems import KnownProblem, quadratic_from
from .reference import norm
from .theorems import Figures, shifted, theorem_1_constant, trace


def identity_problem(
    matrix: Any, target: Any, domain: Box, *, hessian: Any = None, offset: Any = None
) -> KnownProblem:
    """h = ½ xᵀ A x - (b + λ)ᵀ x and g = ½ ‖M x - t‖², A = I unless given; m = p.

    Examples
    --------
    >>> known = identity_problem(np.eye(2), np.ones(2), Box(-2.0, 2.0))
    >>> [float(v) for v in known.hypergradient]  # f = ½ ‖λ - t‖² at λ = 0
    [-1.0, -1.0]
    """
    p = len(target)
    zero = np.zeros((p, p))
    inner = {
        "matrix": np.eye(p) if hessian is None else np.asarray(hessian, dtype=np.float64),
        "offset": np.zeros(p) if offset is None else np.asarray(offset, dtype=np.float64),
        "slope": np.eye(p),
        "groups": zero,
    }
    outer = {
        "matrix": np.asarray(matrix, dtype=np.float64),
        "target": np.asarray(target, dtype=np.float64),
        "coupling": zero,
        "center": np.zeros(p),
    }
    return quadratic_from(inner, outer, domain=domain, lam=[0.0] * p, name="X(λ) = λ")


@dataclass(frozen=True)
class Misfit:
    """An inner solver for ∂²_{xx}h = I that ends at a distance of exactly ε along the diagonal."""

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        p = point.x.shape[0]
        away = 0.999 * target / math.sqrt(p)
        inner: Any = point
        yield Step(inner.inner.at(point.x - point.grad + away, point.lam), 0.999 * target)


@dataclass
class Drift:
    """An adjoint for ∂²_{xx}h = I with a residual of exactly ε in the last coordinate.

    It pushes λ to one face of the domain, then to the other, and so on for ever.
    """

    low: float
    high: float
    pushes: list[float] = field(default_factory=list)

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        backend, xp = problem.backend, problem.backend.xp
        outer = problem.outer.at(inner.x, inner.point.lam)
        (last,) = backend.scalars(inner.point.lam[-1])
        sign = self.pushes[-1] if self.pushes else 1.0
        if last >= self.high:
            sign = 1.0
        elif last <= self.low:
            sign = -1.0
        self.pushes.append(sign)
        p = outer.grad_x.shape[0]
        unit = backend.asarray(np.eye(p)[-1])
        q = outer.grad_x + sign * tol * unit
        value = outer.grad_lam - inner.point.cross_vjp(q)
        return HypergradResult(value, None, xp.asarray(q), tol, 0, Status.CONVERGED, outer)


@dataclass(frozen=True)
class ColdAdjoint:
    """The implicit hypergradient, its linear solve always started at zero."""

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        return Implicit()(problem, inner, tol=tol)


@dataclass(frozen=True)
class ExactAdjoint:
    """The implicit hypergradient with an adjoint that is exact whatever ε is."""

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        return Implicit()(problem, inner, tol=1e-13)


def drift(schedule: Schedule, steps: int = 600) -> Figures:
    """f is flat in λ_2, and each p_k is within ε_k of ∇f(λ_k).

    With Σ ε_k = ∞ (ε_k = 1/k, the early misprint "Σ ε_k ≤ ∞") λ_2 crosses D for ever; with
    Σ ε_k < ∞ the very same adversary has a finite way to go, and λ_k converges.

    Returns
    -------
    dict
        ``crossings`` of the middle, ``late`` range of λ_2 in the second half of log-time, and
        ``error`` = max_k ‖p_k - ∇f(λ_k)‖ / ε_k.

    Examples
    --------
    >>> from bilevel.schedules import Power
    >>> drift(Power(1.0, 2.0), 200)["crossings"] <= 2
    True
    """
    half = 0.25
    known = identity_problem(np.diag([1.0, 0.0]), [0.1, 0.0], Box(-half, half))
    method = HOAG(tolerances=schedule, step_rule=FixedStep(1.0), hypergradient=Drift(-half, half))
    state = method.init(known.problem, known.array([0.0, 0.0]), None, 0.0)
    second, error = [0.0], 0.0
    for k in range(1, steps + 1):
        truth = np.array([float(known.host(state.lam)[0]) - 0.1, 0.0])
        state = method.step(known.problem, state)
        assert state.record is not None
        wrong = norm(known.host(state.record.hypergrad) - truth)
        error = max(error, wrong / schedule(k))
        second.append(float(known.host(state.lam)[1]))
    late = second[math.isqrt(steps) :]
    crossings = sum(a * b < 0 for a, b in zip(second, second[1:], strict=False))
    return {"crossings": crossings, "late": max(late) - min(late), "error": error}


def stall(tol: float, steps: int = 60) -> Figures:
    """ε_k = ε: the iterates stop at a neighbourhood of size O(ε), and no nearer.

    Examples
    --------
    >>> figures = stall(1e-3)
    >>> round(figures["distance"] / 1e-3, 2)
    1.0
    """
    target = np.array([0.5, -0.25])
    known = identity_problem(np.eye(2), target, Box(-2.0, 2.0))
    method = HOAG(
        tolerances=Constant(tol),
        step_rule=FixedStep(1.5),
        solver=Misfit(),
        hypergradient=ExactAdjoint(),
        relative=False,
    )
    found = trace(known, method, steps, [1.0, 1.0])
    moved = norm(found.lam[-1] - found.lam[-2])
    return {"distance": norm(found.lam[-1] - target), "moved": moved}


def _singular_problem(curvature: float) -> KnownProblem:
    inner = {
        "matrix": np.diag([1.0, curvature]),
        "offset": np.zeros(2),
        "slope": np.array([[1.0], [0.0]]),
        "groups": np.zeros((2, 1)),
    }
    outer = {
        "matrix": np.array([[1.0, 1.0], [0.0, 0.0]]),
        "target": np.array([1.0, 0.0]),
        "coupling": np.zeros((1, 2)),
        "center": np.zeros(1),
    }
    return quadratic_from(inner, outer, domain=Box(-4.0, 4.0), lam=[0.0], name="singular H")


def singular(start: float, curvature: float, *, steps: int = 60) -> Figures:
    """∂²_{xx}h = diag(1, s) with λ at work on x_1 alone, and g = ½ (x_1 + x_2 - 1)².

    For s > 0 the minimiser has x_2 = 0 and λ* = 1, from whatever x the run starts. For s = 0
    x_2 stays where it started, every condition on gradients and residuals can be met, and the
    limit of λ_k depends on the start: there is no X(λ).

    Examples
    --------
    >>> round(singular(0.5, 1.0)["lam"], 6)
    1.0
    """
    known = _singular_problem(curvature)
    problem = known.problem
    method = HOAG(tolerances="exponential", step_rule=FixedStep(4.0), hypergradient=ColdAdjoint())
    # The minimiser of the first coordinate, and anything in the other.
    state = method.init(problem, known.array([0.0]), known.array([0.0, start]), 0.0)
    solved, stated = 0, 0
    for _ in range(steps):
        state = method.step(problem, state)
        assert state.record is not None
        solved += state.record.cg_status is Status.CONVERGED
        stated += state.record.hypergrad_error is not None
    (lam,) = problem.backend.scalars(state.lam[0])
    return {"lam": lam, "solved": solved / steps, "stated": stated / steps}


def nearly_singular(curvature: float, tol: float = 1e-6) -> Figures:
    """The same problem, with ‖∂_x h‖ ≤ ε for a stop instead of ‖∂_x h‖ ≤ μ ε.

    The point X(λ) + (ε/s) e_2 passes that test, and the error of its hypergradient is ε/s: the
    constant of Theorem 1 has no bound as s → 0.

    Examples
    --------
    >>> round(nearly_singular(1e-3)["error"] * 1e-3 / 1e-6, 6)
    1.0
    """
    known = _singular_problem(curvature)
    inner = shifted(known, np.array([0.0, tol / curvature]))
    found = ExactAdjoint()(known.problem, inner, tol=tol)
    error = norm(known.host(found.value) - known.hypergradient)
    return {"error": error, "gradient": inner.grad_norm, "C": theorem_1_constant(known, tol)}


def unbounded(steps: int, upper: float = math.inf) -> Figures:
    """X(λ) = 1/(1 + e^λ) and g = ½ x²: f falls for ever, its infimum is at infinity.

    On a bounded D the iterates end at the face; on an unbounded one they pass every bound, like
    ½ log k.

    Examples
    --------
    >>> unbounded(60, upper=0.5)["lam"]
    0.5
    """
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    inner = {"matrix": one, "offset": np.ones(1), "slope": zero, "groups": one}
    outer = {"matrix": one, "target": np.zeros(1), "coupling": zero, "center": np.zeros(1)}
    domain = Box(-math.inf if math.isinf(upper) else -upper, upper)
    known = quadratic_from(inner, outer, domain=domain, lam=[0.0], name="f = ½/(1 + e^λ)²")
    method = HOAG(tolerances="cubic", step_rule=FixedStep(0.1))
    state = method.init(known.problem, known.array([0.0]), None, 0.0)
    for _ in range(steps):
        state = method.step(known.problem, state)
    assert state.record is not None
    (lam,) = known.problem.backend.scalars(state.lam[0])
    return {"lam": lam, "step": state.record.step, "optimality": state.record.optimality}
