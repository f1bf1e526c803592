"""The step in several hyperparameters where D is no box: the model of the pairs, least in D."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...backends import Array
from ...linalg import dot, norm
from ...problem import Problem
from .estimate import Estimate
from .model import generic, least, pairs_model
from .projected import Projected


@dataclass(frozen=True)
class Within(Projected):
    """Projected quasi-Newton: a step towards where the model of the pairs is least in D.

    D is convex, so that every share of the step stays in it, and one that is taken back comes again
    shorter. The decrease that is left is that of the model in D, whatever the shape of its faces.
    """

    def proposal(self, problem: Problem) -> tuple[Array, float | None]:
        backend, xp = problem.backend, problem.backend.xp
        lam, p = self.lam, self.hypergrad
        assert lam is not None and p is not None
        if not self.pairs:
            # Nothing is known of the curvature: f may fall as its slope says.
            (largest,) = backend.scalars(xp.max(xp.abs(p)))
            if not largest > 0:
                return lam, 0.0
            target = problem.domain.project(lam - p * (self.trust / largest), backend)
            return target, fall_within(problem, lam, p, 0.0)
        model = pairs_model(lam, p, self.pairs, backend)
        newton = lam - self.newton(backend.copied(p), backend)
        best = least(model, problem.domain, newton, backend)
        if not best.decrease > 0:  # the start lay beyond a face, and higher than λ
            best = least(model, problem.domain, lam, backend)
        if not best.decrease > 0:
            return lam, 0.0
        (length,) = backend.scalars(xp.max(xp.abs(best.step)))
        target = lam + best.step * min(1.0, self.trust / length)
        return problem.domain.project(target, backend), best.decrease if best.found else None

    def cornered(self, problem: Problem, lam: Array, seen: Estimate) -> float:
        """How far f may fall where p lets λ go nowhere, by p as it may be.

        In a corner no p that is in error by so little lets it go either. On a face that is smooth,
        where p is normal to it by chance, every other one does.
        """
        p = seen.hypergrad
        aside = seen.error * generic(lam, problem.backend)
        return max(fall_within(problem, lam, q, 0.0) for q in (p + aside, p - aside))

    def fall(self, problem: Problem, lam: Array, p: Array, error: float) -> float:
        return fall_within(problem, lam, p, error)


def fall_within(problem: Problem, lam: Array, p: Array, error: float) -> float:
    """How far f falls by its slope within √m, as far as a move of 1 in every λ_j.

    P(λ - τ p) is where in D the slope promises most that far from λ: τ grows until it is √m, or
    all that D has.
    """
    backend, xp = problem.backend, problem.backend.xp
    reach = math.sqrt(lam.shape[0])
    size = norm(p, backend)
    way = p * (reach / xp.where(size > 0, size, xp.ones_like(size)))
    moves = [lam - problem.domain.project(lam - 4.0**k * way, backend) for k in range(_FARTHER)]
    numbers = (number for d in moves for number in (dot(p, d, backend), norm(d, backend)))
    host = backend.scalars(*numbers)
    seen = list(zip(host[::2], host[1::2], strict=True))
    slope, length = next((pair for pair in seen if pair[1] >= 0.99 * reach), seen[-1])
    return max(slope, 0.0) + error * min(length, reach)


#: How often a step along p grows fourfold, to see how far D lets it go.
_FARTHER = 6
