"""Which rows train and which validate: ``cv`` as the estimators take it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import check_random_state

from bilevel import get_backend
from bilevel.backends import described, library_of, refuse_matrix_classes

Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Row numbers on the host."""

    train: Index
    held: Index


def is_validation_set(cv: Any) -> bool:
    """Whether ``cv`` is a pair (X_val, y_val), and not an iterable of splits."""
    return isinstance(cv, tuple) and len(cv) == 2 and not any(isinstance(c, tuple) for c in cv)


def is_splitter(cv: Any) -> bool:
    """Whether ``cv`` is one of scikit-learn's, or of their kind."""
    return hasattr(cv, "split") and not isinstance(cv, (str, bytes))


def check_groups(cv: Any, groups: Any, n: int) -> Any:
    """Return the group of each row for the splitter, on the host; None where there are none.

    Raises
    ------
    ValueError
        If ``cv`` would not look at them: the rows of a group were then on both sides.
    """
    if groups is None:
        return None
    refuse_matrix_classes(groups, "groups")
    if not is_splitter(cv):
        raise ValueError(
            "groups are for a splitter that keeps them together, such as cv=GroupKFold(): cv="
            f"{described(cv)} does not look at them."
        )
    if library_of(groups) not in (None, "numpy"):
        groups = get_backend(groups).to_numpy(groups)
    if np.ndim(groups) != 1 or len(groups) != n:
        raise ValueError(
            f"groups must have shape ({n},), the group of each row, got {described(groups)}."
        )
    return groups


def split_rows(
    cv: Any,
    present: Index,
    labels: npt.NDArray[Any] | None,
    n: int,
    random_state: Any,
    groups: Any = None,
) -> list[Split]:
    """Return the splits that ``cv`` asks for.

    Parameters
    ----------
    cv : int, float, splitter or iterable of (train, held)
        Folds, a fraction to hold out, or scikit-learn's ways to say more.
    present : array of int
        The rows of positive weight: the others neither train nor validate.
    labels : array of int, shape (n,), or None
        Class numbers; each fold and the held-out part then have their share of each class, and
        a class of one row is never held out.
    n : int
        Rows.
    random_state : None, int or RandomState
        For the draw of a fraction.
    groups : array, shape (n,), optional
        For the splitter, of :func:`check_groups`.
    """
    if isinstance(cv, bool) or (isinstance(cv, (int, float)) and not math.isfinite(cv)):
        raise ValueError(f"cv must be folds, a fraction or (X_val, y_val), got {cv!r}.")
    if isinstance(cv, float):
        if not 0 < cv < 1:
            raise ValueError(f"cv as a fraction must lie between 0 and 1, got {cv!r}.")
        splits = [_fraction(cv, present, labels, random_state)]
    elif isinstance(cv, (int, np.integer)):
        splits = _folds(int(cv), present, labels)
    else:
        given = cv
        if is_splitter(cv) or not isinstance(cv, Iterable):  # check_cv refuses text
            splitter = check_cv(cv, labels, classifier=labels is not None)
            given = splitter.split(np.zeros((n, 1)), labels, groups)
        splits = [_given(k, pair, present, n) for k, pair in enumerate(given)]
    if not splits:
        raise ValueError(
            f"cv must hold one split (train, held) or more, got none: {cv!r} is empty, or an "
            "iterator that is used up."
        )
    for k, split in enumerate(splits):
        _check(k, split, present, labels)
    return splits


def _given(k: int, pair: Any, present: Index, n: int) -> Split:
    """A split as a user's iterable has it."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"Split {k} of cv must be a pair (train, held) of row numbers, got {described(pair)}; "
            "held-out rows that are given apart are a tuple (X_val, y_val)."
        )
    return Split(*(_numbers(f"Split {k} of cv", rows, present, n) for rows in pair))


def _numbers(name: str, rows: Any, present: Index, n: int) -> Index:
    """Row numbers, of a mask too, without the rows of weight 0."""
    refuse_matrix_classes(rows, name)
    try:
        given = np.asarray(rows, dtype=None if len(rows) else np.intp)
        numbers: Index = np.arange(n)[given]
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold row numbers below {n}, or a mask of {n} rows, got "
            f"{described(rows)} ({error})."
        ) from error
    if given.dtype != bool and len(given) == n > 2 and np.isin(given, (0, 1)).all():
        raise ValueError(
            f"{name} holds rows 0 and 1 alone, {n} times: a mask must be of dtype bool, got "
            f"{described(rows)}; take (... == 1) of it."
        )
    return numbers[np.isin(numbers, present)]


def _fraction(
    share: float, present: Index, labels: npt.NDArray[Any] | None, random_state: Any
) -> Split:
    order = check_random_state(random_state).permutation(present)
    groups = [order] if labels is None else [order[labels[order] == c] for c in np.unique(labels)]
    held = np.concatenate([rows[: min(round(share * len(rows)), len(rows) - 1)] for rows in groups])
    if len(held) == 0:
        held = max(groups, key=len)[:1]
    return Split(np.setdiff1d(present, held), np.sort(held))


def _folds(n_folds: int, present: Index, labels: npt.NDArray[Any] | None) -> list[Split]:
    if not 2 <= n_folds <= len(present):
        raise ValueError(
            f"cv must be 2 folds or more, and no more than the n_samples={len(present)} rows of "
            f"positive weight, got {n_folds}."
        )
    if labels is None:
        pairs = KFold(n_folds).split(present)
        return [Split(present[train], present[held]) for train, held in pairs]
    counts = np.bincount(labels[present])
    alone = present[counts[labels[present]] == 1]
    rest = np.setdiff1d(present, alone)
    if len(rest) < n_folds or n_folds > counts.max():
        raise ValueError(
            f"cv={n_folds} folds cannot each have a row of a class: the largest class has "
            f"{counts.max()} rows."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # dealt with above
        pairs = list(StratifiedKFold(n_folds).split(labels[rest], labels[rest]))
    return [
        Split(np.sort(np.concatenate([rest[train], alone])), rest[held]) for train, held in pairs
    ]


def _check(k: int, split: Split, present: Index, labels: npt.NDArray[Any] | None) -> None:
    if len(split.train) == 0 or len(split.held) == 0:
        raise ValueError(
            f"Split {k} of cv has {len(split.train)} training and {len(split.held)} held-out rows "
            f"of positive weight, of n_samples={len(present)}: both must be 1 or more."
        )
    if labels is None:
        return
    missing = np.setdiff1d(labels[present], labels[split.train])
    if len(missing):
        raise ValueError(
            f"Split {k} of cv has no training row of {len(missing)} classes, the first is class "
            f"number {missing[0]}: a model of them cannot be fitted."
        )
