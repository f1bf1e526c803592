"""What all methods are measured by: f itself, by tight fits, off the clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

import bilevel
from bilevel.methods import METHODS, Method
from bilevel.solvers import LBFGS, InnerResult, NewtonCG, Solver, solve
from bilevel.status import Status

from .contract import Row

#: Methods that are others' work: they are no part of what we set beside the papers.
PUBLISHED = frozenset({"hoag", "maid"})


def own_methods() -> tuple[str, ...]:
    """The methods of this package that no paper published."""
    return tuple(name for name in METHODS if name not in PUBLISHED)


@dataclass(frozen=True)
class Budget:
    """When a run ends: at so many passes, which do not depend on the machine.

    The seconds are a safeguard, far above what the passes should take.
    """

    passes: int
    seconds: float
    iterations: int = 1000

    def spent(self, row: Row) -> bool:
        """Whether a run is over after this row."""
        return (
            row["passes"] >= self.passes
            or row["seconds"] >= self.seconds
            or row["k"] >= self.iterations
        )


def host(problem: bilevel.Problem, array: Any) -> list[float]:
    """Copy a vector to a list of floats."""
    return [float(v) for v in problem.backend.to_numpy(array)]


def fit(
    problem: bilevel.Problem,
    lam: Any,
    x: Any,
    *,
    grad: float,
    solver: Solver,
    max_iter: int = 10_000,
) -> InnerResult:
    """Minimise h(., λ) until ‖∂_x h‖ ≤ grad."""
    mu = problem.inner.constants(lam).mu
    tol = grad if not mu else grad / mu
    return solve(problem.inner, lam, x, solver=solver, tol=tol, max_iter=max_iter)


def gradient_scale(problem: bilevel.Problem, lam0: float = 0.0) -> float:
    """‖∂_x h(0, λ)‖, the unit of relative gradient tolerances."""
    xp = problem.backend.xp
    g = xp.reshape(problem.inner.at(problem.x(None), problem.lam(lam0)).grad, (-1,))
    return problem.backend.scalars(xp.sqrt(xp.vecdot(g, g)))[0]


@dataclass
class Truth:
    """f(λ) and the test loss at λ, each from a fit far tighter than any method's.

    Fits start at the nearest λ that was fitted before, so a whole trace costs little.

    Attributes
    ----------
    problem : Problem
    test : Outer or None
        The criterion on the test rows.
    relative : float
        The gradient is reduced to this part of its norm at x = 0.
    solver : Solver
        The solver of the fits.
    """

    problem: bilevel.Problem
    test: Any = None
    relative: float = 1e-9
    solver: Solver = field(default_factory=NewtonCG)
    _known: dict[tuple[float, ...], tuple[float, float | None]] = field(default_factory=dict)
    _fits: list[tuple[Any, Any]] = field(default_factory=list)
    _scale: float | None = None

    def __call__(self, lam: Sequence[float]) -> tuple[float, float | None]:
        """Return (f(λ), test loss)."""
        key = tuple(float(v) for v in lam)
        if key not in self._known:
            self._known[key] = self._fit(key)
        return self._known[key]

    def model(self, lam: Sequence[float]) -> Any:
        """Return X(λ) of one of the last fits, fitting again where it is not kept."""
        at = np.asarray([float(v) for v in lam])
        kept = [x for key, x in self._fits if (key == at).all()]
        if not kept:
            self._fit(tuple(at))
        return kept[-1] if kept else self._fits[-1][1]

    def _fit(self, key: tuple[float, ...]) -> tuple[float, float | None]:
        problem, at = self.problem, np.asarray(key)
        if self._scale is None:
            self._scale = gradient_scale(problem)
        nearest = min(self._fits, key=lambda f: np.linalg.norm(f[0] - at), default=(None, None))
        start = problem.x(None) if nearest[1] is None else nearest[1]
        lam = problem.lam(list(key))
        found = fit(problem, lam, start, grad=self.relative * self._scale, solver=self.solver)
        if found.status is Status.NON_FINITE:
            raise FloatingPointError(f"The fit at λ = {key} is not finite.")
        self._fits = [*self._fits[-60:], (at, found.x)]
        read = problem.backend.scalars
        (value,) = read(problem.outer.at(found.x, lam).value)
        loss = None if self.test is None else read(self.test.at(found.x, lam).value)[0]
        return value, loss

    @property
    def best(self) -> tuple[tuple[float, ...], float]:
        """The best λ that was evaluated, and f there."""
        key = min(self._known, key=lambda k: self._known[k][0])
        return key, self._known[key][0]

    def refine(self, radius: float = 0.5, low: float = -12.0, high: float = 12.0) -> float:
        """Search on around the best λ, one coordinate after the other; return f*."""
        rounds = 0
        while rounds < 12 and radius > 0.02:
            rounds += 1
            centre = self.best[0]
            for j in range(len(centre)):
                self._search_along(j, radius, low, high)
            moved = max(abs(a - b) for a, b in zip(self.best[0], centre, strict=True))
            if len(centre) == 1 and moved < 0.9 * radius:
                break
            radius = radius if moved > 0.5 * radius else radius / 3
        return self.best[1]

    def _search_along(self, j: int, radius: float, low: float, high: float) -> None:
        """Minimise f along coordinate j, within the radius of the best λ."""
        centre = self.best[0]

        def along(t: float) -> float:
            return self([*centre[:j], float(t), *centre[j + 1 :]])[0]

        edges = (max(centre[j] - radius, low), min(centre[j] + radius, high))
        minimize_scalar(
            along, bounds=edges, method="bounded", options={"xatol": 1e-6, "maxiter": 20}
        )


def trace(
    problem: bilevel.Problem,
    method: str | Method,
    budget: Budget,
    lam0: float = 0.0,
    x0: Any = None,
) -> list[Row]:
    """Run an outer method and return a row for each iteration."""
    rows: list[Row] = []
    for r in bilevel.iterate(problem, lam0, method=method, x0=x0):
        rows.append(
            {
                "k": r.k,
                "lam": host(problem, r.lam),
                "measured": r.value,
                "tol": r.tol,
                "seconds": r.seconds,
                "passes": r.passes,
                "column_passes": r.column_passes,
            }
        )
        settled = r.optimality <= 1e-9 * abs(r.value)
        if settled or budget.spent(rows[-1]):
            break
    return rows


def thinned(rows: list[Row], at_most: int | None) -> list[Row]:
    """Keep the first rows, the last, and some between: each costs a tight fit to judge."""
    if at_most is None or len(rows) <= at_most:
        return rows
    chosen = np.unique(np.geomspace(1, len(rows), at_most).round().astype(int) - 1)
    return [rows[index] for index in chosen]


def search(
    problem: bilevel.Problem,
    proposals: Iterable[Any],
    budget: Budget,
    *,
    relative: float = 1e-6,
    solver: Solver | None = None,
) -> list[Row]:
    """Fit at proposed λ, one after the other, each fit started at the last one.

    ``proposals`` is a generator that is sent the loss of what it proposed. A row holds the best
    λ so far, by the loss that the search itself saw. The proposer's own time counts.
    """
    rows: list[Row] = []
    solver = solver or LBFGS()
    x, best, lam_best = problem.x(None), np.inf, None
    proposer = iter(proposals)
    passes0, columns0 = problem.inner.passes, problem.inner.column_passes
    clock = time.perf_counter()
    grad = relative * gradient_scale(problem)
    lam_host = next(proposer)
    while True:
        lam = problem.lam([float(v) for v in lam_host])
        found = fit(problem, lam, x, grad=grad, solver=solver)
        x = found.x
        (value,) = problem.backend.scalars(problem.outer.at(x, lam).value)
        if value < best:
            best, lam_best = value, [float(v) for v in lam_host]
        seconds = time.perf_counter() - clock
        rows.append(
            {
                "k": len(rows) + 1,
                "lam": lam_best,
                "measured": best,
                "tol": None,
                "seconds": seconds,
                "passes": problem.inner.passes - passes0,
                "column_passes": problem.inner.column_passes - columns0,
            }
        )
        if budget.spent(rows[-1]):
            return rows
        try:
            lam_host = proposer.send(value)  # type: ignore[attr-defined]
        except StopIteration:
            return rows


def judge(rows: Iterable[Row], truth: Truth) -> None:
    """Add f(λ) and the test loss to the rows, off the clock."""
    for row in rows:
        row["f"], row["test_loss"] = truth(row["lam"])


def subtract_optimum(rows: Iterable[Row], best: float) -> None:
    """Add f - f* and (f - f*) / f*."""
    for row in rows:
        row["suboptimality"] = row["f"] - best
        row["relative"] = (row["f"] - best) / abs(best)


def cost_to_reach(rows: Sequence[Row], level: float, what: str) -> float | None:
    """What was spent when (f - f*) / f* first fell to a level, None where it never did."""
    return next((row[what] for row in rows if row["relative"] <= level), None)
