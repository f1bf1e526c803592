r"""What a few coefficients allow: H as a matrix, and every error measured in its own norm.

With at most :data:`FEW` entries of x two passes form H. From its eigenvectors, after its diagonal
has been scaled to 1 by S, comes W with H⁻¹ ⪯ χ W Wᵀ and H ⪯ χ (W Wᵀ)⁻¹, χ - 1 of the size of what
rounding and the eigenvalues' own errors leave unknown. Then

* ‖v‖_{H⁻¹} ≤ √χ ‖Wᵀv‖ for every v: the Newton decrement is known, not bounded through μ;
* the adjoint and the tangents are W Wᵀ v but for a share χ - 1, so that p is compared with what it
  is for them;
* a prediction changes by at most its leverage max_i ‖a_i‖_{H⁻¹} times ‖u‖_H, which stands for R.

:func:`~bilevel.hypergrad.self_concordant_bound` then holds with H for its metric, in which μ = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..backends import Array, Backend, pending
from ..inner import (
    InnerConstants,
    InnerPoint,
    Leveraged,
    Pushable,
    Rounded,
    Swinging,
    constants_at,
)
from ..linalg import norm
from ..linalg.rounding import known, unit_roundoff, upper_norm
from ..outer import Curved, CurvedRounded, OuterConstants, OuterPoint, RoundedOuter
from ..problem import Problem
from .bound import (
    Along,
    Bend,
    Inexact,
    Nearness,
    bends_back,
    growth,
    self_concordant_bounds,
    self_concordant_value_bound,
)

#: Entries of x up to which H is formed for the bounds.
FEW = 16


@dataclass(frozen=True)
class Bounds:
    """Of ‖x - X(λ)‖, |g(x, λ) - f(λ)| and ‖p - ∇f(λ)‖; None where a constant is not stated."""

    distance: float | None = None
    value: float | None = None
    hypergrad: float | None = None

    def and_of(self, other: Bounds | None) -> Bounds:
        """The smaller ones."""
        if other is None:
            return self
        return Bounds(
            smaller(self.distance, other.distance),
            smaller(self.value, other.value),
            smaller(self.hypergrad, other.hypergrad),
        )


def smaller(a: float | None, b: float | None) -> float | None:
    """The smaller of two bounds, of which either may be missing."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def whitened_bounds(
    problem: Problem, point: InnerPoint, outer: OuterPoint, p: Array | None
) -> Bounds | None:
    """The bounds at (x, λ) for any p; None with many coefficients, or where too little is known.

    Two passes over the data, two over those of the criterion.
    """
    here = Whitened.at(problem, point, outer, FEW)
    return None if here is None else here.bounds(p)


@dataclass(frozen=True)
class Metric:
    """W, and what is known with it; arrays of x are flat here.

    ``least`` is a lower bound of the spectrum of S H S, ``longest`` an upper bound of ‖H^{-1/2}‖,
    ``leverage`` max_i ‖a_i‖_{H⁻¹} times the self-concordance of the loss.
    """

    H: Array
    W: Array
    scale: Array
    chi: float
    least: float
    longest: float
    leverage: float
    pushed: Array | None

    @classmethod
    def at(cls, problem: Problem, point: InnerPoint, constants: InnerConstants) -> Metric | None:
        assert isinstance(point, Rounded)
        backend = problem.backend
        xp, shape = backend.xp, tuple(point.x.shape)
        size = math.prod(shape)
        eye = xp.eye(size, dtype=point.x.dtype, device=backend.device)
        units = xp.reshape(eye, (*shape, size))
        pushed = None
        if isinstance(point, Pushable):
            pushed = point.push(units)
            product = point.pull(units, pushed)[1]
        else:
            product = point.hvp(units)
        H = xp.reshape(product, (size, size))
        H = (H + H.T) / 2
        diagonal = xp.linalg.diagonal(H)
        lowest, size_of_h = backend.scalars(xp.min(diagonal), xp.max(xp.abs(H)))
        if not lowest > 0 or not math.isfinite(size_of_h):
            return None
        scale = 1 / xp.sqrt(diagonal)
        lost = point.rounding(units, pushed, xp.reshape(scale, shape))
        if lost is None:
            return None
        pair = backend.eigh(scale[:, None] * H * scale)
        if pair is None:
            return None
        values, vectors = pair
        W = scale[:, None] * vectors / xp.sqrt(xp.where(values > 0, values, xp.ones_like(values)))
        off, first, longest = backend.scalars(
            (pending(lost.products) * scale).length(), values[0], norm(W, backend)
        )
        unit = unit_roundoff(problem.dtype, backend)
        # The backward error of the eigenvalues of a matrix of norm ≤ N, and that of its making.
        off += (4 * size * (size + 4) + 64) * unit
        if not off < 0.1 * first:
            return None
        chi = (1 + off / first) / (1 - off / first)
        leverage = 0.0
        if constants.self_concordance > 0:  # type: ignore[operator]
            found = _leverage(point, pushed, W, backend)
            if found is None:
                return None
            leverage = math.sqrt(chi) * found
        longest *= math.sqrt(chi) * (1 + 8 * size * unit)
        return cls(H, W, scale, chi, first - off, longest, leverage, pushed)


