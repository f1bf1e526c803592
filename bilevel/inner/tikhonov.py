"""Generalised Tikhonov regularisation: Σ_j e^{λ_j}/2 ‖L_j x‖², each L_j any linear operator."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .._cached import cached_property
from ..backends import (
    NOT_NEGATIVE,
    Array,
    Backend,
    Has,
    Maybe,
    Rule,
    check_fields,
    described,
    function,
    get_backend,
    lent,
)
from ..linalg import dot, dots
from ..linalg.rounding import gamma, known, unit_roundoff, upper_norm, upper_norms
from ..losses._protocol import ELEMENTARY
from ._protocol import InnerConstants, Rounding
from .penalties import exp_or_inf, exponential_fold, least_exp, no_bend


class LinearOperator(Protocol):
    """L, by its products; every design matrix is one."""

    def matmul(self, v: Array) -> Array:
        """L v for v of shape (p,) or (p, k)."""
        ...

    def rmatmul(self, r: Array) -> Array:
        """Lᵀ r for r of shape (r,) or (r, k)."""
        ...


@dataclass(frozen=True)
class FunctionOperator:
    """A linear operator from two functions, each of one array with a vector in each column.

    They are handed copies, and what they return is copied.

    Examples
    --------
    >>> import numpy as np
    >>> twice = FunctionOperator(lambda v: 2 * v, lambda r: 2 * r)
    >>> twice.matmul(np.ones(2))
    array([2., 2.])
    """

    matvec: Callable[[Array], Array]
    rmatvec: Callable[[Array], Array]

    def __post_init__(self) -> None:
        check_fields(self, matvec=function, rmatvec=function)

    def matmul(self, v: Array) -> Array:
        return _applied(self.matvec, v)

    def rmatmul(self, r: Array) -> Array:
        return _applied(self.rmatvec, r)


def _applied(operator: Callable[[Array], Array], v: Array) -> Array:
    backend = get_backend(v)
    return next(lent(backend, operator(*lent(backend, v))))


_OPERATOR = Has("a linear operator", "matmul", "rmatmul")


def _each(rule: Rule) -> Rule:
    """A tuple of what the rule takes."""

    def check(values: Any, name: str) -> tuple[Any, ...]:
        if not isinstance(values, (tuple, list)):
            raise TypeError(f"{name} must be a tuple, got {described(values)}.")
        return tuple(rule(value, f"{name}[{j}]") for j, value in enumerate(values))

    return check


@dataclass(frozen=True)
class Tikhonov:
    """Σ_j e^{λ_j}/2 ‖L_j x‖² (Tikhonov and Arsenin, Solutions of Ill-posed Problems, 1977).

    Parameters
    ----------
    operators : tuple of LinearOperator
        L_j, each of shape (r_j, p). One hyperparameter for each.
    norms : tuple of float or None, optional
        An upper bound of ‖L_j‖ (spectral norm) for each, where it is known. Without it no
        smoothness is stated.
    smallest_singular_value : float
        σ ≥ 0 with ‖L_j x‖ ≥ σ ‖x‖ for all j; then μ = σ² Σ_j e^{λ_j}. Zero (the default)
        states no strong convexity: many operators, differences among them, have a null space.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> L = bilevel.as_design(np.array([[-1.0, 1.0]]))
    >>> Tikhonov((L,)).at(np.array([1.0, 3.0]), np.zeros(1), backend).grad
    array([-2.,  2.])
    """

    operators: tuple[LinearOperator, ...]
    norms: tuple[float | None, ...] | None = None
    smallest_singular_value: float = 0.0

    def __post_init__(self) -> None:
        check_fields(
            self,
            operators=_each(_OPERATOR),
            norms=Maybe(_each(Maybe(NOT_NEGATIVE))),
            smallest_singular_value=NOT_NEGATIVE,
        )
        if not self.operators:
            raise ValueError("operators must hold one linear operator at least, got none.")
        if self.norms is not None and len(self.norms) != len(self.operators):
            raise ValueError(
                f"norms must hold a bound for each of {len(self.operators)} operators, "
                f"got {len(self.norms)}."
            )

    @property
    def n_hyperparameters(self) -> int:
        return len(self.operators)

    def at(self, x: Array, lam: Array, backend: Backend) -> TikhonovPoint:
        return TikhonovPoint(self, x, backend.xp.exp(lam), backend)

    def constants(self, lam: Array, backend: Backend) -> InnerConstants:
        """Smoothness Σ_j e^{λ_j} ‖L_j‖², and √Σ_j (e^{λ_j} ‖L_j‖²)² for ∂²_{xλ}."""
        logs = backend.scalars(*(lam[j] for j in range(lam.shape[0])))
        weights = [exp_or_inf(t) for t in logs]
        mu = sum(self.smallest_singular_value**2 * least_exp(t) for t in logs)
        mu = min(mu, sys.float_info.max)
        if self.norms is None or any(norm is None for norm in self.norms):
            return InnerConstants(mu, None, 0.0, None)
        tops = [known(w * n * n) for w, n in zip(weights, self.norms, strict=True) if n is not None]
        return InnerConstants(mu, sum(tops), 0.0, math.hypot(*tops))


@dataclass(frozen=True)
class TikhonovPoint:
    """Generalised Tikhonov at x; ``weights`` is e^λ, shape (m,)."""

    penalty: Tikhonov
    x: Array
    weights: Array
    backend: Backend

    def _normal(self, operator: LinearOperator, v: Array) -> Array:
        """Lᵀ L v, all axes but the first as columns."""
        if v.ndim <= 2:
            return operator.rmatmul(operator.matmul(v))
        xp = self.backend.xp
        flat = xp.reshape(v, (v.shape[0], -1))
        return xp.reshape(operator.rmatmul(operator.matmul(flat)), v.shape)

    @cached_property
    def _grads(self) -> tuple[Array, ...]:
        return tuple(
            self.weights[j] * self._normal(operator, self.x)
            for j, operator in enumerate(self.penalty.operators)
        )

    @cached_property
    def grad(self) -> Array:
        return _sum(self._grads)

    @cached_property
    def value(self) -> Array:
        return dot(self.grad, self.x, self.backend) / 2

    def hvp(self, v: Array) -> Array:
        parts = (
            self.weights[j] * self._normal(operator, v)
            for j, operator in enumerate(self.penalty.operators)
        )
        return _sum(tuple(parts))

    def cross_vjp(self, q: Array) -> Array:
        return self.backend.xp.stack([dots(grad, q, self.backend) for grad in self._grads])

    def cross_jvp(self, d: Array) -> Array:
        return _sum(tuple(d[j] * grad for j, grad in enumerate(self._grads)))

    @property
    def cross_norm(self) -> Array:
        """The Frobenius norm of the columns."""
        squares = tuple(dot(grad, grad, self.backend) for grad in self._grads)
        return self.backend.xp.sqrt(_sum(squares))

    def diag(self) -> Array | None:
        return None

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array:
        return no_bend(T, self.backend)

    def cross_bend(self, q: Array, T: Array) -> Array:
        parts = [
            self.weights[j] * dots(self._normal(operator, q), T, self.backend)
            for j, operator in enumerate(self.penalty.operators)
        ]
        return self.backend.xp.stack(parts)

    def fold(self, q: Array, D: Array) -> Array:
        return exponential_fold(self, q, D)

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        """From ‖ |L|ᵀ |L| ‖ ≤ ‖L‖²_F ≤ p ‖L‖²; None where a norm of an operator is not stated."""
        norms, backend = self.penalty.norms, self.backend
        if norms is None or any(norm is None for norm in norms):
            return None
        p, unit = self.x.shape[0], unit_roundoff(self.x.dtype, backend)
        squares = [norm * norm for norm in norms if norm is not None]
        top = _sum(tuple(self.weights[j] * square for j, square in enumerate(squares)))
        # The rows of an operator are not known: twice the columns, as of differences in a plane.
        lost = 2 * gamma(2 * p + ELEMENTARY, unit) * p * top
        size = upper_norm(self.x, backend)
        if scale is not None:
            lost = lost * backend.xp.max(backend.xp.abs(scale))
        return Rounding(size * lost, upper_norms(vectors, backend) * lost, 2 * size * lost)

    def moved(self, x: Array) -> TikhonovPoint:
        return TikhonovPoint(self.penalty, x, self.weights, self.backend)


def _sum(parts: tuple[Any, ...]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
