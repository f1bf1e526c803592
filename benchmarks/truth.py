"""f(λ) of one hyperparameter by fits far tighter than any method's, and its minimum on the box."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import optimize

import bilevel
from bilevel.solvers import NewtonCG, solve


@dataclass
class Truth:
    """f(λ) for λ of one hyperparameter; each fit starts at the nearest λ fitted before."""

    problem: bilevel.Problem
    relative: float = 1e-9
    _values: dict[float, float] = field(default_factory=dict)
    _fits: dict[float, Any] = field(default_factory=dict)
    _minimum: tuple[float, float] | None = None

    def __call__(self, lam: float) -> float:
        """f(λ)."""
        if lam not in self._values:
            self._values[lam] = float(
                self.problem.outer.at(self.model(lam), self._array(lam)).value
            )
        return self._values[lam]

    def model(self, lam: float) -> Any:
        """X(λ)."""
        if lam not in self._fits:
            near = min(self._fits, key=lambda other: abs(other - lam), default=None)
            start = self.problem.x(None) if near is None else self._fits[near]
            self._fits[lam] = tight_fit(self.problem, self._array(lam), start, self.relative)
        return self._fits[lam]

    def minimum(self, low: float = -12.0, high: float = 12.0) -> tuple[float, float]:
        """(λ*, f*) on [low, high]: the best of a grid of step ½, then Brent's method."""
        if self._minimum is None:
            grid = np.arange(high, low - 0.1, -0.5)
            best = float(min(grid, key=lambda v: self(float(v))))
            optimize.minimize_scalar(
                lambda v: self(float(v)),
                bounds=(max(best - 0.5, low), min(best + 0.5, high)),
                method="bounded",
                options={"xatol": 1e-5},
            )
            lam = min(self._values, key=self._values.__getitem__)
            self._minimum = lam, self._values[lam]
        return self._minimum

    def _array(self, lam: float) -> Any:
        return np.asarray([lam])


def tight_fit(problem: bilevel.Problem, lam: Any, start: Any, relative: float = 1e-9) -> Any:
    """X(λ) with ‖∂_x h‖ ≤ relative ‖∂_x h(0, λ)‖."""
    goal = relative * float(np.linalg.norm(problem.inner.at(problem.x(None), lam).grad))
    mu = problem.inner.constants(lam).mu
    found = solve(problem.inner, lam, start, solver=NewtonCG(), tol=goal / (mu or 1.0))
    return found.x
