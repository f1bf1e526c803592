"""The fit of a model at the λ that a search has found, as tight as its precision allows."""

from __future__ import annotations

import math

from .backends import Array
from .hypergrad import Direct
from .inner import Inner
from .solvers import NewtonCG, solve

__all__ = ["fit_tightly"]

#: What helps where numbers are out of range.
MODERATE = "Scale X, y and sample_weight to numbers of moderate size."

#: Up to so many unknowns the last steps of a fit solve with the Hessian itself.
_FEW = 512


def fit_tightly(inner: Inner, lam: Array, x0: Array) -> Array:
    """Fit the model at the λ that was found, until its gradient is a rounding of that at zero.

    Of features of unlike scales the gradient is that of the largest, and the coefficients of the
    others are not near yet: where there are few, steps of Newton go as far as the precision lets
    them.
    """
    backend = inner.backend
    zero = inner.at(backend.xp.zeros_like(x0), lam)
    (scale,) = backend.scalars(backend.xp.sqrt(backend.xp.sum(zero.grad * zero.grad)))
    eps = float(backend.xp.finfo(inner.dtype).eps)
    goal = max(scale, 1e-300) * eps**0.6 / (inner.constants(lam).mu or 1.0)
    if not math.isfinite(goal):
        raise ValueError(
            f"No model was fitted: its gradient at zero overflows {inner.dtype}. {MODERATE}"
        )
    x = solve(inner, lam, x0, solver=NewtonCG(), tol=goal, max_iter=200).x
    return _polished(inner, lam, x) if math.prod(inner.x_shape) <= _FEW else x


def _polished(inner: Inner, lam: Array, x: Array) -> Array:
    """Two steps of Newton with the Hessian scaled to a diagonal of ones, where they help."""
    backend, xp = inner.backend, inner.backend.xp
    point = inner.at(x, lam)
    H = Direct().hessian(point, backend)
    diag = xp.sum(H * xp.eye(H.shape[0], dtype=H.dtype, device=backend.device), axis=1)
    d = 1 / xp.sqrt(xp.where(diag > 0, diag, xp.ones_like(diag)))
    # What rounding may leave of a singular direction (a shift of all intercepts) is kept out.
    floor = 4 * H.shape[0] * float(xp.finfo(H.dtype).eps)
    scaled = d[:, None] * H * d[None, :]
    scaled = scaled + floor * xp.eye(H.shape[0], dtype=H.dtype, device=backend.device)
    slope = d * xp.reshape(point.grad, (-1,))
    for _ in range(2):
        solved = backend.solve(scaled, slope[:, None])
        if solved is None:
            break
        ahead = inner.at(point.x - xp.reshape(d * solved[:, 0], point.x.shape), lam)
        slope_ahead = d * xp.reshape(ahead.grad, (-1,))
        before, after = backend.scalars(xp.sum(slope * slope), xp.sum(slope_ahead * slope_ahead))
        if not after < before:
            break
        point, slope = ahead, slope_ahead
    return point.x
