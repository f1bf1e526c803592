"""The scikit-learn estimators: its own checks, its own models at the λ found, its conventions."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy import sparse
from thin import first

pytest.importorskip("sklearn")

from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_array_api_input, check_estimator
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data as check_weights,
)

import bilevel
from bilevel.estimators import (
    BilevelKernelRidge,
    BilevelLogisticRegression,
    BilevelRidge,
    HyperparameterSearchCV,
)
from bilevel.methods import PathFollowing

ROOT = Path(__file__).parent.parent


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return standardised(X), y


def iris():
    X, y = load_iris(return_X_y=True)
    return standardised(X), y


@pytest.mark.parametrize(
    "estimator",
    [
        BilevelLogisticRegression(cv=3),
        BilevelRidge(cv=2, max_iter=5),
        pytest.param(BilevelKernelRidge(cv=2, max_iter=4), marks=pytest.mark.slow),
        pytest.param(HyperparameterSearchCV(LogisticRegression(), cv=3), marks=pytest.mark.slow),
        HyperparameterSearchCV(make_pipeline(StandardScaler(), Ridge()), cv=2, max_iter=5),
        pytest.param(
            HyperparameterSearchCV(KernelRidge(kernel="rbf"), cv=3), marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_scikit_learns_own_checks_pass(estimator):
    """All of them; those of array libraries, and of weights where the search must end, run below.

    They look at what an estimator takes and gives: a few steps of the search show it.
    """
    kernel = isinstance(estimator, BilevelKernelRidge)
    left = {check_weights.__name__: "it ends in one place, and begins in two"} if kernel else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=left)
    assert [(c["check_name"], c["exception"]) for c in done if c["status"] == "failed"] == []
    skipped = {c["check_name"] for c in done if c["status"] == "skipped"}
    assert all("array_api" in name for name in skipped), skipped
    assert sum(c["status"] == "passed" for c in done) > 40


def test_scikit_learns_own_check_of_weights_passes_for_a_kernel():
    """A search that runs to its end: one by weights and one by copies of rows take other steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_weights("BilevelKernelRidge", BilevelKernelRidge(cv=3))


ARRAY_CHECKS = """
import sys, warnings
from sklearn.utils import estimator_checks as checks
from bilevel import estimators
warnings.simplefilter("ignore")
name, library = sys.argv[1:]
few = {"max_iter": 5} if name == "BilevelKernelRidge" else {}  # its values are not compared
checks.check_array_api_input(
    name, getattr(estimators, name)(**few), library,
    device_name="cpu" if library == "torch" else None, dtype_name="float64",
    # Two searches agree to their tolerance; the kernel's is not that of the check.
    check_values=name != "BilevelKernelRidge", check_sample_weight=True,
)
if library == "array_api_strict" and hasattr(checks, "check_array_api_same_namespace"):
    checks.check_array_api_same_namespace(name, getattr(estimators, name)(**few), library)
print("passed")
"""


@pytest.mark.skipif(
    "check_sample_weight" not in inspect.signature(check_array_api_input).parameters,
    reason="the check of this release of scikit-learn knows neither weights nor devices by name",
)
@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("BilevelLogisticRegression", "array_api_strict"),
        ("BilevelRidge", "torch"),
        ("BilevelKernelRidge", "array_api_strict"),
        pytest.param("BilevelLogisticRegression", "torch", marks=pytest.mark.slow),
        pytest.param("BilevelRidge", "array_api_strict", marks=pytest.mark.slow),
        pytest.param("BilevelKernelRidge", "torch", marks=pytest.mark.slow),
    ],
)
def test_scikit_learns_own_array_checks_pass(name, library):
    """In a process of its own: SciPy wants to know before it is imported."""
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", ARRAY_CHECKS, name, library],
        env={**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "passed", done.stdout + done.stderr


# -- the model and the λ are right --------------------------------------------------------------


@pytest.mark.parametrize("data", [cancer, iris])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_logistic_regression_is_scikit_learns_at_the_c_found(data, fit_intercept):
    X, y = data()
    ours = BilevelLogisticRegression(fit_intercept=fit_intercept).fit(X, y)
    theirs = LogisticRegression(
        C=ours.C_, fit_intercept=fit_intercept, tol=1e-9, max_iter=10_000, solver="newton-cg"
    ).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("data", [cancer, iris])
def test_the_c_found_is_a_minimum_of_the_held_out_loss(data):
    """By scikit-learn's models on scikit-learn's folds: f rises on both sides of C_."""
    X, y = data()
    ours = BilevelLogisticRegression(cv=4).fit(X, y)

    def loss(C):
        total = 0.0
        for train, held in StratifiedKFold(4).split(X, y):
            model = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(X[train], y[train])
            proba = model.predict_proba(X[held])
            total += log_loss(y[held], proba, labels=model.classes_, normalize=False)
        return total / len(y)

    best = loss(ours.C_)
    assert ours.best_score_ == pytest.approx(-best, rel=1e-3)
    assert best < loss(ours.C_ * 1.5)
    assert best < loss(ours.C_ / 1.5)


def test_ridge_is_scikit_learns_at_the_alpha_found_and_that_is_a_minimum():
    X, y = make_regression(60, 40, noise=150.0, random_state=0)
    y = y + 1000.0
    ours = BilevelRidge().fit(X, y)
    theirs = Ridge(alpha=ours.alpha_).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_)

    def loss(alpha):
        errors = [
            np.sum((Ridge(alpha=alpha).fit(X[train], y[train]).predict(X[held]) - y[held]) ** 2)
            for train, held in KFold(5).split(X)
        ]
        return sum(errors) / len(y)

    assert ours.best_score_ == pytest.approx(-loss(ours.alpha_), rel=1e-5)
    assert loss(ours.alpha_) < min(loss(ours.alpha_ * 1.5), loss(ours.alpha_ / 1.5))


