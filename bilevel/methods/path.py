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

from .._cached import cached_property
from ..backends import Array, Backend
from ..hypergrad import Bend, Inexact, self_concordant_bound, value_bound
from ..inner import InnerConstants, InnerPoint, Preconditioned, Pushable, Roundable, Swinging
from ..linalg import (
    Accuracy,
    CGResult,
    Energy,
    EstimatedEnergy,
    Nystrom,
    Preconditioner,
    QuasiNewton,
    Recorder,
    cg,
    dot,
    dots,
    jacobi,
    norm,
)
from ..outer import Curved, OuterConstants, OuterPoint
from ..problem import Problem
from ..record import Record
from ..solvers.linesearch import WolfeSearch
from ..status import Status
from . import projected, secant
from ._protocol import optimality
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
        look, rhs = _look(problem, point, state.vectors, state.pushed)
        wanted, sketch = Wanted(self.newton, self.adjoint), state.sketch
        provable, goal = self.certify and _provable(problem, look), state.goal
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
            found, seen = self._solve(problem, look, rhs, wanted, sketch, rounded)
            n_cg += found.n_iter
            sound = provable and (sketch is None or sketch.lower_bound(look, problem.backend) > 0)
            if seen is not None:
                sketch = None  # its vectors make room for the new ones
                sketch = Pairs.at(look, seen)
            elif sketch is None and found.n_iter >= self.sketch_after:
                sketch = Sketch.at(look, self.rank) if self._sketches(problem, look) else None
            turn = _turn(problem, look, found)
            point, moved = _walk(problem, look, turn)
            solved = _Solved.of(problem, look, found, turn, point, moved)
            vectors, pushed = turn.vectors, turn.pushed
            del look, rhs, found, turn, seen  # blocks that what follows has better use for
            look, rhs = _look(problem, point, vectors, pushed)
            proof = _prove(problem, solved, look, rhs) if sound else None
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

    def _sketches(self, problem: Problem, look: _Look) -> bool:
        """Whether H is A + μ I with one known μ, as a sketch needs it; pairs do without."""
        own = look.point.preconditioner() if isinstance(look.point, Preconditioned) else None
        plain = own is None and problem.inner.n_hyperparameters == 1 and bool(look.constants.mu)
        return plain and self._pays(problem, self.rank)

    def _solve(
        self,
        problem: Problem,
        look: _Look,
        rhs: Array,
        wanted: Wanted,
        sketch: Sketch | Pairs | None,
        rounded: bool,
    ) -> tuple[CGResult, Recorder | None]:
        """The three questions in one block, and its pairs where they are to be kept.

        The block takes the memory of the residuals.
        """
        preconditioner, bottom = _preconditioner(problem, look, sketch)
        point, shift = _rounded(problem, look, wanted)
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
            preconditioner=preconditioner,
            columns=True,
            verify=False,
            overwrite_b=True,
            max_iter=self.max_cg,
        )
        # Less than half as many pairs as may be kept say less than those from before.
        return found, seen if seen is not None and 2 * len(seen) >= self.pairs else None

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
        look: _Look,
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
class Wanted:
    """How accurate the next block solve has to be, in the norm of the Hessian.

    ``newton`` is the error of the Newton step d as a share of d, or ``decrement`` itself where that
    is larger; ``adjoint`` the errors of q and t as a share of them.
    """

    newton: float
    adjoint: float
    decrement: float = 0.0


@dataclass(frozen=True)
class Sketch:
    """A low-rank approximation of A = H - μ I, made at one (x, λ) and kept along the path.

    Elsewhere it still speeds CG up, whose error bound is then an estimate. At the same λ the bound
    is proven: A(x) ⪰ e^{-R‖x - x₀‖} A(x₀).
    """

    nystrom: Nystrom
    x: Array
    lam: Array

    @classmethod
    def at(cls, look: _Look, rank: int) -> Sketch:
        point, mu = look.point, look.constants.mu or 0.0
        sketch = Nystrom.of(lambda v: point.hvp(v) - mu * v, point.x, rank, seed=0)
        return cls(sketch, point.x, point.lam)

    def ahead(self, look: _Look) -> Sketch:
        """For the solve that is to end the run: made again here, so that its bound is proven."""
        return Sketch.at(look, self.nystrom.basis.shape[-1])

    def proven(self, look: _Look, backend: Backend) -> Sketch:
        """What has a proven bound here, after a solve that had none."""
        return self.ahead(look)

    def lower_bound(self, look: _Look, backend: Backend) -> float:
        """A proven lower bound of the spectrum of M⁻¹H, 0 where there is none worth having."""
        return (look.constants.mu or 0.0) * _alike(look, self.x, self.lam, backend)


