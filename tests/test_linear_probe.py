"""The linear probe: scikit-learn's model at the C found, and no better C on a grid beside it."""

from __future__ import annotations

import numpy as np
import pytest
from thin import first

import bilevel
from bilevel.linear_probe import Scored


def features(c=4, n=900, p=8, seed=0, dtype=np.float64):
    """Rows about the mean of their class, with columns far from zero and of unlike scales."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    X = rng.standard_normal((n, p)) + 0.4 * rng.standard_normal((c, p))[y]
    X = (X * np.geomspace(3, 0.1, p) + 2).astype(dtype)
    half = n // 2
    return X[:half], y[:half], X[half:], y[half:]


def theirs(X, y, C, fit_intercept=True):
    linear = pytest.importorskip("sklearn.linear_model")
    model = linear.LogisticRegression(C=C, fit_intercept=fit_intercept, tol=1e-10, max_iter=10_000)
    return model.fit(X, y)


def loss(model, X, y):
    return pytest.importorskip("sklearn.metrics").log_loss(y, model.predict_proba(X))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("c", first(2, [2, 3, 5]))
def test_it_is_their_model_at_a_c_that_no_grid_betters(c, fit_intercept):
    X, y, X_val, y_val = features(c)
    found = bilevel.probe(X, y, X_val, y_val, fit_intercept=fit_intercept)
    assert found.result.success
    model = theirs(X, y, found.C, fit_intercept)
    np.testing.assert_allclose(found.coef, model.coef_, atol=1e-5 * np.abs(model.coef_).max())
    intercept = model.intercept_ - (model.intercept_.mean() if c > 2 else 0)
    np.testing.assert_allclose(found.intercept, intercept, atol=1e-3)
    assert found.log_loss == pytest.approx(loss(model, X_val, y_val), rel=1e-6)
    assert found.accuracy == pytest.approx(model.score(X_val, y_val))
    np.testing.assert_array_equal(found.predict(X_val), model.predict(X_val))
    np.testing.assert_allclose(found.predict_proba(X_val), model.predict_proba(X_val), atol=1e-5)
    for factor in (0.5, 0.9, 1.1, 2.0):
        beside = theirs(X, y, found.C * factor, fit_intercept)
        assert found.log_loss <= loss(beside, X_val, y_val) * (1 + 2e-5)


def test_columns_are_scaled_without_a_word_of_it_in_the_model():
    X, y, X_val, y_val = features(3)
    mean, scale = X.mean(0), X.std(0)
    by_hand = bilevel.probe((X - mean) / scale, y, (X_val - mean) / scale, y_val)
    found = bilevel.probe(X, y, X_val, y_val, standardize=True)
    assert pytest.approx(by_hand.C, rel=1e-6) == found.C
    np.testing.assert_allclose(found.coef, by_hand.coef / scale, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        found.predict_proba(X_val), by_hand.predict_proba((X_val - mean) / scale), atol=1e-6
    )


def test_a_refit_is_of_both_sets():
    X, y, X_val, y_val = features(3)
    found = bilevel.probe(X, y, X_val, y_val, refit=True)
    apart = bilevel.probe(X, y, X_val, y_val)
    assert (found.C, found.log_loss, found.accuracy) == (apart.C, apart.log_loss, apart.accuracy)
    both = theirs(np.concatenate([X, X_val]), np.concatenate([y, y_val]), found.C)
    np.testing.assert_allclose(found.coef, both.coef_, atol=1e-5 * np.abs(both.coef_).max())


def test_the_steps_say_loss_and_accuracy_on_the_way():
    X, y, X_val, y_val = features(3)
    seen = []
    found = bilevel.probe(X, y, X_val, y_val, C=100.0, callback=seen.append)
    assert tuple(seen) == found.steps
    assert [s.passes for s in seen] == sorted(s.passes for s in seen)
    assert pytest.approx(100.0) == seen[0].C
    assert pytest.approx(found.C, rel=0.1) == seen[-1].C
    for step in seen:
        model = theirs(X, y, step.C)
        assert step.log_loss == pytest.approx(loss(model, X_val, y_val), rel=0.02)
        assert step.accuracy == pytest.approx(model.score(X_val, y_val), abs=0.02)
    assert all(isinstance(record.details, Scored) for record in found.result.history)
    ended = bilevel.probe(X, y, X_val, y_val, C=100.0, callback=lambda step: True)
    assert len(ended.steps) == 1


def test_a_search_that_was_broken_off_goes_on(tmp_path):
    X, y, X_val, y_val = features(3)
    file = tmp_path / "probe.npz"
    whole = bilevel.probe(X, y, X_val, y_val, C=50.0)
    bilevel.probe(X, y, X_val, y_val, C=50.0, max_iter=1, checkpoint=file)
    again = bilevel.probe(X, y, X_val, y_val, C=50.0, checkpoint=file, resume=True)
    assert again.C == whole.C
    assert [(s.C, s.log_loss) for s in again.steps] == [(s.C, s.log_loss) for s in whole.steps]


def test_labels_are_any_integers():
    X, y, X_val, y_val = features(3)
    names = np.array([-7, 3, 1000])
    found = bilevel.probe(X, names[y], X_val, names[y_val])
    plain = bilevel.probe(X, y, X_val, y_val)
    np.testing.assert_array_equal(found.classes, names)
    assert found.C == plain.C
    np.testing.assert_array_equal(found.predict(X_val), names[plain.predict(X_val)])


def test_any_library(backend):
    X, y, X_val, y_val = features(3, n=240, p=4, dtype=np.float32)
    send = backend.asarray
    found = bilevel.probe(send(X), send(y), send(X_val), send(y_val), max_iter=3)
    expected = bilevel.probe(X, y, X_val, y_val, max_iter=3)
    assert bilevel.get_backend(found.coef) == backend
    assert found.coef.dtype == send(X).dtype
    assert found.log_loss == pytest.approx(expected.log_loss, rel=1e-3)
    predicted = backend.to_numpy(found.predict(send(X_val)))
    assert np.mean(predicted == expected.predict(X_val)) > 0.98


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"y": lambda y: y.astype(float)}, TypeError, "y must hold integers, a class each"),
        ({"y": lambda y: y[:-1]}, ValueError, r"y must have shape \(450,\), got \(449,\)"),
        ({"y": lambda y: 0 * y}, ValueError, "two classes or more, got one"),
        ({"y_val": lambda y: y + 1}, ValueError, r"y_val must hold labels of y, got others: \[3\]"),
        ({"X_val": lambda X: X[:, 1:]}, ValueError, "X_val must have the 8 columns of X, got 7"),
        ({"C": lambda C: 0.0}, ValueError, "C must"),
        ({"C": lambda C: 1e9}, ValueError, "C must lie within C_bounds, 1e-05 to 100000"),
        ({"C_bounds": lambda b: (2.0, 1.0)}, ValueError, "C_bounds must be two numbers, the lower"),
        ({"refit": lambda b: 1}, TypeError, "refit must be True or False"),
    ],
)
def test_wrong_input_is_refused_by_name(change, error, text):
    X, y, X_val, y_val = features(3)
    given = {"X": X, "y": y, "X_val": X_val, "y_val": y_val, "C": 1.0, "C_bounds": (1e-5, 1e5)}
    given["refit"] = False
    for name, how in change.items():
        given[name] = how(given[name])
    with pytest.raises(error, match=text):
        bilevel.probe(**given)
