"""Inner products and norms of arrays of any shape, on the device."""

from __future__ import annotations

from ..backends import Array, Backend


def dot(a: Array, b: Array, backend: Backend) -> Array:
    """Return ⟨a, b⟩ of two arrays of one shape, 0-d."""
    return backend.dot(a, b)


def dots(a: Array, q: Array, backend: Backend) -> Array:
    """Return ⟨a, q⟩ for q of the shape of a, 0-d; (k,) where q has one more axis."""
    xp = backend.xp
    if q.ndim == a.ndim:
        return dot(a, q, backend)
    return xp.matmul(xp.reshape(a, (-1,)), xp.reshape(q, (-1, q.shape[-1])))


def grams(a: Array, b: Array, backend: Backend) -> Array:
    """Return ⟨a_i, b_j⟩ of arrays whose last axis counts several, (k, l)."""
    first, second = (backend.xp.reshape(c, (-1, c.shape[-1])) for c in (a, b))
    return backend.xp.matmul(first.T, second)


def norm(a: Array, backend: Backend) -> Array:
    """Return ‖a‖, 0-d.

    Of few entries, as hypergradients have them, to full range: squares underflow from 1e-23 on in
    float32, and a slope that is not zero must not seem to be.
    """
    return backend.norm(a)
