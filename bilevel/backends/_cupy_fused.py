"""The operations of :mod:`._fused` on CuPy, one launch each.

What the kernels are not written for (strides, other dtypes, more columns than a block has threads)
is left to the bodies by the standard.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _cupy_kernels as kernels
from ._fused import FEW, Fused
from ._protocol import Array

#: The formulas that have a kernel of one argument.
_OF_ONE = frozenset({"expit_of", "softplus_of"})

#: Arrays that one launch joins; CuPy copies up to eight one by one, more of them at once.
_JOINED = 8


class CuPyFused(Fused):
    """The same as :class:`Fused`, by kernels."""

    def expit(self, t: Array) -> Array:
        return self.fused("expit_of", super().expit, t)  # type: ignore[misc]

    def softplus(self, t: Array) -> Array:
        return self.fused("softplus_of", super().softplus, t)  # type: ignore[misc]

    def fused(self, name: str, formula: Callable[..., Array], *arrays: Array) -> Array:
        y, t = arrays[0], arrays[0 if name in _OF_ONE else 1]
        every = _every(y, t)
        if every == 0 or not kernels.has(name) or not kernels.takes(y, t):
            return formula(*arrays)
        constant = kernels.number(arrays[2] if len(arrays) > 2 else 0.0, t.dtype)
        out = self.xp.empty(t.shape, dtype=t.dtype)
        blocks = kernels.blocks_for(t.size)
        kernels.launch(name, t.dtype, blocks, y, t, constant, t.size, every, out)
        return out

    def joined(self, arrays: list[Array]) -> Array:
        if not 1 < len(arrays) <= _JOINED or not kernels.takes(*arrays):
            return super().joined(arrays)
        sizes = [a.size for a in arrays]
        out = self.xp.empty((sum(sizes),), dtype=arrays[0].dtype)
        missing = _JOINED - len(arrays)
        filled = (*arrays, *arrays[:1] * missing), (*sizes, *(0,) * missing)
        lengths = map(np.int32, filled[1])
        kernels.launch("joined", out.dtype, 1, *filled[0], *lengths, out)
        return out

    def dot(self, a: Array, b: Array) -> Array:
        columns = self.column_dot(a.reshape(-1, 1), b.reshape(-1, 1))
        return columns.reshape(())

    def norm(self, a: Array) -> Array:
        return self.column_norm(a.reshape(-1, 1)).reshape(())

    def column_dot(self, u: Array, v: Array) -> Array:
        k = u.shape[-1]
        if u.shape != v.shape or not kernels.takes_blocks(k, u, v):
            return super().column_dot(u, v)
        out = self.xp.empty((k,), dtype=u.dtype)
        space = kernels.summed(u.dtype)
        blocks = kernels.blocks_for(u.size)
        kernels.launch("column_dot", u.dtype, blocks, u, v, u.size, k, *space, out)
        return out

    def column_norm(self, a: Array) -> Array:
        k = a.shape[-1]
        if not kernels.takes_blocks(k, a):
            return super().column_norm(a)
        out = self.xp.empty((k,), dtype=a.dtype)
        few = a.size <= FEW * k  # one block of threads scales them
        blocks = 1 if few else max(2, kernels.blocks_for(a.size))
        space = kernels.summed(a.dtype)
        kernels.launch("column_norm", a.dtype, blocks, a, a.size, k, *space, out)
        return out

    def absolute_sums(self, v: Array, weights: Array | None = None) -> Array:
        k = math.prod(v.shape[1:])
        given = v if weights is None else weights
        if not kernels.takes_blocks(k, v, given) or given.shape[0] != v.shape[0]:
            return super().absolute_sums(v, weights)
        out = self.xp.empty(v.shape[1:], dtype=v.dtype)
        space = kernels.summed(v.dtype)
        blocks = kernels.blocks_for(v.size)
        weighed = np.int32(weights is not None)
        kernels.launch("absolute_sums", v.dtype, blocks, given, v, weighed, v.size, k, *space, out)
        return out

    def cg_length(
        self, curvature: Array, rz: Array, square: Array, top: Array, least: float
    ) -> tuple[Array, Array, Array]:
        if not kernels.takes(curvature, rz, square, top):
            return super().cg_length(curvature, rz, square, top, least)
        k, dtype = rz.size, rz.dtype
        out = self.xp.empty((3, k), dtype=dtype)
        limit = kernels.number(least, dtype)
        kernels.launch("cg_length", dtype, 1, curvature, rz, square, top, limit, k, out)
        return out[0, :], out[1, :], out[2, :]

    def cg_advance(
        self, alpha: Array, p: Array, ap: Array, x: Array, r: Array, work: Array | None = None
    ) -> tuple[Array, Array, Array]:
        k = r.shape[-1]
        if not kernels.takes_blocks(k, r, x, p, alpha):
            return super().cg_advance(alpha, p, ap, x, r, work)
        rr = self.xp.empty((k,), dtype=r.dtype)
        # A sparse product is in columns.
        ap = importlib.import_module("cupy").ascontiguousarray(ap, dtype=r.dtype)
        space = kernels.summed(r.dtype)
        blocks = kernels.blocks_for(r.size)
        kernels.launch("cg_advance", r.dtype, blocks, alpha, p, ap, x, r, r.size, k, *space, rr)
        return x, r, rr

    def cg_turn(
        self, z: Array, p: Array, rz: Array, before: Array, square: Array
    ) -> tuple[Array, Array]:
        k = p.shape[-1]
        if not kernels.takes_blocks(k, p, z, rz, before, square):
            return super().cg_turn(z, p, rz, before, square)
        out = self.xp.empty((k,), dtype=p.dtype)
        blocks = kernels.blocks_for(p.size)
        kernels.launch("cg_turn", p.dtype, blocks, z, p, rz, before, square, p.size, k, out)
        return p, out

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        k = _period(alpha, y)
        if k == 0 or x.shape != y.shape or not kernels.takes(y, x, alpha):
            return super().axpy(alpha, x, y, work)
        kernels.launch("axpy", y.dtype, kernels.blocks_for(y.size), alpha, x, y, y.size, k)
        return y

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        k = _period(alpha, y)
        if k == 0 or x.shape != y.shape or not kernels.takes(y, x, alpha):
            return super().xpay(x, alpha, y)
        kernels.launch("xpay", y.dtype, kernels.blocks_for(y.size), x, alpha, y, y.size, k)
        return y


def _period(alpha: Any, y: Array) -> int:
    """After how many entries of y those of alpha begin anew, 0 where the kernels can't say."""
    shape = getattr(alpha, "shape", None)
    if shape is None:
        return 0  # a number of Python
    size = math.prod(shape)
    return size if size == 1 or shape == y.shape[-1:] else 0


def _every(y: Array, t: Array) -> int:
    """How many entries of t share one of y, 0 where the kernels can't say."""
    if y.shape == t.shape:
        return 1
    return t.shape[-1] if t.ndim and y.shape == (*t.shape[:-1], 1) else 0
