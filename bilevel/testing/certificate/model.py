"""A certificate: clauses, each with how well it is known, why, and the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Mark(Enum):
    """How well a clause is known.

    Examples
    --------
    >>> Mark.BOUNDED.value
    'bounded numerically'
    """

    PROVED = "proved"
    BOUNDED = "bounded numerically"
    ASSUMED = "assumed"
    VIOLATED = "violated"


@dataclass(frozen=True)
class Clause:
    """One assumption or conclusion.

    Attributes
    ----------
    name : str
        Short, for machines.
    statement : str
        The mathematics.
    mark : Mark
        How well it is known.
    reason : str
        Why.
    figures : dict of float
        The numbers behind it.
    """

    name: str
    statement: str
    mark: Mark
    reason: str
    figures: dict[str, float]

    def doubted(self, reason: str) -> Clause:
        """The same where what it rests on is not what it says: nothing follows from it."""
        if self.mark is Mark.VIOLATED:
            return self
        return replace(self, mark=Mark.ASSUMED, reason=reason)

    def given(self, what: str) -> Clause:
        """The same where its proof rests on what somebody declares: no sample refutes that."""
        if self.mark is not Mark.PROVED:
            return self
        return replace(self, mark=Mark.BOUNDED, reason=f"{self.reason}, {what}")


@dataclass(frozen=True)
class Certificate:
    """What :func:`certify` found.

    Attributes
    ----------
    assumptions, conclusions : tuple of Clause
        Those of Theorem 2.
    consistency : tuple of Clause
        Whether result, history and problem belong together: without that nothing follows.
    """

    assumptions: tuple[Clause, ...]
    conclusions: tuple[Clause, ...]
    consistency: tuple[Clause, ...] = ()

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """All of them."""
        return (*self.consistency, *self.assumptions, *self.conclusions)

    @property
    def ok(self) -> bool:
        """Whether nothing is violated."""
        return all(c.mark is not Mark.VIOLATED for c in self.clauses)

    def __getitem__(self, name: str) -> Clause:
        for clause in self.clauses:
            if clause.name == name:
                return clause
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The same as numbers, strings and lists: ready for JSON."""

        def rows(clauses: tuple[Clause, ...]) -> list[dict[str, Any]]:
            return [
                {
                    "name": clause.name,
                    "statement": clause.statement,
                    "mark": clause.mark.value,
                    "reason": clause.reason,
                    "figures": {
                        name: value if math.isfinite(value) else str(value)
                        for name, value in clause.figures.items()
                    },
                }
                for clause in clauses
            ]

        return {
            "theorem": "Theorem 2 (Pedregosa 2016)",
            "ok": self.ok,
            "consistency": rows(self.consistency),
            "assumptions": rows(self.assumptions),
            "conclusions": rows(self.conclusions),
        }

    def __str__(self) -> str:
        lines = ["Theorem 2 (Pedregosa 2016): certificate of this run"]
        for title, clauses in (
            ("The run itself", self.consistency),
            ("Assumptions", self.assumptions),
            ("Conclusions", self.conclusions),
        ):
            lines.append(title)
            for clause in clauses:
                lines.append(f"  [{clause.mark.value:^19}] {clause.statement}")
                shown = ", ".join(f"{n} = {v:.3g}" for n, v in clause.figures.items())
                lines.append(f"  {'':21} {clause.reason}" + (f" ({shown})" if shown else ""))
        return "\n".join(lines)
