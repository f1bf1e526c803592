"""The outer loop: a stream of records, and the small loop that drains it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import checkpoint as checkpoints
from ._ours import is_ours
from .answers import is_number, refuse_other_array
from .backends import (
    COUNT,
    NOT_NEGATIVE,
    Array,
    Has,
    Maybe,
    Number,
    described,
    flag,
    function,
    lent,
)
from .contracts import (
    Given,
    blame,
    foreign,
    refuse_another_lam,
    refuse_bare_parts,
    refuse_misfits,
    refuse_other_bounds,
    refuse_other_record,
    refuse_other_start,
    refuse_outside,
)
from .domains import Touches
from .inner import Remarking
from .linalg import norm
from .meter import EVALUATIONS, BudgetSpent, Meter, slack, uncounted, unit_of
from .methods import Method, Reporting, State, get_method, optimality
from .problem import Problem
from .record import Costs, Record, Result
from .scale import far_out
from .snapshot import Snapshot, supersedes
from .solvers.linesearch import Unbounded
from .status import REFUTING, Status


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
        Where the first inner solve starts; when omitted where h says (a network: at random weights,
        the same each time), else at zero.
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
    start = _start(problem, lam0, chosen, x0, tol)
    return _records(problem, chosen, start)


def _records(problem: Problem, method: Method, start: Snapshot) -> Iterator[Record]:
    for snapshot in _snapshots(problem, method, start, started(problem), every=0):
        assert snapshot.last is not None
        yield _handed(snapshot.last, problem)


def _handed(record: Record, problem: Problem) -> Record:
    """A copy for a reader, who may do with its arrays what they like: the run goes on from its own.

    They are as long as λ, which costs nothing beside an iteration.
    """
    lam, hypergrad = lent(problem.backend, record.lam, record.hypergrad)
    return replace(record, lam=lam, hypergrad=hypergrad)


#: Passes or seconds that may be spent.
BUDGET = Number(above=0, finite=False)


def _check(problem: Any) -> None:
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {described(problem)}.")


def _file(path: Any, name: str) -> Path:
    """A file that may be written: its folder is there, and it is no folder itself."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise TypeError(f"{name} must be the path of a file, got {described(path)}.")
    found = Path(path)
    try:
        found.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, or with a NUL
        given, why = described(str(path)), getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{name} must be the path of a file, got {given} ({why}).") from error
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
    lam = problem.lam(0.0) if lam0 is None else problem.start(lam0)
    refuse_bare_parts(problem, method, lam, start)
    state = _state(_blamed(method, method.init, problem, lam, start, tol))
    if not is_ours(method):
        refuse_other_start(problem, state)
    return Snapshot(state)


#: What a state has to have.
_STATE = Has("a state of a run (bilevel.methods.State)", "lam", "x", "record", "status")


def _state(found: Any) -> State:
    state: State = _STATE(found, "what method.init returns")
    return state


def _snapshots(
    problem: Problem, method: Method, snapshot: Snapshot, meter: Meter, *, every: int = 1
) -> Iterator[Snapshot]:
    before, status, asked = snapshot.costs, snapshot.state.status, not is_ours(method)
    given = Given.of(problem, snapshot.state, snapshot.n_iter + 1) if asked else None
    while status is Status.RUNNING:
        with meter.running():
            state = _blamed(method, _step, problem, method, snapshot, asked)
            found = _read(problem, state, given)
            if asked:
                _refuse_wrong(problem, state, found, snapshot.n_iter + 1)
            problem.backend.synchronize()
        meter.offered = None
        costs = metered(problem, meter, before)
        n, x, own = snapshot.n_iter + 1, state.x, found.fields
        if asked:  # its buffers are its own, and may be filled anew
            given = Given.of(problem, state, n + 1)
            x, own = given.copy("x"), own | given.recorded
        record = replace(found.record, k=n, costs=costs, **own)
        snapshot = snapshot.followed(problem.backend, state, record, x, every=every)
        status = record.status
        yield snapshot


def _step(problem: Problem, method: Method, snapshot: Snapshot, asked: bool) -> State:
    """The next state; the first of a method of ours tells what a part from outside made of it."""
    state, first = method.step(problem, snapshot.state), snapshot.last is None
    if asked or first:
        refuse_misfits(problem, state, None if first else snapshot.state)
    return state


