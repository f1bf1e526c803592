"""What a hypergradient method is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .._ours import is_ours
from ..answers import refuse_other_array
from ..backends import BOUND, Array, Maybe, Whole, described
from ..inner import InnerPoint
from ..outer import OuterPoint
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status


@dataclass(frozen=True)
class HypergradResult:
    """p ≈ ∇f(λ), with what is known of its error.

    Attributes
    ----------
    value : array, shape (m,)
        p.
    error_bound : float or None
        A proven upper bound of ‖p - ∇f(λ)‖, None where the objective or the criterion does not
        state the constants that one needs.
    adjoint : array or None
        q ≈ H⁻¹ ∂_x g, where the method has one.
    residual : float or None
        ‖H q - ∂_x g‖; of a method without q the share of its own system that is left, times
        ‖∂_x g‖. None where that is not known: then no small p ends HOAG, but by a small
        ``error_bound``.
    n_iter : int
        Iterations of the linear solver, or steps differentiated.
    status : Status
        How the linear solve ended.
    outer : OuterPoint
        The criterion at x, its value and gradients computed.
    value_error : float or None
        A proven upper bound of abs(g(x, λ) - f(λ)) for that criterion, where one is to be had.
    inner_error : float or None
        A proven upper bound of ‖x - X(λ)‖ for the x that was handed over, no larger than its own.
    point : InnerPoint or None
        Where ``outer`` was taken, of a method that makes steps of its own; None where that is the
        x that was handed over.
    """

    value: Array
    error_bound: float | None
    adjoint: Array | None
    residual: float | None
    n_iter: int
    status: Status
    outer: OuterPoint
    value_error: float | None = None
    inner_error: float | None = None
    point: InnerPoint | None = None


class Hypergradient(Protocol):
    """Computes p at an inner solution."""

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        """``tol`` bounds the residual of the linear system, ``start`` warm-starts it."""
        ...


def hypergradient_at(
    asked: Hypergradient,
    problem: Problem,
    inner: InnerResult,
    tol: float,
    start: Array | None = None,
) -> HypergradResult:
    """What a hypergradient method finds; one from outside is asked whether it can be that.

    Raises
    ------
    TypeError, ValueError
        The message names what of the result is not what it should be.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.solvers import LBFGS, solve
    >>> problem = bilevel.logistic_regression(*[np.eye(2), np.array([1.0, -1.0])] * 2)
    >>> at = solve(problem.inner, np.zeros(1), np.zeros(2), solver=LBFGS(), tol=1e-6)
    >>> hypergradient_at(lambda problem, inner, *, tol, start: None, problem, at, 1e-6)
    Traceback (most recent call last):
    TypeError: hypergradient must return a HypergradResult, got None.
    """
    found = asked(problem, inner, tol=tol, start=start)
    if not is_ours(asked):
        _refuse_other_result(found, problem)
    return found


def _refuse_other_result(found: Any, problem: Problem) -> None:
    """Refuse what is no hypergradient of this problem, or states what can't be."""
    if not isinstance(found, HypergradResult):
        raise TypeError(f"hypergradient must return a HypergradResult, got {described(found)}.")
    where = "the {} of the HypergradResult that hypergradient returns".format
    arrays = {"value": (problem.inner.n_hyperparameters,), "adjoint": tuple(problem.inner.x_shape)}
    for name, shape in arrays.items():
        array = getattr(found, name)
        if array is not None or name == "value":
            refuse_other_array(array, where(name), shape, problem.backend, problem.dtype)
    bounds = ("error_bound", "value_error", "inner_error", "residual")
    for name in bounds if found.status is not Status.NON_FINITE else ():
        Maybe(BOUND)(getattr(found, name), where(name))
    Whole(0)(found.n_iter, where("n_iter"))
    if not isinstance(found.status, Status):
        raise TypeError(f"{where('status')} must be a Status, got {described(found.status)}.")
    for name in ("value", "grad_x", "grad_lam"):
        if not hasattr(found.outer, name):
            raise TypeError(
                f"{where('outer')} must be a point of the criterion, problem.outer.at(x, lam), got "
                f"{described(found.outer)}."
            )
