"""Minibatches of a linear model: stand-ins for h whose gradients average to that of h."""

from __future__ import annotations

from dataclasses import replace

from ..backends import deal_batches, described
from .linear import LinearModel


def minibatches(model: LinearModel, n_batches: int, seed: int = 0) -> tuple[LinearModel, ...]:
    """Split the rows at random into batches, each with its losses scaled up to all rows.

    Batch b has the objective (n_batches) Σ_{i in b} s_i ℓ_i + r, so that the mean over the
    batches is h.

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
    n, backend = model.design.shape[0], model.backend
    xp = backend.xp
    weights = model.sample_weight
    if weights is None:
        shape = (n, *(1,) * len(model.tail))
        weights = xp.ones(shape, dtype=model.dtype, device=backend.device)
    batches = []
    for rows in deal_batches(n, n_batches, seed):
        index = backend.asarray(rows)
        batches.append(
            replace(
                model,
                design=model.design.rows(rows),
                y=xp.take(model.y, index, axis=0),
                sample_weight=n_batches * xp.take(weights, index, axis=0),
                _norms={},
            )
        )
    return tuple(batches)
