"""A second implementation of the mathematics, on the host, in long double.

It shares no line with the core: dense matrices, NumPy, direct solves with iterative refinement.
What it returns is exact as far as the core can tell, at any condition number up to about 1e12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

#: Host arrays of extended precision (80 bits where the machine has them).
Host: TypeAlias = npt.NDArray[Any]

_LONG = np.longdouble


def host(value: Any) -> Host:
    """Copy to the host in long double, which holds float32 and float64 without rounding."""
    return np.asarray(value, dtype=_LONG)


class InnerReference(Protocol):
    """h(x, λ) with dense derivatives."""

    @property
    def p(self) -> int: ...

    def value(self, x: Host, lam: Host) -> np.longdouble: ...

    def grad(self, x: Host, lam: Host) -> Host: ...

    def hessian(self, x: Host, lam: Host) -> Host: ...

    def cross(self, x: Host, lam: Host) -> Host:
        """∂²_{xλ} h, shape (p, m)."""
        ...

    def size(self, x: Host, lam: Host) -> float:
        """The norm of ∂_x h with every term taken absolutely: the scale of its rounding errors."""
        ...


class OuterReference(Protocol):
    """g(x, λ)."""

    def value(self, x: Host, lam: Host) -> np.longdouble: ...

    def grad_x(self, x: Host, lam: Host) -> Host: ...

    def grad_lam(self, x: Host, lam: Host) -> Host: ...


@dataclass(frozen=True)
class QuadraticReference:
    """h = ½ xᵀ (A + diag(G e^λ)) x - (b + C λ)ᵀ x."""

    matrix: Host
    offset: Host
    slope: Host
    groups: Host

    @property
    def p(self) -> int:
        return int(self.matrix.shape[0])

    def hessian(self, x: Host, lam: Host) -> Host:
        return self.matrix + np.diag(self.groups @ np.exp(lam))

    def value(self, x: Host, lam: Host) -> np.longdouble:
        half = x @ (self.hessian(x, lam) @ x) / 2
        return _LONG(half - (self.offset + self.slope @ lam) @ x)

    def grad(self, x: Host, lam: Host) -> Host:
        return self.hessian(x, lam) @ x - self.offset - self.slope @ lam

    def cross(self, x: Host, lam: Host) -> Host:
        return x[:, None] * self.groups * np.exp(lam) - self.slope

    def size(self, x: Host, lam: Host) -> float:
        terms = np.abs(self.hessian(x, lam)) @ np.abs(x) + np.abs(self.offset)
        return norm(terms + np.abs(self.slope) @ np.abs(lam))


@dataclass(frozen=True)
class QuadraticOuterReference:
    """g = ½ ‖M x - t‖² + λᵀ N x + ½ ρ ‖λ - c‖²."""

    matrix: Host
    target: Host
    coupling: Host
    weight: float
    center: Host

    def value(self, x: Host, lam: Host) -> np.longdouble:
        r, away = self.matrix @ x - self.target, lam - self.center
        return _LONG(r @ r / 2 + lam @ (self.coupling @ x) + self.weight * (away @ away) / 2)

    def grad_x(self, x: Host, lam: Host) -> Host:
        return self.matrix.T @ (self.matrix @ x - self.target) + self.coupling.T @ lam

    def grad_lam(self, x: Host, lam: Host) -> Host:
        return self.coupling @ x + self.weight * (lam - self.center)


@dataclass(frozen=True)
class LossReference:
    """ℓ(y, t) and its first two derivatives in t."""

    value: Callable[[Host, Host], Host]
    derivative: Callable[[Host, Host], Host]
    curvature: Callable[[Host, Host], Host]


def _sigmoid(t: Host) -> Host:
    return np.exp(-np.logaddexp(_LONG(0), -t))


LOSSES = {
    "logistic": LossReference(
        lambda y, t: np.logaddexp(_LONG(0), -y * t),
        lambda y, t: -y * _sigmoid(-y * t),
        lambda y, t: _sigmoid(t) * _sigmoid(-t),
    ),
    "squared": LossReference(
        lambda y, t: (t - y) ** 2 / 2, lambda y, t: t - y, lambda y, t: np.ones_like(t)
    ),
    "poisson": LossReference(
        lambda y, t: np.exp(t) - y * t, lambda y, t: np.exp(t) - y, lambda y, t: np.exp(t)
    ),
}


@dataclass(frozen=True)
class LinearReference:
    """h = Σ ℓ(y_i, a_iᵀ x) + ½ Σ_j (G e^λ)_j x_j²."""

    design: Host
    y: Host
    loss: LossReference
    groups: Host

    @property
    def p(self) -> int:
        return int(self.design.shape[1])

    def value(self, x: Host, lam: Host) -> np.longdouble:
        data = np.sum(self.loss.value(self.y, self.design @ x))
        return _LONG(data + (self.groups @ np.exp(lam)) @ (x * x) / 2)

    def grad(self, x: Host, lam: Host) -> Host:
        data = self.design.T @ self.loss.derivative(self.y, self.design @ x)
        return data + (self.groups @ np.exp(lam)) * x

    def hessian(self, x: Host, lam: Host) -> Host:
        curvature = self.loss.curvature(self.y, self.design @ x)
        data = self.design.T @ (curvature[:, None] * self.design)
        return data + np.diag(self.groups @ np.exp(lam))

    def cross(self, x: Host, lam: Host) -> Host:
        return x[:, None] * self.groups * np.exp(lam)

    def size(self, x: Host, lam: Host) -> float:
        margins = np.abs(self.design) @ np.abs(x)
        slopes = np.abs(self.loss.derivative(self.y, self.design @ x))
        # A margin is known to a relative rounding of its absolute terms; ℓ'' carries it on.
        slopes = slopes + self.loss.curvature(self.y, self.design @ x) * margins
        return norm(np.abs(self.design).T @ slopes + (self.groups @ np.exp(lam)) * np.abs(x))


@dataclass(frozen=True)
class HeldOutReference:
    """g = Σ ℓ(y_i, a_iᵀ x) over the held-out rows."""

    design: Host
    y: Host
    loss: LossReference

    def value(self, x: Host, lam: Host) -> np.longdouble:
        return _LONG(np.sum(self.loss.value(self.y, self.design @ x)))

    def grad_x(self, x: Host, lam: Host) -> Host:
        return self.design.T @ self.loss.derivative(self.y, self.design @ x)

    def grad_lam(self, x: Host, lam: Host) -> Host:
        return np.zeros_like(lam)


@dataclass(frozen=True)
class Reference:
    """X(λ), f(λ) and ∇f(λ) of a problem whose h and g are known on the host.

    Examples
    --------
    >>> one, zero = host([[1.0]]), host([[0.0]])
    >>> h = QuadraticReference(one, host([0.0]), one, zero)
    >>> g = QuadraticOuterReference(one, host([3.0]), zero, 0.0, host([0.0]))
    >>> float(Reference(h, g).hypergradient(host([1.0]))[0])
    -2.0
    """

    inner: InnerReference
    outer: OuterReference
    _memo: dict[bytes, Host] = field(default_factory=dict, compare=False, repr=False)

    def solution(self, lam: Host) -> Host:
        """X(λ), by damped Newton steps and refinement of the last of them."""
        key = lam.tobytes()
        if key not in self._memo:
            self._memo.clear()  # the last one alone: f and ∇f are asked for in turn
            self._memo[key] = self._solve(lam)
        return self._memo[key]

    def _solve(self, lam: Host) -> Host:
        h, x = self.inner, np.zeros(self.inner.p, dtype=_LONG)
        for _ in range(100):
            grad = h.grad(x, lam)
            step = -solve(h.hessian(x, lam), grad)
            slope, start, t = float(grad @ step), h.value(x, lam), 1.0
            if -slope <= 1e-24 * max(1e-300, abs(float(start))):
                break
            while h.value(x + t * step, lam) > start + 1e-4 * t * slope and t > 1e-10:
                t /= 2
            x = x + t * step
        for _ in range(3):
            x = x - solve(h.hessian(x, lam), h.grad(x, lam))
        return x

    def adjoint(self, lam: Host, x: Host | None = None) -> Host:
        """H⁻¹ ∂_x g at X(λ), or at a given x."""
        x = self.solution(lam) if x is None else x
        return solve(self.inner.hessian(x, lam), self.outer.grad_x(x, lam))

    def value(self, lam: Host) -> float:
        """f(λ)."""
        return float(self.outer.value(self.solution(lam), lam))

    def hypergradient(self, lam: Host) -> Host:
        """∇f(λ)."""
        x = self.solution(lam)
        return self.outer.grad_lam(x, lam) - self.inner.cross(x, lam).T @ self.adjoint(lam, x)


def solve(matrix: Host, rhs: Host) -> Host:
    """Solve a symmetric system in double and refine it in long double."""
    double = np.asarray(matrix, dtype=np.float64)
    inverse = np.linalg.inv(double)
    x = np.zeros_like(rhs)
    for _ in range(6):
        residual = rhs - matrix @ x
        x = x + host(inverse @ np.asarray(residual, dtype=np.float64))
    return x


def norm(v: Host) -> float:
    """Euclidean norm of a vector, as a float."""
    return float(np.sqrt(np.sum(v * v)))


def spectral(matrix: Host) -> float:
    """Spectral norm of a matrix; 0 for an empty one."""
    double = np.asarray(matrix, dtype=np.float64)
    return float(np.linalg.norm(double, 2)) if double.size else 0.0
