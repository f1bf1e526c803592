"""What path following keeps of the Hessian for the next solve, and in which precision it solves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...backends import Array, Backend
from ...hypergrad import Metric
from ...inner import InnerPoint, Roundable, Rounded
from ...inner.averaged import Averaging
from ...linalg import (
    Accuracy,
    Energy,
    EstimatedEnergy,
    GuardedEnergy,
    Nystrom,
    Preconditioner,
    QuasiNewton,
    Recorder,
    jacobi,
    norm,
)
from ...problem import Problem
from .certified import Wanted
from .looks import Look


@dataclass(frozen=True)
class Sketch:
    """A low-rank approximation of A = H - μ I, made at one (x, λ) and kept along the path.

    Elsewhere it still speeds CG up, whose error bound is then an estimate. At the same λ the bound
    is proven: A(x) ⪰ e^{-R‖x - x₀‖} A(x₀).
    """

    nystrom: Nystrom
    x: Array
    lam: Array

    @classmethod
    def at(cls, look: Look, rank: int) -> Sketch:
        point, mu = look.point, look.constants.mu or 0.0
        sketch = Nystrom.of(lambda v: point.hvp(v) - mu * v, point.x, rank, seed=0)
        return cls(sketch, point.x, point.lam)

    def ahead(self, look: Look) -> Sketch:
        """For the solve that is to end the run: made again here, so that its bound is proven."""
        return Sketch.at(look, self.nystrom.basis.shape[-1])

    def proven(self, look: Look, backend: Backend) -> Sketch:
        """What has a proven bound here, after a solve that had none."""
        return self.ahead(look)

    def lower_bound(self, look: Look, backend: Backend) -> float:
        """A proven lower bound of the spectrum of M⁻¹H, 0 where there is none worth having."""
        return (look.constants.mu or 0.0) * _alike(look, self.x, self.lam, backend)


@dataclass(frozen=True)
class Pairs:
    """The last conjugate directions of a solve, kept for the next one at no product.

    At the λ where they were found the bound of :class:`~bilevel.linalg.QuasiNewton` is proven,
    times e^{-R‖x - x₀‖} as for a :class:`Sketch`.
    """

    known: QuasiNewton
    x: Array
    lam: Array

    @classmethod
    def at(cls, look: Look, seen: Recorder) -> Pairs | None:
        """Of the directions seen there; None where none has a curvature."""
        known = QuasiNewton.of(*seen.take())
        return None if known is None else cls(known, look.point.x, look.point.lam)

    def ahead(self, look: Look) -> Pairs:
        """The same: the first solve at a λ proves nothing, the next one has pairs from there."""
        return self

    def proven(self, look: Look, backend: Backend) -> Pairs | None:
        """These, unless the last solve brought none: then none."""
        return self if self.lower_bound(look, backend) > 0 else None

    def lower_bound(self, look: Look, backend: Backend) -> float:
        """The factor beside γ μ in the bound of M⁻¹H, 0 where nothing is proven."""
        return _alike(look, self.x, self.lam, backend)


@dataclass(frozen=True)
class Averages:
    """The preconditioner by mean curvatures, formed anew at each point.

    ``proves``: with the crude bound that is known of it. By that a solve goes on until its error
    is proven; otherwise the error is estimated. ``pairs``: the last conjugate directions of the
    solve before, for all three answers. Solves for corrections leave what is slow to the next one:
    with the pairs over it that is known.
    """

    proves: bool = False
    pairs: Pairs | None = None

    @classmethod
    def at(cls, look: Look) -> Averages | None:
        """None where the point knows none."""
        return None if cls.apply(look) is None else cls()

    @staticmethod
    def apply(look: Look) -> tuple[Preconditioner, float] | None:
        """M⁻¹ and its bound, None where the point knows none."""
        return look.point.averaged() if isinstance(look.point, Averaging) else None

    def ahead(self, look: Look) -> Averages:
        return replace(self, proves=True)

    def proven(self, look: Look, backend: Backend) -> Averages:
        return replace(self, proves=True)

    def inverse(self, look: Look, backend: Backend) -> tuple[Preconditioner, float] | None:
        """M⁻¹ with the pairs over it, and its bound; without those that would prove nothing."""
        found = self.apply(look)
        if found is None or self.pairs is None:
            return found
        alike = self.pairs.lower_bound(look, backend) if self.proves else 1.0
        if alike == 0:
            return found
        return self.pairs.known.inverse(found[0], 1.0), alike * found[1]


#: Coefficients up to which H is formed for each correction: two passes with so many columns cost
#: less than the ten to thirty with three that they save.
FORMED = 32


@dataclass(frozen=True)
class Formed:
    """H as a matrix at this very point; what rounding leaves unknown of it is in the bound."""

    metric: Metric
    bottom: float

    @classmethod
    def at(cls, problem: Problem, look: Look) -> Formed | None:
        """None with many coefficients, or where H is not known well enough to be inverted.

        Without tangents too: the error of p is then told from what a solve has left undone, and
        this leaves nothing.
        """
        few = math.prod(look.point.x.shape) <= FORMED and look.has_tangents
        smooth = look.constants.self_concordance is not None
        if not few or not smooth or not isinstance(look.point, Rounded):
            return None
        largest = (look.constants.smoothness or 0.0) + math.hypot(*look.sizes)
        if not largest < 1e-6 * math.sqrt(problem.backend.xp.finfo(problem.dtype).max):
            return None  # its factors would overflow
        metric = Metric.at(problem, look.point, look.constants)
        return None if metric is None else cls(metric, 1 / metric.chi)

    def inverse(self, backend: Backend) -> Preconditioner:
        """r ↦ W Wᵀ r."""
        xp, W = backend.xp, self.metric.W

        def apply(r: Array) -> Array:
            seen = xp.matmul(W.T, xp.reshape(r, (W.shape[0], -1)))
            return xp.reshape(xp.matmul(W, seen), r.shape)

        return apply


def _alike(look: Look, x: Array, lam: Array, backend: Backend) -> float:
    """c with H here ⪰ c H(x, λ), 0 where none is proven or worth having."""
    point, constants = look.point, look.constants
    away, moved = backend.scalars(norm(point.x - x, backend), norm(point.lam - lam, backend))
    if not constants.mu or constants.self_concordance is None or moved > 0:
        return 0.0
    change = constants.self_concordance * away
    return math.exp(-change) if change < 1 else 0.0


#: What may be kept of one solve for the next.
Kept: TypeAlias = Sketch | Pairs | Averages


def preconditioner(
    problem: Problem, look: Look, sketch: Kept | Formed | None
) -> tuple[Preconditioner | None, float | None, bool]:
    """M⁻¹ by what is kept of H and what is known of it here, and a lower bound of M⁻¹H.

    None where none is proven (the last is False): the bound of an error by a number that is no
    lower bound collapses, to zero at the first step that is longer than its inverse.
    """
    if isinstance(sketch, Formed):
        return sketch.inverse(problem.backend), sketch.bottom, True
    if isinstance(sketch, Averages):
        found = sketch.inverse(look, problem.backend)
        if found is None:
            return (*base(problem, look), True)
        proven = sketch.proves and found[1] > 0
        return found[0], found[1] if proven else None, proven
    if isinstance(sketch, Sketch):
        mu = look.constants.mu
        assert mu
        lower = sketch.lower_bound(look, problem.backend)
        return sketch.nystrom.inverse(mu), lower or None, lower > 0
    plainest, bottom = base(problem, look)
    if sketch is None:
        return plainest, bottom, True
    gamma = sketch.known.gamma(plainest, bottom)
    apply = sketch.known.inverse(plainest, gamma)
    if bottom is None:
        return apply, None, False
    alike = sketch.lower_bound(look, problem.backend)
    return apply, bottom * gamma * alike or None, alike > 0


def plain(problem: Problem, look: Look) -> bool:
    """Whether H is A + μ I with one known μ, and no preconditioner of its own is known."""
    return look.own is None and problem.inner.n_hyperparameters == 1 and bool(look.constants.mu)


def base(problem: Problem, look: Look) -> tuple[Preconditioner | None, float | None]:
    """Jacobi where the penalty itself is uneven, and μ of the system.

    Measured on text (20 Newsgroups, Reuters): with one λ the diagonal costs more iterations than
    it saves at every accuracy below 10%, since it undoes what the penalty makes equal. A point
    that has a preconditioner of its own (a free intercept, where there is no μ) comes first.

    μ is what a proof rests on. Without tangents nothing is proven, and the smallest of many e^λ
    says little of the system: the bound from it would be met hundreds of products too late.
    """
    own, mu = look.own, look.constants.mu
    if own is not None:
        return own, 1.0
    if plain(problem, look):
        return None, mu
    diagonal = look.point.diag()
    if diagonal is None:
        return None, mu or None
    if not mu or not look.has_tangents:
        return jacobi(diagonal), None
    (top,) = problem.backend.scalars(problem.backend.xp.max(diagonal))
    return jacobi(diagonal), mu / top if top > 0 else None


def accuracy(
    look: Look, wanted: Wanted, bottom: float | None, least: float = math.inf, crude: bool = False
) -> Accuracy:
    """What is wanted of d, q and the t_j, by a bound where M⁻¹H has one below.

    ``least`` is what other solves with this M have shown of M⁻¹H, ``crude`` whether the bound is
    far below it.
    """
    absolute = (wanted.decrement, *(wanted.adjoint * e for e in look.energies))
    relative = (wanted.newton, *(wanted.adjoint for _ in look.energies))
    if bottom is None:
        if wanted.guarded:
            return GuardedEnergy(absolute, relative, least)
        return EstimatedEnergy(absolute, relative)
    return Energy(bottom, absolute, relative, look.constants.smoothness, crude)


def rounded_point(problem: Problem, look: Look, wanted: Wanted) -> tuple[InnerPoint, float]:
    """The point whose products serve a solve, and how much of μ rounded products may take.

    The solves are corrections: what single precision leaves undone shows in the next residuals,
    which are in double, and in the proof, which compares with those. CG in single precision reaches
    about ε √κ, κ the condition number; it has to be far below what is wanted.
    """
    constants, point = look.constants, look.point
    if not constants.mu or constants.smoothness is None or not isinstance(point, Roundable):
        return point, 0.0
    xp = problem.backend.xp
    epsilon = float(xp.finfo(xp.float32).eps)
    condition = constants.smoothness / constants.mu
    if not 4 * epsilon * condition <= 0.5:
        return point, 0.0
    found = point.rounded()
    if found is None:
        return point, 0.0
    precise = epsilon * math.sqrt(condition) <= 0.1 * min(wanted.newton, wanted.adjoint)
    return found if precise else point, 4 * epsilon * condition
