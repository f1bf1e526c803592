"""K-fold cross-validation as one batched problem.

The K training problems share one X: fold k is a column of row weights, 0 where the row is held
out and 1 elsewhere, and x has a column for each fold. One pass over the data then carries K
right-hand sides. The criterion weights the same rows the other way round:

    g(x, λ) = Σ_k Σ_{i in fold k} ℓ(y_i, a_iᵀ x_k)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .backends import Array, Backend
from .design import as_design, recounted
from .domains import Box, Domain
from .inner import Penalty, linear_model
from .losses import Loss
from .outer import held_out
from .problem import Problem


def assign_folds(n: int, n_folds: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """Deal n rows to folds at random, as evenly as possible.

    Returns
    -------
    array of integers, shape (n,), on the host
        The fold 0, ..., K-1 that holds each row out.

    Examples
    --------
    >>> np.bincount(assign_folds(7, 3)).tolist()
    [3, 2, 2]
    """
    if not 2 <= n_folds <= n:
        raise ValueError(f"n_folds must be between 2 and the number of rows {n}, got {n_folds}.")
    return np.random.default_rng(seed).permutation(np.arange(n) % n_folds)


def fold_weights(folds: npt.ArrayLike, n: int, dtype: Any, backend: Backend) -> tuple[Array, Array]:
    """Return the training weights and the held-out weights of each fold, (n, K) each.

    Raises
    ------
    ValueError
        If ``folds`` does not give each row one of 0, ..., K-1, each used, K ≥ 2.
    """
    labels = np.asarray(folds)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"folds must be integers of shape ({n},), got {labels.dtype} of shape {labels.shape}."
        )
    used = np.unique(labels)
    if len(used) < 2 or not np.array_equal(used, np.arange(len(used))):
        raise ValueError(f"folds must use each of 0, ..., K-1, K ≥ 2, got {used[:10].tolist()}.")
    held = (labels[:, None] == used[None, :]).astype(np.float32)
    weights = backend.asarray(held, dtype=dtype)
    return 1 - weights, weights


def cross_validation(
    X: Any,
    y: Array,
    loss: Loss,
    *,
    folds: int | npt.ArrayLike = 5,
    seed: int = 0,
    groups: Any = None,
    penalty: Penalty | None = None,
    fit_intercept: bool = False,
    domain: Domain | None = None,
) -> Problem:
    """Choose hyperparameters of a linear model by K-fold cross-validation.

    Parameters
    ----------
    X : array, sparse matrix or Design, shape (n, p)
        Features, float32 or float64, of any library.
    y : array, shape (n,)
        Labels, as the loss wants them.
    loss : Loss
        The loss of training and of held-out rows.
    folds : int or array of integers, shape (n,)
        K folds drawn at random, or the fold that holds each row out.
    seed : int
        Of the draw.
    groups, penalty, fit_intercept
        As in :func:`bilevel.inner.linear_model`.
    domain : Domain, optional
        Box(-12, 12) when omitted.

    Returns
    -------
    Problem
        x has shape (p, K), or (p, c, K) for a loss of c predictions a row.

    Examples
    --------
    >>> from bilevel.losses import Squared
    >>> X, y = np.arange(6.0)[:, None], np.arange(6.0)
    >>> problem = cross_validation(X, y, Squared(), folds=3)
    >>> problem.inner.x_shape
    (1, 3)
    """
    design = as_design(X)
    n, backend = design.shape[0], design.backend
    labels = assign_folds(n, folds, seed) if isinstance(folds, int) else folds
    train, held = fold_weights(labels, n, design.dtype, backend)
    inner = linear_model(
        design,
        y,
        loss,
        groups=groups,
        penalty=penalty,
        sample_weight=train,
        fit_intercept=fit_intercept,
    )
    outer = held_out(recounted(design), y, loss, sample_weight=held, fit_intercept=fit_intercept)
    return Problem(inner, outer, domain or Box())
