"""K-fold cross-validation as one batched problem.

The K training problems share one X: fold k is a column of row weights, 0 where the row is held
out and 1 elsewhere, and x has a column for each fold. One pass over the data then carries K
right-hand sides. The criterion weights the same rows the other way round:

    g(x, λ) = Σ_k Σ_{i in fold k} ℓ(y_i, a_iᵀ x_k)
"""

from __future__ import annotations

from typing import Any

from ..backends import Array, deal_folds, fold_indicators, python_number
from ..design import as_design, recounted
from ..domains import Box, Domain
from ..inner import Penalty, linear_model
from ..losses import Loss
from ..outer import held_out
from ..problem import Problem


def cross_validation(
    X: Any,
    y: Array,
    loss: Loss,
    *,
    folds: Any = 5,
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
    >>> import numpy as np
    >>> from bilevel.losses import Squared
    >>> X, y = np.arange(6.0)[:, None], np.arange(6.0)
    >>> problem = cross_validation(X, y, Squared(), folds=3)
    >>> problem.inner.x_shape
    (1, 3)
    """
    design = as_design(X)
    n, backend = design.shape[0], design.backend
    numbers = folds if python_number(folds) is None else deal_folds(n, folds, seed)
    held = backend.asarray(fold_indicators(numbers, n), dtype=design.dtype)
    return weighted_validation(
        design,
        y,
        loss,
        1 - held,
        held,
        groups=groups,
        penalty=penalty,
        fit_intercept=fit_intercept,
        domain=domain,
    )


def weighted_validation(
    X: Any,
    y: Array,
    loss: Loss,
    train: Array,
    held: Array,
    *,
    groups: Any = None,
    penalty: Penalty | None = None,
    fit_intercept: bool = False,
    domain: Domain | None = None,
) -> Problem:
    """Choose hyperparameters on any K splits of the rows, given by weights.

    Parameters
    ----------
    X, y, loss, groups, penalty, fit_intercept, domain
        As in :func:`cross_validation`; y may also have K columns, a target for each problem.
    train, held : array, shape (n, K)
        The weights with which a row trains problem k and is judged by it; 0 leaves it out.

    Returns
    -------
    Problem

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Squared
    >>> X, y = np.arange(4.0)[:, None], np.arange(4.0)
    >>> train = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> weighted_validation(X, y, Squared(), train, 1 - train).inner.x_shape
    (1, 1)
    """
    design = as_design(X)
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
    return Problem(inner, outer, Box() if domain is None else domain)
