"""Is this problem what it says it is?

:func:`check_problem` holds every derivative of an inner objective and of a criterion against
differences of what it is the derivative of, and every declared constant against what it claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import SEED, Array, described
from ...contracts import touching
from ...problem import Problem
from .._probe import Probe, Vector, length
from . import (
    bending,
    bounds,
    constants,
    counters,
    cross,
    curved,
    designs,
    domains,
    falling,
    gradients,
    hessian,
    losses,
    members,
    preconditioned,
    purity,
    samples,
    shortened,
    starts,
    turning,
)
from .places import SIZES, Place, Window, place
from .report import Book, CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check_problem"]


def refuse_no_problem(problem: Any) -> None:
    """Refuse what is no problem."""
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {described(problem)}.")


def check_problem(
    problem: Problem, lam: Any = 0.0, x: Array | None = None, *, seed: int = 0
) -> CheckReport:
    """Check the derivatives, the Hessian and the declared constants of a problem.

    Checked are, at (x, λ) and at a random point near it (where a factor e^λ that is 1 at λ = 0
    shows): values are finite; every member leaves its arguments alone, returns an array of its
    own, the same when it is asked again, and is as precise as its dtype; ``grad`` against
    differences of ``value``; ``hvp`` and ``cross_jvp`` against differences of ``grad``;
    ``cross_vjp`` as the adjoint of ``cross_jvp``; the Hessian is symmetric, and the products are
    linear; blocks of directions, ``diag``, ``cross_norm``, ``ray``, ``carry``, ``push`` and
    ``pull`` agree with the rest; a ``preconditioner`` is symmetric and positive, leaves its
    argument alone, and has M⁻¹H ⪰ I; bounds of rounding are bounds, and none is refuted; ``swing``
    and ``leverage`` allow for what H does; ``grad_x`` and ``grad_lam`` of the criterion against
    differences of its value; third derivatives of h and second ones of g, where points offer them,
    against differences of these. The same derivatives but these, along one random direction each,
    at λ drawn over all of D and x from tiny to far beyond the solution; and that no declared
    constant is refuted by a search for the worst point and direction there.

    Where no μ is stated, h is followed far along the directions in which it bends least: where it
    falls as steeply as ever it has no minimum, and that is found; where it is flat there, still
    falls by a little, or bends down, as that of a network does, it is noted.

    Besides, where they are offered: the mean over disjoint ``rows`` is the whole, at their share of
    the cost; ``start`` is an x of the problem, the same each time; ``remark`` is a sentence or
    None; ``project`` of the domain leads to the nearest point of a convex set, and leaves what lies
    in it; counters don't run backwards; a design counts each product, multiplies as its rows and
    columns do, and keeps to ``longest_row``; a loss keeps to its bounds.

    Steps are measured in the curvature of h, so that features of unlike scales are asked alike; a
    λ on the boundary of D is moved inside by a step, so that no function is asked beyond it.
    What the check costs does not depend on the size of the data: up to 5,000 passes over those of
    the objective and 2,300 over those of the criterion, about half of it where no constants are
    stated; of functions about 3,000 to 5,000 calls. ``passes`` of the report has the number.

    Parameters
    ----------
    problem : Problem
        What to check, on any backend.
    lam : float or array of shape (m,)
        The hyperparameters.
    x : array, optional
        The inner variable; random when omitted. A special point, as zero is, hides faults.
    seed : int
        Of the random directions.

    Returns
    -------
    CheckReport

    Raises
    ------
    ValueError, TypeError
        If lam or x do not fit the problem.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> check_problem(bilevel.logistic_regression(X, y, X, y)).ok
    True
    """
    refuse_no_problem(problem)
    seed = SEED(seed, "seed")
    lam_host = np.asarray(problem.backend.to_numpy(problem.lam(lam, "lam")), dtype=np.float64)
    if x is None:
        size = int(np.prod(problem.inner.x_shape))
        x_host = np.random.default_rng(seed).standard_normal(size)
        if not any(touching(problem)):  # else no point may be asked: data are written into
            x_host = members.within_reach(Probe(problem, 0.0 * x_host, lam_host), x_host)
    else:
        x_host = np.array(problem.backend.to_numpy(problem.x(x, "x")), np.float64).reshape(-1)
    return examine(problem, lam_host, x_host, seed, everywhere=True)


def examine(
    problem: Problem, lam: Vector, x: Vector, seed: int, *, everywhere: bool = False
) -> CheckReport:
    """Check at (x, λ) and near it; elsewhere in D and at x of other sizes only if asked for."""
    before = counters.spent(problem)
    book = Book(np.random.default_rng(seed))
    tour = _Tour(problem, x, lam, Window.of(problem, lam), book)
    with np.errstate(all="ignore"):  # what is not finite is reported, not warned of
        tour.go(everywhere)
    cost = counters.spent(problem) - before
    return CheckReport(tuple(book.findings), tuple(book.notes), tuple(book.checked), cost)


@dataclass(frozen=True)
class _Tour:
    """The places in order: the given point and one near it in full, the others in passing."""

    problem: Problem
    x: Vector
    lam: Vector
    window: Window
    book: Book

    def go(self, everywhere: bool) -> None:
        book, rng, window = self.book, self.book.rng, self.window
        if purity.data(self.problem, book):
            return  # all else would be asked of other data, which are the caller's
        here = Probe(self.problem, self.x, window.inside(self.lam))
        away = 0.3 * rng.standard_normal(here.p) * (1 + length(self.x)) / here.p**0.5
        shifted = window.inside(self.lam + rng.uniform(0.25, 0.5, self.lam.shape))
        from_here = Probe(self.problem, self.x, shifted)
        there = from_here.moved(members.within_reach(from_here, away))
        places: list[Place] = []
        for name, probe in (("the given point", here), ("a point near it", there)):
            self._attempt(name, self._arrive, probe, places)
        if len(places) == 2:
            self._attempt("the given point", self._full, places, everywhere)
        self._attempt("a face of the domain", self._corners)
        starts.carry(self.problem, book)
        if everywhere:
            self._passing()
            self._attempt("λ of several sizes", domains.domain, self.problem, self.lam, book)

    def _attempt(self, name: str, check: Callable[..., Any], *arguments: Any) -> None:
        """Make checks at a place; an exception of the problem's own is a finding too."""
        self.book.place = name
        try:
            check(*arguments)
        except Exception as error:  # whatever a user's function raises
            message = f"it raises {type(error).__name__}: {error}"
            self.book.add("evaluation", "", float("inf"), message, None)

    def _arrive(self, probe: Probe, places: list[Place]) -> None:
        """A place to check in full, where all is finite there."""
        if members.finite(probe, self.book):
            places.append(place(probe, self.window, self.book.place, self.book.rng))

    def _full(self, places: list[Place], everywhere: bool) -> None:
        """Everything, at the given point and at the one near it."""
        book = self.book
        purity.pure(places[0], places[1], book)
        found = [purity.noises(at, book.rng, lines=3) for at in places]
        purity.precise(self.problem, found, book)
        for at, noise in zip(places, found, strict=True):
            self._attempt(at.name, self._all, at, noise, everywhere or at is places[0])
        if everywhere:
            self._attempt(places[0].name, self._beside, places[0])
            if not book.blames("inner.grad", "inner.value", "inner.hvp"):
                self._attempt(places[0].name, falling.falling, places[0], book)
        for at, noise in zip(places, found, strict=True):  # of what both places found right
            self._attempt(at.name, bending.bending, at, book, noise)

    def _all(self, at: Place, noise: dict[str, purity.Noise], thorough: bool) -> None:
        book, rng = self.book, self.book.rng
        three = [at.along(at.direction(rng)) for _ in range(3)]
        gradients.inner_gradient(at, book, noise["inner.value"].level, three)
        hessian.structure(at, book)
        cross.structure(at, book)
        if book.blames("inner.grad", "inner.value"):
            book.note(
                "hvp and the cross products are held against differences of grad: check again "
                "once grad (or value) is right."
            )
        else:
            hessian.hessian(at, book, noise["inner.grad"].level, three[:2])
            cross.cross(at, book, noise["inner.grad"].level)
            cross.block(at, book)
        shortened.consistency(at, book)
        if not book.blames("inner.grad", "inner.hvp"):
            preconditioned.preconditioned(at, book)
        lams = [at.along_lam(at.direction_lam(rng)) for _ in range(3)]
        gradients.criterion(at, book, noise["outer.value"].level, three, lams)
        if not book.blames("outer.grad_x", "outer.value"):
            curved.curved(at, book, noise["outer.grad_x"].level)
        if not book.blames("inner.grad", "inner.hvp", "outer.grad_x"):
            bounds.bounds(at, book, noise)
            turning.turning(at, constants.stated(at), book)
        self._constants(at, thorough=thorough)

    def _beside(self, at: Place) -> None:
        """What is no derivative: costs, samples of the rows, starts, remarks, parts of h and g."""
        counters.counters(at, self.book)
        designs.designs(at, self.book)
        losses.losses(at, self.book)
        samples.samples(at, self.book)
        starts.start(at, self.book)
        starts.remark(at, (at.probe.lam, *self.window.corners()), self.book)

    def _constants(self, at: Place, *, thorough: bool) -> None:
        constants.noted(at, self.book)
        # Constants of derivatives that are themselves wrong would be blamed for nothing.
        if not self.book.blames("inner.grad", "inner.hvp", "inner.cross_", "outer.grad_x"):
            constants.search(at, self.book, thorough=thorough)

    def _corners(self) -> None:
        """Finite values at the faces of a bounded domain."""
        if not self.window.bounded:
            self.book.note("The domain is unbounded: Theorem 2 needs it bounded.")
        for lam in self.window.corners():
            members.finite(Probe(self.problem, self.x, lam), self.book)

    def _passing(self) -> None:
        """λ over all of D, x of every size: one direction each; then x alone, very far out."""
        rng = self.book.rng
        lams = list(self.window.strata(len(SIZES), rng))
        for lam, i in zip(lams, rng.permutation(len(SIZES)), strict=True):
            self._attempt("a λ elsewhere in the domain", self._one, lam, *SIZES[i])
        home = self.window.inside(self.lam)
        for size, scaled in SIZES:
            name = f"an x of {size:g} times the " + ("scale of h" if scaled else "unit")
            self._attempt(name, self._one, home, size, scaled)
        for size in (100.0, 1000.0):
            x: Vector = size * rng.standard_normal(self.x.shape)
            probe = Probe(self.problem, x, home)
            self._attempt("an x far out", members.overflow, probe, self.book)

    def _one(self, lam: Vector, size: float, scaled: bool) -> None:
        """The derivatives along one direction, and the constants, at one more place."""
        book, rng = self.book, self.book.rng
        z: Vector = rng.standard_normal(self.x.shape)
        zero = Probe(self.problem, np.zeros(z.shape), lam)
        if not members.finite(zero, book):
            return
        origin = place(zero, self.window, book.place, rng)
        x: Vector = np.multiply(size, origin.metric * z if scaled else z)
        probe = Probe(self.problem, x, lam)
        if not members.overflow(probe, book):
            return
        at = place(probe, self.window, book.place, rng)
        noise = purity.noises(at, rng)
        one, lams = [at.along(at.direction(rng))], [at.along_lam(at.direction_lam(rng))]
        if not book.blames("inner.grad", "inner.value"):
            gradients.inner_gradient(at, book, noise["inner.value"].level, one)
        if not book.blames("inner.grad", "inner.value", "inner.hvp"):
            hessian.hessian(at, book, noise["inner.grad"].level, one)
        if not book.blames("inner.grad", "inner.value", "inner.cross"):
            cross.cross(at, book, noise["inner.grad"].level, most=1)
        gradients.criterion(at, book, noise["outer.value"].level, one, lams)
        self._constants(at, thorough=False)
