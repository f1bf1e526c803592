"""The Hessian of f(λ) = g(X(λ), λ), from an adjoint and the tangents of the path λ ↦ X(λ).

With H q = ∂_x g and H t_i = -∂²_{xλ_i} h, differentiate ∇f = ∂_λ g + Tᵀ ∂_x g once more. It then
holds the second derivatives of X, which solve systems with H as well, and q has been solved for:

    H ∂²_{ij} X = -(∂³_{xxx} h [t_i, t_j] + ∂³_{xxλ_i} h t_j + ∂³_{xxλ_j} h t_i + ∂³_{xλ_iλ_j} h),
    ⟨∂_x g, ∂²_{ij} X⟩ = ⟨q, H ∂²_{ij} X⟩.

So F is the Hessian of g - qᵀ ∂_x h in (x, λ), q fixed, along the path, and needs no further solve.
"""

from __future__ import annotations

from ..backends import Array, get_backend
from ..inner import Bending, InnerPoint
from ..outer import BendingOuter, OuterPoint


def hessian(
    point: InnerPoint,
    outer: OuterPoint,
    q: Array,
    T: Array,
    *,
    pushed: Array | None = None,
    D: Array | None = None,
) -> Array | None:
    """Return F = ∂²f/∂λ², or Dᵀ F D, without a solve; None where h or g lacks what it takes.

        F = Tᵀ G T - bend(q, T) + (E + Eᵀ) - (C + Cᵀ) + g_λλ - fold(q)

    with G = ∂²_{xx} g, E = (∂²_{xλ} g)ᵀ T and C_{ji} = qᵀ (∂³_{xxλ_j} h) t_i; with D each term is
    taken along it. It is as exact as x, q and T are: its error is of first order in theirs.

    Parameters
    ----------
    point : InnerPoint
        h at (x, λ), :class:`~bilevel.inner.Bending`.
    outer : OuterPoint
        g there, :class:`~bilevel.outer.BendingOuter`.
    q : array, the shape of x
        The adjoint, H q = ∂_x g.
    T : array, shape ``(*x_shape, k)``
        The tangents, H T = -(∂²_{xλ} h) D.
    pushed : array, optional
        What ``point.push`` gave of q and T side by side, q first: it saves a pass.
    D : array, shape (m, k), optional
        The directions of λ that T belongs to; the unit vectors when omitted, k = m.

    Returns
    -------
    array, shape (k, k), or None

    Examples
    --------
    f(λ) = ½ x², x = e^{-λ}, the minimiser of e^λ/2 x² - x:

    >>> import bilevel, numpy as np
    >>> h = bilevel.inner.from_functions(
    ...     lambda x, lam: (np.exp(lam[0]) / 2 * x[0] ** 2 - x[0], np.exp(lam) * x - 1),
    ...     like=np.zeros(1), x_shape=(1,), n_hyperparameters=1,
    ...     bend=lambda x, lam, q, v: 0 * v,
    ...     cross_bend=lambda x, lam, q, v: np.exp(lam) * q * v,
    ...     fold=lambda x, lam, q, d: np.exp(lam) * q * x * d,
    ... )
    >>> g = bilevel.outer.from_functions(
    ...     lambda x, lam: (x[0] ** 2 / 2, x), like=np.zeros(1), hvp=lambda x, lam, v: v,
    ...     cross_vjp=lambda x, lam, v: 0 * lam, lam_hvp=lambda x, lam, d: 0 * d,
    ... )
    >>> x, lam = np.array([0.5]), np.log(np.array([2.0]))
    >>> hessian(h.at(x, lam), g.at(x, lam), x / 2, -x[:, None]).round(9)  # 2 e^{-2λ}
    array([[0.5]])
    """
    if not isinstance(point, Bending) or not isinstance(outer, BendingOuter):
        return None
    xp = get_backend(q).xp
    units = xp.eye(point.lam.shape[0], dtype=q.dtype, device=get_backend(q).device)
    directions = units if D is None else D
    plain = outer.gram(T), outer.cross_gram(T), outer.fold(directions)
    bent = point.bend(q, T, pushed), point.cross_bend(q, T), point.fold(q, directions)
    parts = [g - h for g, h in zip(plain, bent, strict=True) if g is not None and h is not None]
    if len(parts) < len(plain):
        return None
    curved, mixed, direct = parts
    mixed = xp.matmul(directions.T, mixed)
    return curved + mixed + mixed.T + xp.matmul(directions.T, direct)