@pytest.mark.parametrize("cv", [4, 0.3])
def test_kernel_ridge_is_scikit_learns_at_the_parameters_found(cv):
    X = np.random.default_rng(0).uniform(-3, 3, (120, 2))
    y = np.sin(X[:, 0]) + 0.3 * np.random.default_rng(1).standard_normal(120)
    ours = BilevelKernelRidge(cv=cv, random_state=0).fit(X, y)
    theirs = KernelRidge(kernel="rbf", alpha=ours.alpha_, gamma=ours.gamma_).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-7)
    if cv == 4:
        squares = 0.0
        for train, held in KFold(4).split(X):
            fold = clone(theirs).fit(X[train], y[train])
            squares += np.sum((fold.predict(X[held]) - y[held]) ** 2)
        assert ours.best_score_ == pytest.approx(-squares / len(y), rel=1e-3)
    record = ours.path_[-1]
    assert record.optimality < 0.05 * ours.path_[0].optimality


def test_the_score_of_several_targets_is_scikit_learns():
    """Their mean; it was their sum."""
    X, Y = make_regression(60, 4, n_targets=3, noise=20.0, random_state=0)
    Y = Y * [1.0, 3.0, 0.1]
    search = HyperparameterSearchCV(Ridge(), cv=3).fit(X, Y)
    ridge, kernel = BilevelRidge(cv=3).fit(X, Y), BilevelKernelRidge(cv=3).fit(X, Y)
    for found, model in (
        (search, search.best_estimator_),
        (ridge, Ridge(alpha=ridge.alpha_)),
        (kernel, KernelRidge(kernel="rbf", alpha=kernel.alpha_, gamma=kernel.gamma_)),
    ):
        scores = cross_val_score(model, X, Y, cv=3, scoring="neg_mean_squared_error")
        assert found.best_score_ == pytest.approx(np.mean(scores), rel=1e-3)


def test_several_targets_share_one_alpha():
    X, Y = make_regression(80, 6, n_targets=3, noise=20.0, random_state=0)
    for cv in (5, 0.25):
        ours = BilevelRidge(cv=cv, random_state=0).fit(X, Y)
        theirs = Ridge(alpha=ours.alpha_).fit(X, Y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-6)
        assert ours.predict(X).shape == (80, 3)
    kernel = BilevelKernelRidge(cv=3).fit(X, Y)
    theirs = KernelRidge(kernel="rbf", alpha=kernel.alpha_, gamma=kernel.gamma_).fit(X, Y)
    np.testing.assert_allclose(kernel.dual_coef_, theirs.dual_coef_, rtol=1e-6, atol=1e-9)


def test_groups_find_the_features_that_are_noise():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 12))
    y = X[:, :4] @ np.array([3.0, -2.0, 1.0, 2.0]) + rng.standard_normal(200)
    groups = np.repeat([0, 1], [4, 8])
    ours = BilevelRidge(groups=groups).fit(X, y)
    assert ours.alpha_.shape == (2,)
    assert ours.alpha_[1] > 50 * ours.alpha_[0]
    assert ours.best_score_ > BilevelRidge().fit(X, y).best_score_


# -- ways to give the data -----------------------------------------------------------------------


def test_sparse_rows_give_the_model_of_dense_ones():
    X, y = cancer()
    X = np.where(np.abs(X) > 1, X, 0.0)
    # Preconditioned by what pays for the entries that there are: not the same steps, one end.
    dense = BilevelLogisticRegression(tol=1e-8).fit(X, y)
    thin = BilevelLogisticRegression(tol=1e-8).fit(sparse.csr_array(X), y)
    np.testing.assert_allclose(thin.C_, dense.C_, rtol=1e-3)
    np.testing.assert_allclose(thin.coef_, dense.coef_, atol=1e-3)
    np.testing.assert_allclose(
        thin.decision_function(sparse.csr_array(X)), X @ thin.coef_[0] + thin.intercept_
    )


def test_a_set_that_is_held_out_is_neither_trained_on_nor_lost():
    X, y = cancer()
    ours = BilevelLogisticRegression(cv=(X[::2], y[::2])).fit(X[1::2], y[1::2])
    problem = bilevel.logistic_regression(
        X[1::2], 2.0 * y[1::2] - 1, X[::2], 2.0 * y[::2] - 1, fit_intercept=True
    )
    result = bilevel.minimize(problem)
    np.testing.assert_allclose(ours.C_, np.exp(-result.lam[0]), rtol=1e-2)
    np.testing.assert_allclose(
        ours.coef_,
        LogisticRegression(C=ours.C_, tol=1e-10, max_iter=5000).fit(X[1::2], y[1::2]).coef_,
        atol=1e-5,
    )


def test_a_fraction_is_drawn_by_the_seed_and_has_its_share_of_each_class():
    from bilevel.estimators._splits import split_rows

    labels = np.repeat([0, 1, 2], [40, 20, 1])
    (split,) = split_rows(0.25, np.arange(61), labels, 61, 0)
    assert np.bincount(labels[split.held], minlength=3).tolist() == [10, 5, 0]
    assert sorted(np.concatenate([split.train, split.held])) == list(range(61))
    (again,) = split_rows(0.25, np.arange(61), labels, 61, 0)
    np.testing.assert_array_equal(split.held, again.held)


def test_a_class_of_one_row_is_always_trained_on():
    from bilevel.estimators._splits import split_rows

    labels = np.repeat([0, 1, 2], [10, 10, 1])
    splits = split_rows(5, np.arange(21), labels, 21, None)
    assert all(20 in split.train and 20 not in split.held for split in splits)
    assert sorted(np.concatenate([split.held for split in splits])) == list(range(20))