@dataclass(frozen=True)
class Pairs:
    """The last conjugate directions of a solve, kept for the next one at no product.

    At the λ where they were found the bound of :class:`~bilevel.linalg.QuasiNewton` is proven,
    times e^{-R‖x - x₀‖} as for a :class:`Sketch`.
    """

    known: QuasiNewton
    x: Array
    lam: Array

    @classmethod
    def at(cls, look: _Look, seen: Recorder) -> Pairs | None:
        """Of the directions seen there; None where none has a curvature."""
        known = QuasiNewton.of(*seen.take())
        return None if known is None else cls(known, look.point.x, look.point.lam)

    def ahead(self, look: _Look) -> Pairs:
        """The same: the first solve at a λ proves nothing, the next one has pairs from there."""
        return self

    def proven(self, look: _Look, backend: Backend) -> Pairs | None:
        """These, unless the last solve brought none: then none."""
        return self if self.lower_bound(look, backend) > 0 else None

    def lower_bound(self, look: _Look, backend: Backend) -> float:
        """The factor beside γ μ in the bound of M⁻¹H, 0 where nothing is proven."""
        return _alike(look, self.x, self.lam, backend)


def _alike(look: _Look, x: Array, lam: Array, backend: Backend) -> float:
    """c with H here ⪰ c H(x, λ), 0 where none is proven or worth having."""
    point, constants = look.point, look.constants
    away, moved = backend.scalars(norm(point.x - x, backend), norm(point.lam - lam, backend))
    if not constants.mu or constants.self_concordance is None or moved > 0:
        return 0.0
    change = constants.self_concordance * away
    return math.exp(-change) if change < 1 else 0.0


def _provable(problem: Problem, look: _Look) -> bool:
    """Whether the constants for :func:`self_concordant_bound` are stated, with tangents there."""
    inner, outer = look.constants, problem.outer_constants
    stated = (
        inner.mu,
        inner.self_concordance,
        inner.cross_lipschitz,
        outer.grad_lam_lipschitz,
    )
    bent = outer.grad_x_lipschitz is not None or outer.self_concordance is not None
    return look.has_tangents and bent and all(constant is not None for constant in stated)


@dataclass(frozen=True)
class _Look:
    """What one backward pass says at (x, λ), with the vectors q and t_j at hand.

    ``energies`` are the norms of q and t_j in the Hessian, and ``p`` is corrected by the residuals
    of the tangents where there are any.
    """

    point: InnerPoint
    outer: OuterPoint
    vectors: Array
    pushed: Array | None
    grad: Array
    p: Array
    energies: tuple[float, ...]
    constants: InnerConstants

    @property
    def has_tangents(self) -> bool:
        return len(self.energies) > 1

    @property
    def ready(self) -> bool:
        """Whether q and every t_j have been solved for before."""
        return all(e > 0 for e in self.energies)


def _look(
    problem: Problem, point: InnerPoint, vectors: Array, pushed: Array | None
) -> tuple[_Look, Array]:
    """The look, and the right-hand sides of a block solve: -∂_x h, the residuals of q and t_j."""
    backend, xp = problem.backend, problem.backend.xp
    outer = problem.outer.at(point.x, point.lam)
    if isinstance(point, Pushable) and pushed is not None:
        grad, products = point.pull(vectors, pushed)
    else:
        grad = point.grad
        (size,) = backend.scalars(xp.max(xp.abs(vectors)))
        products = xp.zeros_like(vectors) if size == 0 else point.hvp(vectors)
    squares = [dot(vectors[..., j], products[..., j], backend) for j in range(vectors.shape[-1])]
    energies = tuple(math.sqrt(max(s, 0.0)) for s in backend.scalars(*squares))
    right = outer.grad_x[..., None]
    if vectors.shape[-1] > 1:
        right = xp.concat([right, -_cross(problem, point)], axis=-1)
    rhs = xp.concat([-grad[..., None], right - products], axis=-1)
    p = _corrected(problem, outer, point, vectors, rhs[..., 2:])
    constants = problem.inner.constants(point.lam)
    return _Look(point, outer, vectors, pushed, grad, p, energies, constants), rhs


