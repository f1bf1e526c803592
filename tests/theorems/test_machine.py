"""The outer loop as a state machine: run, break off, resume, go back, tighten, change backend.

Whatever is done to a run, at every step: the iterations are numbered without a gap, each λ_k is
in D, costs only grow, the conditions of algorithm 1 are met, and every stated bound holds. A run
that was only ever broken off and resumed equals the unbroken one to the last bit.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import bilevel
from bilevel import checkpoint as checkpoints
from bilevel.domains import Box
from bilevel.methods import HOAG, AdaptiveStep, FixedStep
from bilevel.record import Record
from bilevel.schedules import Custom, Exponential, Power
from bilevel.status import Status
from bilevel.testing import KnownProblem, linear
from bilevel.testing import strategies as sts
from bilevel.testing.theorems import records_hold

BACKENDS = sts.usable("numpy", "array_api_strict", "torch")
SCHEDULES = {"slow": Power(0.1, 1.5), "fast": Exponential(0.1, 0.7)}
RULES = {"fixed": FixedStep(4.0), "adaptive": AdaptiveStep()}


@dataclass(frozen=True)
class Tightened:
    """A schedule from iteration ``since`` on a factor smaller."""

    schedule: Any
    since: int
    factor: float

    @property
    def summable(self) -> bool:
        return bool(self.schedule.summable)

    def __call__(self, k: int) -> float:
        return float(self.schedule(k)) * (self.factor if k > self.since else 1.0)


def build(seed: int, backend: str) -> KnownProblem:
    return linear(seed, n=10, p=3, m=2, domain=Box(-2.0, 2.0), backend=backend)


class OuterLoop(RuleBasedStateMachine):
    """A run that lives in its checkpoint, as one on a machine that is often switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "run.npz"
        self.history: tuple[Record, ...] = ()
        self.backups: list[tuple[Path, tuple[Record, ...], Any, bool]] = []
        self.pure = True

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(
        seed=st.integers(0, 3),
        schedule=st.sampled_from(sorted(SCHEDULES)),
        step=st.sampled_from(sorted(RULES)),
    )
    def start(self, seed: int, schedule: str, step: str) -> None:
        self.seed = seed
        self.known = build(seed, "numpy")
        self.first = HOAG(tolerances=SCHEDULES[schedule], step_rule=RULES[step])
        self.method = self.first
        self.lam0 = [1.0, -1.0]

    def go(self, steps: int, **options: Any) -> Any:
        result = bilevel.minimize(
            self.known.problem,
            self.lam0,
            method=self.method,
            max_iter=len(self.history) + steps,
            tol=0.0,
            checkpoint=self.path,
            resume=True,
            **options,
        )
        before, self.history = self.history, result.history
        for old, new in zip(before, result.history, strict=False):
            assert (old.k, old.value, old.hypergrad_error) == (
                new.k,
                new.value,
                new.hypergrad_error,
            )
        return result

    def identity(self, method: HOAG | None = None, known: KnownProblem | None = None) -> Any:
        problem = (known or self.known).problem
        start = {"lam0": problem.lam(self.lam0), "x0": None, "tol": 0.0}
        return checkpoints.identify(problem, method or self.method, **start)

    def load(self, **other: Any) -> Any:
        problem = other.get("known", self.known).problem
        return checkpoints.load(self.path, problem, self.identity(**other))

    @rule(steps=st.integers(1, 3))
    def run_on(self, steps: int) -> None:
        length = len(self.history)
        result = self.go(steps)
        assert result.status is Status.MAX_ITER
        assert len(self.history) == length + steps

    @rule(after=st.integers(1, 2), how=st.sampled_from(["callback", "ctrl-c"]))
    def interrupt(self, after: int, how: str) -> None:
        length = len(self.history)

        def callback(record: Record) -> bool:
            if record.k < length + after:
                return False
            if how == "ctrl-c":
                raise KeyboardInterrupt
            return True

        result = self.go(9, callback=callback)
        assert result.status is Status.INTERRUPTED
        assert len(self.history) == length + after

    @precondition(lambda self: self.history)
    @rule()
    def resume_a_run_that_has_ended(self) -> None:
        """Nothing is done twice."""
        result = self.go(0)
        assert result.status is Status.MAX_ITER

    @precondition(lambda self: self.history)
    @rule()
    def back_up(self) -> None:
        copy = self.folder / f"backup{len(self.backups)}.npz"
        shutil.copy(self.path, copy)
        self.backups.append((copy, self.history, (self.method, self.known), self.pure))

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def go_back(self, data: Any) -> None:
        """The power failed, and the last checkpoint is an older one."""
        copy, self.history, (self.method, self.known), self.pure = data.draw(
            st.sampled_from(self.backups)
        )
        shutil.copy(copy, self.path)

    @precondition(lambda self: self.history)
    @rule(factor=st.sampled_from([0.5, 0.1]))
    def tighten(self, factor: float) -> None:
        """Another schedule in mid-run: refused by itself, possible for who asks for it."""
        schedule = Tightened(self.method.tolerances, len(self.history), factor)
        tighter = HOAG(tolerances=schedule, step_rule=self.method.step_rule)
        with pytest.raises(ValueError, match="another method"):
            self.load(method=tighter)
        snapshot = self.load()
        checkpoints.save(self.path, snapshot, self.known.problem, self.identity(tighter))
        self.method, self.pure = tighter, False

    @precondition(lambda self: self.history)
    @rule(backend=st.sampled_from(BACKENDS))
    def change_backend(self, backend: str) -> None:
        """The checkpoint of one library is resumed with another."""
        if backend != self.known.problem.backend.name:
            self.known, self.pure = build(self.seed, backend), False
            with pytest.warns(RuntimeWarning, match="no more to the last bit"):
                self.history = self.load().history

    @precondition(lambda self: self.history)
    @rule()
    def another_problem_is_refused(self) -> None:
        other = linear(self.seed, n=10, p=3, m=2, domain=Box(-3.0, 2.0))
        with pytest.raises(ValueError, match="another problem"):
            self.load(known=other)

    # -- what holds at every step ---------------------------------------------------------------

    @invariant()
    def numbered_without_a_gap(self) -> None:
        assert [record.k for record in self.history] == list(range(1, len(self.history) + 1))

    @invariant()
    def in_the_domain(self) -> None:
        for record in self.history:
            lam = np.asarray(self.known.problem.backend.to_numpy(record.lam))
            assert np.all(np.abs(lam) <= 2)

    @invariant()
    def costs_only_grow(self) -> None:
        passes = [record.passes for record in self.history]
        assert passes == sorted(passes)

    @invariant()
    def conditions_of_the_algorithm(self) -> None:
        for record in self.history:
            assert record.inner_error is not None
            assert record.cg_residual is not None
            assert record.inner_error <= record.tol
            assert record.cg_residual <= record.tol
        if self.history:
            last = self.history[-1]
            assert last.tol == self.method.tolerances(last.k) or not self.pure

    @invariant()
    def bounds_hold(self) -> None:
        records_hold(self.known, self.history[-2:])

    @invariant()
    def equal_to_an_unbroken_run(self) -> None:
        if not self.history or not self.pure:
            return
        unbroken = bilevel.minimize(
            build(self.seed, "numpy").problem,
            self.lam0,
            method=self.first,
            max_iter=len(self.history),
            tol=0.0,
        )
        for mine, other in zip(self.history, unbroken.history, strict=True):
            assert mine.value == other.value
            assert mine.hypergrad_error == other.hypergrad_error
            assert np.array_equal(mine.lam, other.lam)