def test_any_array_gives_attributes_of_its_library(backend):
    """The same numbers on every library and device, and nothing comes back on the host."""
    if backend.name == "jax":
        pytest.skip("JAX compiles each operation for each shape: 20 s; the ridge runs there")
    X, y = iris()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two steps tell enough
        model = BilevelLogisticRegression(cv=3, max_iter=2)
        host = clone(model).fit(X, y)
        ours = model.fit(backend.asarray(X), backend.asarray(y))
    for name in ("classes_", "coef_", "intercept_"):
        found = getattr(ours, name)
        assert bilevel.get_backend(found) == backend
        np.testing.assert_allclose(
            backend.to_numpy(found), getattr(host, name), rtol=1e-4, atol=1e-6
        )
    for method in ("predict", "predict_proba", "decision_function"):
        found = getattr(ours, method)(backend.asarray(X))
        assert bilevel.get_backend(found) == backend
        np.testing.assert_allclose(
            backend.to_numpy(found), getattr(host, method)(X), rtol=1e-3, atol=1e-5
        )
    again = pickle.loads(pickle.dumps(host))
    np.testing.assert_array_equal(again.predict(X), host.predict(X))


def test_ridge_on_any_array(backend):
    X, y = make_regression(30, 4, noise=10.0, random_state=0)
    host = BilevelRidge(cv=(X[:10], y[:10]), tol=1e-2).fit(X[10:], y[10:])
    X, y = backend.asarray(X), backend.asarray(y)
    ours = BilevelRidge(cv=(X[:10, :], y[:10]), tol=1e-2).fit(X[10:, :], y[10:])
    found = ours.predict(X)
    assert bilevel.get_backend(found) == bilevel.get_backend(ours.coef_) == backend
    np.testing.assert_allclose(backend.to_numpy(ours.coef_), host.coef_, rtol=1e-4)


def test_words_are_classes_and_frames_have_names():
    pandas = pytest.importorskip("pandas")
    X, y = iris()
    words = np.array(["setosa", "versicolor", "virginica"])[y]
    frame = pandas.DataFrame(X, columns=list("abcd"))
    ours = BilevelLogisticRegression(cv=3).fit(frame, words)
    assert ours.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert ours.feature_names_in_.tolist() == list("abcd")
    assert ours.score(frame, words) > 0.9


# -- what a run tells ----------------------------------------------------------------------------


def test_the_path_and_the_certificate():
    X, y = cancer()
    plain = BilevelLogisticRegression().fit(X, y)
    assert [r.k for r in plain.path_] == list(range(1, plain.n_iter_ + 1))
    assert plain.path_[-1].passes == plain.n_passes_
    assert np.exp(-plain.path_[-1].lam[0]) == pytest.approx(plain.C_)
    assert not hasattr(plain, "certificate_")
    # δ is a slope over all of D, and asks for more than the default tol, which is of f.
    certified = BilevelLogisticRegression(certify=True, tol=1e-7).fit(X, y)
    assert certified.certificate_.ok
    assert pickle.loads(pickle.dumps(certified)).C_ == certified.C_


