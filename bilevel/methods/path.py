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

import math
from dataclasses import dataclass, replace

from ..backends import Array
from ..hypergrad import value_bound
from ..inner import InnerPoint, Pushable, grad_rounding
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
from ..problem import Problem
from ..record import Record
from ..status import Status
from . import projected, secant
from ._protocol import optimality
from .certified import Proof, Wanted, provable_at, prove
from .kept import Pairs, Sketch, plain, preconditioner, rounded_point
from .looks import Look, Solved, look_at, turned, walk
from .projected import ProjectedState
from .secant import SecantState


@dataclass(frozen=True)
class PathState:
    """Between two iterations: where to look next, and the solutions that go along.

    ``x`` is the model of the last iteration, ``start`` and ``carry`` what is predicted at the
    next λ; ``vectors`` are q and the tangents, ``pushed`` the same through X. ``gap`` is the
    decrease that was left, relative, ``goal`` the accuracies with which a proof of the end would
    have succeeded (None when not known).
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
    record: Record | None
    status: Status


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
        A start without x0 in one hyperparameter begins where the condition number of h, by its
        own constants, is at most this, and comes down from there: a pass buys most where the
        model is strongly regularised. ``math.inf`` starts at lam0 itself.
    default_tol : float
        ``tol`` where none is given.
    rank, sketch_after : int
        Once a correction has taken ``sketch_after`` steps of CG, a Nyström sketch of this rank
        preconditions the following ones, where h has one λ and a known μ (rank 0: never).
    pairs : int
        Elsewhere so many of the last conjugate directions of a correction precondition the next
        one (0: never).
    worth : float
        Both only where the data have ``worth`` times the entries of the vectors that are read for
        them, one for each of the rank and two for each pair (0: always).

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
    first_condition: float = 1e3
    default_tol: float = 1e-5
    rank: int = 10
    sketch_after: int = 8
    pairs: int = 8
    worth: float = 5.0

    def init(self, problem: Problem, lam0: Array, x0: Array | None, tol: float | None) -> PathState:
        backend = problem.backend
        lam = problem.domain.project(lam0, backend)
        m = lam.shape[0]
        if m == 1 and x0 is None:
            lam = _strongly_regularised(problem, lam, self.first_condition)
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
            record=None,
            status=Status.RUNNING,
        )

    def step(self, problem: Problem, state: PathState) -> PathState:
        lam = state.lam
        point = problem.inner.at(state.start, lam, state.carry)
        look, rhs = look_at(problem, point, state.vectors, state.pushed)
        wanted, sketch = Wanted(self.newton, self.adjoint), state.sketch
        provable, goal = self.certify and provable_at(problem, look), state.goal
        if state.gap <= 20 * state.tol:
            # This step will arrive: what the proof needs is cheapest at once.
            wanted = goal or Wanted(0.05 * self.newton, 0.2 * self.adjoint)
            if sketch is not None:
                sketch = sketch.ahead(look)
        estimate: _Estimate | None = None
        verdict = _Verdict(state.rule, None, 0.0)
        n_cg, sweeps, status, still = 0, 0, Status.RUNNING, False
        rounded = True  # where that is cheaper, and until a proof has failed with it
        for sweeps in range(1, self.max_sweeps + 1):
            found, seen, sound = self._solve(problem, look, rhs, wanted, sketch, rounded)
            n_cg += found.n_iter
            if seen is not None:
                sketch = None  # its vectors make room for the new ones
                sketch = Pairs.at(look, seen)
            elif sketch is None and found.n_iter >= self.sketch_after:
                sketch = Sketch.at(look, self.rank) if self._sketches(problem, look) else None
            turn = turned(problem, look, found)
            point, moved = walk(problem, look, turn)
            solved = Solved.of(problem, look, found, turn, point, moved)
            vectors, pushed = turn.vectors, turn.pushed
            del look, rhs, found, turn, seen  # blocks that what follows has better use for
            look, rhs = look_at(problem, point, vectors, pushed)
            proof = prove(problem, solved, look, rhs) if provable and sound else None
            estimate = _estimate(problem, solved, look, rhs, proof)
            if not math.isfinite(estimate.norm):
                status = Status.NON_FINITE
                break
            if state.k == 0 and sweeps < 3 and moved:
                # x, then q and the tangents at that x: before that p says nothing of ∇f.
                continue
            verdict = self._judge(problem, state, estimate)
            gap, allowed = verdict.gap, verdict.allowed
            if proof is not None and allowed > 0:
                goal = proof.needs(allowed)
            small = gap is not None and gap <= state.tol * abs(estimate.value)
            # The model that is returned has to be as good as its λ: what the last correction of x
            # would do to g, to first order, is small too.
            small = small and abs(estimate.value - estimate.corrected) <= state.tol * abs(
                estimate.value
            )
            if isinstance(state.rule, ProjectedState) and estimate.free_norm > 0:
                # The pairs see the curvature along the last steps alone: one more has to agree.
                small = small and state.gap <= 100 * state.tol
            if small and estimate.bound is not None and estimate.bound <= allowed:
                status = Status.CONVERGED
                break
            if small and provable and sweeps < self.max_sweeps:
                wanted = goal or Wanted(0.1, 0.5 * wanted.adjoint)
                rounded = False
                if proof is None and sketch is not None:
                    sketch = sketch.proven(look, problem.backend)
                continue
            if small:
                status = Status.CONVERGED
                break
            if not moved and wanted.decrement > 0:
                wanted = replace(wanted, decrement=0.0)  # x was as good as asked, p is not yet
                continue
            if still and not moved:
                break  # x is as precise as it gets, and q and t have had their turn since
            still = not moved
            if estimate.error <= self.theta * estimate.free_norm:
                break
            if estimate.linear_error > 0.5 * estimate.error:
                wanted = replace(wanted, adjoint=0.2 * wanted.adjoint)
        assert estimate is not None
        # p of which not even the sign is known moves nothing: the next iteration corrects on.
        stay = status is Status.RUNNING and not estimate.error < estimate.norm
        return self._next(
            problem,
            state,
            state.rule if stay else verdict.rule,
            stay,
            moved,
            look,
            estimate,
            verdict.gap,
            sketch,
            goal,
            n_cg,
            sweeps,
            status,
        )

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
        proven.
        """
        apply, bottom, sound = preconditioner(problem, look, sketch)
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
        if self._pays(problem, 2 * self.pairs) and not self._sketches(problem, look):
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
        backend = problem.backend
        size, free, error = estimate.norm, estimate.free_norm, estimate.error
        enough = 10 * state.tol * abs(estimate.value)
        if isinstance(state.rule, SecantState):
            lam, p = backend.scalars(state.lam[0], estimate.hypergrad[0])
            rule = secant.observe(state.rule, lam, p, error)
            curvature = rule.curvature
            if estimate.stationarity == 0:  # on the boundary
                outwards = error < size
                left = None if curvature is None else (size + error) ** 2 / (2 * curvature)
                return _Verdict(rule, 0.0 if outwards else left, size)
            if curvature is None:
                return _Verdict(rule, None, 0.0)
            # p itself: the domain may cut the stationarity short.
            allowed = max(math.sqrt(2 * curvature * enough) - size, 0.0)
            return _Verdict(rule, (size + error) ** 2 / (2 * curvature), allowed)
        rule_m, accepted = projected.observe(
            state.rule,
            state.lam,
            estimate.hypergrad,
            estimate.corrected,
            estimate.corrected_error,
            error,
            backend,
            self.memory,
        )
        if free == 0:  # in a corner, and p points outwards as far as is known
            known = accepted and error <= self.theta * size
            return _Verdict(rule_m, 0.0 if known else None, size)
        _, decrement = projected.propose(rule_m, problem.domain, backend)
        gap, allowed = None, 0.0
        if accepted and decrement is not None:
            gap = decrement * (1 + error / free) ** 2
        if decrement is not None and decrement > 0:
            allowed = max(free * (math.sqrt(enough / decrement) - 1), 0.0)
        return _Verdict(rule_m, gap, allowed)

    def _next(
        self,
        problem: Problem,
        state: PathState,
        rule: SecantState | ProjectedState,
        stay: bool,
        x_moved: bool,
        look: Look,
        estimate: _Estimate,
        gap: float | None,
        sketch: Sketch | Pairs | None,
        goal: Wanted | None,
        n_cg: int,
        sweeps: int,
        status: Status,
    ) -> PathState:
        """Choose the next λ, and predict x there."""
        backend, xp = problem.backend, problem.backend.xp
        if stay:
            lam = state.lam
        elif isinstance(rule, SecantState):
            target = xp.full_like(state.lam, secant.propose(rule))
            lam = problem.domain.project(target, backend)
        else:
            lam, _ = projected.propose(rule, problem.domain, backend)
        delta = lam - state.lam
        (moved,) = backend.scalars(norm(delta, backend))
        if moved == 0 and not (stay or x_moved) and status is Status.RUNNING:
            status = Status.STALLED  # neither λ nor x goes anywhere from here
        if isinstance(rule, SecantState) and not stay:
            rule = secant.trusted(rule, moved, sweeps if state.k > 0 else 2)
        record = Record(
            k=state.k + 1,
            lam=state.lam,
            value=estimate.value,
            value_error=estimate.value_error,
            hypergrad=estimate.hypergrad,
            hypergrad_error=estimate.bound,
            tol=estimate.error,
            inner_error=estimate.inner_error,
            cg_residual=estimate.cg_residual,
            optimality=estimate.stationarity,
            step=moved,
            n_inner=sweeps,
            n_cg=n_cg,
            inner_status=Status.CONVERGED if sweeps < self.max_sweeps else Status.MAX_ITER,
            cg_status=estimate.cg_status,
        )
        start = look.point
        if status is Status.RUNNING:
            start = _predict(problem, look, lam, delta)
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
            sketch=sketch,
            goal=goal,
            gap=math.inf if gap is None else gap / max(abs(estimate.value), 1e-300),
            record=record,
            status=status,
        )


