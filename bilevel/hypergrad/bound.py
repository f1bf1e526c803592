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