def _blamed(method: Method, ask: Callable[..., Any], problem: Problem, *of: Any) -> Any:
    """What a method answers; what goes wrong in it may be the doing of a part from outside.

    An iterator that has run out inside is an error like any other: the generator of the run would
    tell it as one of its own.
    """
    try:
        return ask(problem, *of)
    except (BudgetSpent, Unbounded):
        raise
    except StopIteration as error:
        where = f"{type(method).__name__}.{getattr(ask, '__name__', 'step').lstrip('_')}"
        raise RuntimeError(f"{where} raised StopIteration: an iterator has run out.") from error
    except Exception as error:
        blame(error, problem, method)
        raise


@dataclass(frozen=True)
class _Found:
    """A record as its method made it, and what the loop puts into it."""

    record: Record
    fields: dict[str, Any]


def _refuse_wrong(problem: Problem, state: State, found: _Found, n: int) -> None:
    """Refuse a step of a method from outside that states what can't be.

    Whether it stays in D takes as long as all else that the loop does: that is asked ever more
    seldom, and where a run ends.
    """
    record = found.record
    refuse_other_bounds(record, found.fields.get("value", record.value))
    if n & (n - 1) == 0 or state.status is not Status.RUNNING:
        refuse_outside(problem, record.lam)


def _read(problem: Problem, state: State, given: Given | None) -> _Found:
    """Read the numbers of a step that its method left on the device, or to the loop: at once.

    A value or a slope that is no number ends the run, whatever the method makes of it; x and the
    hypergradient are looked at where it calls them the solution.
    """
    record, backend = state.record, problem.backend
    assert record is not None
    wanted: dict[str, Array] = {}
    if hasattr(record.value, "shape"):
        wanted["value"] = record.value
    if record.optimality != record.optimality:
        wanted["optimality"] = optimality(problem.domain, backend, record.lam, record.hypergrad)
    if record.step != record.step:
        wanted["step"] = norm(state.lam - record.lam, backend)
    claims = _claims(problem, state) if state.status is Status.CONVERGED else {}
    written = {} if given is None else given.written(problem, state)
    asked = {**wanted, **claims, **written}
    read = dict(zip(asked, backend.scalars(*asked.values()), strict=True)) if asked else {}
    if given is not None:
        given.refuse(read, problem)
    fields = {name: read[name] for name in wanted}
    return _judged(state, record, fields, {name: read[name] for name in claims})


def _judged(
    state: State, record: Record, fields: dict[str, Any], claims: dict[str, float]
) -> _Found:
    """The record with the status that its numbers allow."""
    if claims and claims["the x"] != 1.0:
        fields["value"] = math.nan  # whatever g is of an x that is none
    ends = fields.get("value", record.value), fields.get("optimality", record.optimality)
    whole = all(claim == 1.0 for claim in claims.values()) and all(map(math.isfinite, ends))
    lost = state.status in _GOING_WELL and not whole
    return _Found(record, {**fields, "status": Status.NON_FINITE if lost else state.status})


def _claims(problem: Problem, state: State) -> dict[str, Array]:
    """1 for what of a solution is all numbers, else 0."""
    assert state.record is not None
    record, xp = state.record, problem.backend.xp
    arrays = {"the x": state.x, "the lam": record.lam, "the hypergrad": record.hypergrad}
    return {
        name: xp.astype(xp.all(xp.isfinite(array)), problem.dtype) for name, array in arrays.items()
    }


_GOING_WELL = (Status.RUNNING, Status.CONVERGED)


def started(problem: Problem, **budgets: Any) -> Meter:
    """A meter of what is spent on a problem from now on.

    A :class:`~bilevel.design.Passes` tells what a run has counted. A part from outside may tell a
    number of its own, for all runs until now: what it was is kept and taken off.
    """
    meter = Meter(passes=lambda: problem.inner.passes - meter.origin[0], **budgets)
    with meter.reading():
        inner, outer = problem.inner, problem.outer
        meter.origin = (inner.passes, inner.column_passes, outer.passes)
    return meter


#: What a run has spent that begins.
_NOTHING = Costs()


