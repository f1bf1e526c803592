"""Hold analytic derivatives of points against central differences, on any backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bilevel.inner import Bending, Pushable
from bilevel.outer import BendingOuter

RELATIVE = 1e-6


def close(actual: Any, expected: Any, rtol: float = RELATIVE, atol: float = 0.0) -> None:
    """Compare in the norm, relative to its size: entries near zero are not held to their own."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = np.linalg.norm(actual - expected)
    assert error <= rtol * np.linalg.norm(expected) + atol, (error, np.linalg.norm(expected))


def one_of_each_kind(backend: Any, example: bool) -> None:
    """Skip all but the examples where each operation is compiled anew, which takes long.

    HYPOTHESIS_PROFILE=thorough runs everything everywhere.
    """
    slow = backend.name in ("jax", "dpnp") and os.environ.get("HYPOTHESIS_PROFILE") != "thorough"
    if slow and not example:
        pytest.skip("one of each kind is enough here; HYPOTHESIS_PROFILE=thorough runs all")


def central(f: Callable[[float], Any], step: float) -> Any:
    """f'(0) by a central difference with Richardson's extrapolation: error O(step⁴)."""
    coarse = (f(2 * step) - f(-2 * step)) / (4 * step)
    fine = (f(step) - f(-step)) / (2 * step)
    return (4 * fine - coarse) / 3


def check_inner(
    inner: Any, x: np.ndarray, lam: np.ndarray, *, seed: int = 0, step: float = 1e-3
) -> None:
    """Check gradient, Hessian products, cross products, diagonal and ray of an inner objective."""
    backend = inner.backend
    host, send = backend.to_numpy, backend.asarray
    rng = np.random.default_rng(seed)
    assert tuple(inner.x_shape) == x.shape
    assert inner.n_hyperparameters == lam.shape[0]

    def at(x: np.ndarray, lam: np.ndarray) -> Any:
        return inner.at(send(x), send(lam))

    point = at(x, lam)
    v, d = rng.standard_normal(x.shape), rng.standard_normal(lam.shape)
    grad = host(point.grad)
    assert grad.shape == x.shape
    assert point.grad.dtype == point.x.dtype

    def slope(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sum(a * b))

    def value(t: float) -> float:
        return backend.scalars(at(x + t * v, lam).value)[0]

    close(slope(grad, v), central(value, step), atol=1e-9 * np.linalg.norm(grad))
    by_x = central(lambda t: host(at(x + t * v, lam).grad), step)
    close(host(point.hvp(send(v))), by_x)
    by_lam = central(lambda t: host(at(x, lam + t * d).grad), step)
    close(host(point.cross_jvp(send(d))), by_lam)
    # the transpose: ⟨(∂²_{xλ}h)ᵀ v, d⟩ = ⟨v, (∂²_{xλ}h) d⟩, in every direction d
    vjp = host(point.cross_vjp(send(v)))
    assert vjp.shape == lam.shape
    for _ in range(2):
        d = rng.standard_normal(lam.shape)
        jvp = host(point.cross_jvp(send(d)))
        close(slope(vjp, d), slope(v, jvp), atol=1e-12 * np.linalg.norm(v) * np.linalg.norm(jvp))
    # several directions at once equal one after the other
    several = rng.standard_normal((*x.shape, 3))
    together = host(point.hvp(send(several)))
    crossed = host(point.cross_vjp(send(several)))
    assert together.shape == several.shape
    assert crossed.shape == (*lam.shape, 3)
    for k in range(3):
        close(together[..., k], host(point.hvp(send(several[..., k]))), rtol=1e-12)
        close(crossed[..., k], host(point.cross_vjp(send(several[..., k]))), rtol=1e-12)
    # symmetry
    w = several[..., 0]
    close(slope(w, host(point.hvp(send(v)))), slope(v, together[..., 0]), rtol=1e-9, atol=1e-9)
    _check_diagonal(point, x.shape, host, send)
    check_bending(inner, x, lam, step=step)
    ray = point.ray(send(v))
    ahead = ray.at(0.3)
    close(host(ahead.grad), host(at(x + 0.3 * v, lam).grad), rtol=1e-10)
    (along,) = backend.scalars(ray.slope(ahead))
    close(along, slope(host(ahead.grad), v), rtol=1e-10, atol=1e-10)
    if point.carry is not None:
        other = lam + 0.1
        handed = inner.at(send(x), send(other), point.carry)
        assert np.array_equal(host(handed.grad), host(at(x, other).grad))


