"""The outputs of a network along q and T, to third order: what its third derivatives are made of.

A layer is bilinear in its input and its weights, and an activation obeys the chain rule, so that
each order follows from those below it in one sweep forward. Derivatives are named by what they are
taken along; T stands for k directions, two of them for k by k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import Array, Backend


@dataclass(frozen=True)
class Jets:
    """Derivatives of a level: (n, w) along q, (k, n, w) along T and q T, (k, k, n, w) the others.

    Attributes
    ----------
    q, t, qt, tt, qtt : array
        Along q, along T_i, along both, along T_i and T_j, and along all three.
    """

    q: Array
    t: Array
    qt: Array
    tt: Array
    qtt: Array

    @classmethod
    def still(cls, rows: Array, k: int, backend: Backend) -> Jets:
        """Those of the input, which no direction moves."""
        zeros = [
            backend.xp.zeros((*lead, *rows.shape), dtype=rows.dtype, device=backend.device)
            for lead in ((), (k,), (k, k))
        ]
        return cls(zeros[0], zeros[1], zeros[1], zeros[2], zeros[2])

    def layer(self, level: Array, weights: Array, q: Any, T: Any, backend: Backend) -> Jets:
        """Those of a W + b: ``weights`` W, ``q`` and ``T`` the directions as (W, b)."""
        xp = backend.xp
        (Q, c), (V, d) = q, T

        def of_both(a: Array) -> Array:
            """a_i V_j + a_j V_i."""
            product = xp.matmul(a[:, None, ...], V[None, ...])
            return product + xp.permute_dims(product, (1, 0, 2, 3))

        return Jets(
            xp.matmul(self.q, weights) + xp.matmul(level, Q) + c,
            xp.matmul(self.t, weights) + xp.matmul(level, V) + d,
            xp.matmul(self.qt, weights) + xp.matmul(self.t, Q) + xp.matmul(self.q, V),
            xp.matmul(self.tt, weights) + of_both(self.t),
            xp.matmul(self.qtt, weights) + xp.matmul(self.tt, Q) + of_both(self.qt),
        )

    def activated(self, first: Array, second: Array, third: Array) -> Jets:
        """Those of φ, from φ', φ'' and φ''' there (Faà di Bruno)."""
        pairs = self.t[:, None, ...] * self.t[None, ...]
        crossed = self.t[:, None, ...] * self.qt[None, ...]
        crossed = crossed + self.qt[:, None, ...] * self.t[None, ...]
        return Jets(
            first * self.q,
            first * self.t,
            first * self.qt + second * self.q * self.t,
            first * self.tt + second * pairs,
            first * self.qtt + second * (self.q * self.tt + crossed) + third * self.q * pairs,
        )