@dataclass(frozen=True)
class _Verdict:
    """The rule with an iterate taken in, and how far from the end it is.

    ``gap`` is the decrease of f that is left, the error of p counted against it (None: not known),
    ``allowed`` the error of p with which it would still be small (0: none).
    """

    rule: SecantState | ProjectedState
    gap: float | None
    allowed: float


@dataclass(frozen=True)
class _Estimate:
    """p after a correction, with the estimate of its error and, if any, the proven bound."""

    hypergrad: Array
    norm: float
    free_norm: float  # of the coordinates that D leaves free
    error: float
    linear_error: float
    bound: float | None
    inner_error: float | None
    stationarity: float
    value: float
    value_error: float | None
    corrected: float
    corrected_error: float
    cg_residual: float
    cg_status: Status


def _estimate(
    problem: Problem, solved: Solved, after: Look, rhs: Array, proof: Proof | None
) -> _Estimate:
    """How far p is from ∇f, by what the last correction changed and how much of it is left."""
    backend = problem.backend
    width = solved.residual.shape[-1]
    numbers = backend.scalars(
        after.outer.value,
        norm(after.p, backend),
        norm(after.p - solved.healed, backend),
        solved.grad_norm,
        norm(after.grad, backend),
        dot(after.vectors[..., 0], after.grad, backend),
        norm(after.outer.grad_x, backend),
        optimality(problem.domain, backend, after.point.lam, after.p),
        norm(solved.p - solved.healed, backend),
        norm(after.p - solved.p, backend),
        norm(after.p * projected.free(after.point.lam, after.p, problem.domain, backend), backend),
        *(norm(solved.residual[..., j], backend) for j in range(1, width)),
        *(norm(rhs[..., j], backend) for j in range(1, width)),
    )
    value, size, change, grad, grad_after, correction, grad_x, stationarity, healed = numbers[:9]
    moved_p, free = numbers[9:11]
    old, new = numbers[11 : 10 + width], numbers[10 + width :]
    ratio = min(grad_after / grad, 1.0) if grad > 0 else 0.0
    decrement = solved.energies[0]
    errors = solved.estimates
    left = errors[0] + ratio * decrement if solved.moved else decrement
    lag = change * left / decrement if decrement > 0 else 0.0
    grown = [
        e * max(1.0, b / a) if a > 0 else e for e, a, b in zip(errors[1:], old, new, strict=True)
    ]
    if width > 2:
        # The errors of q and t_j met at this angle before the solve; they rarely align.
        met = solved.energies[1] * math.hypot(*solved.energies[2:])
        cosine = min(1.0, max(0.05, 3 * healed / met)) if met > 0 and solved.ready else 0.3
        linear = cosine * grown[0] * math.hypot(*grown[1:])
    else:
        # Without tangents p is in error by the error of q, and what the correction of x does to q
        # shows in no residual: what this sweep left undone is taken in proportion to what it did.
        shares = [e / a for e, a in zip(errors, solved.energies, strict=True) if a > 0]
        share = max(shares, default=0.0)
        linear = size * grown[0] / after.energies[0] if after.energies[0] > 0 else math.inf
        linear = max(linear, share * moved_p)
    error = lag + linear
    bound, inner_error = None, None
    mu = after.constants.mu
    if mu is not None:
        lost = grad_rounding(after.point, backend)
        inner_error = (grad_after + lost) / mu if mu > 0 else math.inf
    if proof is not None and math.isfinite(proof.bound):
        bound = proof.bound
    return _Estimate(
        hypergrad=after.p,
        norm=size,
        free_norm=free,
        error=error if error == error else math.inf,
        linear_error=linear,
        bound=bound,
        inner_error=inner_error,
        stationarity=stationarity,
        value=value,
        value_error=value_bound(
            problem.outer_constants, inner_error=inner_error, grad_x_norm=grad_x
        ),
        corrected=value - correction,
        corrected_error=abs(correction) + lag,
        cg_residual=max(solved.residual_norms[1:]),
        cg_status=solved.status,
    )


