"""The check of row weights that all models share."""

from __future__ import annotations

from ..backends import Array, Backend


def refuse_bad_weights(weights: Array, backend: Backend, name: str = "sample_weight") -> None:
    """Refuse row weights that are negative, not finite, or all 0 in one of the problems."""
    xp = backend.xp
    if not bool(xp.all(xp.isfinite(weights) & (weights >= 0))):
        raise ValueError(f"{name} must be finite and not negative.")
    if not bool(xp.all(xp.max(weights, axis=0) > 0)):
        raise ValueError(f"{name} must be positive in one row at least of each problem, got 0.")