def test_a_search_that_ends_early_says_so():
    X, y = cancer()
    with pytest.warns(ConvergenceWarning, match="iteration limit"):
        BilevelLogisticRegression(max_iter=1).fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": -1.0}, "C must be positive and finite"),
        ({"C_bounds": (1.0, 0.1)}, "C_bounds must be a pair"),
        ({"cv": 1}, "cv must be 2 folds or more"),
        ({"cv": 1.5}, "cv as a fraction"),
        ({"cv": True}, "cv must be folds"),
        ({"cv": []}, "cv must hold one split"),
        ({"cv": iter(())}, "cv must hold one split"),
        ({"method": "magic"}, "method must be one of"),
        ({"cv": [(np.arange(50), np.arange(50, 60))]}, "no training row of 2 classes"),
        ({"cv": (np.ones((2, 3)), np.zeros(2))}, "3 features"),
        ({"cv": [(np.arange(50), np.arange(140, 151))]}, "Split 0 of cv must hold row numbers"),
        ({"cv": [(np.arange(50.0), np.arange(50, 60))]}, "Split 0 of cv must hold row numbers"),
        ({"cv": [(np.ones(9, dtype=bool), np.arange(9))]}, "Split 0 of cv must .* a mask of 150"),
        ({"cv": [(3, np.arange(9))]}, "Split 0 of cv must hold row numbers"),
        (
            {"cv": [np.ones((2, 4)), np.zeros(2)]},
            r"Split 0 of cv must be a pair .*\(X_val, y_val\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    X, y = iris()
    with pytest.raises(ValueError, match=message):
        BilevelLogisticRegression(**options).fit(X, y)


MASKED = np.ma.array(np.ones(60), mask=np.arange(60) < 15)


@pytest.mark.parametrize("estimator", [BilevelRidge, BilevelLogisticRegression, BilevelKernelRidge])
def test_masks_are_not_passed_over(estimator):
    """scikit-learn and NumPy drop a mask, and what was hidden was learned."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), np.arange(60) % 2
    doors = {
        "X": lambda: estimator(cv=3).fit([np.ma.array(row) for row in X], y),
        "y": lambda: estimator(cv=3).fit(X, np.ma.array(y, mask=MASKED.mask)),
        "sample_weight": lambda: estimator(cv=3).fit(X, y, sample_weight=MASKED),
        "X_val": lambda: estimator(cv=(np.ma.array(X), y)).fit(X, y),
        "y_val": lambda: estimator(cv=(X, np.ma.array(y))).fit(X, y),
        "Split 0 of cv": lambda: estimator(cv=[(np.ma.arange(30), np.arange(30, 60))]).fit(X, y),
    }
    if estimator is not BilevelKernelRidge:
        groups = np.ma.array([0, 0, 1], mask=[0, 1, 0])
        doors["groups"] = lambda: estimator(groups=groups).fit(X, y)
    for name, door in doors.items():
        with pytest.raises(TypeError, match=f"^{name} must be a plain array, got a MaskedArray"):
            door()
    search = HyperparameterSearchCV(Ridge(), cv=(X, np.ma.array(y)))
    with pytest.raises(TypeError, match="^y_val must be a plain array"):
        search.fit(X, y)
    for name, given in {"y": (X, MASKED, None), "sample_weight": (X, y, MASKED)}.items():
        with pytest.raises(TypeError, match=f"^{name} must be a plain array"):
            search.set_params(cv=3).fit(*given[:2], sample_weight=given[2])


def test_held_out_rows_of_another_library_are_refused_as_such():
    torch = pytest.importorskip("torch")
    X, y = np.eye(6), np.arange(6) % 2
    with pytest.raises(ValueError, match=r"X_val is on torch \(cpu\) but X is on numpy \(cpu\)"):
        BilevelRidge(cv=(torch.asarray(X), y)).fit(X, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [BilevelRidge(cv=3), BilevelLogisticRegression(cv=3)])
def test_numbers_that_overflow_are_said_to(estimator):
    """It was "tol must be positive and finite, got inf", of a tol that nobody gave."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), np.arange(40) % 2
    for given in ((X * 1e200, y), (X, y, np.full(40, 1e200))):
        with pytest.raises(ValueError, match="No model was (fitted|found): .*(overflows|infinite)"):
            clone(estimator).fit(*given)
    search = HyperparameterSearchCV(Ridge(), cv=3)
    with pytest.warns(ConvergenceWarning, match="Scale X"), pytest.raises(ValueError, match="inf"):
        search.fit(X * 1e200, y)  # scikit-learn's own fit, at the end


@pytest.mark.parametrize("pair", [(0.1, 10.0), (1e-3, 100.0), (0.7, 3.0)])
def test_what_is_found_stays_in_its_bounds_and_says_that_it_lies_there(pair):
    """exp(log(10)) is 10.000000000000002; λ itself was on its bound."""
    rng = np.random.default_rng(0)
    X, noise, line = rng.standard_normal((40, 3)), rng.standard_normal(40), np.linspace(0, 1, 3)
    low, high = pair
    ridge = BilevelRidge(alpha_bounds=pair, cv=2).fit(X, X @ line)
    against = BilevelRidge(alpha_bounds=pair, cv=2).fit(X, X @ line * np.repeat([1, -1], 20))
    logistic = BilevelLogisticRegression(C_bounds=pair, cv=2).fit(X, X @ line > 0)
    kernel = BilevelKernelRidge(alpha_bounds=pair, gamma_bounds=pair, cv=2).fit(X, X @ line)
    search = HyperparameterSearchCV(Ridge(), bounds=pair, cv=2).fit(X, X @ line)
    for model, found, end in (
        (ridge, ridge.alpha_, low),
        (against, against.alpha_, high),
        (logistic, logistic.C_, high),
        (kernel, kernel.alpha_, low),
        (search, search.best_params_["alpha"], low),
    ):
        assert low <= found <= high
        assert found == pytest.approx(end)
        assert model.at_bound_
    assert low <= kernel.gamma_ <= high
    inside = BilevelRidge(cv=2).fit(X, X @ line + noise)
    assert not inside.at_bound_


def test_without_scikit_learn_there_is_one_sentence():
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "sklearn" else find(name, *a)
try:
    import bilevel.estimators
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == (
        "bilevel.estimators needs scikit-learn, which is not installed: "
        "`pip install 'bilevel[sklearn]'`."
    )


# -- HyperparameterSearchCV ----------------------------------------------------------------------


def test_the_search_of_a_model_alone_is_that_of_the_estimator():
    X, y = cancer()
    search = HyperparameterSearchCV(LogisticRegression(max_iter=1000)).fit(X, y)
    direct = BilevelLogisticRegression().fit(X, y)
    assert search.best_params_["C"] == pytest.approx(direct.C_, rel=2e-2)
    assert search.best_score_ == pytest.approx(direct.best_score_, rel=1e-3)
    np.testing.assert_array_equal(search.predict(X), direct.predict(X))


def test_the_steps_before_see_the_training_rows_of_their_split_alone():
    X, y = load_diabetes(return_X_y=True)
    seen = []

    def note(X):
        seen.append(len(X))
        return X

    pipeline = make_pipeline(FunctionTransformer(note), StandardScaler(), Ridge())
    search = HyperparameterSearchCV(pipeline, cv=3).fit(X, y)
    (name,) = search.best_params_
    assert name == "ridge__alpha"

    def loss(alpha):
        total = 0.0
        for train, held in KFold(3).split(X):
            model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X[train], y[train])
            total += np.sum((model.predict(X[held]) - y[held]) ** 2)
        return total / len(y)

    alpha = search.best_params_[name]
    assert search.best_score_ == pytest.approx(-loss(alpha), rel=1e-4)
    assert loss(alpha) < min(loss(alpha * 1.5), loss(alpha / 1.5))
    assert seen.count(len(X)) == 1, "all rows are seen by the last fit alone"


def test_text_goes_through_the_pipeline():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [f"{'good fine' if i % 3 else 'bad poor'} w{i % 7} v{i % 5}" for i in range(60)]
    labels = np.array(["up" if i % 3 else "down" for i in range(60)])
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    search = HyperparameterSearchCV(pipeline, cv=0.3, random_state=0).fit(texts, labels)
    assert search.classes_.tolist() == ["down", "up"]
    assert search.score(texts, labels) == 1.0


@pytest.mark.parametrize("routing", [False, True])
def test_sample_weights_reach_the_last_step(routing):
    """A row of weight 2 is two rows, in the search and in the last fit."""
    X, y = load_diabetes(return_X_y=True)
    weights = np.where(np.arange(len(y)) % 4 == 0, 2, 1)
    folds = np.arange(len(y)) % 3
    twice = np.repeat(np.arange(len(y)), weights)

    def splits(folds):
        return [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(3)]

    with config_context(enable_metadata_routing=routing):
        ridge = Ridge()
        if routing:
            ridge.set_fit_request(sample_weight=True)
            params = {"sample_weight": weights}
        else:
            params = {"ridge__sample_weight": weights}
        pipeline = make_pipeline(FunctionTransformer(), ridge)
        one = HyperparameterSearchCV(pipeline, cv=splits(folds)).fit(X, y, **params)
        two = HyperparameterSearchCV(pipeline, cv=splits(folds[twice])).fit(X[twice], y[twice])
        plain = HyperparameterSearchCV(pipeline, cv=splits(folds)).fit(X, y)
    assert one.best_params_["ridge__alpha"] == pytest.approx(two.best_params_["ridge__alpha"])
    assert one.best_params_["ridge__alpha"] != pytest.approx(
        plain.best_params_["ridge__alpha"], rel=1e-3
    )
    np.testing.assert_allclose(one.predict(X), two.predict(X))


