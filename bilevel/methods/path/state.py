"""What path following has in hand: between two iterations, and between two corrections."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ...backends import Array
from ...hypergrad import Bounds
from ...linalg.rounding import known
from ...record import Record
from ...status import Status
from ..correction import Kept, Look, Proof, Wanted
from .estimate import Estimate
from .rules import Rule, Verdict
from .settled import Beside


@dataclass(frozen=True)
class PathState:
    """Between two iterations: where to look next, and the solutions that go along.

    ``x`` is the model of the last iteration, ``start`` and ``carry`` what is predicted at the
    next λ; ``vectors`` are q and the tangents, ``pushed`` the same through X. ``gap`` is the
    decrease that was left, relative, ``goal`` the accuracies with which a proof of the end would
    have succeeded (None when not known). ``cold``: the first model is to be fitted from
    nothing; ``moving``: the last iteration moved λ or x; ``least``: the least curvature that a
    solve has shown whose errors were estimated.
    """

    k: int
    lam: Array
    x: Array
    start: Array
    carry: Array | None
    vectors: Array
    pushed: Array | None
    rule: Rule
    tol: float
    gap: float
    sketch: Kept | None
    goal: Wanted | None
    cold: bool
    record: Record | None
    status: Status
    moving: bool = True
    least: float = math.inf


@dataclass
class Work:
    """What an iteration has in hand between two corrections.

    ``fresh``: nothing was known of q and t where the iteration began; ``still``: the correction
    before did not move x; ``vague``: the error of f with which nothing could be decided;
    ``near``: how much nearer than usual to look for the curvature, q and t being more precise;
    ``looks``: the last ones there; ``guessed``: the errors of the last solve are estimates, not
    bounds; ``checked``: an end was put to the question by a solve that no plateau ends; ``least``:
    as in the state;
    ``rounded``: solve in the lower precision where that is cheaper, until a proof has failed with
    it; ``certify``: whether bounds are wanted at all, ``provable`` whether the solves can prove
    some.
    """

    look: Look
    rhs: Array
    wanted: Wanted
    sketch: Kept | None
    goal: Wanted | None
    certify: bool
    provable: bool
    fresh: bool
    verdict: Verdict
    n_cg: int
    max_sweeps: int
    sweeps: int = 0
    moved: bool = False
    still: bool = False
    vague: float = math.inf
    near: float = 1.0
    looks: list[Beside] = field(default_factory=list)
    guessed: bool = False
    checked: bool = False
    least: float = math.inf
    rounded: bool = True
    status: Status = Status.RUNNING
    proof: Proof | None = None
    bounds: Bounds = Bounds()
    estimate: Estimate = field(init=False)

    @property
    def last(self) -> bool:
        """Whether the iteration ends with this correction."""
        return self.sweeps >= self.max_sweeps

    @property
    def blank(self) -> bool:
        """Whether p says nothing because f is flat, while x is still on its way: λ waits for it.

        A p that is zero by chance, with an error that is not, says that q is not known yet.
        """
        seen = self.estimate
        return self.moved and seen.norm + seen.error <= seen.noise

    @property
    def moves(self) -> bool:
        """Whether λ may move.

        p of which not even the sign is known moves nothing: the next iteration corrects on.
        """
        told = self.estimate.signed and not self.blank
        return self.status is Status.RUNNING and (told or self.verdict.back)

    def record(self, state: PathState, moved: float = 0.0) -> Record:
        """The iteration as it stands, with a step of this length after it."""
        seen = self.estimate
        return Record(
            k=state.k + 1,
            lam=state.lam,
            value=seen.value,
            value_error=self.bounds.value,
            hypergrad=seen.hypergrad,
            hypergrad_error=self.bounds.hypergrad,
            tol=seen.error,
            inner_error=self.bounds.distance,
            cg_residual=seen.cg_residual,
            optimality=seen.stationarity,
            step=moved,
            n_inner=self.sweeps,
            n_cg=self.n_cg,
            inner_status=Status.MAX_ITER if self.last else Status.CONVERGED,
            cg_status=seen.cg_status,
            estimate=seen.corrected,
            estimate_error=known(seen.corrected_error + seen.rounding),
        )

    def proves(self, allowed: float) -> bool:
        """Whether the proven error of p is no larger."""
        return self.bounds.hypergrad is not None and self.bounds.hypergrad <= allowed
