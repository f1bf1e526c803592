"""Factors of small dense matrices."""

from __future__ import annotations

from ..backends import Array, Backend


def cholesky(H: Array, backend: Backend) -> Array | None:
    """Return the factor, or None where H is not positive definite: libraries raise or give NaN."""
    xp = backend.xp
    try:
        factor = xp.linalg.cholesky(H)
    except (ValueError, RuntimeError):  # LinAlgError of NumPy and of torch
        return None
    return factor if bool(xp.all(xp.isfinite(factor))) else None
