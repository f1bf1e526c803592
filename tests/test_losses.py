"""Losses: derivatives against differences and torch, values against scikit-learn, constants."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import central, close, one_of_each_kind

import bilevel
from bilevel.losses import Huber, Logistic, Multinomial, Poisson, Squared, SquaredHinge

N = 12
NUMPY = bilevel.get_backend("numpy")


def labels(loss, rng):
    if isinstance(loss, Multinomial):
        return rng.integers(0, loss.n_classes, N)
    if isinstance(loss, (Logistic, SquaredHinge)):
        return np.sign(rng.standard_normal(N))
    if isinstance(loss, Poisson):
        return rng.poisson(2.0, N).astype(float)
    return rng.standard_normal(N)


LOSSES = [Squared(), Huber(0.7), Logistic(), SquaredHinge(), Poisson(), Multinomial(4)]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


@every_loss
@pytest.mark.parametrize("folds", [None, 3])
def test_derivatives_match_central_differences(backend, loss, folds):
    one_of_each_kind(backend, folds is not None)
    rng = np.random.default_rng(1)
    y = loss.encode(backend.asarray(labels(loss, rng)), backend, backend.xp.float64, "y")
    shape = (N, *loss.output_shape, *(() if folds is None else (folds,)))
    if folds is not None:
        y = y[..., None]
    t, d = rng.standard_normal(shape), rng.standard_normal(shape)
    send, host = backend.asarray, backend.to_numpy

    def value(step):
        found = host(loss.value(y, send(t + step * d), backend))
        return found if not loss.output_shape else found[:, 0, ...]

    def slope(array):
        return array * d if not loss.output_shape else (array * d).sum(axis=1)

    first = host(loss.derivative(y, send(t), backend))
    close(slope(first), central(value, 1e-4))
    curvature = loss.curvature(y, send(t), backend)
    product = host(loss.curvature_product(curvature, send(d), backend))
    close(product, central(lambda s: host(loss.derivative(y, send(t + s * d), backend)), 1e-4))
    several = np.stack([d, 2 * d], axis=-1)
    together = host(loss.curvature_product(curvature, send(several), backend))
    close(together[..., 1], 2 * product, rtol=1e-12)


@every_loss
def test_float32_stays_float32(loss):
    y = loss.encode(
        labels(loss, np.random.default_rng(0)).astype(np.int64) * 0 + 1, NUMPY, np.float32, "y"
    )
    t = np.full((N, *loss.output_shape), 0.25, dtype=np.float32)
    for array in (
        loss.value(y, t, NUMPY),
        loss.derivative(y, t, NUMPY),
        loss.curvature_product(loss.curvature(y, t, NUMPY), t, NUMPY),
        loss.curvature_diag(loss.curvature(y, t, NUMPY), NUMPY),
    ):
        assert array.dtype == np.float32


@every_loss
def test_declared_bounds_hold_and_are_nearly_reached(loss):
    """sup of the curvature and of its slope, sought on a grid, against the declared numbers."""
    if loss.output_shape:
        pytest.skip("checked on its own below")
    t = np.linspace(-6, 6, 20001)
    y = np.ones_like(t)
    curvature = loss.curvature(y, t, NUMPY)
    assert loss.curvature_lower <= curvature.min() + 1e-12
    if loss.curvature_bound is not None:
        assert curvature.max() <= loss.curvature_bound
        assert curvature.max() >= 0.999 * loss.curvature_bound
    if loss.third_bound is not None:
        third = np.abs(np.diff(curvature) / np.diff(t))
        assert third.max() <= loss.third_bound + 1e-9
        assert third.max() >= 0.999 * loss.third_bound


def test_multinomial_bounds_are_reached_by_two_classes_and_never_exceeded():
    loss = Multinomial(3)
    rng = np.random.default_rng(0)

    def hessian(t):
        p = loss.curvature(None, t[None], NUMPY)[0]
        return np.diag(p) - np.outer(p, p)

    # Two even classes: the variance of u = (1, -1)/√2 is 1/2.
    even = hessian(np.array([0.0, 0.0, -40.0]))
    assert np.linalg.norm(even, 2) == pytest.approx(loss.curvature_bound)
    best = 0.0
    for _ in range(4000):
        t = rng.uniform(-3, 3, 3) - np.array([0, 0, rng.choice([0.0, 20.0])])
        u = rng.standard_normal(3)
        u /= np.linalg.norm(u)
        change = np.linalg.norm(hessian(t + 1e-4 * u) - hessian(t - 1e-4 * u), 2) / 2e-4
        best = max(best, change)
    assert 0.9 * loss.third_bound < best <= loss.third_bound + 1e-7


def test_values_match_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    t = rng.standard_normal((N, 4))
    y = rng.integers(0, 4, N)
    loss = Multinomial(4)
    found = loss.value(loss.encode(y, NUMPY, np.float64, "y"), t, NUMPY).sum()
    p = np.exp(t) / np.exp(t).sum(axis=1, keepdims=True)
    assert found == pytest.approx(metrics.log_loss(y, p, normalize=False, labels=range(4)))
    counts, mean = rng.poisson(2.0, N) + 1.0, rng.standard_normal(N)
    deviance = 2 * (Poisson().value(counts, mean, NUMPY) - (counts - counts * np.log(counts)))
    assert deviance.mean() == pytest.approx(metrics.mean_poisson_deviance(counts, np.exp(mean)))


@every_loss
def test_gradient_matches_torch_autodiff(loss):
    torch = pytest.importorskip("torch")
    backend = bilevel.get_backend("torch")
    rng = np.random.default_rng(3)
    y = loss.encode(backend.asarray(labels(loss, rng)), backend, torch.float64, "y")
    t = torch.tensor(rng.standard_normal((N, *loss.output_shape)), requires_grad=True)
    (grad,) = torch.autograd.grad(loss.value(y, t, backend).sum(), t)
    close(loss.derivative(y, t.detach(), backend), grad)


def test_multinomial_takes_classes_or_one_hot_rows():
    loss = Multinomial(3)
    one_hot = loss.encode(np.array([2, 0]), NUMPY, np.float64, "y")
    assert np.array_equal(one_hot, [[0, 0, 1], [1, 0, 0]])
    assert np.array_equal(loss.encode(one_hot, NUMPY, np.float64, "y"), one_hot)


@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        (Logistic(), np.array([0.0, 1.0]), "-1 and \\+1"),
        (SquaredHinge(), np.array([2.0]), "-1 and \\+1"),
        (Poisson(), np.array([-1.0]), "counts"),
        (Multinomial(3), np.array([3]), "classes 0, ..., 2"),
        (Multinomial(3), np.array([0.5]), "classes 0, ..., 2"),
        (Multinomial(3), np.array([[0.5, 0.5]]), "shape"),
        (Multinomial(2), np.array([[0.5, 0.7]]), "sum to 1"),
        (Squared(), np.array([np.nan]), "NaN"),
    ],
)
def test_labels_of_another_loss_are_refused_by_name(loss, y, words):
    with pytest.raises(ValueError, match=f"target.*{words}"):
        loss.encode(y, NUMPY, np.float64, "target")


@pytest.mark.parametrize(
    "make", [lambda: Huber(0.0), lambda: Huber(np.inf), lambda: Multinomial(1)]
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


def test_extreme_predictions_stay_finite():
    t = np.array([-800.0, 800.0])
    for loss in (Logistic(), SquaredHinge(), Huber(), Squared()):
        y = np.ones(2)
        assert np.isfinite(loss.value(y, t, NUMPY)).all()
        assert np.isfinite(loss.curvature(y, t, NUMPY)).all()
    loss = Multinomial(2)
    y = loss.encode(np.array([0]), NUMPY, np.float64, "y")
    assert loss.value(y, t[None], NUMPY) == pytest.approx(1600.0)
    assert np.isfinite(loss.derivative(y, t[None], NUMPY)).all()


def test_the_slope_of_huber_is_clipped_to_the_bit(backend, dtype):
    """By NumPy's clip; what is no number stays none, and zeros keep their sign."""
    delta, t = 1.35, np.array([-np.inf, -9.0, -1.35, -0.0, 0.0, 1e-30, 1.35, 2.0, np.inf, np.nan])
    t = t.astype(np.float32 if dtype == backend.xp.float32 else np.float64)
    y = np.zeros_like(t)
    send = lambda v: backend.asarray(v, dtype=dtype)
    found = backend.to_numpy(Huber(delta).derivative(send(y), send(t), backend))
    expected = np.clip(t - y, -delta, delta).astype(t.dtype)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_curvatures_of_rows_far_on_the_wrong_side_keep_their_digits(dtype):
    """s (1 - s) of an s near 1 was 0 from a margin of -37 on: differences of H refuted ℓ'''."""
    most = 600 if dtype == np.float64 else 80
    t = np.concatenate([np.linspace(-most, most, 301), [-0.3, 0.0, 0.3]]).astype(dtype)
    e = np.exp(-np.abs(t.astype(np.longdouble)))
    curvature = e / (1 + e) ** 2
    for y in (np.ones_like(t), -np.ones_like(t)):
        third = -curvature * np.sign(t) * (1 - e) / (1 + e)
        close = {"rtol": 64 * np.finfo(dtype).eps, "atol": 4 * np.finfo(dtype).tiny}
        assert Logistic().curvature(y, t, NUMPY).dtype == dtype
        np.testing.assert_allclose(Logistic().curvature(y, t, NUMPY), curvature, **close)
        found = Logistic().third(y, t, NUMPY)[np.abs(t) > 1]
        np.testing.assert_allclose(found, third[np.abs(t) > 1], **close)


def test_integer_labels_that_float32_would_round_are_refused(backend):
    """A float of another precision is refused there, too; what float32 holds is taken."""
    X = backend.asarray(np.eye(2, dtype=np.float32))
    bilevel.inner.linear_model(X, backend.asarray(np.array([2**24, 1])), Squared())
    with pytest.raises(ValueError, match="y must hold integers of at most 2\\^24"):
        bilevel.inner.linear_model(X, backend.asarray(np.array([2**24 + 1, 1])), Squared())
