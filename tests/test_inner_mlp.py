"""The multilayer perceptron: R-operator against differences and autodiff, curvature reported."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import check_inner, check_outer, close, one_of_each_kind

import bilevel
from bilevel.inner import Sigmoid, Tanh, linear_model, mlp, negative_curvature
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.outer import held_out_mlp

N, P = 9, 3
NUMPY = bilevel.get_backend("numpy")
RNG = np.random.default_rng(0)
X, X_VAL = RNG.standard_normal((N, P)), RNG.standard_normal((4, P))
CLASSES, REALS, SIGNS = RNG.integers(0, 3, N), RNG.standard_normal((N, 2)), np.ones(N)
SIGNS[::2] = -1

NETWORKS = {
    "multinomial": (Multinomial(3), CLASSES, [4], Tanh(), None),
    "two layers": (Multinomial(3), CLASSES, [4, 2], Sigmoid(), None),
    "two targets": (Squared(), REALS, [3], Tanh(), None),
    "weights": (Logistic(), SIGNS, [3, 2], Tanh(), RNG.uniform(0.1, 2, N)),
    "linear": (Squared(), REALS[:, 0], [], Tanh(), None),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name, backend):
    loss, y, hidden, activation, weights = NETWORKS[name]
    return mlp(
        backend.asarray(X),
        backend.asarray(y),
        loss,
        hidden,
        activation=activation,
        sample_weight=None if weights is None else backend.asarray(weights),
    )


def start(inner):
    rng = np.random.default_rng(3)
    return 0.7 * rng.standard_normal(inner.x_shape), rng.uniform(-1, 1, inner.n_hyperparameters)


@every_network
def test_derivatives(backend, name):
    one_of_each_kind(backend, name == "weights")
    inner = build(name, backend)
    check_inner(inner, *start(inner))


def test_held_out_gradient(backend):
    inner = build("two layers", backend)
    outer = held_out_mlp(inner, backend.asarray(X_VAL), backend.asarray(np.array([0, 1, 2, 0])))
    check_outer(outer, backend, *start(inner))


@every_network
def test_hessian_matches_torch_autodiff(name):
    torch = pytest.importorskip("torch")
    inner = build(name, bilevel.get_backend("torch"))
    x, lam = (torch.tensor(a, requires_grad=True) for a in start(inner))
    grad, _ = torch.autograd.grad(inner.at(x, lam).value, (x, lam), create_graph=True)
    v = torch.ones_like(x)
    hv, bv = torch.autograd.grad((grad * v).sum(), (x, lam))
    point = inner.at(x.detach(), lam.detach())
    close(point.grad, grad.detach(), rtol=1e-10)
    close(point.hvp(v), hv, rtol=1e-10)
    close(point.cross_vjp(v), bv, rtol=1e-10)


def test_without_hidden_units_it_is_the_linear_model():
    inner = build("linear", NUMPY)
    other = linear_model(np.hstack([X, np.ones((N, 1))]), REALS[:, 0], Squared())
    x, lam = start(inner)
    close(inner.at(x, lam).grad, other.at(x, lam).grad, rtol=1e-12)


def test_no_strong_convexity_is_claimed():
    inner = build("multinomial", NUMPY)
    constants = inner.constants(np.zeros(2))
    assert constants.mu is None
    assert constants.smoothness is None


def test_negative_curvature_is_found_where_it_is_and_nowhere_else():
    inner = build("multinomial", NUMPY)
    x, _ = start(inner)
    for log_decay, negative in ((-6.0, True), (5.0, False)):
        point = inner.at(x, np.full(2, log_decay))
        eigenvalues = np.linalg.eigvalsh(point.hvp(np.eye(x.size)))
        assert (eigenvalues[0] < 0) == negative
        found = negative_curvature(point, NUMPY)
        assert found.is_negative == negative
        assert found.value == pytest.approx(eigenvalues[0], rel=1e-6)
        assert found.direction @ point.hvp(found.direction) == pytest.approx(found.value)
        assert np.min(np.abs(eigenvalues - found.value)) <= found.residual + 1e-10


def test_float32_stays_float32():
    inner = mlp(X.astype(np.float32), CLASSES, Multinomial(3), [4])
    x = inner.initial()
    point = inner.at(x, np.zeros(2, dtype=np.float32))
    for array in (x, point.value, point.grad, point.hvp(x), point.cross_vjp(x)):
        assert array.dtype == np.float32


def test_saturated_units_have_finite_products():
    inner = build("multinomial", NUMPY)
    x, lam = start(inner)
    assert np.isfinite(inner.at(1e4 * x, lam).hvp(x)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mlp(X, CLASSES, Multinomial(3), [0]), "hidden"),
        (
            lambda: mlp(X, CLASSES[:-1], Multinomial(3), [2]),
            "y must have shape .* a label for each row of X",
        ),
        (
            lambda: mlp(X, CLASSES, Multinomial(3), [2], sample_weight=np.ones(2)),
            "sample_weight",
        ),
        (
            lambda: held_out_mlp(build("multinomial", NUMPY), X[:, :2], CLASSES),
            "features",
        ),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
