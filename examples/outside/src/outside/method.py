"""A method: SOBA, one stochastic step of λ, x and v at once (Dagréou et al. 2022)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel import Problem, Record, Status


@dataclass(frozen=True)
class State:
    """Where the run stands: x is that of the record, y is next; v stands for H⁻¹ ∂_x g."""

    lam: Any
    x: Any
    y: Any
    v: Any
    k: int = 0
    record: Record | None = None
    status: Status = Status.RUNNING


@dataclass(frozen=True)
class SOBA:
    """Steps of lengths ρ (x and v) and γ (λ) along the three directions of a random batch."""

    rho: float
    gamma: float
    size: int
    seed: int = 0

    needs = ("inner.rows", "outer.rows")

    def init(self, problem: Problem, lam0: Any, x0: Any, tol: float | None) -> State:
        x = problem.x(x0)
        return State(problem.domain.project(lam0, problem.backend), x, x, 0 * x)

    def step(self, problem: Any, s: State) -> State:
        draw = np.random.default_rng((self.seed, s.k)).integers
        h = problem.inner.rows(draw(problem.inner.n_rows, size=self.size)).at(s.y, s.lam)
        g = problem.outer.rows(draw(problem.outer.n_rows, size=self.size)).at(s.y, s.lam)
        p = g.grad_lam - h.cross_vjp(s.v)
        lam = problem.domain.project(s.lam - self.gamma * p, problem.backend)
        y, v = s.y - self.rho * h.grad, s.v - self.rho * (h.hvp(s.v) - g.grad_x)
        # The value of a batch says nothing sure of f: so the last iterate is returned.
        record = Record(lam=s.lam, value=g.value, value_error=math.inf, hypergrad=p)
        return State(lam, s.y, y, v, s.k + 1, record)
