"""What rounding may add to sums, products and norms.

The standard model of floating-point arithmetic (Higham, *Accuracy and stability of numerical
algorithms*, 2002, chapters 2 and 3): every operation is right but for a factor 1 + δ, |δ| ≤ u, so
that a sum of n products, in whichever order, is right but for γ_n Σ |a_i b_i|, γ_n = n u/(1 - n u).
Where results underflow, each operation may be off by the smallest normal number besides. Products
in a format shorter than their dtype (TF32) are outside of the model.
"""

from __future__ import annotations

import math
from typing import Any

from ..backends import Array, Backend, Pending, each
from .products import norm


def unit_roundoff(dtype: Any, backend: Backend) -> float:
    """u: half the distance from 1 to the next number."""
    return float(backend.xp.finfo(dtype).eps) / 2


def gamma(terms: int, unit: float) -> float:
    """γ_n = n u / (1 - n u), infinite where the model says nothing.

    Examples
    --------
    >>> gamma(2, 0.25), gamma(4, 0.25)
    (1.0, inf)
    """
    product = terms * unit
    return product / (1 - product) if product < 1 else math.inf


def underflow(dtype: Any, size: int, backend: Backend) -> float:
    """√(size times the smallest normal number): a norm below may have lost all its squares."""
    return math.sqrt(size * float(backend.xp.finfo(dtype).smallest_normal))


def upper_norm(a: Array, backend: Backend) -> Pending:
    """A number that is certainly not below ‖a‖.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> tiny = np.full(2, 1e-30, dtype=np.float32)  # squares of it are 0
    >>> backend = bilevel.get_backend("numpy")
    >>> (above,) = backend.scalars(upper_norm(tiny, backend))
    >>> bool(above >= np.linalg.norm(tiny.astype(float)))
    True
    """
    return above(norm(a, backend), a.dtype, math.prod(a.shape), backend)


def upper_norms(block: Array, backend: Backend) -> Pending:
    """The same of each column of a block (…, k), shape (k,)."""
    return above(backend.column_norm(block), block.dtype, math.prod(block.shape[:-1]), backend)


def above(norm: Array | Pending, dtype: Any, size: int, backend: Backend) -> Pending:
    """Norms of so many entries, and what their sums may have lost."""
    grown = 1 + gamma(size + 4, unit_roundoff(dtype, backend))
    least = underflow(dtype, size, backend)
    return each(lambda found: grown * found + least, norm)


def known(number: float) -> float:
    """The number, infinite where it is NaN: a bound that could not be computed."""
    return number if number == number else math.inf
