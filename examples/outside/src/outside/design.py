"""A design: rows in several parts, as they come from several files."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from bilevel import as_design
from bilevel.backends import check_rows
from bilevel.design import Design, Passes


class Sharded:
    """X, part below part."""

    def __init__(self, parts: Iterable[Any]) -> None:
        self.parts = [as_design(part, name="a part") for part in parts]
        self.starts = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        self.passes = Passes()
        first = self.parts[0]
        self.backend, self.dtype, self.columns_per_pass = (
            first.backend,
            first.dtype,
            first.columns_per_pass,
        )
        self.shape = (int(self.starts[-1]), first.shape[1])
        self.entries = sum(part.entries for part in self.parts)
        self.centred_rounding = max(part.centred_rounding for part in self.parts)
        # Optional, for proofs: sums of so many products of entries, in the precision of X.
        self.longest_row = first.shape[1]

    def matmul(self, v: Any) -> Any:
        self.passes.count_forward(v)
        return self.backend.xp.concat([part.matmul(v) for part in self.parts])

    def rmatmul(self, r: Any) -> Any:
        self.passes.count_backward(r)
        return sum(part.rmatmul(rows) for part, rows in self._split(r))

    def gram_diag(self, d: Any, centre: Any = None) -> Any:
        self.passes.count_backward(d)
        return sum(part.gram_diag(rows, centre) for part, rows in self._split(d))

    def square_matmul(self, v: Any, centre: Any = None) -> Any:
        self.passes.count_forward(v)
        return self.backend.xp.concat([part.square_matmul(v, centre) for part in self.parts])

    def rows(self, index: Any) -> "Sharded":
        """What follows each other in a part stays a part."""
        index = check_rows(index, self.shape[0])
        owner = np.searchsorted(self.starts, index, side="right") - 1
        cuts = np.flatnonzero(np.diff(owner)) + 1
        runs = zip(np.split(owner, cuts), np.split(index, cuts), strict=True)
        return Sharded(self.parts[of[0]].rows(run - self.starts[of[0]]) for of, run in runs)

    def _split(self, r: Any) -> Iterator[tuple[Design, Any]]:
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            yield part, r[int(start) : int(start) + part.shape[0], ...]
