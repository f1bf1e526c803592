"""Kernel ridge regression that chooses its kernel parameter and alpha by the hypergradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

import bilevel
from bilevel.backends import Array, flag, get_backend
from bilevel.fitting import fit_tightly
from bilevel.inner import (
    RBF,
    Kernel,
    KernelRidge,
    Matern32,
    Matern52,
    Polynomial,
    Scaled,
    kernel_ridge,
)
from bilevel.losses import Squared
from bilevel.outer import held_out_kernel

from ._base import (
    BilevelEstimator,
    fitted_whole,
    log_bounds,
    number,
    positive,
    start_within,
    total_weight,
    within,
)
from ._rows import Rows, check_rows, check_targets
from ._splits import Split

#: Kernels of one parameter, gamma, by the names that scikit-learn gives them where it has them.
KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "rbf": RBF(),
        "matern32": Matern32(),
        "matern52": Matern52(),
        "polynomial": Polynomial(),
    }
)

#: Rows up to which the last fit is by a direct solve of the kernel matrix.
_DIRECT = 8192


class BilevelKernelRidge(MultiOutputMixin, RegressorMixin, BilevelEstimator):
    """Kernel ridge regression whose gamma and alpha are found together by their hypergradient.

    It stands where a :class:`sklearn.model_selection.GridSearchCV` over
    :class:`sklearn.kernel_ridge.KernelRidge` does, without a grid.

    Parameters
    ----------
    kernel : {"rbf", "matern32", "matern52", "polynomial"} or bilevel.inner.Kernel
        One parameter, gamma: e^{-γ‖x-z‖²}, a Matérn kernel of length scale 1/γ, or (γ xᵀz + 1)³.
    gamma : float, optional
        Where the search starts. When omitted at the scale of the data: at the median distance of
        two rows the exponent of a kernel is -1, and of a polynomial γ ‖x‖² is 1 on average. A
        start far from that, where the kernel matrix is 0 off its diagonal or that of equal rows
        and f is flat, is warned of.
    alpha : float
        Where the search starts.
    gamma_bounds : pair of float, optional
        Where gamma stays; when omitted 1e-5 and 1e5 times the scale of the data.
    alpha_bounds : pair of float
        Where alpha stays.
    fit_intercept : bool
        Add the mean of the training targets to the predictions, and fit what is left. Without it,
        as in scikit-learn, a kernel that falls off predicts 0 far from the data, and targets far
        from zero are shrunk towards it.
    cv, method, max_iter, tol, certify, random_state
        As in :class:`BilevelLogisticRegression`. K folds share one kernel matrix.

    Attributes
    ----------
    gamma_, alpha_ : float
        Those found.
    dual_coef_ : array, shape (n,) or (n, n_targets)
    intercept_ : float or array of shape (n_targets,)
        That mean; 0 without.
    X_fit_ : array, shape (n, n_features)
        The training rows, which predictions need.
    best_score_ : float
        Minus the mean squared error of a held-out row at ``gamma_`` and ``alpha_``; of several
        targets the mean.
    at_bound_, n_iter_, n_passes_, path_, certificate_, n_features_in_, feature_names_in_
        As in :class:`BilevelLogisticRegression`; a pass is a product with the kernel matrix.

    Notes
    -----
    Dense X alone.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.estimators import BilevelKernelRidge
    >>> X = np.linspace(0, 6, 60)[:, None]
    >>> model = BilevelKernelRidge(cv=0.3, random_state=0).fit(X, np.sin(X[:, 0]))
    >>> model.score(X, np.sin(X[:, 0])) > 0.99
    True
    """

    _sparse = False

    def __init__(
        self,
        *,
        kernel: Any = "rbf",
        gamma: float | None = None,
        alpha: float = 1.0,
        gamma_bounds: tuple[float, float] | None = None,
        alpha_bounds: tuple[float, float] = (1e-3, 1e5),
        fit_intercept: bool = False,
        cv: Any = 5,
        method: Any = "path",
        max_iter: int = 50,
        tol: float | None = None,
        certify: bool = False,
        random_state: Any = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.alpha = alpha
        self.gamma_bounds = gamma_bounds
        self.alpha_bounds = alpha_bounds
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
    ) -> BilevelKernelRidge:
        """Choose gamma and alpha, and fit all rows with them.

        Parameters
        ----------
        X : array, shape (n, n_features)
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
        kernel = self._kernel()
        flag(self.fit_intercept, "fit_intercept")
        rows = check_rows(self, X, y, sample_weight, sparse=False, classifier=False)
        gamma, bounds = self._gamma(kernel, rows)
        around = log_bounds(self.alpha_bounds, "alpha_bounds")
        lam0 = [gamma, start_within(positive(self.alpha, "alpha"), around, "alpha")]
        low, high = zip(bounds, around, strict=True)
        domain = bilevel.Box(low, high)
        splits = self._splits(rows, groups)
        if splits is None:
            problem, total = self._on_set(kernel, rows, domain)
        elif len(splits) == 1:
            problem, total = self._on_one(kernel, rows, splits[0], domain)
        else:
            problem, total = self._on_folds(kernel, rows, splits, domain)
        result = self._search(problem, lam0)
        backend = rows.backend
        around_gamma = self.gamma_bounds
        if around_gamma is None:
            around_gamma = math.exp(bounds[0]), math.exp(bounds[1])
        self.gamma_, self.alpha_ = (
            within(number(backend.xp.exp(result.lam[j]), backend), pair, backend)
            for j, pair in enumerate((around_gamma, self.alpha_bounds))
        )
        self._lam, self._kernel_fitted = result.lam, kernel
        self.best_score_ = -2 * result.fun / (total * (1 if rows.y.ndim == 1 else rows.y.shape[1]))
        self.X_fit_ = rows.X
        level = self._level(rows)
        self.dual_coef_ = _fit(_model(kernel, rows.placed(level)), result.lam)
        self.intercept_ = self._intercept(level)
        return self

    def _level(self, train: Rows) -> Array | None:
        """What the targets of a model are less than as they were given."""
        return train.level() if self.fit_intercept else None

    def _intercept(self, level: Array | None) -> Any:
        """The level as predictions are to have it."""
        fitted = self.dual_coef_
        backend = get_backend(fitted)
        if level is None:
            return 0.0 if fitted.ndim == 1 else backend.xp.zeros_like(fitted[0, :])
        if level.ndim == 0 and backend.name == "numpy":
            return number(level, backend)
        return backend.xp.astype(level, fitted.dtype)

    def _gamma(self, kernel: Kernel, rows: Rows) -> tuple[float, tuple[float, float]]:
        """Log gamma at the start, and between which bounds."""
        scale = kernel_scale(kernel, rows)
        start = scale if self.gamma is None else positive(self.gamma, "gamma")
        if self.gamma_bounds is not None:
            bounds = log_bounds(self.gamma_bounds, "gamma_bounds")
            if self.gamma is None:  # the scale is not the user's word: it is brought in silently
                return min(max(start, bounds[0]), bounds[1]), bounds
            return start_within(start, bounds, "gamma"), bounds
        wide = math.log(1e5)
        return start, (min(scale, start) - wide, max(scale, start) + wide)

    def _kernel(self) -> Kernel:
        if isinstance(self.kernel, str):
            if self.kernel not in KERNELS:
                raise ValueError(
                    f"kernel must be one of {sorted(KERNELS)} or a kernel, got {self.kernel!r}."
                )
            return KERNELS[self.kernel]
        if getattr(self.kernel, "n_parameters", None) != 1:
            raise ValueError(f"kernel must have one parameter, gamma, got {self.kernel!r}.")
        kernel: Kernel = self.kernel
        return kernel

    def _on_set(
        self, kernel: Kernel, rows: Rows, domain: bilevel.Box
    ) -> tuple[bilevel.Problem, float]:
        X_val, targets = self._validation_set(
            rows, lambda y_val: check_targets(y_val, rows.X.dtype, rows.backend, "y_val")
        )
        held, level = Rows(X_val, targets, None, rows.backend), self._level(rows)
        return kernel_problem(kernel, rows.placed(level), held.placed(level), domain)

    def _on_one(
        self, kernel: Kernel, rows: Rows, split: Split, domain: bilevel.Box
    ) -> tuple[bilevel.Problem, float]:
        """The rows of one split, taken out."""
        backend, xp = rows.backend, rows.backend.xp

        def part(index: Any) -> Rows:
            numbers = backend.asarray(index)
            s = None if rows.weights is None else xp.take(rows.weights, numbers, axis=0)
            X, y = (xp.take(a, numbers, axis=0) for a in (rows.X, rows.y))
            return Rows(X, y, s, backend)

        train, held = part(split.train), part(split.held)
        level = self._level(train)
        return kernel_problem(kernel, train.placed(level), held.placed(level), domain)

    def _on_folds(
        self, kernel: Kernel, rows: Rows, splits: list[Split], domain: bilevel.Box
    ) -> tuple[bilevel.Problem, float]:
        """K splits as row weights: they share the kernel matrix."""
        backend, xp = rows.backend, rows.backend.xp
        targets = rows.y.shape[1] if rows.y.ndim == 2 else 1

        def weights(parts: list[Any]) -> Array:
            columns = [
                backend.asarray(np.bincount(index, minlength=rows.n), dtype=rows.X.dtype)
                for index in parts
            ]
            if rows.weights is not None:
                columns = [column * rows.weights for column in columns]
            return xp.stack([column for column in columns for _ in range(targets)], axis=1)

        train, held = weights([s.train for s in splits]), weights([s.held for s in splits])
        y = rows.y if rows.y.ndim == 1 else xp.concat([rows.y for _ in splits], axis=1)
        if self.fit_intercept:  # each split has a level of its own
            shares = xp.astype(train, y.dtype)
            y = y if y.ndim == 2 else y[:, None]
            y = y - xp.sum(shares * y, axis=0) / xp.sum(shares, axis=0)
        y = replace(rows, y=y).placed(None).y
        inner = kernel_ridge(rows.X, y, kernel, sample_weight=train)
        outer = held_out_kernel(inner, rows.X, y, Squared(), sample_weight=held)
        (total,) = backend.scalars(xp.sum(held))
        return bilevel.Problem(inner, outer, domain), total / targets

    def predict(self, X: Any) -> Array:
        """Predictions, shape (n,) or (n, n_targets)."""
        check_is_fitted(self)
        X, backend = self._check_new(X, self.dual_coef_, "predict")
        if X.dtype != self.X_fit_.dtype:
            X = backend.xp.astype(X, self.X_fit_.dtype)
        model = KernelRidge(self.X_fit_, self.dual_coef_, self._kernel_fitted, backend)
        fitted = model.cross_matrix(X, self._lam, model.counter).matmul(self.dual_coef_)
        return fitted + self.intercept_


