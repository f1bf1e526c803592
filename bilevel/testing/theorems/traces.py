"""A run of the outer loop beside the truth, and what every step of it has to keep to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...backends import get_backend
from ...domains import Domain
from ...methods import HOAG
from ...record import Record
from ..problems import KnownProblem, bounds
from ..reference import Host, host, norm, spectral
from .violation import Figures, require


@dataclass(frozen=True)
class Trace:
    """A run of the outer loop beside the truth.

    Attributes
    ----------
    lam : list of host arrays
        λ_1, ..., λ_{K+1}.
    value : list of float
        f(λ_k), exact.
    error : list of float
        ‖p_k - ∇f(λ_k)‖, exact.
    lipschitz : list of float
        L_k.
    records : list of Record
        What the method said.
    accepted : list of bool
        Whether step k led on from λ_k itself (the adaptive rule may take one back).
    """

    lam: list[Host]
    value: list[float]
    error: list[float]
    lipschitz: list[float]
    records: list[Record]
    accepted: list[bool]


def trace(known: KnownProblem, method: HOAG, steps: int, lam0: Sequence[float]) -> Trace:
    """Step the method by hand and compute f and ∇f at each iterate in high precision."""
    problem = known.problem
    state = method.init(problem, known.array(lam0), None, 0.0)
    lam, value, error, lipschitz, accepted = [known.host(state.lam)], [], [], [], []
    records: list[Record] = []
    for _ in range(steps):
        state = method.step(problem, state)
        record, rule = state.record, state.rule
        assert record is not None
        assert state.anchor_lam is not None
        here = lam[-1]
        value.append(known.reference.value(here))
        error.append(norm(known.host(record.hypergrad) - known.reference.hypergradient(here)))
        # Without a rule p is zero, and λ stays: any L says the same.
        lipschitz.append(1.0 if rule is None else rule.lipschitz)
        accepted.append(bool(np.all(known.host(state.anchor_lam) == here)))
        records.append(record)
        lam.append(known.host(state.lam))
    return Trace(lam, value, error, lipschitz, records, accepted)


def descent(found: Trace, known: KnownProblem, lipschitz: float) -> Figures:
    """The inequality behind Theorem 2: for L ≥ Lip(∇f), with e_k = ‖p_k - ∇f(λ_k)‖,

        f(λ_{k+1}) ≤ f(λ_k) - (L - Lip/2) ‖λ_{k+1} - λ_k‖² + e_k ‖λ_{k+1} - λ_k‖.

    From ⟨p_k, Δ⟩ ≤ -L ‖Δ‖² (the projection) and the descent lemma. The error e_k is the true
    one and, separately, the one that the record states.
    """
    worst = -math.inf
    for k in range(len(found.value) - 1):
        if not found.accepted[k]:
            continue
        step = norm(found.lam[k + 1] - found.lam[k])
        gain = found.lipschitz[k] - lipschitz / 2
        slack = 64 * known.unit * (1 + abs(found.value[k]) + found.lipschitz[k] * step)
        for name, error in (
            ("true", found.error[k]),
            ("stated", found.records[k].hypergrad_error),
        ):
            if error is None:
                continue
            above = found.value[k + 1] - (found.value[k] - gain * step**2 + error * step)
            worst = max(worst, above)
            require(
                above <= slack + known.hypergradient_rounding * step,
                f"descent at iteration {k + 1} with the {name} error",
                above=above,
                step=step,
                error=error,
                f=found.value[k],
                f_next=found.value[k + 1],
            )
    return {"worst": worst}


def lipschitz_of_gradient(known: KnownProblem, samples: int = 200, seed: int = 0) -> float:
    """Lip(∇f) over the domain.

    Exact where f is a quadratic; otherwise the largest difference quotient of the exact ∇f over
    neighbouring points of a fine grid (m = 1) or of random pairs, enlarged by a quarter.
    """
    if known.curvature is not None:
        return spectral(known.curvature)
    low, high = bounds(known.problem.domain, known.m)
    if known.m == 1:
        points = [host([t]) for t in np.linspace(low[0], high[0], samples)]
        pairs = list(zip(points, points[1:], strict=False))
    else:
        rng = np.random.default_rng(seed)
        pairs = []
        for _ in range(samples):
            a = host(low + (high - low) * rng.random(known.m))
            b = a + 1e-3 * host(rng.standard_normal(known.m))
            pairs.append((a, b))
    gradient = known.reference.hypergradient
    return 1.25 * max(norm(gradient(a) - gradient(b)) / norm(a - b) for a, b in pairs)


def projected_steps(found: Trace, known: KnownProblem, lipschitz: float) -> None:
    """Step (iv): λ_{k+1} = P_D(λ_k - p_k / L), computed again on the host."""
    domain, numpy_backend = known.problem.domain, get_backend("numpy")
    for k, record in enumerate(found.records):
        p = known.host(record.hypergrad)
        ahead = np.asarray(found.lam[k] - p / lipschitz, dtype=np.float64)
        expected = host(domain.project(ahead, numpy_backend))
        off = norm(found.lam[k + 1] - expected)
        allowed = 16 * known.unit * (1 + norm(found.lam[k]) + norm(p) / lipschitz)
        require(off <= allowed, "step (iv), λ_{k+1} = P_D(λ_k - p_k/L)", k=record.k, off=off)


def inside(found: Trace, domain: Domain, known: KnownProblem) -> None:
    """Every iterate lies in D."""
    for k, lam in enumerate(found.lam):
        there = np.asarray(lam, dtype=np.float64)
        back = domain.project(there, get_backend("numpy"))
        out = float(np.linalg.norm(back - there))
        require(out <= 8 * known.unit * (1 + norm(lam)), "λ_k is in D", k=k + 1, distance=out)


def squared_steps(found: Trace, lipschitz: float) -> Figures:
    """Σ ‖λ_{k+1} - λ_k‖² ≤ (2/L) (f(λ_1) - min f + Σ e_k ‖λ_{k+1} - λ_k‖), as in the proof."""
    steps = [norm(b - a) for a, b in zip(found.lam, found.lam[1:], strict=False)][:-1]
    errors = sum(e * s for e, s in zip(found.error, steps, strict=False))
    total = sum(s * s for s in steps)
    bound = 2 / lipschitz * (found.value[0] - min(found.value) + errors)
    slack = 1e-9 * (1 + abs(found.value[0])) / lipschitz
    require(total <= bound + slack, "Σ ‖Δλ‖² ≤ the bound of the proof", sum=total, bound=bound)
    return {"squares": total, "squares_bound": bound}
