"""How far a point may be from X(λ): strong convexity turns its gradient into a distance."""

from __future__ import annotations

import math

from ..backends import Backend, Pending
from ..inner import InnerPoint, Rounded
from ..linalg.rounding import known, upper_norm


def certain_slope(point: InnerPoint, backend: Backend) -> tuple[float, float] | None:
    """An upper bound of ‖∂_x h‖ and the rounding that it holds, None where that is not known."""
    found = point.rounding(point.x[..., None]) if isinstance(point, Rounded) else None
    if found is None:
        return None
    slope, lost = backend.scalars(grad_size(point, backend), found.grad)
    return known(slope + lost), known(lost)


def grad_size(point: InnerPoint, backend: Backend) -> Pending:
    """An upper bound of ‖∂_x h‖ but for its rounding, which the point keeps."""
    kept: dict[str, Pending] = getattr(point, "__dict__", {})
    if "_grad_size" not in kept:
        kept["_grad_size"] = upper_norm(point.grad, backend)
    return kept["_grad_size"]


def distance_bound(mu: float | None, slope: float | None) -> float | None:
    """‖∂_x h‖ / μ ≥ ‖x - X(λ)‖; None where one of the two is not known.

    Parameters
    ----------
    mu : float or None
        μ; zero, where e^λ has underflowed, bounds nothing.
    slope : float or None
        An upper bound of ‖∂_x h‖ that holds its rounding.

    Examples
    --------
    >>> distance_bound(2.0, 1.0), distance_bound(None, 1.0), distance_bound(0.0, 1.0)
    (0.500000000000005, None, inf)
    """
    if mu is None or slope is None:
        return None
    # μ = e^λ, and the division, are right to a few units.
    return known(slope / mu * (1 + 1e-14)) if mu > 0 else math.inf


def point_error(point: InnerPoint, mu: float | None, backend: Backend) -> float | None:
    """The bound of ‖x - X(λ)‖ at a point, None where μ or its rounding is not known."""
    found = None if mu is None else certain_slope(point, backend)
    return None if found is None else distance_bound(mu, found[0])
