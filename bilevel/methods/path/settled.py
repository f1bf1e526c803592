"""How much of f is left near an iterate: the Hessian of f there, by one look beside each tangent.

The curvature that a secant shows is that of the last step. On a plateau, or behind a bend, it
says nothing of where the run has come to: a decrease that is small by it may be small by mistake.
With tangents the model at λ + s e_j is predicted, and q and t are so near there that the corrected
p says what f' is: a look beside each hyperparameter, a pass back over the data, gives the second
derivatives of f at the iterate itself.

p is in error by the product of the errors of q and t, but these second derivatives are by each of
them: from λ to λ + s e_k the error of q grows by s Q', that of t_j by s T', and the product by
s (e_q T' + e_t Q' + s Q' T'). In a flat valley that is far more than the curvature along it, which
is then not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...backends import Array, Backend
from ...linalg import norm
from ...problem import Problem
from .._protocol import free_part
from ..correction.looks import Look, ahead, look_at
from .aside import Move
from .model import Model, generic, least


@dataclass(frozen=True)
class Beside:
    """The change of p from λ to λ + step · way, as far as the look at λ predicts it.

    ``blur``: how far each number of it may be wrong.
    """

    way: tuple[float, ...]
    step: float
    change: tuple[float, ...]
    blur: tuple[float, ...]

    @property
    def hidden(self) -> bool:
        """Whether not even the sign of the second derivative along the way is known."""
        return along(self.blur, map(abs, self.way)) >= abs(along(self.change, self.way))


def along(numbers: Iterable[float], way: Iterable[float]) -> float:
    """What of the numbers lies along a way; those that it leaves alone may be NaN."""
    return sum(n * w for n, w in zip(numbers, way, strict=True) if w != 0)


def beside(
    problem: Problem, look: Look, rhs: Array, errors: tuple[float, ...], move: Move
) -> Beside:
    """Look where ``move`` leads.

    ``rhs`` and ``errors`` are the residuals at λ, and the errors of q and t there in the norm of H.
    """
    backend, m = problem.backend, len(move.way)
    point = ahead(problem, look.point, look.vectors, look.pushed, move.target, move.delta)
    there, rest = look_at(problem, point, look.vectors, look.pushed)
    change = there.p - look.p
    host = backend.scalars(change, backend.column_norm(rest[..., 1:] - rhs[..., 1:]))
    return Beside(move.way, move.step, host[:m], _blur(look, errors, host[m:]))


def confirmed(now: Beside, before: Beside) -> Beside:
    """The look, where its blur has fallen: by no more in error than it has moved meanwhile.

    In an ill-conditioned H the residuals tell far too much of the errors of q and t.
    """
    scale = abs(now.step / before.step)
    numbers = zip(now.change, before.change, now.blur, before.blur, strict=True)
    blur = tuple(
        min(b, abs(c - was * now.step / before.step)) if b <= 0.3 * scale * blurred else b
        for c, was, b, blurred in numbers
    )
    return replace(now, blur=blur)


def _blur(look: Look, errors: tuple[float, ...], grown: tuple[float, ...]) -> tuple[float, ...]:
    """What of the change of each p_j is error, by how much the residuals of q and t have grown.

    As a share of the right-hand sides the residuals say how far q and t have still to go.
    """
    q, *tangents = (
        e * r / size if size > 0 else 0.0
        for e, r, size in zip(look.energies, grown, look.sizes, strict=True)
    )
    return tuple(
        (errors[0] + q) * (error + t) - errors[0] * error
        for error, t in zip(errors[1:], tangents, strict=True)
    )


#: Of a Newton step longer than this the curvature at its beginning says nothing.
_REACH = 1.5


@dataclass(frozen=True)
class Left:
    """The decrease of f that is left: as the looks have it, at least and at most by their blur."""

    seen: float
    least: float
    most: float


def decrease_left(
    problem: Problem, lam: Array, p: tuple[float, ...], error: float, looks: list[Beside]
) -> Left:
    """½ (‖p‖ + error)² / curvature along the Newton step of the coordinates that were looked at.

    The error of p is counted against it; inf where the Hessian is not positive definite, and where
    the step, as far as D lets it, is so long that f may bend before its end: on a plateau.
    """
    axes = [b.way.index(1.0) for b in looks]
    right, n = [p[j] for j in axes], range(len(axes))
    hessian, blur = _hessian(looks)
    seen = _decrease(problem, lam, axes, hessian, right, error)
    if len(looks) == 1 and not looks[0].hidden:
        # No wall beside the valley whose error could hide it.
        return Left(seen, seen, seen)
    # |2 b x_j x_k| ≤ b (r x_j² + x_k² / r): with the r that makes both coordinates alike.
    scale = [math.sqrt(abs(hessian[j][j])) for j in n]
    spread = [sum(blur[j][k] * scale[j] / scale[k] for k in n if scale[k] > 0) for j in n]
    least, most = (
        _decrease(problem, lam, axes, _shifted(hessian, spread, sign), right, error)
        for sign in (1, -1)
    )
    # A valley that is flat as far as is known is an end where a step of full reach gains nothing.
    flat = seen + max(map(sum, blur)) * _REACH**2 / 2
    return Left(seen, least, min(most, flat))


def left_within(problem: Problem, lam: Array, p: Array, error: float, looks: list[Beside]) -> Left:
    """The same where D is no box: by where in D the model of the looks is least.

    On a face that bends a Hessian that is not positive definite may be one along the face.
    """
    hessian, blur = _unfolded(looks, *_hessian(looks))
    spread = [sum(map(abs, row)) for row in blur]
    seen, lowest, most = (
        _decrease_within(problem, lam, p, _shifted(hessian, spread, sign), error)
        for sign in (0, 1, -1)
    )
    flat = seen + max(spread) * _REACH**2 / 2
    return Left(seen, lowest, min(most, flat))


def _decrease_within(
    problem: Problem, lam: Array, p: Array, hessian: list[list[float]], error: float
) -> float:
    """The decrease of the model in D, from both sides: from a saddle it leads far away."""
    backend, xp = problem.backend, problem.backend.xp
    matrix = xp.asarray(hessian, dtype=lam.dtype, device=backend.device)
    part = free_part(lam, p, problem.domain, backend)
    size, slope = backend.scalars(norm(part, backend), norm(p, backend))
    aside = generic(lam, backend)
    if size == 0:  # λ is where it is least by p as it is, and not by p as it may be
        p = p + error * aside
    rows = (sum(map(abs, row)) for row in hessian)
    model = Model(lam, p, lambda v: matrix @ v, 1 / max(*rows, _FAR * (slope + error), 1e-30))
    starts = (lam + _ASIDE * aside, lam - _ASIDE * aside)
    found = [least(model, problem.domain, start, backend) for start in starts]
    lengths = backend.scalars(*(norm(one.step, backend) for one in found))
    if not all(one.found for one in found) or max(lengths) > _REACH:
        return math.inf
    decrease = max(0.0, *(one.decrease for one in found))
    return decrease * (1 + error / size) ** 2 if size > 0 else decrease


#: How far beside λ the model is asked for a lower place.
_ASIDE = 0.1

#: A first step of 1 / _FAR is beyond all reach, where the Hessian asks for a longer one.
_FAR = 1e-3


def _hessian(looks: list[Beside]) -> tuple[list[list[float]], list[list[float]]]:
    """The second derivatives along the ways, of two looks that tell one the better, and blurs."""
    n = range(len(looks))
    rows = [
        [
            (
                along(b.blur, map(abs, c.way)) / abs(b.step),
                along(b.change, c.way) / b.step,
            )
            for c in looks
        ]
        for b in looks
    ]
    best = [[min(rows[j][k], rows[k][j]) for k in n] for j in n]
    return [[h for _, h in row] for row in best], [[b for b, _ in row] for row in best]


def _unfolded(looks: list[Beside], *matrices: list[list[float]]) -> list[list[list[float]]]:
    """The matrices W S Wᵀ of all λ_j that have the numbers S along the ways, and none beyond.

    The columns of W are the ways where they are at right angles, else U (UᵀU)⁻¹.
    """
    n, m = range(len(looks)), range(len(looks[0].way))
    gram = [[along(b.way, c.way) for c in looks] for b in looks]
    inverse = [_solved(gram, [float(j == k) for j in n]) or [0.0 for _ in n] for k in n]
    w = [[sum(looks[k].way[i] * inverse[k][j] for k in n) for j in n] for i in m]
    return [
        [[sum(a[j] * s[j][k] * b[k] for j in n for k in n) for b in w] for a in w] for s in matrices
    ]


def _shifted(matrix: list[list[float]], by: list[float], sign: int) -> list[list[float]]:
    n = range(len(by))
    return [[matrix[j][k] + (sign * by[j] if j == k else 0.0) for k in n] for j in n]


def _decrease(
    problem: Problem,
    lam: Array,
    axes: list[int],
    hessian: list[list[float]],
    right: list[float],
    error: float,
) -> float:
    size = math.hypot(*right)
    step = _solved(hessian, right if size > 0 else [1.0] * len(right))
    if step is None:
        return math.inf
    if size == 0:
        return error**2 * sum(step) / 2
    if _reach(problem, lam, dict(zip(axes, step, strict=True))) > _REACH:
        return math.inf
    return sum(r * s for r, s in zip(right, step, strict=True)) / 2 * (1 + error / size) ** 2


def _reach(problem: Problem, lam: Array, step: dict[int, float]) -> float:
    """‖P_D(λ - step) - λ‖."""
    backend, xp = problem.backend, problem.backend.xp
    whole = [step.get(j, 0.0) for j in range(int(lam.shape[0]))]
    target = lam - xp.asarray(whole, dtype=lam.dtype, device=backend.device)
    (length,) = backend.scalars(norm(problem.domain.project(target, backend) - lam, backend))
    return length


def _solved(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """A⁻¹ b by elimination, None where A is not positive definite: A is of very few rows."""
    a, b = [row[:] for row in matrix], right[:]
    n = len(b)
    for k in range(n):
        pivot = a[k][k]
        if not pivot > 0 or not math.isfinite(pivot):
            return None
        for i in range(k + 1, n):
            factor = a[i][k] / pivot
            b[i] -= factor * b[k]
            for j in range(k, n):
                a[i][j] -= factor * a[k][j]
    for k in reversed(range(n)):
        b[k] = (b[k] - sum(a[k][j] * b[j] for j in range(k + 1, n))) / a[k][k]
    return b


def let_go(problem: Problem, look: Look, error: float, gap: float) -> Left:
    """The decrease that is left by a rule, or by p where it grows on the way.

    Where e^λ_j is nearly all of the curvature of its coefficients they are held at zero, and where
    it is nearly nothing they are let be. Either way f - c and p_j grow by e for each unit that λ_j
    moves towards the other, as far as D lets it: a step of 1 shows little of that (:class:`_Held`).
    At least it is that of the p_j beyond their error. Nothing is known of it where the diagonal of
    H is not.
    """
    backend, xp, lam = problem.backend, problem.backend.xp, look.point.lam
    held = _Held.at(problem, look)
    if held is None:
        return Left(gap, gap, gap)
    p = free_part(lam, look.p, problem.domain, backend)
    zero = xp.zeros_like(p)
    down, up = xp.where(p > 0, p, zero), xp.where(p < 0, -p, zero)
    moves = (-held.down(down), held.up(up))
    room = [xp.abs(lam - problem.domain.project(lam + move, backend)) for move in moves]
    each = down * xp.expm1(room[0]) + up * xp.expm1(room[1])
    known = xp.where(down + up > error, each, zero)
    least, most = (max(gap, fall) for fall in backend.scalars(xp.sum(known), xp.sum(each)))
    return Left(least, least, most)


@dataclass(frozen=True)
class _Held:
    """How long a p_j grows by e for each unit of λ_j.

    Attributes
    ----------
    share : array, shape (m,)
        s, the share of the curvature of its coefficients that each e^λ_j has; 0 where it has none.
    curvature : array, shape (m,)
        Σ (s x)² D, D the rest of the diagonal of H: about the part of ∂²f/∂λ_j² that is of a
        minimum, if the criterion bends as h does.
    """

    share: Array
    curvature: Array
    backend: Backend

    @classmethod
    def at(cls, problem: Problem, look: Look) -> _Held | None:
        point, xp = look.point, problem.backend.xp
        diagonal = point.diag()
        if diagonal is None:
            return None
        pulled = point.cross_jvp(xp.ones_like(point.lam))  # e^λ x
        here, whole = point.cross_vjp(pulled), point.cross_vjp(diagonal * point.x)
        known = (here > 0) & (whole > 0)
        share = xp.where(known, here / xp.where(known, whole, xp.ones_like(whole)), 0 * whole)
        moved = pulled / diagonal  # s x
        bent = xp.where(known, point.cross_vjp(moved) * (1 - share), 0 * whole)
        return cls(share, bent, problem.backend)

    def down(self, p: Array) -> Array:
        """Until the share 1 - s of the data has grown to that of the penalty: by 1 / (1 - s)."""
        xp = self.backend.xp
        eps = float(xp.finfo(p.dtype).eps)
        rest = xp.clip(1 - self.share, eps, 1.0)
        return -xp.log(xp.where(p > 0, rest, xp.ones_like(rest)))

    def up(self, p: Array) -> Array:
        """Until s has grown to that of the data, by 1 / s, or f bends up: that grows by e²."""
        xp = self.backend.xp
        one = xp.ones_like(self.share)
        told = (p > 0) & (self.share > 0)
        whole = 1 / xp.where(told, self.share, one)
        bends = self.curvature > 0
        until = xp.where(bends, p / xp.where(bends, self.curvature, one), whole)
        return xp.log(xp.where(told, xp.maximum(xp.minimum(whole, until), one), one))
