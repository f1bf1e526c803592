"""What a rule is, by which λ moves: it takes iterates in, proposes the next, knows the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...backends import Array
from ...problem import Problem
from .estimate import Estimate
from .settled import Beside

#: How many times the tolerance of a run is allowed in what is asked of a proof.
PROVEN = 10


@dataclass(frozen=True)
class Verdict:
    """The rule with an iterate taken in, and how far from the end it is.

    ``gap`` is the decrease of f that is left, the error of p counted against it (None: not known),
    ``allowed`` the error of p with which it would still be small (0: none). ``undecided``: f is not
    known well enough to judge this step or the next one; ``back``: the step is taken back.
    """

    rule: Rule
    gap: float | None = None
    allowed: float = 0.0
    undecided: bool = False
    back: bool = False


class Rule(Protocol):
    """How λ moves: a frozen dataclass of arrays and numbers, a part of the state of a run."""

    @property
    def torn(self) -> bool:
        """Whether no λ that is proposed from here leads anywhere."""
        ...

    def observe(self, problem: Problem, lam: Array, seen: Estimate, tol: float) -> Verdict:
        """Take in what a correction has shown at λ, and say how far from the end it is."""
        ...

    def settled(self, seen: Estimate, gap: float, tol: float) -> bool:
        """Whether an end is to be believed; ``gap`` was left at the iterate before."""
        ...

    def beside(self, looks: Sequence[Beside]) -> Rule:
        """The rule with the second derivatives of f that were seen at the iterate."""
        ...

    def propose(self, problem: Problem) -> Array:
        """The next λ, in D."""
        ...

    def stepped(self, moved: float, sweeps: int) -> Rule:
        """The rule once its step, of this length, is made after so many corrections."""
        ...