def test_weights_are_routed_to_the_estimators_in_a_pipeline():
    X, y = cancer()
    weights = np.where(y == 1, 3.0, 1.0)
    with config_context(enable_metadata_routing=True):
        model = BilevelLogisticRegression(cv=3).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(FunctionTransformer(), model).fit(X, y, sample_weight=weights)
    direct = BilevelLogisticRegression(cv=3).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(pipeline[-1].coef_, direct.coef_)


def test_a_model_that_cannot_be_tuned_is_refused():
    X, y = cancer()
    with pytest.raises(TypeError, match="one of LogisticRegression, Ridge, KernelRidge"):
        HyperparameterSearchCV(StandardScaler()).fit(X, y)
    with pytest.raises(TypeError, match="one of .* KernelRidge; got LogisticRegressionCV"):
        HyperparameterSearchCV(LogisticRegressionCV()).fit(X, y)  # a subclass, which has no C
    with pytest.raises(ValueError, match="penalises its intercept"):
        HyperparameterSearchCV(LogisticRegression(solver="liblinear")).fit(X, y)
    with pytest.raises(ValueError, match="class_weight"):
        HyperparameterSearchCV(LogisticRegression(class_weight="balanced")).fit(X, y)


def test_the_page_of_the_estimators_runs():
    text = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    exec(compile(code, "estimators.md", "exec"), {})


def test_a_search_says_where_scikit_learn_cannot_read(backend):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    search = HyperparameterSearchCV(Ridge(), cv=2)
    X_there, y_there = backend.asarray(X), backend.asarray(y)
    try:
        np.asarray(X_there)
    except (TypeError, RuntimeError, BufferError):
        with pytest.raises(TypeError, match=rf"X is on {backend.name} .*bring it to the host"):
            search.fit(X_there, y)
        with pytest.raises(TypeError, match=rf"y is on {backend.name} .*bring it to the host"):
            search.fit(X, y_there)
    else:
        if backend.name == "array_api_strict":
            pytest.skip("it takes no numbers of rows from NumPy, as scikit-learn gives them")
        assert search.fit(X_there, y_there).best_params_ == search.fit(X, y).best_params_


def test_a_search_refuses_sparse_matrices_of_other_libraries():
    torch = pytest.importorskip("torch")
    X = torch.eye(6, dtype=torch.float64).to_sparse_coo()
    with pytest.raises(TypeError, match="X is on torch .*bring it to the host"):
        HyperparameterSearchCV(Ridge(), cv=2).fit(X, np.arange(6.0))


def test_a_kernel_matrix_that_is_singular_is_solved_by_conjugate_gradients():
    """Two equal rows and no ridge: the direct solve raised in some libraries only."""
    from bilevel.estimators.kernel_ridge import _fit, _solved
    from bilevel.inner import RBF, kernel_ridge

    X, y = np.array([[0.0], [0.0], [1.0]]), np.array([1.0, 1.0, 2.0])
    model, lam = kernel_ridge(X, y, RBF()), np.array([0.0, -800.0])
    assert _solved(model, lam) is None
    coefficients = _fit(model, lam)
    np.testing.assert_allclose(model.matrix(lam).dense() @ coefficients, y, atol=1e-6)


# -- a fit that fails ----------------------------------------------------------------------------


