"""No bound that is called proven lies below the truth, and most are near it.

Every record of every method, every inner solution and every hypergradient of random small problems
is held against the same in long double. A bound counts as exceeded where the truth is above it by
more than the reference itself may be off. Ratios of bound to truth are those of errors well above
the rounding of what is in error, for below that a bound says what rounding may do at worst, and
the truth is what it happened to do.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from bounded import Drawn, draw, norm

import bilevel
from bilevel.hypergrad import Direct, ForwardUnrolled, Implicit, Neumann, ReverseUnrolled
from bilevel.methods import HOAG, METHODS
from bilevel.solvers import LBFGS, NewtonCG, solve

#: Iterations of each method, and times its unit of roundoff that an error must be to count.
STEPS, VISIBLE = 6, 1e4

RUNS: dict[str, Callable[[], Any]] = {
    "path": METHODS["path"],
    "hoag": lambda: replace(METHODS["hoag"](), max_inner=200),
    "maid": lambda: replace(METHODS["maid"](), max_tightenings=12),
    "quadratic": lambda: HOAG(tolerances="quadratic", max_inner=200),
    "exact": lambda: HOAG(tolerances="exact", max_inner=200),
}


@dataclass(frozen=True)
class Claim:
    """A bound, the error that it bounds, and the size of what is in error."""

    source: str
    kind: str
    bound: float
    error: float
    unsure: float
    size: float
    unit: float
    name: str

    @property
    def exceeded(self) -> bool:
        return not self.error - self.unsure <= self.bound

    @property
    def visible(self) -> bool:
        return self.error > VISIBLE * self.unit * self.size and self.error > 100 * self.unsure


def claims(
    drawn: Drawn, source: str, found: dict[str, tuple[float | None, Any]], lam: Any, near: Any
) -> Iterator[Claim]:
    """Each bound of ``found``, with its truth: x, the value or the hypergradient."""
    if all(bound is None for bound, _ in found.values()):
        return
    truth = drawn.truth(lam, near)
    if truth is None:
        return
    exact: dict[str, Any] = {"x": truth.x, "value": truth.value, "hypergrad": truth.hypergrad}
    for (kind, right), unsure in zip(exact.items(), truth.unsure, strict=True):
        bound, computed = found.get(kind, (None, None))
        if bound is None or not math.isfinite(unsure) or not np.all(np.isfinite(computed)):
            continue
        error = norm(np.asarray(computed, dtype=np.longdouble).reshape(np.shape(right)) - right)
        yield Claim(source, kind, bound, error, unsure, norm(right), drawn.unit, drawn.name)


def of_runs(drawn: Drawn) -> Iterator[Claim]:
    """What the records of the methods say."""
    problem = drawn.problem
    for source, make in RUNS.items():
        method = make()
        state = method.init(problem, problem.lam(drawn.lam0), None, 1e-6)
        for _ in range(STEPS):
            try:
                state = method.step(problem, state)
            except ValueError as error:
                if "MAID needs" not in str(error):
                    raise
                break
            record = state.record
            found = {
                "value": (record.value_error, record.value),
                "hypergrad": (record.hypergrad_error, record.hypergrad),
                "x": (record.inner_error, state.x),
            }
            yield from claims(drawn, source, found, record.lam, state.x)
            if state.status.value != "running":
                break


def of_results(drawn: Drawn) -> Iterator[Claim]:
    """What is said of the iterate that is returned."""
    for source, make in RUNS.items():
        try:
            found = bilevel.minimize(
                drawn.problem, drawn.lam0, method=make(), max_iter=STEPS, tol=1e-6
            )
        except ValueError as error:
            if "MAID needs" not in str(error):
                raise
            continue
        best = found.best
        if best is None:
            continue
        parts = {
            "value": (best.value_error, found.fun),
            "hypergrad": (best.hypergrad_error, found.jac),
            "x": (best.inner_error, found.x),
        }
        yield from claims(drawn, f"{source} end", parts, best.lam, found.x)


def of_solves(drawn: Drawn, rng: Any) -> Iterator[Claim]:
    """What an inner solution and the hypergradients there say, warm starts of q far off included."""
    problem = drawn.problem
    lam = problem.lam(rng.uniform(-6, 6, len(drawn.lam0)).astype(drawn.lam0.dtype))
    solver = (LBFGS(), NewtonCG())[int(rng.integers(2))]
    found = solve(
        problem.inner,
        lam,
        problem.x(None),
        solver=solver,
        tol=float(10 ** rng.uniform(-8, 0)),
        max_iter=200,
    )
    yield from claims(drawn, "solve", {"x": (found.error_bound, found.x)}, lam, found.x)
    far = rng.standard_normal(found.x.shape) * 10 ** rng.uniform(-2, 8)
    methods: dict[str, Any] = {"implicit": Implicit(max_iter=200), "direct": Direct()}
    if problem.inner.constants(lam).smoothness is not None:
        methods |= {
            "neumann": Neumann(n_terms=50),
            "reverse": ReverseUnrolled(n_steps=20),
            "forward": ForwardUnrolled(n_steps=20),
        }
    for source, method in methods.items():
        start = far.astype(found.x.dtype) if source == "implicit" else None
        got = method(problem, found, tol=float(10 ** rng.uniform(-8, 0)), start=start)
        parts = {
            "hypergrad": (got.error_bound, got.value),
            "value": (got.value_error, got.outer.value),
        }
        yield from claims(drawn, source, parts, lam, found.x)


def gather(seeds: list[int]) -> list[Claim]:
    """All claims of these draws."""
    found: list[Claim] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for seed in seeds:
            drawn = draw(seed)
            found += of_runs(drawn)
            found += of_results(drawn)
            found += of_solves(drawn, np.random.default_rng([seed, 1]))
    return found


def table(found: list[Claim]) -> str:
    """Counts, and how far the bounds lie above the truth, by method and kind."""
    groups: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim in found:
        groups[claim.source, claim.kind].append(claim)
    rows = ["source        kind        bounds exceeded  visible   median      90%"]
    for (source, kind), own in sorted(groups.items()):
        ratios = [c.bound / c.error for c in own if c.visible] or [math.nan]
        exceeded = sum(c.exceeded for c in own)
        middle, high = np.median(ratios), np.quantile(ratios, 0.9)
        rows.append(
            f"{source:13} {kind:10} {len(own):7} {exceeded:8} {len(ratios):8} "
            f"{middle:8.3g} {high:8.3g}"
        )
    total, wrong = len(found), sum(c.exceeded for c in found)
    return "\n".join([*rows, f"{total} bounds, {wrong} below the truth"])


def test_no_bound_lies_below_the_truth(
    draws: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = draws(60)
    found = gather(seeds)
    with capsys.disabled():
        sys.stdout.write("\n" + table(found) + "\n")
    wrong = sorted((c for c in found if c.exceeded), key=lambda c: c.bound / c.error)
    assert len(found) > 20 * len(seeds)
    assert not wrong, f"{len(wrong)} of {len(found)} bounds, the worst: {wrong[0]}"
    for source in ("path", "hoag", "maid", "quadratic"):
        for kind in ("x", "value", "hypergrad"):
            # Those on the way are as good as the method needs them.
            group = (f"{source} end", kind)
            own = [c for c in found if (c.source, c.kind) == group and c.visible]
            if len(own) >= 15:
                assert np.median([c.bound / c.error for c in own]) <= 30, group


def test_control_without_rounding_the_campaign_finds_bounds_below_the_truth(
    draws: Callable[[int], list[int]],
) -> None:
    """A millionth of each bound is below the truth somewhere, so that a fault would be seen."""
    found = gather(draws(3))
    assert any(replace(c, bound=1e-6 * c.bound).exceeded for c in found)