def _check_diagonal(point: Any, shape: tuple[int, ...], host: Any, send: Any) -> None:
    diag = point.diag()
    if diag is None:
        return
    size = int(np.prod(shape))
    basis = np.eye(size).reshape(*shape, size)
    full = host(point.hvp(send(basis))).reshape(size, size)
    close(host(diag).reshape(-1), np.diag(full), rtol=1e-10)


def check_bending(inner: Any, x: np.ndarray, lam: np.ndarray, *, step: float = 1e-3) -> None:
    """Check the third derivatives that a point has against differences of its second ones."""
    backend = inner.backend
    host, send = backend.to_numpy, backend.asarray
    rng = np.random.default_rng(5)
    q, T = rng.standard_normal(x.shape), rng.standard_normal((*x.shape, 3))
    D = rng.standard_normal((*lam.shape, 2))

    def at(x: np.ndarray, lam: np.ndarray) -> Any:
        return inner.at(send(x), send(lam))

    point = at(x, lam)
    if not isinstance(point, Bending):
        return
    # What cancels is known to the size of the products that it is a difference of.
    noise = 1e-10 * np.linalg.norm(host(point.hvp(send(T)))) * np.linalg.norm(q)
    bent = point.bend(send(q), send(T))
    if bent is not None:
        turned = [
            central(lambda t, v=v: host(at(x + t * v, lam).hvp(send(q))), step)
            for v in np.moveaxis(T, -1, 0)
        ]
        expected = T.reshape(-1, 3).T @ np.stack(turned, axis=-1).reshape(-1, 3)
        assert bent.dtype == point.x.dtype
        close(host(bent), expected, atol=noise)
        close(host(bent), host(bent).T, rtol=1e-12, atol=1e-12 * noise)
        if isinstance(point, Pushable):
            pushed = point.push(send(np.concatenate([q[..., None], T], axis=-1)))
            passes = inner.passes
            close(host(point.bend(send(q), send(T), pushed)), host(bent), rtol=1e-12)
            assert inner.passes == passes
    crossed = point.cross_bend(send(q), send(T))
    if crossed is not None:
        for i, v in enumerate(np.moveaxis(T, -1, 0)):
            by_x = central(lambda t, v=v: host(at(x + t * v, lam).cross_vjp(send(q))), step)
            close(host(crossed)[:, i], by_x, atol=noise)
        for j, e in enumerate(np.eye(lam.shape[0])):
            by_lam = central(lambda t, e=e: host(at(x, lam + t * e).hvp(send(T))), step)
            close(host(crossed)[j], np.tensordot(q, by_lam, axes=q.ndim), atol=noise)
    folded = point.fold(send(q), send(D))
    if folded is not None:
        for i, d in enumerate(D.T):
            by_lam = central(lambda t, d=d: host(at(x, lam + t * d).cross_vjp(send(q))), step)
            close(host(folded)[:, i], by_lam, atol=noise)


def check_outer_bending(
    outer: Any, backend: Any, x: np.ndarray, lam: np.ndarray, *, step: float = 1e-3
) -> None:
    """Check the second derivatives that a criterion has against differences of its gradients."""
    host, send = backend.to_numpy, backend.asarray
    rng = np.random.default_rng(6)
    T, D = rng.standard_normal((*x.shape, 3)), rng.standard_normal((*lam.shape, 2))

    def at(x: np.ndarray, lam: np.ndarray) -> Any:
        return outer.at(send(x), send(lam))

    point = at(x, lam)
    if not isinstance(point, BendingOuter):
        return
    noise = 1e-9 * (np.linalg.norm(host(point.grad_x)) + np.linalg.norm(host(point.grad_lam)))
    gram, crossed, folded = point.gram(send(T)), point.cross_gram(send(T)), point.fold(send(D))
    for i, v in enumerate(np.moveaxis(T, -1, 0)):
        if gram is not None:
            by_x = central(lambda t, v=v: host(at(x + t * v, lam).grad_x), step)
            close(host(gram)[:, i], T.reshape(-1, 3).T @ by_x.reshape(-1), atol=noise)
        if crossed is not None:
            by_x = central(lambda t, v=v: host(at(x + t * v, lam).grad_lam), step)
            close(host(crossed)[:, i], by_x, atol=noise)
    for i, d in enumerate(D.T if folded is not None else ()):
        by_lam = central(lambda t, d=d: host(at(x, lam + t * d).grad_lam), step)
        close(host(folded)[:, i], by_lam, atol=noise)