BEFORE = {
    "logistic regression": (BilevelLogisticRegression, lambda y: y > y.mean()),
    "ridge": (BilevelRidge, lambda y: y),
    "kernel ridge": (BilevelKernelRidge, lambda y: y),
    "search": (
        lambda **o: HyperparameterSearchCV(make_pipeline(StandardScaler(), Ridge()), **o),
        lambda y: y,
    ),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("options", [{"max_iter": 0}, {"cv": "x"}, {"method": "magic"}], ids=str)
def test_a_fit_that_fails_leaves_the_model_of_the_one_before(name, options):
    make, target = BEFORE[name]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    model = make(cv=3).fit(X, target(y))
    before, predicted = dict(vars(model)), model.predict(X)
    words = np.where(y > 0, "yes", "no") if name == "logistic regression" else -y
    with pytest.raises(ValueError, match="max_iter|cv|method"):
        model.set_params(**options).fit(-X[:, :3], words)
    assert vars(model).keys() == before.keys()
    changed = {key for key, value in vars(model).items() if value is not before[key]}
    assert changed <= set(options)
    np.testing.assert_array_equal(model.predict(X), predicted)
    assert model.n_features_in_ == 5


def test_a_fit_that_fails_in_its_last_step_leaves_the_model_of_the_one_before(monkeypatch):
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    model = BilevelKernelRidge(cv=3).fit(X, y)
    predicted = model.predict(X)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bilevel.estimators.kernel_ridge._fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(kernel="polynomial").fit(-X[:, :3], 2 * y)
    np.testing.assert_array_equal(model.predict(X), predicted)


def test_one_class_is_refused_and_the_first_fit_leaves_nothing():
    X, y = iris()
    model = BilevelLogisticRegression()
    with pytest.raises(ValueError, match="2 classes"):
        model.fit(X, np.zeros(len(y)))
    assert not [name for name in vars(model) if name.endswith("_")]
    model.fit(X, y)
    predicted = model.predict(X)
    with pytest.raises(ValueError, match="2 classes"):
        model.fit(X, np.zeros(len(y)))
    np.testing.assert_array_equal(model.predict(X), predicted)


def test_a_fit_keeps_nothing_that_only_the_one_before_found():
    X, y = iris()
    model = BilevelLogisticRegression(certify=True).fit(X[:100], y[:100])
    assert hasattr(model, "certificate_")
    assert not hasattr(model.set_params(certify=False).fit(X, y), "certificate_")


def test_a_kernel_that_was_not_fitted_does_not_predict():
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    model = BilevelKernelRidge(cv=3).fit(X, y)
    predicted = model.predict(X)
    np.testing.assert_array_equal(model.set_params(kernel="polynomial").predict(X), predicted)


@pytest.mark.parametrize("name", BEFORE)
def test_a_random_state_that_is_none_is_refused_where_nothing_is_drawn(name):
    make, target = BEFORE[name]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    with pytest.raises(ValueError, match="seed"):
        make(cv=3, random_state="x").fit(X, target(y))


# -- Ctrl-C --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pressed(PathFollowing):
    """Ctrl-C in the n-th step of this process, or in what is said of the end."""

    at: int | str = 0
    steps: ClassVar[list[str]] = []

    def step(self, problem, state):
        if len(self.steps) == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        self.steps.append("step")
        return super().step(problem, state)

    def reported(self, problem, record, x):
        if self.at == "reported":
            os.kill(os.getpid(), signal.SIGINT)
        self.steps.append("reported")
        return super().reported(problem, record, x)


@pytest.fixture
def ctrl_c():
    """What it is by default: a shell's background job ignores it."""
    Pressed.steps.clear()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


LOOPS = {
    "cross_val_score": lambda model, X, y: cross_val_score(model, X, y, cv=3),
    "GridSearchCV": lambda model, X, y: GridSearchCV(model, {"tol": [1e-3, 1e-4]}, cv=3).fit(X, y),
    "fit": lambda model, X, y: model.fit(X, y),
}


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
@pytest.mark.parametrize(
    ("at", "loop"),
    [
        pytest.param(at, loop, marks=[] if more == often else pytest.mark.slow)
        for often, loop in enumerate(LOOPS)
        for more, at in enumerate((0, 1, "reported"))
    ],
)
@pytest.mark.parametrize("name", ["logistic regression", "kernel ridge", "search"])
def test_ctrl_c_ends_the_loop_that_a_fit_is_a_step_of(name, at, loop, ctrl_c):
    """It ended the search of one fit, and the loop went on; in the first step with a score of nan."""
    make, target = BEFORE[name]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    model = make(cv=3).fit(X, target(y))
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        LOOPS[loop](model.set_params(method=Pressed(at=at)), X, target(y))
    assert "reported" not in Pressed.steps
    assert at == "reported" or len(Pressed.steps) == at
    assert vars(model) == before | {"method": model.method}


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
def test_an_end_that_no_one_pressed_for_is_the_fits_own(ctrl_c):
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    assert BilevelRidge(cv=3, method=Pressed(at=-1)).fit(X, y).n_iter_ > 0


# -- what fit is given ---------------------------------------------------------------------------


@pytest.fixture
def no_search(monkeypatch):
    """A search that must not come to pass."""

    def searched(*_, **__):
        raise AssertionError("it searched")

    monkeypatch.setattr(bilevel, "minimize", searched)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (Ridge(), "nonsense"),
        (make_pipeline(StandardScaler(), Ridge()), "sample_weight"),
        (make_pipeline(StandardScaler(), Ridge()), "pca__sample_weight"),
        (make_pipeline(StandardScaler(), Ridge()), "standardscaler__nonsense"),
        (make_pipeline("passthrough", Ridge()), "passthrough__sample_weight"),
        (make_pipeline(make_pipeline(StandardScaler()), Ridge()), "pipeline__sample_weight"),
    ],
    ids=str,
)
def test_a_parameter_that_no_fit_takes_is_refused_before_the_search(estimator, name, no_search):
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    with pytest.raises(TypeError, match=rf"^HyperparameterSearchCV\.fit got {name}, which"):
        HyperparameterSearchCV(estimator, cv=3).fit(X, y, **{name: np.ones(40)})


def test_parameters_reach_the_steps_before_the_last_in_each_split():
    """They reached the last fit alone: the search tuned another pipeline."""
    X, y = make_regression(60, 5, noise=5.0, random_state=0)
    weights = np.linspace(0.1, 5.0, 60)
    scaler, key = StandardScaler(), "inner__scaler__sample_weight"
    pipeline = Pipeline([("inner", Pipeline([("scaler", scaler)])), ("ridge", Ridge())])
    found = HyperparameterSearchCV(pipeline, cv=3).fit(X, y, **{key: weights})
    plain = HyperparameterSearchCV(pipeline, cv=3).fit(X, y)
    with config_context(enable_metadata_routing=True):
        scaler.set_fit_request(sample_weight=True)
        pipeline = make_pipeline(scaler, Ridge().set_fit_request(sample_weight=False))
        routed = HyperparameterSearchCV(pipeline, cv=3).fit(X, y, sample_weight=weights)
    assert found.best_score_ == routed.best_score_ != plain.best_score_


def test_masks_are_refused_where_a_search_predicts():
    X, y = iris()
    search = HyperparameterSearchCV(LogisticRegression(), cv=3).fit(X, y)
    masked = np.ma.array(X, mask=X > 1)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "score"):
        given = (masked, y) if method == "score" else (masked,)
        with pytest.raises(TypeError, match="^X must be a plain array, got a MaskedArray"):
            getattr(search, method)(*given)
    with pytest.raises(TypeError, match="^y must be a plain array"):
        search.score(X, np.ma.array(y))
    with pytest.raises(TypeError, match="^sample_weight must be a plain array"):
        search.score(X, y, sample_weight=np.ma.ones(len(y)))


