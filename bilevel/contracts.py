"""What parts from outside have to have, said where a run starts and not where it would break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .backends import Array
from .design.shared import is_ours
from .inner import TERM_MEMBERS, LinearModel, lacking
from .methods import Method
from .problem import Problem


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
    for need in getattr(method, "needs", ()):
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