def metered(problem: Problem, meter: Meter, before: Costs = _NOTHING) -> Costs:
    """What a meter has counted of a problem, and what was spent before."""
    inner, outer, (passes, columns, others) = problem.inner, problem.outer, meter.origin
    with meter.reading():
        passes, columns = inner.passes - passes, inner.column_passes - columns
        others = outer.passes - others
    called, others_called = unit_of(inner) == EVALUATIONS, unit_of(outer) == EVALUATIONS
    return Costs(
        before.passes + (0 if called else passes),
        before.column_passes + (0 if called else columns),
        before.outer_passes + (0 if others_called else others),
        before.seconds + meter.seconds,
        before.evaluations + (passes if called else 0),
        before.outer_evaluations + (others if others_called else 0),
    )


def pass_budget(problem: Problem, budget: Any, name: str) -> float | None:
    """Check a budget of passes, where those of a problem are known.

    Raises
    ------
    ValueError
        If they are not: of functions that do not state what a call costs.
    """
    most: float | None = Maybe(BUDGET)(budget, name)
    if most is not None and unit_of(problem.inner) == EVALUATIONS:
        raise ValueError(
            f"{name} is a budget of passes over the data, and how many a call of the functions of "
            "h takes is not known: state passes_per_call where h is made, or give max_iter or "
            "max_seconds."
        )
    return most


def minimize(
    problem: Problem,
    lam0: Any = None,
    *,
    method: str | Method = "path",
    x0: Array | None = None,
    max_iter: int = 50,
    tol: float | None = None,
    max_passes: float | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Record], Any] | None = None,
    progress: Callable[[Costs], Any] | None = None,
    every: int = 1,
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
        Where the first inner solve starts; when omitted where h says (a network: at random weights,
        the same each time), else at zero.
    max_iter : int
        Outer iterations at most.
    tol : float, optional
        Of the method's stopping rule, relative to f. ``"path"`` stops where the decrease that is
        left, by its model and with the error of p, is below tol · f (1e-5 when omitted);
        ``"hoag"`` where ``optimality`` ≤ tol · abs(g(x, λ)) (1e-4). 0 turns the rule off.
    max_passes : float, optional
        Stop before the pass over the training data that would be one more, in mid-iteration too.
        Not only whole ones: a product with some of the rows is its share of a pass.
        Refused where passes are not known: of functions without ``passes_per_call``.
    max_seconds : float, optional
        Stop once this much time is spent, in mid-iteration too, before the next product or step of
        a solver.
    callback : callable, optional
        Called with a copy of each record; a true answer ends the run.
    progress : callable, optional
        Called a few times a second, inside an iteration too, with the costs until then.
    every : int
        Keep the record of each ``every``-th iteration in ``history``, and the last: for methods
        whose iterations are many and cheap.
    checkpoint : path, optional
        A file that holds the whole state: written after an iteration, but where those are so short
        that writing would take more than a twentieth of the time, and at the end, whatever it is.
        Where it can't be written the run goes on, with a warning, and the result says so. A file
        that is there and is no checkpoint is not written over: it is refused.
    resume : bool
        Go on from ``checkpoint`` where that file exists; the run ends as if it had never been
        broken off, to the last bit on the same machine, with the same versions of the libraries and
        the data in the same memory order, where products repeat (sparse ones on a GPU need not);
        with another array library there is a warning. A file of other data, of another method or
        option, of another ``lam0``, ``x0`` or ``tol`` is refused, and one that is damaged or was
        changed; the budgets may differ. What cannot be compared is named in a warning.

    Returns
    -------
    Result
        The best iterate, by what is known of f there: a proven bound, or the value corrected by the
        adjoint with its estimated error. After Ctrl-C, a budget or a numerical failure too, with
        that status. Where such an end comes before the first iteration is through, nothing has
        been fitted: ``nit`` is 0, ``fun`` NaN, and the message says it.

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
    most_passes = pass_budget(problem, max_passes, "max_passes")
    max_seconds = Maybe(BUDGET)(max_seconds, "max_seconds")
    Maybe(function)(callback, "callback")
    Maybe(function)(progress, "progress")
    every = COUNT(every, "every")
    checkpoint = Maybe(_file)(checkpoint, "checkpoint")
    if flag(resume, "resume") and checkpoint is None:
        raise ValueError("resume needs the path of a checkpoint, got checkpoint=None.")
    chosen = get_method(method)
    snapshot = _start(problem, lam0, chosen, x0, tol)
    keeper = None
    if checkpoint is not None:
        start = {"lam0": snapshot.state.lam, "x0": x0, "tol": tol}
        keeper = checkpoints.Keeper(checkpoint, problem, chosen, snapshot, **start)
        snapshot = keeper.begin(resume=resume) or snapshot
    budgets = _Budgets(max_iter, most_passes, max_seconds, snapshot.costs)
    ended = None if snapshot.last is None else budgets.verdict(snapshot.last)
    if ended is not None:
        bare = replace(_bare(problem, snapshot, ended, ()), every=every)
        return _told(chosen, problem, snapshot, bare, budgets.meter(problem, None), [])
    run = _Run(problem, chosen, snapshot, budgets, keeper, every)
    del snapshot  # its vectors may be large
    return run.go(callback, progress)


