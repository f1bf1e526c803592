"""Ridge regression that chooses alpha by the hypergradient."""

from __future__ import annotations

from typing import Any

from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

import bilevel
from bilevel.backends import Array
from bilevel.losses import Squared

from ._base import (
    BilevelEstimator,
    fitted_whole,
    log_bounds,
    number,
    positive,
    start_within,
    within,
)
from ._linear import LinearSearch, predictions, search_linear
from ._rows import check_rows, check_targets


class BilevelRidge(MultiOutputMixin, RegressorMixin, BilevelEstimator):
    """Ridge regression whose penalty is found by its hypergradient.

    Minimises Σ_i s_i (y_i - a_iᵀ w - b)² + alpha ‖w‖² at the alpha with the least squared error
    on held-out rows. It stands where :class:`sklearn.linear_model.RidgeCV` does, without a grid.

    Parameters
    ----------
    alpha : float
        Where the search starts.
    alpha_bounds : pair of float
        Where alpha stays.
    groups : None, array of int of shape (n_features,), or "each"
        One alpha for all features, one for each group of them, or one for each feature.
    fit_intercept, cv, method, max_iter, tol, certify, random_state
        As in :class:`BilevelLogisticRegression`; folds are cut in the order of the rows.

    Attributes
    ----------
    alpha_ : float or array of shape (m,)
        The alpha found, common to all targets; one for each group where there are groups.
    coef_ : array, shape (n_features,) or (n_targets, n_features)
    intercept_ : float or array of shape (n_targets,)
    best_score_ : float
        Minus the mean squared error of a held-out row (``neg_mean_squared_error``, of several
        targets the mean) at ``alpha_``.
    at_bound_, n_iter_, n_passes_, path_, certificate_, n_features_in_, feature_names_in_
        As in :class:`BilevelLogisticRegression`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from bilevel.estimators import BilevelRidge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = BilevelRidge().fit(X, y)
    >>> model.coef_.shape, model.score(X, y) > 0.5
    ((10,), True)
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        alpha_bounds: tuple[float, float] = (1e-5, 1e5),
        groups: Any = None,
        fit_intercept: bool = True,
        cv: Any = 5,
        method: Any = "path",
        max_iter: int = 50,
        tol: float | None = None,
        certify: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.alpha_bounds = alpha_bounds
        self.groups = groups
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.method = method
        self.max_iter = max_iter
        self.tol = tol
        self.certify = certify
        self.random_state = random_state

    @fitted_whole
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> BilevelRidge:
        """Choose alpha and fit all rows with it.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (n, n_features)
        y : array, shape (n,) or (n, n_targets)
        sample_weight : array, shape (n,), optional
            Weights of the squared errors, of training and held-out rows alike.
        groups : array, shape (n,), optional
            For a splitter that keeps the rows of a group together, as GroupKFold: the group of
            each row. Refused where ``cv`` does not look at them.

        Returns
        -------
        self
        """
        low, high = log_bounds(self.alpha_bounds, "alpha_bounds")
        lam0 = start_within(positive(self.alpha, "alpha"), (low, high), "alpha")
        rows = check_rows(self, X, y, sample_weight, sparse=True, classifier=False)
        search = LinearSearch(
            rows=rows,
            loss=Squared(),
            groups=self.groups,
            fit_intercept=self.fit_intercept,
            domain=bilevel.Box(low, high),
        )
        found = search_linear(
            self,
            search,
            lam0,
            groups=groups,
            encode=lambda y_val: check_targets(y_val, rows.X.dtype, rows.backend, "y_val"),
        )
        alpha = rows.backend.xp.exp(found.lam)
        alpha = number(alpha[0], rows.backend) if self.groups is None else alpha
        self.alpha_ = within(alpha, self.alpha_bounds, rows.backend)
        several = found.coef.ndim == 2
        self.coef_ = found.coef.T if several else found.coef
        self.intercept_ = found.intercept if several else number(found.intercept, rows.backend)
        self.best_score_ = -2 * found.loss / (found.coef.shape[1] if several else 1)
        return self

    def predict(self, X: Any) -> Array:
        """Predictions, shape (n,) or (n, n_targets)."""
        check_is_fitted(self)
        X, backend = self._check_new(X, self.coef_, "predict")
        return predictions(X, self._columns(), self.intercept_, backend)

    def _columns(self) -> Array:
        """Coefficients as X multiplies them, (n_features,) or (n_features, n_targets)."""
        return self.coef_ if self.coef_.ndim == 1 else self.coef_.T
