"""The outer loop: a stream of records, and the small loop that drains it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import checkpoint as checkpoints
from .backends import COUNT, NOT_NEGATIVE, Array, Maybe, Number, described, flag, function
from .methods import Method, State, get_method
from .problem import Problem
from .record import Costs, Record, Result
from .status import Status


@dataclass(frozen=True)
class Snapshot:
    """A run after some iteration: what a checkpoint holds."""

    state: State
    history: tuple[Record, ...]
    best: Record | None
    best_x: Array | None
    costs: Costs


def iterate(
    problem: Problem,
    lam0: Any = None,
    *,
    method: str | Method = "path",
    x0: Array | None = None,
    tol: float | None = 0.0,
) -> Iterator[Record]:
    """Yield a record for each outer iteration, until the method's own stopping rule holds.

    Parameters
    ----------
    problem : Problem
        What to solve.
    lam0 : float, or list or array of shape (m,), optional
        Where to start, 0 when omitted. Outside of the domain it is replaced by the nearest point of
        it, with a warning (as SciPy does with bounds).
    method : str or Method
        The outer method.
    x0 : array, optional
        Where the first inner solve starts, zero when omitted.
    tol : float or None
        The tolerance of the method's stopping rule; 0 goes on for ever, None is its default.

    Yields
    ------
    Record

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> for record in bilevel.iterate(problem, method="hoag"):
    ...     if record.k == 2:
    ...         break
    >>> record.passes > 0
    True
    """
    chosen = get_method(method)
    _check(problem)
    for snapshot in _snapshots(problem, chosen, _start(problem, lam0, chosen, x0, tol)):
        yield snapshot.history[-1]


def _check(problem: Any) -> None:
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {described(problem)}.")


def _file(path: Any, name: str) -> Path:
    """A file that may be written: its folder is there, and it is no folder itself."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise TypeError(f"{name} must be the path of a file, got {described(path)}.")
    found = Path(path)
    if not found.absolute().parent.is_dir():
        raise ValueError(f"{name} is to be written to {path}: there is no such folder.")
    if found.is_dir():
        raise ValueError(f"{name} must be the path of a file, got the folder {path}.")
    return found


def _start(
    problem: Problem, lam0: Any, method: Method, x0: Array | None, tol: float | None
) -> Snapshot:
    tol = Maybe(NOT_NEGATIVE)(tol, "tol")
    start = None if x0 is None else problem.x(x0)
    lam = problem.start(0.0) if lam0 is None else problem.start(lam0)
    state = method.init(problem, lam, start, tol)
    return Snapshot(state, (), None, None, Costs())


def _snapshots(problem: Problem, method: Method, snapshot: Snapshot) -> Iterator[Snapshot]:
    while snapshot.state.status is Status.RUNNING:
        before = counts(problem)
        state = method.step(problem, snapshot.state)
        problem.backend.synchronize()
        costs = snapshot.costs + (counts(problem) - before)
        assert state.record is not None
        record = replace(state.record, costs=costs, status=state.status)
        better = snapshot.best is None or _rank(record) <= _rank(snapshot.best)
        snapshot = Snapshot(
            state,
            (*snapshot.history, record),
            record if better else snapshot.best,
            state.x if better else snapshot.best_x,
            costs,
        )
        yield snapshot


def counts(problem: Problem) -> Costs:
    """The counters of a problem and the clock as they stand: differences are what was spent."""
    inner, outer = problem.inner, problem.outer
    return Costs(inner.passes, inner.column_passes, outer.passes, time.perf_counter())


def _rank(record: Record) -> float:
    """What is certain of f at this iterate; without a bound the later one is the better.

    A loosely fitted x has a validation loss below f(λ), so the loss alone would prefer it.
    """
    if record.value_error is None:
        return -float(record.k)
    return record.value + record.value_error