@dataclass
class _Run:
    """A run under way; ``snapshot`` is where it has come to."""

    problem: Problem
    method: Method
    snapshot: Snapshot
    budgets: _Budgets
    keeper: checkpoints.Keeper | None
    every: int

    def go(
        self,
        callback: Callable[[Record], Any] | None,
        progress: Callable[[Costs], Any] | None,
    ) -> Result:
        """Go on to the end, whatever it is."""
        theirs: list[BaseException] = []
        meter = self.budgets.meter(self.problem, _heard(progress, theirs))
        if not is_ours(self.method):
            meter.admit = self._admitted
        notes: tuple[str, ...] = ()
        broken = False
        try:
            status = self._drain(meter, _heard(callback, theirs))
        except KeyboardInterrupt:
            status, broken = Status.INTERRUPTED, True
        except BudgetSpent as end:
            status = end.status
        except Unbounded:
            status = Status.UNBOUNDED
        except ArithmeticError as error:
            if self.snapshot.best is None or any(error is one for one in theirs):
                raise
            status, notes = Status.NON_FINITE, (f"{type(error).__name__}: {error}.",)
        finally:
            self._close()
        costs = self.budgets.spent + metered(self.problem, meter)
        snapshot = _with_offered(self.problem, self.snapshot, meter, costs, status)
        if self.keeper is not None and self.keeper.trouble:
            notes = (*notes, self.keeper.trouble)
        if meter.missed:
            notes = (*notes, _MISSED)
        bare = _bare(self.problem, snapshot, status, notes)
        bare = replace(bare, every=self.every, broken_off=broken)
        return _told(self.method, self.problem, snapshot, bare, meter, theirs)

    def _admitted(self, iterate: tuple[Any, Any]) -> tuple[Record, Array]:
        """What a method offers, in arrays of its own; what a run can't return is refused."""
        (record, x), problem = iterate, self.problem
        refuse_other_record(problem, record, "what is offered")
        refuse_other_bounds(record, record.value if is_number(record.value) else math.nan)
        shape = tuple(problem.inner.x_shape)
        refuse_other_array(x, "the x that is offered", shape, problem.backend, problem.dtype)
        (x,) = lent(problem.backend, x)
        return _handed(record, problem), x

    def _close(self) -> None:
        """Bring the checkpoint up to date, but for who can't wait."""
        if self.keeper is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self.keeper.close(self.snapshot)

    def _drain(self, meter: Meter, callback: Callable[[Record], Any] | None) -> Status:
        """Take the iterations in until one is the last, and say why."""
        run = _snapshots(self.problem, self.method, self.snapshot, meter, every=self.every)
        for snapshot in run:
            self.snapshot = snapshot
            if self.keeper is not None:
                self.keeper.save(snapshot)
            record = snapshot.last
            assert record is not None
            if callback is not None and _truth(callback(_handed(record, self.problem))):
                return Status.INTERRUPTED
            ended = self.budgets.verdict(record)
            if ended is not None:
                return ended
        return Status.MAX_ITER


#: What is said where products were made that no run has counted.
_MISSED = (
    "Products were made with its data outside the run, as in a thread that its method has started: "
    "its passes do not hold them, and max_passes does not see them."
)


def _truth(answer: Any) -> bool:
    """Whether a callback asks for the end."""
    try:
        return bool(answer)
    except (TypeError, ValueError, RuntimeError) as error:  # of arrays: each library its own
        raise TypeError(
            f"callback must return something true or false, or nothing; got {described(answer)}."
        ) from error


