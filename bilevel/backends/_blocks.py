"""Arrays looked through a block at a time, so that no temporary has their size."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ._protocol import Array, Backend

#: Entries of a block (8 MiB in float64).
BLOCK_ENTRIES = 1 << 20


def row_blocks(n: int, row: int) -> Iterator[slice]:
    """Cut n rows of so many entries each into blocks of at most BLOCK_ENTRIES, or of one row.

    Examples
    --------
    >>> list(row_blocks(3, BLOCK_ENTRIES // 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    step = max(1, BLOCK_ENTRIES // max(1, row))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def all_finite(array: Array, backend: Backend) -> bool:
    """Whether an array of one axis or more holds neither NaN nor infinity.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> all_finite(np.array([1.0, np.inf]), bilevel.get_backend("numpy"))
    False
    """
    xp = backend.xp
    fine = [xp.all(xp.isfinite(block)) for block in _blocks(array)]
    return not fine or bool(xp.all(xp.stack(fine)))


def _blocks(array: Array) -> Iterator[Array]:
    n, *rest = array.shape
    row = math.prod(rest)
    if rest and row > BLOCK_ENTRIES:
        for i in range(n):
            yield from _blocks(array[i, ...])
        return
    for rows in row_blocks(n, row):
        yield array[rows, ...]


class Writable:
    """Of a backend whose arrays can be written into: a row takes no new block."""

    def with_row(self, block: Array, i: int, row: Array) -> Array:
        block[i, ...] = row
        return block