def _cross(problem: Problem, point: InnerPoint) -> Array:
    """∂²_{xλ} h, a column for each hyperparameter."""
    xp, m = problem.backend.xp, problem.inner.n_hyperparameters
    unit = xp.eye(m, dtype=problem.dtype, device=problem.backend.device)
    return xp.stack([point.cross_jvp(unit[j, :]) for j in range(m)], axis=-1)


def _corrected(
    problem: Problem, outer: OuterPoint, point: InnerPoint, vectors: Array, residuals: Array
) -> Array:
    """p, from the tangents corrected by the adjoint, or from the adjoint alone."""
    q = vectors[..., 0]
    if vectors.shape[-1] == 1:
        return outer.grad_lam - point.cross_vjp(q)
    backend = problem.backend
    direct = dots(outer.grad_x, vectors[..., 1:], backend)
    return outer.grad_lam + direct + dots(q, residuals, backend)


@dataclass(frozen=True)
class _Turn:
    """Where the corrections lead: the Newton step d, and the new q and t, all through X too."""

    d: Array
    d_pushed: Array | None
    vectors: Array
    pushed: Array | None


def _turn(problem: Problem, look: _Look, found: CGResult) -> _Turn:
    backend, xp = problem.backend, problem.backend.xp
    corrections = found.x
    if found.status is Status.NEGATIVE_CURVATURE:
        # H is no inverse here: q and t do not exist, and where the first product already showed it
        # the Newton step is the gradient's.
        (size,) = backend.scalars(norm(corrections[..., 0], backend))
        d = -look.grad if size == 0 else corrections[..., 0]
        corrections = xp.concat([d[..., None], xp.zeros_like(corrections[..., 1:])], axis=-1)
    d, vectors = corrections[..., 0], look.vectors + corrections[..., 1:]
    if not isinstance(look.point, Pushable):
        return _Turn(d, None, vectors, None)
    through = look.point.push(corrections)
    pushed = through[..., 1:] if look.pushed is None else look.pushed + through[..., 1:]
    return _Turn(d, through[..., 0], vectors, pushed)


def _walk(problem: Problem, look: _Look, turn: _Turn) -> tuple[InnerPoint, bool]:
    """Go along the Newton step as far as h descends; whether that is anywhere."""
    point, backend = look.point, problem.backend
    d, pushed = turn.d, turn.d_pushed
    ray = point.ray(d, pushed) if isinstance(point, Pushable) else point.ray(d)
    value, slope = backend.scalars(point.value, dot(look.grad, d, backend))
    found = None
    if slope < 0:
        found = WolfeSearch()(ray, value, slope, 1.0, backend, point.x.dtype)
    return (point, False) if found is None else (found, True)


@dataclass(frozen=True)
class _Solved:
    """A block solve, and what is worth keeping of the look that asked for it.

    ``healed`` is p at the old x with the new q and t, ``distance`` that of the new x from the old.
    """

    residual: Array
    energies: tuple[float, ...]
    errors: tuple[float, ...] | None
    estimates: tuple[float, ...]
    residual_norms: tuple[float, ...]
    status: Status
    p: Array
    healed: Array
    grad_norm: Array
    distance: Array
    ready: bool
    moved: bool

    @classmethod
    def of(
        cls,
        problem: Problem,
        look: _Look,
        found: CGResult,
        turn: _Turn,
        point: InnerPoint,
        moved: bool,
    ) -> _Solved:
        assert found.energy_estimates is not None  # both accuracies that are asked for have them
        backend = problem.backend
        return cls(
            residual=found.residual,
            energies=found.energies,
            errors=found.energy_errors,
            estimates=found.energy_estimates,
            residual_norms=found.residual_norms,
            status=found.status,
            p=look.p,
            healed=_corrected(
                problem, look.outer, look.point, turn.vectors, found.residual[..., 2:]
            ),
            grad_norm=norm(look.grad, backend),
            distance=norm(point.x - look.point.x, backend),
            ready=look.ready,
            moved=moved,
        )


