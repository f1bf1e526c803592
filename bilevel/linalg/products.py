"""Inner products and norms of arrays of any shape, on the device."""

from __future__ import annotations

from ..backends import Array, Backend


def dot(a: Array, b: Array, backend: Backend) -> Array:
    """Return ⟨a, b⟩ of two arrays of one shape, 0-d."""
    xp = backend.xp
    return xp.vecdot(xp.reshape(a, (-1,)), xp.reshape(b, (-1,)))


def dots(a: Array, q: Array, backend: Backend) -> Array:
    """Return ⟨a, q⟩ for q of the shape of a, 0-d; (k,) where q has one more axis."""
    xp = backend.xp
    if q.ndim == a.ndim:
        return dot(a, q, backend)
    return xp.matmul(xp.reshape(a, (-1,)), xp.reshape(q, (-1, q.shape[-1])))


def norm(a: Array, backend: Backend) -> Array:
    """Return ‖a‖, 0-d."""
    return backend.xp.sqrt(dot(a, a, backend))
