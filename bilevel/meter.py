"""What a run spends, counted for that run alone, and the budgets that end it in mid-iteration.

Counters (:class:`Passes`) belong to the data, which several runs may share, in several threads.
While a run is under way each count is also entered in its own :class:`Meter`, found through the
context, and each count and each iteration of a solver asks that meter whether the run may go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from .status import Status

__all__ = ["BudgetSpent", "Meter", "Passes", "SharedPasses", "Tally", "offer", "tick"]

#: In what a part counts what it costs. Of functions of the user's it may not be known how many
#: passes over the data a call takes: then the calls are counted.
Unit = Literal["passes", "evaluations"]
PASSES: Unit = "passes"
EVALUATIONS: Unit = "evaluations"


def unit_of(part: Any) -> Unit:
    """In what ``part.passes`` of an inner objective or a criterion is counted: see its ``unit``."""
    return EVALUATIONS if getattr(part, "unit", PASSES) == EVALUATIONS else PASSES


#: The run whose work is being done.
_RUNNING: ContextVar[Meter | None] = ContextVar("bilevel_running", default=None)

#: The meters whose runs are at work now, in any thread.
_AT_WORK: set[Meter] = set()

#: Whether work is being done that is of no run, on purpose.
_APART: ContextVar[bool] = ContextVar("bilevel_apart", default=False)

#: The run whose own numbers the counters tell, instead of their totals.
_READING: ContextVar[Meter | None] = ContextVar("bilevel_reading", default=None)


class BudgetSpent(Exception):  # it ends a run as Ctrl-C does, it is no error
    """A budget was spent in the middle of an iteration; ``status`` says which."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass
class Tally:
    """Numbers of one counter."""

    forward: float = 0
    backward: float = 0
    columns: float = 0

    def add(self, other: Tally, sign: float = 1) -> None:
        self.forward += sign * other.forward
        self.backward += sign * other.backward
        self.columns += sign * other.columns


def tidy(number: float) -> float:
    """An integer where it is one but for the rounding of shares."""
    nearest = round(number)
    return nearest if abs(number - nearest) <= 1e-9 * max(1.0, abs(number)) else round(number, 9)


def slack(budget: float) -> float:
    """What shares, rounded one by one, may lack or exceed: no part of a pass that was asked for.

    A run that was broken off adds them in another order than one that was not.
    """
    return 1e-6 * max(1.0, abs(budget))


class Passes:
    """Products with X and with Xᵀ since the counter was made: the true cost of a method.

    Threads that share a counter may lose a count of these totals; what a run reports of itself is
    counted apart, and exact.

    Attributes
    ----------
    forward, backward : int, or float
        Products X @ V and Xᵀ @ R, each with any number of columns. Those with some of the rows
        count as their share (:class:`SharedPasses`).
    columns : int, or float
        The same, each column counted on its own.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = bilevel.as_design(np.eye(2))
    >>> _ = X.matmul(np.ones(2)), X.rmatmul(np.ones((2, 3)))
    >>> X.passes
    Passes(forward=1, backward=1, columns=4)
    """

    def __init__(self) -> None:
        self._totals = Tally()

    @property
    def _told(self) -> Tally:
        meter = _READING.get()
        return self._totals if meter is None else meter.tally(self)

    @property
    def forward(self) -> float:
        return tidy(self._told.forward)

    @property
    def backward(self) -> float:
        return tidy(self._told.backward)

    @property
    def columns(self) -> float:
        return tidy(self._told.columns)

    @property
    def total(self) -> float:
        """Passes over the data, forward and backward."""
        told = self._told
        return tidy(told.forward + told.backward)

    def count_forward(self, v: Any) -> None:
        self._count(Tally(forward=1, columns=_columns(v)))

    def count_backward(self, r: Any) -> None:
        self._count(Tally(backward=1, columns=_columns(r)))

    def count_call(self) -> None:
        """Count the call of a user's function, which takes one direction."""
        self._count(Tally(forward=1, columns=1))

    def _count(self, one: Tally) -> None:
        meter = _RUNNING.get()
        if meter is not None:
            meter.enter(self, one)
        elif _AT_WORK and not _APART.get():
            for busy in tuple(_AT_WORK):
                busy.notice(self)
        self._totals.add(one)

    @contextmanager
    def counting(self, *, forward: Any = None, backward: Any = None) -> Iterator[None]:
        """Count a product that is made inside, by others perhaps: not where these refuse it."""
        operand = backward if forward is None else forward
        one = Tally(forward is not None, forward is None, _columns(operand))
        self._count(one)
        try:
            yield
        except BudgetSpent:
            self._take_back(one)
            raise

    def _take_back(self, one: Tally) -> None:
        meter = _RUNNING.get()
        if meter is not None:
            meter.leave(self, one)
        self._totals.add(one, -1)

    def __repr__(self) -> str:
        return f"Passes(forward={self.forward}, backward={self.backward}, columns={self.columns})"


