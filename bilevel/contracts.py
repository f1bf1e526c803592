"""What parts from outside have to have, said where a run starts and not where it would break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .backends import Array, described, get_backend, is_array, same_backend
from .inner import TERM_MEMBERS, LinearModel, lacking
from .linalg import norm
from .methods import Method
from .problem import Problem
from .record import Record
from .status import Status


def refuse_bare_parts(problem: Problem, method: Method, lam: Array, x0: Array | None) -> None:
    """Refuse points that lack members, and a problem that lacks what its method needs.

    Parts of this package are whole, and are not asked.

    Raises
    ------
    TypeError
        The message names the part and the members.

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
    needs = getattr(method, "needs", ())
    if isinstance(needs, str) or not all(n.partition(".")[0] in ("inner", "outer") for n in needs):
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
    for what, point, missing, remedy in _points(problem, problem.x(x0), lam):
        if missing:
            raise TypeError(
                f"{what}.at must return a point with {', '.join(missing)}, got a "
                f"{type(point).__name__}{remedy}."
            )


def refuse_misfits(problem: Problem, state: Any) -> None:
    """Refuse a first step whose state or record is not what the loop takes it for.

    Raises
    ------
    TypeError, ValueError
        The message names the part of the state, what it is and what it should be.
    """
    record: Any = getattr(state, "record", None)
    if not isinstance(record, Record) or record.lam is None or record.hypergrad is None:
        raise TypeError(
            "method.step must return a state whose record is a Record with lam, value and "
            f"hypergrad, got {described(state if record is None else record)}."
        )
    m = (problem.inner.n_hyperparameters,)
    held: tuple[tuple[str, Any, tuple[int, ...]], ...] = (
        ("record.lam", record.lam, m),
        ("record.hypergrad", record.hypergrad, m),
        ("lam", getattr(state, "lam", None), m),
        ("x", getattr(state, "x", None), tuple(problem.inner.x_shape)),
    )
    for name, array, shape in held:
        where = f"the {name} of the state that method.step returns"
        if not is_array(array):
            raise TypeError(f"{where} must be an array of shape {shape}, got {described(array)}.")
        same_backend(problem.backend, get_backend(array), "the problem", where)
        if tuple(array.shape) != shape or array.dtype != problem.dtype:
            raise ValueError(
                f"{where} must be of shape {shape} and dtype {problem.dtype}, got "
                f"{tuple(array.shape)} and {array.dtype}."
            )
    if not isinstance(getattr(state, "status", None), Status):
        raise TypeError(f"the status of a state must be a Status, got {state.status!r}.")
    for name in ("value_error", "hypergrad_error", "estimate_error", "inner_error"):
        bound = getattr(record, name)
        if bound is not None and bound < 0:
            raise ValueError(f"record.{name} is a bound, zero or more, got {bound!r}.")
    _refuse_outside(problem, record)


def _refuse_outside(problem: Problem, record: Record) -> None:
    backend, lam = problem.backend, record.lam
    inside = problem.domain.project(lam, backend)
    off, size = backend.scalars(norm(inside - lam, backend), norm(lam, backend))
    if off > 1e-3 * (1 + size):
        raise ValueError(
            f"record.lam must lie in the domain, {problem.domain}: method.step has to project it."
        )


def _points(
    problem: Problem, x: Array, lam: Array
) -> Iterator[tuple[str, Any, Sequence[str], str]]:
    """What each part from outside makes, what that lacks, and where to have it from."""
    inner, outer = problem.inner, problem.outer
    if not is_ours(inner):
        point: Any = inner.at(x, lam)
        yield "problem.inner", point, lacking(point), _derive("Point")
    elif isinstance(inner, LinearModel):
        term: Any = inner.at(x, lam).penalty
        term = getattr(term, "base", term)  # that of a model with a free intercept
        if not is_ours(term):
            missing = lacking(term, TERM_MEMBERS)
            yield "problem.inner.penalty", term, missing, _derive("PenaltyTerm")
    if not is_ours(outer):
        found: Any = outer.at(x, lam)
        yield "problem.outer", found, lacking(found, ("value", "grad_x", "grad_lam")), ""


def _derive(base: str) -> str:
    return f": derive its class from bilevel.inner.{base}, which has what is no mathematics"


def is_ours(value: Any) -> bool:
    """Whether the class of a value is one of this package."""
    return type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
