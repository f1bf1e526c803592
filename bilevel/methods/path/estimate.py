"""How far p is from ∇f after a correction, by what that changed and how much of it is left."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...backends import Array, Pending, pending
from ...linalg import dot, norm
from ...linalg.rounding import known
from ...problem import Problem
from ...status import Status
from .._protocol import estimated, free_part, lost, optimality, too_rounded
from ..correction import SHARES, Look, Solved


@dataclass(frozen=True)
class Estimate:
    """p after a correction, with the estimate of its error."""

    hypergrad: Array
    norm: float
    free_norm: float  # of what D leaves of it
    error: float
    linear_error: float
    errors: tuple[float, ...]  # of q and each t_j, in the norm of H
    stationarity: float
    value: float
    corrected: float
    corrected_error: float
    rounding: float  # in f, which no correction of x brings back
    noise: float  # what rounding leaves of a p that is zero
    decrement: float  # ‖x - X(λ)‖²_H, as far as the last solve tells
    inner_value: float  # abs(h)
    cg_residual: float
    cg_status: Status

    @property
    def finite(self) -> bool:
        """Whether the solve and all that was computed from it are numbers."""
        numbers = (self.norm, self.value, self.inner_value)
        return self.cg_status is not Status.NON_FINITE and all(map(math.isfinite, numbers))

    @property
    def has_tangents(self) -> bool:
        return len(self.errors) > 1

    @property
    def rounded(self) -> bool:
        return too_rounded(self.value, self.rounding)

    @property
    def flat(self) -> bool:
        """Whether p may be zero, as far as rounding lets it be known."""
        return self.norm <= self.noise

    @property
    def signed(self) -> bool:
        """Whether at least the sign of p is known, or that there is none."""
        return self.error < self.norm or self.norm + self.error <= self.noise

    def lost(self, tol: float) -> bool:
        """Whether p is lost in rounding that is more than tol allows: f may well depend on λ.

        A tol of 0 allows none: a p that is nothing leads nowhere.
        """
        return self.flat and (tol == 0 or self.noise > tol * abs(self.value))


@dataclass(frozen=True)
class Asked:
    """What an estimate is made of, to be read."""

    numbers: tuple[Pending, ...]
    n_vectors: int


def asked_of(problem: Problem, solved: Solved, after: Look, rhs: Array) -> Asked:
    """The numbers of :class:`_Numbers`, in their order."""
    backend, point, p = problem.backend, after.point, after.p
    turning = solved.turning
    numbers = (
        after.outer.value,
        dot(after.vectors[..., 0], after.grad, backend),
        lost(problem, point, after.outer, after.vectors[..., 0]),
        abs(pending(point.value)),
        solved.fall,
        norm(p, backend),
        norm(free_part(point.lam, p, problem.domain, backend), backend),
        optimality(problem.domain, backend, point.lam, p),
        norm(p - solved.healed, backend),
        norm(solved.p - solved.healed, backend),
        norm(p - solved.p, backend),
        solved.grad_norm,
        norm(after.grad, backend),
        norm(after.outer.grad_x, backend),
        pending(backend.column_norm(after.vectors))[1:].length(),
        pending(backend.column_norm(solved.residual))[1:],
        pending(backend.column_norm(rhs))[1:],
        *([] if turning is None else [turning]),
    )
    return Asked(tuple(map(pending, numbers)), solved.residual.shape[-1] - 1)


def estimate(problem: Problem, solved: Solved, after: Look, asked: Asked) -> Estimate:
    """How far p is from ∇f, by what the last correction changed and how much of it is left.

    ``asked`` is what :func:`asked_of` made of the same.
    """
    seen = _Numbers.of(problem, asked)
    eps = float(problem.backend.xp.finfo(after.p.dtype).eps)
    corrected_value, corrected_error = estimated(problem, seen.value, seen.correction)
    rounded = max(_ROUNDED, 16 * eps)
    errors = _exact(solved, (seen.grad_before, *after.sizes), rounded)
    # What h does along a step of rounding says nothing of its shape.
    bent = 0.0
    if not solved.rounded:
        bent = _bend(solved.energies[0], seen.fall, 8 * eps * seen.inner_value)
    left, decrement = seen.left(solved, errors[0], bent), solved.energies[0]
    ahead = seen.ahead(after.energies, bent, left / decrement if decrement > 0 else 0.0)
    grown = [
        _grown(*numbers, rounded)
        for numbers in zip(errors[1:], after.energies, seen.old, seen.new, after.sizes, strict=True)
    ]
    linear = _linear(solved, after, seen, errors, grown, rounded)
    changed = seen.change * left / decrement if decrement > 0 else 0.0
    error = linear + max(changed, ahead.missed(seen.size))
    if corrected_error < math.inf:
        # The correction is of first order in what the model would still go, and made with an
        # inexact q: both times the norm of H measures what is left.
        corrected_error += left * (left + grown[0] + ahead.missed_adjoint)
    return Estimate(
        hypergrad=after.p,
        norm=seen.size,
        free_norm=seen.free,
        error=error if error == error else math.inf,
        linear_error=linear,
        errors=tuple(grown),
        stationarity=seen.stationarity,
        value=seen.value,
        corrected=corrected_value,
        corrected_error=corrected_error,
        rounding=known(seen.lost),
        noise=8 * eps * seen.grad_x * seen.tangents,
        decrement=left * left,
        inner_value=seen.inner_value,
        cg_residual=max(solved.residual_norms[1:]),
        cg_status=solved.status,
    )


@dataclass(frozen=True)
class _Ahead:
    """How the way to X(λ) may turn H, where it goes on as the last Newton step did.

    ``along`` is how much H may turn along q and each t_j, and ``turn`` the logarithm s by which the
    curvature may change. In the damped phase of Newton's method s is above 1, and how many steps
    like the last are to come is not known, nor what they will change.
    """

    turn: float
    along: tuple[float, ...]

    @property
    def _share(self) -> float:
        """(e^s - 1 - s) / s², and no bound at all from s = 1 on."""
        s = self.turn
        if not s < 1:
            return math.inf
        return (math.expm1(s) - s) / s**2 if s > 1e-4 else 0.5

    def missed(self, size: float) -> float:
        """What p lacks beyond the first order; ``size`` is ‖p‖, which serves without tangents."""
        q, *tangents = self.along
        square = q * math.hypot(*tangents) if tangents else size * self.turn**2
        return self._share * square if square > 0 else 0.0

    @property
    def missed_adjoint(self) -> float:
        """What q lacks beyond the first order, in the norm of H."""
        square = self.turn * self.along[0]
        return self._share * square if square > 0 else 0.0


@dataclass(frozen=True)
class _AheadByRows:
    """The same where each row answers for itself: those that have still to saturate count most.

    The numbers are what :class:`~bilevel.inner.Turning` says of the share of the last step.
    """

    any_row: float
    missed_adjoint: float
    tangents: tuple[float, ...]

    @classmethod
    def of(cls, table: tuple[float, ...], share: float) -> _AheadByRows:
        """From the shortest step that was read and is long enough; φ(s) / s² grows with s."""
        width = len(table) // len(SHARES)
        rows = [table[i * width : (i + 1) * width] for i in range(len(SHARES))]
        read, row = next(
            (pair for pair in reversed([*zip(SHARES, rows, strict=True)]) if pair[0] >= share),
            (SHARES[0], rows[0]),
        )
        scale = (share / read) ** 2
        most, adjoint, *tangents = (scale * number if scale > 0 else 0.0 for number in row)
        return cls(most, adjoint, tuple(tangents))

    def missed(self, size: float) -> float:
        """What p lacks; without tangents ‖p‖ stands for them, and any row for all."""
        return math.hypot(*self.tangents) if self.tangents else size * self.any_row


@dataclass(frozen=True)
class _Numbers:
    """What an estimate reads of a correction.

    ``size`` and ``free`` are ‖p‖ and that of what D leaves of it, ``change`` that of p by the
    walk, ``healed`` by the solve, ``moved`` by both; ``old`` and ``new`` are the residuals of q and
    the t_j after the solve, and at the new x.
    """

    value: float
    correction: float
    lost: float
    inner_value: float
    fall: float
    size: float
    free: float
    stationarity: float
    change: float
    healed: float
    moved: float
    grad_before: float
    grad: float
    grad_x: float
    tangents: float
    old: tuple[float, ...]
    new: tuple[float, ...]
    turning: tuple[float, ...]

    @classmethod
    def of(cls, problem: Problem, asked: Asked) -> _Numbers:
        """Read all of them at once, if they have not been read with others."""
        host = problem.backend.scalars(*asked.numbers)
        n, k = 15, asked.n_vectors
        rest, turning = host[n : n + 2 * k], host[n + 2 * k :]
        return cls(*host[:n], rest[:k], rest[k:], turning)  # type: ignore[arg-type, call-arg]

    def ahead(
        self, energies: tuple[float, ...], bent: float, share: float
    ) -> _Ahead | _AheadByRows:
        """How the way that is left, a share of the last Newton step, may turn H.

        By the rows where they are known; else by how the fall of h differs from a quadratic's,
        which sees of it only what is along the step.
        """
        if self.turning:
            return _AheadByRows.of(self.turning, share)
        turn = 2 * share * bent
        return _Ahead(turn, tuple(turn * energy for energy in energies))

    def left(self, solved: Solved, error: float, bent: float) -> float:
        """The Newton step that is still to be made, in the norm of H."""
        decrement = solved.energies[0]
        if not solved.moved:
            return decrement
        ratio = min(self.grad / self.grad_before, 1.0) if self.grad_before > 0 else 0.0
        return error + max(ratio, bent) * decrement


def _linear(
    solved: Solved,
    after: Look,
    seen: _Numbers,
    errors: tuple[float, ...],
    grown: list[float],
    rounded: float,
) -> float:
    """The error of p by those of q and of the t_j, ``grown`` at the new x."""
    if after.has_tangents:
        # The errors of q and t_j met at this angle before the solve; they rarely align. Where the
        # solve was exact they are all new.
        met = solved.energies[1] * math.hypot(*solved.energies[2:])
        cosine = min(1.0, max(0.05, 3 * seen.healed / met)) if met > 0 and solved.ready else 0.3
        if any(a <= rounded * size for a, size in zip(seen.old, after.sizes, strict=True)):
            cosine = 1.0
        return cosine * grown[0] * math.hypot(*grown[1:])
    # Without tangents p is in error by the error of q, and what the correction of x does to q
    # shows in no residual: what this sweep left undone is taken in proportion to what it did.
    shares = [e / a for e, a in zip(errors, solved.energies, strict=True) if a > 0]
    share = max(shares, default=0.0)
    energy = after.energies[0]
    linear = seen.size * grown[0] / energy if energy > 0 else math.inf
    if _unseen(solved, errors[1], energy):
        linear = max(linear, seen.size)
    return max(linear, share * seen.moved) if seen.grad_x > 0 else 0.0


def _unseen(solved: Solved, error: float, energy: float) -> bool:
    """Whether the solve has ended without seeing how far q was from its own: p may be all error.

    Where no μ is stated the error of q is an estimate by the last steps of CG. One that is most of
    what the whole solve has changed is one of a few steps, in which nothing has been seen to fall:
    a q that was right for another x lies along flat directions, where such steps hardly lead.
    """
    return solved.errors is None and error > max(_FALLEN * solved.energies[1], _LITTLE * energy)


#: The share of its change up to which the error of a solve has been seen to fall, and the share of
#: q that is little either way.
_FALLEN, _LITTLE = 0.5, 0.03

#: A residual that is this share of its right-hand side is one of rounding, in double precision.
_ROUNDED = 1e-8


def _exact(solved: Solved, sizes: tuple[float, ...], rounded: float) -> tuple[float, ...]:
    """The estimates of the errors of d, q and t, also where few unknowns let CG solve exactly.

    A solve of a few steps ends before its error can be estimated. Its residual, as a share of the
    right-hand side and times a factor for the condition of H, can stand for it where it is tiny.
    """
    found = list(solved.estimates)
    for j, size in enumerate(sizes):
        residual, energy = solved.residual_norms[j], solved.energies[j]
        if residual <= rounded * size:
            found[j] = min(found[j], 1e3 * energy * residual / size if size > 0 else 0.0)
    return tuple(found)


def _grown(
    error: float, energy: float, old: float, new: float, size: float, rounded: float
) -> float:
    """The error of q or t at the new x, by what its residual has become there.

    Where the old residual was one of rounding its growth says nothing, and the share that the new
    one has of the right-hand side does, times a factor for the condition of H.
    """
    if not size > 0:
        return error
    if old > rounded * size:
        return error * max(1.0, new / old)
    if energy == 0 and new > 0:
        return math.inf  # it has not been solved for
    return error + 10 * energy * new / size


def _bend(decrement: float, fall: float, rounding: float) -> float:
    """How much of a Newton step has to be made again because h is no quadratic, by its fall.

    With h(x + t d) = h - t δ² + t² δ²/2 + c t³ a step of length 1 falls short by c of the δ²/2 that
    the quadratic promises, and leaves a gradient of 3 c along d.
    """
    promised = decrement * decrement / 2
    if not promised > 0:
        return 0.0
    return min(max(1.5 * (abs(promised - fall) - rounding) / promised, 0.0), 1.0)
