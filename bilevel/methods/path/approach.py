"""The first fit: come to (X(λ), λ) from where h is well conditioned, as a path is followed.

A fit from nothing at a small λ costs many times what the path costs that comes down to it from a
large one: each Newton step starts where the tangent predicts it. Nothing is decided on the way, and
no λ but the last is an iterate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...backends import Array
from ...inner import inner_constants
from ...problem import Problem


def well_conditioned(problem: Problem, lam: Array, condition: float) -> Array:
    """lam, or a larger λ in D at which h is well conditioned, where raising λ does that."""
    backend = problem.backend

    def number(at: Array) -> float:
        constants = inner_constants(problem.inner, at)
        if not constants.mu or constants.smoothness is None:
            return math.nan
        return constants.smoothness / constants.mu

    for _ in range(64):
        now = number(lam)
        if not now > condition:
            return lam
        higher = problem.domain.project(lam + max(0.5, math.log(now / condition)), backend)
        if not number(higher) < now:
            return lam
        lam = higher
    return lam


def stations(problem: Problem, lam: Array, condition: float, step: float) -> Iterator[Array]:
    """The λ on the way from where h is well conditioned down to lam, evenly spaced, without lam."""
    start = well_conditioned(problem, lam, condition)
    (length,) = problem.backend.scalars(problem.backend.xp.max(start - lam))
    n = math.ceil(length / step)
    for i in range(n):
        yield start - (start - lam) * (i / n)
