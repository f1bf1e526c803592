"""The step in several hyperparameters: L-BFGS with projection and an inexact Armijo test.

The direction is that of Liu and Nocedal (1989) on the coordinates that the projection leaves
free (Bertsekas 1982), the gradient's own where that does not descend. A step is taken back only
where the values differ by more than their errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..backends import Array, Backend
from ..domains import Domain
from ..linalg import dot, two_loops


@dataclass(frozen=True)
class ProjectedState:
    """What the rule remembers.

    Attributes
    ----------
    trust : float
        The longest step, in the largest coordinate.
    pairs : tuple of (array, array)
        (Δλ, Δp), the oldest first.
    lam, hypergrad : array or None
        The last accepted iterate.
    value, value_error : float
        f there, and its error.
    error : float
        Of ``hypergrad``.
    rejected : int
        Steps taken back since.
    """

    trust: float
    pairs: tuple[tuple[Array, Array], ...] = ()
    lam: Array | None = None
    hypergrad: Array | None = None
    value: float = 0.0
    value_error: float = 0.0
    error: float = 0.0
    rejected: int = 0


def observe(
    state: ProjectedState,
    lam: Array,
    p: Array,
    value: float,
    value_error: float,
    error: float,
    backend: Backend,
    memory: int,
) -> tuple[ProjectedState, bool]:
    """Take in an iterate; False where it has to be taken back."""
    fresh = ProjectedState(state.trust, state.pairs, lam, p, value, value_error, error)
    if state.lam is None or state.hypergrad is None:
        return fresh, True
    s, y = lam - state.lam, p - state.hypergrad
    predicted, length, sy, yy = backend.scalars(
        dot(state.hypergrad, s, backend),
        backend.xp.max(backend.xp.abs(s)),
        dot(s, y, backend),
        dot(y, y, backend),
    )
    slack = value_error + state.value_error
    grew = value > state.value + 1e-4 * predicted + slack
    # After three shorter steps that also failed it is the value of the anchor that was wrong.
    if grew and state.rejected < 3:
        shorter = replace(state, trust=length / 4, rejected=state.rejected + 1)
        return shorter, False
    # A difference of p that is all error says nothing of the curvature. The errors of neighbours
    # mostly cancel in it: with a factor of 1 short steps taught nothing, and stayed short.
    if sy > 1e-8 * yy and sy > 0 and error + state.error < 4 * yy**0.5:
        fresh = replace(fresh, pairs=(*state.pairs, (s, y))[-memory:])
    return replace(fresh, trust=min(2 * state.trust, 4.0)), True


def free(lam: Array, p: Array, domain: Domain, backend: Backend) -> Array:
    """1 for the coordinates that a small step along -p changes, 0 for those that D holds."""
    xp = backend.xp
    (largest,) = backend.scalars(xp.max(xp.abs(p)))
    if largest == 0:
        return xp.zeros_like(p)
    probe = domain.project(lam - p * (1e-3 / largest), backend) - lam
    return xp.where(probe == 0, xp.zeros_like(p), xp.ones_like(p))


def propose(state: ProjectedState, domain: Domain, backend: Backend) -> tuple[Array, float | None]:
    """The next λ in D, and the decrease that the model promises (None without a model)."""
    xp = backend.xp
    lam, p = state.lam, state.hypergrad
    assert lam is not None and p is not None
    inside = free(lam, p, domain, backend)
    d = -_newton(state.pairs, p * inside, backend) * inside
    length, largest = backend.scalars(xp.max(xp.abs(d)), xp.max(xp.abs(p * inside)))
    if largest == 0:
        return lam, 0.0
    decrement = None
    if state.pairs and length < float("inf"):
        (decrement,) = backend.scalars(-dot(p, d, backend) / 2)
        d = d * min(1.0, state.trust / length)
    else:
        # Nothing is known of the curvature: a plateau has a small p and asks for no small step.
        d = -p * inside * (state.trust / largest)
    target = domain.project(lam + d, backend)
    (slope,) = backend.scalars(dot(p, target - lam, backend))
    if not slope < 0:  # the projection bent the direction upwards: its own gradient step descends
        target = domain.project(lam - p * (state.trust / largest), backend)
    return target, decrement


def _newton(pairs: tuple[tuple[Array, Array], ...], p: Array, backend: Backend) -> Array:
    """H p, H the inverse Hessian that the pairs imply."""
    if not pairs:
        return p
    products = [dot(s, y, backend) for s, y in pairs]
    newest = pairs[-1][1]
    gamma = products[-1] / dot(newest, newest, backend)
    whole = [(s, y, 1 / sy) for (s, y), sy in zip(pairs, products, strict=True)]
    return two_loops(whole, gamma, p, backend)
