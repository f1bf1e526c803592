r"""Computable bounds on the error of a hypergradient.

Write e ≥ ‖x - X(λ)‖, r = ‖H q - ∂_x g‖, B = ∂²_{xλ} h, all at x, a star for the same at X(λ), and
L_λ, L_g, L_H, L_B for the Lipschitz constants in x of ∂_λ g, ∂_x g, H and B. From

    H(x*)(q - q*) = (H q - ∂_x g) + (H* - H) q + (∂_x g - ∂_x g*)

and H* ⪰ μ I follows ‖q - q*‖ ≤ (r + (L_g + L_H ‖q‖) e) / μ, and from
p - ∇f = (∂_λ g - ∂_λ g*) - (B - B*)ᵀ q - B*ᵀ (q - q*):

    ‖p - ∇f‖ ≤ (L_λ + L_B ‖q‖) e + (‖B‖ + L_B e) (r + (L_g + L_H ‖q‖) e) / μ

which is Theorem 1 of Pedregosa (2016) with its constant written out; compare Ehrhardt and
Roberts (2023), theorem 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..inner import InnerConstants
from ..linalg.rounding import known
from ..outer import OuterConstants


def hypergradient_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    inner_error: float | None,
    residual: float,
    adjoint_norm: float,
    cross_norm: float | None,
    rounding: float = 0.0,
) -> float | None:
    """Bound ‖p - ∇f(λ)‖, or return None where a constant is not stated.

    Parameters
    ----------
    inner, outer : InnerConstants, OuterConstants
        What objective and criterion state of themselves.
    inner_error : float or None
        e.
    residual : float
        r.
    adjoint_norm : float
        ‖q‖.
    cross_norm : float or None
        ‖B‖ or an upper bound of it.
    rounding : float
        How far the computed p may be from ∂_λ g - Bᵀ q. ``inner_error`` and ``residual`` have to
        hold their own.

    Examples
    --------
    >>> from bilevel.inner import InnerConstants
    >>> from bilevel.outer import OuterConstants
    >>> quadratic = InnerConstants(mu=2.0, hessian_lipschitz=0.0, cross_lipschitz=0.0)
    >>> hypergradient_bound(quadratic, OuterConstants(1.0, 0.0), inner_error=0.1, residual=0.0,
    ...                     adjoint_norm=1.0, cross_norm=4.0)
    0.2
    """
    mu, l_h, l_b = inner.mu, inner.hessian_lipschitz, inner.cross_lipschitz
    l_g, l_lam = outer.grad_x_lipschitz, outer.grad_lam_lipschitz
    stated = (mu, l_h, l_b, l_g, l_lam, inner_error, cross_norm)
    if any(constant is None for constant in stated):
        return None
    assert mu is not None and l_h is not None and l_b is not None
    assert l_g is not None and l_lam is not None
    assert inner_error is not None and cross_norm is not None
    if not mu > 0:  # e^λ may underflow
        return None
    adjoint_error = (residual + (l_g + l_h * adjoint_norm) * inner_error) / mu
    direct = (l_lam + l_b * adjoint_norm) * inner_error
    return known(direct + (cross_norm + l_b * inner_error) * adjoint_error + rounding)


def value_bound(
    outer: OuterConstants,
    *,
    inner_error: float | None,
    grad_x_norm: float,
    rounding: float = 0.0,
) -> float | None:
    """Bound |g(x, λ) - f(λ)| by ‖∂_x g‖ e + L_g e²/2, or None where L_g or e is not known.

    ``rounding`` is how far the computed g(x, λ) may be from what it is; it comes on top.

    Examples
    --------
    >>> from bilevel.outer import OuterConstants
    >>> value_bound(OuterConstants(2.0, 0.0), inner_error=0.5, grad_x_norm=1.0)
    0.75
    """
    if inner_error is None or outer.grad_x_lipschitz is None:
        return None
    slope = grad_x_norm * inner_error
    return known(slope + outer.grad_x_lipschitz * inner_error * inner_error / 2 + rounding)


@dataclass(frozen=True)
class Inexact:
    """A solution of a system with the Hessian H at x, as far as it is known.

    Attributes
    ----------
    energy, norm : float
        ‖v‖_H and ‖v‖.
    error : float
        Upper bound of ‖r_v‖ in the norm of H⁻¹, r_v the residual; this is ‖v - v*‖_H.
    swing : float
        M with |wᵀ(H(x + u) - H(x)) v| ≤ M φ(R‖u‖) ‖w‖_A ‖u‖_A for all u and w, where
        φ(s) = (eˢ - 1)/s and A = H - μ I; inf where only self-concordance is known.
    """

    energy: float
    norm: float
    error: float
    swing: float = math.inf

    def data_energy(self, mu: float) -> float:
        """‖v‖_A."""
        return math.sqrt(max(self.energy * self.energy - mu * self.norm * self.norm, 0.0))


@dataclass(frozen=True)
class Bend:
    """What is known of G = ∂²_{xx} g at x along a tangent t; inf where it is not.

    Attributes
    ----------
    product : float
        ‖G t‖.
    energy : float
        ‖t‖_G.
    top : float
        Upper bound of the largest eigenvalue of G.
    """

    product: float = math.inf
    energy: float = math.inf
    top: float = math.inf


def bends_back(top: float) -> bool:
    """Whether g is seen to bend down, which refutes what it states of its curvature, or NaN."""
    return not top >= 0


def self_concordant_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    decrement: float,
    adjoint: Inexact,
    tangent: Inexact,
    swing: float = math.inf,
    bend: Bend = Bend(),
    rounding: float = 0.0,
) -> float | None:
    r"""Bound |p_j - ∂f/∂λ_j| in the norm of the Hessian itself, for the corrected hypergradient.

    At x, with an adjoint q and a tangent t that need not be exact, take

        p_j = ∂g/∂λ_j + tᵀ ∂_x g + qᵀ r_t,   r_t = -B e_j - H t,   r_q = ∂_x g - H q.

    Then p_j differs from its value with the exact q and t by r_tᵀ H⁻¹ r_q: the product of the two
    errors ε_q and ε_t. The exact one differs from ∂f/∂λ_j because x is not X(λ). With u = X(λ) - x,
    ν ≥ ‖∂_x h‖_{H⁻¹} and κ = R ν / √μ < 1, self-concordance gives s = -log(1 - κ) ≥ R ‖u‖ and
    ‖u‖_H ≤ E = ν s / κ (Bach 2010, proposition 2, read for the Newton decrement); e = E / √μ. Where
    a star marks X(λ) and Δ the change from x to it, and q and t now are the exact ones at x,

        p - ∂f/∂λ_j = -Δ(∂g/∂λ_j) + qᵀ ΔB e_j + qᵀ ΔH t* - t*ᵀ Δ∂_x g.

    With what the vectors at hand swing, M_v, each ΔH v is at most c_v = min(M_v φ(s) E, (eˢ - 1)
    ‖v‖_A) in the norm of H⁻¹, ‖t* - t‖_H ≤ τ = (ε_t + L_B e / √μ + c_t) / (1 - (eˢ - 1)), and

        |qᵀ ΔH t*| ≤ min(M_qt φ(s) E, (eˢ - 1) ‖q‖_A ‖t‖_A) + ε_q c_t + (c_q + (eˢ - 1) ε_q) τ,
        |t*ᵀ Δ∂_x g| ≤ ‖G t‖ e + (φ(s_g) - 1) ‖t‖_G √top e + (τ / √μ) φ(s_g) top e,

    s_g = R_g e the same of the criterion; L_g ‖t‖ e and (τ / √μ) L_g e where they are smaller. With
    hessian_lipschitz in place of R the bound is larger by orders of magnitude.

    Parameters
    ----------
    inner, outer : InnerConstants, OuterConstants
        What objective and criterion state of themselves.
    decrement : float
        ν.
    adjoint, tangent : Inexact
        q and t.
    swing : float
        M_qt with |qᵀ(H(x + u) - H(x)) t| ≤ M_qt φ(R‖u‖) ‖u‖_A for all u.
    bend : Bend
        The curvature of the criterion.
    rounding : float
        How far the computed p_j may be from what it is; the other numbers have to hold their own.

    Returns
    -------
    float or None
        None where a constant is not stated; inf where κ ≥ 1 or eˢ ≥ 2.

    Examples
    --------
    >>> from bilevel.inner import InnerConstants
    >>> from bilevel.outer import OuterConstants
    >>> ridge = InnerConstants(1.0, 2.0, 0.0, 0.0, self_concordance=0.0)
    >>> self_concordant_bound(ridge, OuterConstants(4.0, 0.0, 0.0), decrement=0.1,
    ...     adjoint=Inexact(1.0, 0.8, 0.0), tangent=Inexact(1.0, 0.9, 0.0),
    ...     bend=Bend(product=2.0, energy=1.5, top=4.0))
    0.2
    """
    mu, R, l_b = inner.mu, inner.self_concordance, inner.cross_lipschitz
    l_lam, l_g, R_g = outer.grad_lam_lipschitz, outer.grad_x_lipschitz, outer.self_concordance
    if mu is None or R is None or l_b is None or l_lam is None:
        return None
    if l_g is None and R_g is None:
        return None
    if not mu > 0:  # e^λ may underflow
        return None
    near = Nearness.of(decrement, R, mu)
    if near is None or bends_back(bend.top):
        return math.inf
    root, e = math.sqrt(mu), near.distance
    moved = (tangent.error + l_b * e / root + near.swung(tangent, mu)) / (1 - near.grown)
    both = min(
        near.grown * adjoint.data_energy(mu) * tangent.data_energy(mu),
        swing * growth(near.s) * near.energy,
    )
    turned = (
        both
        + adjoint.error * near.swung(tangent, mu)
        + (near.swung(adjoint, mu) + near.grown * adjoint.error) * moved
    )
    straight = math.inf if l_g is None else l_g * tangent.norm * e
    if R_g is not None:
        grows = growth(R_g * e) - 1
        bent = bend.product * e + grows * bend.energy * math.sqrt(bend.top) * e
        straight = min(straight, bent)
    return known(
        adjoint.error * tangent.error
        + (l_lam + l_b * (adjoint.norm + adjoint.error / root)) * e
        + turned
        + straight
        + moved / root * _slope_change(outer, e, bend.top)
        + rounding
    )


@dataclass(frozen=True)
class Along:
    """What is known of one tangent: itself, what it swings with q, how g bends, its rounding.

    The fields are the arguments of :func:`self_concordant_bound`.
    """

    tangent: Inexact
    swing: float = math.inf
    bend: Bend = Bend()
    rounding: float = 0.0


def self_concordant_bounds(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    decrement: float,
    adjoint: Inexact,
    tangents: Sequence[Along],
) -> float | None:
    """Bound ‖p - ∇f‖ by :func:`self_concordant_bound` of every component; None where one is."""
    found = [
        self_concordant_bound(
            inner,
            outer,
            decrement=decrement,
            adjoint=adjoint,
            tangent=along.tangent,
            swing=along.swing,
            bend=along.bend,
            rounding=along.rounding,
        )
        for along in tangents
    ]
    known = [bound for bound in found if bound is not None]
    return math.hypot(*known) if len(known) == len(found) > 0 else None


def self_concordant_adjoint_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    decrement: float,
    adjoint: Inexact,
    cross_norm: float,
    top: float = math.inf,
    rounding: float = 0.0,
) -> float | None:
    r"""Bound ‖p - ∇f‖ for p = ∂_λ g - Bᵀ q, an adjoint q that need not be exact and no tangent.

    With the names of :func:`self_concordant_bound`, B*ᵀ (q* - q) = B*ᵀ H*⁻¹ ((∂_x g - H q) + Δ∂_x g
    - ΔH q), and a norm in H*⁻¹ is at most e^{s/2} times that in H⁻¹:

        ‖p - ∇f‖ ≤ (L_λ + L_B ‖q‖) e + eˢ (‖B‖ + L_B e) (ε_q + c_q + ‖Δ∂_x g‖ / √μ) / √μ,

    where ‖Δ∂_x g‖ ≤ min(L_g, φ(R_g e) top) e.

    Parameters
    ----------
    inner, outer, decrement, adjoint, rounding
        As for :func:`self_concordant_bound`.
    cross_norm : float
        Upper bound of ‖B‖.
    top : float
        Upper bound of the largest eigenvalue of G at x.

    Returns
    -------
    float or None
        None where a constant is not stated; inf where κ ≥ 1 or eˢ ≥ 2.

    Examples
    --------
    >>> from bilevel.inner import InnerConstants
    >>> from bilevel.outer import OuterConstants
    >>> ridge = InnerConstants(1.0, 2.0, 0.0, 0.0, self_concordance=0.0)
    >>> self_concordant_adjoint_bound(ridge, OuterConstants(2.0, 0.0), decrement=0.5,
    ...                               adjoint=Inexact(1.0, 0.8, 0.25), cross_norm=2.0)
    2.5
    """
    mu, R, l_b = inner.mu, inner.self_concordance, inner.cross_lipschitz
    l_lam, l_g, R_g = outer.grad_lam_lipschitz, outer.grad_x_lipschitz, outer.self_concordance
    if not mu or R is None or l_b is None or l_lam is None or (l_g is None and R_g is None):
        return None
    near = Nearness.of(decrement, R, mu)
    if near is None or bends_back(top):
        return math.inf
    root, e = math.sqrt(mu), near.distance
    apart = adjoint.error + near.swung(adjoint, mu) + _slope_change(outer, e, top) / root
    turned = (1 + near.grown) * (cross_norm + l_b * e) / root * apart
    return known((l_lam + l_b * adjoint.norm) * e + turned + rounding)


def self_concordant_value_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    decrement: float,
    correction: float,
    adjoint: Inexact,
    top: float = math.inf,
    rounding: float = 0.0,
) -> float | None:
    r"""Bound |g(x, λ) - f(λ)| by what an adjoint q says of it.

    With the names of :func:`self_concordant_bound`, 0 = ∂_x h + H u + ρ at X(λ) and ∂_x g = H q +
    r_q, so that g(X(λ)) - g(x) = -qᵀ ∂_x h - qᵀρ + r_qᵀ u + ½ uᵀ G(ξ) u for some ξ between, where

        |qᵀρ| ≤ min(½ M_q φ(s) E², (φ(s) - 1) ‖q‖_A E),    |r_qᵀ u| ≤ ε_q E.

    Parameters
    ----------
    inner, outer, decrement, adjoint, rounding
        As for :func:`self_concordant_bound`; ``rounding`` is that of g.
    correction : float
        Upper bound of |qᵀ ∂_x h|.
    top : float
        Upper bound of the largest eigenvalue of G at x.

    Returns
    -------
    float or None
        None where a constant is not stated; inf where κ ≥ 1 or eˢ ≥ 2.

    Examples
    --------
    >>> from bilevel.inner import InnerConstants
    >>> from bilevel.outer import OuterConstants
    >>> ridge = InnerConstants(1.0, 2.0, 0.0, 0.0, self_concordance=0.0)
    >>> self_concordant_value_bound(ridge, OuterConstants(2.0), decrement=0.5, correction=1.0,
    ...                             adjoint=Inexact(1.0, 0.8, 0.0))
    1.25
    """
    mu, R, l_g, R_g = (
        inner.mu,
        inner.self_concordance,
        outer.grad_x_lipschitz,
        outer.self_concordance,
    )
    if not mu or R is None or (l_g is None and R_g is None):
        return None
    near = Nearness.of(decrement, R, mu)
    if near is None or bends_back(top):
        return math.inf
    e, energy, phi = near.distance, near.energy, growth(near.s)
    turned = min(adjoint.swing * phi * energy / 2, (phi - 1) * adjoint.data_energy(mu)) * energy
    bent = math.inf if l_g is None else l_g
    if R_g is not None:
        bent = min(bent, math.exp(min(R_g * e, 700.0)) * top)
    return known(correction + adjoint.error * energy + turned + bent * e * e / 2 + rounding)


@dataclass(frozen=True)
class Nearness:
    """How near X(λ) is, by the Newton decrement (see :func:`self_concordant_bound`).

    Attributes
    ----------
    s, energy, distance : float
        s, E and e.
    grown : float
        eˢ - 1.
    """

    s: float
    energy: float
    distance: float
    grown: float

    @classmethod
    def of(cls, decrement: float, R: float, mu: float) -> Nearness | None:
        """None where κ ≥ ½, so that nothing is known."""
        root = math.sqrt(mu)
        kappa = R * decrement / root
        if not kappa < 0.5:  # eˢ = 1 / (1 - κ)
            return None
        s = -math.log1p(-kappa)
        energy = decrement * (s / kappa if kappa > 0 else 1.0)
        return cls(s, energy, energy / root, math.expm1(s))

    def swung(self, vector: Inexact, mu: float) -> float:
        """c_v."""
        crude = self.grown * vector.data_energy(mu)
        return min(crude, vector.swing * growth(self.s) * self.energy)


def _slope_change(outer: OuterConstants, e: float, top: float) -> float:
    """‖Δ∂_x g‖ ≤ min(L_g, φ(R_g e) top) e; inf where neither constant is stated."""
    l_g, R_g = outer.grad_x_lipschitz, outer.self_concordance
    steepest = math.inf if l_g is None else l_g
    if R_g is not None:
        steepest = min(steepest, growth(R_g * e) * top)
    return steepest * e


def growth(s: float) -> float:
    """(eˢ - 1) / s, inf where it overflows."""
    if s > 700:
        return math.inf
    return math.expm1(s) / s if s > 0 else 1.0
