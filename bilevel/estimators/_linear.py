"""Linear models: the problem of their regularisation, and the model at the λ found.

With an intercept the columns are centred by their weighted means, and so are the targets of a
regression: the penalty does not see the intercept, so this changes no model, and numbers far from
zero (a year, Unix time) leave what lies beside them its digits. Columns are centred as an operator,
without a copy; a dense matrix with a column whose mean is far beyond its spread is copied, since
there the difference of two products would cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import bilevel
from bilevel.backends import Array, Backend, is_sparse
from bilevel.design import DenseDesign, Design, Standardized
from bilevel.fitting import fit_tightly
from bilevel.inner import linear_model
from bilevel.losses import Huber, Loss, Squared
from bilevel.outer import held_out
from bilevel.problems import weighted_validation

from ._base import BilevelEstimator, total_weight
from ._rows import Rows
from ._splits import Split

#: Losses of t - y: targets and predictions may move together.
_OF_RESIDUALS = (Squared, Huber)

#: A mean so many spreads from zero is subtracted from the matrix itself.
_FAR = 100.0


@dataclass(frozen=True)
class LinearFit:
    """Coefficients (p, *tail), intercepts (*tail), λ, and the loss of a held-out row."""

    coef: Array
    intercept: Array
    lam: Array
    loss: float


@dataclass(frozen=True)
class LinearSearch:
    """Everything that the problem of a linear model is made of."""

    rows: Rows
    loss: Loss
    groups: Any
    fit_intercept: bool
    domain: bilevel.Box

    @property
    def backend(self) -> Backend:
        return self.rows.backend

    def design(self, X: Any) -> Design:
        """These rows, centred where there is an intercept."""
        design = bilevel.as_design(X)
        if self.centre is None:
            return design
        if self._far and isinstance(design, DenseDesign):
            return DenseDesign(design.array - self.centre, self.backend)
        return Standardized(design, self.centre, self.backend.xp.ones_like(self.centre))

    @cached_property
    def _far(self) -> bool:
        """Whether a column's mean is far beyond its spread about it."""
        assert self.centre is not None
        xp, mean = self.backend.xp, self.centre
        shares = self.row_weights / xp.sum(self.row_weights)
        variance = bilevel.as_design(self.rows.X).gram_diag(shares, mean)
        return bool(xp.any(mean * mean > _FAR**2 * variance))

    @cached_property
    def level(self) -> Array | None:
        """The weighted mean of the targets in their own dtype; None where they stay as they are."""
        if not (self.fit_intercept and isinstance(self.loss, _OF_RESIDUALS)):
            return None
        return self.rows.level()

    def placed(self, y: Array) -> Array:
        """Targets less their level, in the dtype of X; labels as they are."""
        if not isinstance(self.loss, _OF_RESIDUALS):
            return y
        moved: Array = replace(self.rows, y=y).placed(self.level).y
        return moved

    @cached_property
    def targets(self) -> Array:
        """Those of all rows."""
        return self.placed(self.rows.y)

    @cached_property
    def centre(self) -> Array | None:
        """The weighted means of the columns, None without an intercept."""
        if not self.fit_intercept:
            return None
        weights = self.row_weights
        return bilevel.as_design(self.rows.X).rmatmul(weights / self.backend.xp.sum(weights))

    @property
    def row_weights(self) -> Array:
        """Shape (n,)."""
        if self.rows.weights is not None:
            return self.rows.weights
        xp = self.backend.xp
        return xp.ones(self.rows.n, dtype=self.rows.X.dtype, device=self.backend.device)

    def on_set(
        self, X_val: Any, y_val: Array, weights: Array | None = None
    ) -> tuple[bilevel.Problem, float]:
        """The problem with held-out rows given apart, and their weight."""
        outer = held_out(
            self.design(X_val),
            self.placed(y_val),
            self.loss,
            sample_weight=weights,
            fit_intercept=self.fit_intercept,
        )
        total = total_weight(weights, X_val.shape[0], self.backend)
        return bilevel.Problem(self.model(), outer, self.domain), total

    def on_splits(self, splits: list[Split]) -> tuple[bilevel.Problem, float]:
        """The problem of K splits, and the weight of all held-out rows."""
        if len(splits) == 1:
            return self._on_one(splits[0])
        backend, xp = self.backend, self.backend.xp
        train, held = (
            xp.stack([self._where(rows) for rows in part], axis=1)
            for part in ([s.train for s in splits], [s.held for s in splits])
        )
        (total,) = backend.scalars(xp.sum(held))
        y, targets = self.targets, self._n_targets
        if targets is not None:  # columns: all targets of split 1, of split 2, ...
            y = xp.concat([y for _ in splits], axis=1)
            train, held = (
                xp.concat([a[:, k : k + 1] for k in range(len(splits)) for _ in range(targets)], 1)
                for a in (train, held)
            )
        problem = weighted_validation(
            self.design(self.rows.X),
            y,
            self.loss,
            train,
            held,
            groups=self.groups,
            fit_intercept=self.fit_intercept,
            domain=self.domain,
        )
        return problem, total

    @property
    def _n_targets(self) -> int | None:
        """T of targets (n, T); None where there is no such axis."""
        return self.rows.y.shape[1] if self.rows.y.ndim > 1 + len(self.loss.output_shape) else None

    def _where(self, rows: Any) -> Array:
        """The weights of these rows, 0 elsewhere; a row that is named twice counts twice."""
        times = np.bincount(rows, minlength=self.rows.n)
        return self.backend.asarray(times, dtype=self.rows.X.dtype) * self.row_weights

    def _on_one(self, split: Split) -> tuple[bilevel.Problem, float]:
        """One split: the rows themselves, not weights, so that a pass is no longer than needed."""
        backend, xp = self.backend, self.backend.xp
        design, weights = self.design(self.rows.X), self.rows.weights

        def part(index: Any) -> tuple[Design, Array, Array | None]:
            numbers = backend.asarray(index)
            y = xp.take(self.targets, numbers, axis=0)
            s = None if weights is None else xp.take(weights, numbers, axis=0)
            return design.rows(index), y, s

        X, y, s = part(split.train)
        X_val, y_val, s_val = part(split.held)
        inner = linear_model(
            X,
            y,
            self.loss,
            groups=self.groups,
            sample_weight=s,
            fit_intercept=self.fit_intercept,
        )
        outer = held_out(
            X_val, y_val, self.loss, sample_weight=s_val, fit_intercept=self.fit_intercept
        )
        total = total_weight(s_val, len(split.held), backend)
        return bilevel.Problem(inner, outer, self.domain), total

    def model(self) -> Any:
        """The model of all rows."""
        return linear_model(
            self.design(self.rows.X),
            self.targets,
            self.loss,
            groups=self.groups,
            sample_weight=self.rows.weights,
            fit_intercept=self.fit_intercept,
        )

    def fit(self, result: bilevel.Result, total: float) -> LinearFit:
        """Fit all rows at the λ found, from the mean of the models of the splits."""
        xp, model = self.backend.xp, self.model()
        x0 = result.x
        if tuple(x0.shape) != model.x_shape:
            size = (*x0.shape[: 1 + len(self.loss.output_shape)], -1, self._n_targets or 1)
            x0 = xp.reshape(xp.mean(xp.reshape(x0, size), axis=-2), model.x_shape)
        x = fit_tightly(model, result.lam, x0)
        if self.centre is None:
            return LinearFit(x, xp.zeros_like(x[0, ...]), result.lam, result.fun / total)
        coef = x[:-1, ...]
        return LinearFit(coef, self._intercept(coef, x[-1, ...]), result.lam, result.fun / total)

    def _intercept(self, coef: Array, last: Array) -> Array:
        """That of rows and targets as they were given, summed in the dtype of the targets."""
        xp, level = self.backend.xp, self.level
        assert self.centre is not None
        if level is None:
            return last - xp.tensordot(self.centre, coef, axes=1)
        shift = xp.tensordot(*(xp.astype(a, level.dtype) for a in (self.centre, coef)), axes=1)
        found = level + (xp.astype(last, level.dtype) - shift)
        several = found.ndim > 0 or self.backend.name != "numpy"  # else a float is made of it
        return xp.astype(found, coef.dtype) if several else found