def _columns(operand: Any) -> int:
    return 1 if operand.ndim == 1 else int(operand.shape[1])


class SharedPasses(Passes):
    """The counter of some rows of a matrix: their products are so much of a pass over it all.

    Parameters
    ----------
    whole : Passes
        The counter of the matrix, where the share is entered.
    share : float
        The rows, of all: more than 1 where some are taken several times.
    *others : Passes
        Further counters of the same matrix: of a search, and of all searches.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = bilevel.as_design(np.eye(4))
    >>> part = SharedPasses(X.passes, 0.25)
    >>> part.count_forward(np.ones(4))
    >>> part.total, X.passes.total
    (1, 0.25)
    """

    def __init__(self, whole: Passes, share: float, *others: Passes) -> None:
        super().__init__()
        self._wholes, self._share = (whole, *others), share

    def _part(self, one: Tally) -> Tally:
        share = self._share
        return Tally(share * one.forward, share * one.backward, share * one.columns)

    def _count(self, one: Tally) -> None:
        part = self._part(one)
        counted: list[Passes] = []
        try:
            for whole in self._wholes:
                whole._count(part)
                counted.append(whole)
        except BudgetSpent:  # of one that refuses the product none counts it
            for whole in counted:
                whole._take_back(part)
            raise
        self._totals.add(one)

    def _take_back(self, one: Tally) -> None:
        for whole in self._wholes:
            whole._take_back(self._part(one))
        self._totals.add(one, -1)


def tick() -> None:
    """Let the run that is under way, if any, end here where its budget is spent.

    Raises
    ------
    BudgetSpent
        If it is.
    """
    meter = _RUNNING.get()
    if meter is not None:
        meter.tick()


@contextmanager
def uncounted() -> Iterator[None]:
    """Work done inside is of no run: no budget ends it, and no costs hold it."""
    token, apart = _RUNNING.set(None), _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(apart)
        _RUNNING.reset(token)


def offer(iterate: Any) -> None:
    """Hand the run that is under way what it may return should it end within this iteration.

    Parameters
    ----------
    iterate : tuple
        A :class:`~bilevel.Record`, and the x that it is of.

    Raises
    ------
    TypeError, ValueError
        If it is no pair, or no iterate of the problem.
    """
    if not (isinstance(iterate, tuple) and len(iterate) == 2):
        raise TypeError(
            f"iterate must be a pair of a record and its x, got {type(iterate).__name__}."
        )
    meter = _RUNNING.get()
    if meter is not None:
        meter.take(iterate)


#: Seconds between two calls of ``progress``.
_EVERY = 0.2


