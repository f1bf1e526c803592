"""Iterative differentiation as an outer method, for the comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bilevel.hypergrad import ReverseLBFGS
from bilevel.methods import HOAG
from bilevel.schedules import Constant
from bilevel.solvers import Step


@dataclass(frozen=True)
class Stay:
    """An inner solver that takes no step: the differentiated iterations are the solver."""

    def walk(self, point: Any, backend: Any, target: float) -> Iterator[Step]:
        flat = backend.xp.reshape(point.grad, (-1,))
        yield Step(point, backend.scalars(backend.xp.sqrt(backend.xp.vecdot(flat, flat)))[0])


def iterative_differentiation(n_steps: int) -> HOAG:
    """Reverse mode through n iterations of L-BFGS from zero, with HOAG's rule for the step."""
    return HOAG(Constant(1e-12), solver=Stay(), hypergradient=ReverseLBFGS(n_steps))
