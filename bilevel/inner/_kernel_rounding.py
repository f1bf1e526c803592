"""How far the entries of a kernel matrix may be from what they are."""

from __future__ import annotations

from ..backends import Array, Backend
from ..linalg.rounding import gamma, unit_roundoff
from ..losses._protocol import ELEMENTARY
from .kernels import RBF, Kernel, Matern32, Matern52

#: sup |dk/da| of the kernels of a = c γ ‖x - z‖.
_SLOPES: dict[type, float] = {Matern32: 0.37, Matern52: 0.33}


def entry_rounding(kernel: Kernel, X: Array, theta: Array, backend: Backend) -> Array | None:
    """An upper bound of the error of each entry and of its derivative, 0-d; None if not known.

    A square distance may be in error by γ (‖x‖ + ‖z‖)², however it is computed, at most 4 γ times
    the largest ‖x‖². RBF loses e^θ times that. A distance loses at most the root of it, where
    points nearly coincide, and the slope of a Matérn kernel is bounded in the distance.
    """
    xp = backend.xp
    terms = gamma(X.shape[1] + 16, unit_roundoff(X.dtype, backend))
    own = ELEMENTARY * unit_roundoff(X.dtype, backend)
    off = 4 * terms * xp.max(xp.sum(X * X, axis=1)) * (1 + terms)
    scale = xp.exp(theta[0])
    if isinstance(kernel, RBF):
        # |d/da (a e^{-a})| ≤ 1, and e^θ is right to a few units: a loses a share of a e^{-a} < 1.
        return 1.01 * scale * off + 2 * own
    slope = _SLOPES.get(type(kernel))
    if slope is None:
        return None
    # The derivative of -a² e^{-a} is at most 0.47, of the other one less.
    return 5**0.5 * scale * xp.sqrt(off) + 4 * own
