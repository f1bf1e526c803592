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

from ..inner import InnerConstants
from ..outer import OuterConstants


def hypergradient_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    inner_error: float | None,
    residual: float,
    adjoint_norm: float,
    cross_norm: float | None,
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
    known = (mu, l_h, l_b, l_g, l_lam, inner_error, cross_norm)
    if any(constant is None for constant in known):
        return None
    assert mu is not None and l_h is not None and l_b is not None
    assert l_g is not None and l_lam is not None
    assert inner_error is not None and cross_norm is not None
    if not mu > 0:  # e^λ may underflow
        return None
    adjoint_error = (residual + (l_g + l_h * adjoint_norm) * inner_error) / mu
    direct = (l_lam + l_b * adjoint_norm) * inner_error
    return direct + (cross_norm + l_b * inner_error) * adjoint_error


def value_bound(
    outer: OuterConstants, *, inner_error: float | None, grad_x_norm: float
) -> float | None:
    """Bound |g(x, λ) - f(λ)| by ‖∂_x g‖ e + L_g e²/2, or None where L_g or e is not known.

    Examples
    --------
    >>> from bilevel.outer import OuterConstants
    >>> value_bound(OuterConstants(2.0, 0.0), inner_error=0.5, grad_x_norm=1.0)
    0.75
    """
    if inner_error is None or outer.grad_x_lipschitz is None:
        return None
    return grad_x_norm * inner_error + outer.grad_x_lipschitz * inner_error**2 / 2


def self_concordant_bound(
    inner: InnerConstants,
    outer: OuterConstants,
    *,
    decrement: float,
    adjoint_energy: float,
    adjoint_error: float,
    tangent_energy: float,
    tangent_error: float,
    tangent_curvature: float,
) -> float | None:
    r"""Bound |p_j - ∂f/∂λ_j| in the norm of the Hessian itself, for the corrected hypergradient.

    At x, with an adjoint q and a tangent t that need not be exact, take

        p_j = ∂g/∂λ_j + tᵀ ∂_x g + qᵀ r_t,   r_t = -B e_j - H t,   r_q = ∂_x g - H q.

    Then p_j differs from its value with the exact q and t by r_tᵀ H⁻¹ r_q: the product of the two
    errors. The exact one differs from ∂f/∂λ_j because x is not X(λ); with u = X(λ) - x,
    ν ≥ ‖∂_x h‖_{H⁻¹} and κ = R ν / √μ < 1, self-concordance gives s = -log(1 - κ) ≥ R ‖u‖ and
    ‖u‖_H ≤ ν s / κ (Bach 2010, proposition 2, read for the Newton decrement), and then

        |p_z - ∂f| ≤ (L_λ + L_B ‖q‖) e + (eˢ - 1) ‖t*‖_H ‖q‖_H + ‖t*‖_G √L_g e,  e = ‖u‖_H / √μ,

    where vᵀGv bounds vᵀ ∂²_{xx}g v at every x. With hessian_lipschitz in place of R the same
    bound is larger by orders of magnitude.

    Parameters
    ----------
    inner, outer : InnerConstants, OuterConstants
        What objective and criterion state of themselves.
    decrement : float
        ν.
    adjoint_energy, tangent_energy : float
        ‖q‖_H and ‖t‖_H.
    adjoint_error, tangent_error : float
        Upper bounds of ‖r_q‖_{H⁻¹} and ‖r_t‖_{H⁻¹}.
    tangent_curvature : float
        ‖t‖_G.

    Returns
    -------
    float or None
        None where a constant is not stated; inf where κ ≥ 1.

    Examples
    --------
    >>> from bilevel.inner import InnerConstants
    >>> from bilevel.outer import OuterConstants
    >>> ridge = InnerConstants(1.0, 2.0, 0.0, 0.0, self_concordance=0.0)
    >>> self_concordant_bound(ridge, OuterConstants(4.0, 0.0), decrement=0.1, adjoint_energy=1.0,
    ...     adjoint_error=0.0, tangent_energy=1.0, tangent_error=0.0, tangent_curvature=3.0)
    0.6000000000000001
    """
    mu, R, l_b = inner.mu, inner.self_concordance, inner.cross_lipschitz
    l_g, l_lam = outer.grad_x_lipschitz, outer.grad_lam_lipschitz
    if mu is None or R is None or l_b is None or l_g is None or l_lam is None:
        return None
    if not mu > 0:  # e^λ may underflow
        return None
    root = math.sqrt(mu)
    kappa = R * decrement / root
    if not kappa < 1:
        return math.inf
    s = -math.log1p(-kappa)
    energy = decrement * (s / kappa if kappa > 0 else 1.0)
    e = energy / root
    grown = math.expm1(s)
    q = adjoint_energy + adjoint_error
    t_star = (1 + grown) * (tangent_energy + tangent_error + l_b * e / root)
    t_moved = (l_b * e / root + grown * t_star + tangent_error) / root
    t_star_curved = tangent_curvature + math.sqrt(l_g) * t_moved
    return (
        adjoint_error * tangent_error
        + (l_lam + l_b * q / root) * e
        + grown * t_star * q
        + t_star_curved * math.sqrt(l_g) * e
    )
