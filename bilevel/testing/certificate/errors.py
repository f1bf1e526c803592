"""The errors that records state: what refutes them without the x and q that no record keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...linalg import norm
from ...methods import HOAG, MAID, PathFollowing
from ...outer import RoundedOuter
from ...record import Record
from .._probe import length
from .model import Clause, Mark
from .run import Run, Tight

#: A stated error is too fine where it is below this share of a unit in the last place: what is
#: computed is rounded, and a fit of our own shows by how much.
_FINE = 0.01

#: The methods of which it is known what they take errors for.
_OURS = (HOAG, MAID, PathFollowing)


def errors(run: Run) -> Clause:
    """The errors of the records, and of the best, are such as their numbers can have."""
    statement = "the errors that are stated are such as the values, p and x can have"
    faults = [
        *_too_fine(run),
        *_too_near(run),
        *_not_corrected(run),
        *_misestimated(run),
        *_elsewhere(run),
    ]
    figures = {"faults": float(len(faults)), "fits": float(len(run.sampled))}
    if faults:
        return Clause("errors", statement, Mark.VIOLATED, faults[0], figures)
    reason = "against their own rounding, and the values of fits of our own"
    return Clause("errors", statement, Mark.BOUNDED, reason, figures)


def _stated(run: Run) -> Iterator[tuple[Record, Tight | None]]:
    """All records with what is known of their λ, and the best with the end."""
    fits = {record.k: tight for record, tight in run.sampled}
    yield from ((record, fits.get(record.k)) for record in run.records)
    if run.result.best is not None:
        yield run.result.best, run.closest


def _too_fine(run: Run) -> Iterator[str]:
    """An error of 0, or one that is little more: numbers that are rounded are not known so well."""
    end = run.tight
    size_x = length(run.host(end.inner.x).reshape(-1))
    for record, tight in _stated(run):
        x = 0.0 if tight is None else length(run.host(tight.inner.x).reshape(-1))
        p = length(run.host(record.hypergrad))
        for name, stated, size, shown, at in (
            ("value", record.value_error, abs(record.value), end.error_fun, abs(end.fun)),
            ("p", record.hypergrad_error, p, end.error_p, length(end.hypergrad)),
            ("x", record.inner_error, x if tight else size_x * (x == 0), end.near, size_x),
        ):
            rounded = shown is not None and end.proven and shown > _FINE * run.eps * at
            if stated is None or not rounded or not 0 < size < math.inf:
                continue
            if stated < _FINE * run.eps * size and (stated == 0 or tight is not None):
                yield (
                    f"record {record.k} states an error of {stated:.3g} for its {name}, which is "
                    "less than any rounding of it"
                )


def _too_near(run: Run) -> Iterator[str]:
    """A distance to X(λ) at which g can't differ from f as the value does."""
    backend, smooth = run.problem.backend, run.problem.outer_constants.grad_x_lipschitz
    for record, tight in _stated(run):
        stated = record.inner_error
        if tight is None or tight.near is None or stated is None or smooth is None:
            continue
        outer = tight.found.outer
        known = outer.rounding() if isinstance(outer, RoundedOuter) else None
        (slope,) = backend.scalars(norm(outer.grad_x, backend))
        size = length(run.host(tight.inner.x).reshape(-1))
        rounding = run.share * (abs(tight.fun) + slope * size)
        if known is not None:  # that of the run, and that of our own
            rounding = 4 * backend.scalars(known.value)[0]
        away = stated + tight.near
        reach = (slope * away + smooth * away**2 / 2) * (1 + 1e-6) + rounding
        off = abs(record.value - tight.fun)
        if off > reach:
            yield (
                f"record {record.k} states that x is within {stated:.3g} of X(λ), which moves g by "
                f"{reach:.3g} at most, and its value is {off:.3g} from f"
            )


def _not_corrected(run: Run) -> Iterator[str]:
    """The methods of this package take the error of an estimate for the correction at least.

    So it is of the best, whose estimate is another only where nothing is proven of its value.
    """
    if not isinstance(run.method, _OURS):
        return
    best, end = run.result.best, run.end
    if best is not None and end is not None and best.value_error is not None:
        for name in ("estimate", "estimate_error"):
            there, here = getattr(best, name), getattr(end, name)
            if there != here and there == there:
                yield f"the best states {there!r} for its {name}, its record {here!r}"
    for record in run.records:
        if record.estimate is None or record.estimate_error is None:
            continue
        by = abs(record.value - record.estimate)
        if by > record.estimate_error * (1 + 1e-9) + 4 * run.eps * abs(record.value):
            yield (
                f"record {record.k} corrects its value by {by:.3g} and takes the error of that for "
                f"{record.estimate_error:.3g}"
            )


#: How many times what a method takes the error of f or p for it may be.
_TAKEN = 10


def _misestimated(run: Run) -> Iterator[str]:
    """What a method takes f for is no proof, but near enough to the fits."""
    for record, tight in run.held:
        if record.estimate is None or record.estimate_error is None or not tight.sure:
            continue
        off = abs(record.estimate - tight.fun) - tight.error_fun
        allowed = _TAKEN * record.estimate_error + run.share * abs(tight.fun)
        if off > allowed:
            yield (
                f"record {record.k} estimates f at {record.estimate:.6g}, with an error taken for "
                f"{record.estimate_error:.3g}, and is at least {off:.3g} from it"
            )


def _elsewhere(run: Run) -> Iterator[str]:
    """Path following states as ε what it takes the error of p for: no proof, but near enough."""
    if not isinstance(run.method, PathFollowing):
        return
    for record, tight in run.sampled:
        p = run.host(record.hypergrad)
        off = length(p - tight.hypergrad) - tight.error_p
        allowed = _TAKEN * record.tol + length(tight.hypergrad) / 2 + run.share * abs(tight.fun)
        if tight.inner.status.success and off > allowed:
            yield (
                f"p of record {record.k} is at least {off:.3g} from ∇f, and its error was taken "
                f"for {record.tol:.3g}"
            )
