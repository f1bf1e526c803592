"""A problem seen from the host: every derivative as a float64 vector, and by differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._cached import cached_property
from ..backends import Array, Pending
from ..problem import Problem

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """h and g at one (x, λ), asked with host vectors and answering with host vectors.

    Attributes
    ----------
    problem : Problem
        The problem.
    x : array, shape (p,)
        The inner variable, flat.
    lam : array, shape (m,)
        The hyperparameters.
    """

    problem: Problem
    x: Vector
    lam: Vector

    @property
    def p(self) -> int:
        return self.x.shape[0]

    @property
    def m(self) -> int:
        return self.lam.shape[0]

    @cached_property
    def eps(self) -> float:
        return float(self.problem.backend.xp.finfo(self.problem.dtype).eps)

    def moved(self, dx: Vector | float = 0.0, dlam: Vector | float = 0.0) -> Probe:
        return Probe(self.problem, self.x + dx, self.lam + dlam)

    def send(self, v: Vector, shape: tuple[int, ...] | None = None) -> Array:
        narrow = "float32" in str(self.problem.dtype)
        shape = tuple(self.problem.inner.x_shape) if shape is None else shape
        dtype = np.float32 if narrow else np.float64
        return self.problem.backend.asarray(np.ascontiguousarray(v.reshape(shape), dtype=dtype))

    def host(self, array: Array) -> Vector:
        if isinstance(array, Pending):
            return np.array(self.problem.backend.scalars(array), dtype=np.float64)
        # A copy: the problem may write to its own buffers again.
        found = np.array(self.problem.backend.to_numpy(array), dtype=np.float64, copy=True)
        return found.reshape(-1)

    @cached_property
    def point(self) -> Any:
        return self.problem.inner.at(self.send(self.x), self.send(self.lam, (self.m,)))

    @cached_property
    def outer(self) -> Any:
        return self.problem.outer.at(self.send(self.x), self.send(self.lam, (self.m,)))

    @cached_property
    def value(self) -> Vector:
        return self.host(self.point.value)

    @cached_property
    def grad(self) -> Vector:
        return self.host(self.point.grad)

    def hvp(self, v: Vector) -> Vector:
        return self.host(self.point.hvp(self.send(v)))

    def cross_jvp(self, d: Vector) -> Vector:
        return self.host(self.point.cross_jvp(self.send(d, (self.m,))))

    def cross_vjp(self, q: Vector) -> Vector:
        return self.host(self.point.cross_vjp(self.send(q)))

    @cached_property
    def outer_value(self) -> Vector:
        return self.host(self.outer.value)

    @cached_property
    def outer_grad_x(self) -> Vector:
        return self.host(self.outer.grad_x)

    @cached_property
    def outer_grad_lam(self) -> Vector:
        return self.host(self.outer.grad_lam)


def length(v: Vector) -> float:
    """Euclidean norm, of all that float64 holds: squares underflow from 1e-154 on.

    Examples
    --------
    >>> length(np.array([3e-200, 4e-200]))
    5e-200
    """
    top = float(np.max(np.abs(v), initial=0.0))
    return top * float(np.linalg.norm(v / top)) if 0 < top < math.inf else top


@dataclass(frozen=True)
class Line:
    """The points (x + t dx, λ + t dλ), each asked once: one evaluation serves h and g and more.

    Attributes
    ----------
    at : Probe
        Where t = 0.
    dx, dlam : array or float
        The direction.
    jitter : float
        What rounding of x + t dx and λ + t dλ does to the direction, relative, at t = 1.
    """

    at: Probe
    dx: Vector | float = 0.0
    dlam: Vector | float = 0.0
    jitter: float = 0.0
    _seen: dict[float, Probe] = field(default_factory=dict)

    def __call__(self, t: float) -> Probe:
        if t not in self._seen:
            step_x = 0.0 if isinstance(self.dx, float) else t * self.dx
            step_lam = 0.0 if isinstance(self.dlam, float) else t * self.dlam
            self._seen[t] = self.at.moved(step_x, step_lam)
        return self._seen[t]


def derivative(
    f: Callable[[float], Vector],
    scale: float,
    eps: float,
    levels: int = 9,
    *,
    noise: float = 0.0,
    jitter: float = 0.0,
) -> tuple[Vector, float, float]:
    """f'(0), an estimate of its error, and the longest step that it was taken from.

    By Ridders (1982), central differences extrapolated.

    Steps run from scale/4 down by factors of 3; of all entries of the tableau the one counts whose
    neighbours agree with it best, rounding included: eps of the values, or ``noise`` where that is
    larger, and ``jitter`` of the direction.

    Examples
    --------
    >>> value, error, _ = derivative(lambda t: np.array([np.exp(t)]), 1.0, 2e-16)
    >>> bool(abs(value[0] - 1) < 1e-9)
    True
    """
    shrink = 3.0
    step = scale / 4
    best, error, longest = np.zeros(0), math.inf, step
    previous: list[Vector] = []
    for _ in range(levels):
        ahead, behind = f(step), f(-step)
        row = [(ahead - behind) / (2 * step)]
        rounding = max(eps * (length(ahead) + length(behind)), noise) + jitter * length(row[0])
        factor = shrink**2
        for j, coarse in enumerate(previous):
            row.append(row[j] + (row[j] - coarse) / (factor - 1))
            factor *= shrink**2
            found = rounding / step + max(length(row[-1] - row[j]), length(row[-1] - coarse))
            if found < error:
                best, error, longest = row[-1], found, step * shrink ** (j + 1)
        if not previous:
            best = row[0]
        previous = row
        step /= shrink
        if rounding / step > error:
            break  # shorter steps are all rounding
    return best, error, longest


def lanczos(probe: Probe, rng: np.random.Generator, steps: int = 40) -> tuple[float, float]:
    """The extreme Ritz values of the Hessian: inside its spectrum, near the ends of it."""
    found = ritz(probe.hvp, rng.standard_normal(probe.p), steps)
    return (math.nan, math.nan) if found is None else (found[0][0], found[1][0])


def ritz(
    product: Callable[[Vector], Vector], start: Vector, steps: int = 40
) -> tuple[tuple[float, Vector], tuple[float, Vector]] | None:
    """The extreme Ritz pairs of a symmetric matrix, None where it is not finite.

    Examples
    --------
    >>> low, high = ritz(lambda v: np.array([1.0, 2.0, 5.0]) * v, np.ones(3))
    >>> round(low[0], 6), round(high[0], 6)
    (1.0, 5.0)
    """
    basis = [start / length(start)]
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(min(steps, start.shape[0])):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        for u in (*basis, *basis):  # twice is enough (Parlett)
            w = w - (u @ w) * u
        beta = length(w)
        if not math.isfinite(beta) or beta <= 1e-10 * (abs(diagonal[0]) + sum(off) + 1e-300):
            break
        off.append(beta)
        basis.append(w / beta)
    k = len(diagonal)
    matrix = np.diag(diagonal) + np.diag(off[: k - 1], 1) + np.diag(off[: k - 1], -1)
    if not np.all(np.isfinite(matrix)):
        return None
    values, vectors = np.linalg.eigh(matrix)
    span = np.stack(basis[:k], axis=1) @ vectors
    return (float(values[0]), span[:, 0]), (float(values[-1]), span[:, -1])


def largest(
    forth: Callable[[Vector], Vector],
    back: Callable[[Vector], Vector],
    start: Vector,
    steps: int = 8,
) -> float:
    """A lower bound of the largest singular value, by power iteration."""
    v, found = start / max(length(start), 1e-300), 0.0
    for _ in range(steps):
        image = forth(v)
        found = max(found, length(image))
        v = back(image)
        size = length(v)
        if not size > 0 or not math.isfinite(size):
            break
        v = v / size
    return found
