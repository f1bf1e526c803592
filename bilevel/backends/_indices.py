"""Row and group numbers: integers on the host, checked at the door."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arguments import SEED, Whole, described
from ._protocol import HostIndex
from ._registry import get_backend, is_array, refuse_matrix_classes


def check_rows(index: npt.ArrayLike, n: int) -> HostIndex:
    """Refuse row numbers that are no integers in 0, ..., n-1."""
    found = _on_host(index, "index")
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


def check_groups(groups: npt.ArrayLike, shape: tuple[int, ...]) -> tuple[HostIndex, int]:
    """Return the group number of each coefficient, and how many groups there are.

    Raises
    ------
    ValueError
        If ``groups`` is neither of this shape nor of its first axis, or does not use each of
        0, ..., m-1.
    TypeError
        If it does not hold integers.

    Examples
    --------
    >>> check_groups([0, 1, 0], (3,))
    (array([0, 1, 0]), 2)
    """
    labels = _on_host(groups, "groups")
    if labels.shape not in ((shape[0],), shape):
        raise ValueError(f"groups must have shape ({shape[0]},), got {labels.shape}.")
    return _check_numbers(labels, "groups")


def _on_host(numbers: object, name: str) -> npt.NDArray[np.generic]:
    """Integers of any library on the host."""
    refuse_matrix_classes(numbers, name)
    if is_array(numbers):
        host: npt.NDArray[np.generic] = get_backend(numbers).to_numpy(numbers)
        return host
    try:
        return np.asarray(numbers)
    except (TypeError, ValueError) as error:  # ragged
        raise TypeError(f"{name} must hold integers, got {described(numbers)}.") from error


def _check_numbers(labels: npt.NDArray[np.generic], name: str) -> tuple[HostIndex, int]:
    """Refuse what is not integers that use each of 0, ..., m-1; return them and m."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {labels.dtype}.")
    used = np.unique(labels)
    if not np.array_equal(used, np.arange(len(used))):
        raise ValueError(
            f"{name} must use each of 0, ..., m-1, got the numbers {used[:10].tolist()}."
        )
    return labels.astype(np.int64), len(used)


def deal_folds(n: int, n_folds: int, seed: int) -> HostIndex:
    """Deal n rows to folds at random, as evenly as possible: the fold of each row, shape (n,).

    Examples
    --------
    >>> np.bincount(deal_folds(7, 3, seed=0)).tolist()
    [3, 2, 2]
    """
    n_folds = Whole(2)(n_folds, "folds")
    if n_folds > n:
        raise ValueError(f"folds must be between 2 and the number of rows {n}, got {n_folds}.")
    return np.random.default_rng(SEED(seed, "seed")).permutation(np.arange(n) % n_folds)


def fold_indicators(folds: npt.ArrayLike, n: int) -> npt.NDArray[np.float32]:
    """Return 1 where a row is in a fold and 0 elsewhere, shape (n, K).

    Raises
    ------
    ValueError
        If ``folds`` does not give each of n rows one of 0, ..., K-1, each used, K ≥ 2.

    Examples
    --------
    >>> fold_indicators([0, 1, 0], 3)
    array([[1., 0.],
           [0., 1.],
           [1., 0.]], dtype=float32)
    """
    labels = _on_host(folds, "folds")
    if labels.shape != (n,):
        raise ValueError(f"folds must have shape ({n},), a fold for each row, got {labels.shape}.")
    labels, n_folds = _check_numbers(labels, "folds")
    if n_folds < 2:
        raise ValueError("folds must use two numbers or more, got 0 alone.")
    return np.equal(labels[:, None], np.arange(n_folds)).astype(np.float32)


def deal_batches(n: int, n_batches: int, seed: int) -> list[HostIndex]:
    """Split n rows at random into batches of sizes that differ by one at most.

    Examples
    --------
    >>> [len(rows) for rows in deal_batches(7, 3, seed=0)]
    [3, 2, 2]
    """
    n_batches = Whole(1)(n_batches, "n_batches")
    if n_batches > n:
        raise ValueError(f"n_batches must be between 1 and the rows {n}, got {n_batches}.")
    order = np.random.default_rng(SEED(seed, "seed")).permutation(n)
    return [rows.astype(np.intp) for rows in np.array_split(order, n_batches)]
