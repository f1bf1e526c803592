"""How much of f is left near an iterate: the Hessian of f there, by one look beside each tangent.

The curvature that a secant shows is that of the last step. On a plateau, or behind a bend, it
says nothing of where the run has come to: a decrease that is small by it may be small by mistake.
With tangents the model at λ + s e_j is predicted, and q and t are so near there that the corrected
p is in error by s² only: a look beside each hyperparameter, a pass back over the data, gives the
second derivatives of f at the iterate itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backends import Array
from ..linalg import norm
from ..problem import Problem
from .looks import Look, ahead, look_at


@dataclass(frozen=True)
class Beside:
    """The change of p from λ to λ + step e_j, as far as the look at λ predicts it."""

    axis: int
    step: float
    change: tuple[float, ...]


def beside(problem: Problem, look: Look, axis: int, step: float) -> Beside | None:
    """Look at λ + step e_j, or on the other side where D ends before; None without room in D."""
    backend, xp = problem.backend, problem.backend.xp
    lam = look.point.lam
    unit = xp.eye(lam.shape[0], dtype=lam.dtype, device=backend.device)[axis, :]
    for signed in (step, -step):
        target = problem.domain.project(lam + signed * unit, backend)
        delta = target - lam
        (moved,) = backend.scalars(delta[axis])
        if abs(moved) >= 0.9 * abs(step):
            break
    else:
        return None
    point = ahead(problem, look.point, look.vectors, look.pushed, target, delta)
    there, _ = look_at(problem, point, look.vectors, look.pushed)
    change = there.p - look.p
    return Beside(axis, moved, backend.scalars(*(change[j] for j in range(change.shape[0]))))


#: Of a Newton step longer than this the curvature at its beginning says nothing.
_REACH = 1.5


def decrease_left(
    problem: Problem, lam: Array, p: tuple[float, ...], error: float, looks: list[Beside]
) -> float:
    """½ (‖p‖ + error)² / curvature along the Newton step of the coordinates that were looked at.

    The error of p is counted against it; inf where the Hessian is not positive definite, and where
    the step, as far as D lets it, is so long that f may bend before its end: on a plateau.
    """
    axes = [b.axis for b in looks]
    rows = [[b.change[j] / b.step for j in axes] for b in looks]
    n = len(axes)
    hessian = [[(rows[i][j] + rows[j][i]) / 2 for j in range(n)] for i in range(n)]
    right = [p[j] for j in axes]
    size = math.hypot(*right)
    step = _solved(hessian, right if size > 0 else [1.0] * n)
    if step is None:
        return math.inf
    if size == 0:
        return error**2 * sum(step) / 2
    if _reach(problem, lam, dict(zip(axes, step, strict=True))) > _REACH:
        return math.inf
    return sum(r * s for r, s in zip(right, step, strict=True)) / 2 * (1 + error / size) ** 2


def _reach(problem: Problem, lam: Array, step: dict[int, float]) -> float:
    """‖P_D(λ - step) - λ‖."""
    backend, xp = problem.backend, problem.backend.xp
    whole = [step.get(j, 0.0) for j in range(int(lam.shape[0]))]
    target = lam - xp.asarray(whole, dtype=lam.dtype, device=backend.device)
    (length,) = backend.scalars(norm(problem.domain.project(target, backend) - lam, backend))
    return length


def _solved(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """A⁻¹ b by elimination, None where A is not positive definite: A is of very few rows."""
    a, b = [row[:] for row in matrix], right[:]
    n = len(b)
    for k in range(n):
        pivot = a[k][k]
        if not pivot > 0 or not math.isfinite(pivot):
            return None
        for i in range(k + 1, n):
            factor = a[i][k] / pivot
            b[i] -= factor * b[k]
            for j in range(k, n):
                a[i][j] -= factor * a[k][j]
    for k in reversed(range(n)):
        b[k] = (b[k] - sum(a[k][j] * b[j] for j in range(k + 1, n))) / a[k][k]
    return b