class Meter:
    """Counts what one run spends, and ends it where its budget is spent.

    Parameters
    ----------
    passes : callable, optional
        Passes of the run until now, as its problem counts them.
    max_passes, max_seconds : float, optional
        What this meter may still grant.
    progress : callable, optional
        Called without arguments a few times a second while work is being done.

    Attributes
    ----------
    offered : object
        What :func:`offer` was last called with since :meth:`running` was entered, else None.
    admit : callable or None
        What makes of such an iterate one to keep, or raises where it is none.
    origin : tuple of float
        Passes, column passes and outer passes that its problem told when it was made: zeros, but
        where a part from outside keeps no :class:`Passes`.
    """

    def __init__(
        self,
        *,
        passes: Callable[[], float] | None = None,
        max_passes: float | None = None,
        max_seconds: float | None = None,
        progress: Callable[[], Any] | None = None,
    ) -> None:
        self._tallies: dict[int, tuple[Passes, Tally]] = {}
        self._passes, self._max_passes = passes, max_passes
        self._max_seconds = max_seconds
        self._progress, self._told = progress, -_EVERY
        self._before, self._started = 0.0, None  # type: tuple[float, float | None]
        self._parent: Meter | None = None
        self.offered: Any = None
        self._strays: dict[int, Passes] = {}
        self.admit: Callable[[Any], Any] | None = None
        self.origin: tuple[float, float, float] = (0, 0, 0)

    @property
    def seconds(self) -> float:
        """Seconds inside :meth:`running` until now."""
        now = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._before + now

    def tally(self, counter: Passes) -> Tally:
        """What this run has counted there."""
        entry = self._tallies.get(id(counter))
        return Tally() if entry is None else entry[1]

    def enter(self, counter: Passes, one: Tally) -> None:
        """Count, and raise BudgetSpent where that is more than is granted."""
        self._check_time()
        tally = self._tallies.setdefault(id(counter), (counter, Tally()))[1]
        tally.add(one)
        try:
            self._check_passes()
            if self._parent is not None:
                self._parent.enter(counter, one)
        except BudgetSpent:
            tally.add(one, -1)  # it is not made
            raise

    def notice(self, counter: Passes) -> None:
        """Note a product that is no run's: by threads, which do not inherit the run."""
        self._strays[id(counter)] = counter

    @property
    def missed(self) -> bool:
        """Whether a counter of the run was at work for nobody meanwhile, at a cost not known."""
        strays = self._strays.keys()
        return bool(strays) and (not self._tallies or not strays.isdisjoint(self._tallies))

    def take(self, iterate: Any) -> None:
        """Keep what the run may return should it end within this iteration."""
        self.offered = iterate if self.admit is None else self.admit(iterate)

    def leave(self, counter: Passes, one: Tally) -> None:
        """Take back what was entered, of a product that was not made."""
        self.tally(counter).add(one, -1)
        if self._parent is not None:
            self._parent.leave(counter, one)

    def _check_passes(self) -> None:
        if self._max_passes is None or self._passes is None:
            return
        with self.reading():
            spent = self._passes()
        if spent > self._max_passes + slack(self._max_passes):
            raise BudgetSpent(Status.MAX_PASSES)

    def tick(self) -> None:
        """Raise BudgetSpent where the time is up; show progress."""
        if self._parent is not None:
            self._parent.tick()
        self._check_time()

    def _check_time(self) -> None:
        if self._max_seconds is None and self._progress is None:
            return
        seconds = self.seconds
        if self._max_seconds is not None and seconds >= self._max_seconds:
            raise BudgetSpent(Status.MAX_SECONDS)
        if self._progress is not None and seconds >= self._told + _EVERY:
            self._told = seconds
            self._progress()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Work done inside is this run's."""
        self._parent, self.offered = _RUNNING.get(), None
        token = _RUNNING.set(self)
        _AT_WORK.add(self)
        self._started = time.perf_counter()
        try:
            yield
        finally:
            _AT_WORK.discard(self)
            self._before, self._started = self.seconds, None
            _RUNNING.reset(token)
            self._parent = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counters read inside tell what this run has counted."""
        token = _READING.set(self)
        try:
            yield
        finally:
            _READING.reset(token)
