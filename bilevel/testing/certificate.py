"""A certificate of a finished run: Theorem 2 of Pedregosa (2016), clause by clause.

Each assumption and each conclusion is *proved* (by the constants that the problem states, or by
arithmetic), *bounded numerically* (computed, with an error that is not proved), *assumed* (not
to be had from the run), or *violated*, with the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from .. import schedules
from ..backends import POSITIVE, SEED, described
from ..domains import Ball, Box, Domain
from ..hypergrad import HypergradResult, Implicit, value_bound
from ..inner import FunctionInner
from ..linalg import norm
from ..methods import Method, get_method
from ..methods.hoag import FixedStep
from ..outer import FunctionOuter
from ..problem import Problem
from ..record import Record, Result
from ..solvers import InnerResult, NewtonCG, solve
from ._probe import Probe, Vector, lanczos, length
from .check import CheckReport, check_problem, refuse_no_problem


class Mark(Enum):
    """How well a clause is known.

    Examples
    --------
    >>> Mark.BOUNDED.value
    'bounded numerically'
    """

    PROVED = "proved"
    BOUNDED = "bounded numerically"
    ASSUMED = "assumed"
    VIOLATED = "violated"


@dataclass(frozen=True)
class Clause:
    """One assumption or conclusion.

    Attributes
    ----------
    name : str
        Short, for machines.
    statement : str
        The mathematics.
    mark : Mark
        How well it is known.
    reason : str
        Why.
    figures : dict of float
        The numbers behind it.
    """

    name: str
    statement: str
    mark: Mark
    reason: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Certificate:
    """What :func:`certify` found.

    Attributes
    ----------
    assumptions, conclusions : tuple of Clause
        Those of Theorem 2.
    """

    assumptions: tuple[Clause, ...]
    conclusions: tuple[Clause, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is violated."""
        return all(c.mark is not Mark.VIOLATED for c in (*self.assumptions, *self.conclusions))

    def __getitem__(self, name: str) -> Clause:
        for clause in (*self.assumptions, *self.conclusions):
            if clause.name == name:
                return clause
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The same as numbers, strings and lists: ready for JSON."""

        def rows(clauses: tuple[Clause, ...]) -> list[dict[str, Any]]:
            return [
                {
                    "name": clause.name,
                    "statement": clause.statement,
                    "mark": clause.mark.value,
                    "reason": clause.reason,
                    "figures": {
                        name: value if math.isfinite(value) else str(value)
                        for name, value in clause.figures.items()
                    },
                }
                for clause in clauses
            ]

        return {
            "theorem": "Theorem 2 (Pedregosa 2016)",
            "ok": self.ok,
            "assumptions": rows(self.assumptions),
            "conclusions": rows(self.conclusions),
        }

    def __str__(self) -> str:
        lines = ["Theorem 2 (Pedregosa 2016): certificate of this run"]
        for title, clauses in (
            ("Assumptions", self.assumptions),
            ("Conclusions", self.conclusions),
        ):
            lines.append(title)
            for clause in clauses:
                lines.append(f"  [{clause.mark.value:^19}] {clause.statement}")
                shown = ", ".join(f"{n} = {v:.3g}" for n, v in clause.figures.items())
                lines.append(f"  {'':21} {clause.reason}" + (f" ({shown})" if shown else ""))
        return "\n".join(lines)


def certify(
    result: Result,
    problem: Problem,
    *,
    method: str | Method | None = None,
    delta: float = 1e-2,
    seed: int = 0,
) -> Certificate:
    """Hold a finished run against the assumptions and the conclusions of Theorem 2.

    The end of the run is fitted again, tightly, and its hypergradient computed with a verified
    residual; the constants that the problem states are tested on samples. The cost is some
    hundred evaluations beside the tight fit.

    Parameters
    ----------
    result : Result
        Of :func:`bilevel.minimize`.
    problem : Problem
        The problem that was solved.
    method : str or Method, optional
        How it was solved: only a method knows whether its tolerances are summable and its step
        length is fixed. Without it these two clauses are at best assumed.
    delta : float
        The end counts as stationary where -min ⟨∇f, α - λ*⟩ over D is at most delta |f(λ*)|.
    seed : int
        Of the random samples.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        If the run has no iterations.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> certificate = certify(bilevel.minimize(problem), problem)
    >>> certificate["bounded domain"].mark.value, certificate["stationary"].mark.value
    ('proved', 'proved')
    """
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result, got {described(result)}.")
    refuse_no_problem(problem)
    if not result.history:
        raise ValueError("result must have at least one iteration, got none.")
    delta, seed = POSITIVE(delta, "delta"), SEED(seed, "seed")
    run = _Run(result, problem, None if method is None else get_method(method), delta, seed)
    report = check_problem(problem, result.lam, result.x, seed=seed)
    assumptions = (
        summable(run),
        inner_condition(run),
        adjoint_condition(run),
        smooth_criterion(run, report),
        smooth_objective(run, report),
        regular(run, report),
        derivatives(report),
        bounded(run),
        feasible(run),
        step_length(run),
    )
    end = tight_end(run)
    conclusions = (gradient_errors(run), finite_path(run), stationary(run, end), value(run, end))
    return Certificate(assumptions, conclusions)


@dataclass(frozen=True)
class _Run:
    """A run with what the clauses ask of it."""

    result: Result
    problem: Problem
    method: Method | None
    delta: float
    seed: int

    @property
    def records(self) -> tuple[Record, ...]:
        return self.result.history

    def host(self, array: Any) -> Vector:
        return np.asarray(self.problem.backend.to_numpy(array), dtype=np.float64)

    @property
    def eps(self) -> float:
        return float(self.problem.backend.xp.finfo(self.problem.dtype).eps)


# -- assumptions -----------------------------------------------------------------------------------


def summable(run: _Run) -> Clause:
    """Σ ε_k < ∞."""
    statement = "Σ ε_k < ∞"
    spent = sum(record.tol for record in run.records)
    figures = {"sum so far": spent, "last": run.records[-1].tol}
    schedule = getattr(run.method, "tolerances", None)
    if schedule is None:
        reason = "no number of terms shows it, and no schedule is known: pass method="
        if run.method is not None:
            reason = "the method chooses its accuracy as it goes, without a schedule"
        return Clause("summable", statement, Mark.ASSUMED, reason, figures)
    if not schedule.summable:
        reason = f"{schedule!r} has an infinite sum"
        return Clause("summable", statement, Mark.VIOLATED, reason, figures)
    known = isinstance(schedule, (schedules.Power, schedules.Exponential))
    reason = f"{schedule!r} is summable" if known else "the schedule says so itself"
    return Clause("summable", statement, Mark.PROVED if known else Mark.ASSUMED, reason, figures)


def inner_condition(run: _Run) -> Clause:
    """Condition (i) at every iteration."""
    return _condition(
        run,
        "inner solutions",
        "‖x_k - X(λ_k)‖ ≤ ε_k at every iteration",
        lambda record: record.inner_error,
        Mark.PROVED,
        "by ‖∂_x h‖ / μ",
    )


def adjoint_condition(run: _Run) -> Clause:
    """Condition (ii) at every iteration."""
    return _condition(
        run,
        "adjoint solutions",
        "‖H q_k - ∂_x g‖ ≤ ε_k at every iteration",
        lambda record: record.cg_residual,
        Mark.BOUNDED,
        "by the residual of the recursion",
    )


def _condition(
    run: _Run,
    name: str,
    statement: str,
    error: Callable[[Record], float | None],
    best: Mark,
    how: str,
) -> Clause:
    errors = [(record, error(record)) for record in run.records]
    known = [(record, e) for record, e in errors if e is not None]
    above = [(record, e) for record, e in known if e > record.tol * (1 + 1e-9)]
    figures = {"iterations": float(len(errors)), "above": float(len(above))}
    if above:
        record, e = max(above, key=lambda pair: pair[1] / max(pair[0].tol, 1e-300))
        figures |= {"worst k": float(record.k), "error": e, "ε_k": record.tol}
        if getattr(run.method, "tolerances", None) is None:
            reason = "the run is not known to follow a schedule that this could be held to"
            return Clause(name, statement, Mark.ASSUMED, reason, figures)
        return Clause(name, statement, Mark.VIOLATED, "the tolerance was not met", figures)
    if len(known) < len(errors):
        return Clause(name, statement, Mark.ASSUMED, "the records state no error", figures)
    return Clause(name, statement, best, how, figures)


def _constants(
    name: str,
    statement: str,
    figures: dict[str, float | None],
    report: CheckReport,
    members: tuple[str, ...],
    *,
    ours: bool,
) -> Clause:
    """A clause about declared constants: refuted, missing, or stated by whom."""
    stated = {key: value for key, value in figures.items() if value is not None}
    wrong = [finding for finding in report.findings if finding.what in members]
    if wrong:
        return Clause(name, statement, Mark.VIOLATED, str(wrong[0]), stated)
    if len(stated) < len(figures):
        missing = ", ".join(key for key, value in figures.items() if value is None)
        return Clause(name, statement, Mark.ASSUMED, f"not stated: {missing}", stated)
    if not ours:
        reason = "declared by the user; no sample refutes it"
        return Clause(name, statement, Mark.BOUNDED, reason, stated)
    return Clause(name, statement, Mark.PROVED, "by the constants of the model", stated)


def _ours(value: Any, functions: type) -> bool:
    """Whether constants are derived in this package rather than declared by a user."""
    return type(value).__module__.startswith("bilevel.") and not isinstance(value, functions)


def smooth_criterion(run: _Run, report: CheckReport) -> Clause:
    """The criterion g has Lipschitz first derivatives."""
    constants = run.problem.outer_constants
    return _constants(
        "smooth criterion",
        "g has Lipschitz first derivatives",
        {"L_g": constants.grad_x_lipschitz, "L_λ": constants.grad_lam_lipschitz},
        report,
        ("outer.constants().grad_x_lipschitz", "outer.constants().grad_lam_lipschitz"),
        ours=_ours(run.problem.outer, FunctionOuter),
    )


def smooth_objective(run: _Run, report: CheckReport) -> Clause:
    """The objective h has Lipschitz second derivatives."""
    constants = run.problem.inner.constants(run.result.lam)
    return _constants(
        "smooth objective",
        "h has Lipschitz second derivatives",
        {"L_H": constants.hessian_lipschitz, "L_B": constants.cross_lipschitz},
        report,
        ("inner.constants().hessian_lipschitz", "inner.constants().cross_lipschitz"),
        ours=_ours(run.problem.inner, FunctionInner),
    )


def regular(run: _Run, report: CheckReport) -> Clause:
    """The Hessian is not singular at X(λ_k)."""
    name, statement = "regular Hessian", "∂²_{xx} h is non-singular at X(λ_k)"
    inner = run.problem.inner
    along = [inner.constants(record.lam).mu for record in run.records]
    if all(mu is not None and mu > 0 for mu in along):
        figures: dict[str, float | None] = {"μ": min(mu for mu in along if mu is not None)}
        return _constants(
            name,
            statement,
            figures,
            report,
            ("inner.constants().mu",),
            ours=_ours(inner, FunctionInner),
        )
    probe = Probe(run.problem, run.host(run.result.x).reshape(-1), run.host(run.result.lam))
    low, high = lanczos(probe, np.random.default_rng(run.seed))
    stated = {"smallest Ritz value": low, "largest": high}
    if not low > 1e-10 * abs(high):
        reason = "an eigenvalue at the last x is zero or negative"
        return Clause(name, statement, Mark.VIOLATED, reason, stated)
    reason = "no μ is stated; by Lanczos, at the last x alone"
    return Clause(name, statement, Mark.BOUNDED, reason, stated)


def derivatives(report: CheckReport) -> Clause:
    """The derivatives are those of h and g."""
    statement = "the derivatives are those of h and g"
    wrong = [finding for finding in report.findings if "constants()" not in finding.what]
    figures = {"checks": float(len(report.checked)), "wrong": float(len(wrong))}
    if wrong:
        return Clause("derivatives", statement, Mark.VIOLATED, str(wrong[0]), figures)
    return Clause("derivatives", statement, Mark.BOUNDED, "against differences", figures)


def bounded(run: _Run) -> Clause:
    """D is convex and bounded."""
    name, statement = "bounded domain", "D is convex and bounded"
    domain = run.problem.domain
    m = run.problem.inner.n_hyperparameters
    if isinstance(domain, Box):
        low = np.broadcast_to(np.asarray(domain.lower, dtype=np.float64), (m,))
        high = np.broadcast_to(np.asarray(domain.upper, dtype=np.float64), (m,))
        size = float(np.linalg.norm(high - low))
        mark = Mark.PROVED if math.isfinite(size) else Mark.VIOLATED
        reason = "a box" if mark is Mark.PROVED else "a box with an infinite bound"
        return Clause(name, statement, mark, reason, {"diameter": size})
    if isinstance(domain, Ball):
        return Clause(name, statement, Mark.PROVED, "a ball", {"diameter": 2 * domain.radius})
    return Clause(name, statement, Mark.ASSUMED, f"a {type(domain).__name__}", {})


def feasible(run: _Run) -> Clause:
    """Every iterate is in D."""
    domain, backend = run.problem.domain, run.problem.backend
    out, size = 0.0, 0.0
    for record in run.records:
        there = run.host(record.lam)
        back = run.host(domain.project(record.lam, backend))
        out, size = max(out, length(back - there)), max(size, length(there))
    holds = out <= 8 * run.eps * (1 + size)
    mark = Mark.PROVED if holds else Mark.VIOLATED
    return Clause("feasible", "λ_k is in D", mark, "by projection", {"largest distance": out})


def _change(run: _Run) -> tuple[float, float]:
    """The largest ‖p_k - p_j‖ / ‖λ_k - λ_j‖ of neighbours: seen, and certain."""
    seen, certain = 0.0, 0.0
    for before, after in zip(run.records, run.records[1:], strict=False):
        apart = length(run.host(after.lam) - run.host(before.lam))
        if not apart > 0:
            continue
        change = length(run.host(after.hypergrad) - run.host(before.hypergrad))
        seen = max(seen, change / apart)
        errors = (before.hypergrad_error, after.hypergrad_error)
        if errors[0] is not None and errors[1] is not None:
            certain = max(certain, (change - errors[0] - errors[1]) / apart)
    return seen, certain


def step_length(run: _Run) -> Clause:
    """L is at least the Lipschitz constant of ∇f."""
    name, statement = "step length", "L ≥ the Lipschitz constant of ∇f"
    seen, certain = _change(run)
    figures = {"change of p along the path": seen}
    rule = getattr(run.method, "step_rule", None)
    if not isinstance(rule, FixedStep):
        reason = "no fixed L is known: the rule adapts it" if run.method else "pass method="
        return Clause(name, statement, Mark.ASSUMED, reason, figures)
    figures["L"] = rule.lipschitz
    if certain > rule.lipschitz:
        return Clause(name, statement, Mark.VIOLATED, "∇f changes faster along the path", figures)
    reason = "∇f changes no faster along the path"
    return Clause(name, statement, Mark.BOUNDED, reason, figures)


# -- conclusions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """The tight fit at the end of the run."""

    inner: InnerResult
    found: HypergradResult
    fun: float
    hypergrad: Vector


def tight_end(run: _Run) -> End:
    """Fit at λ* until the error of ∇f, where it is bounded, is a tenth of what δ asks for."""
    problem, backend = run.problem, run.problem.backend
    lam = run.result.lam
    x, tol = run.result.x, 1e-4 * (1 + length(run.host(run.result.x)))
    for _ in range(5):
        inner = solve(problem.inner, lam, x, solver=NewtonCG(), tol=tol, max_iter=200)
        found = Implicit(verify=True)(problem, inner, tol=tol)
        (fun,) = backend.scalars(found.outer.value)
        wanted = 0.1 * run.delta * abs(fun)
        reach = _reach(problem.domain, run.host(lam))
        if found.error_bound is None or not math.isfinite(reach):
            tol *= 1e-4
            if tol < 1e-9 * (1 + length(run.host(x))):
                break
            continue
        if found.error_bound * reach <= wanted or not inner.status.success:
            break
        x, tol = inner.x, max(tol * wanted / (found.error_bound * reach), 1e-4 * tol) / 2
    return End(inner, found, fun, run.host(found.value))


def _reach(domain: Domain, lam: Vector) -> float:
    """sup ‖α - λ‖ over D."""
    if isinstance(domain, Ball):
        return length(lam - np.asarray(domain.center)) + domain.radius
    if isinstance(domain, Box):
        return length(np.maximum(lam - np.asarray(domain.lower), np.asarray(domain.upper) - lam))
    return math.inf


def _gap(run: _Run, lam: Vector, p: Vector) -> tuple[float, bool]:
    """-min ⟨p, α - λ⟩ over α in D, in closed form for boxes and balls, else by projections."""
    domain = run.problem.domain
    if isinstance(domain, Ball):
        return float(p @ (lam - np.asarray(domain.center))) + domain.radius * length(p), True
    if isinstance(domain, Box):
        away = np.where(p > 0, lam - np.asarray(domain.lower), np.asarray(domain.upper) - lam)
        return float(np.sum(np.abs(p) * np.where(p == 0, 0.0, away))), True
    probe = Probe(run.problem, np.zeros(0), lam)
    found = 0.0
    for scale in (1e-2, 1.0, 1e2, 1e4):
        ahead = probe.send(lam - scale * p, lam.shape)
        alpha = probe.host(domain.project(ahead, run.problem.backend))
        found = max(found, -float(p @ (alpha - lam)))
    return found, False


def gradient_errors(run: _Run) -> Clause:
    """Theorem 1 along the run."""
    statement = "‖p_k - ∇f(λ_k)‖ ≤ C ε_k (Theorem 1)"
    errors = [(r.hypergrad_error, r.tol) for r in run.records if r.hypergrad_error is not None]
    figures = {"iterations": float(len(run.records)), "bounded": float(len(errors))}
    if errors:
        figures["largest error"] = max(e for e, _ in errors)
        figures["C"] = max(e / max(tol, 1e-300) for e, tol in errors)
    if len(errors) < len(run.records):
        reason = "not every iteration has a bound"
        return Clause("hypergradients", statement, Mark.ASSUMED, reason, figures)
    reason = "by the computed bound of each"
    return Clause("hypergradients", statement, Mark.PROVED, reason, figures)


def finite_path(run: _Run) -> Clause:
    """Σ ‖Δλ‖² is finite, and the end of the run adds little to it."""
    statement = "λ_k converges: Σ ‖λ_{k+1} - λ_k‖² < ∞"
    points = [run.host(record.lam) for record in run.records]
    steps = np.array([length(b - a) for a, b in zip(points, points[1:], strict=False)])
    total = float(np.sum(steps**2))
    late = float(np.sum(steps[-max(1, len(steps) // 4) :] ** 2)) if steps.size else 0.0
    figures = {
        "sum": total,
        "last quarter": late,
        "last step": float(steps[-1]) if steps.size else 0.0,
    }
    rule = getattr(run.method, "step_rule", None)
    errors = [record.hypergrad_error for record in run.records[:-1]]
    certain = all(e is not None for e in errors)
    if isinstance(rule, FixedStep) and certain:
        values = [record.value for record in run.records]
        paid = sum((e or 0.0) * s for e, s in zip(errors, steps, strict=False))
        noise = 2 * max((r.value_error or 0.0) for r in run.records)
        bound = 2 / rule.lipschitz * (values[0] - min(values) + noise + paid)
        figures["bound of the proof"] = bound
        if total > bound * (1 + 1e-9):
            reason = "the steps are longer than descent can pay for: L is too small"
            return Clause("convergence", statement, Mark.VIOLATED, reason, figures)
    if late <= 0.1 * total or total == 0:
        reason = "the sum has settled"
        return Clause("convergence", statement, Mark.BOUNDED, reason, figures)
    reason = "the sum still grows: the run ended early"
    return Clause("convergence", statement, Mark.ASSUMED, reason, figures)


def stationary(run: _Run, end: End) -> Clause:
    """The variational inequality at the end."""
    statement = "⟨∇f(λ*), α - λ*⟩ ≥ -δ for all α in D"
    lam = run.host(run.result.lam)
    left, exact = _gap(run, lam, end.hypergrad)
    allowed = run.delta * abs(end.fun)
    figures = {"gap": left, "δ": allowed, "f(λ*)": end.fun}
    bound = end.found.error_bound
    reach = _reach(run.problem.domain, lam)
    if bound is None or not exact or not math.isfinite(reach):
        mark = Mark.BOUNDED if left <= allowed else Mark.VIOLATED
        reason = "without a proven bound of the error of ∇f"
        return Clause("stationary", statement, mark, reason, figures)
    slack = bound * reach
    figures |= {"error of ∇f": bound, "gap at worst": left + slack}
    if left + slack <= allowed:
        reason = "the error of ∇f included"
        return Clause("stationary", statement, Mark.PROVED, reason, figures)
    if left - slack > allowed:
        return Clause("stationary", statement, Mark.VIOLATED, "λ* is not stationary", figures)
    mark = Mark.BOUNDED if left <= allowed else Mark.VIOLATED
    return Clause("stationary", statement, mark, "the proven bound is too loose to tell", figures)


def value(run: _Run, end: End) -> Clause:
    """The value at the end, by the tight fit, and what the run said of it."""
    statement = "the value that the run reports is f(λ*)"
    problem, backend = run.problem, run.problem.backend
    (size,) = backend.scalars(norm(end.found.outer.grad_x, backend))
    bound = value_bound(
        problem.outer_constants, inner_error=end.inner.error_bound, grad_x_norm=size
    )
    off = abs(run.result.fun - end.fun)
    figures = {"reported": run.result.fun, "f(λ*)": end.fun, "difference": off}
    mark = Mark.BOUNDED
    if bound is not None:
        figures["error of f(λ*)"] = bound
        mark = Mark.PROVED
    if off > run.delta * abs(end.fun) + (bound or 0.0):
        return Clause("value", statement, Mark.VIOLATED, "the last fit was too loose", figures)
    return Clause("value", statement, mark, "by a tight fit at λ*", figures)
