"""When a linear solve is precise enough: by its residual, or by its error in the energy norm.

In the norm ‖e‖_A = √(eᵀ A e) the error of conjugate gradients can be bounded from numbers that
the method computes anyway, given a lower bound μ of the spectrum of M⁻¹A: the Gauss-Radau bound of
Golub and Meurant (1994), in the form of Meurant and Tichý (2013, algorithm 2),

    ‖x* - x_k‖²_A ≤ γ_k rᵀz,   γ_0 = 1/μ,   γ_{k+1} = (γ_k - α_k) / (μ (γ_k - α_k) + β_{k+1}).

It is a bound in exact arithmetic and holds up to rounding (Strakoš and Tichý 2002). A gradient
norm can't do this: most of an error lies where the curvature is small, and there the gradient
shows little of it.

The γ_k - α_k are the pivots of T_k - μ I, T_k being the matrix of the Lanczos method: all are
positive as long as no Ritz value of M⁻¹A lies below μ. The first that is not refutes what is stated
of μ, or of M, for no product more; without this look the bound would fall to nothing there.

An M⁻¹ that is far too small along a direction hides it from all of these numbers: the steps don't
go there, and rᵀz does not count what is left. The residual itself does. With A ⪯ L its error is

    ‖x* - x_k‖²_A = rᵀA⁻¹r ≥ rᵀr / L,

and a bound that has come to lie below that refutes the statement as well.

Where no μ is known, or one so small that the bound is of no use, the error is estimated from below
by the steps that came after (Hestenes and Stiefel 1952, theorem 6:1; Strakoš and Tichý 2002):

    ‖x* - x_{k-d}‖²_A = Σ_{k-d ≤ j < k} α_j r_jᵀz_j + ‖x* - x_k‖²_A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable


@dataclass(frozen=True)
class Progress:
    """One column of a solve as the host knows it.

    Attributes
    ----------
    goal : float
        What the measure must come down to.
    relative : float
        The goal grows to this share of the energy reached, where that is larger.
    mu : float or None
        Lower bound of the spectrum; None measures the residual.
    gamma : float
        γ_k.
    rounding : float
        What γ_k - α_k, which is positive in theory, may have lost, as a share of γ_k.
    energy : float
        ‖x_k - x_0‖²_A = Σ α_j r_jᵀz_j.
    rz, rr : float
        rᵀM⁻¹r and rᵀr.
    refuted : bool
        The steps have shown that μ is no lower bound, or that M⁻¹ is not symmetric and positive.
    """

    goal: float
    relative: float = 0.0
    mu: float | None = None
    gamma: float = math.inf
    rounding: float = 1e-12
    energy: float = 0.0
    rz: float = math.inf
    rr: float = math.inf
    refuted: bool = False

    @property
    def error(self) -> float | None:
        """The bound of ‖x* - x_k‖_A, infinite where it is not known; None where there is no μ."""
        if self.mu is None:
            return None
        return math.inf if self.refuted or self.lost else math.sqrt(max(self.gamma * self.rz, 0.0))

    @property
    def estimate(self) -> float | None:
        """What ‖x* - x_k‖_A is taken for, the bound where there is one."""
        return self.error

    @property
    def misjudged(self) -> float:
        """How many times larger than an estimate the error was where that would have stopped."""
        return 0.0

    @property
    def residual_goal(self) -> float:
        """What the true residual must come down to; an energy goal makes no demand on it."""
        return self.goal if self.mu is None else math.inf

    @property
    def reached(self) -> bool:
        error = self.error
        if error is None:
            return math.sqrt(max(self.rr, 0.0)) <= self.goal
        return error <= max(self.goal, self.relative * math.sqrt(max(self.energy, 0.0)))

    @property
    def lost(self) -> bool:
        """Whether rᵀM⁻¹r is not positive for an r ≠ 0: it then measures nothing.

        A residual below a goal of its own needs no measure by M.
        """
        goal = self.residual_goal
        shown = math.isfinite(goal) and math.sqrt(max(self.rr, 0.0)) <= goal
        return self.rz <= 0 < self.rr and not shown

    def _with(self, **changes: Any) -> Self:
        """With other numbers; ``dataclasses.replace`` takes longer than the rest of a step."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    @property
    def curvature(self) -> float:
        """A number below the least curvature that the steps have shown, inf if not followed."""
        return math.inf

    def begin(self, rz: float, rr: float) -> Progress:
        return self._with(rz=rz, rr=rr)

    def again(self) -> Progress:
        """The same where the recursion starts anew."""
        return self

    def advance(self, alpha: float, rz: float, rr: float) -> Progress:
        """The same after a step of length alpha."""
        return self._with(energy=self.energy + alpha * self.rz, rz=rz, rr=rr)