def _leverage(point: InnerPoint, pushed: Array | None, W: Array, backend: Backend) -> float | None:
    """c max_i ‖a_i‖_{W Wᵀ} where predictions are linear in x; None where that is not known."""
    if not isinstance(point, Leveraged) or pushed is None:
        return None
    (found,) = backend.scalars(point.leverage(pushed, W))
    return known(found)


@dataclass(frozen=True)
class Whitened:
    """H as a matrix at one point, and what the module makes of it."""

    problem: Problem
    point: InnerPoint
    outer: OuterPoint
    constants: InnerConstants
    metric: Metric

    @classmethod
    def at(
        cls, problem: Problem, point: InnerPoint, outer: OuterPoint, most: int
    ) -> Whitened | None:
        """None with more than so many coefficients, or where too little is known."""
        constants = constants_at(problem.inner, point)
        small = math.prod(point.x.shape) <= most and problem.inner.n_hyperparameters <= most
        if not small or not constants.mu or constants.self_concordance is None:
            return None
        if not isinstance(point, Rounded) or not isinstance(outer, RoundedOuter):
            return None
        metric = Metric.at(problem, point, constants)
        return None if metric is None else cls(problem, point, outer, constants, metric)

    def newton(self) -> Array:
        """The Newton step of h, of the shape of x."""
        xp, W, shape = self.problem.backend.xp, self.metric.W, tuple(self.point.x.shape)
        seen = xp.matmul(W.T, xp.reshape(self.point.grad, (W.shape[0],)))
        return xp.reshape(-xp.matmul(W, seen), shape)

    def bounds(self, p: Array | None) -> Bounds | None:
        """All three; the last for p, where there is one."""
        host = self._read(p)
        if host is None:
            return None
        decrement = host.dual(host.sizes[0]) + host.lost_grad
        near = Nearness.of(decrement, self.metric.leverage, 1.0)
        if near is None:
            return None
        rest = (growth(near.s) - 1) * near.energy + host.off * host.sizes[0] + host.lost_grad
        longest = self.metric.longest
        distance = min(longest * near.energy, host.lengths[0] + longest * rest)
        inner, outer = self._constants()
        adjoint, *tangents = host.vectors(longest)
        value = self_concordant_value_bound(
            inner,
            outer,
            decrement=decrement,
            correction=host.correction,
            adjoint=adjoint,
            top=host.top,
            rounding=host.lost_value,
        )
        whole = None
        if p is not None:
            along = [
                Along(tangent, host.pairs[j], host.bends[j], host.apart[j] + host.lost(j))
                for j, tangent in enumerate(tangents)
            ]
            whole = self_concordant_bounds(
                inner, outer, decrement=decrement, adjoint=adjoint, tangents=along
            )
        return Bounds(known(distance), value, whole)

    def _constants(self) -> tuple[InnerConstants, OuterConstants]:
        """The constants in the metric of H, where ‖u‖ ≤ longest ‖u‖_H."""
        longest, outer = self.metric.longest, self.problem.outer_constants
        cross, l_g = self.constants.cross_lipschitz, outer.grad_x_lipschitz
        l_lam, R_g = outer.grad_lam_lipschitz, outer.self_concordance
        return (
            InnerConstants(
                mu=1.0,
                cross_lipschitz=None if cross is None else known(cross * longest * longest),
                self_concordance=self.metric.leverage,
            ),
            OuterConstants(
                None if l_g is None else known(l_g * longest * longest),
                None if l_lam is None else known(l_lam * longest),
                None if R_g is None else known(R_g * longest),
            ),
        )

    def _read(self, p: Array | None) -> _Host | None:
        """Solve for d, q and t_j, and read every number of them."""
        point, outer, metric = self.point, self.outer, self.metric
        backend, xp = self.problem.backend, self.problem.backend.xp
        shape, size = tuple(point.x.shape), metric.W.shape[0]
        scale = xp.reshape(metric.scale, shape)
        m = self.problem.inner.n_hyperparameters
        unit = xp.eye(m, dtype=point.x.dtype, device=backend.device)
        cross = xp.stack([point.cross_jvp(unit[j, :]) for j in range(m)], axis=-1)
        right = xp.concat([-point.grad[..., None], outer.grad_x[..., None], -cross], axis=-1)
        seen = xp.matmul(metric.W.T, xp.reshape(right, (size, 2 + m)))
        solved = xp.matmul(metric.W, seen)
        assert isinstance(point, Rounded)
        assert isinstance(outer, RoundedOuter)
        lost, lost_outer = point.rounding(point.x[..., None], None, scale), outer.rounding(scale)
        if lost is None or lost_outer is None:
            return None
        exact = outer.grad_lam + xp.matmul(seen[:, 1], seen[:, 2:])
        swing = self._swing(solved[:, 1:])
        curved = self._curved(solved[:, 2:])
        read = _Reader(backend)
        sizes = read(*(upper_norm(seen[:, j], backend) for j in range(2 + m)))
        lengths = read(*(upper_norm(solved[:, j], backend) for j in range(2 + m)))
        apart = read(*xp.abs(exact - (exact if p is None else p)))
        others = read(
            lost.grad,
            lost.cross,
            lost_outer.grad_x,
            lost_outer.value,
            lost_outer.grad_lam,
            xp.max(xp.abs(outer.grad_lam)),
            xp.abs(xp.matmul(seen[:, 1], seen[:, 0])),
        )
        swung = read(*swing)
        bent = read(*curved)
        return _Host.of(self, read.take(), sizes, lengths, apart, others, swung, bent)

    def _swing(self, vectors: Array) -> list[Array]:
        """M_q, then M_j, then M_qj; nothing where H does not change."""
        point, pushed, xp = self.point, self.metric.pushed, self.problem.backend.xp
        if not self.metric.leverage or pushed is None or not isinstance(point, Swinging):
            return []
        assert isinstance(point, Pushable)
        columns = range(vectors.shape[1])
        through = xp.stack([point.along(pushed, vectors[:, j]) for j in columns], axis=-1)
        found = point.swing(through)
        return [] if found is None else [a[j] for a in found for j in range(a.shape[0])]

    def _curved(self, tangents: Array) -> list[Array]:
        """‖WᵀGW‖, its rounding, then ‖WᵀG t_j‖ and t_jᵀG t_j; nothing where G is not known."""
        outer, backend, size = self.outer, self.problem.backend, self.metric.W.shape[0]
        xp, shape = backend.xp, (*self.point.x.shape, size)
        units = xp.reshape(xp.eye(size, dtype=tangents.dtype, device=backend.device), shape)
        lost = outer.product_rounding(units) if isinstance(outer, CurvedRounded) else None
        if lost is None or not isinstance(outer, Curved):
            return []
        G = xp.reshape(outer.hvp(units), (size, size))
        seen = xp.matmul(self.metric.W.T, xp.matmul(G, self.metric.W))
        bent = xp.matmul(G, tangents)
        columns = range(tangents.shape[1])
        return [
            upper_norm(seen, backend),
            (1 + 1e-9) * pending(lost).length(),
            *(upper_norm(xp.matmul(self.metric.W.T, bent[:, j]), backend) for j in columns),
            *(xp.abs(xp.matmul(tangents[:, j], bent[:, j])) for j in columns),
        ]


