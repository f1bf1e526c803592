"""What a check finds, and the book it is kept in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._probe import Vector, length
from .causes import likely_factor, likely_ratio


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    what : str
        The member: ``"inner.grad"``, ``"inner.constants().mu"``, ...
    where : str
        The coordinate, direction or point at which it shows most.
    error : float
        How much: relative to the size of the right answer, or the ratio of the true constant to
        the declared one.
    message : str
        A sentence with the numbers.
    cause : str or None
        A likely cause, where the error has the mark of one.
    finite : bool
        False where it says that a number is infinite or NaN.
    """

    what: str
    where: str
    error: float
    message: str
    cause: str | None = None
    finite: bool = True

    def __str__(self) -> str:
        cause = f" Likely cause: {self.cause}." if self.cause else ""
        return f"{self.what} at {self.where}: {self.message}{cause}"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_problem` found.

    Attributes
    ----------
    findings : tuple of Finding
        What is wrong; empty where nothing is.
    notes : tuple of str
        What the theory would like and the problem does not state or have.
    checked : tuple of str
        The checks that were made.
    passes : int, or float
        What they cost: passes over the data of both levels, or evaluations of functions.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    checked: tuple[str, ...]
    passes: float = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def raise_for_findings(self) -> None:
        """Raise an AssertionError with all findings, or do nothing where there are none."""
        if self.findings:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [vars(finding) for finding in self.findings],
            "notes": list(self.notes),
            "checked": list(self.checked),
            "passes": self.passes,
        }

    def __str__(self) -> str:
        head = "Nothing is wrong" if self.ok else f"{len(self.findings)} thing(s) wrong"
        lines = [f"{head} in {len(self.checked)} checks, {self.passes} passes."]
        lines += [f"  wrong: {finding}" for finding in self.findings]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


#: Why a bound may be NaN.
UNKNOWN = "a bound that is not known is infinite: 0 · ∞ and ∞ - ∞ are NaN"


@dataclass
class Book:
    """Findings, one for each member, with the place at which the checks are made now."""

    rng: np.random.Generator
    place: str = ""
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def made(self, what: str) -> None:
        if what not in self.checked:
            self.checked.append(what)

    def blames(self, *members: str) -> bool:
        """Whether one of these members has been found wrong, in whatever respect."""
        return any(finding.what.startswith(members) for finding in self.findings)

    def add(
        self,
        what: str,
        where: str,
        error: float,
        message: str,
        cause: str | None,
        *,
        finite: bool = True,
    ) -> None:
        if all(finding.what != what for finding in self.findings):
            place = f"{where} ({self.place})" if where else self.place
            self.findings.append(Finding(what, place, error, message, cause, finite))

    @contextmanager
    def asking(self, what: str, cause: str | None = None) -> Iterator[None]:
        """Ask for an optional member: whatever it raises is a finding of that name.

        ``cause`` is that of an error of Python itself, as where a property is called or None used.
        """
        self.made(what)
        try:
            yield
        except Exception as error:  # whatever a user's function raises
            known = cause if isinstance(error, (TypeError, AttributeError)) else None
            self.add(what, "", math.inf, f"it raises {type(error).__name__}: {error}", known)

    def compare(
        self,
        what: str,
        claimed: Vector,
        truth: Vector,
        slack: float,
        *,
        share: float,
        metric: Vector | float = 1.0,
        where: Callable[[int], str] = lambda j: f"component {j}",
        cause: Callable[[Vector, Vector], str | None] | None = None,
        reference: str = "differences",
    ) -> bool:
        """Whether two vectors agree, each component times ``metric``.

        Agreement is up to ``share`` of their size and ``slack``.
        """
        self.made(what)
        mine, right = claimed * metric, truth * metric
        off = mine - right
        size = max(length(right), length(mine))
        if length(off) <= share * size + slack:
            return True
        j = int(np.argmax(np.abs(off)))
        relative = length(off) / max(length(right), 1e-300)
        message = (
            f"got {claimed[j]:.9g} but {reference} give {truth[j]:.9g}; "
            f"the whole is off by {relative:.2g} of its size."
        )
        found = cause(mine, right) if cause else None
        self.add(what, where(j), relative, message, found or likely_factor(mine, right))
        return False

    def can_bound(self, what: str, stated: float) -> bool:
        """Whether a number can be an upper bound of a size; a finding where it can't."""
        if stated >= 0:
            return True
        cause = UNKNOWN if math.isnan(stated) else "that of a signed number, without its size"
        self.add(what, "", math.inf, f"got {stated:.6g}, expected a number of at least 0.", cause)
        return False

    def constant(
        self, what: str, declared: float, found: float, share: float, noise: float
    ) -> bool:
        """Whether a declared upper bound is at least what is attained, up to rounding."""
        self.made(what)
        if not self.can_bound(what, declared):
            return False
        if not math.isfinite(found) or found <= declared * (1 + share) + noise:
            return True
        ratio = found / declared if declared > 0 else math.inf
        message = f"{declared:.6g} is declared but {found:.6g} is attained."
        self.add(what, "", ratio, message, likely_ratio(ratio))
        return False