@dataclass(frozen=True)
class Delayed(Progress):
    """A column whose error is estimated by its last steps, as the host knows it.

    ``energies`` are ‖x_j - x_0‖²_A of all steps. A window of a fifth of the steps, at least
    ``window``, covers the plateaus that the convergence of an ill-conditioned system has; the error
    of the beginning of the window is taken for that of its end, which is smaller.
    """

    window: int = 4
    energies: tuple[float, ...] = (0.0,)

    @property
    def estimate(self) -> float | None:
        """√ of what the window added; infinite before there is one, 0 at an exact solution."""
        if self.lost:
            return math.inf
        if self.rz == 0:
            return 0.0
        width = max(self.window, len(self.energies) // 5)
        if len(self.energies) <= width:
            return math.inf
        return math.sqrt(max(self.energies[-1] - self.energies[-1 - width], 0.0))

    @property
    def residual_goal(self) -> float:
        return math.inf

    @property
    def reached(self) -> bool:
        estimate = self.estimate
        assert estimate is not None
        return estimate <= max(self.goal, self.relative * math.sqrt(max(self.energy, 0.0)))

    def advance(self, alpha: float, rz: float, rr: float) -> Self:
        energy = self.energy + alpha * self.rz
        return self._with(energy=energy, rz=rz, rr=rr, energies=(*self.energies, energy))


@dataclass(frozen=True)
class Followed(Delayed):
    """A column whose least curvature is followed too.

    ``least`` is a number below the Ritz values until now, at most four times; γ_k is by it what it
    would be by μ. ``steps`` are α_k and β_{k+1} of all steps.
    """

    least: float = math.inf
    steps: tuple[tuple[float, float], ...] = ()

    @property
    def curvature(self) -> float:
        return self.least

    def again(self) -> Self:
        return self._with(gamma=math.inf, steps=())

    def advance(self, alpha: float, rz: float, rr: float) -> Self:
        beta = rz / self.rz if self.rz > 0 else 0.0
        steps, least = (*self.steps, (alpha, beta)), min(self.least, 0.5 / alpha)
        known = least == self.least and self.gamma < math.inf
        gamma = _pivot(least, self.gamma, alpha, beta, self.rounding) if known else None
        while gamma is None and least > 0:
            gamma = _radau(least, steps, self.rounding)
            least = least if gamma is not None else 0.5 * least
        ahead = super().advance(alpha, rz, rr)
        gamma = math.inf if gamma is None else gamma
        return ahead._with(gamma=gamma, least=least, steps=steps)


@dataclass(frozen=True)
class Guarded(Followed):
    """A column whose error is estimated by its last steps and by the least curvature seen.

    On a plateau the last steps add nothing while the error is large. The Gauss-Radau bound with a
    number below the Ritz values, in the place of μ, does not let such a column end (Meurant and
    Tichý 2019). Where the spectrum reaches further down than any step has shown it is no bound.
    """

    @property
    def estimate(self) -> float | None:
        recent = super().estimate
        assert recent is not None
        if self.rz == 0 or self.lost:
            return recent
        return max(recent, math.sqrt(self.gamma * self.rz))


@dataclass(frozen=True)
class Bounded(Progress):
    """A column with a bound, which notes where an estimate would have stopped it.

    On the plateaus of an ill-conditioned system the last steps say little of those to come. Where
    the bound has made a column go on, it shows how much. Where the bound is refuted the number is
    still what the error is taken for: a residual of rounding alone can refute anything.

    ``steps`` are α_k and β_{k+1} of all steps, ``top`` is an upper bound of the spectrum of A
    where one is stated, ``steepest`` the largest rᵀM⁻¹r / rᵀr until now.
    """

    estimated: Delayed = field(kw_only=True)
    steps: tuple[tuple[float, float], ...] = ()
    top: float | None = None
    steepest: float = 0.0

    @property
    def estimate(self) -> float | None:
        return math.inf if self.lost else math.sqrt(self.gamma * self.rz)

    @property
    def reached(self) -> bool:
        estimate = self.estimate
        assert estimate is not None
        return estimate <= max(self.goal, self.relative * math.sqrt(max(self.energy, 0.0)))

    @property
    def misjudged(self) -> float:
        said, error = self.estimated.estimate, self.error
        assert said is not None
        assert error is not None
        if self.refuted or not self.estimated.reached or said == 0:
            return 0.0
        return math.hypot(math.sqrt(max(self.energy - self.estimated.energy, 0.0)), error) / said

    def begin(self, rz: float, rr: float) -> Bounded:
        known = self.estimated._with(rz=rz, rr=rr)
        return self._with(rz=rz, rr=rr, estimated=known)._weighed()

    def again(self) -> Bounded:
        assert self.mu is not None
        return self._with(gamma=1 / self.mu, steps=())

    def advance(self, alpha: float, rz: float, rr: float) -> Bounded:
        ahead, known = super().advance(alpha, rz, rr), self.estimated
        assert isinstance(ahead, Bounded)
        beta = rz / self.rz if self.rz > 0 else 0.0
        ahead = ahead._lengthened((*self.steps, (alpha, beta)))._weighed()
        return ahead if known.reached else ahead._with(estimated=known.advance(alpha, rz, rr))

    def _lengthened(self, steps: tuple[tuple[float, float], ...]) -> Bounded:
        """With one more step: γ by it, or by the largest bound below μ that all steps allow."""
        mu = self.mu
        assert mu is not None
        gamma = _pivot(mu, self.gamma, *steps[-1], self.rounding)
        if gamma is not None:
            return self._with(gamma=gamma, steps=steps)
        # A quotient is rounded as a share of the largest one.
        told = self.rounding * max(1 / alpha for alpha, _ in steps) < _FORGIVEN * mu
        share = self.rounding
        while told and not self.refuted and share < _FORGIVEN:
            less = _radau(mu * (1 - share), steps, self.rounding)
            if less is not None:
                return self._with(mu=mu * (1 - share), gamma=less, steps=steps)
            share *= 8
        left = self.rounding * self.gamma
        gamma = left / (mu * left + steps[-1][1])
        return self._with(gamma=gamma, steps=steps, refuted=self.refuted or told)

    def _weighed(self) -> Bounded:
        """With the bound held against what the error is at least with such a residual.

        M⁻¹r is rounded as a share of the most that M⁻¹ makes of a vector.
        """
        if not self.top or self.lost or not self.rr > 0:
            return self
        steepest = max(self.steepest, self.rz / self.rr)
        most = self.gamma * (self.rz + self.rounding * steepest * self.rr)
        hidden = most * self.top < (1 - _FORGIVEN) * self.rr
        return self._with(steepest=steepest, refuted=self.refuted or hidden)


@dataclass(frozen=True)
class Crude(Bounded):
    """A column that goes on until a bound is small which is far too large, by a μ far too small.

    What the error is taken for is the estimate by its last steps, as without the bound.
    """

    @property
    def estimate(self) -> float | None:
        bound, recent = super().estimate, self.estimated.estimate
        assert bound is not None
        assert recent is not None
        return min(bound, recent)

    @property
    def reached(self) -> bool:
        bound = super().estimate
        assert bound is not None
        return bound <= max(self.goal, self.relative * math.sqrt(max(self.energy, 0.0)))

    @property
    def misjudged(self) -> float:
        return 0.0

    def advance(self, alpha: float, rz: float, rr: float) -> Bounded:
        known = self.estimated.advance(alpha, rz, rr)
        return super().advance(alpha, rz, rr)._with(estimated=known)


@dataclass(frozen=True)
class Watched(Bounded):
    """A column that stops by its residual, and whose μ is watched on the way."""

    @property
    def error(self) -> None:
        return None

    @property
    def estimate(self) -> None:
        return None

    @property
    def misjudged(self) -> float:
        return 0.0

    @property
    def residual_goal(self) -> float:
        return self.goal

    @property
    def reached(self) -> bool:
        return math.sqrt(max(self.rr, 0.0)) <= self.goal

    def advance(self, alpha: float, rz: float, rr: float) -> Watched:
        ahead = Progress.advance(self, alpha, rz, rr)
        assert isinstance(ahead, Watched)
        beta = rz / self.rz if self.rz > 0 else 0.0
        watched = ahead._lengthened((*self.steps, (alpha, beta)))
        assert isinstance(watched, Watched)
        return watched


def _pivot(mu: float, gamma: float, alpha: float, beta: float, rounding: float) -> float | None:
    """γ_{k+1}; None where γ_k - α_k is negative beyond rounding, so that μ is no lower bound.

    γ_{k+1} grows with the difference: what rounding may have taken of it is added.
    """
    if not alpha <= gamma * (1 + rounding):
        return None
    left = max(gamma - alpha, 0.0) + rounding * gamma
    return left / (mu * left + beta)


def _radau(mu: float, steps: tuple[tuple[float, float], ...], rounding: float) -> float | None:
    """The γ to which all steps lead from 1/μ."""
    gamma: float | None = 1 / mu
    for alpha, beta in steps:
        gamma = None if gamma is None else _pivot(mu, gamma, alpha, beta, rounding)
    return gamma


#: By so much, as a share, M⁻¹A may be seen to fall short of the μ that is stated: the bound is made
#: with what was seen. Beyond it the statement is refuted, unless rounding may do as much.
_FORGIVEN = 0.1


@runtime_checkable
class Accuracy(Protocol):
    """A stopping test, one :class:`Progress` a column."""

    def start(self, column: int) -> Progress: ...


@dataclass(frozen=True)
class Residual:
    """Stop where ‖b - A x‖ ≤ goal, one goal a column.

    Parameters
    ----------
    goals : tuple of float
        One number a column.
    mu : float, optional
        A lower bound of the spectrum of M⁻¹A that is stated: it decides nothing, and is refuted
        where the steps show that it is none.
    """

    goals: tuple[float, ...]
    mu: float | None = None

    def start(self, column: int) -> Progress:
        goal = self.goals[column]
        if not self.mu:
            return Progress(goal)
        return Watched(goal, mu=self.mu, gamma=1 / self.mu, estimated=Delayed(goal))


@dataclass(frozen=True)
class Energy:
    """Stop where ‖A⁻¹b - x‖_A ≤ max(absolute, relative ‖x - x0‖_A), each one number a column.

    Parameters
    ----------
    mu : float
        A positive lower bound of the spectrum of M⁻¹A.
    absolute, relative : tuple of float
        One number a column.
    top : float, optional
        An upper bound of the spectrum of A: with it an M that is too large along directions that
        the steps leave out is seen.
    crude : bool
        mu is far below the spectrum: the bound decides when to stop, and an estimate by the last
        steps is what the error is taken for
        (:attr:`~bilevel.linalg.CGResult.energy_estimates`).
    """

    mu: float
    absolute: tuple[float, ...]
    relative: tuple[float, ...]
    top: float | None = None
    crude: bool = False

    def __post_init__(self) -> None:
        if not self.mu > 0:
            raise ValueError(f"mu must be positive, got {self.mu!r}.")

    def start(self, column: int) -> Progress:
        goals = self.absolute[column], self.relative[column]
        known = Delayed(*goals)
        progress = Crude if self.crude else Bounded
        return progress(*goals, mu=self.mu, gamma=1 / self.mu, estimated=known, top=self.top)


@dataclass(frozen=True)
class EstimatedEnergy:
    """Stop where ‖A⁻¹b - x‖_A, as estimated, is ≤ max(absolute, relative ‖x - x0‖_A).

    Parameters
    ----------
    absolute, relative : tuple of float
        One number a column.
    """

    absolute: tuple[float, ...]
    relative: tuple[float, ...]

    def start(self, column: int) -> Progress:
        return Followed(self.absolute[column], self.relative[column])


@dataclass(frozen=True)
class GuardedEnergy(EstimatedEnergy):
    """The same, where an estimate that is far too small would do harm: no plateau is an end.

    Parameters
    ----------
    absolute, relative : tuple of float
        One number a column.
    least : float
        What other solves with the same operator and preconditioner have shown of its least
        curvature: :attr:`~bilevel.linalg.CGResult.curvature`.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.linalg import EstimatedEnergy, GuardedEnergy, cg
    >>> diagonal, b = np.geomspace(1, 100, 50), np.ones(50)
    >>> diagonal[-1], b[-1] = 1e-8, 1e-3  # a direction with little curvature
    >>> goals = (1e-2,), (0.0,)
    >>> before = cg(lambda v: diagonal * v, np.ones(50), tol=EstimatedEnergy(*goals))
    >>> 0.25e-8 < before.curvature < 1e-8
    True
    >>> for accuracy in (EstimatedEnergy(*goals), GuardedEnergy(*goals, before.curvature)):
    ...     error = b / diagonal - cg(lambda v: diagonal * v, b, tol=accuracy).x
    ...     print(bool(np.sqrt(error @ (diagonal * error)) < 1e-2))
    False
    True
    """

    least: float = math.inf

    def start(self, column: int) -> Progress:
        gamma = 1 / self.least if self.least > 0 else math.inf
        goals = self.absolute[column], self.relative[column]
        return Guarded(*goals, gamma=gamma, least=self.least)
