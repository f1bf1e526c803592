"""What an outer criterion g(x, λ) is, and a point on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..backends import BOUND, Array, Maybe, Number, Pending, check_fields


@dataclass(frozen=True)
class OuterConstants:
    """Constants of g that hold for every x; None where the criterion states none.

    What is proven rests on them. No Lipschitz constant is negative; it may be infinite.

    Attributes
    ----------
    grad_x_lipschitz : float or None
        Lipschitz constant of x ↦ ∂_x g.
    grad_lam_lipschitz : float or None
        Lipschitz constant of x ↦ ∂_λ g; 0 where g does not depend on λ.
    self_concordance : float or None
        R with ∂²_{xx} g(x + u) ⪯ e^{R‖u‖} ∂²_{xx} g(x) for all u, as of the inner objective. Zero
        for a quadratic g.
    least : float or None
        g(x, λ) ≥ least for all x and λ.
    """

    grad_x_lipschitz: float | None = None
    grad_lam_lipschitz: float | None = None
    self_concordance: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        upper = Maybe(BOUND)
        check_fields(
            self,
            grad_x_lipschitz=upper,
            grad_lam_lipschitz=upper,
            self_concordance=upper,
            least=Maybe(Number(below=math.inf, finite=False)),
        )


@dataclass(frozen=True)
class OuterRounding:
    """How far rounding may keep what a point computes from what it is.

    Attributes
    ----------
    value, grad_x, grad_lam : array
        Upper bounds of the norms of the errors of g, ∂_x g and ∂_λ g, 0-d; or numbers that follow
        from arrays (:class:`~bilevel.backends.Pending`).
    """

    value: Array | Pending
    grad_x: Array | Pending
    grad_lam: Array | Pending


class OuterPoint(Protocol):
    """g and its derivatives at one (x, λ), each computed when first asked for, once."""

    @property
    def value(self) -> Array:
        """g(x, λ), 0-d."""
        ...

    @property
    def grad_x(self) -> Array:
        """∂_x g, the shape of x."""
        ...

    @property
    def grad_lam(self) -> Array:
        """∂_λ g, shape (m,)."""
        ...


@runtime_checkable
class Curved(Protocol):
    """A point of a convex criterion that knows G = ∂²_{xx} g there."""

    def hvp(self, v: Array) -> Array:
        """G v for directions v of shape ``(*x_shape, k)``, two passes."""
        ...

    def top(self) -> Array:
        """An upper bound of the largest eigenvalue of G, 0-d, no pass."""
        ...


@runtime_checkable
class BendingOuter(Protocol):
    """A point that knows the second derivatives of g, as the Hessian of f needs them.

    Directions T have the shape ``(*x_shape, k)``, D (m, k). None where one is not known.
    """

    def gram(self, T: Array) -> Array | None:
        """T_iᵀ (∂²_{xx} g) T_j, shape (k, k): two passes at most."""
        ...

    def cross_gram(self, T: Array) -> Array | None:
        """(∂²_{xλ} g)ᵀ T, shape (m, k): zero where g does not depend on λ directly."""
        ...

    def fold(self, D: Array) -> Array | None:
        """∂²_{λλ} g · D, shape (m, k)."""
        ...


@runtime_checkable
class RoundedOuter(Protocol):
    """A point that can bound its own rounding errors; of one that can't, nothing is proven."""

    def rounding(self, scale: Array | None = None) -> OuterRounding | None:
        """The bounds, no pass; None where they are not known.

        With ``scale``, of the shape of x, that of ∂_x g is of the error times it.
        """
        ...


@runtime_checkable
class ValueRounded(Protocol):
    """A point that knows about how far rounding may have moved its value: no proof."""

    @property
    def value_rounding(self) -> Array | Pending:
        """That number, no pass, 0-d."""
        ...


@runtime_checkable
class CurvedRounded(Protocol):
    """A point that can bound the rounding of its products with G."""

    def product_rounding(self, v: Array) -> Array | Pending | None:
        """Upper bounds of the norms of the errors of ``hvp(v)``, (k,), no pass; None if unknown."""
        ...


class Outer(Protocol):
    """g(x, λ), to be minimised over λ at x = X(λ)."""

    def at(self, x: Array, lam: Array) -> OuterPoint:
        """Return the point (x, λ), which are the caller's: read, and never written into."""
        ...

    def constants(self) -> OuterConstants: ...

    @property
    def passes(self) -> float:
        """Passes over the criterion's own data until now."""
        ...
