"""What the proof of a hypergradient rests on, piece by piece, against the exact numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import cho_factor, cho_solve

import bilevel
from bilevel.hypergrad import Bend, Inexact, self_concordant_bound
from bilevel.inner import Swinging, linear_model
from bilevel.losses import Logistic, Multinomial
from bilevel.outer import Curved, held_out

N, P = 30, 5
SEEDS = st.integers(0, 10_000)


def data(seed: int, scale: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = scale * rng.standard_normal((N, P)) * rng.exponential(1.0, (N, 1))
    return X, np.where(rng.random(N) < 1 / (1 + np.exp(-X @ rng.standard_normal(P))), 1.0, -1.0)


MODELS = {
    "logistic": lambda rng: (Logistic(), None),
    "weights": lambda rng: (Logistic(), rng.uniform(0.0, 3.0, N)),
    "folds": lambda rng: (Logistic(), (rng.random((N, 3)) < 0.7).astype(float)),
    "multinomial": lambda rng: (Multinomial(3), None),
    "multinomial, folds": lambda rng: (Multinomial(3), (rng.random((N, 2)) < 0.7).astype(float)),
}


def model_of(name: str, seed: int) -> tuple[Any, np.random.Generator]:
    rng = np.random.default_rng(seed)
    X, y = data(seed)
    loss, weights = MODELS[name](rng)
    labels = y if isinstance(loss, Logistic) else rng.integers(0, 3, N)
    return linear_model(X, labels, loss, sample_weight=weights), rng


def phi(s: float) -> float:
    return math.expm1(s) / s if s > 0 else 1.0


def swing_ratios(name: str, seed: int) -> tuple[float, float]:
    """Both changes of the Hessian over their bounds, for random x, u, w, v_0 and v_1."""
    model, rng = model_of(name, seed)
    lam = np.array([rng.uniform(-3, 3)])
    constants = model.constants(lam)
    x, w = rng.standard_normal(model.x_shape), rng.standard_normal(model.x_shape)
    u = rng.standard_normal(model.x_shape) * 10 ** rng.uniform(-4, 0)
    v = rng.standard_normal((*model.x_shape, 2))
    point, moved = model.at(x, lam), model.at(x + u, lam)
    assert isinstance(point, Swinging)
    single, both = map(point.model.backend.scalars, point.swing(point.push(v)))

    def energy(d: Any) -> float:
        return math.sqrt(float(np.sum(d * point.hvp(d))) - constants.mu * float(np.sum(d * d)))

    grows = phi(constants.self_concordance * float(np.linalg.norm(u)))
    change = moved.hvp(v) - point.hvp(v)
    first = abs(float(np.sum(w * change[..., 1]))) / (single[1] * grows * energy(w) * energy(u))
    second = abs(float(np.sum(v[..., 0] * change[..., 1]))) / (both[0] * grows * energy(u))
    return first, second


@pytest.mark.parametrize("name", MODELS)
@given(seed=SEEDS)
def test_a_swing_bounds_the_change_of_the_hessian(name: str, seed: int) -> None:
    assert max(swing_ratios(name, seed)) <= 1 + 1e-6


def test_control_a_swing_a_twentieth_as_large_is_exceeded() -> None:
    assert max(max(swing_ratios("logistic", seed)) for seed in range(50)) > 1 / 20


def test_no_swing_where_the_penalty_bends_too() -> None:
    X, y = data(0)
    penalty = bilevel.inner.SmoothedElasticNet(0.3)
    point = linear_model(X, y, Logistic(), penalty=penalty).at(np.zeros(P), np.zeros(2))
    assert point.swing(point.push(np.ones((P, 2)))) is None


@pytest.mark.parametrize("name", MODELS)
@given(seed=SEEDS)
def test_the_curvature_of_a_criterion(name: str, seed: int) -> None:
    """hvp is the derivative of ∂_x g, top no less than any quotient, and R bounds its growth."""
    rng = np.random.default_rng(seed)
    X, y = data(seed)
    loss, weights = MODELS[name](rng)
    labels = y if isinstance(loss, Logistic) else rng.integers(0, 3, N)
    outer = held_out(X, labels, loss, sample_weight=weights)
    tail = (
        *loss.output_shape,
        *(() if weights is None or weights.ndim == 1 else weights.shape[1:]),
    )
    x, v = rng.standard_normal((P, *tail)), rng.standard_normal((P, *tail, 2))
    lam = np.zeros(1)
    point = outer.at(x, lam)
    assert isinstance(point, Curved)
    product, step = point.hvp(v), 1e-6
    for j in range(2):
        d = v[..., j]
        ends = (outer.at(x + t * d, lam).grad_x for t in (step, -step))
        difference = (next(ends) - next(ends)) / (2 * step)
        assert np.allclose(product[..., j], difference, rtol=1e-5, atol=1e-6)
    d, u = v[..., 0], v[..., 1]
    quotient = float(np.sum(d * product[..., 0]))
    assert quotient <= float(point.top()) * float(np.sum(d * d)) * (1 + 1e-9)
    there = float(np.sum(d * outer.at(x + u, lam).hvp(v)[..., 0]))
    growth = math.exp(outer.constants().self_concordance * float(np.linalg.norm(u)))
    assert there <= quotient * growth * (1 + 1e-9)


def exact(problem: Any, lam: Any) -> tuple[Any, float]:
    """X(λ) by Newton's method, and f'(λ) by a dense solve."""
    x = np.zeros(P)
    for _ in range(60):
        point = problem.inner.at(x, lam)
        step = np.linalg.solve(np.asarray(point.hvp(np.eye(P))), point.grad)
        shorter = 1.0
        while problem.inner.at(x - shorter * step, lam).value > point.value + 1e-13:
            shorter /= 2
        x = x - shorter * step
    point, g = problem.inner.at(x, lam), problem.outer.at(x, lam)
    adjoint = np.linalg.solve(np.asarray(point.hvp(np.eye(P))), g.grad_x)
    return x, float(g.grad_lam[0] - adjoint @ point.cross_jvp(np.ones(1)))


def proof_of(seed: int, *, sharp: bool = True) -> tuple[float, float]:
    """(bound, |p - ∇f|) at a random x close to X(λ), with random errors of q and t."""
    rng = np.random.default_rng(seed)
    X, y = data(seed)
    problem = bilevel.logistic_regression(X[::2].copy(), y[::2], X[1::2].copy(), y[1::2])
    lam = np.array([rng.uniform(-2, 3)])
    X_star, f_prime = exact(problem, lam)
    inner, outer = problem.inner.constants(lam), problem.outer_constants
    off = 10 ** rng.uniform(-4, -1) * rng.standard_normal(P) / (1 + inner.self_concordance)
    point = problem.inner.at(X_star + off, lam)
    g = problem.outer.at(point.x, lam)
    H = cho_factor(np.asarray(point.hvp(np.eye(P))))
    cross = point.cross_jvp(np.ones(1))
    size = 10 ** rng.uniform(-3, 0)
    q = cho_solve(H, g.grad_x) * (1 + size * rng.standard_normal(P))
    t = cho_solve(H, -cross) * (1 + size * rng.standard_normal(P))
    r_q, r_t = g.grad_x - point.hvp(q), -cross - point.hvp(t)
    p = float(g.grad_lam[0] + t @ g.grad_x + q @ r_t)

    def dual(r: Any) -> float:
        return math.sqrt(max(float(r @ cho_solve(H, r)), 0.0))

    def known(v: Any, r: Any, swing: float) -> Inexact:
        energy = math.sqrt(float(v @ point.hvp(v)))
        return Inexact(energy, float(np.linalg.norm(v)), dual(r), swing if sharp else math.inf)

    swing = point.swing(point.push(np.stack([q, t], axis=1)))
    single, both = map(point.model.backend.scalars, swing)
    bent = g.hvp(t[:, None])[:, 0]
    bend = Bend(float(np.linalg.norm(bent)), math.sqrt(float(t @ bent)), float(g.top()))
    bound = self_concordant_bound(
        inner,
        outer,
        decrement=dual(point.grad),
        adjoint=known(q, r_q, float(single[0])),
        tangent=known(t, r_t, float(single[1])),
        swing=float(both[0]) if sharp else math.inf,
        bend=bend if sharp else Bend(),
    )
    assert bound is not None
    return bound, abs(p - f_prime)


@given(seed=SEEDS)
def test_the_bound_holds(seed: int) -> None:
    bound, error = proof_of(seed)
    assert error <= bound * (1 + 1e-6) + 1e-9


@given(seed=SEEDS)
def test_the_bound_from_constants_alone_holds_and_is_no_smaller(seed: int) -> None:
    (sharp, error), (crude, _) = proof_of(seed), proof_of(seed, sharp=False)
    assert error <= crude * (1 + 1e-6) + 1e-9
    assert sharp <= crude * (1 + 1e-12) or crude == sharp == math.inf


def test_control_a_hundredth_of_the_bound_is_exceeded_and_sharpness_pays() -> None:
    pairs = [proof_of(seed) for seed in range(200)]
    assert any(error > bound / 100 + 1e-9 for bound, error in pairs)
    gains = [proof_of(seed, sharp=False)[0] / bound for seed, (bound, _) in enumerate(pairs)]
    assert float(np.median([g for g in gains if math.isfinite(g)])) > 2


def test_no_bound_where_a_constant_is_missing_or_the_model_is_far_away() -> None:
    constants = bilevel.inner.InnerConstants(1.0, 2.0, 1.0, 1.0, self_concordance=1.0)
    outer, vector = bilevel.outer.OuterConstants(1.0, 0.0), Inexact(1.0, 1.0, 0.1)
    options = {"adjoint": vector, "tangent": vector}
    unknown = bilevel.inner.InnerConstants(1.0, 2.0, 1.0, 1.0)
    assert self_concordant_bound(unknown, outer, decrement=0.1, **options) is None
    nothing = bilevel.outer.OuterConstants(None, 0.0)
    assert self_concordant_bound(constants, nothing, decrement=0.1, **options) is None
    assert self_concordant_bound(constants, outer, decrement=0.6, **options) == math.inf
