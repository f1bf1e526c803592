"""Without μ and tangents: a q that was right elsewhere hardly falls in a few steps of CG."""

from __future__ import annotations

import numpy as np
import pytest

import bilevel
from bilevel import Problem, inner, outer
from bilevel.methods.path import estimate


def quadratic(seed, n=20, m=6, stated=False, size=1e-3):
    """h = ½ xᵀ(M + Σ e^λ_j M_j) x - bᵀx of condition 10⁴, and a bounded g that is not convex."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((n, n)))[0]
    spectrum = np.geomspace(1, 1e-4, n)
    M = (U * spectrum) @ U.T
    true = rng.standard_normal(n)
    b = M @ true + 0.1 * U @ (np.sqrt(spectrum) * rng.standard_normal(n))
    masks = np.eye(m)[np.arange(n) % m].T * size
    C = rng.standard_normal((40, n)) / np.sqrt(n)
    c = C @ true + rng.standard_normal(40)

    def hessian(lam):
        return M + np.diag(np.exp(lam) @ masks)

    def criterion(x):
        r = C @ x - c
        return float(np.sum(r**2 / (1 + r**2))), C.T @ (2 * r / (1 + r**2) ** 2)

    def f(lam):
        H = hessian(lam)
        x = np.linalg.solve(H, b)
        value, slope = criterion(x)
        return value, -np.exp(lam) * (masks @ (x * np.linalg.solve(H, slope)))

    h = inner.from_functions(
        lambda x, lam: (float(x @ hessian(lam) @ x / 2 - b @ x), hessian(lam) @ x - b),
        like=b,
        x_shape=(n,),
        n_hyperparameters=m,
        constants=(lambda lam: inner.InnerConstants(mu=1e-4)) if stated else None,
        hvp=lambda x, lam, v: hessian(lam) @ v,
        cross_jvp=lambda x, lam, d: (np.exp(lam) * d) @ masks * x,
        cross_vjp=lambda x, lam, v: np.exp(lam) * (masks @ (x * v)),
    )
    g = outer.from_functions(lambda x, lam: criterion(x), like=b, grad_lam=lambda x, lam: 0 * lam)
    return Problem(h, g), f


def wrong(result, f):
    """The steps from a λ where p is off by most of itself."""
    moved = [r for r in result.history if r.step > 0]
    off = [np.linalg.norm(r.hypergrad - f(r.lam)[1]) / np.linalg.norm(r.hypergrad) for r in moved]
    return sum(o > 0.9 for o in off), len(off)


DRAWN = [(0, 1e-5), (1, 1e-5), (6, 1e-5), (7, 1e-5), (2, 1e-6), (7, 1e-6)]


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize(("seed", "size"), DRAWN)
def test_p_that_is_all_error_moves_nothing(seed, size, stated):
    """Up to all 15 steps were from such a p, and f stood where it was or rose."""
    problem, f = quadratic(seed, stated=stated, size=size)
    result = bilevel.minimize(problem, 2.3, max_iter=15)
    bad, moves = wrong(result, f)
    assert moves > 5
    assert bad <= 1
    assert f(result.lam)[0] < 0.9 * f(np.full(6, 2.3))[0]


def test_without_the_question_it_would(monkeypatch):
    monkeypatch.setattr(estimate, "_unseen", lambda *_: False)
    problem, f = quadratic(7, size=1e-5)
    result = bilevel.minimize(problem, 2.3, max_iter=15)
    bad, moves = wrong(result, f)
    assert bad > 0.9 * moves
    assert f(result.lam)[0] > f(np.full(6, 2.3))[0]
