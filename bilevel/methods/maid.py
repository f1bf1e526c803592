"""MAID, the method of adaptive inexact descent.

Salehi, Mukherjee, Roberts and Ehrhardt, "An adaptively inexact first-order method for bilevel
optimization with application to hyperparameter learning" (2024, arXiv 2308.10098), algorithms 3.1
to 3.3. Instead of a sequence of tolerances given beforehand, an iteration

1. solves for x and q to ε and δ and shrinks both until the bound ω of the error of the
   hypergradient z satisfies ω ≤ (1 - η) ‖z‖, so that -z descends for certain;
2. looks for a step α with a certain decrease of f, the errors of both values counted against it,

       g(x̃⁺) + ‖∂_x g(x̃⁺)‖ ε + L_g ε²/2 ≤ g(x̃) - ‖∂_x g(x̃)‖ ε - L_g ε²/2 - η ‖Δλ‖²/α,

   and shrinks ε and δ where no step of this length is certain;
3. lengthens α and loosens ε and δ for the next iteration.

The paper has no constraints; here the step is projected on D, and ‖Δλ‖²/α stands for α ‖z‖², which
it is where the projection does nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backends import COUNT, NOT_NEGATIVE, POSITIVE, Array, Maybe, Number, check_fields, function
from ..hypergrad import HypergradResult, Implicit, hypergradient_at, value_error
from ..linalg import dot, norm
from ..linalg.rounding import known
from ..outer import OuterPoint
from ..problem import Problem
from ..record import Record
from ..solvers import LBFGS, SOLVER, InnerResult, Solver, solve
from ..status import Status
from ._protocol import estimated, lost, optimality, recorded, refuting
from .correction import sharpened


@dataclass(frozen=True)
class MAIDState:
    """Between two iterations of MAID.

    ``x`` is the model of the last iteration, ``start`` and ``carry`` the one that was found at the
    next λ when the step to it was tried.
    """

    k: int
    lam: Array
    x: Array
    start: Array
    carry: Array | None
    adjoint: Array | None
    alpha: float
    epsilon: float
    delta: float
    tol: float
    record: Record | None
    status: Status


@dataclass(frozen=True)
class MAID:
    """Adaptive inexact descent.

    Parameters
    ----------
    epsilon, delta : float
        The first tolerances of x and of the residual of the adjoint system.
    alpha : float, optional
        The first step size; when omitted, such that the first step has the length √m.
    eta : float
        η of the paper: of the sufficient decrease and of the relative error of z.
    shrink, grow : float
        ρ and ρ̄: the factors of α at a failed and after a successful step.
    tighten, loosen : float
        ν and ν̄: the factors of ε and δ.
    max_backtracks : int
        Step sizes tried before the accuracy is increased; one more each time.
    max_tightenings : int
        Increases of the accuracy in one iteration; then the run has stalled.
    solver : Solver
        The inner solver.
    hypergradient : Implicit
        How q is solved for; it must give an error bound.
    default_tol : float
        ``tol`` where none is given: the run ends where ``optimality`` and the proven error of z
        together are at most tol · abs(g(x, λ)).

    Notes
    -----
    The bound ω needs μ, L_g and the Lipschitz constants of the objective. Where one is not
    stated, :meth:`step` raises ValueError: without them nothing of the method is certain.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> bilevel.minimize(problem, method="maid", max_iter=3).nit
    3
    """

    epsilon: float = 0.1
    delta: float = 0.1
    alpha: float | None = None
    eta: float = 1e-4
    shrink: float = 0.5
    grow: float = 10 / 9
    tighten: float = 0.5
    loosen: float = 1.05
    max_backtracks: int = 5
    max_tightenings: int = 60
    solver: Solver = LBFGS()
    hypergradient: Implicit = Implicit(relative=False)  # δ is made to fit anyhow
    default_tol: float = 1e-4

    def __post_init__(self) -> None:
        inside, lengthens = Number(above=0, below=1), Number(at_least=1)
        check_fields(
            self,
            epsilon=POSITIVE,
            delta=POSITIVE,
            alpha=Maybe(POSITIVE),
            eta=inside,
            shrink=inside,
            grow=lengthens,
            tighten=inside,
            loosen=lengthens,
            max_backtracks=COUNT,
            max_tightenings=COUNT,
            solver=SOLVER,
            hypergradient=function,
            default_tol=NOT_NEGATIVE,
        )

    def init(self, problem: Problem, lam0: Array, x0: Array | None, tol: float | None) -> MAIDState:
        x = problem.x(x0)
        return MAIDState(
            k=0,
            lam=problem.domain.project(lam0, problem.backend),
            x=x,
            start=x,
            carry=None,
            adjoint=None,
            alpha=math.nan if self.alpha is None else self.alpha,
            epsilon=self.epsilon,
            delta=self.delta,
            tol=self.default_tol if tol is None else tol,
            record=None,
            status=Status.RUNNING,
        )

    def reported(self, problem: Problem, record: Record, x: Array) -> Record:
        return sharpened(problem, record, x)

    def step(self, problem: Problem, state: MAIDState) -> MAIDState:
        work = _Work(
            state.start, state.carry, state.adjoint, state.alpha, state.epsilon, state.delta
        )
        status, move, known, stuck = Status.STALLED, None, (math.inf, math.inf), 0
        for attempt in range(self.max_tightenings):
            at = self._look(problem, state.lam, work)
            now = at.error, at.uncertain
            # Tighter solves that tell nothing more: rounding has the last word, not a tolerance.
            stuck = 0 if any(b < 0.5 * a for a, b in zip(known, now, strict=True)) else stuck + 1
            known = now
            failed = at.failed
            if failed is not None:
                status = failed
                break
            if state.tol > 0 and at.stationarity + at.error <= state.tol * abs(at.value):
                status = Status.CONVERGED
                break
            if stuck >= _STUCK:
                break
            if at.error <= (1 - self.eta) * at.norm:
                move = self._backtrack(problem, state.lam, at, work, self.max_backtracks + attempt)
                if move is not None:
                    status = Status.RUNNING
                    break
            # From what was reached, where that is more precise than what was asked for.
            work.epsilon = self.tighten * _reached(work.epsilon, at.inner.error_bound)
            work.delta = self.tighten * _reached(work.delta, at.found.residual)
        return self._next(state, work, at, move or _Move(state.lam, at.inner, 0.0), status)

    def _look(self, problem: Problem, lam: Array, work: _Work) -> _Iterate:
        """Solve for x and q to the tolerances at hand, from where the last solves have led."""
        inner = solve(
            problem.inner, lam, work.x, solver=self.solver, tol=work.epsilon, carry=work.carry
        )
        found = hypergradient_at(self.hypergradient, problem, inner, work.delta, work.adjoint)
        work.x, work.carry, work.adjoint = inner.x, inner.point.carry, found.adjoint
        work.n_inner, work.n_cg = work.n_inner + inner.n_iter, work.n_cg + found.n_iter
        return _Iterate.of(problem, inner, found)

    def _backtrack(
        self, problem: Problem, lam: Array, at: _Iterate, work: _Work, trials: int
    ) -> _Move | None:
        """Find a step that lowers f for certain, None where no step of these lengths does."""
        backend = problem.backend
        if math.isnan(work.alpha):
            work.alpha = math.sqrt(lam.shape[0]) / at.norm
        for i in range(trials):
            alpha = work.alpha * self.shrink**i
            tried = problem.domain.project(lam - alpha * at.found.value, backend)
            ahead = solve(
                problem.inner, tried, work.x, solver=self.solver, tol=work.epsilon, carry=work.carry
            )
            work.n_inner += ahead.n_iter
            outer = problem.outer.at(ahead.x, tried)
            value, moved = backend.scalars(outer.value, norm(tried - lam, backend))
            worst = value + _uncertainty(problem, ahead, outer)
            if moved == 0:
                return None
            if worst <= at.value - at.uncertain - self.eta * moved**2 / alpha:
                work.alpha = alpha
                return _Move(tried, ahead, moved)
        return None

    def _next(
        self, state: MAIDState, work: _Work, at: _Iterate, move: _Move, status: Status
    ) -> MAIDState:
        return MAIDState(
            k=state.k + 1,
            lam=move.lam,
            x=at.inner.x,
            start=move.inner.x,
            carry=move.inner.point.carry,
            adjoint=work.adjoint,
            alpha=self.grow * work.alpha,
            epsilon=self.loosen * work.epsilon,
            delta=self.loosen * work.delta,
            tol=state.tol,
            record=_record(state, work, at, move.length),
            status=status,
        )


#: Tightenings in a row that halve neither the error of p nor that of the value, after which no
#: further one will.
_STUCK = 3


@dataclass
class _Work:
    """What an iteration has in hand: where solves begin, how precise they are, what they took."""

    x: Array
    carry: Array | None
    adjoint: Array | None
    alpha: float
    epsilon: float
    delta: float
    n_inner: int = 0
    n_cg: int = 0


@dataclass(frozen=True)
class _Move:
    """The next λ, the model there, and how far it is."""

    lam: Array
    inner: InnerResult
    length: float


@dataclass(frozen=True)
class _Iterate:
    """The two solves at one λ, and their numbers on the host."""

    inner: InnerResult
    found: HypergradResult
    failed: Status | None  # how one of the two has failed, so that nothing is known of the rest
    value: float
    norm: float  # of z
    stationarity: float
    error: float
    uncertain: float  # of the value
    estimate: float
    estimate_error: float

    @classmethod
    def of(cls, problem: Problem, inner: InnerResult, found: HypergradResult) -> _Iterate:
        backend, z = problem.backend, found.value
        assert found.adjoint is not None
        value, size, stationarity, correction, rounding = backend.scalars(
            found.outer.value,
            norm(z, backend),
            optimality(problem.domain, backend, inner.point.lam, z),
            dot(found.adjoint, inner.point.grad, backend),
            lost(problem, inner.point, found.outer, found.adjoint),
        )
        error = uncertain = math.inf
        failed = _failed(inner, found, size + value)
        if failed is None:
            error = _needed(found.error_bound, "the error of the hypergradient")
            uncertain = _needed(found.value_error, "the value of the criterion")
        estimate, estimate_error = estimated(problem, value, correction)
        estimate_error = known(estimate_error + rounding)
        numbers = (value, size, stationarity, error, uncertain, estimate, estimate_error)
        return cls(inner, found, failed, *numbers)


def _failed(inner: InnerResult, found: HypergradResult, size: float) -> Status | None:
    """How one of the two solves has failed, if it has: then no bound can be asked for."""
    if inner.lost:
        return inner.status
    if not math.isfinite(size) or found.status is Status.NON_FINITE:
        return Status.NON_FINITE
    if found.status is Status.NEGATIVE_CURVATURE and found.error_bound is None:
        return found.status
    return refuting(inner, found)


def _reached(asked: float, found: float | None) -> float:
    return min(asked, found) if found else asked


def _needed(bound: float | None, what: str) -> float:
    if bound is None:
        raise ValueError(
            f"MAID needs a proven bound of {what}, and this problem states none: coefficients "
            "without a penalty, such as an intercept, have no μ, and functions of your own need "
            "constants, cross_norm and rounding. Use method='path' or 'hoag', or leave the "
            "intercept out."
        )
    return bound


def _uncertainty(problem: Problem, inner: InnerResult, outer: OuterPoint) -> float:
    """‖∂_x g‖ e + L_g e²/2 ≥ |g(x̃) - f|, with the certified e ≤ ε, and the rounding of g."""
    bound = value_error(problem, outer, inner.error_bound, inner.point)
    return _needed(bound, "the value of the criterion")


def _record(state: MAIDState, work: _Work, at: _Iterate, moved: float) -> Record:
    return recorded(
        at.inner,
        at.found,
        k=state.k + 1,
        lam=state.lam,
        value=at.value,
        value_error=at.uncertain,
        tol=work.epsilon,
        optimality=at.stationarity,
        step=moved,
        n_inner=work.n_inner,
        n_cg=work.n_cg,
        estimate=at.estimate,
        estimate_error=at.estimate_error,
    )
