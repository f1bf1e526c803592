"""How a solve ended: one enumeration for every solver and every method."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """The state of a solve; ``message`` says it in a sentence.

    Examples
    --------
    >>> Status.MAX_ITER.success, Status.MAX_ITER.message
    (False, 'The iteration limit was reached.')
    """

    RUNNING = "running"
    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    MAX_PASSES = "max_passes"
    MAX_SECONDS = "max_seconds"
    STALLED = "stalled"
    NEGATIVE_CURVATURE = "negative_curvature"
    SINGULAR = "singular"
    PRECONDITIONER = "preconditioner"
    REFUTED = "refuted"
    NON_FINITE = "non_finite"
    UNBOUNDED = "unbounded"
    DIVERGED = "diverged"
    OVERFLOW = "overflow"
    TRUNCATED = "truncated"
    INTERRUPTED = "interrupted"

    @property
    def message(self) -> str:
        return _MESSAGES[self]

    @property
    def success(self) -> bool:
        return self is Status.CONVERGED


#: Ends that refute what a problem states: nothing that rests on it is known.
REFUTING = (Status.PRECONDITIONER, Status.REFUTED)

_MESSAGES = {
    Status.RUNNING: "The run goes on.",
    Status.CONVERGED: "The tolerance was reached.",
    Status.MAX_ITER: "The iteration limit was reached.",
    Status.MAX_PASSES: "The budget of passes over the data was spent.",
    Status.MAX_SECONDS: "The time budget was spent.",
    Status.STALLED: "No further progress is possible at this precision.",
    Status.NEGATIVE_CURVATURE: "The Hessian has negative curvature here.",
    Status.SINGULAR: "The system is singular to working precision, and has no solution.",
    Status.PRECONDITIONER: "The preconditioner is not symmetric and positive: ask check_problem.",
    Status.REFUTED: (
        "The Hessian is not what the preconditioner or the constants state: ask check_problem."
    ),
    Status.NON_FINITE: "A value became NaN or infinite.",
    Status.UNBOUNDED: "h falls without end along a line: it has no minimum at this λ.",
    Status.DIVERGED: "The iteration led away from the solution: its step is too long.",
    Status.OVERFLOW: "A number left the range that its integers hold: keep fewer fraction bits.",
    Status.TRUNCATED: "The iteration was cut short of its tolerance: grant it more steps.",
    Status.INTERRUPTED: "The run was interrupted.",
}
