"""Projections on a convex domain."""

from __future__ import annotations

from collections.abc import Callable

from ..reference import Host, norm
from .violation import Figures, require


def projection(
    project: Callable[[Host], Host],
    a: Host,
    b: Host,
    inside: Host,
    *,
    contains: Callable[[Host], bool] | None = None,
    rounding: float = 1e-12,
) -> Figures:
    """P maps into D, is nonexpansive and idempotent, and ⟨a - P a, α - P a⟩ ≤ 0 for α in D.

    Parameters
    ----------
    project : callable
        P, on host arrays.
    a, b : array
        Any two points.
    inside : array
        A point of D.
    contains : callable, optional
        Whether a point is in D, up to rounding; without it the first part is not tested.
    rounding : float
        Relative allowance.

    Examples
    --------
    >>> import numpy as np
    >>> clip = lambda v: np.clip(v, 0, 1)
    >>> projection(clip, np.array([2.0]), np.array([0.5]), np.array([0.25]))["distance"]
    0.5
    """
    pa, pb = project(a), project(b)
    scale = 1 + norm(a) + norm(b) + norm(inside)
    slack = rounding * scale
    require(contains is None or contains(pa), "P a is in D", size=norm(pa))
    moved, apart = norm(pa - pb), norm(a - b)
    require(moved <= apart + slack, "P is nonexpansive", moved=moved, apart=apart)
    again = norm(project(pa) - pa)
    require(again <= slack, "P is idempotent", moved=again)
    kept = norm(project(inside) - inside)
    require(kept <= slack, "P leaves a point of D where it is", moved=kept)
    angle = float((a - pa) @ (inside - pa))
    require(angle <= slack * scale, "⟨a - P a, α - P a⟩ ≤ 0", product=angle)
    return {"distance": moved, "product": angle}
