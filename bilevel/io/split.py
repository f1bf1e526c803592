"""Held-out rows taken from the training rows."""

from __future__ import annotations

import numpy as np

from bilevel.backends import is_number

from ._table import BadFileError, Table


def split(
    table: Table, fraction: float, seed: int, *, what: str = "held-out"
) -> tuple[Table, Table]:
    """Split the rows by a random permutation: its first part stays, its last is taken away.

    With ``fraction=0.5`` the first half of the permutation trains and the second half is held
    out.

    Parameters
    ----------
    table : Table
        n rows.
    fraction : float
        The part that is taken away, between 0 and 1; round(fraction · n) rows.
    seed : int
        Seed of the permutation, ``numpy.random.default_rng(seed).permutation(n)``.
    what : str
        How errors call the rows that are taken away.

    Returns
    -------
    kept, taken : Table

    Examples
    --------
    >>> table = Table(np.arange(4.0)[:, None], np.array([0, 1, 0, 1]), "four rows")
    >>> kept, taken = split(table, 0.5, seed=0)
    >>> kept.X[:, 0], taken.X[:, 0]
    (array([2., 0.]), array([1., 3.]))
    """
    if not is_number(fraction) or not 0 < fraction < 1:
        raise ValueError(f"fraction must be a number between 0 and 1, got {fraction!r}.")
    n = table.shape[0]
    n_taken = round(fraction * n)
    if not 0 < n_taken < n:
        raise BadFileError(
            table.source,
            f"its {n} rows cannot be split into {n - n_taken} for training and {n_taken} {what}",
            "Give more rows, or another fraction.",
        )
    order = np.random.default_rng(seed).permutation(n)
    return table.rows(order[: n - n_taken]), table.rows(order[n - n_taken :])
