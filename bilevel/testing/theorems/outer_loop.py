"""Theorem 2: HOAG with L = Lip(∇f) converges to a stationary point. Its proof, part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...methods import HOAG, FixedStep
from ...schedules import Schedule
from ..problems import KnownProblem, diameter
from .stationary import stationarity
from .traces import (
    Trace,
    descent,
    inside,
    lipschitz_of_gradient,
    projected_steps,
    squared_steps,
    trace,
)
from .violation import Figures, require


def theorem_2(
    known: KnownProblem,
    schedule: Schedule,
    *,
    lam0: Sequence[float],
    steps: int = 150,
    delta: float = 1e-3,
    method: HOAG | None = None,
    lipschitz: float | None = None,
) -> Figures:
    """Theorem 2 for algorithm 1 with L = Lip(∇f): convergence to a stationary point.

    Held to it are the three parts of the proof: the conditions (i) and (ii) at every iteration
    (‖x_k - X(λ_k)‖ ≤ ε_k and a residual ≤ ε_k, stated by the records), every λ_k in D,

        Σ_k ‖λ_{k+1} - λ_k‖² ≤ (2/L) (f(λ_1) - min f + Σ_k e_k ‖λ_{k+1} - λ_k‖),

    with e_k the true error and Σ e_k ≤ C Σ ε_k, and ⟨∇f(λ*), α - λ*⟩ ≥ -δ at the last iterate,
    δ relative to Lip(∇f) diam(D)².

    Parameters
    ----------
    known : KnownProblem
        A problem whose domain is bounded.
    schedule : Schedule
        ε_k; it has to call itself summable.
    lam0 : sequence of float
        Where to start.
    steps : int
        Outer iterations.
    delta : float
        Relative size of the allowed gap.
    method : HOAG, optional
        Another method to hold to the theorem; the schedule replaces its own.
    lipschitz : float, optional
        Lip(∇f), where the caller has it.

    Examples
    --------
    >>> from bilevel.schedules import Exponential
    >>> from bilevel.testing import quadratic
    >>> known = quadratic(0, p=3, m=1, kind="affine")
    >>> theorem_2(known, Exponential(0.1, 0.8), lam0=[1.0])["gap"] < 1e-3
    True
    """
    summability(schedule)
    domain = known.problem.domain
    size = diameter(domain, known.m)
    require(math.isfinite(size), "D is bounded", diameter=size)
    true = lipschitz_of_gradient(known) if lipschitz is None else lipschitz
    used = max(true, 1e-12)
    chosen = replace(method or HOAG(), tolerances=schedule, step_rule=FixedStep(used))
    found = trace(known, chosen, steps, lam0)
    conditions(found, known, schedule)
    inside(found, domain, known)
    projected_steps(found, known, used)
    descent(found, known, true)
    squares = squared_steps(found, used)
    scale = true * size**2
    last = stationarity(known, found.lam[-1], delta * max(scale, 1e-12))
    return {**squares, **last, "L": used}


def conditions(found: Trace, known: KnownProblem, schedule: Schedule) -> None:
    """Conditions (i) and (ii) at every iteration, as the records state them."""
    for record in found.records:
        # The record's bound counts the rounding of ∂_x h at its worst, n u in place of the √n u
        # that is usual.
        slack = 2 * known.solution_rounding * (math.sqrt(known.inner_terms) + 4)
        require(record.tol == schedule(record.k), "the tolerance asked is ε_k", k=record.k)
        require(
            record.inner_error is not None and record.inner_error <= record.tol + slack,
            "condition (i), ‖x_k - X(λ_k)‖ ≤ ε_k",
            k=record.k,
            error=math.inf if record.inner_error is None else record.inner_error,
            tol=record.tol,
        )
        require(
            record.cg_residual is not None
            and record.cg_residual <= record.tol + 2 * known.adjoint_rounding,
            "condition (ii), ‖H q_k - ∂_x g‖ ≤ ε_k",
            k=record.k,
            residual=math.inf if record.cg_residual is None else record.cg_residual,
            tol=record.tol,
        )


def summability(schedule: Schedule) -> Figures:
    """Σ ε_k < ∞: the schedule says so, and Cauchy's condensation test does not object.

    Σ ε_k and Σ 2ʲ ε_{2ʲ} converge together (ε_k decreasing); the terms of the latter are looked at
    up to j = 40 and must have fallen by half.

    Examples
    --------
    >>> from bilevel.schedules import Power
    >>> summability(Power(0.1, 2.0))["last"] < 1e-12
    True
    """
    require(schedule.summable, "Σ ε_k < ∞", first=schedule(1))
    terms = []
    for j in range(1, 41):
        try:
            terms.append(2.0**j * schedule(2**j))
        except (ValueError, OverflowError):  # underflow to zero, which a schedule may refuse
            terms.append(0.0)
    require(
        terms[-1] <= 0.5 * max(terms),
        "2ʲ ε_{2ʲ} → 0 (Cauchy's condensation of Σ ε_k)",
        first=terms[0],
        last=terms[-1],
    )
    return {"first": terms[0], "last": terms[-1]}
