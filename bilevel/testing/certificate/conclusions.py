"""The conclusions of Theorem 2, each held against the records and fits of our own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...methods.hoag import FixedStep
from ...record import Record
from .._probe import Probe, Vector, length
from .model import Clause, Mark
from .run import Run, Tight


def _gap(run: Run, lam: Vector, p: Vector) -> tuple[float, float]:
    """Two bounds of max ⟨-p, α - λ⟩ over the α in D with ‖α - λ‖ ≤ 1, by projections on D alone.

    With d = P_D(λ - t p) - λ the value at λ + d / max(1, ‖d‖) is one from below. Since d is a
    projection, ⟨-t p - d, α - λ - d⟩ ≤ 0 for all α in D, so ⟨-p, α - λ⟩ ≤ ⟨-p, d⟩ +
    ‖d‖ (1 - ‖d‖) / t wherever ‖α - λ‖ ≤ 1: one from above. They meet where ‖d‖ = 1, or as t grows.
    """
    size, domain, probe = length(p), run.problem.domain, Probe(run.problem, np.zeros(0), lam)
    least, most = 0.0, size
    below, above = 0.0, math.inf  # t on either side of ‖d‖ = 1
    for _ in range(_LOOKS if size > 0 else 0):
        t = math.sqrt(below * above) if math.isfinite(above) else max(2 * below, _NEAREST / size)
        ahead = probe.send(lam - t * p, lam.shape)
        d = probe.host(domain.project(ahead, run.problem.backend)) - lam
        down, away = -float(p @ d), length(d)
        lost = 8 * run.eps * size * (1 + length(lam) + away)
        least = max(least, down / max(1.0, away) - lost)
        most = min(most, down + away * (1 - away) / t + lost)
        below, above = (t, above) if away <= 1 else (below, t)
    return least, most


#: The first length of -t p at which D is looked at, and the looks.
_NEAREST, _LOOKS = 1e-3, 40


def gradient_errors(run: Run) -> Clause:
    """Theorem 1 along the run: the stated errors of p and f, and whether they hold.

    That a bound is finite is no claim: every number has one. The claim is that p_k is ∇f(λ_k) as
    far as a step or a stop needs it: its error is less than ‖p_k‖, so that -p_k descends, or less
    than δ abs(f(λ_k)), which is what a step of length 1 may change of a flat f.
    """
    name, statement = "hypergradients", "‖p_k - ∇f(λ_k)‖ ≤ C ε_k (Theorem 1)"
    known = [(r.hypergrad_error, r.tol) for r in run.records]
    errors = [(e, tol) for e, tol in known if e is not None and e == e]
    figures = {"iterations": float(len(run.records)), "bounded": float(len(errors))}
    if errors:
        figures["largest error"] = max(e for e, _ in errors)
        figures["C"] = max(e / max(tol, 1e-300) for e, tol in errors)
    wrong = _refuted(run)
    if wrong is not None:
        return Clause(name, statement, Mark.VIOLATED, wrong, figures)
    doubt = _without_bound(run, [e for e, _ in errors])
    if doubt is None:
        loose = [record.k for record in run.records if not _telling(run, record)]
        figures |= {"loose": float(len(loose))} if loose else {}
        doubt = _beside_the_point(run, loose)
    if doubt is not None:
        return Clause(name, statement, Mark.ASSUMED, doubt, figures)
    reason = f"by the computed bound of each; {len(run.sampled)} agree with fits of our own"
    return Clause(name, statement, Mark.PROVED, reason, figures)


def _without_bound(run: Run, errors: list[float]) -> str | None:
    """Why the stated errors bound nothing."""
    if len(errors) < len(run.records):
        return "not every iteration has a bound, or NaN, which proves nothing"
    if not all(map(math.isfinite, errors)):
        return "the bound of an iteration is infinite"
    return None


def _beside_the_point(run: Run, loose: list[int]) -> str | None:
    """Why bounds prove nothing all the same: too wide, or finer than can be shown."""
    if loose:
        return f"the bound of iteration {loose[-1]} is above both ‖p‖ and δ f: it says nothing"
    finer = [record.k for record, tight in run.held if not _within(record, tight)]
    if finer:
        return f"the bound of iteration {finer[0]} is finer than any fit of our own can show"
    return None


def _telling(run: Run, record: Record) -> bool:
    """Whether the bound of the error of p says more than p = 0 would."""
    error, size = record.hypergrad_error, length(run.host(record.hypergrad))
    return error is not None and (error <= size or error <= run.delta * abs(record.value))


def _within(record: Record, tight: Tight) -> bool:
    """Whether a stated error is no less than a tenth of the one that a tight fit proves for p.

    Where that proves nothing at all, nobody else can see what the stated one rests on.
    """
    return tight.proven and (record.hypergrad_error or 0.0) >= 0.1 * tight.error_p


def _refuted(run: Run) -> str | None:
    """The first record whose p or value is further from the truth than it states."""
    for record, tight in run.held:
        if not tight.sure:
            continue
        p, e = run.host(record.hypergrad), record.hypergrad_error
        if not np.all(np.isfinite(p)):
            if np.all(np.isfinite(tight.hypergrad)) and e is not None and math.isfinite(e):
                return f"p of record {record.k} is not finite, and an error of {e:.3g} is stated"
            continue
        off = length(p - tight.hypergrad) - tight.error_p
        if e is not None and e == e and off > e * (1 + 1e-9):
            return f"p of record {record.k} is at least {off:.3g} from ∇f, {e:.3g} is stated"
        e = record.value_error
        off = abs(record.value - tight.fun) - tight.error_fun
        if e is not None and e == e and off > e * (1 + 1e-9):
            return f"the value of record {record.k} is {off:.3g} from f, {e:.3g} is stated"
    return None


def finite_path(run: Run) -> Clause:
    """Σ ‖Δλ‖² is finite, and the end of the run adds little to it."""
    statement = "λ_k converges: Σ ‖λ_{k+1} - λ_k‖² < ∞"
    points = list(run.lams)
    steps = np.array([length(b - a) for a, b in zip(points, points[1:], strict=False)])
    total = float(np.sum(steps**2))
    late = float(np.sum(steps[-max(1, len(steps) // 4) :] ** 2)) if steps.size else 0.0
    figures = {
        "sum": total,
        "last quarter": late,
        "last step": float(steps[-1]) if steps.size else 0.0,
    }
    bound = _paid_for(run, steps)
    if bound is not None:
        figures["bound of the proof"] = bound
        if total > bound * (1 + 1e-9):
            reason = "the steps are longer than descent can pay for: L is too small"
            return Clause("convergence", statement, Mark.VIOLATED, reason, figures)
    if not math.isfinite(total):
        reason = "an iterate is not finite: the sum proves nothing"
        return Clause("convergence", statement, Mark.ASSUMED, reason, figures)
    if len(steps) >= 2 and (late <= 0.1 * total or total == 0):
        reason = "the sum has settled"
        return Clause("convergence", statement, Mark.BOUNDED, reason, figures)
    reason = "the sum still grows: the run ended early"
    return Clause("convergence", statement, Mark.ASSUMED, reason, figures)


def _paid_for(run: Run, steps: Vector) -> float | None:
    """What the proof allows Σ ‖Δλ‖² to be at a fixed step; None where it is not known."""
    rule = getattr(run.method, "step_rule", None)
    errors = [record.hypergrad_error for record in run.records[:-1]]
    stated = [e for e in errors if e is not None]
    values = [record.value for record in run.records]
    certain = len(stated) == len(errors) and all(map(math.isfinite, [*values, *stated, *steps]))
    if not (isinstance(rule, FixedStep) and certain):
        return None
    paid = sum(e * s for e, s in zip(stated, steps, strict=False))
    noise = 2 * max((record.value_error or 0.0) for record in run.records)
    return 2 / rule.lipschitz * (values[0] - min(values) + noise + paid)


def stationary(run: Run) -> Clause:
    """The variational inequality at the end, for α within 1 of λ*.

    Over all of D the figure would be that of its width. A λ is a logarithm as a rule: what a change
    of 1 may still lower f by, to first order, is a share of f whatever the problem.
    """
    name, statement = "stationary", "⟨∇f(λ*), α - λ*⟩ ≥ -δ for all α in D within 1 of λ*"
    end, lam = run.tight, run.host(run.result.lam)
    allowed = run.delta * abs(end.fun)
    figures = {"δ": allowed, "f(λ*)": end.fun}
    if not (math.isfinite(end.fun) and np.all(np.isfinite(end.hypergrad))):
        reason = "f or ∇f is not finite at λ*"
        return Clause(name, statement, Mark.ASSUMED, reason, figures)
    back = run.host(run.problem.domain.project(run.result.lam, run.problem.backend))
    if not length(back - lam) <= 8 * run.eps * (1 + length(lam)):
        return Clause(name, statement, Mark.ASSUMED, "λ* is not in D", figures)
    least, most = _gap(run, lam, end.hypergrad)
    figures = {"gap": most, "error of ∇f": end.error_p} | figures
    if not math.isfinite(end.error_p):
        reason = "the error of ∇f is not known: the tight fit went as far as rounding lets it"
        return Clause(name, statement, Mark.ASSUMED, reason, figures)
    figures |= {"gap at worst": most + end.error_p}
    how = "the error of ∇f included" + ("" if end.proven else ", of which no bound is proven")
    if most + end.error_p <= allowed:
        return Clause(name, statement, Mark.PROVED if end.proven else Mark.BOUNDED, how, figures)
    if least - end.error_p > allowed:
        return Clause(name, statement, Mark.VIOLATED, f"λ* is not stationary, {how}", figures)
    reason = "the bounds of ∇f are too loose to tell"
    return Clause(name, statement, Mark.ASSUMED, reason, figures)


def value(run: Run, model: Clause) -> Clause:
    """The value at the end, by the tight fit, and what the run said of it."""
    name, statement = "value", "the value that the run reports is f(λ*)"
    end = run.tight
    off = abs(run.result.fun - end.fun)
    figures = {"reported": run.result.fun, "f(λ*)": end.fun, "difference": off}
    figures["error of f(λ*)"] = end.error_fun
    if not math.isfinite(end.fun):
        return Clause(name, statement, Mark.ASSUMED, "f(λ*) is not finite", figures)
    allowed, error = run.delta * abs(end.fun), end.error_fun if end.proven else 0.0
    if end.sure and not off <= allowed + error:
        reason = "the last fit was too loose, or this is not its value"
        return Clause(name, statement, Mark.VIOLATED, reason, figures)
    if not off <= allowed or not end.sure:
        reason = "the tight fit is not sure enough of f(λ*) to tell"
        return Clause(name, statement, Mark.ASSUMED, reason, figures)
    proved = end.proven and off + error <= allowed
    mark = Mark.PROVED if proved else Mark.BOUNDED
    clause = Clause(name, statement, mark, "by a tight fit at λ*", figures)
    if model.mark is Mark.VIOLATED:
        return replace(clause, mark=Mark.VIOLATED, reason=model.reason)
    return clause