HALVES = {
    "y_val none": (lambda X, y: (X, None), "y_val"),
    "y_val a number": (lambda X, y: (X, 3), "y_val"),
    "y_val of other classes, or infinite": (lambda X, y: (X, y + np.inf), "y_val"),
    "y_val NaN": (lambda X, y: (X, y * np.nan), "y_val"),
    "y_val words": (lambda X, y: (X, np.where(y > 0, "u", "v")), "y_val"),
    "y_val of columns": (lambda X, y: (X, np.stack([y, y], axis=1)), "y_val"),
    "y_val ragged": (lambda X, y: (X, [[1]] * 39 + [[1, 2]]), "y_val"),
    "X_val none": (lambda X, y: (None, y), "X_val"),
    "X_val of fewer columns": (lambda X, y: (X[:, :2], y), "X_val"),
    "X_val NaN": (lambda X, y: (X * np.nan, y), "X_val"),
    "X_val of one axis": (lambda X, y: (X[:, 0], y), "X_val"),
    "X_val words": (lambda X, y: (np.full(X.shape, "w"), y), "X_val"),
    "X_val of fewer rows": (lambda X, y: (X[:9], y), "X_val has 9 rows but y_val has 40"),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("fault", HALVES)
def test_a_bad_half_of_a_validation_set_is_named(name, fault):
    make, target = BEFORE[name]
    halves, said = HALVES[fault]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    y = target(y).astype(float)
    with pytest.raises((TypeError, ValueError), match=said):
        make(cv=halves(X, y)).fit(X, y)


@pytest.mark.parametrize("name", BEFORE)
def test_a_good_validation_set_is_taken(name):
    """The control: with these halves nothing is wrong."""
    make, target = BEFORE[name]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    y = target(y).astype(float)
    assert make(cv=(X, y)).fit(X, y).n_iter_ > 0


def test_rows_of_training_are_not_blamed_on_the_validation_set():
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    lost = FunctionTransformer(lambda X: X * np.where(len(X) == 40, np.nan, 1.0))
    with pytest.raises(ValueError, match="^Input X contains NaN"):
        HyperparameterSearchCV(make_pipeline(lost, Ridge()), cv=(X[:9], y[:9])).fit(X, y)


def test_a_pipeline_without_steps_is_a_sentence():
    X, y = iris()
    with pytest.raises(ValueError, match=r"estimator must be .* got a Pipeline without steps\."):
        HyperparameterSearchCV(Pipeline([])).fit(X, y)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_dtypes_that_no_product_has_are_named(kind):
    torch = pytest.importorskip("torch")
    X, y = torch.eye(12, dtype=torch.float64), torch.arange(12.0)
    half = X.to(getattr(torch, kind))
    said = "must be of dtype float32 or float64, got torch." + kind
    for name in ("ridge", "logistic regression", "kernel ridge"):
        with pytest.raises(TypeError, match="^X " + said):
            BEFORE[name][0](cv=2).fit(half, y % 2)
    with pytest.raises(TypeError, match="^X_val of cv is refused: X " + said):
        BilevelRidge(cv=(half, y)).fit(X, y)
    if kind == "bfloat16":  # NumPy has the other
        with pytest.raises(TypeError, match="^X " + said):
            HyperparameterSearchCV(Ridge(), cv=2).fit(half, y)


@pytest.mark.parametrize("name", BEFORE)
def test_a_mask_of_integers_is_refused(name):
    """It was taken for rows 0 and 1, many times each."""
    make, target = BEFORE[name]
    X, y = make_regression(40, 5, noise=1.0, random_state=0)
    mask = np.arange(40) < 30
    with pytest.raises(
        ValueError, match="Split 0 of cv holds rows 0 and 1 alone, 40 times: a mask"
    ):
        make(cv=[(mask.astype(int), 1 - mask)]).fit(X, target(y))
    drawn = np.random.default_rng(0).integers(0, 30, 40)  # with replacement, as it may be
    for split in [(mask, ~mask), (mask.tolist(), (~mask).tolist()), (drawn, np.arange(30, 40))]:
        make(cv=[split]).fit(X, target(y))


# -- groups of rows ------------------------------------------------------------------------------


def grouped():
    X, y = make_regression(60, 5, noise=5.0, random_state=0)
    return X, y, np.random.default_rng(0).integers(0, 9, 60)


@pytest.mark.parametrize("routing", first(1, [True, False]))
@pytest.mark.parametrize("name", BEFORE)
def test_groups_reach_the_splitter(name, routing):
    make, target = BEFORE[name]
    X, y, groups = grouped()
    y = target(y)
    splitter = StratifiedGroupKFold(3) if name == "logistic regression" else GroupKFold(3)
    with config_context(enable_metadata_routing=routing):
        found = make(cv=splitter).fit(X, y, groups=groups)
    given = make(cv=list(splitter.split(X, y, groups))).fit(X, y)
    assert found.best_score_ == given.best_score_
    with pytest.raises(ValueError, match="groups"):
        make(cv=splitter).fit(X, y)  # scikit-learn's sentence
    assert found.best_score_ != make(cv=3).fit(X, y).best_score_


@pytest.mark.parametrize("name", BEFORE)
def test_groups_are_routed_to_the_splitter_of_an_estimator_in_a_loop(name):
    """As to that of LogisticRegressionCV: the splitter requests them, no one need say it."""
    make, target = BEFORE[name]
    X, y, groups = grouped()
    y = target(y)
    splitter = GroupKFold(3)
    with config_context(enable_metadata_routing=True):
        model = make(cv=GroupKFold(2))
        scores = cross_val_score(model, X, y, cv=splitter, params={"groups": groups})
    by_hand = [
        make(cv=GroupKFold(2)).fit(X[a], y[a], groups=groups[a]).score(X[b], y[b])
        for a, b in splitter.split(X, y, groups)
    ]
    np.testing.assert_allclose(scores, by_hand)


@pytest.mark.parametrize("name", BEFORE)
def test_groups_that_no_splitter_looks_at_are_refused(name):
    make, target = BEFORE[name]
    X, y, groups = grouped()
    for cv in (3, 0.3, (X, target(y)), [(np.arange(30), np.arange(30, 60))]):
        with pytest.raises(ValueError, match="^groups are for a splitter that keeps them together"):
            make(cv=cv).fit(X, target(y), groups=groups)
    for bad in (groups[:-1], 3, groups[:, None]):
        with pytest.raises(ValueError, match=r"^groups must have shape \(60,\)"):
            make(cv=GroupKFold(3)).fit(X, target(y), groups=bad)
    with pytest.raises(TypeError, match="^groups must be a plain array"):
        make(cv=GroupKFold(3)).fit(X, target(y), groups=np.ma.array(groups))


def test_groups_follow_x_from_a_device():
    torch = pytest.importorskip("torch")
    X, y, groups = grouped()
    there = BilevelRidge(cv=GroupKFold(3)).fit(
        *map(torch.asarray, (X, y)), groups=torch.asarray(groups)
    )
    here = BilevelRidge(cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert float(there.alpha_) == pytest.approx(here.alpha_, rel=1e-6)


def unix_times():
    """Integers whose spread lies below the rounding of float32, and targets that follow it."""
    rng = np.random.default_rng(0)
    times = 1_700_000_000 + rng.integers(0, 60, 120)
    X = np.stack([times, rng.integers(0, 9, 120)], axis=1)
    return X, 0.5 * (times - 1.7e9) + rng.standard_normal(120)


@pytest.mark.parametrize("kind", ["X", "y", "bool", "kernel", "classes"])
def test_integers_are_what_numpy_makes_of_them(backend, kind):
    X, y = unix_times()
    X, y, model = {
        "X": (X, y, BilevelRidge(cv=4)),
        "y": (X[:, 1:] + 0.5, X[:, 0], BilevelRidge(cv=4)),
        "bool": (X.mean(axis=0) < X, y, BilevelRidge(cv=4)),
        "kernel": (X[:, 1:], X[:, 0], BilevelKernelRidge(cv=4, fit_intercept=True)),
        "classes": (X, (y > 15).astype(int), BilevelLogisticRegression(cv=4)),
    }[kind]
    name = "C_" if kind == "classes" else "alpha_"
    found = clone(model).fit(backend.asarray(X), backend.asarray(y))
    wanted = model.fit(X.astype(float), y if kind == "classes" else y.astype(float))
    (chosen,) = backend.scalars(backend.asarray(getattr(found, name)))
    assert chosen == pytest.approx(getattr(wanted, name), rel=1e-3)
    predicted = backend.to_numpy(found.predict(backend.asarray(X)))
    level = y.mean()
    np.testing.assert_allclose(predicted - level, wanted.predict(X) - level, rtol=1e-6, atol=1e-2)


def test_float32_asked_for_stays_and_predicts_integers(backend):
    """The negative control: no float is made finer than it was given."""
    X, y = (a.astype(np.float32) for a in make_regression(40, 3, noise=1.0, random_state=0))
    model = BilevelRidge(cv=2).fit(backend.asarray(X), backend.asarray(y))
    assert model.coef_.dtype == backend.xp.float32
    whole = np.round(X).astype(np.int64)
    wanted = whole @ backend.to_numpy(model.coef_) + float(model.intercept_)
    found = backend.to_numpy(model.predict(backend.asarray(whole)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


WITHOUT_DOUBLES = """
import jax.numpy as jnp, numpy as np, sys
from bilevel.estimators import BilevelRidge
X = np.array([[1, 2], [3, 5], [4, 4], [7, 0]])
model = BilevelRidge(cv=2).fit(jnp.asarray(X), np.array([1, 2, 3, 5]))
assert model.coef_.dtype == jnp.float32
said = []
for y in ([2**24 + 1, 0, 0, 1], [2**40, 0, 0, 1]):
    try:
        BilevelRidge(cv=2).fit(jnp.asarray(X), np.array(y))
    except Exception as error:
        said.append(str(error))
assert "y must hold integers of at most 2^24" in said[0], said
assert "int64 into int32, which does not hold 1099511627776" in said[1], said
"""


def test_without_float64_integers_are_held_or_refused():
    pytest.importorskip("jax")
    env = {**os.environ, "JAX_ENABLE_X64": "0", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_DOUBLES],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_complex_targets_are_refused(backend):
    X, y = np.eye(4), np.arange(4) + 1j
    with pytest.raises(ValueError, match="Complex data not supported"):
        BilevelRidge(cv=2).fit(backend.asarray(X), backend.xp.asarray(y, device=backend.device))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-170, 1e-162])
def test_targets_whose_squares_underflow_are_told(scale):
    """alpha does not change with the scale of y: another one than that of y itself is wrong."""
    X, y = make_regression(40, 3, noise=5.0, random_state=0)
    with pytest.warns(ConvergenceWarning, match="ended early.* moderate size"):
        BilevelRidge(cv=2).fit(X, y * scale)


@pytest.mark.parametrize("scale", [0.0, 1e-140, 1.0])
def test_targets_that_do_not_underflow_are_no_matter(scale):
    """The negative control: what is 0 throughout is fitted, and no digit is lost."""
    X, y = make_regression(40, 3, noise=5.0, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BilevelRidge(cv=2).fit(X, y * scale)


def test_equal_rows_are_called_so():
    y = np.random.default_rng(0).standard_normal(20)
    with pytest.warns(ConvergenceWarning, match="all rows of X are equal"):
        BilevelKernelRidge(cv=2).fit(np.full((20, 2), 3.0), y)


def test_what_a_penalty_and_a_solver_are_to_be_is_said():
    X, y = iris()
    for settings, said in (
        ({"penalty": "l1", "solver": "liblinear"}, "got penalty='l1'"),
        ({"solver": "liblinear"}, "expected another solver"),
    ):
        search = HyperparameterSearchCV(LogisticRegression(**settings), cv=2)
        with pytest.raises(ValueError, match=said):
            search.fit(X, y == 1)
