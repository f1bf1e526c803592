"""How far rounding reaches in products with a design matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array, Backend, Pending, backend_of, pending
from ..linalg import norm
from ..linalg.rounding import gamma, underflow, unit_roundoff
from ._protocol import Design, Summing
from ._recount import recounted
from ._wrapper import Wrapper
from .intercept import WithIntercept
from .mixed import MixedPrecision
from .standardized import Standardized


@dataclass(frozen=True)
class Reach:
    """Bounds of the rounding errors of X v and Xᵀ r, from norms that are computed once.

    With |X| the entries as they enter the sums, without their signs, and κ_j the norms of its
    columns, ‖|X| |v|‖ ≤ κᵀ|v| and ‖|X|ᵀ |r|‖ ≤ ‖κ‖ ‖r‖, so that

        ‖fl(X v) - X v‖ ≤ forward · κᵀ|v|,    ‖fl(Xᵀ r) - Xᵀ r‖ ≤ backward · ‖κ‖ ‖r‖.

    The first does not change when columns are scaled and v with them.

    Attributes
    ----------
    columns : array, shape (p,)
        Upper bounds of κ.
    total : float
        Upper bound of ‖κ‖, that of the Frobenius norm of |X|.
    forward, backward : float
        γ of the two products.
    unit : float
        The unit roundoff of the arrays that X multiplies.
    random : float
        What stands for ``forward`` where roundings are random: √n u in place of n u.
    proven : bool
        Whether the design says that its products are sums of products of its entries
        (:class:`Summing`). What another one does nobody knows: the bounds are estimates.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> reach = Reach.of(bilevel.as_design(np.eye(2)))
    >>> bool(abs(reach(np.array([3.0, -4.0])) - 7.0) < 1e-12)
    True
    """

    columns: Array
    total: float
    forward: float
    backward: float
    unit: float
    random: float = 0.0
    proven: bool = True

    @classmethod
    def of(cls, design: Design) -> Reach:
        backend, (n, p) = design.backend, design.shape
        columns = _column_norms(design)
        (total,) = backend.scalars(backend.xp.sqrt(backend.xp.sum(columns * columns)))
        unit = unit_roundoff(design.dtype, backend)
        inside = _unit(design)
        total = total * (1 + gamma(p + 4, unit)) + underflow(design.dtype, p, backend)
        # Two sums more where columns are centred on the fly.
        terms = _terms(design) + 8
        forward, backward = gamma(terms, inside), gamma(n + 8, inside)
        known = isinstance(_bare(design), Summing)
        return cls(columns, total, forward, backward, unit, math.sqrt(terms) * inside, known)

    def scaled_total(self, scale: Array | None) -> Pending | float:
        """‖κ‖ with each column times its scale, of the shape of x: the largest of all problems."""
        if scale is None:
            return self.total
        xp = self.backend.xp
        heights = self.columns[(slice(None), *(None,) * (scale.ndim - 1))] * scale
        longest = xp.max(xp.sqrt(xp.sum(heights * heights, axis=0)))
        return (1 + self.backward) * pending(longest)

    def likely(self, v: Array) -> Pending:
        """About ‖fl(X v) - X v‖ of all columns: no bound, where ``forward`` is far above."""
        columns = self.columns[(slice(None), *(None,) * (v.ndim - 1))]
        return self.random * pending(norm(columns * v, self.backend))

    def __call__(self, v: Array) -> Array:
        """An upper bound of κᵀ|v|, of the shape of v but for its first axis."""
        return self.backend.absolute_sums(v, self._upper)

    def drift(self, v: Array) -> Array:
        """``forward`` times that: an upper bound of ‖fl(X v) - X v‖."""
        return self.backend.absolute_sums(v, self._drifting)

    @cached_property
    def backend(self) -> Backend:
        return backend_of(columns=self.columns)

    @cached_property
    def _upper(self) -> Array:
        """κ, and what the sum with it may lose."""
        return (1 + gamma(self.columns.shape[0] + 8, self.unit)) * self.columns

    @cached_property
    def _drifting(self) -> Array:
        return self.forward * self._upper


def _terms(design: Design) -> int:
    """The most terms that the sum of a row has."""
    if isinstance(design, Standardized):
        return design.shape[1]
    if isinstance(design, Wrapper):
        return _terms(design.base) + 1  # an intercept at most
    return design.longest_row if isinstance(design, Summing) else design.shape[1]


def _bare(design: Design) -> Design:
    """The matrix itself, without what is wrapped around it."""
    return _bare(design.base) if isinstance(design, Wrapper) else design


def _unit(design: Design) -> float:
    """The unit roundoff of the products."""
    if isinstance(design, MixedPrecision):
        return unit_roundoff(design.base.dtype, design.backend)
    if isinstance(design, Wrapper):
        return _unit(design.base)
    return unit_roundoff(design.dtype, design.backend)


def _column_norms(design: Design) -> Array:
    """Upper bounds of κ, off the counter: they belong to the data."""
    backend, xp = design.backend, design.backend.xp
    n = design.shape[0]
    if isinstance(design, WithIntercept):
        top = _column_norms(design.base)
        return xp.concat([top, xp.full_like(top[:1], math.sqrt(n))], axis=0)
    if isinstance(design, Standardized):
        # X - 1 meanᵀ is never formed: both terms enter the sums as they are.
        both = _column_norms(design.base) + math.sqrt(n) * xp.abs(design.mean)
        return (1 + 8 * unit_roundoff(design.dtype, backend)) * (both / design.scale)
    if isinstance(design, Wrapper):
        return xp.astype(_column_norms(design.base), design.dtype)
    ones = xp.ones(n, dtype=design.dtype, device=backend.device)
    squares = recounted(design).gram_diag(ones)
    grown = 1 + gamma(n + 8, unit_roundoff(design.dtype, backend))
    return grown * xp.sqrt(squares) + underflow(design.dtype, n, backend)
