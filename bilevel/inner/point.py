"""The rest of a point, of h or of a penalty, for whoever has the mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backends import Array, Backend, backend_of
from ..linalg import dot


@dataclass(frozen=True, eq=False)
class Point:
    """h and its derivatives at one (x, λ): a class to derive from.

    The mathematics are five members: ``value`` (0-d), ``grad`` (the shape of x), ``hvp(v)``,
    ``cross_vjp(q)`` and ``cross_jvp(d)``, as :class:`InnerPoint` describes them; the first two as
    properties, cached where they cost something. What else a point may know is here, as if it knew
    nothing: override what there is.

    Parameters
    ----------
    inner : Inner
        The objective, whose ``at`` makes points.
    x, lam : array
        Where.

    Examples
    --------
    Half the square of the distance from λ, in one dimension:

    >>> import bilevel, numpy as np
    >>> class Here(Point):
    ...     value = property(lambda self: 0.5 * np.sum((self.x - self.lam) ** 2))
    ...     grad = property(lambda self: self.x - self.lam)
    ...     def hvp(self, v): return v
    ...     def cross_vjp(self, q): return -q  # (1,), or (1, k) for several
    ...     def cross_jvp(self, d): return -d
    >>> class Near:
    ...     backend, dtype = bilevel.get_backend("numpy"), np.dtype("float64")
    ...     x_shape, n_hyperparameters, passes, column_passes = (1,), 1, 0, 0
    ...     def at(self, x, lam, carry=None): return Here(self, x, lam)
    ...     def constants(self, lam): return bilevel.inner.InnerConstants(mu=1.0)
    >>> point = Near().at(np.array([3.0]), np.array([1.0]))
    >>> point.ray(np.array([-1.0])).at(2.0).grad
    array([0.])
    """

    inner: Any
    x: Array
    lam: Array

    @property
    def carry(self) -> Array | None:
        """None: nothing of the pass at x serves another λ."""
        return None

    @property
    def cross_norm(self) -> Array | None:
        """None: no bound of a norm follows from products."""
        return None

    def diag(self) -> Array | None:
        """None: the diagonal is not to be had from products."""
        return None

    def ray(self, d: Array) -> StraightRay:
        """x + t d, a point of its own for each t."""
        return StraightRay(self, d)


@dataclass(frozen=True, eq=False)
class StraightRay:
    """x + t d for any objective: nothing is shared, each t costs its own passes."""

    start: Any
    d: Array

    def at(self, t: float) -> Any:
        """The point at x + t d."""
        return self.start.inner.at(self.start.x + t * self.d, self.start.lam)

    def slope(self, point: Any) -> Array:
        """⟨∂_x h, d⟩ there, 0-d."""
        return dot(point.grad, self.d, backend_of(d=self.d))


@dataclass(frozen=True, eq=False)
class PenaltyTerm:
    """A penalty r and its derivatives at one (x, λ): a class to derive from.

    The mathematics are the five members that a :class:`Point` has; the rest is here.

    Parameters
    ----------
    penalty : Penalty
        Whose ``at`` makes terms.
    x, lam : array
        Where.
    backend : Backend
        Where they live.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> class Square(PenaltyTerm):  # e^λ/2 x²
    ...     value = property(lambda self: np.sum(self.grad * self.x) / 2)
    ...     grad = property(lambda self: np.exp(self.lam[0]) * self.x)
    ...     def hvp(self, v): return np.exp(self.lam[0]) * v
    ...     def cross_vjp(self, q): return np.tensordot(self.grad, q, axes=1)[None, ...]
    ...     def cross_jvp(self, d): return d[0] * self.grad
    >>> class Ridge:
    ...     n_hyperparameters = 1
    ...     def at(self, x, lam, backend): return Square(self, x, lam, backend)
    ...     def constants(self, lam, backend): return bilevel.inner.InnerConstants()
    >>> term = Ridge().at(np.array([3.0]), np.zeros(1), bilevel.get_backend("numpy"))
    >>> term.moved(np.array([2.0])).grad
    array([2.])
    """

    penalty: Any
    x: Array
    lam: Array
    backend: Backend

    @property
    def cross_norm(self) -> Array | None:
        """None: no bound of a norm follows from products."""
        return None

    def diag(self) -> Array | None:
        """None: the diagonal is not to be had from products."""
        return None

    def moved(self, x: Array) -> Any:
        """The term at another x."""
        return self.penalty.at(x, self.lam, self.backend)


_MATHEMATICS = ("value", "grad", "hvp", "cross_vjp", "cross_jvp", "cross_norm", "diag")

#: What a point has to have, and a term of a penalty, whoever makes them.
MEMBERS = ("x", "lam", *_MATHEMATICS, "carry", "ray")
TERM_MEMBERS = (*_MATHEMATICS, "moved")


def lacking(point: Any, members: Sequence[str] = MEMBERS) -> list[str]:
    """The members that a point does not have; none of them is computed."""
    held = getattr(point, "__dict__", {})
    return [name for name in members if not (hasattr(type(point), name) or name in held)]