#: Ends at which it may be that there was nothing to find.
_UNFINISHED = (Status.MAX_ITER, Status.MAX_SECONDS, Status.STALLED)


def _far(method: Method, problem: Problem, result: Result) -> Result:
    """The result with a note where its x is longer than can be: three calls of h, which count.

    The models of this package have a minimum, and a method from outside need not ask h at all.
    """
    if result.best is None or result.status not in _UNFINISHED or not is_ours(method):
        return result
    if not any(name.startswith("problem.inner") for name, _ in foreign(problem)):
        return result
    meter, broken = started(problem), False
    try:
        with meter.running():
            far = _blamed(method, far_out, problem, result.lam, result.x)
            result = replace(result, notes=(*result.notes, *far))
    except KeyboardInterrupt:
        broken = True
    except ArithmeticError:
        pass  # it says nothing of x
    return replace(result, costs=result.costs + metered(problem, meter), broken_off=broken)


#: Ends at which there is time to say more of what is returned.
_QUIET = (Status.CONVERGED, Status.STALLED, Status.MAX_ITER)


def _bounded(
    method: Method, problem: Problem, result: Result, meter: Meter, theirs: list[BaseException]
) -> Result:
    """The result with what its method has to say of the iterate that is returned."""
    if result.best is not None and not is_ours(method):
        refuse_outside(problem, result.best.lam)
    result = _far(method, problem, result)
    asked = result.status in _QUIET and not result.broken_off
    if asked and result.best is not None and not is_ours(method):
        result = _valued(method, problem, result)
    if result.best is None or not asked or not isinstance(method, Reporting):
        return result
    best, before, broken = result.best, metered(problem, meter), False
    try:
        with meter.running():
            best = _blamed(method, method.reported, problem, best, result.x)
            if not is_ours(method):
                refuse_other_record(problem, best, "what method.reported returns")
                refuse_other_bounds(best, result.best.value)
                refuse_another_lam(problem, best, result.best)
    except BudgetSpent:
        pass  # all the rest is there
    except KeyboardInterrupt:
        broken = True
    except ArithmeticError as error:
        if any(error is one for one in theirs):
            raise
    kept = tuple(note for note in result.notes if note not in _loose(problem, result.best))
    costs = result.costs + metered(problem, meter) - before
    notes = (*kept, *_loose(problem, best))
    return replace(result, best=best, notes=notes, costs=costs, broken_off=broken)


def _valued(method: Method, problem: Problem, result: Result) -> Result:
    """The result of a method from outside with a note where its value is not g(x, λ): no success.

    Nobody else asks g at what is returned. It is asked once, in no run's passes, and what goes
    wrong there loses nothing. A value of which the method says that it is off by so much, or by
    nobody knows how much (inf), as one of some of the rows, may be.
    """
    best, backend = result.best, problem.backend
    assert best is not None
    try:
        with uncounted():
            (found,) = backend.scalars(problem.outer.at(result.x, result.lam).value)
    except Exception:
        return result
    half = float(backend.xp.finfo(problem.dtype).eps) ** 0.5
    # A run that fits ever better leaves an f of rounding: that of the size it began with.
    begun = half * abs(result.history[0].value) if result.history else 0.0
    size = max(_ALIKE, half) * max(abs(found), abs(result.fun))
    allowed = size + (begun if math.isfinite(begun) else 0.0) + (best.value_error or 0.0)
    if not math.isfinite(result.fun) or abs(found - result.fun) <= allowed:
        return result
    note = f"{type(method).__name__} states {result.fun:.6g} as fun, but g(x, lam) is {found:.6g}."
    status = Status.STALLED if result.status is Status.CONVERGED else result.status
    return replace(result, status=status, notes=(*result.notes, note))


#: The share by which a value of g may be off where it was computed in another way.
_ALIKE = 1e-6


def _heard(
    function: Callable[[Any], Any] | None, theirs: list[BaseException]
) -> Callable[[Any], Any] | None:
    """The same, whose errors are kept in a list: they are the caller's, not the method's."""
    if function is None:
        return None

    def call(argument: Any) -> Any:
        try:
            return function(argument)
        except ArithmeticError as error:
            theirs.append(error)
            raise

    return call


