"""A certificate of a finished run: Theorem 2 of Pedregosa (2016), clause by clause.

Each assumption and each conclusion is *proved* (by the constants that the problem states, or by
arithmetic), *bounded numerically* (computed, with an error that is not proved), *assumed* (not
to be had from the run), or *violated*, with the figures. Before them come the clauses on the run
itself: a result, its history and the problem have to belong together, or nothing follows.
"""

from __future__ import annotations

import math

from ...backends import NOT_NEGATIVE, POSITIVE, SEED, Maybe
from ...contracts import foreign
from ...methods import Method, get_method
from ...problem import Problem
from ...record import Result, refuse_no_result
from ..check import CheckReport, examine, refuse_no_problem
from . import assumptions, conclusions, consistency
from .errors import errors
from .model import Certificate, Clause, Mark
from .run import Run

__all__ = ["Certificate", "Clause", "Mark", "certify"]


def certify(
    result: Result,
    problem: Problem,
    *,
    method: str | Method | None = None,
    tol: float | None = None,
    delta: float = 1e-2,
    seed: int = 0,
) -> Certificate:
    """Hold a finished run against the assumptions and the conclusions of Theorem 2.

    What a result says is computed again: g and ∂_x h at its model, f and ∇f at its λ and at a few
    of its iterates from tight fits with verified residuals, the steps from the rule of the method,
    the tolerances from its schedule. The constants that the problem states are tested by a search
    for worse points. The cost is two to seven thousand passes over the data, whatever their size,
    tight fits included.

    Parameters
    ----------
    result : Result
        Of :func:`bilevel.minimize`.
    problem : Problem
        The problem that was solved.
    method : str or Method, optional
        How it was solved: only a method knows whether its tolerances are summable and its step
        length is fixed. Without it these clauses are at best assumed.
    tol : float, optional
        What ``minimize`` was given, for the stopping rule of its methods: an end that says
        converged is held to it, that of path following as far as its records show. Without it one
        that the default does not explain is assumed.
    delta : float
        The end counts as stationary where a change of λ* by at most 1 within D lowers f, to first
        order, by at most delta times abs(f(λ*)).
    seed : int
        Of the random samples.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        If the run has no iterations, or delta is not positive and finite.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> certificate = certify(bilevel.minimize(problem), problem)
    >>> certificate["bounded domain"].mark.value, certificate["stationary"].mark.value
    ('proved', 'proved')
    """
    refuse_no_result(result)
    refuse_no_problem(problem)
    if not result.history:
        raise ValueError("result must have at least one iteration, got none.")
    if result.every != 1:
        raise ValueError(
            f"result keeps each {result.every}-th record only: a certificate takes all of them, "
            "minimize without every."
        )
    delta, seed = POSITIVE(delta, "delta"), SEED(seed, "seed")
    tol = Maybe(NOT_NEGATIVE)(tol, "tol")
    if not delta < math.inf:
        raise ValueError(f"delta must be finite, got {delta!r}.")
    problem.lam(result.lam, "result.lam")
    run = Run(result, problem, None if method is None else get_method(method), delta, seed, tol)
    report = examine(problem, run.host(result.lam), run.host(run.tight.inner.x).reshape(-1), seed)
    return _clauses(run, report)


def _clauses(run: Run, report: CheckReport) -> Certificate:
    """All clauses; those on the run itself first, since the others rest on them."""
    model = consistency.model(run)
    ours: tuple[Clause, ...] = (
        consistency.history(run),
        consistency.status(run),
        model,
        errors(run),
        consistency.steps(run),
    )
    supposed: tuple[Clause, ...] = (
        assumptions.summable(run),
        assumptions.inner_condition(run, model),
        assumptions.adjoint_condition(run),
        assumptions.smooth_criterion(run, report),
        assumptions.smooth_objective(run, report),
        assumptions.regular(run, report),
        assumptions.derivatives(report),
        assumptions.bounded(run),
        assumptions.feasible(run),
        assumptions.step_length(run),
    )
    concluded: tuple[Clause, ...] = (
        conclusions.gradient_errors(run),
        conclusions.finite_path(run),
        conclusions.stationary(run),
        conclusions.value(run, model),
    )
    if ours[0].mark is Mark.VIOLATED:
        supposed, concluded = _doubted(supposed), _doubted(concluded)
    parts = tuple(name for name, _ in foreign(run.problem))
    if parts:
        ours, supposed, concluded = (_given(c, parts) for c in (ours, supposed, concluded))
    return Certificate(supposed, concluded, ours)


#: What is proved by constants: by those of parts from outside it is as true as they are.
_BY_CONSTANTS = frozenset({"model", "inner solutions", "hypergradients", "stationary", "value"})


def _given(clauses: tuple[Clause, ...], parts: tuple[str, ...]) -> tuple[Clause, ...]:
    reason = f"given the μ and the other constants that {' and '.join(parts)} declare"
    return tuple(c.given(reason) if c.name in _BY_CONSTANTS else c for c in clauses)


#: What rests on the records: nothing follows from a history that is not whole.
_OF_THE_HISTORY = frozenset(
    {
        "summable",
        "inner solutions",
        "adjoint solutions",
        "step length",
        "hypergradients",
        "convergence",
    }
)


def _doubted(clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
    reason = "the history is not that of this result"
    return tuple(c.doubted(reason) if c.name in _OF_THE_HISTORY else c for c in clauses)