def _predict(problem: Problem, look: Look, lam: Array, delta: Array) -> InnerPoint:
    """x + t δ where that lowers h(., λ + δ), else x."""
    backend, xp = problem.backend, problem.backend.xp
    point = look.point
    stay = problem.inner.at(point.x, lam, point.carry)
    if look.vectors.shape[-1] == 1:
        return stay
    x = point.x + xp.matmul(look.vectors[..., 1:], delta)
    carry = None
    if look.pushed is not None and point.carry is not None:
        carry = point.carry + xp.matmul(look.pushed[..., 1:], delta)
    go = problem.inner.at(x, lam, carry)
    here, there = backend.scalars(stay.value, go.value)
    return go if there < here else stay


def _strongly_regularised(problem: Problem, lam: Array, condition: float) -> Array:
    """lam, or a larger λ in D at which h is well conditioned, where raising λ does that."""
    backend = problem.backend

    def number(at: Array) -> float:
        constants = problem.inner.constants(at)
        if not constants.mu or constants.smoothness is None:
            return math.nan
        return constants.smoothness / constants.mu

    for _ in range(64):
        now = number(lam)
        if not now > condition:
            return lam
        higher = problem.domain.project(lam + max(0.5, math.log(now / condition)), backend)
        if not number(higher) < now:
            return lam
        lam = higher
    return lam
