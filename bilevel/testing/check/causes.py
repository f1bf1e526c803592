"""Likely causes: faults that leave a mark in the error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._probe import Vector, length

#: A difference from the truth that is itself known to this share tells what it is made of.
_KNOWN = 0.1


def close(a: Vector, b: Vector, rtol: float = 0.02) -> bool:
    """Whether two arrays agree well enough to name a cause."""
    return a.shape == b.shape and bool(length(a - b) <= rtol * max(length(a), length(b)))


def likely_factor(claimed: Vector, truth: Vector) -> str | None:
    """Name a constant factor between the claimed and the true vector.

    Examples
    --------
    >>> likely_factor(np.array([-1.0, 2.0]), np.array([1.0, -2.0]))
    'the sign'
    >>> likely_factor(np.array([1.01, 2.02]), np.array([1.0, 2.0]))
    'a factor 1.01'
    """
    size = length(truth)
    if not size > 0 or not math.isfinite(size):
        return None
    if length(claimed) <= 1e-8 * size:
        return "it is zero: a term is missing"
    ratio = float((claimed.reshape(-1) / size) @ (truth.reshape(-1) / size))
    if claimed.size < 2 and not _simple(ratio):
        return None
    # What is left beside the factor has to be small beside what the factor explains.
    left = length(claimed - ratio * truth)
    if left > min(0.02 * abs(ratio), _KNOWN * abs(ratio - 1)) * size:
        return None
    return _named(ratio)


def _simple(ratio: float) -> bool:
    return ratio < 0 or any(abs(ratio - simple) < 0.01 * simple for simple in (0.5, 2.0, 4.0, 0.25))


def _named(ratio: float) -> str:
    size = abs(ratio)
    sign = "the sign and " if ratio < 0 else ""
    if ratio < 0 and abs(size - 1) < 0.02:
        return "the sign"
    if abs(size - 2) < 0.04:
        return f"{sign}a factor 2 (is a ½ missing?)"
    if abs(size - 0.5) < 0.01:
        return f"{sign}a factor ½ (is there one too many?)"
    return f"{sign}a factor {size:.6g}"


def likely_ratio(ratio: float) -> str | None:
    """Name the factor by which a declared constant is wrong.

    Examples
    --------
    >>> likely_ratio(2.0), likely_ratio(1.01), likely_ratio(7.3)
    ('a factor 2 (is a ½ missing?)', 'it holds at some points but not at all', None)
    """
    if ratio <= 1.1:
        return "it holds at some points but not at all"
    return _named(ratio) if _simple(ratio) else None


def likely_mu(mu: float, low: float, lam: Vector, noise: float) -> str | None:
    """Name why μ is above an eigenvalue ``low`` of the Hessian."""
    if low <= noise:
        return "curvature is lost: a term of the Hessian has the wrong sign or is missing"
    weights = np.exp(np.clip(lam, -700, 700))
    if np.any(np.abs(mu - weights) <= 0.02 * mu) and np.any(weights < 0.98 * mu):
        return "μ is e^λ of one hyperparameter, but another one is smaller"
    if np.any(np.abs(mu - lam) <= 0.02 * mu):
        return "λ is used where e^λ is meant"
    return likely_ratio(mu / low)


def chain_cause(claimed: Vector, truth: Vector, scales: Vector) -> str | None:
    """Name a missing or a repeated derivative of e^λ, in all columns or in some."""
    if np.allclose(scales, 1.0, atol=0.02) or not np.all(np.isfinite(scales)):
        return None
    if close(claimed * scales, truth):
        return "the chain rule through exp(λ) is missing: a factor e^λ"
    if close(claimed, truth * scales):
        return "the chain rule through exp(λ) is applied twice: a factor e^λ too many"
    columns = range(truth.shape[-1])
    wrong = [j for j in columns if not close(claimed[..., j], truth[..., j], 1e-6)]
    if wrong and all(close(claimed[..., j] * scales[j], truth[..., j]) for j in wrong):
        return f"the chain rule through exp(λ) is missing for λ component {wrong[0]}"
    return None


def cross_cause(claimed: Vector, truth: Vector, scales: Vector) -> str | None:
    """Name the cause of a wrong ∂²_{xλ} h, whose columns (or entries) belong to λ."""
    chain = chain_cause(claimed, truth, scales)
    if chain:
        return chain
    if claimed.ndim == 2 and claimed.shape[0] == claimed.shape[1] and close(claimed, truth.T):
        return "transposed"
    return likely_factor(claimed, truth)


def _weights_of(off: Vector, v: Vector, lam: Vector) -> tuple[bool, bool]:
    """Whether each large entry of ``off`` is e^λ_j v, or -e^λ_j v, for some j."""
    large = np.abs(off) > 0.02 * np.max(np.abs(off), initial=0.0)
    if not np.any(large) or np.any(v[large] == 0):
        return False, False
    ratio = off[large] / v[large]
    weights = np.exp(np.clip(lam, -700, 700))

    def each(r: Vector) -> bool:
        return bool(np.all(np.min(np.abs(r[:, None] / weights - 1), axis=1) < 0.05))

    return each(ratio), each(-ratio)


@dataclass(frozen=True)
class Penalty:
    """What an error says that is e^λ v, -e^λ v, or another multiple of v: ``{}`` is the factor."""

    missing: str
    double: str
    multiple: str


GRADIENT = Penalty(
    "the gradient of the penalty, e^λ x, is missing",
    "the gradient of the penalty is counted twice: is a ½ missing?",
    "a multiple of x, {:.4g} x, is missing: the gradient of a penalty?",
)
CURVATURE = Penalty(
    "the curvature of the penalty, e^λ I, is missing",
    "the curvature of the penalty, e^λ I, is counted twice",
    "a multiple of the identity, {:.4g} I, is missing: the curvature of a penalty?",
)


def penalty_cause(of: Penalty, off: Vector, v: Vector, lam: Vector) -> str | None:
    """Name an error that is a multiple of v, x in a gradient, as that of an ℓ2 penalty is."""
    missing, double = _weights_of(off, v, lam)
    if missing:
        return of.missing
    if double:
        return of.double
    share = float(off @ v) / max(length(v) ** 2, 1e-300)
    return of.multiple.format(share) if close(off, share * v, 0.05) else None
