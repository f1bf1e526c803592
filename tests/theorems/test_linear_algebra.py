"""Conjugate gradients, held to its theory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from bilevel.linalg import cg
from bilevel.status import Status
from bilevel.testing import Violation, cg_theory
from bilevel.testing import strategies as sts
from bilevel.testing.reference import Host, host


@given(sts.definite_systems(max_condition=1e4))
def test_cg_is_exact_after_as_many_steps_as_eigenvalues(system: tuple[Host, Host, int]) -> None:
    matrix, b, distinct = system
    cg_theory(matrix, b, distinct=distinct)


@given(sts.definite_systems(max_condition=1e6))
def test_cg_energy_residual_and_rate(system: tuple[Host, Host, int]) -> None:
    matrix, b, _ = system
    cg_theory(matrix, b)


def test_cg_on_every_backend(backend: Any) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    matrix = basis * np.array([1.0, 1.0, 2.0, 5.0, 5.0]) @ basis.T
    cg_theory(
        host((matrix + matrix.T) / 2), host(rng.standard_normal(5)), backend=backend, distinct=3
    )


def spoilt(change: Any) -> Any:
    def solver(operator: Any, b: Any, **options: Any) -> Any:
        return change(operator, b, options)

    return solver


CONTROLS = {
    "a residual that is claimed": lambda A, b, o: replace(
        cg(A, b, **o), residual_norms=(cg(A, b, **o).residual_norm / 2 + 1e-3,)
    ),
    "stops a step early": lambda A, b, o: cg(A, b, **{**o, "max_iter": o["max_iter"] - 1}),
    "stops after one step": lambda A, b, o: cg(A, b, **{**o, "max_iter": 1}),
    "steepest descent": lambda A, b, o: steepest(A, b, o["max_iter"]),
    "overshoots": lambda A, b, o: replace(cg(A, b, **o), x=2.2 * cg(A, b, **o).x),
}


def steepest(operator: Any, b: Any, steps: int) -> Any:
    x = 0 * b
    for _ in range(steps):
        r = b - operator(x)
        if not r @ r > 0:
            break
        x = x + (r @ r) / (r @ operator(r)) * r
    result = cg(operator, b, tol=0.0, max_iter=1)
    return replace(result, x=x, residual_norms=(float(np.linalg.norm(b - operator(x))),))


@pytest.mark.parametrize("name", CONTROLS)
def test_cg_control(name: str) -> None:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    matrix = basis * np.array([1.0, 1.0, 10.0, 10.0, 100.0, 100.0]) @ basis.T
    matrix, b = host((matrix + matrix.T) / 2), host(rng.standard_normal(6))
    cg_theory(matrix, b, distinct=3)
    with pytest.raises(Violation):
        cg_theory(matrix, b, distinct=3, solver=spoilt(CONTROLS[name]))


@given(sts.definite_systems(max_condition=1e4))
def test_cg_converged_means_within_tol(system: tuple[Host, Host, int]) -> None:
    matrix, b, _ = system
    double, rhs = np.asarray(matrix, np.float64), np.asarray(b, np.float64)
    tol = 1e-6 * float(np.linalg.norm(rhs))
    result = cg(lambda v: double @ v, rhs, tol=tol)
    assert result.status is Status.CONVERGED
    assert np.linalg.norm(rhs - double @ result.x) <= tol * (1 + 1e-9)


def test_cg_reports_negative_curvature() -> None:
    matrix = np.diag([1.0, -1.0])
    result = cg(lambda v: matrix @ v, np.array([1.0, 2.0]), tol=1e-9)
    assert result.status is Status.NEGATIVE_CURVATURE


def test_jacobi_leaves_a_vanishing_diagonal_alone() -> None:
    """A Hessian that is singular must not turn a preconditioner into infinities."""
    from bilevel.linalg import jacobi

    apply = jacobi(np.array([2.0, 0.0, -1.0]))
    np.testing.assert_array_equal(apply(np.array([2.0, 3.0, 4.0])), [1.0, 3.0, 4.0])
