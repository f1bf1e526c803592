"""Kernel ridge regression and kernels against differences, closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from derivatives import central, check_constants, check_inner, close, one_of_each_kind

import bilevel
from bilevel.inner import RBF, Matern32, Matern52, Polynomial, UserKernel, kernel_ridge

N, P = 12, 3
NUMPY = bilevel.get_backend("numpy")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, P))
Z = RNG.standard_normal((5, P))
Y = RNG.standard_normal(N)


def user_kernel(backend):
    """e^{θ_0} (a linear kernel) + e^{θ_1}: a user's own, with two parameters."""
    xp = backend.xp

    def block(X, Z, theta):
        return xp.exp(theta[0]) * xp.matmul(X, Z.T) + xp.exp(theta[1])

    def derivatives(X, Z, theta):
        product = xp.matmul(X, Z.T)
        return xp.exp(theta[0]) * product, xp.exp(theta[1]) * xp.ones_like(product)

    def diag(X, theta):
        return xp.exp(theta[0]) * xp.sum(X * X, axis=1) + xp.exp(theta[1])

    def second(X, Z, theta):
        first, last = derivatives(X, Z, theta)
        return first, xp.zeros_like(first), last

    return UserKernel(2, block, derivatives, diag, function_second_derivatives=second)


KERNELS = {
    "rbf": lambda backend: RBF(),
    "matern 3/2": lambda backend: Matern32(),
    "matern 5/2": lambda backend: Matern52(),
    "polynomial": lambda backend: Polynomial(2, 0.5),
    "user": user_kernel,
}
every_kernel = pytest.mark.parametrize("name", KERNELS)


def start(inner, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(inner.x_shape), rng.uniform(-1, 0.5, inner.n_hyperparameters)


@every_kernel
@pytest.mark.parametrize("targets", [None, 2])
def test_derivatives(backend, name, targets):
    one_of_each_kind(backend, targets is None)
    y = Y if targets is None else np.stack([Y, 2 * Y], axis=1)
    # Blocks of two rows, never kept: the path of bounded memory.
    inner = kernel_ridge(
        backend.asarray(X),
        backend.asarray(y),
        KERNELS[name](backend),
        kept_entries=0,
        block_entries=2 * N,
    )
    check_inner(inner, *start(inner))


@every_kernel
def test_blocks_change_nothing(name):
    kept = kernel_ridge(X, Y, KERNELS[name](NUMPY))
    blocks = kernel_ridge(X, Y, KERNELS[name](NUMPY), kept_entries=0, block_entries=5)
    x, lam = start(kept)
    close(blocks.at(x, lam).grad, kept.at(x, lam).grad, rtol=1e-13)
    matrix = kept.cross_matrix(Z, lam, kept.counter)
    assert matrix.dense().shape == (5, N)
    in_blocks = blocks.cross_matrix(Z, lam, blocks.counter)
    close(in_blocks.rmatmul(np.ones(5)), matrix.dense().T @ np.ones(5), rtol=1e-13)


@every_kernel
def test_declared_constants_are_not_exceeded(name):
    inner = kernel_ridge(X, Y, KERNELS[name](NUMPY))
    check_constants(inner, start(inner)[1])


@every_kernel
def test_diagonal_and_derivatives_of_the_kernel(name):
    kernel = KERNELS[name](NUMPY)
    theta = np.linspace(-0.5, 0.3, kernel.n_parameters)
    close(kernel.diag(X, theta, NUMPY), np.diag(kernel.block(X, X, theta, NUMPY)), rtol=1e-12)
    for i, found in enumerate(kernel.derivatives(X, Z, theta, NUMPY)):
        e = np.eye(kernel.n_parameters)[i]
        close(found, central(lambda t, e=e: kernel.block(X, Z, theta + t * e, NUMPY), 1e-3))


@pytest.mark.parametrize("kernel", [RBF(), Matern32(), Matern52()])
def test_derivative_bounds_are_reached(kernel):
    r = np.linspace(0, 12, 100001)[:, None]
    (derivative,) = kernel.derivatives(r, np.zeros((1, 1)), np.zeros(1), NUMPY)
    assert np.abs(derivative).max() <= kernel.derivative_bound
    assert np.abs(derivative).max() >= 0.9999 * kernel.derivative_bound


def test_kernels_and_solutions_match_scikit_learn():
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    ridge = pytest.importorskip("sklearn.kernel_ridge")
    theta = np.array([-0.4])
    gamma = np.exp(-0.4)
    for ours, nu in ((Matern32(), 1.5), (Matern52(), 2.5)):
        close(ours.block(X, Z, theta, NUMPY), kernels.Matern(1 / gamma, nu=nu)(X, Z), rtol=1e-12)
    close(RBF().block(X, Z, theta, NUMPY), pairwise.rbf_kernel(X, Z, gamma), rtol=1e-12)
    close(
        Polynomial(3, 0.7).block(X, Z, theta, NUMPY),
        pairwise.polynomial_kernel(X, Z, 3, gamma, 0.7),
        rtol=1e-12,
    )
    inner = kernel_ridge(X, Y, RBF())
    other = ridge.KernelRidge(alpha=0.1, kernel="rbf", gamma=gamma).fit(X, Y)
    point = inner.at(other.dual_coef_, np.array([-0.4, np.log(0.1)]))
    assert np.linalg.norm(point.grad) < 1e-12


def test_a_ray_shares_the_kernel_matrix():
    inner = kernel_ridge(X, Y, RBF())
    x, lam = start(inner)
    point = inner.at(x, lam)
    ray = point.ray(point.grad)
    before = inner.passes
    ahead = ray.at(0.5)
    assert ahead.matrix is point.matrix
    assert ahead.grad.shape == x.shape
    assert inner.passes == before


def test_gradient_matches_torch_autodiff():
    torch = pytest.importorskip("torch")
    backend = bilevel.get_backend("torch")
    # no Matérn here: autodiff of √ gives NaN on the diagonal of the kernel matrix
    for name in ("rbf", "polynomial", "user"):
        inner = kernel_ridge(backend.asarray(X), backend.asarray(Y), KERNELS[name](backend))
        x, lam = (torch.tensor(a, requires_grad=True) for a in start(inner))
        (grad,) = torch.autograd.grad(inner.at(x, lam).value, x, create_graph=True)
        v = torch.ones_like(x)
        hv, bv = torch.autograd.grad((grad * v).sum(), (x, lam))
        point = inner.at(x.detach(), lam.detach())
        close(point.grad, grad.detach())
        close(point.hvp(v), hv)
        close(point.cross_vjp(v), bv)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((X, Y[:-1]), ValueError, "y must have shape"),
        ((X[:, 0], Y), ValueError, "X must have shape"),
        ((X, Y.astype(np.float32)), TypeError, "dtype"),
        ((X, np.full(N, np.nan)), ValueError, "NaN"),
    ],
)
def test_errors_name_the_argument(arguments, error, words):
    with pytest.raises(error, match=words):
        kernel_ridge(*arguments, RBF())


def test_kernel_parameters_out_of_range_are_refused():
    with pytest.raises(ValueError, match="degree"):
        Polynomial(0)
    with pytest.raises(ValueError, match="constant"):
        Polynomial(2, -1.0)
