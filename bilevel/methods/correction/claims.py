"""What is stated of H and of its preconditioner, put to the question."""

from __future__ import annotations

import math

from ...linalg import CGResult, Energy, Preconditioner, cg
from ...problem import Problem
from ...status import REFUTING, Status
from .kept import base
from .looks import Look

#: Steps in which what is stated of H is asked again.
_STEPS = 100


def contradicted(problem: Problem, look: Look) -> Status | None:
    """How what is stated of H fails, its μ or its preconditioner, where a solve has seen it fail.

    A residual that is of rounding alone may lie where H is singular, and shows anything. So the
    question is put again with products of H, as far down as they are not rounding.
    """
    apply, bottom = base(problem, look)
    if bottom is None:
        return None
    backend, xp = problem.backend, problem.backend.xp
    x = look.point.x
    columns = backend.normal(0, (*x.shape, 2), x.dtype)
    share = math.sqrt(float(xp.finfo(x.dtype).eps))
    found = cg(
        look.point.hvp,
        look.point.hvp(columns),
        tol=Energy(bottom, (0.0, 0.0), (share, share), look.constants.smoothness),
        preconditioner=apply,
        columns=True,
        verify=False,
        max_iter=_STEPS,
    )
    if found.status in REFUTING:
        return found.status
    return Status.REFUTED if apply is not None and _hidden(problem, look, apply, found) else None


def _hidden(problem: Problem, look: Look, apply: Preconditioner, found: CGResult) -> bool:
    """Whether an error is larger than its bound: rᵀH⁻¹r ≥ (rᵀr)² / rᵀHr, a product.

    M⁻¹ may hide a direction from all that the steps show of it. What it makes of r is rounded as a
    share of what it makes of others, such as H r.
    """
    backend, r = problem.backend, found.residual
    assert found.energy_errors is not None
    eps = float(backend.xp.finfo(r.dtype).eps)
    ahead = look.point.hvp(r)
    products = (r, ahead), (ahead, ahead), (ahead, apply(ahead)), (r, r), (r, apply(r))
    host = backend.scalars(*(backend.column_dot(u, v) for u, v in products))
    k = r.shape[-1]
    for j, error in enumerate(found.energy_errors):
        along, square, seen, rr, rz = host[j::k]
        steepest = max(seen / square, rz / rr) if square > 0 and rr > 0 else math.inf
        most = error * error + _ROUNDINGS * eps * steepest * rr
        if along > 0 and 2 * most * along < rr * rr:
            return True
    return False


#: Roundings that a product with M⁻¹ may hold, in units of the machine epsilon.
_ROUNDINGS = 64
