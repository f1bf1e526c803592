"""What path following sees at an iterate, and where one block solve leads from there.

Blocks of vectors are what weighs: each function hands on what is needed next, and nothing else
is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..._cached import cached_property
from ...backends import Array, Backend, Pending, pending
from ...inner import (
    InnerConstants,
    InnerPoint,
    Preconditioned,
    Pushable,
    Turning,
    constants_at,
)
from ...linalg import CGResult, Preconditioner, Proven, dot, dots, norm
from ...outer import OuterPoint
from ...problem import Problem
from ...solvers.linesearch import WolfeSearch
from ...status import Status


@dataclass(frozen=True)
class Look:
    """What one backward pass says at (x, λ), with the vectors q and t_j at hand.

    ``energies`` are the norms of q and t_j in the Hessian, ``sizes`` those of their right-hand
    sides, and ``p`` is corrected by the residuals of the tangents where there are any.
    """

    point: InnerPoint
    outer: OuterPoint
    vectors: Array
    pushed: Array | None
    grad: Array
    p: Array
    energies: tuple[float, ...]
    sizes: tuple[float, ...]
    constants: InnerConstants

    @property
    def has_tangents(self) -> bool:
        return len(self.energies) > 1

    @property
    def ready(self) -> bool:
        """Whether q and every t_j have been solved for before."""
        return all(e > 0 for e in self.energies)

    @cached_property
    def own(self) -> Preconditioner | None:
        """The preconditioner that the point itself has."""
        return self.point.preconditioner() if isinstance(self.point, Preconditioned) else None

    @property
    def claimed(self) -> bool:
        """Whether that comes from outside: its M⁻¹H ⪰ I is a claim, and proves nothing.

        Solves meet the contrary only in directions that M⁻¹ does not hide from them.
        """
        return not isinstance(self.own, Proven | None)


def look_at(
    problem: Problem,
    point: InnerPoint,
    vectors: Array,
    pushed: Array | None,
    *,
    warm: bool = False,
) -> tuple[Look, Array]:
    """The look, and the right-hand sides of a block solve: -∂_x h, the residuals of q and t_j.

    ``warm``: the vectors are of another λ, and those that are far worse than zero here are dropped.
    """
    backend, xp = problem.backend, problem.backend.xp
    outer = problem.outer.at(point.x, point.lam)
    if isinstance(point, Pushable) and pushed is not None:
        grad, products = point.pull(vectors, pushed)
    else:
        grad = point.grad
        (size,) = backend.scalars(xp.max(xp.abs(vectors)))
        products = xp.zeros_like(vectors) if size == 0 else point.hvp(vectors)
    right = outer.grad_x[..., None]
    if vectors.shape[-1] > 1:
        right = xp.concat([right, -_cross(problem, point)], axis=-1)
    rest = right - products
    k, left = vectors.shape[-1], [backend.column_norm(rest)] if warm else []
    squares = backend.column_dot(vectors, products)
    host = backend.scalars(squares, backend.column_norm(right), *left)
    energies = tuple(math.sqrt(max(s, 0.0)) for s in host[:k])
    sizes = host[k : 2 * k]
    if warm:
        # A residual that is far larger than at zero is rounding; NaN is to be seen.
        kept = [not there > _WORSE * zero for zero, there in zip(sizes, host[2 * k :], strict=True)]
        if not all(kept):
            mask = xp.asarray(kept, device=backend.device)
            vectors = xp.where(mask, vectors, xp.zeros_like(vectors))
            rest = xp.where(mask, rest, right)
            pushed = None if pushed is None else xp.where(mask, pushed, xp.zeros_like(pushed))
            energies = tuple(e if keep else 0.0 for e, keep in zip(energies, kept, strict=True))
    rhs = xp.concat([-grad[..., None], rest], axis=-1)
    p = corrected(problem, outer, point, vectors, rhs[..., 2:])
    constants = constants_at(problem.inner, point)
    return Look(point, outer, vectors, pushed, grad, p, energies, sizes, constants), rhs


#: How much larger than at zero the residual of a start may be.
_WORSE = 100.0


def _cross(problem: Problem, point: InnerPoint) -> Array:
    """∂²_{xλ} h, a column for each hyperparameter."""
    xp, m = problem.backend.xp, problem.inner.n_hyperparameters
    unit = xp.eye(m, dtype=problem.dtype, device=problem.backend.device)
    return xp.stack([point.cross_jvp(unit[j, :]) for j in range(m)], axis=-1)


def corrected(
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
class Turn:
    """Where the corrections lead: the Newton step d, and the new q and t, all through X too."""

    d: Array
    d_pushed: Array | None
    vectors: Array
    pushed: Array | None


def turned(problem: Problem, look: Look, found: CGResult) -> Turn:
    """Add the corrections to q and t."""
    backend, xp = problem.backend, problem.backend.xp
    corrections = found.x
    if found.status in (Status.NEGATIVE_CURVATURE, Status.SINGULAR):
        # H is no inverse here: q and t do not exist, and where the first product already showed it
        # the Newton step is the gradient's.
        (size,) = backend.scalars(norm(corrections[..., 0], backend))
        d = -look.grad if size == 0 else corrections[..., 0]
        corrections = xp.concat([d[..., None], xp.zeros_like(corrections[..., 1:])], axis=-1)
    d, vectors = corrections[..., 0], look.vectors + corrections[..., 1:]
    if not isinstance(look.point, Pushable):
        return Turn(d, None, vectors, None)
    through = look.point.push(corrections)
    more = through[..., 1:]
    pushed = more if look.pushed is None else look.point.joined(look.pushed, more)
    return Turn(d, through[..., 0], vectors, pushed)


@dataclass(frozen=True)
class Walked:
    """Where a Newton step has led: whether x has moved, or the step was one of rounding."""

    point: InnerPoint
    moved: bool
    rounded: bool


def walk(problem: Problem, look: Look, turn: Turn) -> Walked:
    """Go along the Newton step as far as h descends; nowhere where it is lost in rounding of x."""
    point, backend, xp = look.point, problem.backend, problem.backend.xp
    d, pushed = turn.d, turn.d_pushed
    beyond = xp.max(xp.abs(d) - 8 * float(xp.finfo(d.dtype).eps) * xp.abs(point.x))
    value, slope, beyond = backend.scalars(point.value, dot(look.grad, d, backend), beyond)
    if beyond <= 0:
        return Walked(point, False, True)
    found = None
    if slope < 0:
        ray = point.ray(d, pushed) if isinstance(point, Pushable) else point.ray(d)
        found = WolfeSearch()(ray, value, slope, 1.0, backend, point.x.dtype)
    return Walked(point, False, False) if found is None else Walked(found, True, False)


def ahead(
    problem: Problem,
    point: InnerPoint,
    vectors: Array,
    pushed: Array | None,
    lam: Array,
    delta: Array,
) -> InnerPoint:
    """The point x + t δ at another λ; through X without a pass where the tangents went through."""
    step = problem.backend.xp.matmul(vectors[..., 1:], delta)
    if not isinstance(point, Pushable) or pushed is None:
        return problem.inner.at(point.x + step, lam)
    there = point.ray(step, point.along(pushed[..., 1:], delta)).at(1.0)
    return problem.inner.at(there.x, lam, there.carry)


@dataclass(frozen=True)
class Solved:
    """A block solve, and what is worth keeping of the look that asked for it.

    ``healed`` is p at the old x with the new q and t, ``distance`` that of the new x from the old,
    ``fall`` how much h has fallen between them, ``turning`` what another step in the direction of
    this one may turn, where h states it (:class:`~bilevel.inner.Turning`): for each of the
    :data:`SHARES` of its length, a row of numbers.
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
    fall: Array
    turning: Pending | None
    ready: bool
    moved: bool
    rounded: bool

    @classmethod
    def of(
        cls,
        problem: Problem,
        look: Look,
        found: CGResult,
        turn: Turn,
        walked: Walked,
    ) -> Solved:
        assert found.energy_estimates is not None  # both accuracies that are asked for have them
        point = walked.point
        backend, stayed = problem.backend, problem.backend.xp.zeros_like(point.value)
        return cls(
            residual=found.residual,
            energies=found.energies,
            errors=found.energy_errors,
            estimates=found.energy_estimates,
            residual_norms=found.residual_norms,
            status=found.status,
            p=look.p,
            healed=corrected(
                problem, look.outer, look.point, turn.vectors, found.residual[..., 2:]
            ),
            grad_norm=norm(look.grad, backend),
            distance=norm(point.x - look.point.x, backend),
            fall=look.point.value - point.value if walked.moved else stayed,  # inf - inf is none
            turning=_turning(problem.backend, point, turn),
            ready=look.ready,
            moved=walked.moved,
            rounded=walked.rounded,
        )


#: Lengths of a step, as shares of the last one, at which its turning is read.
SHARES = (1.0, 0.25, 0.05, 0.01)


def _turning(backend: Backend, point: InnerPoint, turn: Turn) -> Pending | None:
    if not isinstance(point, Turning) or turn.d_pushed is None or turn.pushed is None:
        return None
    both = backend.xp.concat([turn.d_pushed[..., None], turn.pushed], axis=-1)
    found = point.turning(both, SHARES)
    return None if found is None else pending(backend.xp.reshape(found, (-1,)))
