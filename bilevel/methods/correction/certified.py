"""The proof that a corrected hypergradient is near ∇f, and how accurate a solve must be for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ..._cached import cached_property
from ...backends import Array, Backend, Pending, pending
from ...hypergrad import (
    Along,
    Bend,
    Bounds,
    Inexact,
    Nearness,
    self_concordant_bounds,
    self_concordant_value_bound,
    value_error,
)
from ...hypergrad.surrogate import slope_size
from ...inner import InnerConstants, Rounded, Rounding, Swinging
from ...linalg import dot
from ...linalg.rounding import gamma, unit_roundoff, upper_norm, upper_norms
from ...outer import Curved, CurvedRounded, OuterConstants, OuterRounding, RoundedOuter
from ...problem import Problem
from ...solvers import point_error
from ...solvers.distance import grad_size
from .looks import Look, Solved


@dataclass(frozen=True)
class Wanted:
    """How accurate the next block solve has to be, in the norm of the Hessian.

    ``newton`` is the error of the Newton step d as a share of d, or ``decrement`` itself where that
    is larger; ``adjoint`` the errors of q and t as a share of them. ``guarded``: where these are
    estimated, no plateau of the solve may pass for its end.
    """

    newton: float
    adjoint: float
    decrement: float = 0.0
    guarded: bool = False


def provable_at(problem: Problem, look: Look) -> bool:
    """Whether the constants for :func:`self_concordant_bounds` are stated, with tangents there.

    And the errors of the solves are known: those by a preconditioner from outside are not.
    """
    inner, outer = look.constants, problem.outer_constants
    stated = (
        inner.mu,
        inner.self_concordance,
        inner.cross_lipschitz,
        outer.grad_lam_lipschitz,
    )
    bent = outer.grad_x_lipschitz is not None or outer.self_concordance is not None
    known = all(constant is not None for constant in stated) and not look.claimed
    return look.has_tangents and bent and known


@dataclass(frozen=True)
class Proof:
    """What is proven of p at an iterate, and what a proof of a smaller bound takes."""

    inner: InnerConstants
    outer: OuterConstants
    decrement: float
    adjoint: Inexact
    tangents: tuple[Along, ...]
    correction: float
    lost_value: float
    lost_residuals: tuple[float, ...]

    def _bound(self, decrement: float, q_error: float, errors: Iterable[float]) -> float:
        """What the bound is with other errors of x, q and the t_j."""
        bound = self_concordant_bounds(
            self.inner,
            self.outer,
            decrement=decrement,
            adjoint=replace(self.adjoint, error=q_error),
            tangents=[
                replace(along, tangent=replace(along.tangent, error=error))
                for along, error in zip(self.tangents, errors, strict=True)
            ],
        )
        return math.inf if bound is None else bound

    @cached_property
    def bound(self) -> float:
        """‖p - ∇f‖ ≤ bound."""
        errors = (along.tangent.error for along in self.tangents)
        return self._bound(self.decrement, self.adjoint.error, errors)

    @cached_property
    def floor(self) -> float:
        """What rounding alone leaves of the bound here: no solve proves less."""
        root = math.sqrt(self.inner.mu or 0.0)
        decrement, q, *t = (lost / root for lost in self.lost_residuals)
        return self._bound(decrement, q, t)

    @cached_property
    def distance(self) -> float:
        """‖x - X(λ)‖ ≤ distance."""
        mu, R = self.inner.mu, self.inner.self_concordance
        assert mu and R is not None  # else there is no proof
        near = Nearness.of(self.decrement, R, mu)
        return math.inf if near is None else near.distance

    @cached_property
    def value_bound(self) -> float:
        """|g(x, λ) - f(λ)| ≤ value_bound."""
        bound = self_concordant_value_bound(
            self.inner,
            self.outer,
            decrement=self.decrement,
            correction=self.correction,
            adjoint=self.adjoint,
            top=self.tangents[0].bend.top,
            rounding=self.lost_value,
        )
        return math.inf if bound is None else bound

    def needs(self, allowed: float) -> Wanted | None:
        """The accuracies at which the bound is ``allowed``, a fifth of it left to spare.

        Half is for the product of the errors of q and t, half for the model.
        """
        share = 0.4 * allowed
        q, *t = (v.energy for v in (self.adjoint, *(along.tangent for along in self.tangents)))
        if not q * math.hypot(*t) > 0:
            return None
        relative = min(math.sqrt(share / (q * math.hypot(*t))), 0.3)
        small = 1e-6 * math.sqrt(self.inner.mu or 0.0)
        there, here = (
            self._bound(decrement, relative * q, [relative * energy for energy in t])
            for decrement in (small, 0.0)
        )
        slope = there - here
        if not 0 < slope < math.inf:
            return None
        return Wanted(1e-3, relative, share * small / slope)


def proven(problem: Problem, look: Look, proof: Proof | None) -> Bounds:
    """What is proven at an iterate: by a proof of p where there is one, and by the gradient."""
    distance = point_error(look.point, look.constants.mu, problem.backend)
    if distance is not None and proof is not None:
        distance = min(distance, proof.distance)
    value = value_error(problem, look.outer, distance)
    if value is not None and proof is not None:
        value = min(value, proof.value_bound)
    known = proof is not None and math.isfinite(proof.bound)
    bound = proof.bound if proof is not None and known else None
    return Bounds(distance, value, bound)


@dataclass(frozen=True)
class Attempt:
    """A proof, or None; ``lost``: rounding alone leaves nothing to prove here."""

    proof: Proof | None = None
    lost: bool = False


def prove(
    problem: Problem,
    solved: Solved,
    after: Look,
    rhs: Array,
    along: Iterable[Pending] = (),
) -> Attempt:
    """The proven bound where the constants are known and every hyperparameter has a tangent.

    The residuals of the last solve are known in the norm of H⁻¹, by CG; those at the new iterate
    differ from them by vectors that are known, which divided by √μ bound the rest. What is known of
    a vector holds what rounding may have done to it. ``along`` is read with it, for those to come.
    """
    inner, errors = after.constants, solved.errors
    if errors is None or not inner.mu or inner.self_concordance is None:
        return Attempt()
    seen = _Seen.of(problem, solved, after, rhs, along)
    if seen is None:
        return Attempt()
    # H(x⁺) ⪰ e^{-R‖x⁺ - x‖} H(x).
    turn = inner.self_concordance * seen.distance / 2
    if not turn < 1:
        return Attempt()
    grown, root = math.exp(turn), math.sqrt(inner.mu)
    apart = (c + lost for c, lost in zip(seen.changes, seen.lost, strict=True))
    known = [grown * (e + c / root) for e, c in zip(errors, apart, strict=True)]
    decrement = known[0]
    if not solved.moved:
        decrement = math.hypot(solved.energies[0], errors[0]) + seen.lost[0] / root
    if not inner.self_concordance * decrement < root / 2:
        return Attempt(lost=not inner.self_concordance * seen.lost[0] < inner.mu / 2)
    energies = seen.energies(after.energies)
    adjoint, *tangents = (
        Inexact(*numbers)
        for numbers in zip(energies, seen.norms, known[1:], seen.single, strict=True)
    )
    bends = _bends(after, len(tangents), problem.backend)
    each = zip(tangents, seen.pairs, bends, seen.hypergrad, strict=True)
    proof = Proof(
        inner,
        problem.outer_constants,
        decrement,
        adjoint,
        tuple(Along(*numbers) for numbers in each),
        seen.correction,
        seen.value,
        tuple(seen.lost),
    )
    return Attempt(proof)


@dataclass(frozen=True)
class _Seen:
    """Norms at the new iterate, from above: of the changes of the residuals, of q and the t_j.

    ``lost`` is what rounding may have done to the residuals, ``hypergrad`` and ``value`` the same
    of each p_j and of g.
    """

    distance: float
    changes: list[float]
    lost: list[float]
    norms: list[float]
    products: list[float]
    spread: list[float]
    single: tuple[float, ...]
    pairs: tuple[float, ...]
    correction: float
    hypergrad: tuple[float, ...]
    value: float

    @classmethod
    def of(
        cls,
        problem: Problem,
        solved: Solved,
        after: Look,
        rhs: Array,
        along: Iterable[Pending],
    ) -> _Seen | None:
        """Read all of them at once; None where what rounding does is not known."""
        point, backend = after.point, problem.backend
        lost = point.rounding(after.vectors, after.pushed) if isinstance(point, Rounded) else None
        lost_outer = after.outer.rounding() if isinstance(after.outer, RoundedOuter) else None
        if lost is None or lost_outer is None:
            return None
        k = after.vectors.shape[-1]
        own = tuple(map(pending, _scalars(solved, after, rhs, lost, lost_outer, backend)))
        backend.scalars(*own, *along)
        host = iter(backend.scalars(*own))
        (distance,), changes, rests, norms = _take(host, 1, 1 + k, 1 + k, k)
        (lost_grad,), products, (cross, value, slope, direct) = _take(host, 1, k, 4)
        (grad, pull, p, corrected, side), single, pairs = _take(host, 5, k, k - 1)
        unit = unit_roundoff(problem.dtype, backend)
        terms = gamma(math.prod(point.x.shape) + 8, unit)
        right = [slope, *(cross for _ in range(k - 1))]
        apart = [a + b + unit * r for a, b, r in zip(products, right, rests[1:], strict=True)]
        q, *tangents = norms
        sides = [pull, *(side for _ in range(k - 1))]
        return cls(
            distance=distance * (1 + terms),
            changes=changes,
            lost=[lost_grad, *apart],
            norms=norms,
            products=products,
            # What is lost of vᵀ H v as a sum, H v being no longer than the two that make the rest.
            spread=[terms * (r + s) for r, s in zip(rests[1:], sides, strict=True)],
            single=tuple(single) or (math.inf,) * k,
            pairs=tuple(pairs) or (math.inf,) * (k - 1),
            correction=abs(corrected) + terms * q * grad + q * lost_grad,
            hypergrad=tuple(
                direct + 4 * unit * p + t * (slope + terms * pull) + q * (a + terms * r)
                for t, a, r in zip(tangents, apart[1:], rests[2:], strict=True)
            ),
            value=value,
        )

    def energies(self, computed: tuple[float, ...]) -> list[float]:
        """‖v‖_H from above."""
        each = zip(computed, self.norms, self.products, self.spread, strict=True)
        return [math.sqrt(e * e + v * (a + b)) for e, v, a, b in each]


def _scalars(
    solved: Solved,
    after: Look,
    rhs: Array,
    lost: Rounding,
    lost_outer: OuterRounding,
    backend: Backend,
) -> Iterator[Array | Pending]:
    """What :class:`_Seen` is made of, to be read: norms from above, and rounding."""
    widest, swing = _turning(after, lost, backend)
    yield solved.distance
    yield upper_norms(rhs - solved.residual, backend)
    yield upper_norms(rhs, backend)
    yield upper_norms(after.vectors, backend)
    yield from (lost.grad, lost.products, lost.cross)
    yield from (lost_outer.value, lost_outer.grad_x, lost_outer.grad_lam)
    yield from (grad_size(after.point, backend), slope_size(after.outer, backend))
    yield upper_norm(after.p, backend)
    yield from (dot(after.vectors[..., 0], after.grad, backend), widest)
    yield from swing or ()


def _turning(
    look: Look, lost: Rounding, backend: Backend
) -> tuple[Pending, tuple[Pending, Pending] | None]:
    """An upper bound of ‖∂²_{xλ} h‖, infinite where there is none, and what the vectors swing."""
    point, widest = look.point, pending(math.inf)
    if point.cross_norm is not None:
        widest = pending(point.cross_norm) + lost.cross
    if not isinstance(point, Swinging) or look.pushed is None:
        return widest, None
    return widest, point.swing(look.pushed)


def _take(numbers: Iterator[float], *counts: int) -> tuple[list[float], ...]:
    """The next so many numbers, and so on; fewer where there are no more."""
    return tuple(list(islice(numbers, count)) for count in counts)


def _bends(look: Look, n_tangents: int, backend: Backend) -> tuple[Bend, ...]:
    """The curvature of the criterion along the tangents: two passes over its rows."""
    outer, tangents = look.outer, look.vectors[..., 1:]
    lost = outer.product_rounding(tangents) if isinstance(outer, CurvedRounded) else None
    if not isinstance(outer, Curved) or lost is None:
        return (Bend(),) * n_tangents
    products = outer.hvp(tangents)
    k = n_tangents
    host = backend.scalars(
        outer.top(),
        upper_norms(products, backend) + lost,
        backend.column_dot(products, tangents),
        upper_norms(tangents, backend),
        lost,
    )
    top = host[0] * (1 + 1e-4)
    norms, quotients, lengths, off = (host[1 + i * k : 1 + (i + 1) * k] for i in range(4))
    terms = gamma(math.prod(look.point.x.shape) + 8, unit_roundoff(tangents.dtype, backend))
    return tuple(
        Bend(
            norms[j],
            math.sqrt(max(quotients[j], 0.0) + lengths[j] * (off[j] + terms * norms[j])),
            top,
        )
        for j in range(k)
    )