class _Reader:
    """Collects 0-d arrays, and reads all of them at once."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._arrays: list[Array] = []

    def __call__(self, *arrays: Array) -> slice:
        """Where the numbers will be."""
        start = len(self._arrays)
        self._arrays += arrays
        return slice(start, len(self._arrays))

    def take(self) -> tuple[float, ...]:
        return self._backend.scalars(*self._arrays)


@dataclass(frozen=True)
class _Host:
    """Numbers at a point: of d, q and the t_j, in that order, where there is one for each.

    ``sizes`` are ‖Wᵀ ·‖ of their right-hand sides, ``lengths`` their norms; ``lost_*`` is what
    rounding may have done, to right-hand sides in the norm of H⁻¹.
    """

    chi: float
    sizes: tuple[float, ...]
    lengths: tuple[float, ...]
    apart: tuple[float, ...]
    lost_grad: float
    lost_slope: float
    lost_cross: float
    lost_value: float
    lost_direct: float
    correction: float
    swings: tuple[float, ...]
    pairs: tuple[float, ...]
    top: float
    bends: tuple[Bend, ...]

    @classmethod
    def of(
        cls,
        small: Whitened,
        numbers: tuple[float, ...],
        sizes: slice,
        lengths: slice,
        apart: slice,
        others: slice,
        swung: slice,
        bent: slice,
    ) -> _Host:
        metric, m = small.metric, small.problem.inner.n_hyperparameters
        root, chi = math.sqrt(metric.least), metric.chi
        grad, cross, slope, value, direct, largest, corrected = numbers[others]
        grad, cross, slope = (a / root for a in (grad, cross, slope))
        unit = unit_roundoff(small.problem.dtype, small.problem.backend)
        d, q, *t = numbers[sizes]
        # The exact q and t_j are not those at hand: they differ by χ - 1 in the norm of H.
        off, grown = chi - 1, math.sqrt(chi)
        swings, pairs = numbers[swung][: 1 + m], numbers[swung][1 + m :]
        moved = metric.leverage * off * grown
        if metric.leverage and not swings:
            swings, pairs = (math.inf,) * (1 + m), (math.inf,) * m
        elif not metric.leverage:
            swings, pairs = (0.0,) * (1 + m), (0.0,) * m
        swings = tuple(a + moved * b for a, b in zip(swings, (q, *t), strict=True))
        pairs = tuple(
            a + grown * (swings[0] * off + moved * q) * b for a, b in zip(pairs, t, strict=True)
        )
        top, bends = _bends(numbers[bent], metric, t, numbers[lengths][2:])
        return cls(
            chi,
            numbers[sizes],
            numbers[lengths],
            numbers[apart],
            grad,
            slope,
            cross,
            value,
            direct + 4 * unit * largest,
            corrected + chi * (off * d * q + slope * d + grad * q) + slope * grad,
            swings,
            pairs,
            top,
            bends,
        )

    @property
    def off(self) -> float:
        return self.chi - 1

    def dual(self, size: float) -> float:
        """‖·‖_{H⁻¹} of a right-hand side, but for its rounding."""
        return math.sqrt(self.chi) * size

    def lost(self, j: int) -> float:
        """How far the p_j that it is compared with may be from that of the exact q and t_j."""
        q, t = self.sizes[1], self.sizes[2 + j]
        data = self.lost_cross * q + self.lost_slope * t
        return (
            self.chi * (self.off * q * t + data)
            + self.lost_cross * self.lost_slope
            + self.lost_direct
        )

    def vectors(self, longest: float) -> list[Inexact]:
        """The exact q and t_j in the metric of H, where a norm is taken by ``longest``."""
        found: list[Inexact] = []
        for size, length, swing in zip(self.sizes[1:], self.lengths[1:], self.swings, strict=True):
            lost = self.lost_cross if found else self.lost_slope
            energy = self.dual(size) + lost
            flat = length / longest + self.off * size + lost
            found.append(Inexact(math.hypot(energy, flat), flat, 0.0, swing))
        return found


def _bends(
    numbers: tuple[float, ...], metric: Metric, sizes: list[float], lengths: tuple[float, ...]
) -> tuple[float, tuple[Bend, ...]]:
    """The largest eigenvalue of G in the metric of H, and what G makes of each tangent."""
    m = len(sizes)
    if not numbers:
        return math.inf, (Bend(),) * m
    seen, lost, *rest = numbers
    chi, longest = metric.chi, metric.longest
    top = chi * seen + lost * longest * longest
    bends = []
    if bends_back(min(top, *(rest[m + j] + lost * lengths[j] * lengths[j] for j in range(m)))):
        return math.nan, (Bend(top=math.nan),) * m
    for j in range(m):
        away = top * (chi - 1) * math.sqrt(chi) * sizes[j]
        product = math.sqrt(chi) * rest[j] + lost * longest * lengths[j] + away
        energy = (
            math.sqrt(rest[m + j] + lost * lengths[j] * lengths[j])
            + math.sqrt(top) * (chi - 1) * sizes[j]
        )
        bends.append(Bend(product, energy, top))
    return top, tuple(bends)
