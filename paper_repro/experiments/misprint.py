"""Theorem 2 with Σ ε_k < ∞, and with the early misprint Σ ε_k ≤ ∞, which excludes nothing.

The adversary gives HOAG the worst x_k and q_k that its tolerances allow, on

    h(x, λ) = ½ ‖x - λ‖²,   g(x) = ½ x₁²,   so   X(λ) = λ,   f(λ) = ½ λ₁²,

with λ in the box [-1, 1]². All assumptions of the theorem hold with constants that are known
(μ = L = 1), and f is flat along λ₂: the stationary points form a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import bilevel
from bilevel.hypergrad import HypergradResult, Implicit
from bilevel.inner import InnerConstants
from bilevel.methods import HOAG, FixedStep
from bilevel.outer import OuterConstants
from bilevel.schedules import Constant, Exponential, Power, Schedule
from bilevel.solvers import Step

from .. import style
from ..contract import Check, Experiment, Results, Row, Settings, Verdict


@dataclass(frozen=True)
class _Point:
    """½ ‖x - λ‖² at (x, λ): H = I, ∂²_{xλ} h = -I."""

    x: Any
    lam: Any
    backend: Any
    carry: Any = None

    @property
    def value(self) -> Any:
        return self.backend.xp.vecdot(self.grad, self.grad) / 2

    @property
    def grad(self) -> Any:
        return self.x - self.lam

    def hvp(self, v: Any) -> Any:
        return v

    def cross_vjp(self, q: Any) -> Any:
        return -q

    def cross_jvp(self, d: Any) -> Any:
        return -d

    @property
    def cross_norm(self) -> Any:
        return self.backend.xp.ones_like(self.lam[0])

    def diag(self) -> Any:
        return None

    def ray(self, d: Any) -> Any:
        raise NotImplementedError("The adversary walks without a line search.")


@dataclass
class _Follow:
    """The inner objective ½ ‖x - λ‖² in the plane."""

    backend: Any
    passes: int = 0
    x_shape: tuple[int, ...] = (2,)
    n_hyperparameters: int = 2

    @property
    def column_passes(self) -> int:
        return self.passes

    @property
    def dtype(self) -> Any:
        return self.backend.xp.float64

    def at(self, x: Any, lam: Any, carry: Any = None) -> _Point:
        self.passes += 1
        return _Point(x, lam, self.backend)

    def constants(self, lam: Any) -> InnerConstants:
        return InnerConstants(1.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True)
class _First:
    """The outer criterion ½ x₁²."""

    backend: Any
    passes: int = 0

    def at(self, x: Any, lam: Any) -> _FirstPoint:
        return _FirstPoint(x, lam, self.backend)

    def constants(self) -> OuterConstants:
        return OuterConstants(1.0, 0.0)


@dataclass(frozen=True)
class _FirstPoint:
    x: Any
    lam: Any
    backend: Any

    @property
    def value(self) -> Any:
        return self.x[0] * self.x[0] / 2

    @property
    def grad_x(self) -> Any:
        return self.x * self.backend.asarray([1.0, 0.0], dtype=self.x.dtype)

    @property
    def grad_lam(self) -> Any:
        return self.backend.xp.zeros_like(self.lam)


@dataclass
class Adversary:
    """Pushes λ along ``direction`` as far as the tolerances allow, and turns at the box's edge.

    As the inner solver it returns X(λ) exactly; as the hypergradient it adds ε u to q, a
    residual of norm ε that step (ii) accepts.
    """

    direction: tuple[float, float]
    sign: float = 1.0

    def walk(self, point: Any, backend: Any, target: float) -> Iterator[Step]:
        yield Step(replace(point, x=point.lam), 0.0)

    def __call__(
        self, problem: Any, inner: Any, *, tol: float, start: Any = None
    ) -> HypergradResult:
        found = Implicit(precondition=False)(problem, inner, tol=1e-300, start=None)
        u = problem.backend.asarray(list(self.direction), dtype=problem.dtype)
        (along,) = problem.backend.scalars(problem.backend.xp.vecdot(u, inner.point.lam))
        if abs(along) >= 1.0:  # λ moves against p: turn before the edge stops it
            self.sign = 1.0 if along > 0 else -1.0
        push = self.sign * tol * u
        return replace(found, value=found.value + push, adjoint=found.adjoint + push, residual=tol)


#: (name, sequence): two that Σ ε_k ≤ ∞ lets through, and the paper's three.
SEQUENCES: dict[str, Schedule] = {
    "constant": Constant(0.1),
    "harmonic": Power(0.5, 1.0),
    "quadratic": Power(0.5, 2.0),
    "cubic": Power(0.5, 3.0),
    "exponential": Exponential(0.5, 0.9),
}
#: Along the line of stationary points, and against the descent.
PUSHES = {"along the valley": (0.0, -1.0), "up the slope": (-1.0, 0.0)}


def run(settings: Settings) -> Results:
    n = settings.pick(20_000, 2_000, 200)
    rows: list[Row] = []
    for push, direction in PUSHES.items():
        for name, tolerances in SEQUENCES.items():
            rows += _path(settings.backend, push, direction, name, tolerances, n)
    return Results({"path": rows}, {"iterations": n})


def _path(
    backend: Any, push: str, direction: Any, name: str, tolerances: Schedule, n: int
) -> list[Row]:
    problem = bilevel.Problem(_Follow(backend), _First(backend), bilevel.Box(-1.0, 1.0))
    adversary = Adversary(direction)
    method = HOAG(tolerances, FixedStep(1.0), solver=adversary, hypergradient=adversary)
    rows = []
    for r in bilevel.iterate(problem, [0.8, 0.0], method=method):
        lam = backend.to_numpy(r.lam)
        rows.append(
            {
                "push": push,
                "sequence": name,
                "summable": tolerances.summable,
                "k": r.k,
                "lam1": float(lam[0]),
                "lam2": float(lam[1]),
                "tol": r.tol,
                "inner_error": r.inner_error,
                "cg_residual": r.cg_residual,
            }
        )
        if r.k >= n:
            return rows
    return rows


def _paths(results: Results, push: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in results.tables["path"]:
        if row["push"] == push:
            found.setdefault(row["sequence"], []).append(row)
    return found


def _tail(rows: list[Row]) -> float:
    """Diameter of the second half of the path."""
    tail = np.array([[row["lam1"], row["lam2"]] for row in rows[len(rows) // 2 :]])
    return float(np.linalg.norm(tail.max(axis=0) - tail.min(axis=0)))


def _walked(rows: list[Row]) -> float:
    """Length of the second half of the path."""
    tail = np.array([[row["lam1"], row["lam2"]] for row in rows[len(rows) // 2 :]])
    return float(np.sum(np.linalg.norm(np.diff(tail, axis=0), axis=1)))


_LOOKS = {
    "constant": (style.RED, (0, (1, 1))),
    "harmonic": (style.ORANGE, (0, (4, 2))),
    "quadratic": (style.SKY, "-"),
    "cubic": (style.GREEN, "-"),
    "exponential": (style.BLUE, "-"),
}


def draw(results: Results) -> dict[str, Any]:
    figure, axes = style.panels(1, 2, height=3.6)
    for ax, push in zip(axes[0], PUSHES, strict=True):
        for name, rows in _paths(results, push).items():
            colour, dash = _LOOKS[name]
            k = [row["k"] for row in rows]
            if push == "along the valley":
                y = [row["lam2"] for row in rows]
            else:
                y = style.positive([abs(row["lam1"]) for row in rows], 1e-12)
            summable = "Σ ε < ∞" if rows[0]["summable"] else "Σ ε = ∞"
            faint = {"alpha": 0.55, "linewidth": 1.0} if name == "constant" else {}
            ax.plot(k, y, color=colour, linestyle=dash, label=f"{name} ({summable})", **faint)
        ax.set(xscale="log", xlabel="iteration k", title=f"Errors {push}")
    axes[0, 0].set_ylabel("λ₂ (every value is stationary)")
    axes[0, 1].set(yscale="log", ylabel="‖∇f(λ)‖ = |λ₁|")
    style.legend_below(figure, axes, 3)
    return {"misprint": figure}


def verdict(results: Results) -> Verdict:
    valley, slope = (_paths(results, push) for push in PUSHES)
    tails = {name: _tail(rows) for name, rows in valley.items()}
    walked = _walked(valley["harmonic"])
    ends = {name: abs(rows[-1]["lam1"]) for name, rows in slope.items()}
    summable = [name for name, rows in valley.items() if rows[0]["summable"]]
    worst = max(
        max(row["inner_error"], row["cg_residual"]) / row["tol"]
        for rows in results.tables.values()
        for row in rows
    )
    n = results.facts["iterations"]
    return Verdict(
        (
            Check(
                "Σ ε_k < ∞: λ_k converges, whatever the errors",
                f"diameter of iterates {n // 2} to {n}: "
                + ", ".join(f"{name} {tails[name]:.1e}" for name in summable),
                all(tails[name] < 2 / n for name in summable),
            ),
            Check(
                "Σ ε_k < ∞: the limit is stationary",
                "‖∇f‖ at the end: " + ", ".join(f"{name} {ends[name]:.1e}" for name in summable),
                all(ends[name] < 4 / n**2 + 1e-9 for name in summable),
            ),
            Check(
                "Σ ε_k ≤ ∞ admits ε_k = 0.5 / k, for which λ_k does not converge",
                f"λ_k walks along the valley for ever: the second half is {walked:.2f} long, as "
                f"0.5 ln 2 = {0.5 * np.log(2):.2f} predicts, and {tails['harmonic']:.2f} wide, "
                "where it turns back at the ends of the box",
                # A walk that turns once is at least half as wide as it is long.
                walked > 0.9 * 0.5 * np.log(2) and tails["harmonic"] > 0.45 * walked,
            ),
            Check(
                "Σ ε_k ≤ ∞ admits ε_k = 0.1, for which no limit is stationary",
                f"‖∇f‖ stays at {ends['constant']:.3f}",
                ends["constant"] > 0.09,
            ),
            Check(
                "The adversary keeps to the tolerances of steps (i) and (ii)",
                f"largest error over its tolerance: {worst:.3g}",
                worst <= 1 + 1e-12,
            ),
        )
    )


EXPERIMENT = Experiment(
    name="misprint",
    title="Theorem 2 needs Σ ε_k < ∞",
    paper="Pedregosa 2016, Theorem 2; an early version prints ≤ ∞",
    claims=(
        "If Σ ε_k < ∞, the iterates converge to a stationary point. Printed with ≤ ∞ the "
        "condition holds for every sequence, and the theorem is false."
    ),
    setting=(
        "HOAG as published, with a fixed step 1/L, on h = ½‖x − λ‖² and g = ½ x₁² over [−1, 1]². "
        "An adversary returns the worst q_k that the tolerance allows: along the line of "
        "stationary points, or against the descent."
    ),
    run=run,
    draw=draw,
    verdict=verdict,
)
