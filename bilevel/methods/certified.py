"""The proof that a corrected hypergradient is near ∇f, and how accurate a solve must be for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .._cached import cached_property
from ..backends import Array, Backend
from ..hypergrad import Bend, Inexact, self_concordant_bound
from ..inner import InnerConstants, Swinging
from ..linalg import dot, norm
from ..outer import Curved, OuterConstants
from ..problem import Problem
from .looks import Look, Solved


@dataclass(frozen=True)
class Wanted:
    """How accurate the next block solve has to be, in the norm of the Hessian.

    ``newton`` is the error of the Newton step d as a share of d, or ``decrement`` itself where that
    is larger; ``adjoint`` the errors of q and t as a share of them.
    """

    newton: float
    adjoint: float
    decrement: float = 0.0


def provable_at(problem: Problem, look: Look) -> bool:
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
class Proof:
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


def prove(problem: Problem, solved: Solved, after: Look, rhs: Array) -> Proof | None:
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
    return Proof(inner, outer, decrement, adjoint, tuple(tangents), pairs, bends)


def _bends(look: Look, n_tangents: int, backend: Backend) -> tuple[Bend, ...]:
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
