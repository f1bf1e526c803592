"""A finished run, and solves of our own at some of its λ to hold it against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._cached import cached_property
from ...backends import Array
from ...domains import Ball, Box, Domain
from ...hypergrad import HypergradResult, Implicit
from ...inner import InnerPoint
from ...linalg import norm
from ...methods import Method
from ...problem import Problem
from ...record import Record, Result
from ...solvers import InnerResult, NewtonCG, solve
from .._probe import Probe, Vector, length, ritz

#: So many records at most are held against solves of our own.
_SAMPLED = 5


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
    proven: bool


@dataclass(frozen=True)
class Run:
    """A run with what the clauses ask of it."""

    result: Result
    problem: Problem
    method: Method | None
    delta: float
    seed: int

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
        lam = self.host(self.result.lam)
        equal = [
            record
            for record, there in zip(self.records, self.lams, strict=True)
            if np.array_equal(there, lam)
        ]
        exact = [record for record in equal if record.value == self.result.fun]
        found = exact or equal
        return found[-1] if found else None

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
    def tight(self) -> Tight:
        """The end of the run, fitted again until δ can be decided."""
        return fit(self, self.result.lam, decide=True)

    @cached_property
    def sampled(self) -> tuple[tuple[Record, Tight], ...]:
        """Some records, spread over the run, with fits of our own."""
        n = len(self.records)
        chosen = {int(i) for i in np.linspace(0, n - 1, min(n, _SAMPLED))}
        finite = [self.records[i] for i in sorted(chosen) if np.all(np.isfinite(self.lams[i]))]
        pairs = [(record, fit(self, record.lam)) for record in finite]
        if self.end is not None and all(record is not self.end for record, _ in pairs):
            pairs.append((self.end, fit(self, self.end.lam)))
        return tuple(pairs)

    def rounding_x(self, at: InnerResult) -> float:
        """What rounding of ∂_x h does to the distance to X(λ), as ‖∂_x h‖ / μ measures it."""
        constants = self.problem.inner.constants(at.point.lam)
        mu = constants.mu
        if not mu:
            return 0.0
        x = length(self.host(at.point.x).reshape(-1))
        top = constants.smoothness
        if top is None:
            probe = Probe(self.problem, self.host(at.point.x).reshape(-1), self.host(at.point.lam))
            start = np.random.default_rng(self.seed).standard_normal(probe.p)
            found = ritz(probe.hvp, start, 8)
            top = 0.0 if found is None else found[1][0]
        return 100 * self.eps * (top * x + at.grad_norm) / mu


def fit(run: Run, lam: Array, *, decide: bool = False) -> Tight:
    """Fit tightly at λ, and its hypergradient; at the end of a run until δ can be decided."""
    problem = run.problem
    x = problem.x(None) if run.x is None else run.x
    size = 1 + length(run.host(x).reshape(-1))
    tol = (1e-4 if decide else 1e-9) * size
    before: Tight | None = None
    for _ in range(5):
        inner = solve(
            problem.inner, lam, x, solver=NewtonCG(precondition=True), tol=tol, max_iter=200
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
    """Whether the error of ∇f, taken over all of D, is a tenth of what δ allows."""
    reach = reach_of(run.problem.domain, run.host(at.inner.point.lam))
    return at.error_p * reach <= 0.1 * run.delta * abs(at.fun)


def _tight(run: Run, inner: InnerResult, found: HypergradResult, before: Tight | None) -> Tight:
    backend = run.problem.backend
    fun, slope = backend.scalars(found.outer.value, norm(found.outer.grad_x, backend))
    p = run.host(found.value)
    x = run.host(inner.x).reshape(-1)
    bound = found.value_error
    proven = found.error_bound is not None and bound is not None
    if found.error_bound is not None and bound is not None and inner.error_bound is not None:
        near = inner.error_bound if found.inner_error is None else found.inner_error
        errors = near, bound, found.error_bound
    elif before is not None:  # what three more digits of x changed, and ten times that
        moved = length(x - run.host(before.inner.x).reshape(-1))
        changed = length(p - before.hypergrad)
        errors = 10 * moved, 10 * abs(fun - before.fun), 10 * changed
    else:
        errors = math.inf, math.inf, math.inf
    lost = run.rounding_x(inner)
    error_x, error_fun, error_p = errors
    return Tight(
        inner,
        found,
        fun,
        p,
        error_x + lost,
        error_fun + slope * lost + 100 * run.eps * (abs(fun) + slope * length(x)),
        error_p + run.share * (length(p) + length(run.host(found.outer.grad_lam))),
        proven,
    )


def reach_of(domain: Domain, lam: Vector) -> float:
    """sup ‖α - λ‖ over D."""
    if isinstance(domain, Ball):
        return length(lam - np.asarray(domain.center)) + domain.radius
    if isinstance(domain, Box):
        return length(np.maximum(lam - np.asarray(domain.lower), np.asarray(domain.upper) - lam))
    return math.inf


def neighbours(run: Run) -> Iterator[tuple[tuple[Record, Tight], tuple[Record, Tight]]]:
    """Pairs of sampled records."""
    yield from zip(run.sampled, run.sampled[1:], strict=False)
