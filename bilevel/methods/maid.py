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
from dataclasses import dataclass, replace

from ..backends import COUNT, NOT_NEGATIVE, POSITIVE, Array, Maybe, Number, check_fields, function
from ..hypergrad import HypergradResult, Implicit, value_error
from ..linalg import dot, norm
from ..outer import OuterPoint
from ..problem import Problem
from ..record import Record
from ..solvers import LBFGS, SOLVER, InnerResult, Solver, solve
from ..status import Status
from ._protocol import estimated, optimality


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

    def step(self, problem: Problem, state: MAIDState) -> MAIDState:
        backend, domain = problem.backend, problem.domain
        epsilon, delta, alpha = state.epsilon, state.delta, state.alpha
        x, carry, adjoint = state.start, state.carry, state.adjoint
        n_inner = n_cg = 0
        status = Status.STALLED
        for attempt in range(self.max_tightenings):
            inner = solve(problem.inner, state.lam, x, solver=self.solver, tol=epsilon, carry=carry)
            found = self.hypergradient(problem, inner, tol=delta, start=adjoint)
            x, carry, adjoint = inner.x, inner.point.carry, found.adjoint
            n_inner, n_cg = n_inner + inner.n_iter, n_cg + found.n_iter
            z = found.value
            assert found.adjoint is not None
            value, size, stationarity, correction = backend.scalars(
                found.outer.value,
                norm(z, backend),
                optimality(domain, backend, state.lam, z),
                dot(found.adjoint, inner.point.grad, backend),
            )
            if not math.isfinite(size + value) or inner.status is Status.NON_FINITE:
                status, uncertain = Status.NON_FINITE, math.inf
                break
            error = _needed(found.error_bound, "the error of the hypergradient")
            uncertain = _needed(found.value_error, "the value of the criterion")
            if state.tol > 0 and stationarity + error <= state.tol * abs(value):
                status = Status.CONVERGED
                break
            certain = error <= (1 - self.eta) * size
            if certain:
                if math.isnan(alpha):
                    alpha = math.sqrt(state.lam.shape[0]) / size
                for i in range(self.max_backtracks + attempt):
                    tried = alpha * self.shrink**i
                    lam = domain.project(state.lam - tried * z, backend)
                    ahead = solve(
                        problem.inner, lam, x, solver=self.solver, tol=epsilon, carry=carry
                    )
                    n_inner += ahead.n_iter
                    outer = problem.outer.at(ahead.x, lam)
                    value_next, moved = backend.scalars(outer.value, norm(lam - state.lam, backend))
                    worst = value_next + _uncertainty(problem, ahead, outer)
                    if moved == 0 or worst <= value - uncertain - self.eta * moved**2 / tried:
                        status = Status.RUNNING if moved > 0 else Status.STALLED
                        break
            if status is Status.RUNNING:
                alpha = tried
                break
            # From what was reached, where that is more precise than what was asked for.
            epsilon = self.tighten * _reached(epsilon, inner.error_bound)
            delta = self.tighten * _reached(delta, found.residual)
        if status is not Status.RUNNING:
            lam, ahead, moved = state.lam, inner, 0.0
        record = _record(
            state, inner, found, value, uncertain, stationarity, moved, epsilon, n_inner, n_cg
        )
        estimate, estimate_error = estimated(problem, value, correction)
        record = replace(record, estimate=estimate, estimate_error=estimate_error)
        return MAIDState(
            k=state.k + 1,
            lam=lam,
            x=inner.x,
            start=ahead.x,
            carry=ahead.point.carry,
            adjoint=adjoint,
            alpha=self.grow * alpha,
            epsilon=self.loosen * epsilon,
            delta=self.loosen * delta,
            tol=state.tol,
            record=record,
            status=status,
        )


def _reached(asked: float, found: float | None) -> float:
    return min(asked, found) if found else asked


def _needed(bound: float | None, what: str) -> float:
    if bound is None:
        raise ValueError(
            f"MAID needs a bound of {what}, but the problem does not state what it takes: use "
            "method='path' or 'hoag', or give constants, cross_norm and rounding."
        )
    return bound


def _uncertainty(problem: Problem, inner: InnerResult, outer: OuterPoint) -> float:
    """‖∂_x g‖ e + L_g e²/2 ≥ |g(x̃) - f|, with the certified e ≤ ε, and the rounding of g."""
    bound = value_error(problem, outer, inner.error_bound, inner.point)
    return _needed(bound, "the value of the criterion")


def _record(
    state: MAIDState,
    inner: InnerResult,
    found: HypergradResult,
    value: float,
    uncertain: float,
    stationarity: float,
    moved: float,
    epsilon: float,
    n_inner: int,
    n_cg: int,
) -> Record:
    return Record(
        k=state.k + 1,
        lam=state.lam,
        value=value,
        value_error=uncertain,
        hypergrad=found.value,
        hypergrad_error=found.error_bound,
        tol=epsilon,
        inner_error=found.inner_error,
        cg_residual=found.residual,
        optimality=stationarity,
        step=moved,
        n_inner=n_inner,
        n_cg=n_cg,
        inner_status=inner.status,
        cg_status=found.status,
    )
