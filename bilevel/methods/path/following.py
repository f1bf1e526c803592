"""The default method: follow the path λ ↦ X(λ), with one block solve for every question.

At (x, λ) three systems with the same Hessian H are open: the Newton step of the model, the
adjoint, and the tangents of the path (for few hyperparameters),

    H d = -∂_x h,    H q = ∂_x g,    H t_j = -∂²_{xλ_j} h.

One block of conjugate gradients solves them together, started at the last q and t, so that each
product with the data serves all. Then

* x + d is corrected, and x + d + t δ predicts X(λ + δ): one or two corrections an iteration;
* p_j = ∂_{λ_j} g + t_jᵀ ∂_x g + qᵀ r_j, with r_j = -∂²_{xλ_j}h - H t_j, is in error by the product
  of the errors of q and of t_j, not by one of them;
* the accuracy is whatever the next step needs: an iterate is corrected until the error of p is
  a fraction θ of p (as in MAID of Salehi et al. 2024), and a run ends where the decrease that is
  left, error included, is a share ``tol`` of f. With the constants of the objective known the
  end is certified by :func:`~bilevel.hypergrad.self_concordant_bound`.

λ moves by a safeguarded secant (one hyperparameter) or by L-BFGS with projection (several), where D
is no box towards where the model of its pairs is least in D.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from ...backends import COUNT, NOT_NEGATIVE, POSITIVE, Array, Number, Whole, check_fields, flag
from ...domains import Domain
from ...inner import InnerPoint, Pushable
from ...linalg import norm
from ...meter import offer
from ...problem import Problem
from ...record import Record
from ...status import REFUTING, Status
from .._protocol import coordinatewise
from ..correction import (
    Averages,
    Kept,
    Solved,
    Wanted,
    ahead,
    contradicted,
    look_at,
    provable_at,
    prove,
    proven,
    sharpened,
    turned,
    walk,
)
from .approach import stations
from .end import ended, small
from .estimate import asked_of, estimate
from .projected import Projected
from .rules import Rule, Verdict
from .secant import Secant
from .solver import BlockSolver, without_pairs
from .state import PathState, Work
from .within import Within


@dataclass(frozen=True)
class PathFollowing:
    """Path following with certified inexact gradients.

    Parameters
    ----------
    theta : float
        The error of p, as a share of p, at which λ may move.
    newton, adjoint : float
        Relative accuracy, in the norm of the Hessian, of the Newton step and of q and t at the
        first correction of an iteration.
    trust : float
        The first step in λ (a factor e^trust of the regularisation).
    max_tangents : int
        Up to this many hyperparameters have a tangent each; with more there is none.
    max_sweeps : int
        Corrections an iteration at most.
    max_cg : int
        Steps of CG a correction at most.
    memory : int
        Pairs of the projected L-BFGS.
    certify : bool
        Correct on at the end until the proven bound agrees, where the constants are known.
    first_condition : float
        A start without x0 in one hyperparameter fits the first model by coming down to lam0 from
        where the condition number of h, by its own constants, is at most this: a pass buys most
        where the model is strongly regularised. ``math.inf`` fits at lam0 from x = 0.
    default_tol : float
        ``tol`` where none is given.
    rank, sketch_after : int
        Once a correction has taken ``sketch_after`` steps of CG, a Nyström sketch of this rank
        preconditions the following ones, where h has one λ and a known μ (rank 0: never).
    pairs : int
        Elsewhere so many of the last conjugate directions of a correction precondition the next
        one (0: never).
    worth : float
        Both, and H itself up to 32 coefficients (with a rank above 0), only where the data have
        ``worth`` times the entries of the vectors that are read for them, one for each of the rank
        and two for each pair (0: always).

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> bilevel.minimize(problem, method=PathFollowing()).success
    True
    """

    theta: float = 0.3
    newton: float = 0.3
    adjoint: float = 0.3
    trust: float = 2.0
    max_tangents: int = 3
    max_sweeps: int = 12
    max_cg: int = 500
    memory: int = 10
    certify: bool = True
    first_condition: float = 1e4
    default_tol: float = 1e-5
    rank: int = 10
    sketch_after: int = 8
    pairs: int = 8
    worth: float = 5.0

    def __post_init__(self) -> None:
        inside, any_count = Number(above=0, below=1), Whole(0)
        check_fields(
            self,
            theta=inside,
            newton=inside,
            adjoint=inside,
            trust=POSITIVE,
            max_tangents=any_count,
            max_sweeps=Whole(3),  # x, then q and t at that x, then p
            max_cg=COUNT,
            memory=COUNT,
            certify=flag,
            first_condition=Number(at_least=1, finite=False),
            default_tol=NOT_NEGATIVE,
            rank=any_count,
            sketch_after=any_count,
            pairs=any_count,
            worth=Number(at_least=0, finite=False),
        )

    def init(self, problem: Problem, lam0: Array, x0: Array | None, tol: float | None) -> PathState:
        backend = problem.backend
        lam = problem.domain.project(lam0, backend)
        m = lam.shape[0]
        x = problem.x(x0)
        n_tangents = m if m <= self.max_tangents else 0
        vectors = backend.xp.zeros((*x.shape, 1 + n_tangents), dtype=x.dtype, device=backend.device)
        return PathState(
            k=0,
            lam=lam,
            x=x,
            start=x,
            carry=None,
            vectors=vectors,
            pushed=None,
            rule=self._rule(problem.domain, m),
            tol=self.default_tol if tol is None else tol,
            gap=math.inf,
            sketch=None,
            goal=None,
            cold=x0 is None and n_tangents == m == 1,
            record=None,
            status=Status.RUNNING,
        )

    def reported(self, problem: Problem, record: Record, x: Array) -> Record:
        # An end of its own is proven as far as it takes.
        ended = record.status is Status.CONVERGED or not self.certify
        return record if ended else sharpened(problem, record, x)

    def step(self, problem: Problem, state: PathState) -> PathState:
        work = self._arrive(problem, state)
        for work.sweeps in range(1, self.max_sweeps + 1):
            self._correct(problem, work)
            again = self._judge(problem, state, work)
            if again is None:
                break
            work.wanted = again
        return self._leave(problem, state, work)

    def _rule(self, domain: Domain, m: int) -> Rule:
        """How λ moves: by a secant on a line, by L-BFGS where there are directions."""
        if m == 1:
            return Secant(self.trust)
        rule = Projected if coordinatewise(domain, m) else Within
        return rule(self.trust / 2, memory=self.memory, theta=self.theta)

    @property
    def _solver(self) -> BlockSolver:
        return BlockSolver(self.max_cg, self.rank, self.sketch_after, self.pairs, self.worth)

    def _arrive(self, problem: Problem, state: PathState) -> Work:
        """Look where the last iteration has predicted the model, and say what is wanted of it."""
        if state.cold:
            point, vectors, pushed, sketch, n_cg = self._approach(problem, state)
        else:
            point = problem.inner.at(state.start, state.lam, state.carry)
            vectors, pushed, sketch, n_cg = state.vectors, state.pushed, state.sketch, 0
        look, rhs = look_at(problem, point, vectors, pushed, warm=True)
        wanted = Wanted(self.newton, self.adjoint)
        if state.gap <= 20 * state.tol:
            # This step will arrive: what the proof needs is cheapest at once, and in a valley the
            # looks beside the end need more of q and t than p does.
            share = 0.2 if state.vectors.shape[-1] <= 2 else 0.04
            wanted = state.goal or Wanted(0.05 * self.newton, share * self.adjoint)
            if sketch is not None:
                sketch = sketch.ahead(look)
        elif isinstance(sketch, Averages):
            sketch = replace(sketch, proves=False)  # a proof is not wanted yet
        return Work(
            look,
            rhs,
            wanted,
            sketch,
            state.goal,
            certify=self.certify,
            provable=self.certify and provable_at(problem, look),
            fresh=state.k == 0 and not look.ready,
            verdict=Verdict(state.rule),
            n_cg=n_cg,
            max_sweeps=self.max_sweeps,
            least=state.least,
        )

    def _approach(
        self, problem: Problem, state: PathState
    ) -> tuple[InnerPoint, Array, Array | None, Kept | None, int]:
        """Come down to the first λ from where h is well conditioned, a correction a station."""
        lam, vectors, pushed, n_cg = state.lam, state.vectors, state.pushed, 0
        here = [*stations(problem, lam, self.first_condition, self.trust), lam]
        point = problem.inner.at(state.start, here[0], state.carry)
        wanted, averages = Wanted(self.newton, self.adjoint), state.sketch
        for now, then in itertools.pairwise(here):
            look, rhs = look_at(problem, point, vectors, pushed)
            found = self._solver.solve(problem, look, rhs, wanted, averages).result
            averages = averages or self._solver.averages(look, found)
            n_cg += found.n_iter
            turn = turned(problem, look, found)
            point = walk(problem, look, turn).point
            vectors, pushed = turn.vectors, turn.pushed
            point = _predict(problem, point, vectors, pushed, then, then - now)
        return point, vectors, pushed, averages, n_cg

    def _correct(self, problem: Problem, work: Work) -> None:
        """Solve for the three answers, move x, and look at what is known of p there."""
        look, rhs = work.look, work.rhs
        del work.look, work.rhs  # blocks that what follows has better use for
        found = self._solver.solve(
            problem, look, rhs, work.wanted, work.sketch, work.rounded, work.least
        )
        del rhs
        work.least = min(work.least, found.curvature)
        if found.seen is not None:
            work.sketch = without_pairs(work.sketch)  # they make room for the new ones
        work.sketch = self._solver.kept(problem, look, found, work.sketch)
        solution, sound = found.result, found.sound
        del found
        work.n_cg += solution.n_iter
        turn = turned(problem, look, solution)
        walked = walk(problem, look, turn)
        point, work.moved = walked.point, walked.moved
        solved = Solved.of(problem, look, solution, turn, walked)
        del walked
        vectors, pushed = turn.vectors, turn.pushed
        work.guessed = solved.errors is None
        del look, solution, turn
        work.look, work.rhs = look_at(problem, point, vectors, pushed)
        provable = work.provable and sound
        asked = asked_of(problem, solved, work.look, work.rhs)
        work.proof = None
        if provable:
            attempt = prove(problem, solved, work.look, work.rhs, asked.numbers)
            work.proof, work.provable = attempt.proof, not attempt.lost
        work.bounds = proven(problem, work.look, work.proof)
        work.estimate = estimate(problem, solved, work.look, asked)

    def _judge(self, problem: Problem, state: PathState, work: Work) -> Wanted | None:
        """What the next correction is to do; None where λ may move, or the run has ended."""
        seen = work.estimate
        if not seen.finite:
            work.status = Status.NON_FINITE
            return None
        wrong = contradicted(problem, work.look) if seen.cg_status in REFUTING else None
        if wrong is not None:
            work.status = wrong
            return None
        if work.fresh and work.sweeps < 3 and work.moved:
            # x, then q and the tangents at that x: before that p says nothing of ∇f.
            return work.wanted
        # x, q and p as they are: better than nothing where a budget ends this iteration.
        offer((work.record(state), work.look.point.x))
        if seen.lost(state.tol) and not work.moved:
            work.status = Status.STALLED
            return None
        work.verdict = state.rule.observe(problem, state.lam, seen, state.tol)
        if work.proof is not None and work.verdict.allowed > 0:
            work.goal = work.proof.needs(work.verdict.allowed)
        if small(problem, state, work):
            return ended(problem, state.tol, work)
        return self._before_a_step(work)

    def _before_a_step(self, work: Work) -> Wanted | None:
        """What has to be known better before λ moves; None where it may."""
        seen, wanted = work.estimate, work.wanted
        if not work.moved and wanted.decrement > 0:
            return replace(wanted, decrement=0.0)  # x was as good as asked, p is not yet
        if work.still and not work.moved:
            return None  # x is as precise as it gets, and q and t have had their turn since
        work.still = not work.moved
        if work.blank:
            return wanted
        if work.verdict.undecided and seen.corrected_error <= 0.5 * work.vague:
            work.vague = seen.corrected_error
            return replace(wanted, newton=0.1 * wanted.newton)
        if seen.error <= self.theta * seen.free_norm:
            return None
        if seen.linear_error > 0.5 * seen.error:
            return replace(wanted, adjoint=0.2 * wanted.adjoint)
        return wanted

    def _leave(self, problem: Problem, state: PathState, work: Work) -> PathState:
        """Choose the next λ, and predict x there."""
        seen, point, running = work.estimate, work.look.point, work.status is Status.RUNNING
        moves = work.moves
        rule = work.verdict.rule if moves or not running else state.rule
        lam = rule.propose(problem) if moves else state.lam
        delta = lam - state.lam
        (moved,) = problem.backend.scalars(norm(delta, problem.backend))
        status = work.status
        if running and (rule.torn or _idle(state, work, moves, moved)):
            status = Status.STALLED
        if moves:
            rule = rule.stepped(moved, work.sweeps if state.k > 0 else 2)
        start, gap = point, work.verdict.gap
        if status is Status.RUNNING:
            start = _predict(problem, point, work.look.vectors, work.look.pushed, lam, delta)
        return PathState(
            k=state.k + 1,
            lam=lam,
            x=point.x,
            start=start.x,
            carry=start.carry if isinstance(start, Pushable) else None,
            vectors=work.look.vectors,
            pushed=work.look.pushed,
            rule=rule,
            tol=state.tol,
            sketch=work.sketch,
            goal=work.goal,
            gap=math.inf if gap is None else gap / max(abs(seen.value), 1e-300),
            cold=False,
            moving=moved > 0 or work.moved,
            least=work.least,
            record=work.record(state, moved),
            status=status,
        )


def _idle(state: PathState, work: Work, moves: bool, moved: float) -> bool:
    """Whether neither λ nor x goes anywhere from here; one that only waits has one more try."""
    return moved == 0 and not work.moved and (moves or not state.moving)


def _predict(
    problem: Problem,
    point: InnerPoint,
    vectors: Array,
    pushed: Array | None,
    lam: Array,
    delta: Array,
) -> InnerPoint:
    """x + t δ where that lowers h(., λ + δ), else x."""
    stay = problem.inner.at(point.x, lam, getattr(point, "carry", None))
    if vectors.shape[-1] == 1:
        return stay
    go = ahead(problem, point, vectors, pushed, lam, delta)
    here, there = problem.backend.scalars(stay.value, go.value)
    return go if there < here else stay
