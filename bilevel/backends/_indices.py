"""Row and group numbers: integers on the host, checked at the door."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._protocol import HostIndex


def check_rows(index: npt.ArrayLike, n: int) -> HostIndex:
    """Refuse row numbers that are no integers in 0, ..., n-1."""
    found = np.asarray(index)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"index must hold integers along one axis, got dtype {found.dtype} and shape "
            f"{found.shape}; np.flatnonzero turns a mask into numbers."
        )
    if found.size and (found.min() < 0 or found.max() >= n):
        raise ValueError(
            f"index must lie in 0, ..., {n - 1}, got numbers from {found.min()} to {found.max()}."
        )
    return found.astype(np.intp, copy=False)


def check_groups(
    groups: npt.ArrayLike, *shapes: tuple[int, ...], name: str = "groups"
) -> tuple[HostIndex, int]:
    """Return the group number of each item, and how many groups there are.

    Raises
    ------
    ValueError
        If they are not of one of these shapes, or do not use each of 0, ..., m-1.
    TypeError
        If they are no integers.

    Examples
    --------
    >>> check_groups([0, 1, 0], (3,))
    (array([0, 1, 0]), 2)
    """
    labels = np.asarray(groups)
    if labels.shape not in shapes:
        raise ValueError(f"{name} must have shape {shapes[0]}, got {labels.shape}.")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {labels.dtype}.")
    used = np.unique(labels)
    if not np.array_equal(used, np.arange(len(used))):
        raise ValueError(
            f"{name} must use each of 0, ..., m-1, got the numbers {used[:10].tolist()}."
        )
    return labels.astype(np.intp), len(used)


def deal(n: int, n_groups: int, seed: int) -> HostIndex:
    """Deal n items to groups 0, 1, ... at random, as evenly as possible: the group of each.

    Examples
    --------
    >>> np.bincount(deal(7, 3, seed=0)).tolist()
    [3, 2, 2]
    """
    return np.random.default_rng(seed).permutation(np.arange(n) % n_groups)


def shuffled_parts(n: int, n_parts: int, seed: int) -> list[HostIndex]:
    """Split 0, ..., n-1, in random order, into parts of nearly one length.

    Examples
    --------
    >>> [len(part) for part in shuffled_parts(7, 3, seed=0)]
    [3, 2, 2]
    """
    return np.array_split(np.random.default_rng(seed).permutation(n), n_parts)
