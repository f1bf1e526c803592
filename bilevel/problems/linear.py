"""Linear models whose hyperparameters are chosen on rows that were held out."""

from __future__ import annotations

from typing import Any

from ..backends import Array
from ..domains import Box, Domain
from ..inner import linear_model
from ..losses import Logistic, Loss
from ..outer import held_out
from ..problem import Problem


def logistic_regression(
    X: Any,
    y: Array,
    X_val: Any,
    y_val: Array,
    *,
    groups: Any = None,
    fit_intercept: bool = False,
    domain: Domain | None = None,
) -> Problem:
    """The ℓ2 regularisation of a logistic regression, chosen on held-out rows.

    h(x, λ) = Σ log(1 + e^(-y_i a_iᵀ x)) + ½ Σ_j e^{λ_g(j)} x_j², and g the sum of the same loss
    over the held-out rows (Pedregosa 2016, section 4).

    Parameters
    ----------
    X, X_val : array, sparse matrix or Design, shape (n, p) and (n_val, p)
        Features of the training and of the held-out rows, float32 or float64, of any library.
    y, y_val : array, shape (n,) and (n_val,)
        Labels, -1 and +1.
    groups : None, array of integers of shape (p,), or "each"
        One λ for all coefficients, one for each group of them, or one for each.
    fit_intercept : bool
        Append an intercept without penalty, the last of x.
    domain : Domain, optional
        Box(-12, 12) when omitted.

    Returns
    -------
    Problem

    Raises
    ------
    ValueError, TypeError
        If the arrays do not fit each other; the message names them.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> bilevel.logistic_regression(X, y, X, y).inner.x_shape
    (1,)
    """
    return on_held_out_rows(
        X, y, X_val, y_val, Logistic(), groups=groups, fit_intercept=fit_intercept, domain=domain
    )


def on_held_out_rows(
    X: Any,
    y: Array,
    X_val: Any,
    y_val: Array,
    loss: Loss,
    *,
    groups: Any = None,
    fit_intercept: bool = False,
    domain: Domain | None = None,
) -> Problem:
    """The same of any loss, the labels as it takes them."""
    inner = linear_model(X, y, loss, groups=groups, fit_intercept=fit_intercept)
    outer = held_out(
        X_val, y_val, loss, fit_intercept=fit_intercept, X_name="X_val", y_name="y_val"
    )
    return Problem(inner, outer, Box() if domain is None else domain)
