"""A finished run, and solves of our own at some of its λ to hold it against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._cached import cached_property
from ...backends import Array
from ...hypergrad import HypergradResult, Implicit, smaller
from ...inner import InnerPoint, inner_constants
from ...linalg import norm
from ...methods import Method
from ...problem import Problem
from ...record import Record, Result
from ...solvers import InnerResult, NewtonCG, solve
from ...solvers.distance import certain_slope, point_error
from ...status import Status
from .._probe import Vector, length

#: So many records are held against solves of our own, and all of a history that is short.
_SAMPLED, _SHORT = 5, 12


@dataclass(frozen=True)
class Tight:
    """A tight fit of our own at one λ: f and ∇f, with errors proven or else estimated.

    Attributes
    ----------
    inner : InnerResult
        The fit.
    found : HypergradResult
        ∇f from it, with a verified residual.
    fun, hypergrad : float and array
        f and ∇f on the host.
    error_x, error_fun, error_p : float
        Of X(λ), f and ∇f; ``proven`` says whether these are bounds.
    near : float or None
        A proven bound of the distance to X(λ), which takes fewer constants.
    proven : bool
        Whether all constants for a bound are stated.
    """

    inner: InnerResult
    found: HypergradResult
    fun: float
    hypergrad: Vector
    error_x: float
    error_fun: float
    error_p: float
    near: float | None
    proven: bool

    @property
    def sure(self) -> bool:
        """Whether it may refute anything: its errors are bounds, or it went as far as was asked."""
        return self.proven or self.inner.status.success


@dataclass(frozen=True)
class Run:
    """A run with what the clauses ask of it."""

    result: Result
    problem: Problem
    method: Method | None
    delta: float
    seed: int
    tol: float | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        return self.result.history

    def host(self, array: Any) -> Vector:
        return np.array(self.problem.backend.to_numpy(array), dtype=np.float64, copy=True)

    @cached_property
    def eps(self) -> float:
        return float(self.problem.backend.xp.finfo(self.problem.dtype).eps)

    @cached_property
    def share(self) -> float:
        """The agreement asked of a number that is computed again: 1e-9, in float32 1e-4."""
        return float(self.eps**0.58)

    @cached_property
    def lams(self) -> tuple[Vector, ...]:
        """The λ of the records."""
        return tuple(self.host(record.lam) for record in self.records)

    @cached_property
    def end(self) -> Record | None:
        """The record that the result is, None where there is none."""
        result, lam = self.result, self.host(self.result.lam)
        equal = [
            record
            for record, there in zip(self.records, self.lams, strict=True)
            if np.array_equal(there, lam)
        ]

        def agreement(record: Record) -> tuple[bool, bool, bool, int]:
            """A run may return to a λ: then f, the best and p say which of its records it is."""
            best = result.best is not None and result.best.k == record.k
            return record.value == result.fun, best, self.same_slope(record), record.k

        return max(equal, key=agreement, default=None)

    def same_slope(self, record: Record) -> bool:
        """Whether the p of the result is that of a record."""
        jac, p = self.result.jac, self.host(record.hypergrad)
        return jac is not None and np.array_equal(self.host(jac), p, equal_nan=True)

    @cached_property
    def x(self) -> Array | None:
        """The model of the result, None where it is not finite or does not fit."""
        try:
            return self.problem.x(self.result.x, "x")
        except (TypeError, ValueError, AttributeError):
            return None

    @cached_property
    def point(self) -> InnerPoint | None:
        """H at the model of the result."""
        return None if self.x is None else self.problem.inner.at(self.x, self.result.lam)

    @cached_property
    def apart(self) -> float:
        """What ‖x - X(λ*)‖ is at least: ‖∂_x h‖, less its rounding, over a bound of ‖∂²_{xx} h‖."""
        top = inner_constants(self.problem.inner, self.result.lam).smoothness
        found = None if self.point is None else certain_slope(self.point, self.problem.backend)
        if not top or found is None:
            return 0.0
        return max(found[0] - 2 * found[1], 0.0) / top * (1 - 1e-6)

    @cached_property
    def tight(self) -> Tight:
        """The end of the run, fitted again until δ can be decided."""
        return fit(self, self.result.lam, decide=True)

    @cached_property
    def sampled(self) -> tuple[tuple[Record, Tight], ...]:
        """Some records, spread over the run, with fits of our own; the last and the end too."""
        n = len(self.records)
        chosen = {int(i) for i in np.linspace(0, n - 1, n if n <= _SHORT else _SAMPLED)}
        finite = [self.records[i] for i in sorted(chosen) if np.all(np.isfinite(self.lams[i]))]
        pairs = [(record, fit(self, record.lam)) for record in finite]
        if self.end is not None and all(record is not self.end for record, _ in pairs):
            pairs.append((self.end, fit(self, self.end.lam)))
        return tuple(pairs)

    @cached_property
    def closest(self) -> Tight:
        """The fit of λ* that knows most: one that δ is decided by may be looser than the run."""
        fits = [tight for record, tight in self.sampled if record is self.end]
        return min(
            (*fits, self.tight), key=lambda t: (not t.sure, math.inf if t.near is None else t.near)
        )

    @cached_property
    def held(self) -> tuple[tuple[Record, Tight], ...]:
        """What is held against fits of our own: the sampled records, and the best."""
        best = self.result.best
        return self.sampled if best is None else (*self.sampled, (best, self.closest))

    @cached_property
    def distance(self) -> float | None:
        """A proven bound of ‖x - X(λ*)‖ by the model of the result itself, None without one."""
        if self.point is None:
            return None
        backend, problem = self.problem.backend, self.problem
        (slope,) = backend.scalars(norm(self.point.grad, backend))
        mu = inner_constants(problem.inner, self.result.lam).mu
        bound = point_error(self.point, mu, backend)
        there = InnerResult(self.point, Status.CONVERGED, 0, slope, bound)
        found = Implicit()(problem, there, tol=1e-9)
        return smaller(bound, found.inner_error)


def fit(run: Run, lam: Array, *, decide: bool = False) -> Tight:
    """Fit tightly at λ, and its hypergradient; at the end of a run until δ can be decided."""
    problem = run.problem
    x = problem.x(None) if run.x is None else run.x
    size = 1 + length(run.host(x).reshape(-1))
    tol = (1e-4 if decide else 1e-9) * size
    before: Tight | None = None
    for _ in range(5):
        # One step at least: the run's own x would be held against itself.
        inner = solve(
            problem.inner,
            lam,
            x,
            solver=NewtonCG(precondition=True),
            tol=tol,
            min_iter=1,
            max_iter=200,
        )
        found = Implicit()(problem, inner, tol=tol)
        at = _tight(run, inner, found, before)
        if not inner.status.success or tol < 1e-12 * size or not math.isfinite(at.fun):
            break
        if at.proven and (not decide or _decided(run, at)):
            break
        if not at.proven and before is not None and not decide:
            break
        before, x, tol = at, inner.x, 1e-3 * tol
    return at


def _decided(run: Run, at: Tight) -> bool:
    """Whether the error of ∇f is a tenth of what δ allows."""
    return at.error_p <= 0.1 * run.delta * abs(at.fun)


def _tight(run: Run, inner: InnerResult, found: HypergradResult, before: Tight | None) -> Tight:
    backend = run.problem.backend
    fun, slope = backend.scalars(found.outer.value, norm(found.outer.grad_x, backend))
    p = run.host(found.value)
    x = run.host(inner.x).reshape(-1)
    bound = found.value_error
    near = smaller(inner.error_bound, found.inner_error)
    if found.error_bound is not None and bound is not None and near is not None:
        return Tight(inner, found, fun, p, near, bound, found.error_bound, near, True)
    errors = math.inf, math.inf, math.inf
    if before is not None:  # what three more digits of x changed, and ten times that
        moved = length(x - run.host(before.inner.x).reshape(-1))
        changed = length(p - before.hypergrad)
        errors = 10 * moved, 10 * abs(fun - before.fun), 10 * changed
    error_x, error_fun, error_p = errors
    return Tight(
        inner,
        found,
        fun,
        p,
        error_x,
        error_fun + 100 * run.eps * (abs(fun) + slope * length(x)),
        error_p + run.share * (length(p) + length(run.host(found.outer.grad_lam))),
        near,
        False,
    )


def neighbours(run: Run) -> Iterator[tuple[tuple[Record, Tight], tuple[Record, Tight]]]:
    """Pairs of sampled records."""
    yield from zip(run.sampled, run.sampled[1:], strict=False)
