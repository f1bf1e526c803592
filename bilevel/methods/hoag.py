"""HOAG as published: Pedregosa (2016), algorithm 1.

Iteration k, with the tolerance ε_k of a decreasing sequence:

    (i)    x_k with ‖X(λ_k) - x_k‖ ≤ ε_k                     started at x_{k-1}
    (ii)   q_k with ‖∂²_{xx}h q_k - ∂_x g‖ ≤ ε_k             started at q_{k-1}
    (iii)  p_k = ∂_λ g - (∂²_{xλ} h)ᵀ q_k
    (iv)   λ_{k+1} = P_D(λ_k - p_k / L)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from ..backends import COUNT, NOT_NEGATIVE, POSITIVE, Array, Has, Number, check_fields, function
from ..hypergrad import Hypergradient, Implicit, value_bound
from ..linalg import norm
from ..problem import Problem
from ..record import Record
from ..schedules import Exponential, Schedule, schedule_of
from ..solvers import LBFGS, SOLVER, Solver, solve
from ..status import Status
from ._protocol import optimality


@dataclass(frozen=True)
class StepState:
    """What a step rule remembers: L, and the iteration before.

    Attributes
    ----------
    lipschitz : float
        L, the inverse of the step size.
    value, tol : float
        g(x, λ) and ε of the iteration before.
    moved : float
        ‖λ_k - λ_{k-1}‖, the distance that led here.
    """

    lipschitz: float
    value: float
    tol: float
    moved: float = 0.0


class StepRule(Protocol):
    """Chooses L, and says whether the last step is to be taken back."""

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> StepState: ...

    def next(self, state: StepState, value: float, tol: float) -> tuple[StepState, bool]:
        """The state at the new iterate, and whether that iterate is accepted."""
        ...


@dataclass(frozen=True)
class FixedStep:
    """L given once and for all, as in Theorem 2: at least the Lipschitz constant of ∇f."""

    lipschitz: float

    def __post_init__(self) -> None:
        check_fields(self, lipschitz=POSITIVE)

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> StepState:
        return StepState(self.lipschitz, value, tol)

    def next(self, state: StepState, value: float, tol: float) -> tuple[StepState, bool]:
        return replace(state, value=value, tol=tol), True


@dataclass(frozen=True)
class AdaptiveStep:
    """The paper's adaptive rule (section "Adaptive step size").

    With Δ = ‖λ_k - λ_{k-1}‖, the step is lengthened by 5% (L ← 0.95 L) where

        g(x_k, λ_k) ≤ g(x_{k-1}, λ_{k-1}) + C ε_k + ε_{k-1} (C + M) Δ - L Δ² / 2,

    and halved (L ← 2 L) where g grew by more than the two tolerances allow. In between L stays. A
    step after which g is larger by more than the factor ``growth`` is taken back. L starts such
    that the first step has the length √m.

    The half is that of the descent lemma, and of the authors' code: a step p / L lowers a
    quadratic f of curvature c by L Δ² - c Δ² / 2, so that the test holds exactly where c ≤ L.
    With L Δ² in its place the slack alone could satisfy it, and a rule that halves only after
    growth by a factor keeps lengthening at the solution and leaves it again.

    Parameters
    ----------
    C, M : float
        The constants of the inequality; 0.25 and 1 are the authors'.
    growth : float
        The factor at which a step is taken back.
    """

    C: float = 0.25
    M: float = 1.0
    growth: float = 1.2

    def __post_init__(self) -> None:
        check_fields(self, C=NOT_NEGATIVE, M=NOT_NEGATIVE, growth=Number(above=1))

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> StepState:
        lipschitz = grad_norm / math.sqrt(m) if grad_norm > 0 else 1.0
        return StepState(lipschitz, value, tol)

    def next(self, state: StepState, value: float, tol: float) -> tuple[StepState, bool]:
        slack = self.C * tol + state.tol * (self.C + self.M) * state.moved
        descent = state.lipschitz * state.moved**2 / 2
        if value <= state.value + slack - descent:
            return StepState(0.95 * state.lipschitz, value, tol), True
        if value >= state.value + (self.growth - 1) * abs(state.value):
            return replace(state, lipschitz=2 * state.lipschitz), False
        factor = 2 if value > state.value + slack else 1
        return StepState(factor * state.lipschitz, value, tol), True


@dataclass(frozen=True)
class HOAGState:
    """Between two iterations of HOAG; ``anchor_*`` is the last accepted λ and its p."""

    k: int
    lam: Array
    x: Array
    carry: Array | None
    adjoint: Array | None
    anchor_lam: Array | None
    anchor_hypergrad: Array | None
    rule: StepState | None
    tol: float
    record: Record | None
    status: Status


@dataclass(frozen=True)
class HOAG:
    """Hyperparameter optimisation with approximate gradient.

    Parameters
    ----------
    tolerances : Schedule or str
        ε_k: a schedule, or "quadratic", "cubic", "exponential" or "exact".
    step : StepRule
        How L is chosen.
    solver : Solver
        The inner solver.
    hypergradient : Hypergradient
        Steps (ii) and (iii).
    max_inner : int
        Iterations of the inner solver at most, in one outer iteration.
    default_tol : float
        The paper has no stopping rule; ours is ``optimality`` ≤ tol · abs(g(x, λ)).

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> bilevel.minimize(problem, method=HOAG(tolerances="cubic"), max_iter=3).nit
    3
    """

    tolerances: Schedule | str = Exponential(0.1, 0.9)
    step_rule: StepRule = AdaptiveStep()
    solver: Solver = LBFGS()
    hypergradient: Hypergradient = Implicit()
    max_inner: int = 10_000
    default_tol: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(
            self,
            tolerances=schedule_of,
            step_rule=Has("a step rule", "first", "next"),
            solver=SOLVER,
            hypergradient=function,
            max_inner=COUNT,
            default_tol=NOT_NEGATIVE,
        )

    def init(self, problem: Problem, lam0: Array, x0: Array | None, tol: float | None) -> HOAGState:
        return HOAGState(
            k=0,
            lam=problem.domain.project(lam0, problem.backend),
            x=problem.x(x0),
            carry=None,
            adjoint=None,
            anchor_lam=None,
            anchor_hypergrad=None,
            rule=None,
            tol=self.default_tol if tol is None else tol,
            record=None,
            status=Status.RUNNING,
        )

    def step(self, problem: Problem, state: HOAGState) -> HOAGState:
        assert not isinstance(self.tolerances, str)
        backend, domain = problem.backend, problem.domain
        k, lam = state.k + 1, state.lam
        tol = self.tolerances(k)
        inner = solve(  # (i)
            problem.inner,
            lam,
            state.x,
            solver=self.solver,
            tol=tol,
            carry=state.carry,
            # A start that is near enough already says nothing of X(λ): x = 0 has p = 0.
            min_iter=1 if state.record is None else 0,
            max_iter=self.max_inner,
        )
        found = self.hypergradient(problem, inner, tol=tol, start=state.adjoint)  # (ii), (iii)
        p, outer = found.value, found.outer
        value, norm_p, norm_g, stationarity = backend.scalars(
            outer.value,
            norm(p, backend),
            norm(outer.grad_x, backend),
            optimality(domain, backend, lam, p),
        )
        rule, accepted = (
            (self.step_rule.first(value, norm_p, lam.shape[0], tol), True)
            if state.rule is None
            else self.step_rule.next(state.rule, value, tol)
        )
        origin, direction = lam, p
        if not accepted:
            assert state.anchor_lam is not None
            assert state.anchor_hypergrad is not None
            origin, direction = state.anchor_lam, state.anchor_hypergrad
        lam_next = domain.project(origin - direction / rule.lipschitz, backend)  # (iv)
        (moved,) = backend.scalars(norm(lam_next - origin, backend))
        record = Record(
            k=k,
            lam=lam,
            value=value,
            value_error=value_bound(
                problem.outer_constants, inner_error=inner.error_bound, grad_x_norm=norm_g
            ),
            hypergrad=p,
            hypergrad_error=found.error_bound,
            tol=tol,
            inner_error=inner.error_bound,
            cg_residual=found.residual,
            optimality=stationarity,
            step=moved,
            n_inner=inner.n_iter,
            n_cg=found.n_iter,
            inner_status=inner.status,
            cg_status=found.status,
        )
        # With a loose ε_k the old q (zero at first) may pass as it is: then p says nothing yet.
        solved = found.residual is None or found.residual <= 0.1 * norm_g
        status = Status.RUNNING
        if not (math.isfinite(value) and math.isfinite(norm_p)):
            status = Status.NON_FINITE
        elif state.tol > 0 and stationarity <= state.tol * abs(value) and solved:
            status = Status.CONVERGED
        return HOAGState(
            k=k,
            lam=lam_next,
            x=inner.x,
            carry=inner.point.carry,
            adjoint=found.adjoint,
            anchor_lam=origin,
            anchor_hypergrad=direction,
            # Without a slope there is nothing to measure L by: the next iteration does it.
            rule=None if state.rule is None and norm_p == 0 else replace(rule, moved=moved),
            tol=state.tol,
            record=record,
            status=status,
        )
