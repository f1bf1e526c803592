"""Every bound that a run states of itself is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...record import Record
from ..problems import KnownProblem
from ..reference import host, norm
from .violation import Figures, require


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
