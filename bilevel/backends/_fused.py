"""What one launch of a kernel can do, though the standard takes several calls for it.

On a GPU a launch costs some microseconds, whatever it does: an iteration that makes forty of them
waits for Python on all but the largest data. The bodies here are by the standard; a backend whose
launches cost has kernels of its own for them, which compute the same.

Blocks have their columns along the last axis, (…, k); numbers of columns are (k,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ._protocol import Array

#: Up to so many entries a norm is taken of the scaled array.
FEW = 1024


class Fused:
    """The bodies by the standard, for every backend."""

    xp: Any

    def fused(self, name: str, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Return ``formula(*arrays)``, which works entry by entry.

        ``name`` is that of the kernel which some backend has for the formula.
        """
        return formula(*arrays)

    def joined(self, arrays: list[Array]) -> Array:
        """The entries of small arrays, one after the other."""
        flat = [self.xp.reshape(array, (-1,)) for array in arrays]
        return self.xp.concat(flat) if len(flat) > 1 else flat[0]

    def dot(self, a: Array, b: Array) -> Array:
        """⟨a, b⟩ of two arrays of one shape, 0-d."""
        return self.xp.vecdot(self.xp.reshape(a, (-1,)), self.xp.reshape(b, (-1,)))

    def norm(self, a: Array) -> Array:
        """‖a‖, 0-d; of few entries to full range, as :meth:`column_norm`."""
        xp = self.xp
        if not 0 < math.prod(a.shape) <= FEW:
            return xp.sqrt(self.dot(a, a))
        top = xp.max(xp.abs(a))
        scale = self._scale(top)
        scaled = a / scale
        return scale * xp.sqrt(self.dot(scaled, scaled))

    def _scale(self, top: Array) -> Array:
        """The largest entry, by which squares are in range; 1 where it is none to divide by."""
        xp = self.xp
        return xp.where((top > 0) & (top < math.inf), top, xp.ones_like(top))

    def column_dot(self, u: Array, v: Array) -> Array:
        """Inner products of the columns of two blocks of one shape, (k,)."""
        shape = (-1, u.shape[-1])
        return self.xp.vecdot(self.xp.reshape(u, shape), self.xp.reshape(v, shape), axis=-2)

    def column_norm(self, a: Array) -> Array:
        """Norms of the columns, (k,).

        Of few entries, as hypergradients have them, to full range: squares underflow from 1e-23 on
        in float32, and a slope that is not zero must not seem to be.
        """
        xp = self.xp
        if not 0 < math.prod(a.shape[:-1]) <= FEW:
            return xp.sqrt(self.column_dot(a, a))
        flat = xp.reshape(a, (-1, a.shape[-1]))
        top = xp.max(xp.abs(flat), axis=0)
        scale = self._scale(top)
        scaled = flat / scale
        return scale * xp.sqrt(self.column_dot(scaled, scaled))

    def absolute_sums(self, v: Array, weights: Array | None = None) -> Array:
        """Σ_i abs(w_i v_i) over the first axis, of weights (p,) or of 1."""
        xp = self.xp
        if weights is None:
            return xp.sum(xp.abs(v), axis=0)
        return xp.sum(xp.abs(weights[(slice(None), *(None,) * (v.ndim - 1))] * v), axis=0)

    def stepped(self, x: Array, t: float, d: Array) -> Array:
        """A new array x + t d, for arrays of one shape."""
        return self.fused("step_along", lambda x, d, t: x + t * d, x, d, t)

    def cg_length(
        self, curvature: Array, rz: Array, square: Array, top: Array, least: float
    ) -> tuple[Array, Array, Array]:
        """Lengths α of a step of CG along directions p of this pᵀA p, (k,) each.

        Also how little A bends along them, pᵀA p / ``square``, as a share of the most that it did,
        and that most, until now ``top``. α is 0 where the share is not above ``least``.
        """
        xp, one = self.xp, self.xp.ones_like(rz)
        bend = curvature / xp.where(square > 0, square, one)
        top = xp.maximum(top, xp.abs(bend))
        share = bend / xp.where(top > 0, top, one)
        bent = share <= least
        alpha = xp.where(bent, xp.zeros_like(rz), rz / xp.where(bent, one, curvature))
        return alpha, share, top

    def scratch(self, like: Array) -> Array | None:
        return None

    def cg_advance(
        self, alpha: Array, p: Array, ap: Array, x: Array, r: Array, work: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """x + α p, r - α A p and the squares of the new r, (k,); x and r are overwritten.

        A p is not: it is whatever a product from outside has returned, and may be kept there.
        """
        r = self.axpy(-alpha, ap, r, work)
        x = self.axpy(alpha, p, x, work)
        return x, r, self.column_dot(r, r)

    def cg_turn(
        self, z: Array, p: Array, rz: Array, before: Array, square: Array
    ) -> tuple[Array, Array]:
        """The next directions z + β p, β = rz / before, and their ‖p‖²_M; p is overwritten."""
        beta = rz / self.xp.where(before > 0, before, self.xp.ones_like(before))
        return self.xpay(z, beta, p), rz + beta * beta * square

    # -- vector updates: += works in place where arrays are mutable, and rebinds elsewhere -----

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        y += alpha * x
        return y

    def with_row(self, block: Array, i: int, row: Array) -> Array:
        """Return a block (k, n) with another row i: a new one, since not every library can write.

        One that can has :class:`~bilevel.backends._blocks.Writable` before this.
        """
        return self.xp.concat([block[:i, ...], row[None, ...], block[i + 1 :, ...]], axis=0)

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        y *= alpha
        y += x
        return y
