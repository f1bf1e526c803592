"""What a hypergradient method is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..backends import Array
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
        ‖H q - ∂_x g‖.
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
