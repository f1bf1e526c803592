"""ℓ2 penalties with their hyperparameters: ½ Σ_j e^{λ_g(j)} x_j².

One λ for all coefficients, one for each group of them, or one for each. The hyperparameter is
the logarithm of the regularisation constant, so that D is a box and the constant positive.
Further penalties have files of their own beside this one.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Protocol

from .._cached import cached_property
from ..backends import Array, Backend, Pending, check_groups, described, postponed
from ..linalg import dot, dots
from ..linalg.rounding import above, unit_roundoff, upper_norm
from ..losses._protocol import ELEMENTARY
from ._protocol import Bending, InnerConstants, Rounded, Rounding


class PenaltyPoint(Protocol):
    """A penalty r and its derivatives at one (x, λ): the same names as an inner point."""

    @property
    def value(self) -> Array: ...

    @property
    def grad(self) -> Array: ...

    def hvp(self, v: Array) -> Array:
        """∂²_{xx} r · v, v of the shape of x, or with one more axis that counts several."""
        ...

    def cross_vjp(self, q: Array) -> Array:
        """(∂²_{xλ} r)ᵀ q, shape (m,), or (m, k) for several q."""
        ...

    def cross_jvp(self, d: Array) -> Array:
        """(∂²_{xλ} r) d for d of shape (m,), the shape of x."""
        ...

    @property
    def cross_norm(self) -> Array | None:
        """An upper bound of ‖∂²_{xλ} r‖, 0-d; None where there is none."""
        ...

    def diag(self) -> Array | None:
        """Diag ∂²_{xx} r, broadcastable to x, or None where it is not to be had."""
        ...

    def moved(self, x: Array) -> PenaltyPoint:
        """Return the same λ at another x: what belongs to λ alone is not computed again."""
        ...


class Penalty(Protocol):
    """r(x, λ), convex in x."""

    @property
    def n_hyperparameters(self) -> int: ...

    def at(self, x: Array, lam: Array, backend: Backend) -> PenaltyPoint: ...

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        """μ, smoothness and Lipschitz constants of r alone, for every x."""
        ...


def penalty_constants(penalty: Penalty, lam: Array, backend: Backend) -> InnerConstants:
    """The constants that a penalty states at λ; refuse what has not checked itself."""
    found = penalty.constants(lam, backend)
    if not isinstance(found, InnerConstants):
        raise TypeError(f"penalty.constants must return InnerConstants, got {described(found)}.")
    return found


def exp_or_inf(t: float) -> float:
    """e^t as a float that overflows to infinity, as arrays do."""
    return math.exp(t) if t < 709 else math.inf


def least_exp(t: float) -> float:
    """e^t from below: the largest float where it overflows, as a lower bound has to be finite."""
    return min(exp_or_inf(t), sys.float_info.max)


class WeightedL2:
    """½ Σ_j w_j x_j² with w = e^λ spread over the coefficients.

    A subclass says how λ (m,) is spread over x and, the transpose, how a sum over x is
    gathered to (m,).
    """

    @property
    def n_hyperparameters(self) -> int:
        raise NotImplementedError

    def spread(self, d: Array, ndim: int, backend: Backend) -> Array:
        """D (m,) at each coefficient, of ``ndim`` axes, broadcastable to x."""
        raise NotImplementedError

    def gather(self, wx: Array, q: Array, backend: Backend) -> Array:
        """Σ (w x)_j q_j over the coefficients of each λ, shape (m,), or (m, k)."""
        raise NotImplementedError

    def at(self, x: Array, lam: Array, backend: Backend) -> WeightedL2Point:
        weights = self.spread(backend.xp.exp(lam), x.ndim, backend)
        return WeightedL2Point(self, x, weights, backend)

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        """μ = min e^λ, smoothness and Lipschitz constant of ∂²_{xλ} r: max e^λ."""
        xp = backend.xp
        smallest, largest = backend.scalars(xp.min(lam), xp.max(lam))
        top = exp_or_inf(largest)
        return InnerConstants(least_exp(smallest), top, 0.0, top)


@dataclass(frozen=True)
class WeightedL2Point:
    """½ Σ_j w_j x_j² at x."""

    penalty: WeightedL2
    x: Array
    weights: Array
    backend: Backend

    @cached_property
    def value(self) -> Array:
        return dot(self.grad, self.x, self.backend) / 2

    @cached_property
    def grad(self) -> Array:
        return self.weights * self.x

    def hvp(self, v: Array) -> Array:
        return (self.weights if v.ndim == self.x.ndim else self.weights[..., None]) * v

    def cross_vjp(self, q: Array) -> Array:
        return self.penalty.gather(self.grad, q, self.backend)

    def cross_jvp(self, d: Array) -> Array:
        return self.penalty.spread(d, self.x.ndim, self.backend) * self.grad

    @property
    def cross_norm(self) -> Array:
        """The longest column: the columns of ∂²_{xλ} r have disjoint supports."""
        xp = self.backend.xp
        return xp.sqrt(xp.max(self.penalty.gather(self.grad, self.grad, self.backend)))

    def diag(self) -> Array:
        return self.weights

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array:
        return no_bend(T, self.backend)

    def cross_bend(self, q: Array, T: Array) -> Array:
        return self.penalty.gather(self.hvp(q), T, self.backend)

    def fold(self, q: Array, D: Array) -> Array:
        return exponential_fold(self, q, D)

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding:
        """e^λ is right to a few units, and so is each product with it."""
        backend = self.backend
        few = _ELEMENTS * unit_roundoff(self.x.dtype, backend)
        size = self._size if scale is None else upper_norm(scaled(self.grad, scale), backend)
        lengths = postponed(
            lambda: backend.column_norm(scaled(self.hvp(vectors), scale)), (vectors.shape[-1],)
        )
        products = few * above(lengths, self.x.dtype, math.prod(self.x.shape), backend)
        return Rounding(few * size, products, few * size)

    @cached_property
    def _size(self) -> Pending:
        return upper_norm(self.grad, self.backend)

    def moved(self, x: Array) -> WeightedL2Point:
        return WeightedL2Point(self.penalty, x, self.weights, self.backend)


def no_bend(T: Array, backend: Backend) -> Array:
    """The third derivative of what is quadratic in x."""
    k = T.shape[-1]
    return backend.xp.zeros((k, k), dtype=T.dtype, device=backend.device)


def exponential_fold(point: PenaltyPoint, q: Array, D: Array) -> Array:
    """That of Σ_j e^{λ_j} r_j(x), each term of which is its own derivative in λ_j."""
    return point.cross_vjp(q)[:, None] * D


#: Units of roundoff of a product with e^λ.
_ELEMENTS = ELEMENTARY + 4


def scaled(v: Array, scale: Array | None) -> Array:
    """V times the scale of its entries, for v of the shape of x or with one more axis."""
    if scale is None:
        return v
    return (scale if v.ndim == scale.ndim else scale[..., None]) * v


def columns(d: Array, ndim: int) -> Array:
    """Append axes of length 1 until there are ``ndim``."""
    return d[(..., *(None,) * (ndim - d.ndim))]


@dataclass(frozen=True)
class SingleL2(WeightedL2):
    """e^λ/2 ‖x‖², one hyperparameter.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> SingleL2().at(np.array([1.0, 3.0]), np.array([0.0]), backend).grad
    array([1., 3.])
    """

    @property
    def n_hyperparameters(self) -> int:
        return 1

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        (only,) = backend.scalars(lam)
        top = exp_or_inf(only)
        return InnerConstants(least_exp(only), top, 0.0, top)

    def spread(self, d: Array, ndim: int, backend: Backend) -> Array:
        return columns(d, ndim)

    def gather(self, wx: Array, q: Array, backend: Backend) -> Array:
        return backend.xp.expand_dims(dots(wx, q, backend), axis=0)


@dataclass(frozen=True)
class GroupL2(WeightedL2):
    """½ Σ_j e^{λ_g(j)} x_j², one hyperparameter for each group of coefficients.

    Attributes
    ----------
    groups : array of integers, shape (p,) or (p, c)
        The group 0, ..., m-1 of each coefficient; axes of x beyond these share it.
    n_groups : int
        m.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> penalty = GroupL2.from_labels([0, 1, 1], (3,), backend)
    >>> penalty.at(np.ones(3), np.log(np.array([1.0, 2.0])), backend).grad
    array([1., 2., 2.])
    """

    groups: Array
    n_groups: int

    @classmethod
    def from_labels(cls, groups: Any, shape: tuple[int, ...], backend: Backend) -> GroupL2:
        """Check group numbers and move them to the backend.

        Raises
        ------
        ValueError, TypeError
            If ``groups`` is neither of this shape nor of its first axis, or does not use each
            of 0, ..., m-1.
        """
        labels, n_groups = check_groups(groups, shape)
        return cls(backend.asarray(labels), n_groups)

    @property
    def n_hyperparameters(self) -> int:
        return self.n_groups

    def spread(self, d: Array, ndim: int, backend: Backend) -> Array:
        xp = backend.xp
        flat = xp.take(d, xp.reshape(self.groups, (-1,)), axis=0)
        return columns(xp.reshape(flat, self.groups.shape), ndim)

    def gather(self, wx: Array, q: Array, backend: Backend) -> Array:
        xp = backend.xp
        product = _product(wx, q)
        product = _sum_shared(product, self.groups.ndim, wx.ndim, backend)
        labels = xp.reshape(self.groups, (-1,))
        if q.ndim == wx.ndim:
            return backend.segment_sum(xp.reshape(product, (-1,)), labels, self.n_groups)
        flat = xp.reshape(product, (labels.shape[0], -1))
        sums = [
            backend.segment_sum(flat[:, i], labels, self.n_groups) for i in range(flat.shape[1])
        ]
        return xp.stack(sums, axis=1)


@dataclass(frozen=True)
class EachL2(WeightedL2):
    """½ Σ_j e^{λ_j} x_j², one hyperparameter for each coefficient.

    Attributes
    ----------
    shape : tuple of int
        The coefficients that have one, (p,) or (p, c); axes of x beyond these share it. λ is
        this array, flattened row by row.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> EachL2((2,)).at(np.array([1.0, 3.0]), np.zeros(2), backend).cross_vjp(np.ones(2))
    array([1., 3.])
    """

    shape: tuple[int, ...]

    @property
    def n_hyperparameters(self) -> int:
        return math.prod(self.shape)

    def spread(self, d: Array, ndim: int, backend: Backend) -> Array:
        return columns(backend.xp.reshape(d, self.shape), ndim)

    def gather(self, wx: Array, q: Array, backend: Backend) -> Array:
        product = _sum_shared(_product(wx, q), len(self.shape), wx.ndim, backend)
        return backend.xp.reshape(product, (self.n_hyperparameters, *q.shape[wx.ndim :]))


def _product(wx: Array, q: Array) -> Array:
    return (wx if q.ndim == wx.ndim else wx[..., None]) * q


def _sum_shared(product: Array, start: int, stop: int, backend: Backend) -> Array:
    """Sum over the axes of x that share one hyperparameter."""
    if start == stop:
        return product
    return backend.xp.sum(product, axis=tuple(range(start, stop)))


@dataclass(frozen=True)
class FreeLast:
    """A penalty of all coefficients but the last (the intercept), which has weight 0.

    The penalty is then no longer strongly convex: it states μ = 0.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> FreeLast(SingleL2()).at(np.array([1.0, 3.0]), np.array([0.0]), backend).grad
    array([1., 0.])
    """

    base: Penalty

    @property
    def n_hyperparameters(self) -> int:
        return self.base.n_hyperparameters

    def at(self, x: Array, lam: Array, backend: Backend) -> FreeLastPoint:
        return FreeLastPoint(self.base.at(x[:-1, ...], lam, backend), x, backend)

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        base = penalty_constants(self.base, lam, backend)
        return InnerConstants(0.0, base.smoothness, base.hessian_lipschitz, base.cross_lipschitz)


@dataclass(frozen=True)
class FreeLastPoint:
    """A penalty that does not see the last coefficient, at x."""

    base: PenaltyPoint
    x: Array
    backend: Backend

    def _padded(self, top: Array) -> Array:
        zero = self.backend.xp.zeros_like(top[:1, ...])
        return self.backend.xp.concat([top, zero], axis=0)

    @property
    def value(self) -> Array:
        return self.base.value

    @cached_property
    def grad(self) -> Array:
        return self._padded(self.base.grad)

    def hvp(self, v: Array) -> Array:
        return self._padded(self.base.hvp(v[:-1, ...]))

    def cross_vjp(self, q: Array) -> Array:
        return self.base.cross_vjp(q[:-1, ...])

    def cross_jvp(self, d: Array) -> Array:
        return self._padded(self.base.cross_jvp(d))

    @property
    def cross_norm(self) -> Array | None:
        return self.base.cross_norm

    def diag(self) -> Array | None:
        diag = self.base.diag()
        if diag is None:
            return None
        shape = (self.x.shape[0] - 1, *self.x.shape[1:])
        return self._padded(self.backend.xp.broadcast_to(diag, shape))

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        base = self.base
        return base.bend(q[:-1, ...], T[:-1, ...]) if isinstance(base, Bending) else None

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        base = self.base
        return base.cross_bend(q[:-1, ...], T[:-1, ...]) if isinstance(base, Bending) else None

    def fold(self, q: Array, D: Array) -> Array | None:
        return self.base.fold(q[:-1, ...], D) if isinstance(self.base, Bending) else None

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        base = self.base
        if not isinstance(base, Rounded):
            return None
        return base.rounding(vectors[:-1, ...], None, None if scale is None else scale[:-1, ...])

    def moved(self, x: Array) -> FreeLastPoint:
        return FreeLastPoint(self.base.moved(x[:-1, ...]), x, self.backend)


def l2_penalty(groups: Any, shape: tuple[int, ...], backend: Backend) -> Penalty:
    """Return the ℓ2 penalty of coefficients of this shape.

    Parameters
    ----------
    groups : None, "each", or array of integers of shape (p,) or ``shape``
        One λ for all coefficients, one for each, or one for each group of them.
    """
    if groups is None:
        return SingleL2()
    if isinstance(groups, str):
        if groups != "each":
            raise ValueError(f"groups must be None, 'each' or an array, got {groups!r}.")
        return EachL2(shape)
    return GroupL2.from_labels(groups, shape, backend)
