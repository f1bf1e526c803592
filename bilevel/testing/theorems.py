r"""The statements of the theory, each a function that holds an implementation to it.

Each returns the figures that it compared and raises :class:`Violation` where the statement is
false. Numbers in names are those of Pedregosa (2016). A term of rounding, computed from the
dtype and the size of the problem (:class:`KnownProblem`), is allowed where working precision
enters; nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backends import Array, Backend, get_backend
from ..domains import Ball, Box, Domain
from ..hypergrad import Hypergradient, HypergradResult, Implicit
from ..linalg import cg
from ..methods import HOAG, FixedStep
from ..record import Record
from ..schedules import Schedule
from ..solvers import LBFGS, InnerResult, Solver, solve
from ..status import Status
from .problems import KnownProblem, bounds, diameter
from .reference import Host, host, norm, spectral

Figures = dict[str, float]


class Violation(AssertionError):
    """A statement of the theory does not hold; the message has the figures."""


def require(holds: bool, statement: str, **figures: float) -> None:
    """Raise a :class:`Violation` unless the statement holds.

    Examples
    --------
    >>> require(1.0 <= 2.0, "a ≤ b", a=1.0, b=2.0)
    """
    if not holds:
        shown = ", ".join(f"{name} = {value:.6g}" for name, value in figures.items())
        raise Violation(f"{statement} is violated: {shown}.")


# -- the inner problem --------------------------------------------------------------------------


def inner_stop(known: KnownProblem, tol: float, *, solver: Solver | None = None) -> Figures:
    """‖∂_x h(x, λ)‖ ≤ μ ε implies ‖x - X(λ)‖ ≤ ε (design of algorithm 1, step (i)).

    Parameters
    ----------
    known : KnownProblem
        The problem and the point λ.
    tol : float
        ε; it must be well above :meth:`KnownProblem.solution_rounding`.
    solver : Solver, optional
        L-BFGS when omitted.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> figures = inner_stop(quadratic(0), 1e-6)
    >>> figures["error"] <= figures["bound"] <= 1e-6
    True
    """
    problem, lam = known.problem, known.array(known.lam)
    result = solve(problem.inner, lam, problem.x(None), solver=solver or LBFGS(), tol=tol)
    return inner_certificate(known, result, tol)


def inner_certificate(known: KnownProblem, result: InnerResult, tol: float) -> Figures:
    """The same for a result that is there already: converged, certified, and truly so."""
    error = norm(known.host(result.x) - known.solution)
    slack = known.solution_rounding
    bound = math.inf if result.error_bound is None else result.error_bound
    require(
        result.status is Status.CONVERGED,
        f"The inner solver converges ({result.status.message})",
        gradient=result.grad_norm,
        tol=tol,
    )
    require(bound <= tol, "the error bound ≤ ε", bound=bound, tol=tol)
    require(error <= tol + slack, "‖x - X(λ)‖ ≤ ε", error=error, tol=tol, rounding=slack)
    require(
        error <= bound + slack,
        "‖x - X(λ)‖ ≤ ‖∂_x h‖/μ",
        error=error,
        bound=bound,
        rounding=slack,
    )
    return {"error": error, "bound": bound, "rounding": slack}


# -- Theorem 1 ----------------------------------------------------------------------------------


def theorem_1_constant(known: KnownProblem, tol: float) -> float:
    """C of ‖p - ∇f(λ)‖ ≤ C ε, from the constants and the values at X(λ) alone.

    With ‖x - X(λ)‖ ≤ ε and a residual ≤ ε: ‖q‖ ≤ (‖∂_x g(X)‖ + (1 + L_g) ε)/μ, and the bound of
    :mod:`bilevel.hypergrad.bound` is then C ε with

        C = L_λ + L_B ‖q‖ + (‖B(X)‖ + 2 L_B ε) (1 + L_g + L_H ‖q‖)/μ.
    """
    lam, x = host(known.lam), known.solution
    inner = known.problem.inner.constants(known.array(known.lam))
    outer = known.problem.outer_constants
    mu, l_h, l_b = inner.mu, inner.hessian_lipschitz, inner.cross_lipschitz
    l_g, l_lam = outer.grad_x_lipschitz, outer.grad_lam_lipschitz
    if None in (mu, l_h, l_b, l_g, l_lam):
        return math.inf
    assert mu is not None and l_h is not None and l_b is not None
    assert l_g is not None and l_lam is not None
    grad = norm(known.reference.outer.grad_x(x, lam))
    cross = spectral(known.reference.inner.cross(x, lam))
    adjoint = (grad + (1 + l_g) * tol) / mu
    return l_lam + l_b * adjoint + (cross + 2 * l_b * tol) * (1 + l_g + l_h * adjoint) / mu


def theorem_1(
    known: KnownProblem,
    tol: float,
    *,
    solver: Solver | None = None,
    hypergradient: Hypergradient | None = None,
) -> Figures:
    """Theorem 1: ‖p - ∇f(λ)‖ ≤ C ε, and never above the bound that the result states.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> figures = theorem_1(quadratic(0), 1e-6)
    >>> figures["error"] <= figures["bound"] and figures["error"] <= figures["C"] * 1e-6
    True
    """
    problem, lam = known.problem, known.array(known.lam)
    inner = solve(problem.inner, lam, problem.x(None), solver=solver or LBFGS(), tol=tol)
    require(inner.status is Status.CONVERGED, "the inner solver converges", tol=tol)
    found = (hypergradient or Implicit())(problem, inner, tol=tol)
    return hypergradient_certificate(known, found, tol)


def hypergradient_certificate(
    known: KnownProblem, found: HypergradResult, tol: float, constant: float | None = None
) -> Figures:
    """Hold a hypergradient to the truth, to its own bound, and to C ε."""
    error = norm(known.host(found.value) - known.hypergradient)
    slack = known.hypergradient_rounding
    constant = theorem_1_constant(known, tol) if constant is None else constant
    bound = math.inf if found.error_bound is None else found.error_bound
    figures = {"error": error, "bound": bound, "C": constant, "rounding": slack}
    residual = found.residual or 0.0
    require(
        residual <= tol + known.adjoint_rounding,
        f"‖H q - ∂_x g‖ ≤ ε ({found.status.message})",
        residual=residual,
        tol=tol,
    )
    require(error <= constant * tol + slack, "Theorem 1, ‖p - ∇f‖ ≤ C ε", tol=tol, **figures)
    require(error <= bound + slack, "the computed bound of ‖p - ∇f‖", **figures)
    return figures


def shifted(known: KnownProblem, away: Host) -> InnerResult:
    """An inner result at X(λ) + away: what a solver of exactly that error would return."""
    inner = known.problem.inner
    lam = known.array(known.lam)
    point = inner.at(known.array(known.solution + away), lam)
    flat = known.problem.backend.xp.reshape(point.grad, (-1,))
    (square,) = known.problem.backend.scalars(known.problem.backend.xp.vecdot(flat, flat))
    mu, size = inner.constants(lam).mu, math.sqrt(square)
    return InnerResult(point, Status.CONVERGED, 0, size, size / mu if mu else None)


def slope(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """The slope of log error against log size, by least squares.

    Examples
    --------
    >>> round(slope([1.0, 0.1, 0.01], [2.0, 0.02, 0.0002]), 6)
    2.0
    """
    fitted = np.polyfit(np.log(np.asarray(sizes)), np.log(np.asarray(errors)), 1)
    return float(fitted[0])


def order(
    known: KnownProblem,
    tolerances: Sequence[float],
    *,
    error: Callable[[float], float] | None = None,
    expected: float = 1.0,
    within: float = 0.15,
) -> Figures:
    """Theorem 1 is sharp in its order: halving ε halves the error.

    ``error(tol)`` measures ‖p - ∇f‖ at a tolerance; when omitted, at an x whose distance from
    X(λ) is exactly ε, with the adjoint system solved to a thousandth of it.

    Examples
    --------
    >>> from bilevel.testing import quadratic
    >>> round(order(quadratic(0), [2.0**-k for k in range(6, 16)])["slope"], 1)
    1.0
    """

    def measured(tol: float) -> float:
        rng = np.random.default_rng(7)
        direction = host(rng.standard_normal(known.solution.shape))
        inner = shifted(known, tol * direction / norm(direction))
        found = Implicit()(known.problem, inner, tol=tol / 1000)
        return norm(known.host(found.value) - known.hypergradient)

    errors = [(error or measured)(tol) for tol in tolerances]
    found = slope(tolerances, errors)
    require(
        abs(found - expected) <= within,
        "the order of the error in ε",
        slope=found,
        expected=expected,
    )
    return {"slope": found, "first": errors[0], "last": errors[-1]}


# -- projection ---------------------------------------------------------------------------------


def projection(
    project: Callable[[Host], Host],
    a: Host,
    b: Host,
    inside: Host,
    *,
    contains: Callable[[Host], bool] | None = None,
    rounding: float = 1e-12,
) -> Figures:
    """P maps into D, is nonexpansive and idempotent, and ⟨a - P a, α - P a⟩ ≤ 0 for α in D.

    Parameters
    ----------
    project : callable
        P, on host arrays.
    a, b : array
        Any two points.
    inside : array
        A point of D.
    contains : callable, optional
        Whether a point is in D, up to rounding; without it the first part is not tested.
    rounding : float
        Relative allowance.

    Examples
    --------
    >>> import numpy as np
    >>> clip = lambda v: np.clip(v, 0, 1)
    >>> projection(clip, host([2.0]), host([0.5]), host([0.25]))["distance"]
    0.5
    """
    pa, pb = project(a), project(b)
    scale = 1 + norm(a) + norm(b) + norm(inside)
    slack = rounding * scale
    require(contains is None or contains(pa), "P a is in D", size=norm(pa))
    moved, apart = norm(pa - pb), norm(a - b)
    require(moved <= apart + slack, "P is nonexpansive", moved=moved, apart=apart)
    again = norm(project(pa) - pa)
    require(again <= slack, "P is idempotent", moved=again)
    kept = norm(project(inside) - inside)
    require(kept <= slack, "P leaves a point of D where it is", moved=kept)
    angle = float((a - pa) @ (inside - pa))
    require(angle <= slack * scale, "⟨a - P a, α - P a⟩ ≤ 0", product=angle)
    return {"distance": moved, "product": angle}


# -- the outer loop -----------------------------------------------------------------------------


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


def gap(domain: Domain, lam: Host, gradient: Host) -> float:
    """δ = -min ⟨p, α - λ⟩ over α in a box or a ball, in closed form.

    Zero exactly at a stationary point, never negative in D.

    Examples
    --------
    >>> gap(Box(-1, 1), host([1.0, 0.0]), host([-2.0, 0.5]))
    0.5
    """
    if isinstance(domain, Ball):
        center = host(np.broadcast_to(domain.center, lam.shape))
        return float(gradient @ (lam - center)) + domain.radius * norm(gradient)
    low, high = bounds(domain, lam.shape[0])
    away = np.where(gradient > 0, lam - low, high - lam)
    return float(np.sum(np.abs(gradient) * np.where(gradient == 0, 0, away)))


def vertices(domain: Domain, m: int, count: int = 64, seed: int = 0) -> Iterator[Host]:
    """Vertices of a box (all where there are few) and random points of the domain."""
    low, high = (host(b) for b in bounds(domain, m))
    rng = np.random.default_rng(seed)
    numpy_backend = get_backend("numpy")
    if isinstance(domain, Box):
        codes = range(2**m) if 2**m <= count else rng.integers(0, 2**20, count).tolist()
        for code in codes:
            bits = np.array([(code >> (j % 20)) & 1 for j in range(m)])
            yield np.where(bits == 1, high, low)
    for _ in range(count):
        point = np.asarray(low + (high - low) * host(rng.random(m)), dtype=np.float64)
        yield host(domain.project(point, numpy_backend))


def stationarity(known: KnownProblem, lam: Host, delta: float) -> Figures:
    """⟨∇f(λ*), α - λ*⟩ ≥ -δ for all vertices and random α of D, and in closed form."""
    gradient = known.reference.hypergradient(lam)
    worst = min(
        float(gradient @ (alpha - lam)) for alpha in vertices(known.problem.domain, known.m)
    )
    closed = gap(known.problem.domain, lam, gradient)
    require(worst >= -closed - 1e-9, "the closed form of min ⟨∇f, α - λ⟩", worst=worst, gap=closed)
    require(closed <= delta, "⟨∇f(λ*), α - λ*⟩ ≥ -δ for all α in D", gap=closed, delta=delta)
    return {"gap": closed, "delta": delta}


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
    inside(found, domain, known)
    projected_steps(found, known, used)
    descent(found, known, true)
    squares = squared_steps(found, used)
    scale = true * size**2
    last = stationarity(known, found.lam[-1], delta * max(scale, 1e-12))
    return {**squares, **last, "L": used}


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


def records_hold(known: KnownProblem, records: Sequence[Record]) -> Figures:
    """Every bound that a run states of itself is one, at each of its λ_k.

    Returns
    -------
    dict
        ``stated``, the number of bounds of p; ``loosest``, the largest ratio of one to the truth.
    """
    stated, loosest = 0, 0.0
    for record in records:
        lam = known.host(record.lam)
        here = replace(known, lam=[float(v) for v in lam])
        where = {"k": float(record.k)}
        if record.hypergrad_error is not None:
            error = norm(known.host(record.hypergrad) - here.hypergradient)
            slack = here.hypergradient_rounding
            require(
                error <= record.hypergrad_error + slack,
                "hypergrad_error, the stated bound of ‖p_k - ∇f(λ_k)‖",
                error=error,
                bound=record.hypergrad_error,
                rounding=slack,
                **where,
            )
            stated += 1
            loosest = max(loosest, record.hypergrad_error / max(error, slack, 1e-300))
        if record.value_error is not None:
            truth = known.reference.value(lam)
            slack = 64 * known.inner_terms * known.unit * (1 + abs(truth))
            error = abs(record.value - truth)
            require(
                error <= record.value_error + slack + _value_rounding(here),
                "value_error, the stated bound of |g(x_k, λ_k) - f(λ_k)|",
                error=error,
                bound=record.value_error,
                **where,
            )
    return {"stated": float(stated), "loosest": loosest}


def _value_rounding(known: KnownProblem) -> float:
    """What the rounding of x may do to g."""
    gradient = known.reference.outer.grad_x(known.solution, host(known.lam))
    curvature = known.problem.outer_constants.grad_x_lipschitz or 0.0
    away = known.solution_rounding
    return norm(gradient) * away + curvature * away * (away + norm(known.solution) * known.unit)


# -- conjugate gradients and products -----------------------------------------------------------


def cg_theory(
    matrix: Host,
    b: Host,
    *,
    backend: Backend | None = None,
    solver: Callable[..., Any] = cg,
    distinct: int | None = None,
) -> Figures:
    """Conjugate gradients on a symmetric positive definite matrix.

    The A-norm of the error falls at every step, lies under 2 ((√κ-1)/(√κ+1))ᵏ of the first, the
    residual that is stated is the true one, and after as many steps as b has eigenvalues
    (``distinct``) the solution is exact.

    Examples
    --------
    >>> figures = cg_theory(host([[2.0, 0.0], [0.0, 1.0]]), host([1.0, 1.0]), distinct=2)
    >>> figures["last"] < 1e-12
    True
    """
    found = backend or get_backend("numpy")
    double = np.asarray(matrix, dtype=np.float64)
    values = np.linalg.eigvalsh(double)
    kappa = float(values[-1] / values[0])
    rate = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
    operator = found.asarray(double)
    rhs = found.asarray(np.asarray(b, dtype=np.float64))
    exact = _exact(matrix, b)
    energy = _energy(matrix, exact)
    errors = [energy]
    eps = float(np.finfo(np.float64).eps)
    floor = 64 * eps * kappa * energy
    steps = min(len(double) + 2, 30) if distinct is None else distinct
    for k in range(1, steps + 1):
        result = solver(lambda v: found.xp.matmul(operator, v), rhs, tol=0.0, max_iter=k)
        x = host(found.to_numpy(result.x))
        errors.append(_energy(matrix, x - exact))
        true = norm(b - matrix @ x)
        require(
            abs(true - result.residual_norm) <= 64 * eps * (norm(b) + spectral(matrix) * norm(x)),
            "the stated residual is ‖b - A x‖",
            stated=result.residual_norm,
            true=true,
            k=k,
        )
        require(
            errors[-1] <= errors[-2] * (1 + 1e-10) + floor,
            "the A-norm of the error falls",
            k=k,
            before=errors[-2],
            after=errors[-1],
        )
        require(
            errors[-1] <= 2 * rate**k * energy + floor,
            "the bound by the condition number",
            k=k,
            error=errors[-1],
            bound=2 * rate**k * energy,
        )
    if distinct is not None:
        allowed = 1e-8 * energy + floor
        require(
            errors[-1] <= allowed,
            "exact after as many steps as there are eigenvalues",
            error=errors[-1],
            steps=steps,
        )
    return {"last": errors[-1], "first": energy, "condition": kappa}


def _exact(matrix: Host, b: Host) -> Host:
    from .reference import solve as solve_exactly

    return solve_exactly(matrix, b)


def _energy(matrix: Host, v: Host) -> float:
    return math.sqrt(max(float(v @ (matrix @ v)), 0.0))


def products(known: KnownProblem, seed: int = 0) -> Figures:
    """The Hessian products are symmetric, linear and positive, the cross products adjoint."""
    inner, backend = known.problem.inner, known.problem.backend
    rng = np.random.default_rng(seed)
    p, m = known.reference.inner.p, known.m

    def draw(*shape: int) -> Array:
        return known.array(rng.standard_normal(shape))

    point = inner.at(draw(p), known.array(known.lam))
    u, v, d = draw(p), draw(p), draw(m)
    hu, hv = known.host(point.hvp(u)), known.host(point.hvp(v))
    hu_, hv_, hd = known.host(u), known.host(v), known.host(d)
    size = spectral(known.reference.inner.hessian(known.host(point.x), host(known.lam)))
    slack = 16 * (known.inner_terms + 4) * known.unit * size * norm(hu_) * norm(hv_)
    skew = abs(float(hu_ @ hv) - float(hv_ @ hu))
    require(skew <= slack, "uᵀ H v = vᵀ H u", difference=skew, rounding=slack)
    both = known.host(point.hvp(known.array(np.asarray(2 * hu_ - 3 * hv_, dtype=np.float64))))
    off = norm(both - 2 * hu + 3 * hv)
    slack = 16 * (known.inner_terms + 4) * known.unit * size * (2 * norm(hu_) + 3 * norm(hv_))
    require(off <= slack, "H (2 u - 3 v) = 2 H u - 3 H v", difference=off, rounding=slack)
    block = known.host(point.hvp(backend.xp.stack([u, v], axis=1)))
    apart = norm(block[:, 0] - hu) + norm(block[:, 1] - hv)
    require(apart <= slack, "a block of directions is one direction after the other", apart=apart)
    mu = inner.constants(point.lam).mu or 0.0
    rayleigh = float(hu_ @ hu) / float(hu_ @ hu_)
    require(
        rayleigh >= mu - slack,
        "uᵀ H u ≥ μ ‖u‖²",
        rayleigh=rayleigh,
        mu=mu,
    )
    left = float(known.host(point.cross_vjp(u)) @ hd)
    right = float(hu_ @ known.host(point.cross_jvp(d)))
    cross = spectral(known.reference.inner.cross(known.host(point.x), host(known.lam)))
    slack = 16 * (p + m + 4) * known.unit * (cross + 1e-300) * norm(hu_) * norm(hd)
    require(abs(left - right) <= slack, "⟨Bᵀ u, d⟩ = ⟨u, B d⟩", left=left, right=right)
    truth = known.reference.inner.cross(known.host(point.x), host(known.lam))
    wrong = norm(known.host(point.cross_jvp(d)) - truth @ hd)
    require(
        wrong <= 16 * (p + m + 4) * known.unit * (cross + 1) * norm(hd) * 4,
        "B d is the product with ∂²_{xλ} h",
        error=wrong,
    )
    return {"skew": skew, "rayleigh": rayleigh, "mu": mu}


__all__ = [
    "Figures",
    "Trace",
    "Violation",
    "cg_theory",
    "descent",
    "gap",
    "hypergradient_certificate",
    "inner_certificate",
    "inner_stop",
    "inside",
    "lipschitz_of_gradient",
    "order",
    "products",
    "projected_steps",
    "projection",
    "records_hold",
    "require",
    "shifted",
    "slope",
    "squared_steps",
    "stationarity",
    "summability",
    "theorem_1",
    "theorem_1_constant",
    "theorem_2",
    "trace",
    "vertices",
]
