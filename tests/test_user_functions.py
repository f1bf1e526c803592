"""What users state and what their functions do with the arrays they are handed and hand back."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import Problem, inner, outer

#: The λ at which X(λ) = 1/(1 + e^λ) is 0.3, where g is 0.
BEST = math.log(7 / 3)


def h(x: Any, lam: Any) -> Any:
    w = np.exp(lam[0])
    return 0.5 * w * (x @ x) + 0.5 * (x - 1) @ (x - 1), w * x + (x - 1)


def g(x: Any, lam: Any) -> Any:
    return 0.5 * (x - 0.3) @ (x - 0.3), x - 0.3


def problem(h: Any = h, g: Any = g, **stated: Any) -> Problem:
    like = np.zeros(2)
    objective = inner.from_functions(h, like=like, x_shape=(2,), n_hyperparameters=1, **stated)
    criterion = outer.from_functions(
        g,
        like=like,
        grad_lam=lambda x, lam: 0 * lam,
        constants=outer.OuterConstants(1.0, 0.0),
        rounding=lambda *_: (1e-12,) * 3,
    )
    return Problem(objective, criterion)


# -- constants ---------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
NO_BOUND = [NAN, -1, -INF, "1", 1j, True, -(10**400)]
NO_CONSTANT = {
    inner.InnerConstants: {
        "mu": [*NO_BOUND, INF, 10**400],
        "smoothness": NO_BOUND,
        "hessian_lipschitz": NO_BOUND,
        "cross_lipschitz": NO_BOUND,
        "self_concordance": NO_BOUND,
    },
    outer.OuterConstants: {
        "grad_x_lipschitz": NO_BOUND,
        "grad_lam_lipschitz": NO_BOUND,
        "self_concordance": NO_BOUND,
        "least": [NAN, INF, "0", 1j, True, 10**400],
    },
}


@pytest.mark.parametrize("kind", NO_CONSTANT)
def test_constants_that_bound_nothing_are_refused(kind):
    """Of μ = inf or L = -inf a run "converged" anywhere, its error "at most" -inf."""
    for name, values in NO_CONSTANT[kind].items():
        assert getattr(kind(**{name: np.float32(0.5)}), name) == 0.5
        for value in values:
            with pytest.raises((ValueError, TypeError), match=f"^{name} must"):
                kind(**{name: value})
    assert outer.OuterConstants(least=-INF).least == -INF


def test_constants_of_a_users_class_are_checked_too():
    right = problem()

    class Objective:
        def __getattr__(self, name: str) -> Any:
            return getattr(right.inner, name)

        def constants(self, lam: Any) -> Any:
            return SimpleNamespace(mu=INF)

    with pytest.raises(TypeError, match="inner.constants must return InnerConstants"):
        bilevel.minimize(Problem(Objective(), right.outer))


@pytest.mark.parametrize("name", ["smoothness", "hessian_lipschitz", "cross_lipschitz"])
@pytest.mark.parametrize("method", ["path", "maid"])
def test_an_infinite_bound_proves_nothing(name, method):
    known = {"smoothness": 1e6, "hessian_lipschitz": 0.0, "cross_lipschitz": 1e3}
    constants = inner.InnerConstants(1.0, self_concordance=0.0, **{**known, name: INF})
    stated = problem(
        constants=constants,
        cross_norm=lambda x, lam: np.exp(lam[0]) * np.sqrt(x @ x),
        rounding=lambda *_: (1e-12,) * 3,
    )
    found = bilevel.minimize(stated, method=method, max_iter=4)
    error = None if found.best is None else found.best.hypergrad_error
    assert error is None or error > 0


def test_weights_beyond_the_floats_state_finite_curvature():
    """e^λ overflows: a lower bound stays finite, an upper one is infinite, and none is NaN."""
    operators = (bilevel.as_design(np.eye(2)),) * 2
    penalties = [
        inner.SingleL2(),
        inner.SmoothedElasticNet(),
        inner.Tikhonov(operators, norms=(0.0, 1.0), smallest_singular_value=1.0),
    ]
    for penalty in penalties:
        lam = np.full(penalty.n_hyperparameters, 1000.0)
        found = penalty.constants(lam, bilevel.get_backend("numpy"))
        assert 1e300 < found.mu < INF
        assert found.smoothness == INF
