"""check_problem sees an h that has no minimum, and a run that looked for it says what it met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import inner as inners
from bilevel import losses
from bilevel import outer as outers
from bilevel.testing import CheckReport, check_problem

RNG = np.random.default_rng(0)
P = 6
Q, _ = np.linalg.qr(RNG.standard_normal((P, P)))
A = (Q * np.r_[0.0, np.geomspace(0.1, 10.0, P - 1)]) @ Q.T
V, C, D = Q[:, 0], RNG.standard_normal((12, P)), RNG.standard_normal(12)
B = A @ RNG.standard_normal(P)


def problem(along: Any, slope: Any) -> bilevel.Problem:
    """A quadratic with a penalty that both spare a direction, and what h is along that."""

    def h(x: Any, lam: Any) -> Any:
        s, w = V @ x, np.exp(lam[0])
        rest = x - s * V
        value = x @ (A @ x) / 2 - B @ x + w * (rest @ rest) / 2 + along(s)
        return value, A @ x - B + w * rest + slope(s) * V

    inner = inners.from_functions(h, like=B, x_shape=(P,), n_hyperparameters=1)
    return bilevel.Problem(
        inner,
        outers.from_functions(
            lambda x, lam: (float((C @ x - D) @ (C @ x - D)) / 2, C.T @ (C @ x - D)),
            like=B,
            grad_lam=lambda x, lam: 0 * lam,
        ),
    )


def notes(report: CheckReport) -> list[str]:
    return [note for note in report.notes if note.startswith("h ")]


ENDLESS = {
    "a slope": (lambda s: -s, lambda s: -1.0),
    "a small slope": (lambda s: -1e-5 * s, lambda s: -1e-5),
    "a hill": (lambda s: -(s**2) / 200, lambda s: -s / 100),
    "an inflection": (lambda s: s**3 / 3, lambda s: s * s),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_h_that_falls_without_end_is_found(name: str) -> None:
    report = check_problem(problem(*ENDLESS[name]))
    (finding,) = report.findings
    assert "it has no minimum" in finding.message


NOTED = {
    "flat": (lambda s: 0.0, lambda s: 0.0, "flat"),
    "separable": (
        lambda s: np.logaddexp(0.0, -s),
        lambda s: -np.exp(-np.logaddexp(0.0, s)),
        "still falls",
    ),
    "two minima": (lambda s: (s * s - 1) ** 2, lambda s: 4 * s * (s * s - 1), "bends down"),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_may_be_meant_is_noted(name: str) -> None:
    along, slope, says = NOTED[name]
    report = check_problem(problem(along, slope))
    assert report.ok
    assert says in notes(report)[0]


RIGHT = {
    "a quartic": (lambda s: (s - 0.5) ** 4, lambda s: 4 * (s - 0.5) ** 3),
    "a far minimum": (lambda s: (s - 1e5) ** 2 / 2e4, lambda s: (s - 1e5) / 1e4),
    "a far kink": (
        lambda s: np.sqrt(1 + (s - 1e6) ** 2),
        lambda s: (s - 1e6) / np.sqrt(1 + (s - 1e6) ** 2),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_an_h_with_a_minimum_far_away_is_none_of_these(name: str) -> None:
    report = check_problem(problem(*RIGHT[name]))
    assert report.ok, str(report)
    assert not notes(report)


def test_residuals_of_huge_targets_fall_for_long_and_turn() -> None:
    X = RNG.standard_normal((30, 3))
    y = 1e7 * (1 + RNG.standard_normal(30))
    inner = inners.linear_model(X, y, losses.Huber(1.0), fit_intercept=True)
    criterion = outers.held_out(X, y, losses.Huber(1.0), fit_intercept=True)
    report = check_problem(bilevel.Problem(inner, criterion))
    assert not [f for f in report.findings if "no minimum" in f.message], str(report)


def test_a_run_that_was_led_beyond_all_scale_says_that_h_may_have_no_minimum() -> None:
    found = bilevel.minimize(problem(*ENDLESS["a slope"]), max_iter=6, max_seconds=20.0)
    assert not found.success
    assert "h may have no minimum at this λ" in found.message
    right = bilevel.minimize(problem(*RIGHT["a far minimum"]), max_iter=2)
    assert "no minimum" not in right.message
