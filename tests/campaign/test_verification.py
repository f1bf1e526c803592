"""check_problem and certify at length: faults found, no false alarm, tamperings seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faulty
import numpy as np
import pytest
from drawn import drawn
from tampered import TAMPERINGS, missed

import bilevel
from bilevel.methods import HOAG, FixedStep
from bilevel.testing import certify, check_problem

#: Draws start outside of their domain, too, and are told so.
pytestmark = pytest.mark.filterwarnings("ignore:.*lies outside:UserWarning")

Draws = Callable[[int], list[int]]

#: A run may end early, or by a rule of its own, or with constants that no schedule can meet: then
#: these are violated by right.
_BY_RIGHT = frozenset({"stationary", "summable", "value"})


def by_right(clause: Any) -> bool:
    """Whether a violation is one: of the run by what it was asked for, or by a solver's own word."""
    return clause.name in _BY_RIGHT or "the solver ended" in clause.reason


def start_of(seed: int) -> float:
    return float(np.random.default_rng(seed).uniform(-2, 2))


def method_of(seed: int) -> Any:
    methods = ("path", "hoag", "maid", HOAG(tolerances="cubic"), HOAG(step_rule=FixedStep(300.0)))
    return methods[seed % len(methods)]


def run_of(seed: int) -> tuple[Any, Any, Any, str] | None:
    """A drawn problem solved by a drawn method.

    None where MAID lacks the constants it needs, or where the seconds end the first iteration.
    """
    problem, name = drawn(seed)
    method = method_of(seed)
    try:
        result = bilevel.minimize(
            problem, start_of(seed), method=method, max_iter=20, max_seconds=30
        )
    except ValueError as error:
        if "MAID needs" not in str(error):
            raise
        return None
    if not result.history:
        assert result.status is bilevel.Status.MAX_SECONDS, result.message
        return None
    return problem, method, result, f"{name}, {method}, from {start_of(seed):.3f}"


def test_right_problems_raise_no_alarm(draws: Draws) -> None:
    alarms = []
    for seed in draws(200):
        problem, name = drawn(seed)
        report = check_problem(problem, start_of(seed), seed=seed)
        if not report.ok:
            alarms.append(f"{name}\n{report}")
    assert not alarms, "\n".join(alarms)


def test_faults_by_hand_are_found(draws: Draws) -> None:
    """At least 98 of 100, and at the member that is wrong."""
    missing, asked = [], 0
    for seed in draws(4):
        for name, (build, what) in faulty.FAULTS.items():
            asked += 1
            findings = check_problem(build(), start_of(seed), seed=seed).findings
            if not any(finding.what.startswith(what) for finding in findings):
                missing.append(f"{name}, seed {seed}: {[str(f) for f in findings]}")
    assert len(missing) <= 0.02 * asked, "\n".join(missing)


def test_honest_runs_raise_no_alarm(draws: Draws) -> None:
    alarms, certified = [], 0
    for seed in draws(250):
        run = run_of(seed)
        if run is None:
            continue
        problem, method, result, name = run
        certificate = certify(result, problem, method=method, seed=seed % 1000)
        certified += 1
        wrong = [
            clause
            for clause in certificate.clauses
            if clause.mark.name == "VIOLATED" and not by_right(clause)
        ]
        alarms += [f"{name}\n  {clause.name}: {clause.reason} {clause.figures}" for clause in wrong]
    assert certified > 0
    assert not alarms, "\n".join(alarms)


def test_tamperings_are_seen(draws: Draws) -> None:
    """All of them with every run that has something to tamper with: steps, bounds, no bound of D."""
    missing, asked = [], 0
    for seed in draws(8):
        problem, name = drawn(seed, kind=("logistic", "squared")[seed % 2], scale="plain")
        method = HOAG(tolerances="quadratic")
        result = bilevel.minimize(problem, start_of(seed), method=method, max_iter=12, tol=0.0)
        steps = [record.step for record in result.history]
        if min(steps) < 1e-6 or not certify(result, problem, method=method, delta=10.0).ok:
            continue
        for what, tampering in TAMPERINGS.items():
            asked += 1
            changed = tampering.change(result)
            certificate = certify(changed, problem, method=method, delta=10.0)
            found = missed(tampering, certificate, narrow="float32" in str(problem.dtype))
            if found is not None:
                missing.append(f"{name}, {what}: {found}")
    assert asked > 0
    assert len(missing) <= 0.02 * asked, "\n".join(missing)