def _with_offered(
    problem: Problem, snapshot: Snapshot, meter: Meter, costs: Costs, status: Status
) -> Snapshot:
    """The run with all that it cost, and with the iterate that an end in mid-iteration left."""
    if meter.offered is None:
        return replace(snapshot, costs=costs)
    offered, x = meter.offered
    value = offered.value
    (value,) = problem.backend.scalars(value) if hasattr(value, "shape") else (value,)
    record = replace(offered, k=snapshot.n_iter + 1, value=value, costs=costs, status=status)
    return snapshot.followed(problem.backend, snapshot.state, record, x)


@dataclass(frozen=True)
class _Budgets:
    """What a run may spend, and what it had spent when it began."""

    max_iter: int
    max_passes: float | None
    max_seconds: float | None
    spent: Costs = Costs()

    def meter(self, problem: Problem, progress: Callable[[Costs], Any] | None) -> Meter:
        """A meter for what is left."""
        spent = self.spent

        def left(budget: float | None, used: float) -> float | None:
            return None if budget is None else budget - used

        def tell() -> None:
            assert progress is not None
            progress(spent + metered(problem, meter))

        meter = started(
            problem,
            max_passes=left(self.max_passes, spent.passes),
            max_seconds=left(self.max_seconds, spent.seconds),
            progress=None if progress is None else tell,
        )
        return meter

    def verdict(self, record: Record) -> Status | None:
        """Why the run ends after this record, or None."""
        if record.status is not Status.RUNNING:
            return record.status
        if record.k >= self.max_iter:
            return Status.MAX_ITER
        most = self.max_passes
        if most is not None and record.passes >= most - slack(most):
            return Status.MAX_PASSES
        if self.max_seconds is not None and record.seconds >= self.max_seconds:
            return Status.MAX_SECONDS
        return None


def _remarks(problem: Problem, snapshot: Snapshot, lam: Array) -> dict[str, str]:
    """What h has to say of the λ at which the run began, and of that which is returned."""
    if not (len(snapshot.history) and isinstance(problem.inner, Remarking)):
        return {}
    places = {"At the start": snapshot.history[0].lam, "Here": lam}
    found = {where: problem.inner.remark(at) for where, at in places.items()}
    return {where: sentence for where, sentence in found.items() if sentence}


def _beyond(problem: Problem, snapshot: Snapshot, value: float) -> float:
    """How much two values of f have to differ to be told apart."""
    eps = float(problem.backend.xp.finfo(problem.dtype).eps)
    return max(10 * getattr(snapshot.state, "tol", 0.0), 100 * eps) * abs(value)


def _worse(problem: Problem, snapshot: Snapshot) -> bool:
    """Whether the last iterate is worse than the best one by more than tolerance and errors."""
    best, last = snapshot.best, snapshot.last
    assert best is not None and last is not None
    return best.at_most + _beyond(problem, snapshot, last.value) < last.at_least


def _unranked(problem: Problem, snapshot: Snapshot, best: Record) -> tuple[str, ...]:
    """Name the iterate that looks better than the best but is known too loosely to be it."""
    seen = [r for r in snapshot.history if not supersedes(problem.backend, best, r)]
    rival = min(seen, key=lambda record: record.likely)
    if not rival.likely < best.likely - _beyond(problem, snapshot, best.likely):
        return ()
    return (f"Iterate {rival.k} may be better: its f is not known well enough to tell.",)


#: The share of fun by which f may lie elsewhere before that is said.
_UNKNOWN = 0.01


def _loose(problem: Problem, best: Record) -> tuple[str, ...]:
    """Say where fun may not be f, since its model is not fitted well enough.

    A share of a fun of 0 would be 0: half the digits of a number of size 1 stand for it.
    """
    away = max(best.at_most - best.value, best.value - best.at_least)
    half = float(problem.backend.xp.finfo(problem.dtype).eps) ** 0.5
    if not math.isfinite(best.value) or away <= (_UNKNOWN * abs(best.value) or half):
        return ()
    if not math.isfinite(away):
        return ("fun is the value that the method states: how far it is from f is not known.",)
    note = (
        "The model is fitted loosely, and fun is not known well enough: f is estimated at "
        f"{best.likely:.6g} ± {best.at_most - best.likely:.2g}."
    )
    columns = any(hasattr(problem.inner, name) for name in ("design", "X"))
    advice = " Columns of very unlike scales make a fit slow: standardise them."
    return (note + advice * columns,)


