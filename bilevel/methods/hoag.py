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
from typing import Any, Protocol

from .._ours import is_ours
from ..backends import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    Array,
    Has,
    Number,
    check_fields,
    described,
    flag,
    function,
)
from ..hypergrad import Hypergradient, HypergradResult, Implicit, hypergradient_at
from ..inner import constants_at
from ..linalg import dot, norm
from ..linalg.rounding import known
from ..problem import Problem
from ..record import Record
from ..schedules import Exponential, Schedule, schedule_of
from ..solvers import LBFGS, SOLVER, InnerResult, Solver, point_error, solve
from ..status import Status
from ._protocol import bends_down, estimated, lost, optimality, recorded, refuting, too_rounded
from .correction import sharpened


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

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> StepState:
        """The state after the first iteration: g(x, λ), ‖p‖, the number of λ, and ε."""
        ...

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
        slack *= min(1.0, abs(state.value))  # x is known to ε ‖x‖ where that is less: so is f
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
    step_rule : StepRule
        How L is chosen.
    solver : Solver
        The inner solver.
    hypergradient : Hypergradient
        Steps (ii) and (iii).
    max_inner : int
        Iterations of the inner solver at most, in one outer iteration.
    relative : bool
        Hold x to ε_k ‖x‖ where that is less than ε_k, which stays the bound: where all of x is
        smaller than ε_k, x = 0 would do. False is the paper's letter, together with
        ``hypergradient=Implicit(relative=False)``, which says the same of q.
    default_tol : float
        The paper has no stopping rule; ours is ``optimality`` ≤ tol · abs(g(x, λ)), for a p that
        is proven that precise, or that solves ten times as precise at the same λ confirm.

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
    relative: bool = True
    default_tol: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(
            self,
            tolerances=schedule_of,
            step_rule=Has("a step rule", "first", "next"),
            solver=SOLVER,
            hypergradient=function,
            max_inner=COUNT,
            relative=flag,
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

    def reported(self, problem: Problem, record: Record, x: Array) -> Record:
        return sharpened(problem, record, x)

    def step(self, problem: Problem, state: HOAGState) -> HOAGState:
        assert not isinstance(self.tolerances, str)
        backend, domain = problem.backend, problem.domain
        k, lam = state.k + 1, state.lam
        tol = self.tolerances(k)
        at = self._solve(problem, state, tol)  # (i), (ii), (iii)
        converged = False
        if at.fires(state.tol):
            at, converged = self._confirm(problem, lam, at, state.tol, tol)
        rule, accepted = self._ruled(state, at, tol)
        origin, direction = lam, at.found.value
        if not accepted:
            assert state.anchor_lam is not None
            assert state.anchor_hypergrad is not None
            origin, direction = state.anchor_lam, state.anchor_hypergrad
        lam_next = domain.project(origin - direction / rule.lipschitz, backend)  # (iv)
        (moved,) = backend.scalars(norm(lam_next - origin, backend))
        status = Status.RUNNING
        wrong = refuting(at.inner, at.found)
        if not at.finite:
            status = at.inner.status if at.inner.lost else Status.NON_FINITE
        elif wrong is not None:
            status = wrong
        elif converged:
            down = bends_down(problem, at.inner.point)
            end = Status.STALLED if at.rounded else Status.CONVERGED
            status = Status.NEGATIVE_CURVATURE if down else end
        return HOAGState(
            k=k,
            lam=lam_next,
            x=at.inner.x,
            carry=at.inner.point.carry,
            adjoint=at.found.adjoint,
            anchor_lam=origin,
            anchor_hypergrad=direction,
            # Without a slope there is nothing to measure L by: the next iteration does it.
            rule=None if state.rule is None and at.norm == 0 else replace(rule, moved=moved),
            tol=state.tol,
            record=_record(k, lam, tol, at, moved),
            status=status,
        )

    def _ruled(self, state: HOAGState, at: _Iterate, tol: float) -> tuple[StepState, bool]:
        """L by the step rule, and whether the last step stands; one from outside is asked."""
        of, m = self.step_rule, state.lam.shape[0]
        if state.rule is None:
            found: Any = (of.first(at.value, at.norm, m, tol), True)
        else:
            found = of.next(state.rule, at.value, tol)
        if not is_ours(of):
            _refuse_other_rule(found, "first" if state.rule is None else "next")
        rule, accepted = found
        return rule, accepted

    def _solve(self, problem: Problem, state: HOAGState, tol: float) -> _Iterate:
        inner = solve(
            problem.inner,
            state.lam,
            state.x,
            solver=self.solver,
            tol=tol,
            carry=state.carry,
            relative=self.relative,
            # A start that is near enough already says nothing of X(λ): x = 0 has p = 0.
            min_iter=1 if state.record is None else 0,
            max_iter=self.max_inner,
        )
        found = hypergradient_at(self.hypergradient, problem, inner, tol, state.adjoint)
        return _Iterate.of(problem, inner, found)

    def _confirm(
        self, problem: Problem, lam: Array, at: _Iterate, tol: float, epsilon: float
    ) -> tuple[_Iterate, bool]:
        """Solve on at the same λ until p has settled; whether it is still small then.

        A p from a loose x and q may vanish where ∇f does not. Ten times more precise solves have
        to agree with it to ``tol`` f, unless a proven bound says as much. None is looser than ε_k,
        which rounding may have kept the first from.
        """
        backend = problem.backend
        for _ in range(_CONFIRMATIONS):
            if at.proven(tol):
                return at, True
            before = at
            inner = solve(
                problem.inner,
                lam,
                at.inner.x,
                solver=self.solver,
                tol=at.finer(),
                carry=at.inner.point.carry,
                relative=self.relative,
                min_iter=1,
                max_iter=self.max_inner,
            )
            start = at.found.adjoint
            goal = 0.0 if start is None else 0.1 * (at.found.residual or 0.0)
            tolerance = min(goal or at.finer(), epsilon)
            found = hypergradient_at(self.hypergradient, problem, inner, tolerance, start)
            at = _Iterate.of(problem, inner, found, before)
            (change,) = backend.scalars(norm(found.value - before.found.value, backend))
            if not at.fires(tol):
                return at, False
            if change + abs(at.value - before.value) <= tol * abs(at.value) and at.solved:
                return at, True
        return at, False


def _refuse_other_rule(found: Any, name: str) -> None:
    """Refuse what a step rule can't return: no step is as long as 1/0, or leads uphill.

    Raises
    ------
    TypeError, ValueError
        The message names the member and the number.
    """
    pair = isinstance(found, (tuple, list)) and len(found) == 2
    if not (pair and isinstance(found[0], StepState)):
        got = found[0] if name == "first" else found
        wanted = "a StepState" if name == "first" else "a StepState and whether to accept"
        raise TypeError(f"step_rule.{name} must return {wanted}, got {described(got)}.")
    POSITIVE(found[0].lipschitz, f"the lipschitz of the StepState that step_rule.{name} returns")
    flag(bool(found[1]) if hasattr(found[1], "dtype") else found[1], "what step_rule.next accepts")


#: How often p is asked to confirm that it is small, each time from solves ten times as precise.
_CONFIRMATIONS = 8


@dataclass(frozen=True)
class _Iterate:
    """Steps (i) to (iii) at one λ, and their numbers on the host."""

    inner: InnerResult
    found: HypergradResult
    value: float
    norm: float  # of p
    norm_g: float
    stationarity: float
    value_error: float | None
    estimate: float | None
    estimate_error: float | None
    rounded: bool  # whether rounding has moved f by more than an end allows
    n_inner: int
    n_cg: int

    @classmethod
    def of(
        cls,
        problem: Problem,
        inner: InnerResult,
        found: HypergradResult,
        before: _Iterate | None = None,
    ) -> _Iterate:
        backend, q = problem.backend, found.adjoint
        given, inner = inner, _moved(problem, inner, found)
        zero = backend.xp.zeros_like(found.outer.value)
        value, norm_p, norm_g, stationarity, correction, rounding = backend.scalars(
            found.outer.value,
            norm(found.value, backend),
            norm(found.outer.grad_x, backend),
            optimality(problem.domain, backend, inner.point.lam, found.value),
            zero if q is None else dot(q, inner.point.grad, backend),
            zero if q is None else lost(problem, inner.point, found.outer, q),
        )
        estimate, error = (None, None) if q is None else estimated(problem, value, correction)
        if error is not None and not _resolved(found.residual, norm_g):
            # By a q that is none yet: what it left unsolved is the share of g that is not known.
            left = norm_g if found.residual is None else found.residual
            share = left / norm_g if norm_g > 0 else 1.0
            estimate, error = value, abs(correction) + share * abs(value)
        if inner.lost:
            estimate, error = value, math.inf
        elif error is not None:
            walked = 0.0 if inner is given else _unsolved(problem, inner, found)
            error = known(error + rounding + walked)
        bound = found.value_error
        n_inner = inner.n_iter + (0 if before is None else before.n_inner)
        n_cg = found.n_iter + (0 if before is None else before.n_cg)
        numbers = (value, norm_p, norm_g, stationarity, bound, estimate, error)
        return cls(inner, found, *numbers, too_rounded(value, rounding), n_inner, n_cg)

    @property
    def finite(self) -> bool:
        numbers = math.isfinite(self.value) and math.isfinite(self.norm)
        # Of a ∂_x g that is NaN no q is found, and the old one makes a p of numbers.
        return numbers and not self.inner.lost and self.found.status is not Status.NON_FINITE

    @property
    def solved(self) -> bool:
        """Whether both solves came as far as was asked, or as rounding lets them."""
        ends = (Status.CONVERGED, Status.STALLED)
        return self.inner.status in ends and self.found.status in ends

    def fires(self, tol: float) -> bool:
        """Whether p is small, as far as it can be told from these solves."""
        known = _resolved(self.found.residual, self.norm_g) or self.proven(tol)
        # What the model would still change of g, to first order, is small too.
        shift = 0.0 if self.estimate is None else abs(self.value - self.estimate)
        fitted = self.estimate_error != math.inf and shift <= tol * abs(self.value)
        small = self.stationarity <= tol * abs(self.value)
        return tol > 0 and self.finite and known and fitted and small

    def proven(self, tol: float) -> bool:
        bound = self.found.error_bound
        return bound is not None and self.stationarity + bound <= tol * abs(self.value)

    def finer(self) -> float:
        """A tolerance for x ten times below what was reached; tiny where nothing is left."""
        bound = self.inner.error_bound
        reached = self.inner.grad_norm if bound is None else bound
        return max(0.1 * reached, _TINY) if math.isfinite(reached) else _TINY


_TINY = 1e-300


def _moved(problem: Problem, inner: InnerResult, found: HypergradResult) -> InnerResult:
    """The x whose g and p were found: steps that are differentiated lead away from the solver's."""
    point = found.point
    if point is None or point is inner.point:
        return inner
    (slope,) = problem.backend.scalars(norm(point.grad, problem.backend))
    bound = point_error(point, constants_at(problem.inner, point).mu, problem.backend)
    return replace(inner, point=point, grad_norm=slope, error_bound=bound)


def _unsolved(problem: Problem, inner: InnerResult, found: HypergradResult) -> float:
    """‖H q - ∂_x g‖ ‖∂_x h‖/μ, what a q of steps, no solve, may leave of the correction.

    0 where μ is not known.
    """
    mu = constants_at(problem.inner, inner.point).mu
    return (found.residual or 0.0) * inner.grad_norm / mu if mu else 0.0


def _resolved(residual: float | None, norm_g: float) -> bool:
    """Whether q solves its system at all: with a loose ε_k the old one, zero at first, may pass.

    Where nobody says what is left, p may be that of any q, and small without a reason.
    """
    return residual is not None and residual <= 0.1 * norm_g


def _record(k: int, lam: Array, tol: float, at: _Iterate, moved: float) -> Record:
    return recorded(
        at.inner,
        at.found,
        k=k,
        lam=lam,
        value=at.value,
        value_error=at.value_error,
        tol=tol,
        optimality=at.stationarity,
        step=moved,
        n_inner=at.n_inner,
        n_cg=at.n_cg,
        estimate=at.estimate,
        estimate_error=at.estimate_error,
    )
