"""What an experiment is: a claim, a run, a drawing and a verdict.

``run`` returns plain data alone (numbers, text, lists of rows), so that a figure can be redrawn
and a verdict given again from the files, without a new run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bilevel import get_backend
from bilevel.backends import Backend

#: A row of a table: column name to number, text or None.
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the command line chooses.

    Attributes
    ----------
    quick : bool
        Fewer seeds, iterations and rows: minutes, not hours.
    backend_name : str
        Array library that the methods run on.
    seed : int
        Seed of the first repetition.
    tiny : bool
        Rows and iterations by the dozen, to test that the parts fit together. No claim can be
        judged on such a run.
    """

    quick: bool = False
    backend_name: str = "numpy"
    seed: int = 0
    tiny: bool = False

    @cached_property
    def backend(self) -> Backend:
        return get_backend(self.backend_name)

    def pick(self, full: Any, quick: Any, tiny: Any) -> Any:
        """Return the value that fits the length of this run."""
        return tiny if self.tiny else quick if self.quick else full


@dataclass(frozen=True)
class Results:
    """Plain data of one run.

    Attributes
    ----------
    tables : mapping of str to list of rows
        Each becomes a CSV file.
    facts : mapping of str to number, text or list
        What is true of the whole run.
    notes : tuple of str
        What a reader must know before the figures; a stand-in data set stands here first.
    """

    tables: Mapping[str, list[Row]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One checkable statement, what we measured, and whether it holds.

    ``claimed`` is False for what we add to the paper: it does not count for its verdict.
    """

    statement: str
    measured: str
    holds: bool
    claimed: bool = True


@dataclass(frozen=True)
class Verdict:
    """All the checks of an experiment."""

    checks: tuple[Check, ...]

    @property
    def outcome(self) -> str:
        """'reproduced' where every claim holds, 'not' where none does, else 'partly'."""
        held = [check.holds for check in self.checks if check.claimed]
        return "reproduced" if all(held) else "partly" if any(held) else "not"


@dataclass(frozen=True)
class Experiment:
    """One experiment of one paper.

    Attributes
    ----------
    name : str
        What the command line calls it.
    title, paper : str
        Heading, and the paper with the place in it.
    claims : str
        What the paper says.
    setting : str
        What we do, and where it departs from the paper.
    run, draw, verdict : callable
        Settings to results; results to figures by name; results to a verdict.
    """

    name: str
    title: str
    paper: str
    claims: str
    setting: str
    run: Callable[[Settings], Results]
    draw: Callable[[Results], dict[str, Any]]
    verdict: Callable[[Results], Verdict]
