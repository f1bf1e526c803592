"""Minibatches of a linear model: stand-ins for h whose gradients average to that of h."""

from __future__ import annotations

from ..backends import deal_batches, described
from .linear import LinearModel


def minibatches(model: LinearModel, n_batches: int, seed: int = 0) -> tuple[LinearModel, ...]:
    """Split the rows at random into batches, each with its losses scaled up to all rows.

    Batch b has the objective (n_batches) Σ_{i in b} s_i ℓ_i + r, so that the mean over the
    batches is h. Its passes count as its share of those of the model.

    Parameters
    ----------
    model : LinearModel
        The model of all rows.
    n_batches : int
        At least 1, at most the number of rows.
    seed : int
        Of the split.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from bilevel.losses import Squared
    >>> h = bilevel.inner.linear_model(np.eye(4), np.ones(4), Squared())
    >>> x, lam = np.zeros(4), np.zeros(1)
    >>> sum(b.at(x, lam).grad for b in minibatches(h, 2)) / 2
    array([-1., -1., -1., -1.])
    """
    if not isinstance(model, LinearModel):
        raise TypeError(f"model must be a LinearModel, got {described(model)}.")
    n = model.design.shape[0]
    return tuple(model.rows(index, factor=n_batches) for index in deal_batches(n, n_batches, seed))
