"""A solver: steepest descent, as long as the curvature along the gradient says."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bilevel.backends import Backend
from bilevel.linalg import dot
from bilevel.solvers import Step


@dataclass(frozen=True)
class Steepest:
    """x - t ∇h, t = ‖∇h‖² / ⟨∇h, H ∇h⟩, halved until h falls."""

    halvings: int = 30

    def walk(self, point: Any, backend: Backend, target: float) -> Iterator[Step]:
        while True:
            g = point.grad
            square, bend, value = backend.scalars(
                dot(g, g, backend), dot(g, point.hvp(g), backend), point.value
            )
            yield Step(point, math.sqrt(square))  # the start, too
            if not bend > 0:
                return
            ray = point.ray(-g)
            for k in range(self.halvings):
                ahead = ray.at(square / bend / 2**k)
                if backend.scalars(ahead.value)[0] < value:
                    break
            else:
                return  # no progress is possible: the loop that walks says whether it is near
            point = ahead
