"""A run between two iterations: where it stands, and what it remembers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from .backends import Array, Backend
from .linalg import norm
from .record import Costs, Record

if TYPE_CHECKING:
    from .methods import State


class History(Sequence[Record]):
    """Records that are only ever added to: one list, which snapshots of a run share.

    A history is as long as it was when it was made, whatever is appended later; so an iteration
    copies nothing.

    Examples
    --------
    >>> first = History().and_then(Record(k=1))
    >>> second = first.and_then(Record(k=2))
    >>> len(first), len(second), second[-1].k
    (1, 2, 2)
    """

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._records, self._length = list(records), len(records)

    def and_then(self, record: Record) -> History:
        """The history with one record more."""
        shared = self._records if len(self._records) == self._length else self._records[: len(self)]
        shared.append(record)
        longer = History()
        longer._records, longer._length = shared, self._length + 1
        return longer

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return self._records[: self._length][index]
        return self._records[range(self._length)[index]]

    def __iter__(self) -> Iterator[Record]:
        return (self._records[i] for i in range(self._length))


@dataclass(frozen=True)
class Snapshot:
    """A run after some iteration: what a checkpoint holds.

    Attributes
    ----------
    state : State
        From which the method goes on.
    costs : Costs
        What the run has spent.
    last, best : Record or None
        The last record, and that of which most is known to be little; None before the first.
    best_x : array or None
        The model of the best.
    history : History
        The records that are kept.
    """

    state: State
    costs: Costs = Costs()
    last: Record | None = None
    best: Record | None = None
    best_x: Array | None = None
    history: History = field(default_factory=History)

    @property
    def n_iter(self) -> int:
        """Iterations until now."""
        return 0 if self.last is None else self.last.k

    def followed(
        self, backend: Backend, state: State, record: Record, x: Array, *, every: int = 1
    ) -> Snapshot:
        """The run after one more record, whose model is x; each ``every``-th is kept, 0: none.

        Of iterates of which nothing is known the later one is, but for a value that is no number:
        that of a loose fit may be below f. A second look at the λ of the best one has the last word
        on f there, if it knows f better.
        """
        best = self.best
        better = best is None or _ranks(record, best) or supersedes(backend, record, best)
        kept = every > 0 and (record.k - 1) % every == 0
        return Snapshot(
            state,
            record.costs,
            record,
            record if better else best,
            x if better else self.best_x,
            self.history.and_then(record) if kept else self.history,
        )

    def closed(self) -> Snapshot:
        """The run whose history ends with the last record, whichever are kept."""
        if self.last is None or (len(self.history) and self.history[-1].k == self.last.k):
            return self
        history = self.history.and_then(self.last)
        return Snapshot(self.state, self.costs, self.last, self.best, self.best_x, history)


def _ranks(record: Record, best: Record) -> bool:
    """Whether f is known to be no larger at a later record than at the best, or at neither."""
    if record.at_most < best.at_most:
        return True
    no_number = math.isfinite(best.value) and not math.isfinite(record.value)
    return record.at_most == best.at_most and not no_number


def supersedes(backend: Backend, record: Record, before: Record) -> bool:
    """Whether the record is of the same λ as one before, with an f that is known better."""
    if not record.at_most - record.at_least < before.at_most - before.at_least:
        return False
    (apart,) = backend.scalars(norm(record.lam - before.lam, backend))
    return apart == 0
