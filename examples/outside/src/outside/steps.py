"""A step rule: longer while g falls, half as long and back where it does not."""

import math
from dataclasses import dataclass, replace

from bilevel.methods import StepState


@dataclass(frozen=True)
class Bold:
    """L ← 0.9 L after a step that lowers g, else 2 L and the step is taken back."""

    def first(self, value: float, grad_norm: float, m: int, tol: float) -> StepState:
        return StepState(grad_norm / math.sqrt(m) or 1.0, value, tol)

    def next(self, state: StepState, value: float, tol: float) -> tuple[StepState, bool]:
        if value <= state.value:
            return StepState(0.9 * state.lipschitz, value, tol), True
        return replace(state, lipschitz=2 * state.lipschitz), False
