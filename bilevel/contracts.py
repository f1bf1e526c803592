"""What parts from outside have to have, said where a run starts and not where it would break."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._ours import is_ours
from .answers import (
    Answers,
    Place,
    Shape,
    is_number,
    places,
    refuse_other_array,
    refuse_other_counters,
    refuse_other_criterion,
    refuse_other_curvature,
    refuse_other_design,
    refuse_other_kernel,
    refuse_other_loss,
    refuse_other_point,
    refuse_other_sentence,
    refuse_other_term,
    without_carry,
)
from .backends import Array, Maybe, described, function, lent
from .inner import (
    MLP,
    TERM_MEMBERS,
    FunctionInner,
    KernelRidge,
    LinearModel,
    inner_constants,
    lacking,
)
from .inner.penalties import FreeLast
from .linalg import norm
from .meter import uncounted
from .methods import Method
from .outer import FunctionOuter, HeldOutLoss
from .problem import Problem
from .record import Record
from .status import Status


def refuse_bare_parts(problem: Problem, method: Method, lam: Array, x0: Array | None) -> None:
    """Refuse parts whose members are missing or answer with other shapes than they should.

    And a problem that lacks what its method needs. Parts of this package are whole, and are not
    asked; what it costs to ask the others is not the run's.

    Raises
    ------
    TypeError, ValueError
        The message names the part and the member.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> h = bilevel.inner.linear_model(np.eye(2), np.ones(2), bilevel.losses.Squared())
    >>> g = bilevel.outer.from_functions(lambda x, lam: (x @ x / 2, x), like=np.ones(2))
    >>> class Stochastic(bilevel.methods.HOAG):
    ...     needs = ("inner.rows", "outer.rows")
    >>> problem = bilevel.Problem(h, g)
    >>> refuse_bare_parts(problem, Stochastic(), problem.lam(0.0), None)
    Traceback (most recent call last):
    TypeError: Stochastic needs problem.outer.rows, which a FunctionOuter does not have.
    """
    _refuse_unmet(problem, method)
    Maybe(function)(getattr(method, "reported", None), f"{type(method).__name__}.reported")
    if _ASKED in vars(problem):
        return
    with uncounted():
        x = problem.x(x0)
        _refuse_bare_inner(problem, problem.inner, "problem.inner", x, lam)
        _refuse_bare_outer(problem, x, lam)
        for answers, ask in _asked_of_data(problem):
            ask(answers)
    vars(problem)[_ASKED] = True  # as what is cached: shapes are those of all x and λ


def _refuse_unmet(problem: Problem, method: Method) -> None:
    """Refuse a problem that lacks what its method needs."""
    needs = getattr(method, "needs", ())
    if not (isinstance(needs, (tuple, list)) and all(map(_is_need, needs))):
        raise TypeError(
            f'{type(method).__name__}.needs must be a tuple of names such as "inner.rows" and '
            f'"outer.rows", got {needs!r}.'
        )
    for need in needs:
        part, _, member = need.partition(".")
        found = getattr(problem, part)
        if not hasattr(found, member):
            raise TypeError(
                f"{type(method).__name__} needs problem.{need}, which a {type(found).__name__} "
                "does not have."
            )


def _is_need(name: Any) -> bool:
    return isinstance(name, str) and name.partition(".")[0] in ("inner", "outer")


def refuse_other_start(problem: Problem, state: Any) -> None:
    """Refuse a state that no run can begin with.

    Raises
    ------
    TypeError, ValueError
        The message names what of the state.
    """
    shapes = {"lam": (problem.inner.n_hyperparameters,), "x": tuple(problem.inner.x_shape)}
    xp = problem.backend.xp
    for name, shape in shapes.items():
        found, where = getattr(state, name), f"the {name} of the state that method.init returns"
        refuse_other_array(found, where, shape, problem.backend, problem.dtype)
        if not bool(xp.all(xp.isfinite(found))):
            raise ValueError(f"{where} must be finite, got NaN or infinite values.")
    if state.status is not Status.RUNNING:
        raise TypeError(
            "the status of the state that method.init returns must be Status.RUNNING, got "
            f"{described(state.status)}."
        )
    if state.record is not None:
        raise TypeError(
            "the record of the state that method.init returns must be None, since no iteration led "
            f"there, got {described(state.record)}."
        )


#: Where a problem remembers that its parts have been asked.
_ASKED = "_asked"


def refuse_misfits(problem: Problem, state: Any, before: Any = None) -> None:
    """Refuse a step whose state or record is not what the loop takes it for.

    No array is read. Those that are of the kind of the state ``before``, which was asked itself,
    need no second look.

    Raises
    ------
    TypeError, ValueError
        The message names the part of the state, what it is and what it should be.
    """
    record: Any = getattr(state, "record", None)
    refuse_other_record(problem, record, "the state that method.step returns", before)
    shapes = {"lam": (problem.inner.n_hyperparameters,), "x": tuple(problem.inner.x_shape)}
    for name, shape in shapes.items():
        found = getattr(state, name, None)
        if before is None or not _alike(found, getattr(before, name)):
            where = f"the {name} of the state that method.step returns"
            refuse_other_array(found, where, shape, problem.backend, problem.dtype)
    if not isinstance(getattr(state, "status", None), Status):
        found = described(getattr(state, "status", None))
        raise TypeError(f"the status of a state must be a Status, got {found}.")


def refuse_other_record(problem: Problem, record: Any, whose: str, before: Any = None) -> None:
    """Refuse a record whose λ, slope or numbers are none.

    Raises
    ------
    TypeError, ValueError
        The message names what of the record.
    """
    if not isinstance(record, Record) or record.lam is None or record.hypergrad is None:
        raise TypeError(
            f"the record of {whose} must be a Record with lam, value and hypergrad, got "
            f"{described(record)}."
        )
    for name in ("lam", "hypergrad"):
        found = getattr(record, name)
        if before is None or not _alike(found, before.lam):
            where, m = f"the record.{name} of {whose}", (problem.inner.n_hyperparameters,)
            refuse_other_array(found, where, m, problem.backend, problem.dtype)
    for name in ("value", "optimality", "step", "tol", "n_inner", "n_cg"):
        found = getattr(record, name)
        if not is_number(found):
            raise TypeError(f"record.{name} must be a number, got {described(found)}.")
    for name in (*_KNOWN, "cg_residual"):
        found = getattr(record, name)
        if found is not None and not is_number(found):
            raise TypeError(f"record.{name} must be a number or None, got {described(found)}.")


#: What a record may know of its value and its slope, and of these the bounds.
_BOUNDS = ("value_error", "hypergrad_error", "estimate_error", "inner_error")
_KNOWN = ("estimate", *_BOUNDS)


def refuse_other_bounds(record: Record, value: float) -> None:
    """Refuse bounds that are negative, or NaN beside a value that is a number.

    Raises
    ------
    ValueError
        The message names the bound.
    """
    for name in _BOUNDS:
        bound = getattr(record, name)
        if bound is None or bound >= 0 or (bound != bound and not math.isfinite(value)):
            continue
        raise ValueError(
            f"record.{name} is a bound, zero or more (inf where nothing is known), got {bound!r}."
        )


def refuse_another_lam(problem: Problem, record: Record, of: Record) -> None:
    """Refuse a record that is to say more of another one, and is of another λ.

    Raises
    ------
    ValueError
        If it is.
    """
    (apart,) = problem.backend.scalars(norm(record.lam - of.lam, problem.backend))
    if not apart == 0:
        raise ValueError(
            "method.reported must return a record of the λ that it is given, got one at a "
            f"distance of {apart:.3g} from it."
        )


@dataclass(frozen=True)
class Given:
    """What a step of a method from outside is given to read, and what was in it before.

    The run keeps the copies. But a step that writes into what it is given, and makes its record of
    that, tells the value of one λ as that of another. Each is looked at wherever the step returns
    the very same array, which it does where it writes into it; all of them now and then, and at the
    first step.
    """

    kept: Mapping[str, tuple[Array, Array]]
    thorough: bool

    @classmethod
    def of(cls, problem: Problem, state: Any, n: int) -> Given:
        """Before the n-th step."""
        arrays = _arrays(state)
        copies = lent(problem.backend, *arrays.values())
        pairs = zip(arrays.values(), copies, strict=True)
        return cls(dict(zip(arrays, pairs, strict=True)), thorough=n & (n - 1) == 0)

    def copy(self, name: str) -> Array:
        """What a run may keep, whatever the method makes of its own buffers later."""
        return self.kept[name][1]

    @property
    def recorded(self) -> dict[str, Array]:
        """The copies of the arrays of the record."""
        names = ("lam", "hypergrad")
        return {name: self.copy(f"record.{name}") for name in names}

    def written(self, problem: Problem, state: Any) -> dict[str, Array]:
        """How far each has moved, to be read; nothing where no one can write."""
        xp, returned = problem.backend.xp, _arrays(state)
        return {
            f"{_WRITTEN}{name}": xp.max(xp.abs(array - copy))
            for name, (array, copy) in self.kept.items()
            if copy is not array and (self.thorough or returned[name] is array)
        }

    def refuse(self, read: Mapping[str, float], problem: Problem) -> None:
        """Refuse a step that has written into one of them, by itself or by a part that it asked.

        Raises
        ------
        ValueError
            The message names the array.
        """
        for name, moved in read.items():
            if name.startswith(_WRITTEN) and moved > 0:
                others = ", ".join(where for where, _ in foreign(problem))
                others = f", nor may a part that it asks ({others})" if others else ""
                raise ValueError(
                    f"method.step must not write into the {name.removeprefix(_WRITTEN)} of the "
                    f"state that it is given{others}: records hold it. Return a new array."
                )


def _arrays(state: Any) -> dict[str, Array]:
    """The arrays of a state that are kept, by their names."""
    arrays, record = {"lam": state.lam, "x": state.x}, state.record
    if record is not None:
        arrays |= {"record.lam": record.lam, "record.hypergrad": record.hypergrad}
    return arrays


#: Before the name of an array of which it is asked whether it was written into.
_WRITTEN = "written into: "


def _alike(array: Any, known: Any) -> bool:
    """Whether an array is of the class, shape, dtype and device of one that was asked."""
    return (
        type(array) is type(known)
        and array.shape == known.shape
        and array.dtype == known.dtype
        and getattr(array, "device", None) == getattr(known, "device", None)
    )


def refuse_outside(problem: Problem, lam: Array) -> None:
    """Refuse a λ that lies outside of D by more than rounding; one that is no number ends the run.

    Raises
    ------
    ValueError
        If it does.
    """
    backend, xp = problem.backend, problem.backend.xp
    away = xp.abs(problem.domain.project(lam, backend) - lam)
    (by,) = backend.scalars(xp.max(away / (1 + xp.abs(lam))))
    if by > float(xp.finfo(problem.dtype).eps) ** 0.5:
        raise ValueError(
            f"record.lam must lie in the domain, {problem.domain}: method.step has to project it."
        )


def _refuse_bare_inner(problem: Problem, inner: Any, where: str, x: Array, lam: Array) -> None:
    """An objective from outside, or what of one of ours is from there."""
    answers = Answers(f"{where}.at(x, lam)", problem.backend, problem.dtype)
    if not is_ours(inner):
        states = [name for name in ("entries",) if hasattr(inner, name)]
        refuse_other_counters(inner, where, ("passes", "column_passes", *states))
        short = without_carry(inner)
        if short is not None:
            raise TypeError(f"{where}.{short}.")
        for at in _places(problem, answers, x, lam):
            point: Any = answers.found("at", lambda at=at: inner.at(at.x, at.lam))  # type: ignore[misc]
            _refuse_bare(f"{where}.at", point, lacking(point), _derive("Point"))
            refuse_other_point(answers, point, at)
        answers.refuse_touched()
        answers.found("constants(lam)", lambda: inner_constants(inner, lam))
        answers.found("remark(lam)", lambda: refuse_other_sentence(inner, lam))
    elif isinstance(inner, LinearModel):
        _refuse_bare_penalty(problem, inner, where, x, lam)
    for k, (part, x_k) in enumerate(_parts(inner, x)):
        _refuse_bare_inner(problem, part, f"{where}.parts[{k}]", x_k, lam)


def _data_parts(
    problem: Problem, where: str, side: Any, inner: Any
) -> Iterator[tuple[Answers, Callable[[Answers], None]]]:
    """What of h or of g has to do with data and is from outside, and how each is asked.

    A design makes two products of each kind, which are no run's.
    """

    def expected(part: str, dtype: Any = problem.dtype) -> Answers:
        return Answers(f"{where}.{part}", problem.backend, dtype)

    if isinstance(side, (LinearModel, MLP, HeldOutLoss)) and not is_ours(side.loss):
        # Of a network labels and predictions have a column for each output.
        n, *columns = side.y.shape
        shape = (n, *(columns if isinstance(inner, MLP) else inner.x_shape[1:]))
        convex = isinstance(side, LinearModel)
        yield (
            expected("loss"),
            partial(_refuse_loss, loss=side.loss, y=side.y, shape=shape, convex=convex),
        )
    if isinstance(side, KernelRidge) and not is_ours(side.kernel):
        theta = problem.lam(0.0)[:-1]
        yield (
            expected("kernel"),
            partial(refuse_other_kernel, kernel=side.kernel, X=side.X, theta=theta),
        )
    design = getattr(side, "design", None) if is_ours(side) else None
    while design is not None and is_ours(design):  # ours may stand around one that is not
        design = getattr(design, "base", None)
    if design is not None:
        yield expected("design", design.dtype), partial(refuse_other_design, design=design)
    if is_ours(side) and hasattr(side, "parts") and hasattr(inner, "parts"):
        for k, (part, of) in enumerate(zip(side.parts, inner.parts, strict=True)):
            yield from _data_parts(problem, f"{where}.parts[{k}]", part, of)


def _refuse_loss(answers: Answers, loss: Any, y: Array, shape: Shape, convex: bool) -> None:
    refuse_other_loss(answers, loss, y, shape)
    if convex:
        refuse_other_curvature(answers, loss, y, shape)


def _asked_of_data(problem: Problem) -> Iterator[tuple[Answers, Callable[[Answers], None]]]:
    """The same of both levels, each with what is expected of it."""
    for where, side in (("problem.inner", problem.inner), ("problem.outer", problem.outer)):
        yield from _data_parts(problem, where, side, problem.inner)


def touching(problem: Problem) -> Iterator[tuple[str, str]]:
    """The members of losses, kernels and designs from outside that leave some array not as it was.

    They are handed copies of the data. What else is wrong with them is not said here.

    Yields
    ------
    member, fault : str
        As ``"problem.inner.loss.derivative(y, t)"``, and what it must not do.
    """
    for answers, ask in _asked_of_data(problem):
        with uncounted(), suppress(Exception):
            ask(answers)
        for member, fault in answers.untouched.faults():
            yield f"{answers.where}.{member}", fault


def _refuse_bare_penalty(problem: Problem, model: Any, where: str, x: Array, lam: Array) -> None:
    """The penalty of a linear model: no pass."""
    penalty: Any = model.penalty
    if isinstance(penalty, FreeLast):  # the last row of x is the free intercept
        penalty, x_penalty = penalty.base, x[:-1, ...]
    else:
        x_penalty = x
    if is_ours(penalty):
        return
    backend = problem.backend
    answers = Answers(f"{where}.penalty.at(x, lam, backend)", backend, problem.dtype)
    for at in _places(problem, answers, x_penalty, lam):
        term: Any = answers.found("at", lambda at=at: penalty.at(at.x, at.lam, backend))  # type: ignore[misc]
        missing = lacking(term, TERM_MEMBERS)
        _refuse_bare(f"{where}.penalty.at", term, missing, _derive("PenaltyTerm"))
        refuse_other_term(answers, term, at)
    answers.refuse_touched()


def _refuse_bare_outer(problem: Problem, x: Array, lam: Array) -> None:
    outer: Any = problem.outer
    answers = Answers("problem.outer.at(x, lam)", problem.backend, problem.dtype)
    if is_ours(outer):
        return
    refuse_other_counters(outer, "problem.outer", ("passes",))
    for at in _places(problem, answers, x, lam):
        found: Any = answers.found("at", lambda at=at: outer.at(at.x, at.lam))  # type: ignore[misc]
        missing = lacking(found, ("value", "grad_x", "grad_lam"))
        _refuse_bare("problem.outer.at", found, missing, "")
        refuse_other_criterion(answers, found, at)
    answers.refuse_touched()


def _places(problem: Problem, answers: Answers, x: Array, lam: Array) -> Iterator[Place]:
    """Where a part is asked: at the start, and beside it in D."""
    return places(answers, x, lam, lambda other: problem.domain.project(other, problem.backend))


def _parts(inner: Any, x: Array) -> Iterator[tuple[Any, Array]]:
    """The objectives that one of ours is the sum of, each with its x."""
    if is_ours(inner) and hasattr(inner, "parts"):
        yield from zip(inner.parts, inner.layout.split(x), strict=True)


def _refuse_bare(where: str, point: Any, missing: Sequence[str], remedy: str) -> None:
    if missing:
        raise TypeError(
            f"{where} must return a point with {', '.join(missing)}, got a "
            f"{type(point).__name__}{remedy}."
        )


def _derive(base: str) -> str:
    return f": derive its class from bilevel.inner.{base}, which has what is no mathematics"


def foreign(problem: Problem) -> Iterator[tuple[str, Any]]:
    """The parts of a problem that are not of this package, and those that functions state."""
    named = (("problem.inner", problem.inner), ("problem.outer", problem.outer))
    for name, part in (*named, ("problem.domain", problem.domain)):
        if not is_ours(part) or isinstance(part, (FunctionInner, FunctionOuter)):
            yield name, part
            continue
        for member in ("loss", "penalty", "kernel"):
            found = getattr(part, member, None)
            found = found.base if isinstance(found, FreeLast) else found
            if found is not None and not is_ours(found):
                yield f"{name}.{member}", found
        for k, below in enumerate(getattr(part, "parts", ())):
            if not is_ours(below) or isinstance(below, (FunctionInner, FunctionOuter)):
                yield f"{name}.parts[{k}]", below


def blame(error: Exception, problem: Problem, method: Method) -> None:
    """Note on an error that comes out of a run which of its parts are from outside, if some are.

    They were asked where it started. What they answer later is looked at by nobody, and an array of
    another shape, class or dtype breaks wherever it is used.
    """
    parts = [f"{name} (a {type(part).__name__})" for name, part in foreign(problem)]
    parts += [] if is_ours(method) else [f"method (a {type(method).__name__})"]
    if parts:
        error.add_note(
            f"Parts of this run that are not of bilevel: {', '.join(parts)}. If one of them "
            "answers with another shape, class or dtype than where the run started, it ends like "
            "this: bilevel.testing.check_problem(problem) asks them everywhere."
        )