def predictions(X: Any, coef: Array, intercept: Any, backend: Backend) -> Array:
    """X coef + intercept, in the finer precision of X and the model: some libraries mix none."""
    if X.dtype != coef.dtype and not is_sparse(X):
        dtype = backend.xp.result_type(X.dtype, coef.dtype)
        X, coef = (backend.xp.astype(a, dtype, copy=False) for a in (X, coef))
    return bilevel.as_design(X).matmul(coef) + intercept


def search_linear(
    estimator: BilevelEstimator,
    search: LinearSearch,
    lam0: float,
    *,
    groups: Any,
    encode: Any,
    labels: Array | None = None,
) -> LinearFit:
    """Choose λ as ``cv`` says, and fit all rows with it.

    Parameters
    ----------
    groups : array, shape (n,), or None
        For a splitter, which keeps the rows of a group together.
    encode : callable
        Brings the y_val of ``cv`` to the form of ``search.rows.y``.
    labels : array of int, shape (n,), optional
        Class numbers, for folds that have their share of each.
    """
    splits = estimator._splits(search.rows, groups, labels)
    if splits is None:
        problem, total = search.on_set(*estimator._validation_set(search.rows, encode))
    else:
        problem, total = search.on_splits(splits)
    return search.fit(estimator._search(problem, lam0), total)