def kernel_scale(kernel: Kernel, rows: Rows) -> float:
    """The log gamma that fits the data; 1 / n_features where the kernel does not know it."""
    if isinstance(kernel, Scaled):
        return kernel.typical(rows.X, rows.backend)[0]
    return -math.log(rows.X.shape[1])


def _model(kernel: Kernel, rows: Rows) -> KernelRidge:
    return kernel_ridge(rows.X, rows.y, kernel, sample_weight=rows.weights)


def kernel_problem(
    kernel: Kernel, train: Rows, held: Rows, domain: bilevel.Box
) -> tuple[bilevel.Problem, float]:
    """The problem of these rows, and the weight of the held-out ones."""
    inner = _model(kernel, train)
    outer = held_out_kernel(inner, held.X, held.y, Squared(), sample_weight=held.weights)
    total = total_weight(held.weights, held.n, held.backend)
    return bilevel.Problem(inner, outer, domain), total


def _fit(model: KernelRidge, lam: Array) -> Array:
    """The coefficients at λ: a direct solve, or conjugate gradients where the matrix is large."""
    backend, xp = model.backend, model.backend.xp
    n = model.X.shape[0]
    solved = _solved(model, lam) if n <= _DIRECT else None
    if solved is None:
        zeros = xp.zeros(model.x_shape, dtype=model.dtype, device=backend.device)
        solved = fit_tightly(model, lam, zeros)
    return model.scale(solved)


def _solved(model: KernelRidge, lam: Array) -> Array | None:
    """The coefficients by a direct solve, None where rounding has made the matrix singular."""
    backend, xp = model.backend, model.backend.xp
    n = model.X.shape[0]
    K = model.matrix(lam).dense()
    # Weights of several targets are equal: the first column has them all.
    roots = xp.ones_like(model.X[:, 0]) if model.roots is None else model.roots
    roots = roots if roots.ndim == 1 else roots[:, 0]
    ridge = xp.exp(lam[-1]) * xp.eye(n, dtype=model.dtype, device=backend.device)
    rhs = model.scale(model.y)
    solved = backend.solve(
        roots[:, None] * K * roots[None, :] + ridge, rhs if rhs.ndim == 2 else rhs[:, None]
    )
    return solved if solved is None or rhs.ndim == 2 else solved[:, 0]