def minimize(
    problem: Problem,
    lam0: Any = None,
    *,
    method: str | Method = "path",
    x0: Array | None = None,
    max_iter: int = 50,
    tol: float | None = None,
    max_passes: int | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Result:
    """Minimise f(λ) = g(X(λ), λ) over the domain.

    Parameters
    ----------
    problem : Problem
        What to solve.
    lam0 : float, or list or array of shape (m,), optional
        Where to start, 0 when omitted. Outside of the domain it is replaced by the nearest point of
        it, with a warning (as SciPy does with bounds).
    method : str or Method
        The outer method.
    x0 : array, optional
        Where the first inner solve starts, zero when omitted.
    max_iter : int
        Outer iterations at most.
    tol : float, optional
        Of the method's stopping rule, relative to f. ``"path"`` stops where the decrease that is
        left, by its model and with the error of p, is below tol · f (1e-5 when omitted);
        ``"hoag"`` where ``optimality`` ≤ tol · abs(g(x, λ)) (1e-4). 0 turns the rule off.
    max_passes : int, optional
        Stop after the iteration that reaches this many passes over the training data.
    max_seconds : float, optional
        Stop after the iteration that reaches this much time.
    callback : callable, optional
        Called with each record; a true answer ends the run.
    checkpoint : path, optional
        A file that holds the whole state after each iteration.
    resume : bool
        Go on from ``checkpoint`` where that file exists; the run ends as if it had never been
        broken off, to the last bit on the same machine.

    Returns
    -------
    Result
        The best iterate; after Ctrl-C too, with the status INTERRUPTED.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the problem.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> bilevel.minimize(problem, 1.0, method="hoag", max_iter=5).status.value
    'max_iter'
    """
    _check(problem)
    max_iter = COUNT(max_iter, "max_iter")
    max_passes = Maybe(Number(above=0, finite=False))(max_passes, "max_passes")
    max_seconds = Maybe(Number(above=0, finite=False))(max_seconds, "max_seconds")
    Maybe(function)(callback, "callback")
    checkpoint = Maybe(_file)(checkpoint, "checkpoint")
    if flag(resume, "resume") and checkpoint is None:
        raise ValueError("resume needs the path of a checkpoint, got checkpoint=None.")
    chosen = get_method(method)
    snapshot = _start(problem, lam0, chosen, x0, tol)
    if resume and checkpoint is not None and Path(checkpoint).exists():
        snapshot = checkpoints.load(checkpoint, problem, chosen)
    status = Status.MAX_ITER

    def verdict(record: Record) -> Status | None:
        """Why the run ends after this record, or None."""
        if record.status is not Status.RUNNING:
            return record.status
        if record.k >= max_iter:
            return Status.MAX_ITER
        if max_passes is not None and record.passes >= max_passes:
            return Status.MAX_PASSES
        if max_seconds is not None and record.seconds >= max_seconds:
            return Status.MAX_SECONDS
        return None

    try:
        ended = verdict(snapshot.history[-1]) if snapshot.history else None
        if ended is not None:
            return _result(snapshot, ended)
        for snapshot in _snapshots(problem, chosen, snapshot):
            record = snapshot.history[-1]
            if checkpoint is not None:
                checkpoints.save(checkpoint, snapshot, problem, chosen)
            asked = callback is not None and callback(record)
            ended = Status.INTERRUPTED if asked else verdict(record)
            if ended is not None:
                status = ended
                break
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return _result(snapshot, status)


def _result(snapshot: Snapshot, status: Status) -> Result:
    best, x = snapshot.best, snapshot.state.x
    if status is Status.CONVERGED:
        best = snapshot.history[-1]
    elif best is not None:  # None: nothing has run, the state is where it would have begun
        assert snapshot.best_x is not None
        x = snapshot.best_x
    return Result(
        lam=snapshot.state.lam if best is None else best.lam,
        x=x,
        fun=float("nan") if best is None else best.value,
        jac=None if best is None else best.hypergrad,
        status=status,
        nit=len(snapshot.history),
        history=snapshot.history,
        costs=snapshot.costs,
    )