@dataclass(frozen=True)
class _Proof:
    """What is proven of p at an iterate, and what a proof of a smaller bound takes."""

    inner: InnerConstants
    outer: OuterConstants
    decrement: float
    adjoint: Inexact
    tangents: tuple[Inexact, ...]
    swings: tuple[float, ...]
    bends: tuple[Bend, ...]

    def _bounds(self, decrement: float, adjoint: Inexact, tangents: tuple[Inexact, ...]) -> float:
        found = [
            self_concordant_bound(
                self.inner,
                self.outer,
                decrement=decrement,
                adjoint=adjoint,
                tangent=tangent,
                swing=swing,
                bend=bend,
            )
            for tangent, swing, bend in zip(tangents, self.swings, self.bends, strict=True)
        ]
        return math.hypot(*(math.inf if bound is None else bound for bound in found))

    @cached_property
    def bound(self) -> float:
        """|p - ∇f| ≤ bound."""
        return self._bounds(self.decrement, self.adjoint, self.tangents)

    def needs(self, allowed: float) -> Wanted | None:
        """The accuracies at which the bound is ``allowed``, a fifth of it left to spare.

        Half is for the product of the errors of q and t, half for the model.
        """
        share = 0.4 * allowed
        energies = self.adjoint.energy * math.hypot(*(t.energy for t in self.tangents))
        if not energies > 0:
            return None
        relative = min(math.sqrt(share / energies), 0.3)
        adjoint, *tangents = (
            replace(v, error=relative * v.energy) for v in (self.adjoint, *self.tangents)
        )
        small = 1e-6 * math.sqrt(self.inner.mu or 0.0)
        slope = self._bounds(small, adjoint, tuple(tangents)) - self._bounds(
            0.0, adjoint, tuple(tangents)
        )
        if not 0 < slope < math.inf:
            return None
        return Wanted(1e-3, relative, share * small / slope)


def _prove(problem: Problem, solved: _Solved, after: _Look, rhs: Array) -> _Proof | None:
    """The proven bound where the constants are known and every hyperparameter has a tangent.

    The residuals of the last solve are known in the norm of H⁻¹, by CG; those at the new iterate
    differ from them by vectors that are known, which divided by √μ bound the rest.
    """
    inner, errors = after.constants, solved.errors
    if errors is None or not inner.mu or inner.self_concordance is None:
        return None
    backend = problem.backend
    k = after.vectors.shape[-1]
    swing = None
    if isinstance(after.point, Swinging) and after.pushed is not None:
        swing = after.point.swing(after.pushed)
    swings = [] if swing is None else [a[j] for a in swing for j in range(a.shape[0])]
    host = backend.scalars(
        solved.distance,
        *(norm(rhs[..., j] - solved.residual[..., j], backend) for j in range(1 + k)),
        *(norm(after.vectors[..., j], backend) for j in range(k)),
        *swings,
    )
    distance, changes, norms = host[0], host[1 : 2 + k], host[2 + k : 2 + 2 * k]
    single = host[2 + 2 * k :][:k] or (math.inf,) * k
    pairs = host[2 + 2 * k :][k:] or (math.inf,) * (k - 1)
    # H(x⁺) ⪰ e^{-R‖x⁺ - x‖} H(x).
    turn = inner.self_concordance * distance / 2
    if not turn < 1:
        return None
    grown, root = math.exp(turn), math.sqrt(inner.mu)
    known = [grown * (e + c / root) for e, c in zip(errors, changes, strict=True)]
    decrement = known[0] if solved.moved else math.hypot(solved.energies[0], errors[0])
    if not inner.self_concordance * decrement < root / 2:
        return None
    adjoint, *tangents = (
        Inexact(*numbers) for numbers in zip(after.energies, norms, known[1:], single, strict=True)
    )
    bends = _bends(after, k - 1, backend)
    outer = problem.outer_constants
    return _Proof(inner, outer, decrement, adjoint, tuple(tangents), pairs, bends)


