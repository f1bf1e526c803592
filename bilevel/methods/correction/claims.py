"""What is stated of H and of its preconditioner at a look, put to the question."""

from __future__ import annotations

from ... import linalg
from ...problem import Problem
from ...status import Status
from .kept import base
from .looks import Look


def contradicted(problem: Problem, look: Look) -> Status | None:
    """How what is stated of H fails, its μ or its preconditioner, where it is seen to fail."""
    apply, bottom = base(problem, look)
    if bottom is None:
        return None
    point, top = look.point, look.constants.smoothness
    return linalg.contradicted(
        point.hvp, point.x, problem.backend, bottom, top=top, preconditioner=apply
    )