def check_outer(
    outer: Any, backend: Any, x: np.ndarray, lam: np.ndarray, *, seed: int = 0, step: float = 1e-3
) -> None:
    """Check ∂_x g and ∂_λ g of an outer criterion."""
    host, send = backend.to_numpy, backend.asarray
    rng = np.random.default_rng(seed)
    v, d = rng.standard_normal(x.shape), rng.standard_normal(lam.shape)

    def value(x: np.ndarray, lam: np.ndarray) -> float:
        return backend.scalars(outer.at(send(x), send(lam)).value)[0]

    point = outer.at(send(x), send(lam))
    grad_x, grad_lam = host(point.grad_x), host(point.grad_lam)
    assert grad_x.shape == x.shape
    assert grad_lam.shape == lam.shape
    scale_x, scale_lam = np.linalg.norm(grad_x), np.linalg.norm(grad_lam)
    size = abs(value(x, lam))
    noise = 1e-10 * size + 1e-12
    by_x = central(lambda t: value(x + t * v, lam), step)
    close(np.sum(grad_x * v), by_x, atol=1e-9 * scale_x + noise)
    by_lam = central(lambda t: value(x, lam + t * d), step)
    close(np.sum(grad_lam * d), by_lam, atol=1e-9 * scale_lam + noise)
    check_outer_bending(outer, backend, x, lam, step=step)


def check_constants(inner: Any, lam: np.ndarray, *, seed: int = 0, scale: float = 1.0) -> None:
    """Hold declared constants against dense matrices at random points: none may be exceeded."""
    backend = inner.backend
    host, send = backend.to_numpy, backend.asarray
    rng = np.random.default_rng(seed)
    shape = tuple(inner.x_shape)
    size = int(np.prod(shape))
    basis = send(np.eye(size).reshape(*shape, size))
    m = lam.shape[0]

    def matrices(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        point = inner.at(send(x), send(lam))
        hessian = host(point.hvp(basis)).reshape(size, size)
        cross = [host(point.cross_jvp(send(e))).reshape(-1) for e in np.eye(m)]
        return hessian, np.stack(cross, axis=1)

    constants = inner.constants(send(lam))
    slack = 1 + 1e-9
    for _ in range(4):
        x = scale * rng.standard_normal(shape)
        y = x + scale * rng.choice([1e-3, 1.0]) * rng.standard_normal(shape)
        (hx, bx), (hy, by) = matrices(x), matrices(y)
        cross_norm = inner.at(send(x), send(lam)).cross_norm
        if cross_norm is not None:
            assert np.linalg.norm(bx, 2) <= backend.scalars(cross_norm)[0] * slack
        eigenvalues = np.linalg.eigvalsh(hx)
        distance = np.linalg.norm(x - y)
        if constants.mu is not None:
            assert constants.mu <= eigenvalues[0] * slack + 1e-12
        if constants.smoothness is not None:
            assert eigenvalues[-1] <= constants.smoothness * slack
        if constants.hessian_lipschitz is not None:
            bound = constants.hessian_lipschitz * distance
            assert np.linalg.norm(hx - hy, 2) <= bound * slack + 1e-12 * np.linalg.norm(hx, 2)
        if constants.self_concordance is not None:
            # e^{-R‖u‖} H(x) ⪯ H(x + u) ⪯ e^{R‖u‖} H(x)
            factor = np.exp(min(constants.self_concordance * distance, 600.0)) * slack
            for low, high in ((hx, hy), (hy, hx)):
                gap = np.linalg.eigvalsh(factor * high - low)[0]
                assert gap >= -1e-9 * factor * np.linalg.norm(high, 2)
        if constants.cross_lipschitz is not None:
            assert np.linalg.norm(bx - by, 2) <= constants.cross_lipschitz * distance * slack
