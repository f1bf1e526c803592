"""Where beside an iterate D has room to look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...backends import Array
from ...linalg import norm
from ...problem import Problem


@dataclass(frozen=True)
class Move:
    """A move within D: by ``delta``, which is ``step`` · ``way``, to ``target``.

    ``way`` is of length 1, ``step`` negative where D has room on the other side alone.
    """

    target: Array
    delta: Array
    step: float
    way: tuple[float, ...]

    @property
    def straight(self) -> bool:
        """Whether it leads along an axis."""
        return max(map(abs, self.way)) == 1.0

    def reaches(self, length: float) -> bool:
        """Whether it goes so far, but for the rounding of λ."""
        return abs(self.step) >= 0.9 * length


def along_axis(problem: Problem, lam: Array, axis: int, step: float, least: float) -> Move | None:
    """λ + step e_j, or on the other side where D ends before; shorter in a small D, or None."""
    while True:
        for signed in (step, -step):
            move = _towards(problem, lam, axis, signed)
            if move is not None and move.straight and move.reaches(abs(step)):
                return move
        if not abs(step) > least:
            return None
        step *= 0.25


def within(problem: Problem, lam: Array, steps: Sequence[float], least: float) -> list[Move]:
    """Moves that span what D has beside λ: of all P(λ ± s_j e_j) those that lead another way.

    The axes are taken before what the projection has turned. A D without interior, as a simplex,
    has fewer ways than axes, and a point none.
    """
    signed = [(j, sign * s) for sign in (1, -1) for j, s in enumerate(steps)]
    found = [_towards(problem, lam, axis, step) for axis, step in signed]
    left = [(move, move.way) for move in found if move is not None and move.reaches(least)]
    chosen: list[Move] = []
    while left:
        move, rest = max(left, key=lambda one: math.hypot(*one[1]) * (1 + one[0].straight))
        size = math.hypot(*rest)
        if not size > _DISTINCT:
            break
        chosen.append(move)
        unit = [r / size for r in rest]
        left = [(other, _beyond(way, unit)) for other, way in left if other is not move]
    return chosen


#: What differs by less from the moves before tells nothing new.
_DISTINCT = 1e-3


def _towards(problem: Problem, lam: Array, axis: int, step: float) -> Move | None:
    """P(λ + step e_j); None where that is λ."""
    backend, xp, m = problem.backend, problem.backend.xp, int(lam.shape[0])
    unit = xp.eye(m, dtype=lam.dtype, device=backend.device)[axis, :]
    target = problem.domain.project(lam + step * unit, backend)
    delta = target - lam
    *moved, length = backend.scalars(delta, norm(delta, backend))
    if not length > 0:
        return None
    if length <= 1.001 * abs(moved[axis]):  # no face that is oblique has turned it
        return Move(target, delta, moved[axis], tuple(float(j == axis) for j in range(m)))
    return Move(target, delta, length, tuple(d / length for d in moved))


def _beyond(way: Sequence[float], unit: Sequence[float]) -> tuple[float, ...]:
    """What of a way leads another way than the unit vector."""
    along = sum(w * u for w, u in zip(way, unit, strict=True))
    return tuple(w - along * u for w, u in zip(way, unit, strict=True))