TestOuterLoop = OuterLoop.TestCase
TestOuterLoop.settings = settings(
    max_examples=max(10, settings().max_examples // 2), stateful_step_count=10
)


def test_control_a_checkpoint_that_forgets_the_adjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run whose warm start is lost differs from the unbroken one: the machine sees it."""
    from dataclasses import replace

    right = checkpoints.load

    def forgetful(*args: Any) -> Any:
        snapshot = right(*args)
        return replace(snapshot, state=replace(snapshot.state, adjoint=None))

    monkeypatch.setattr(checkpoints, "load", forgetful)
    machine = OuterLoop()
    try:
        machine.start(0, "slow", "fixed")
        machine.run_on(2)
        machine.equal_to_an_unbroken_run()
        machine.run_on(2)
        with pytest.raises(AssertionError):
            machine.equal_to_an_unbroken_run()
    finally:
        machine.teardown()


def test_a_change_of_backend_changes_the_run_by_rounding_alone() -> None:
    method = HOAG(tolerances=Custom(_cubic, summable=True), step_rule=FixedStep(4.0))
    runs = []
    for name in BACKENDS:
        result = bilevel.minimize(
            build(1, name).problem, [1.0, -1.0], method=method, max_iter=6, tol=0.0
        )
        runs.append([record.value for record in result.history])
    for other in runs[1:]:
        np.testing.assert_allclose(other, runs[0], rtol=1e-6)


def _cubic(k: int) -> float:
    return 0.1 / float(k) ** 3
