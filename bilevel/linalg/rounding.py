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

from ..backends import Array, Backend
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


def upper_norm(a: Array, backend: Backend) -> Array:
    """A number that is certainly not below ‖a‖, 0-d.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> tiny = np.full(2, 1e-30, dtype=np.float32)  # squares of it are 0
    >>> bool(upper_norm(tiny, bilevel.get_backend("numpy")) >= np.linalg.norm(tiny.astype(float)))
    True
    """
    size = math.prod(a.shape)
    grown = 1 + gamma(size + 4, unit_roundoff(a.dtype, backend))
    return grown * norm(a, backend) + underflow(a.dtype, size, backend)


def upper_norms(block: Array, backend: Backend) -> Array:
    """The same of each column of a block (…, k), shape (k,)."""
    size = math.prod(block.shape[:-1])
    grown = 1 + gamma(size + 4, unit_roundoff(block.dtype, backend))
    return grown * backend.column_norm(block) + underflow(block.dtype, size, backend)


def known(number: float) -> float:
    """The number, infinite where it is NaN: a bound that could not be computed."""
    return number if number == number else math.inf
