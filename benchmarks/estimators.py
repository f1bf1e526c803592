"""The estimators beside what a user would run in their place.

    python benchmarks/estimators.py [breast_cancer digits newsgroups parkinsons] [--rows N]

* breast cancer, digits (10 classes): BilevelLogisticRegression and LogisticRegressionCV, 5 folds;
* digits as numbers: BilevelRidge and RidgeCV, 5 folds;
* 20 Newsgroups (sparse, the first ten groups against the rest): logistic regression, a quarter of
  the rows held out;
* Parkinson's scores: BilevelKernelRidge and GridSearchCV over KernelRidge, 5 folds.

At its default tolerance LogisticRegressionCV, warm-started from the smaller C, may not move at all
for a larger one (20 Newsgroups: one score for all C above 22), so it runs with a tight one, too.

Both sides have the same splits, the same objective with a free intercept and the same criterion.
"held-out loss" judges the parameter that each has found: the mean loss of scikit-learn's own
model, fitted to 1e-8 on each split. Passes are
products with X (or the kernel matrix); scikit-learn does not count its own, so its column holds
the number of fits. Seconds are those of ``fit`` with the last fit of all rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import tables
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from bilevel.estimators import (
    BilevelKernelRidge,
    BilevelLogisticRegression,
    BilevelRidge,
    HyperparameterSearchCV,
)

Row = dict[str, Any]
Splits = list[tuple[Any, Any]]


def held_out(model: Any, X: Any, y: Any, splits: Splits) -> float:
    """The mean loss of the held-out rows under scikit-learn's model."""
    total, n = 0.0, 0
    for train, held in splits:
        fitted = clone(model).fit(X[train], y[train])
        if hasattr(fitted, "predict_proba"):
            proba = fitted.predict_proba(X[held])
            total += log_loss(y[held], proba, labels=fitted.classes_, normalize=False)
        else:
            total += float(np.sum((fitted.predict(X[held]) - y[held]) ** 2))
        n += len(held)
    return total / n


def row(
    data: str,
    estimator: Any,
    X: Any,
    y: Any,
    judge: Callable[[Any], float],
    found: Callable[[Any], Row],
    cost: Callable[[Any], str],
    name: str = "",
) -> Row:
    """Fit, and judge what was found."""
    start = time.perf_counter()
    fitted = estimator.fit(X, y)
    seconds = time.perf_counter() - start
    parameters = found(fitted)
    return {
        "data": data,
        "estimator": name or type(estimator).__name__,
        "found": ", ".join(f"{k} = {v:.4g}" for k, v in parameters.items()),
        "held-out loss": f"{judge(parameters):.6f}",
        "passes": cost(fitted),
        "seconds": f"{seconds:.2f}",
    }


def _passes(fitted: Any) -> str:
    return str(fitted.n_passes_)


def classification(data: str, X: Any, y: Any, splits: Splits) -> list[Row]:
    tight = LogisticRegression(tol=1e-8, max_iter=5000)

    def judge(found: Row) -> float:
        return held_out(clone(tight).set_params(**found), X, y, splits)

    def peer_c(fitted: Any) -> Row:
        return {"C": float(np.ravel(fitted.C_)[0])}

    peer = LogisticRegressionCV(
        Cs=10, cv=splits, scoring="neg_log_loss", max_iter=1000, use_legacy_attributes=True
    )
    pipeline = HyperparameterSearchCV(LogisticRegression(max_iter=1000), cv=splits)
    fits = f"{10 * len(splits) + 1} fits"
    ours = BilevelLogisticRegression(cv=splits)
    return [
        row(data, ours, X, y, judge, lambda f: {"C": f.C_}, _passes),
        row(data, pipeline, X, y, judge, lambda f: f.best_params_, _passes),
        row(data, peer, X, y, judge, peer_c, lambda f: fits),
        row(
            data,
            clone(peer).set_params(tol=1e-7),
            X,
            y,
            judge,
            peer_c,
            lambda f: fits,
            name="LogisticRegressionCV, tol=1e-7",
        ),
    ]


def breast_cancer() -> list[Row]:
    X, y = datasets.breast_cancer()
    return classification("breast cancer", X, y, list(StratifiedKFold(5).split(X, y)))


def digits() -> list[Row]:
    X, y = load_digits(return_X_y=True)
    X = X / 16
    lines = classification("digits", X, y, list(StratifiedKFold(5).split(X, y)))
    target, splits = y.astype(float), list(KFold(5).split(X))

    def judge(found: Row) -> float:
        return held_out(Ridge(**found), X, target, splits)

    peer = RidgeCV(np.logspace(-5, 5, 21), cv=splits, scoring="neg_mean_squared_error")
    ours = BilevelRidge(cv=splits)
    lines += [
        row("digits as numbers", e, X, target, judge, lambda f: {"alpha": float(f.alpha_)}, cost)
        for e, cost in ((ours, _passes), (peer, lambda f: "106 fits"))
    ]
    return lines


def newsgroups() -> list[Row]:
    X, y = datasets.newsgroups()
    X = X.tocsr()
    order = np.random.RandomState(0).permutation(X.shape[0])
    quarter = len(order) // 4
    splits = [(np.sort(order[quarter:]), np.sort(order[:quarter]))]
    return classification("20 Newsgroups", X, y, splits)


def parkinsons(rows: int) -> list[Row]:
    data = np.load(datasets._folder() / "parkinsons_updrs.npz")
    # Column 0 is the patient's number: no feature.
    keep = np.random.default_rng(0).permutation(data["X"].shape[0])[:rows]
    X, y = data["X"][keep, 1:].astype(float), data["y"][keep].astype(float)
    y = (y - y.mean()) / y.std()
    X = StandardScaler().fit_transform(X)
    splits = list(KFold(5).split(X))
    model = KernelRidge(kernel="rbf")

    def judge(found: Row) -> float:
        return held_out(clone(model).set_params(**found), X, y, splits)

    grid = {"gamma": np.logspace(-4, 1, 6), "alpha": np.logspace(-3, 2, 6)}
    peer = GridSearchCV(model, grid, cv=splits, scoring="neg_mean_squared_error")
    ours = BilevelKernelRidge(cv=splits)
    return [
        row(
            "Parkinson's",
            ours,
            X,
            y,
            judge,
            lambda f: {"gamma": f.gamma_, "alpha": f.alpha_},
            _passes,
        ),
        row("Parkinson's", peer, X, y, judge, lambda f: f.best_params_, lambda f: "181 fits"),
    ]


def main() -> None:
    names = ["breast_cancer", "digits", "newsgroups", "parkinsons"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=names, help="which to run")
    parser.add_argument("--rows", type=int, default=1500, help="of Parkinson's")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    lines: list[Row] = []
    for name in options.sets:
        lines += parkinsons(options.rows) if name == "parkinsons" else globals()[name]()
    note = (
        "Held-out loss: the mean of scikit-learn's own models, fitted tightly at what was found, "
        "on the same splits. Passes are those of the search; scikit-learn's are not counted."
    )
    tables.write("estimators", "The estimators beside scikit-learn's", lines, note)


if __name__ == "__main__":
    main()
