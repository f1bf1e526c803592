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

λ moves by a safeguarded secant (one hyperparameter) or by projected L-BFGS (several).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

from ..backends import COUNT, NOT_NEGATIVE, POSITIVE, Array, Number, Whole, check_fields, flag
from ..hypergrad import Bounds, whitened_bounds
from ..inner import InnerPoint, Pushable
from ..linalg import (
    Accuracy,
    CGResult,
    Energy,
    EstimatedEnergy,
    Recorder,
    cg,
    dot,
    norm,
)
from ..linalg.rounding import known
from ..meter import offer
from ..problem import Problem
from ..record import Record
from ..status import REFUTING, Status
from . import projected, secant
from ._protocol import bends_down, estimated, lost, optimality, too_rounded
from .approach import stations
from .certified import Proof, Wanted, provable_at, prove, proven
from .kept import Formed, Pairs, Sketch, contradicted, plain, preconditioner, rounded_point
from .looks import Look, Solved, ahead, look_at, turned, walk
from .projected import ProjectedState
from .reported import sharpened
from .secant import SecantState
from .settled import Beside, Left, beside, confirmed, decrease_left


@dataclass(frozen=True)
class PathState:
    """Between two iterations: where to look next, and the solutions that go along.

    ``x`` is the model of the last iteration, ``start`` and ``carry`` what is predicted at the
    next λ; ``vectors`` are q and the tangents, ``pushed`` the same through X. ``gap`` is the
    decrease that was left, relative, ``goal`` the accuracies with which a proof of the end would
    have succeeded (None when not known). ``cold``: the first model is to be fitted from
    nothing; ``moving``: the last iteration moved λ or x.
    """

    k: int
    lam: Array
    x: Array
    start: Array
    carry: Array | None
    vectors: Array
    pushed: Array | None
    rule: SecantState | ProjectedState
    tol: float
    gap: float
    sketch: Sketch | Pairs | None
    goal: Wanted | None
    cold: bool
    record: Record | None
    status: Status
    moving: bool = True


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
        rule: SecantState | ProjectedState = (
            SecantState(self.trust) if m == 1 else ProjectedState(self.trust / 2)
        )
        return PathState(
            k=0,
            lam=lam,
            x=x,
            start=x,
            carry=None,
            vectors=vectors,
            pushed=None,
            rule=rule,
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
            if self._decided(problem, state, work):
                break
        return self._next(problem, state, work)

    def _arrive(self, problem: Problem, state: PathState) -> _Work:
        """Look where the last iteration has predicted the model, and say what is wanted of it."""
        if state.cold:
            point, vectors, pushed, n_cg = self._approach(problem, state)
        else:
            point = problem.inner.at(state.start, state.lam, state.carry)
            vectors, pushed, n_cg = state.vectors, state.pushed, 0
        look, rhs = look_at(problem, point, vectors, pushed, warm=True)
        wanted, sketch = Wanted(self.newton, self.adjoint), state.sketch
        if state.gap <= 20 * state.tol:
            # This step will arrive: what the proof needs is cheapest at once, and in a valley the
            # looks beside the end need more of q and t than p does.
            share = 0.2 if state.vectors.shape[-1] <= 2 else 0.04
            wanted = state.goal or Wanted(0.05 * self.newton, share * self.adjoint)
            if sketch is not None:
                sketch = sketch.ahead(look)
        provable = self.certify and provable_at(problem, look)
        verdict = _Verdict(state.rule, None, 0.0)
        fresh = state.k == 0 and not look.ready
        return _Work(look, rhs, wanted, sketch, state.goal, provable, fresh, verdict, n_cg)

    def _approach(
        self, problem: Problem, state: PathState
    ) -> tuple[InnerPoint, Array, Array | None, int]:
        """Come down to the first λ from where h is well conditioned, a correction a station."""
        lam, vectors, pushed, n_cg = state.lam, state.vectors, state.pushed, 0
        here = [*stations(problem, lam, self.first_condition, self.trust), lam]
        point = problem.inner.at(state.start, here[0], state.carry)
        wanted = Wanted(self.newton, self.adjoint)
        for now, then in itertools.pairwise(here):
            look, rhs = look_at(problem, point, vectors, pushed)
            found, _, _ = self._solve(problem, look, rhs, wanted, None, True)
            n_cg += found.n_iter
            turn = turned(problem, look, found)
            point, _ = walk(problem, look, turn)
            vectors, pushed = turn.vectors, turn.pushed
            point = _predict(problem, point, vectors, pushed, then, then - now)
        return point, vectors, pushed, n_cg

    def _correct(self, problem: Problem, work: _Work) -> None:
        """One block solve, and where it leads: x, q and t, and what is known of p there."""
        look, rhs = work.look, work.rhs
        del work.look, work.rhs  # blocks that what follows has better use for
        sketch = work.sketch
        found, seen, sound = self._solve(problem, look, rhs, work.wanted, sketch, work.rounded)
        del rhs
        work.n_cg += found.n_iter
        if found.misjudged > _MISJUDGED:
            work.sketch = None
        elif seen is not None:
            work.sketch = None  # its vectors make room for the new ones
            work.sketch = Pairs.at(look, seen)
        elif sketch is None and found.n_iter >= self.sketch_after:
            work.sketch = Sketch.at(look, self.rank) if self._sketches(problem, look) else None
        del sketch
        turn = turned(problem, look, found)
        point, work.moved = walk(problem, look, turn)
        solved = Solved.of(problem, look, found, turn, point, work.moved)
        vectors, pushed = turn.vectors, turn.pushed
        del look, found, turn, seen
        work.look, work.rhs = look_at(problem, point, vectors, pushed)
        provable = work.provable and sound
        work.proof = prove(problem, solved, work.look, work.rhs) if provable else None
        work.bounds = proven(problem, work.look, work.proof)
        work.estimate = _estimate(problem, solved, work.look, work.rhs)

    def _decided(self, problem: Problem, state: PathState, work: _Work) -> bool:
        """Whether λ may move, or the run end; where not, say what the next correction is to do."""
        estimate = work.estimate
        numbers = (estimate.norm, estimate.value, estimate.inner_value)
        if estimate.cg_status is Status.NON_FINITE or not all(map(math.isfinite, numbers)):
            work.status = Status.NON_FINITE
            return True
        wrong = contradicted(problem, work.look) if estimate.cg_status in REFUTING else None
        if wrong is not None:
            work.status = wrong
            return True
        if work.fresh and work.sweeps < 3 and work.moved:
            # x, then q and the tangents at that x: before that p says nothing of ∇f.
            return False
        # x, q and p as they are: better than nothing where a budget ends this iteration.
        offer((self._record(state, work, 0.0), work.look.point.x))
        if estimate.lost(state.tol) and not work.moved:
            work.status = Status.STALLED
            return True
        work.verdict = self._judge(problem, state, estimate)
        if work.proof is not None and work.verdict.allowed > 0:
            work.goal = work.proof.needs(work.verdict.allowed)
        if self._small(state, work):
            return self._ended(problem, state, work)
        if not work.moved and work.wanted.decrement > 0:
            # x was as good as asked, p is not yet.
            work.wanted = replace(work.wanted, decrement=0.0)
            return False
        if work.still and not work.moved:
            return True  # x is as precise as it gets, and q and t have had their turn since
        work.still = not work.moved
        if work.verdict.undecided and estimate.corrected_error <= 0.5 * work.vague:
            work.vague = estimate.corrected_error
            work.wanted = replace(work.wanted, newton=0.1 * work.wanted.newton)
            return False
        if estimate.error <= self.theta * estimate.free_norm:
            return True
        if estimate.linear_error > 0.5 * estimate.error:
            work.wanted = replace(work.wanted, adjoint=0.2 * work.wanted.adjoint)
        return False

    def _small(self, state: PathState, work: _Work) -> bool:
        """Whether the decrease that is left is within the tolerance, as far as the rule knows."""
        estimate, gap = work.estimate, work.verdict.gap
        enough = state.tol * abs(estimate.value)
        if state.tol == 0 or gap is None or gap > enough or estimate.lost(state.tol):
            return False
        # The model that is returned has to be as good as its λ: what the last correction of x
        # would do to g, to first order, is small too.
        if not abs(estimate.value - estimate.corrected) <= enough:
            return False
        # Neither p nor the correction says anything of the model where g is flat: there it has to
        # be a minimum of h by itself.
        loose = estimate.decrement > 1e-3 * state.tol * estimate.inner_value
        if estimate.flat and work.moved and loose:
            return False
        if isinstance(state.rule, ProjectedState) and estimate.free_norm > 0:
            # The pairs see the curvature along the last steps alone: one more has to agree.
            return state.gap <= 100 * state.tol
        return True

    def _ended(self, problem: Problem, state: PathState, work: _Work) -> bool:
        """Prove that little is left, where it can be proven, and look whether it is so."""
        estimate, look, allowed = work.estimate, work.look, work.verdict.allowed
        if self.certify and not work.proves(allowed):
            few = whitened_bounds(problem, look.point, look.outer, look.p)
            work.bounds = work.bounds.and_of(few)
        if work.provable and not work.proves(allowed) and work.sweeps < self.max_sweeps:
            work.wanted = work.goal or Wanted(0.1, 0.5 * work.wanted.adjoint)
            work.rounded = False
            if work.proof is None and work.sketch is not None:
                work.sketch = work.sketch.proven(work.look, problem.backend)
            return False
        left, rule = self._left(problem, work)
        enough = state.tol * abs(estimate.value)
        unknown = left.least <= enough < left.most
        nearer = work.near > _NEAREST and work.sweeps < self.max_sweeps
        if unknown and nearer and (left.seen <= enough or work.near < 1):
            # The looks cannot tell a flat valley from an end: more precise q and t will.
            work.near *= 0.1
            work.wanted = replace(work.wanted, adjoint=0.1 * work.wanted.adjoint)
            return False
        work.verdict = replace(work.verdict, rule=rule, gap=left.most)
        lost = unknown and left.seen <= enough and work.near <= _NEAREST
        if lost or (left.most <= enough and estimate.rounded):
            work.status = Status.STALLED
        elif estimate.cg_status in _BLIND and left.most <= enough:
            work.status = estimate.cg_status
        elif left.most <= enough:
            down = bends_down(problem, work.look.point)
            work.status = Status.NEGATIVE_CURVATURE if down else Status.CONVERGED
        return True

    def _left(self, problem: Problem, work: _Work) -> tuple[Left, SecantState | ProjectedState]:
        """What is left to gain by the curvature at the iterate, and the rule that knows of it.

        Without tangents it is what the rule said.
        """
        estimate, verdict, look = work.estimate, work.verdict, work.look
        rule, gap = verdict.rule, verdict.gap
        assert gap is not None
        flat = estimate.flat
        if not look.has_tangents or (estimate.free_norm == 0 and not flat):
            return Left(gap, gap, gap), rule
        backend = problem.backend
        inside = projected.free(look.point.lam, look.p, problem.domain, backend)
        m = int(look.p.shape[0])
        host = backend.scalars(*(look.p[j] for j in range(m)), *(inside[j] for j in range(m)))
        p, axes = host[:m], [j for j in range(m) if flat or host[m + j] != 0]
        looks, least = [], float(backend.xp.finfo(look.p.dtype).eps) ** 0.4
        for j in axes:
            step = math.copysign(max(work.near * _probe(estimate, gap, p[j]), least), -p[j])
            found = beside(problem, look, work.rhs, estimate.errors, j, step)
            if found is None:
                return Left(gap, gap, gap), rule
            looks.append(found)
        if flat and all(abs(c) <= 4 * estimate.noise for b in looks for c in b.change):
            return Left(0.0, 0.0, 0.0), rule  # beside it too: f does not depend on λ here
        known = looks
        if [b.axis for b in work.looks] == axes:
            known = [confirmed(now, was) for now, was in zip(looks, work.looks, strict=True)]
        work.looks = looks
        left = decrease_left(problem, look.point.lam, p, estimate.error, known)
        if isinstance(rule, SecantState):
            curvature = looks[0].change[0] / looks[0].step
            rule = replace(rule, curvature=curvature if curvature > 0 else None, bend=0.0)
        return left, rule

    def _pays(self, problem: Problem, vectors: int) -> bool:
        """Whether a step with so many vectors costs little beside the passes that it saves.

        The sketch is read twice a step, the pairs too, and so are the data. On text, which has
        fewer entries than the sketch, it lowered the passes and raised the seconds: 20 Newsgroups
        425 to 373 passes, 1.12 to 1.48 s; Reuters 190 to 180, 0.14 to 0.21 s.

        With one λ sketch and pairs save alike (breast cancer 209 to 143 and 141 passes, digits 202
        to 156 and 159), and the sketch can be proven anywhere. With several λ, or an intercept,
        there is no sketch, and 8 pairs save a fifth: digits 1206 to 850 passes with three λ and
        241 to 199 with an intercept, MNIST 1122 to 1035 and 829 to 619. The table is in
        docs/path-following.md.
        """
        entries = getattr(problem.inner, "entries", 0)
        return vectors > 0 and entries >= self.worth * vectors * math.prod(problem.inner.x_shape)

    def _sketches(self, problem: Problem, look: Look) -> bool:
        """Whether there is a plain H, as a sketch needs it, and it pays; pairs do without."""
        return plain(problem, look) and self._pays(problem, self.rank)

    def _solve(
        self,
        problem: Problem,
        look: Look,
        rhs: Array,
        wanted: Wanted,
        sketch: Sketch | Pairs | None,
        rounded: bool,
    ) -> tuple[CGResult, Recorder | None, bool]:
        """The three questions in one block, its pairs where they are to be kept, and its soundness.

        The block takes the memory of the residuals. It is sound where its bounds of the errors are
        proven. With few coefficients H itself preconditions, formed anew.
        """
        formed = Formed.at(problem, look) if self._pays(problem, self.rank) else None
        apply, bottom, sound = preconditioner(problem, look, formed or sketch)
        point, shift = rounded_point(problem, look, wanted)
        point = point if rounded else look.point
        if bottom is not None:  # of this solve, or of the one whose pairs precondition it
            bottom *= 1 - shift
        absolute = (wanted.decrement, *(wanted.adjoint * e for e in look.energies))
        relative = (wanted.newton, *(wanted.adjoint for _ in look.energies))
        accuracy: Accuracy
        if bottom is None:
            accuracy = EstimatedEnergy(absolute, relative)
        else:
            accuracy = Energy(bottom, absolute, relative)
        seen = None
        plainly = formed is not None or self._sketches(problem, look)
        if self._pays(problem, 2 * self.pairs) and not plainly:
            seen = Recorder(point.hvp, self.pairs, columns=True)
        found = cg(
            point.hvp if seen is None else seen,
            rhs,
            tol=accuracy,
            preconditioner=apply,
            columns=True,
            verify=False,
            overwrite_b=True,
            max_iter=self.max_cg,
        )
        # Less than half as many pairs as may be kept say less than those from before.
        enough = seen is not None and 2 * len(seen) >= self.pairs
        return found, seen if enough else None, sound

    def _judge(self, problem: Problem, state: PathState, estimate: _Estimate) -> _Verdict:
        """Take the iterate in, and say how far from the end it is."""
        if isinstance(state.rule, SecantState):
            return self._judge_one(problem, state, state.rule, estimate)
        return self._judge_many(problem, state, state.rule, estimate)

    def _judge_one(
        self, problem: Problem, state: PathState, before: SecantState, estimate: _Estimate
    ) -> _Verdict:
        size, error = estimate.norm, estimate.error
        enough = 10 * state.tol * abs(estimate.value)
        lam, p = problem.backend.scalars(state.lam[0], estimate.hypergrad[0])
        rule = secant.observe(before, lam, p, error, estimate.corrected, estimate.corrected_error)
        curvature = rule.curvature
        if rule.lam != lam:
            return _Verdict(rule, None, 0.0, back=True)
        if size + error <= estimate.noise:  # f is flat here, up to rounding
            return _Verdict(rule, 0.0, size)
        if estimate.stationarity == 0:  # on the boundary
            outwards = error < size
            left = None if curvature is None else (size + error) ** 2 / (2 * curvature)
            return _Verdict(rule, 0.0 if outwards else left, size)
        if curvature is None:
            return _Verdict(rule, None, 0.0)
        # p itself: the domain may cut the stationarity short.
        allowed = max(math.sqrt(2 * curvature * enough) - size, 0.0)
        return _Verdict(rule, (size + error) ** 2 / (2 * curvature), allowed)

    def _judge_many(
        self, problem: Problem, state: PathState, before: ProjectedState, estimate: _Estimate
    ) -> _Verdict:
        backend = problem.backend
        size, free, error = estimate.norm, estimate.free_norm, estimate.error
        enough = 10 * state.tol * abs(estimate.value)
        rule, taken = projected.observe(
            before,
            state.lam,
            estimate.hypergrad,
            estimate.corrected,
            estimate.corrected_error,
            error,
            backend,
            self.memory,
            state.tol * abs(estimate.value),
        )
        undecided = taken is projected.Taken.UNDECIDED
        if size + error <= estimate.noise:
            return _Verdict(rule, 0.0, size)
        accepted = taken is projected.Taken.ACCEPTED
        if free == 0:  # in a corner, and p points outwards as far as is known
            known = accepted and error <= self.theta * size
            return _Verdict(rule, 0.0 if known else None, size, undecided)
        gap, allowed = None, 0.0
        target, decrement = projected.propose(rule, problem.domain, backend)
        # What the last step gained and the next one promises is to be told from the error of f.
        (promised,) = backend.scalars(dot(estimate.hypergrad, state.lam - target, backend))
        fallen = promised if before.lam is None else before.value - estimate.corrected
        told = max(min(promised, fallen) / 4, state.tol * abs(estimate.value))
        undecided = undecided or (accepted and estimate.corrected_error > told)
        if accepted and decrement is not None:
            gap = decrement * (1 + error / free) ** 2
            if state.vectors.shape[-1] == 1:
                gap = max(gap, projected.fall(state.lam, estimate.hypergrad, error, problem))
        if decrement is not None and decrement > 0:
            allowed = max(free * (math.sqrt(enough / decrement) - 1), 0.0)
        return _Verdict(rule, gap, allowed, undecided)

    def _next(self, problem: Problem, state: PathState, work: _Work) -> PathState:
        """Choose the next λ, and predict x there."""
        backend, xp = problem.backend, problem.backend.xp
        estimate, look, status = work.estimate, work.look, work.status
        # p of which not even the sign is known moves nothing: the next iteration corrects on.
        known = estimate.error < estimate.norm or estimate.norm + estimate.error <= estimate.noise
        stay = status is not Status.RUNNING or not (known or work.verdict.back)
        rule = state.rule if stay and status is Status.RUNNING else work.verdict.rule
        if stay:
            lam = state.lam
        elif isinstance(rule, SecantState):
            target = xp.full_like(state.lam, secant.propose(rule))
            lam = problem.domain.project(target, backend)
        else:
            lam, _ = projected.propose(rule, problem.domain, backend)
        delta = lam - state.lam
        (moved,) = backend.scalars(norm(delta, backend))
        if (
            status is Status.RUNNING
            and moved == 0
            and not work.moved
            and not (stay and state.moving)
        ):
            status = Status.STALLED  # neither λ nor x goes anywhere from here
        if status is Status.RUNNING and isinstance(rule, SecantState) and rule.torn:
            status = Status.STALLED
        if isinstance(rule, SecantState) and not stay:
            rule = secant.trusted(rule, moved, work.sweeps if state.k > 0 else 2)
        gap = work.verdict.gap
        start = look.point
        if status is Status.RUNNING:
            start = _predict(problem, look.point, look.vectors, look.pushed, lam, delta)
        return PathState(
            k=state.k + 1,
            lam=lam,
            x=look.point.x,
            start=start.x,
            carry=start.carry if isinstance(start, Pushable) else None,
            vectors=look.vectors,
            pushed=look.pushed,
            rule=rule,
            tol=state.tol,
            sketch=work.sketch,
            goal=work.goal,
            gap=math.inf if gap is None else gap / max(abs(estimate.value), 1e-300),
            cold=False,
            moving=moved > 0 or work.moved,
            record=self._record(state, work, moved),
            status=status,
        )

    def _record(self, state: PathState, work: _Work, moved: float) -> Record:
        estimate = work.estimate
        return Record(
            k=state.k + 1,
            lam=state.lam,
            value=estimate.value,
            value_error=work.bounds.value,
            hypergrad=estimate.hypergrad,
            hypergrad_error=work.bounds.hypergrad,
            tol=estimate.error,
            inner_error=work.bounds.distance,
            cg_residual=estimate.cg_residual,
            optimality=estimate.stationarity,
            step=moved,
            n_inner=work.sweeps,
            n_cg=work.n_cg,
            inner_status=Status.CONVERGED if work.sweeps < self.max_sweeps else Status.MAX_ITER,
            cg_status=estimate.cg_status,
            estimate=estimate.corrected,
            estimate_error=known(estimate.corrected_error + estimate.rounding),
        )


def _probe(estimate: _Estimate, gap: float, p: float) -> float:
    """How far beside λ to look: twice the Newton step, and so far that p changes by its error.

    The curvature is the one by which the decrease ``gap`` is left.
    """
    size = estimate.free_norm + estimate.error
    if not gap > 0 or not size > 0:
        return 0.05
    return min(max(4 * gap * (abs(p) + 4 * estimate.error) / size**2, 1e-3), 0.5)


@dataclass
class _Work:
    """What an iteration has in hand between two corrections.

    ``fresh``: nothing was known of q and t where the iteration began; ``still``: the correction
    before did not move x; ``vague``: the error of f with which nothing could be decided;
    ``near``: how much nearer than usual to look for the curvature, q and t being more precise;
    ``looks``: the last ones there; ``rounded``: solve in the lower precision where that is cheaper,
    until a proof has failed with it.
    """

    look: Look
    rhs: Array
    wanted: Wanted
    sketch: Sketch | Pairs | None
    goal: Wanted | None
    provable: bool
    fresh: bool
    verdict: _Verdict
    n_cg: int
    sweeps: int = 0
    moved: bool = False
    still: bool = False
    vague: float = math.inf
    near: float = 1.0
    looks: list[Beside] = field(default_factory=list)
    rounded: bool = True
    status: Status = Status.RUNNING
    proof: Proof | None = None
    bounds: Bounds = Bounds()
    estimate: _Estimate = field(init=False)

    def proves(self, allowed: float) -> bool:
        """Whether the proven error of p is no larger."""
        return self.bounds.hypergrad is not None and self.bounds.hypergrad <= allowed


@dataclass(frozen=True)
class _Verdict:
    """The rule with an iterate taken in, and how far from the end it is.

    ``gap`` is the decrease of f that is left, the error of p counted against it (None: not known),
    ``allowed`` the error of p with which it would still be small (0: none). ``undecided``: f is not
    known well enough to judge this step or the next one; ``back``: the step is taken back.
    """

    rule: SecantState | ProjectedState
    gap: float | None
    allowed: float
    undecided: bool = False
    back: bool = False


@dataclass(frozen=True)
class _Estimate:
    """p after a correction, with the estimate of its error."""

    hypergrad: Array
    norm: float
    free_norm: float  # of the coordinates that D leaves free
    error: float
    linear_error: float
    errors: tuple[float, ...]  # of q and each t_j, in the norm of H
    stationarity: float
    value: float
    corrected: float
    corrected_error: float
    rounding: float  # in f, which no correction of x brings back
    noise: float  # what rounding leaves of a p that is zero
    decrement: float  # ‖x - X(λ)‖²_H, as far as the last solve tells
    inner_value: float  # abs(h)
    cg_residual: float
    cg_status: Status

    @property
    def rounded(self) -> bool:
        return too_rounded(self.value, self.rounding)

    @property
    def flat(self) -> bool:
        """Whether p may be zero, as far as rounding lets it be known."""
        return self.norm <= self.noise

    def lost(self, tol: float) -> bool:
        """Whether p is lost in rounding that is more than tol allows: f may well depend on λ."""
        return self.flat and self.noise > tol * abs(self.value)


def _estimate(problem: Problem, solved: Solved, after: Look, rhs: Array) -> _Estimate:
    """How far p is from ∇f, by what the last correction changed and how much of it is left."""
    seen = _Numbers.of(problem, solved, after, rhs)
    eps = float(problem.backend.xp.finfo(after.p.dtype).eps)
    corrected_value, corrected_error = estimated(problem, seen.value, seen.correction)
    errors = _exact(solved, (seen.grad_before, *after.sizes))
    bent = _bend(solved.energies[0], seen.fall, 8 * eps * seen.inner_value)
    left, decrement = seen.left(solved, errors[0], bent), solved.energies[0]
    ahead = seen.ahead(after.energies, bent, left / decrement if decrement > 0 else 0.0)
    grown = [
        _grown(*numbers)
        for numbers in zip(errors[1:], after.energies, seen.old, seen.new, after.sizes, strict=True)
    ]
    linear = _linear(solved, after, seen, errors, grown)
    changed = seen.change * left / decrement if decrement > 0 else 0.0
    error = linear + max(changed, ahead.missed(seen.size))
    if corrected_error < math.inf:
        # The correction is of first order in what the model would still go, and made with an
        # inexact q: both times the norm of H measures what is left.
        corrected_error += left * (left + grown[0] + ahead.missed_adjoint)
    return _Estimate(
        hypergrad=after.p,
        norm=seen.size,
        free_norm=seen.free,
        error=error if error == error else math.inf,
        linear_error=linear,
        errors=tuple(grown),
        stationarity=seen.stationarity,
        value=seen.value,
        corrected=corrected_value,
        corrected_error=corrected_error,
        rounding=known(seen.lost),
        noise=8 * eps * seen.grad_x * seen.tangents,
        decrement=left * left,
        inner_value=seen.inner_value,
        cg_residual=max(solved.residual_norms[1:]),
        cg_status=solved.status,
    )


@dataclass(frozen=True)
class _Ahead:
    """How the way to X(λ) may turn H, where it goes on as the last Newton step did.

    ``turn`` is the logarithm s by which ∂²ℓ of a row may change, ``along`` how much H may along q
    and each t_j, c (Σ_i (X d)_i² ℓ''_i (X v_j)_i²)^½. In the damped phase of Newton's method s is
    above 1, and how many steps like the last are to come is not known, nor what they will change:
    rows have still to saturate.
    """

    turn: float
    along: tuple[float, ...]

    @property
    def _share(self) -> float:
        """(e^s - 1 - s) / s², and no bound at all from s = 1 on."""
        s = self.turn
        if not s < 1:
            return math.inf
        return (math.expm1(s) - s) / s**2 if s > 1e-4 else 0.5

    def missed(self, size: float) -> float:
        """What p lacks beyond the first order; ``size`` is ‖p‖, which serves without tangents."""
        q, *tangents = self.along
        square = q * math.hypot(*tangents) if tangents else size * self.turn**2
        return self._share * square if square > 0 else 0.0

    @property
    def missed_adjoint(self) -> float:
        """What q lacks beyond the first order, in the norm of H."""
        square = self.turn * self.along[0]
        return self._share * square if square > 0 else 0.0


@dataclass(frozen=True)
class _Numbers:
    """What an estimate reads of a correction.

    ``size`` and ``free`` are ‖p‖ and that of its free coordinates, ``change`` that of p by the
    walk, ``healed`` by the solve, ``moved`` by both; ``old`` and ``new`` are the residuals of q and
    the t_j after the solve, and at the new x.
    """

    value: float
    correction: float
    lost: float
    inner_value: float
    fall: float
    size: float
    free: float
    stationarity: float
    change: float
    healed: float
    moved: float
    grad_before: float
    grad: float
    grad_x: float
    tangents: float
    old: tuple[float, ...]
    new: tuple[float, ...]
    swing: tuple[float, ...]

    @classmethod
    def of(cls, problem: Problem, solved: Solved, after: Look, rhs: Array) -> _Numbers:
        """Read all of them at once."""
        backend, point, p = problem.backend, after.point, after.p
        width, swing = solved.residual.shape[-1], solved.swing
        host = backend.scalars(
            after.outer.value,
            dot(after.vectors[..., 0], after.grad, backend),
            lost(problem, point, after.outer, after.vectors[..., 0]),
            backend.xp.abs(point.value),
            solved.fall,
            norm(p, backend),
            norm(p * projected.free(point.lam, p, problem.domain, backend), backend),
            optimality(problem.domain, backend, point.lam, p),
            norm(p - solved.healed, backend),
            norm(solved.p - solved.healed, backend),
            norm(p - solved.p, backend),
            solved.grad_norm,
            norm(after.grad, backend),
            norm(after.outer.grad_x, backend),
            norm(after.vectors[..., 1:], backend),
            *(norm(solved.residual[..., j], backend) for j in range(1, width)),
            *(norm(rhs[..., j], backend) for j in range(1, width)),
            *([] if swing is None else [swing[0], *(swing[1][j] for j in range(width - 1))]),
        )
        n, k = 15, width - 1
        rest, swung = host[n : n + 2 * k], host[n + 2 * k :]
        return cls(*host[:n], rest[:k], rest[k:], swung)  # type: ignore[arg-type, call-arg]

    def ahead(self, energies: tuple[float, ...], bent: float, share: float) -> _Ahead:
        """How the way that is left, a share of the last Newton step, may turn H.

        By the rows where they are known; else by how the fall of h differs from a quadratic's,
        which sees of it only what is along the step.
        """
        most, *both = self.swing or (2 * bent, *(2 * bent * energy for energy in energies))
        return _Ahead(share * most, tuple(share * turned for turned in both))

    def left(self, solved: Solved, error: float, bent: float) -> float:
        """The Newton step that is still to be made, in the norm of H."""
        decrement = solved.energies[0]
        if not solved.moved:
            return decrement
        ratio = min(self.grad / self.grad_before, 1.0) if self.grad_before > 0 else 0.0
        return error + max(ratio, bent) * decrement


def _linear(
    solved: Solved,
    after: Look,
    seen: _Numbers,
    errors: tuple[float, ...],
    grown: list[float],
) -> float:
    """The error of p by those of q and of the t_j, ``grown`` at the new x."""
    if after.has_tangents:
        # The errors of q and t_j met at this angle before the solve; they rarely align. Where the
        # solve was exact they are all new.
        met = solved.energies[1] * math.hypot(*solved.energies[2:])
        cosine = min(1.0, max(0.05, 3 * seen.healed / met)) if met > 0 and solved.ready else 0.3
        if any(a <= _ROUNDED * size for a, size in zip(seen.old, after.sizes, strict=True)):
            cosine = 1.0
        return cosine * grown[0] * math.hypot(*grown[1:])
    # Without tangents p is in error by the error of q, and what the correction of x does to q
    # shows in no residual: what this sweep left undone is taken in proportion to what it did.
    shares = [e / a for e, a in zip(errors, solved.energies, strict=True) if a > 0]
    share = max(shares, default=0.0)
    energy = after.energies[0]
    linear = seen.size * grown[0] / energy if energy > 0 else math.inf
    return max(linear, share * seen.moved) if seen.grad_x > 0 else 0.0


#: Elsewhere than where they were found a sketch and pairs have no proven bound, and the errors of
#: such a solve are estimated. Where a bound has shown estimates to be so many times too small,
#: nothing is kept: on standardised data they were at most 1.3 times too small at λ = 0, on raw
#: columns of unlike scales 2.7 to 5 times, and more further on.
_MISJUDGED = 2.0

#: A residual that is this share of its right-hand side is one of rounding.
_ROUNDED = 1e-8


def _exact(solved: Solved, sizes: tuple[float, ...]) -> tuple[float, ...]:
    """The estimates of the errors of d, q and t, also where few unknowns let CG solve exactly.

    A solve of a few steps ends before its error can be estimated. Its residual, as a share of the
    right-hand side and times a factor for the condition of H, can stand for it where it is tiny.
    """
    found = list(solved.estimates)
    for j, size in enumerate(sizes):
        residual, energy = solved.residual_norms[j], solved.energies[j]
        if residual <= _ROUNDED * size:
            found[j] = min(found[j], 1e3 * energy * residual / size if size > 0 else 0.0)
    return tuple(found)


#: Ends of a solve that say its errors are not known, so that no run converges by them.
_BLIND = (Status.NEGATIVE_CURVATURE, Status.STALLED)

#: How much nearer than usual a look is of use before rounding hides what it would show.
_NEAREST = 3e-5


def _grown(error: float, energy: float, old: float, new: float, size: float) -> float:
    """The error of q or t at the new x, by what its residual has become there.

    Where the old residual was one of rounding its growth says nothing, and the share that the new
    one has of the right-hand side does, times a factor for the condition of H.
    """
    if not size > 0:
        return error
    if old > _ROUNDED * size:
        return error * max(1.0, new / old)
    if energy == 0 and new > 0:
        return math.inf  # it has not been solved for
    return error + 10 * energy * new / size


def _bend(decrement: float, fall: float, rounding: float) -> float:
    """How much of a Newton step has to be made again because h is no quadratic, by its fall.

    With h(x + t d) = h - t δ² + t² δ²/2 + c t³ a step of length 1 falls short by c of the δ²/2 that
    the quadratic promises, and leaves a gradient of 3 c along d.
    """
    promised = decrement * decrement / 2
    if not promised > 0:
        return 0.0
    return min(max(1.5 * (abs(promised - fall) - rounding) / promised, 0.0), 1.0)


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
