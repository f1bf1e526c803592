"""The assumptions of Theorem 2, each held against the records, the problem and fits of our own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import schedules
from ...domains import Ball, Box
from ...inner import FunctionInner, InnerConstants, inner_constants
from ...methods.hoag import FixedStep
from ...outer import FunctionOuter, OuterConstants
from ...status import Status
from .._probe import Probe, lanczos, length
from ..check.report import CheckReport, Finding
from .model import Clause, Mark
from .run import Run, fit, neighbours


def summable(run: Run) -> Clause:
    """Σ ε_k < ∞, of the schedule that the records follow."""
    statement = "Σ ε_k < ∞"
    spent = sum(record.tol for record in run.records)
    figures = {"sum so far": spent, "last": run.records[-1].tol}
    schedule = getattr(run.method, "tolerances", None)
    if schedule is None:
        reason = "no number of terms shows it, and no schedule is known: pass method="
        if run.method is not None:
            reason = "the method chooses its accuracy as it goes, without a schedule"
        return Clause("summable", statement, Mark.ASSUMED, reason, figures)
    other = _off_schedule(run, schedule)
    if other is not None:
        return Clause("summable", statement, Mark.VIOLATED, other, figures)
    if not schedule.summable:
        reason = f"{schedule!r} has an infinite sum"
        return Clause("summable", statement, Mark.VIOLATED, reason, figures)
    if isinstance(schedule, (schedules.Power, schedules.Exponential)):
        reason = f"{schedule!r} is summable"
        return Clause("summable", statement, Mark.PROVED, reason, figures)
    if _slow(schedule):
        reason = "it is declared summable, but k ε_k does not fall: not up to k = 2⁵⁰"
        return Clause("summable", statement, Mark.VIOLATED, reason, figures)
    return Clause("summable", statement, Mark.ASSUMED, "the schedule says so itself", figures)


def _off_schedule(run: Run, schedule: Any) -> str | None:
    """The first record whose ε_k is another than that of the schedule."""
    for record in run.records:
        asked = schedule(record.k)
        if not abs(record.tol - asked) <= 1e-9 * asked:
            return (
                f"record {record.k} has ε = {record.tol:.6g}, the schedule of the method "
                f"{asked:.6g}: the run followed another"
            )
    return None


def _slow(schedule: Any) -> bool:
    """Whether k ε_k does not fall: then a decreasing ε_k has an infinite sum (Olivier)."""
    try:
        terms = [2**j * schedule(2**j) for j in range(20, 51, 3)]
    except (ArithmeticError, ValueError):  # too small for a number: it falls fast
        return False
    return min(terms[1:]) >= 0.999 * terms[0]


@dataclass(frozen=True)
class _Condition:
    """One of conditions (i) and (ii): what a record says of it.

    Attributes
    ----------
    name, statement, how : str
        Of the clause, and why it holds.
    error, status : str
        Fields of a record.
    hidden : tuple of Status
        Ends of the solver at which an error above ε_k is rounding: the solver went as far as can
        be told.
    best : Mark
        How well it may be known.
    """

    name: str
    statement: str
    error: str
    status: str
    hidden: tuple[Status, ...]
    best: Mark
    how: str


#: The error is an upper bound: above ε_k it says nothing of a solver that has met ε_k.
_INNER = _Condition(
    "inner solutions",
    "‖x_k - X(λ_k)‖ ≤ ε_k at every iteration",
    "inner_error",
    "inner_status",
    (Status.CONVERGED, Status.STALLED),
    Mark.PROVED,
    "by ‖∂_x h‖ / μ",
)
_ADJOINT = _Condition(
    "adjoint solutions",
    "‖H q_k - ∂_x g‖ ≤ ε_k at every iteration",
    "cg_residual",
    "cg_status",
    (Status.STALLED,),
    Mark.BOUNDED,
    "by the residual of the recursion",
)


def inner_condition(run: Run, model: Clause) -> Clause:
    """Condition (i) at every iteration; at the end the model is there to see."""
    clause = _condition(run, _INNER)
    if clause.mark is Mark.PROVED and model.mark is Mark.VIOLATED:
        return replace(clause, mark=Mark.VIOLATED, reason=model.reason)
    if clause.mark is Mark.PROVED and model.mark is Mark.ASSUMED:
        return clause.doubted(model.reason)
    return clause


def adjoint_condition(run: Run) -> Clause:
    """Condition (ii) at every iteration.

    Products are rounded: a residual of nothing is one that can't be told, but for q = 0.
    """
    clause = _condition(run, _ADJOINT)
    none = [record for record in run.records if record.cg_residual == 0]
    if any(length(run.host(record.hypergrad)) > 0 for record in none):
        return clause.doubted("a residual of 0 is finer than products can show")
    return clause


def _condition(run: Run, asked: _Condition) -> Clause:
    errors = [(record, getattr(record, asked.error)) for record in run.records]
    known = [(r, e) for r, e in errors if e is not None and not math.isnan(e + r.tol)]
    above = [(record, e) for record, e in known if e > record.tol * (1 + 1e-9)]
    figures = {"iterations": float(len(errors)), "above": float(len(above))}

    def clause(mark: Mark, reason: str) -> Clause:
        return Clause(asked.name, asked.statement, mark, reason, figures)

    if above:
        record, e = max(above, key=lambda pair: pair[1] / max(pair[0].tol, 1e-300))
        figures |= {"worst k": float(record.k), "error": e, "ε_k": record.tol}
        if getattr(run.method, "tolerances", None) is None:
            reason = "the run is not known to follow a schedule that this could be held to"
            return clause(Mark.ASSUMED, reason)
        ends = [getattr(record, asked.status) for record, _ in above]
        failed = [end for end in ends if end not in asked.hidden]
        if not failed:
            return clause(Mark.ASSUMED, "the tolerance is below what this precision can show")
        reason = f"the tolerance was not met: the solver ended {failed[0].value}"
        return clause(Mark.VIOLATED, reason)
    if len(known) < len(errors):
        reason = "not every record states an error, or NaN, which proves nothing"
        return clause(Mark.ASSUMED, reason)
    return clause(asked.best, asked.how)


@dataclass(frozen=True)
class _Declared:
    """Constants of one side, with who derived them: this package, or a user."""

    side: str
    constants: InnerConstants | OuterConstants
    by_user: bool

    @classmethod
    def of(cls, value: Any, constants: InnerConstants | OuterConstants) -> _Declared:
        user = isinstance(value, (FunctionInner, FunctionOuter))
        side = "outer" if isinstance(constants, OuterConstants) else "inner"
        return cls(side, constants, user or not type(value).__module__.startswith("bilevel."))


def _constants(
    name: str, statement: str, declared: _Declared, symbols: dict[str, str], report: CheckReport
) -> Clause:
    """A clause about declared constants: refuted, missing, or stated by whom."""
    figures = {symbol: getattr(declared.constants, key) for symbol, key in symbols.items()}
    stated = {symbol: value for symbol, value in figures.items() if value is not None}
    members = [f"{declared.side}.constants().{key}" for key in symbols.values()]
    wrong = [finding for finding in report.findings if finding.what in members]
    if wrong:
        return Clause(name, statement, Mark.VIOLATED, str(wrong[0]), stated)
    if len(stated) < len(figures):
        missing = ", ".join(symbol for symbol, value in figures.items() if value is None)
        return Clause(name, statement, Mark.ASSUMED, f"not stated: {missing}", stated)
    if not all(math.isfinite(value) for value in stated.values()):
        return Clause(name, statement, Mark.ASSUMED, "a constant is not finite", stated)
    if declared.by_user:
        reason = "declared by the user; no sample refutes it"
        return Clause(name, statement, Mark.BOUNDED, reason, stated)
    return Clause(name, statement, Mark.PROVED, "by the constants of the model", stated)


def smooth_criterion(run: Run, report: CheckReport) -> Clause:
    """The criterion g has Lipschitz first derivatives."""
    declared = _Declared.of(run.problem.outer, run.problem.outer_constants)
    symbols = {"L_g": "grad_x_lipschitz", "L_λ": "grad_lam_lipschitz"}
    statement = "g has Lipschitz first derivatives"
    return _constants("smooth criterion", statement, declared, symbols, report)


def smooth_objective(run: Run, report: CheckReport) -> Clause:
    """The objective h has Lipschitz second derivatives."""
    inner = run.problem.inner
    declared = _Declared.of(inner, inner_constants(inner, run.result.lam))
    symbols = {"L_H": "hessian_lipschitz", "L_B": "cross_lipschitz"}
    statement = "h has Lipschitz second derivatives"
    return _constants("smooth objective", statement, declared, symbols, report)


def regular(run: Run, report: CheckReport) -> Clause:
    """The Hessian is not singular at X(λ_k)."""
    name, statement = "regular Hessian", "∂²_{xx} h is non-singular at X(λ_k)"
    inner = run.problem.inner
    along = [inner_constants(inner, record.lam).mu for record in run.records]
    known = [mu for mu in along if mu is not None and mu > 0]
    if len(known) == len(along):
        declared = _Declared.of(inner, InnerConstants(mu=min(known)))
        return _constants(name, statement, declared, {"μ": "mu"}, report)
    probe = Probe(run.problem, run.host(run.tight.inner.x).reshape(-1), run.host(run.result.lam))
    low, high = lanczos(probe, np.random.default_rng(run.seed))
    stated = {"smallest Ritz value": low, "largest": high}
    if not (math.isfinite(low) and math.isfinite(high)):
        return Clause(name, statement, Mark.ASSUMED, "the Hessian is not finite there", {})
    if low <= -run.share * abs(high) or high <= 0:
        reason = "an eigenvalue at the last x is zero or negative"
        return Clause(name, statement, Mark.VIOLATED, reason, stated)
    if low <= 100 * run.eps * high:
        reason = "an eigenvalue at the last x is zero, as far as rounding lets tell"
        return Clause(name, statement, Mark.ASSUMED, reason, stated)
    reason = "no μ is stated; by Lanczos, at the last x alone"
    return Clause(name, statement, Mark.BOUNDED, reason, stated)


def derivatives(report: CheckReport) -> Clause:
    """The derivatives are those of h and g."""
    statement = "the derivatives are those of h and g"
    found = [finding for finding in report.findings if "constants()" not in finding.what]
    wrong = [finding for finding in found if finding.finite or _finite(report, finding)]
    figures = {"checks": float(len(report.checked)), "wrong": float(len(wrong))}
    if wrong:
        return Clause("derivatives", statement, Mark.VIOLATED, str(wrong[0]), figures)
    if found:
        return Clause("derivatives", statement, Mark.ASSUMED, str(found[0]), figures)
    return Clause("derivatives", statement, Mark.BOUNDED, "against differences", figures)


def _finite(report: CheckReport, finding: Finding) -> bool:
    """Whether the function itself is finite where its derivative is not: then that is wrong.

    A function that is NaN, as one that has lost all its digits may be, has no derivatives there.
    """
    side = finding.what.partition(".")[0]
    return all(other.finite or other.what != f"{side}.value" for other in report.findings)


def bounded(run: Run) -> Clause:
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


def feasible(run: Run) -> Clause:
    """Every iterate is in D, and the result."""
    domain, backend = run.problem.domain, run.problem.backend
    out, size = 0.0, 0.0
    for lam in (*(record.lam for record in run.records), run.result.lam):
        there = run.host(lam)
        off = length(run.host(domain.project(lam, backend)) - there)
        out, size = max(out, off if off == off else math.inf), max(size, length(there))
    holds = out <= 8 * run.eps * (1 + size)
    mark = Mark.PROVED if holds else Mark.VIOLATED
    return Clause("feasible", "λ_k is in D", mark, "by projection", {"largest distance": out})


def _change(run: Run) -> tuple[float, float]:
    """The largest ‖∇f(λ) - ∇f(λ')‖ / ‖λ - λ'‖ along the run: seen in p, and certain by fits."""
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
    for (before, low), (after, high) in neighbours(run):
        apart = length(run.host(after.lam) - run.host(before.lam))
        if apart > 0 and low.inner.status.success and high.inner.status.success:
            change = length(high.hypergrad - low.hypergrad) - low.error_p - high.error_p
            certain = max(certain, change / apart)
    return seen, max(certain, 0.0)


def step_length(run: Run) -> Clause:
    """L is at least the Lipschitz constant of ∇f."""
    name, statement = "step length", "L ≥ the Lipschitz constant of ∇f"
    rule = getattr(run.method, "step_rule", None)
    if not isinstance(rule, FixedStep):
        reason = "no fixed L is known: the rule adapts it" if run.method else "pass method="
        return Clause(name, statement, Mark.ASSUMED, reason, {})
    seen, certain = _change(run)
    bend = max(certain, _bend(run))
    figures = {"change of p along the path": seen, "change of ∇f": bend, "L": rule.lipschitz}
    if bend > rule.lipschitz:
        return Clause(name, statement, Mark.VIOLATED, "∇f changes faster along the path", figures)
    reason = "∇f changes no faster along the path"
    return Clause(name, statement, Mark.BOUNDED, reason, figures)


def _bend(run: Run) -> float:
    """The change of ∇f close to sampled iterates, by fits of our own: what is certain of it."""
    found = 0.0
    problem, backend = run.problem, run.problem.backend
    for record, here in run.sampled:
        ahead = record.lam - 0.1 * record.hypergrad / max(length(run.host(record.hypergrad)), 1e-30)
        lam = problem.domain.project(ahead, backend)
        apart = length(run.host(lam) - run.host(record.lam))
        if not apart > 1e-3:
            continue
        there = fit(run, lam)
        if here.inner.status.success and there.inner.status.success:
            change = length(there.hypergrad - here.hypergrad) - here.error_p - there.error_p
            found = max(found, change / apart)
    return found