def _bends(look: _Look, n_tangents: int, backend: Backend) -> tuple[Bend, ...]:
    """The curvature of the criterion along the tangents: two passes over its rows."""
    if not isinstance(look.outer, Curved):
        return (Bend(),) * n_tangents
    tangents = look.vectors[..., 1:]
    products = look.outer.hvp(tangents)
    columns = range(n_tangents)
    host = backend.scalars(
        look.outer.top(),
        *(norm(products[..., j], backend) for j in columns),
        *(dot(products[..., j], tangents[..., j], backend) for j in columns),
    )
    return tuple(
        Bend(host[1 + j], math.sqrt(max(host[1 + n_tangents + j], 0.0)), host[0]) for j in columns
    )


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
    problem: Problem, solved: _Solved, after: _Look, rhs: Array, proof: _Proof | None
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
        inner_error = grad_after / mu if mu > 0 else math.inf
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


def _predict(problem: Problem, look: _Look, lam: Array, delta: Array) -> InnerPoint:
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


def _preconditioner(
    problem: Problem, look: _Look, sketch: Sketch | Pairs | None
) -> tuple[Preconditioner | None, float | None]:
    """M⁻¹ by what is kept of H and what is known of it here, and a lower bound of M⁻¹H.

    Where the bound is not proven (:meth:`Sketch.lower_bound` is 0) it serves as an estimate.
    """
    if isinstance(sketch, Sketch):
        mu = look.constants.mu
        assert mu
        return sketch.nystrom.inverse(mu), sketch.lower_bound(look, problem.backend) or mu
    base, bottom = _base(problem, look)
    if sketch is None:
        return base, bottom
    gamma = sketch.known.gamma(base, bottom)
    if bottom is not None:
        bottom *= gamma * (sketch.lower_bound(look, problem.backend) or 1.0)
    return sketch.known.inverse(base, gamma), bottom


def _base(problem: Problem, look: _Look) -> tuple[Preconditioner | None, float | None]:
    """Jacobi where the penalty itself is uneven, and μ of the system.

    Measured on text (20 Newsgroups, Reuters): with one λ the diagonal costs more iterations than
    it saves at every accuracy below 10%, since it undoes what the penalty makes equal. A point
    that has a preconditioner of its own (a free intercept, where there is no μ) comes first.

    μ is what a proof rests on. Without tangents nothing is proven, and the smallest of many e^λ
    says little of the system: the bound from it would be met hundreds of products too late.
    """
    own = look.point.preconditioner() if isinstance(look.point, Preconditioned) else None
    if own is not None:
        return own, 1.0
    mu = look.constants.mu
    if problem.inner.n_hyperparameters == 1 and mu:
        return None, mu
    diagonal = look.point.diag()
    if diagonal is None:
        return None, mu or None
    if not mu or not look.has_tangents:
        return jacobi(diagonal), None
    (top,) = problem.backend.scalars(problem.backend.xp.max(diagonal))
    return jacobi(diagonal), mu / top if top > 0 else None


def _rounded(problem: Problem, look: _Look, wanted: Wanted) -> tuple[InnerPoint, float]:
    """The point whose products serve a solve, and how much of μ rounded products may take.

    The solves are corrections: what single precision leaves undone shows in the next residuals,
    which are in double, and in the proof, which compares with those. CG in single precision reaches
    about ε √κ, κ the condition number; it has to be far below what is wanted.
    """
    constants, point = look.constants, look.point
    if not constants.mu or constants.smoothness is None or not isinstance(point, Roundable):
        return point, 0.0
    xp = problem.backend.xp
    epsilon = float(xp.finfo(xp.float32).eps)
    condition = constants.smoothness / constants.mu
    if not 4 * epsilon * condition <= 0.5:
        return point, 0.0
    found = point.rounded()
    if found is None:
        return point, 0.0
    precise = epsilon * math.sqrt(condition) <= 0.1 * min(wanted.newton, wanted.adjoint)
    return found if precise else point, 4 * epsilon * condition


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
