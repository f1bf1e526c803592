"""Logistic regression that chooses C by the hypergradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

import bilevel
from bilevel.backends import Array, library_of
from bilevel.linear_probe import log_proba, winners
from bilevel.losses import Logistic, Multinomial

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
from ._rows import check_rows, class_numbers, encode_classes


class BilevelLogisticRegression(ClassifierMixin, BilevelEstimator):
    """Logistic regression with an ℓ2 penalty whose strength is found by its hypergradient.

    Minimises C Σ_i s_i ℓ(y_i, a_iᵀ w + b) + ½ ‖w‖², with the logistic loss of two classes and
    the multinomial one of more, at the C with the least loss on held-out rows. It stands where
    :class:`sklearn.linear_model.LogisticRegressionCV` does, without a grid: C moves along the
    gradient of the held-out loss (Pedregosa 2016).

    Parameters
    ----------
    C : float
        Where the search starts.
    C_bounds : pair of float
        Where C stays.
    groups : None, array of int of shape (n_features,), or "each"
        One C for all features, one for each group of them, or one for each coefficient.
    fit_intercept : bool
        Whether there is a b; it has no penalty.
    cv : int, float, (X_val, y_val), splitter or iterable of splits
        K folds (with their share of each class, in the order of the rows), solved as one batched
        problem; the fraction of rows held out, drawn at random; the held-out rows themselves; or
        what scikit-learn takes otherwise.
    method : str or bilevel.methods.Method
        Of :func:`bilevel.minimize`.
    max_iter : int
        Steps of C at most.
    tol : float, optional
        The search ends where the decrease that is left is below tol times the held-out loss.
    certify : bool
        Whether to make ``certificate_``, which costs two to seven thousand passes over the data
        whatever the search cost: often several times as many.
    random_state : None, int or RandomState
        Of the draw of a fraction.

    Attributes
    ----------
    C_ : float or array of shape (m,)
        The C found; one number for each group where there are groups.
    classes_ : array, shape (n_classes,)
    coef_ : array, shape (1, n_features) or (n_classes, n_features)
    intercept_ : array, shape (1,) or (n_classes,)
    best_score_ : float
        Minus the mean loss of a held-out row (``neg_log_loss``) at ``C_``.
    at_bound_ : bool
        Whether a hyperparameter lies at one of its bounds: the held-out loss may be smaller
        beyond, widen them to see.
    n_iter_ : int
        Steps of C.
    n_passes_ : int
        Passes over the training rows of the search.
    path_ : tuple of bilevel.Record
        The steps.
    certificate_ : bilevel.testing.Certificate
        The conditions of the convergence theorem, each with its evidence; if ``certify``.
    n_features_in_ : int
    feature_names_in_ : array of str
        Where X has names.

    Notes
    -----
    X may be a NumPy array, a SciPy CSR matrix, a data frame, or an array of torch, CuPy, JAX,
    dpnp or array-api-strict: then so are the attributes and all that the methods return. y and
    ``sample_weight`` follow X.

    The held-out loss may have several local minima; the search finds one. A class of one row is
    never held out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from bilevel.estimators import BilevelLogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> model = BilevelLogisticRegression().fit(X, y)
    >>> model.coef_.shape, model.score(X, y) > 0.95
    ((3, 4), True)
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        C_bounds: tuple[float, float] = (1e-5, 1e5),
        groups: Any = None,
        fit_intercept: bool = True,
        cv: Any = 5,
        method: Any = "path",
        max_iter: int = 50,
        tol: float | None = None,
        certify: bool = False,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.C_bounds = C_bounds
        self.groups = groups
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.method = method
        self.max_iter = max_iter
        self.tol = tol
        self.certify = certify
        self.random_state = random_state

    @fitted_whole
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> BilevelLogisticRegression:
        """Choose C and fit all rows with it.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (n, n_features)
        y : array, shape (n,)
            Classes.
        sample_weight : array, shape (n,), optional
            Weights of the losses, of training and held-out rows alike.
        groups : array, shape (n,), optional
            For a splitter that keeps the rows of a group together, as GroupKFold: the group of
            each row. Refused where ``cv`` does not look at them.

        Returns
        -------
        self
        """
        low, high = log_bounds(self.C_bounds, "C_bounds")
        lam0 = -start_within(positive(self.C, "C"), (low, high), "C")
        rows = check_rows(self, X, y, sample_weight, sparse=True, classifier=True)
        backend, xp = rows.backend, rows.backend.xp
        self.classes_, numbers = encode_classes(rows.y, backend)
        self._check_classes(rows, numbers)
        n_classes = self.classes_.shape[0]
        loss = Logistic() if n_classes == 2 else Multinomial(n_classes)

        def encode(numbers: Array) -> Array:
            if n_classes > 2:
                return loss.encode(numbers, backend, rows.X.dtype, "y")
            return xp.astype(2 * numbers - 1, rows.X.dtype)

        search = LinearSearch(
            rows=replace(rows, y=encode(numbers)),
            loss=loss,
            groups=self.groups,
            fit_intercept=self.fit_intercept,
            domain=bilevel.Box(-high, -low),
        )
        found = search_linear(
            self,
            search,
            lam0,
            groups=groups,
            labels=numbers,
            encode=lambda y_val: encode(class_numbers(y_val, self.classes_, backend, "y_val")),
        )
        C = xp.exp(-found.lam)
        C = number(C[0], backend) if self.groups is None else C
        self.C_ = within(C, self.C_bounds, backend)
        self.coef_ = found.coef[None, :] if n_classes == 2 else found.coef.T
        # The multinomial loss does not see a common shift of the intercepts: their mean is 0.
        self.intercept_ = (
            found.intercept[None] if n_classes == 2 else found.intercept - xp.mean(found.intercept)
        )
        self.best_score_ = -found.loss
        return self

    def _check_classes(self, rows: Any, numbers: Array) -> None:
        """A model needs two classes, each with a row of positive weight."""
        import numpy as np

        numbers = rows.backend.to_numpy(numbers)
        if rows.weights is not None:
            numbers = numbers[rows.backend.to_numpy(rows.weights) > 0]
        found, wanted = len(np.unique(numbers)), self.classes_.shape[0]
        if wanted < 2 or found < wanted:
            raise ValueError(
                f"This classifier needs rows of 2 classes or more, each with a positive weight, "
                f"got {wanted} class(es) of which {found} have one."
            )

    def decision_function(self, X: Any) -> Array:
        """Margins, shape (n,) for two classes, (n, n_classes) for more."""
        return self._margins(X, "decision_function")

    def _margins(self, X: Any, method: str) -> Array:
        check_is_fitted(self)
        X, backend = self._check_new(X, self.coef_, method)
        margins = predictions(X, self.coef_.T, self.intercept_, backend)
        return margins[:, 0] if margins.shape[1] == 1 else margins

    def predict(self, X: Any) -> Array:
        """Classes, shape (n,)."""
        margins = self._margins(X, "predict")
        backend, numbers = bilevel.get_backend(margins), winners(margins)
        if library_of(self.classes_) == backend.name:
            return backend.xp.take(self.classes_, numbers, axis=0)
        return self.classes_[backend.to_numpy(numbers)]  # words, on the host

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, shape (n, n_classes)."""
        margins = self._margins(X, "predict_proba")
        return bilevel.get_backend(margins).xp.exp(log_proba(margins))

    def predict_log_proba(self, X: Any) -> Array:
        """Their logarithms."""
        return log_proba(self._margins(X, "predict_log_proba"))