#: Times the rounding of λ, what is lost of the step by which optimality asks D: it is that short.
_SHORT = 2e4


def _touched(problem: Problem, best: Record) -> tuple[str, ...]:
    """Say which bounds of the domain a λ lies on, where p points out of it: f falls there."""
    lam, p, backend = best.lam, best.hypergrad, problem.backend
    if not isinstance(problem.domain, Touches):
        return ()
    contact = problem.domain.contact(lam, backend)
    if contact is None:
        return ()
    inside, size, reach = backend.scalars(
        optimality(problem.domain, backend, lam, p), norm(p, backend), norm(lam, backend)
    )
    rounded = _SHORT * float(backend.xp.finfo(lam.dtype).eps) * (1 + reach)
    if not inside < (1 - rounded) * size:
        return ()
    return (f"{contact}: f may be smaller beyond, widen the domain to see.",)


def due(problem: Problem, best: Record) -> tuple[str, ...]:
    """What is to be said of an iterate that is returned, whatever the run was."""
    return (*_loose(problem, best), *_touched(problem, best))


#: What is left of the errors of a run that has refuted what they rest on.
_UNFOUNDED = (
    "The errors of its iterates rested on what is refuted here: none is stated, and which iterate "
    "is the best is not known."
)


def _chosen(
    problem: Problem, snapshot: Snapshot, status: Status
) -> tuple[Record | None, Array, Status, tuple[str, ...]]:
    """The record that is the result, if any, its x, the status, and what is to be said of it."""
    best, last = snapshot.best, snapshot.last
    if best is None:  # nothing has run: the state is where it would have begun
        note = "No iteration was completed, so no model has been fitted."
        return None, snapshot.state.x, status, (note,)
    if status is Status.CONVERGED and not _worse(problem, snapshot):
        assert last is not None
        return last, snapshot.state.x, status, ()
    assert snapshot.best_x is not None
    if status is not Status.CONVERGED:
        return best, snapshot.best_x, status, ()
    note = f"It ended in a minimum worse than iterate {best.k}, which is this."
    return best, snapshot.best_x, Status.STALLED, (note,)


def _told(
    method: Method,
    problem: Problem,
    snapshot: Snapshot,
    bare: Result,
    meter: Meter,
    theirs: list[BaseException],
) -> Result:
    """A result with all that there is to say of it; with nothing more, where that is broken off."""
    try:
        return _bounded(method, problem, _noted(problem, snapshot, bare), meter, theirs)
    except KeyboardInterrupt:
        return replace(bare, broken_off=True)


def _bare(problem: Problem, snapshot: Snapshot, status: Status, notes: tuple[str, ...]) -> Result:
    """What a run leaves; no part of the problem is asked anything."""
    best, x, status, found = _chosen(problem, snapshot, status)
    history = tuple(snapshot.closed().history)
    notes = (*notes, *found)
    if status in REFUTING and best is not None:
        best, history = best.unproven, tuple(record.unproven for record in history)
        notes = (*notes, _UNFOUNDED)
    return Result(
        lam=snapshot.state.lam if best is None else best.lam,
        x=x,
        fun=float("nan") if best is None else best.value,
        jac=None if best is None else best.hypergrad,
        status=status,
        nit=snapshot.n_iter,
        history=history,
        costs=snapshot.costs,
        best=best,
        notes=notes,
    )


def _noted(problem: Problem, snapshot: Snapshot, result: Result) -> Result:
    """The same with what the records, the domain and h have to say of it."""
    best, status, notes = result.best, result.status, result.notes
    if best is not None:
        best = _chosen(problem, snapshot, status)[0]  # with its bounds, refuted or not
        assert best is not None
        notes = (*notes, *_unranked(problem, snapshot, best), *due(problem, best))
    remarks = _remarks(problem, snapshot, result.lam)
    if status is Status.CONVERGED and "Here" in remarks:
        status = Status.STALLED  # f is flat where h does not see the data: that is no minimum
    notes = (*notes, *(f"{where}, {sentence}" for where, sentence in remarks.items()))
    return replace(result, status=status, notes=notes)
