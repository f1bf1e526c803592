"""Does the suite notice? The implementation is broken in small ways, one at a time.

Each mutant patches one function of the core. The *battery* is a small, deterministic part of the
property tests; a mutant is killed where a property fails under it. Without a patch all hold.
``pytest -m slow -k table -s`` prints which property kills which mutant.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import checkpoint as checkpoints
from bilevel.backends.numpy import NumPyBackend
from bilevel.domains import Ball, Box
from bilevel.hypergrad import Implicit, implicit, surrogate
from bilevel.inner import linear as linear_module
from bilevel.inner import penalties
from bilevel.linalg import cg
from bilevel.losses import Logistic, Poisson
from bilevel.methods import HOAG, AdaptiveStep, FixedStep, hoag
from bilevel.methods.correction import certified
from bilevel.schedules import Exponential, Power
from bilevel.solvers import NewtonCG
from bilevel.status import Status
from bilevel.testing import (
    cg_theory,
    check_problem,
    inner_stop,
    linear,
    order,
    products,
    projection,
    quadratic,
    theorem_1,
    theorem_2,
    theorems,
)
from bilevel.testing.reference import host, norm
from bilevel.testing.theorems import (
    descent,
    hypergradient_certificate,
    lipschitz_of_gradient,
    records_hold,
    require,
    shifted,
    trace,
)

NUMPY = bilevel.get_backend("numpy")

# -- the battery ------------------------------------------------------------------------------------


def known_problems() -> list[Any]:
    return [
        quadratic(1, p=5, m=2, coupled=True, lam=[1.0, -0.5]),
        quadratic(2, p=5, m=3, kind="affine", coupled=True),
        linear(3, n=14, p=4, m=1, lam=[1.25]),
        linear(4, n=14, p=5, m=2, lam=[1.5, -1.0]),
        linear(5, loss="poisson", n=14, p=4, m=4, lam=[1.0, 0.5, -0.5, 1.5]),
    ]


def inner_stops() -> None:
    for known in known_problems():
        for solver in (None, NewtonCG()):
            inner_stop(known, 1e-5, solver=solver)
    for seed in range(6):
        inner_stop(quadratic(seed, p=8, m=1, condition=1e4), 1e-3)


def theorem_1s() -> None:
    for known in known_problems():
        theorem_1(known, 1e-5)
    for seed in range(6):  # a warm start from another problem's q must not matter
        known = quadratic(seed, p=8, m=2, condition=100.0)
        inner = shifted(known, 0 * known.solution)
        far = known.array(np.ones(8))
        found = Implicit()(known.problem, inner, tol=1e-6, start=far)
        hypergradient_certificate(known, found, 1e-6)


def bounds_in_the_worst_direction() -> None:
    """x in error along the eigenvector of least curvature, and a residual of its own."""
    for known in known_problems()[:4]:
        hessian = known.reference.inner.hessian(known.solution, host(known.lam))
        values, vectors = np.linalg.eigh(np.asarray(hessian, dtype=float))
        for tol in (1e-2, 1e-4):
            inner = shifted(known, tol / values[0] * host(vectors[:, 0]))
            found = Implicit()(known.problem, inner, tol=1e-12)
            hypergradient_certificate(known, found, math.inf, 1.0)
    known = quadratic(7, p=8, m=2, condition=100.0)
    for steps in (1, 2, 4):
        found = Implicit(max_iter=steps, precondition=False)(
            known.problem, shifted(known, 0 * known.solution), tol=1e-12
        )
        hypergradient_certificate(known, found, math.inf, 1.0)


def orders() -> None:
    for known in known_problems()[:4]:
        order(known, [2.0**-k for k in range(8, 18)])


def all_products() -> None:
    for known in known_problems():
        products(known)


def projections() -> None:
    rng = np.random.default_rng(0)
    for domain, contains in (
        (Box(-1.0, 0.5), lambda v: bool(np.all((v >= -1) & (v <= 0.5)))),
        (Ball(0.5, 1.0), lambda v: norm(v - 0.5) <= 1 + 1e-9),
    ):
        for _ in range(10):
            a, b = host(3 * rng.standard_normal(3)), host(3 * rng.standard_normal(3))
            middle = host(np.full(3, 0.25))

            def project(v: Any, domain: Any = domain) -> Any:
                return host(domain.project(np.asarray(v, dtype=np.float64), NUMPY))

            projection(project, a, b, middle, contains=contains)


def descents() -> None:
    for known in (
        quadratic(1, p=4, m=2, kind="affine", domain=Box(-4.0, 4.0)),
        quadratic(3, p=4, m=2, kind="affine", domain=Box(-0.25, 0.25)),
    ):
        lipschitz = lipschitz_of_gradient(known)
        method = HOAG(tolerances=Exponential(1e-4, 0.7), step_rule=FixedStep(lipschitz))
        descent(trace(known, method, 10, [2.0, -2.0]), known, lipschitz)


def theorem_2s() -> None:
    for domain in (Box(-4.0, 4.0), Box(0.25, 0.5), Ball(0.5, 0.25)):
        known = quadratic(0, p=4, m=2, kind="affine", condition=5.0, domain=domain)
        theorem_2(known, Power(0.1, 3.0), lam0=[2.0, -2.0], steps=40, delta=1e-3)
    known = linear(4, n=14, p=4, m=1, domain=Box(-3.0, 3.0))
    theorem_2(known, Exponential(0.1, 0.7), lam0=[1.0], steps=25, delta=1e-2, lipschitz=3.0)


def conjugate_gradients() -> None:
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    matrix = basis * np.array([1.0, 1.0, 10.0, 10.0, 100.0, 100.0]) @ basis.T
    right = host(rng.standard_normal(6))
    cg_theory(host((matrix + matrix.T) / 2), right, distinct=3, solver=_core_cg)


def _core_cg(*arguments: Any, **options: Any) -> Any:
    """Whatever the core calls cg at this moment."""
    return implicit.cg(*arguments, **options)


def adaptive_rule() -> None:
    """From an L that is far too small the rule comes back: values never grow by more than a fifth."""

    class Short(AdaptiveStep):
        def first(self, value: float, grad_norm: float, m: int, tol: float) -> Any:
            return replace(super().first(value, grad_norm, m, tol), lipschitz=0.02)

    known = quadratic(1, p=4, m=2, kind="affine", domain=Box(-8.0, 8.0))
    lipschitz = lipschitz_of_gradient(known)
    method = HOAG(tolerances=Exponential(1e-8, 0.99), step_rule=Short())
    found = trace(known, method, 20, [1.0, -1.0])
    require(max(found.lipschitz) <= 2 * lipschitz, "L ≤ 2 Lip", L=max(found.lipschitz))
    kept = [value for value, there in zip(found.value, found.accepted, strict=True) if there]
    for before, after in zip(kept, kept[1:], strict=False):
        require(after <= 1.2 * abs(before) + 1e-9, "growth is taken back", before=before, f=after)


def runs_hold_their_bounds() -> None:
    for method in ("hoag", "path"):
        for seed in range(2):
            known = linear(seed, n=20, p=5, m=1 + seed, domain=Box(-3.0, 3.0))
            result = bilevel.minimize(known.problem, 1.0, method=method, max_iter=8, tol=1e-7)
            records_hold(known, result.history)


def a_resumed_run_is_the_same() -> None:
    known = linear(2, n=14, p=4, m=2)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "run.npz"
        for method in ("hoag", "path"):
            kept.unlink(missing_ok=True)
            options: dict[str, Any] = {"method": method, "tol": 0.0}
            whole = bilevel.minimize(known.problem, 1.0, max_iter=5, **options)
            for stop in (2, 5):
                parts = bilevel.minimize(
                    known.problem, 1.0, max_iter=stop, checkpoint=kept, resume=True, **options
                )
            for one, other in zip(whole.history, parts.history, strict=True):
                require(one.value == other.value, "a resumed run is the same", k=one.k)
                require(bool(np.all(one.lam == other.lam)), "λ_k is the same", k=one.k)


def problems_are_sound() -> None:
    for known in known_problems():
        check_problem(known.problem, known.array(known.lam)).raise_for_findings()


BATTERY: dict[str, Callable[[], None]] = {
    "inner stop": inner_stops,
    "Theorem 1": theorem_1s,
    "bound": bounds_in_the_worst_direction,
    "order": orders,
    "products": all_products,
    "projection": projections,
    "descent": descents,
    "Theorem 2": theorem_2s,
    "CG": conjugate_gradients,
    "adaptive rule": adaptive_rule,
    "records": runs_hold_their_bounds,
    "resume": a_resumed_run_is_the_same,
    "check_problem": problems_are_sound,
}


# -- the mutants ------------------------------------------------------------------------------------

Patch = pytest.MonkeyPatch


def hypergradient(change: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Patch], None]:
    """A mutant of the implicit hypergradient: change(right result, inner, tol, start)."""

    def patch(monkeypatch: Patch) -> None:
        right = Implicit.__call__

        def call(self: Any, problem: Any, inner: Any, *, tol: float, start: Any = None) -> Any:
            found = right(self, problem, inner, tol=tol, start=start)
            return change(found, inner, tol, start)

        monkeypatch.setattr(Implicit, "__call__", call)

    return patch


def attribute(owner: Any, name: str, make: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """A mutant that replaces owner.name by make(the right one)."""

    def patch(monkeypatch: Patch) -> None:
        monkeypatch.setattr(owner, name, make(getattr(owner, name)))

    return patch


def several(*patches: Callable[[Patch], None]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        for one in patches:
            one(monkeypatch)

    return patch


def loose_solve(right: Any) -> Any:
    """Stop at ‖∂_x h‖ ≤ ε and claim ‖x - X(λ)‖ ≤ ε."""

    def solve(inner: Any, lam: Any, x0: Any, *, tol: float, **options: Any) -> Any:
        mu = inner.constants(lam).mu or 1.0
        found = right(inner, lam, x0, tol=tol / mu, **options)
        return replace(found, error_bound=found.grad_norm)

    return solve


def stale_adjoint(found: Any, inner: Any, tol: float, start: Any) -> Any:
    """q of the iteration before, with its residual claimed to be fine."""
    if start is None:
        return found
    value = found.outer.grad_lam - inner.point.cross_vjp(start)
    return replace(found, value=value, adjoint=start, residual=min(found.residual, tol))


def hurried_cg(right: Any) -> Any:
    def call(operator: Any, b: Any, **options: Any) -> Any:
        found = right(operator, b, **{**options, "max_iter": 2})
        norms = tuple(min(1e-12, n) for n in found.residual_norms)
        return replace(found, residual_norms=norms, status=Status.CONVERGED)

    return call


def claimed_residual(right: Any) -> Any:
    def call(operator: Any, b: Any, **options: Any) -> Any:
        found = right(operator, b, **options)
        norms = tuple(n / 10 for n in found.residual_norms)
        return replace(found, residual_norms=norms, residual=found.residual / 10)

    return call


def inflated_mu(right: Any) -> Any:
    def constants(self: Any, lam: Any) -> Any:
        found = right(self, lam)
        return replace(found, mu=None if found.mu is None else 20 * found.mu)

    return constants


def scaled(factor: float) -> Callable[[Any], Any]:
    """A mutant of a function of which the result is multiplied."""

    def make(right: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            found = right(*arguments, **options)
            return None if found is None else factor * found

        return call

    return make


def without(**changed: float) -> Callable[[Any], Any]:
    """A mutant of a function that is called with other arguments."""

    def make(right: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            return right(*arguments, **{**options, **changed})

        return call

    return make


def forgetful_load(right: Any) -> Any:
    def load(*arguments: Any) -> Any:
        snapshot = right(*arguments)
        state = snapshot.state
        name = "adjoint" if hasattr(state, "adjoint") else "pushed"
        return replace(snapshot, state=replace(state, **{name: None}, x=state.x * (1 + 1e-9)))

    return load


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "sign of the cross term": hypergradient(
        lambda found, inner, tol, start: replace(
            found, value=2 * found.outer.grad_lam - found.value
        )
    ),
    "direct term ∂_λ g forgotten": hypergradient(
        lambda found, inner, tol, start: replace(found, value=found.value - found.outer.grad_lam)
    ),
    "stale q": hypergradient(stale_adjoint),
    "no projection on a box": attribute(Box, "project", lambda r: lambda self, lam, backend: lam),
    "a ball projected on its boundary, inside too": attribute(
        Ball,
        "project",
        lambda r: (
            lambda self, lam, backend: (
                0.5 + self.radius * (lam - 0.5) / max(float(np.linalg.norm(lam - 0.5)), 1e-9)
            )
        ),
    ),
    "tolerance not decreased": several(
        attribute(Power, "__call__", lambda r: lambda self, k: self.first),
        attribute(Exponential, "__call__", lambda r: lambda self, k: self.first),
    ),
    "CG stopped after two steps": several(attribute(implicit, "cg", hurried_cg)),
    "residual understated": several(attribute(implicit, "cg", claimed_residual)),
    "CG without conjugation": attribute(
        NumPyBackend, "xpay", lambda r: lambda self, x, alpha, y: x + 0 * y
    ),
    "μ twenty times too large": attribute(linear_module.LinearModel, "constants", inflated_mu),
    "stop at ‖∂_x h‖ ≤ ε": several(
        attribute(hoag, "solve", loose_solve), attribute(theorems, "solve", loose_solve)
    ),
    "bound a hundredth": attribute(surrogate, "hypergradient_bound", scaled(0.01)),
    "bound without the residual": attribute(
        surrogate, "hypergradient_bound", without(residual=0.0)
    ),
    "bound without the error of x": attribute(
        surrogate, "hypergradient_bound", without(inner_error=0.0)
    ),
    "bound of the value zero": several(
        attribute(surrogate, "value_bound", scaled(0.0)),
        attribute(certified, "value_error", scaled(0.0)),
    ),
    "self-concordant bound a thousandth": attribute(
        certified, "self_concordant_bounds", scaled(1e-3)
    ),
    "step twice too long": attribute(
        FixedStep,
        "first",
        lambda r: lambda self, *a: replace(r(self, *a), lipschitz=self.lipschitz / 2.5),
    ),
    "adaptive rule never steps back": attribute(
        AdaptiveStep,
        "next",
        lambda r: (
            lambda self, state, value, tol: (
                replace(r(self, state, value, tol)[0], value=value, tol=tol),
                True,
            )
        ),
    ),
    "H v without the penalty": attribute(
        penalties.WeightedL2Point, "hvp", lambda r: lambda self, v: 0 * v
    ),
    "cross product without e^λ": attribute(
        penalties.WeightedL2Point,
        "cross_vjp",
        lambda r: (
            lambda self, q: (
                r(self, q) / np.exp(self.lam if q.ndim == 1 else self.lam[:, None])
                if hasattr(self, "lam")
                else 0.5 * r(self, q)
            )
        ),
    ),
    "ℓ' halved": attribute(Logistic, "derivative", lambda r: lambda self, *a: 0.5 * r(self, *a)),
    "ℓ'' of Poisson without its factor": attribute(
        Poisson,
        "curvature",
        lambda r: lambda self, y, t, backend: np.ones_like(r(self, y, t, backend)),
    ),
    "margins of the ray's start": attribute(
        linear_module.LinearRay, "at", lambda r: lambda self, t: r(self, 0.9 * t)
    ),
    "groups summed into the wrong one": attribute(
        NumPyBackend, "segment_sum", lambda r: lambda self, *a: np.roll(r(self, *a), 1)
    ),
    "checkpoint forgets a warm start": attribute(checkpoints, "load", forgetful_load),
}

#: The property that kills it fastest; the table says what else does.
KILLER = {
    "sign of the cross term": "Theorem 1",
    "direct term ∂_λ g forgotten": "Theorem 1",
    "stale q": "Theorem 1",
    "no projection on a box": "projection",
    "a ball projected on its boundary, inside too": "projection",
    "tolerance not decreased": "Theorem 2",
    "CG stopped after two steps": "CG",
    "residual understated": "CG",
    "CG without conjugation": "CG",
    "μ twenty times too large": "inner stop",
    "stop at ‖∂_x h‖ ≤ ε": "inner stop",
    "bound a hundredth": "bound",
    "bound without the residual": "bound",
    "bound without the error of x": "bound",
    "bound of the value zero": "records",
    "self-concordant bound a thousandth": "records",
    "step twice too long": "Theorem 2",
    "adaptive rule never steps back": "adaptive rule",
    "H v without the penalty": "check_problem",
    "cross product without e^λ": "products",
    "ℓ' halved": "inner stop",
    "ℓ'' of Poisson without its factor": "check_problem",
    "margins of the ray's start": "check_problem",
    "groups summed into the wrong one": "products",
    "checkpoint forgets a warm start": "resume",
}


def fails(prop: Callable[[], None]) -> str | None:
    """The name of the error that a property ends with, or None where it holds."""
    with np.errstate(all="ignore"):
        try:
            prop()
        except Exception as error:  # a mutant may break anything
            return type(error).__name__
    return None


@pytest.mark.parametrize("name", BATTERY)
def test_the_battery_holds_without_a_mutant(name: str) -> None:
    BATTERY[name]()


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 12
    assert set(MUTANTS) == set(KILLER)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    assert fails(BATTERY[KILLER[name]]) is not None


@pytest.mark.slow
def test_table_of_mutants() -> None:
    """Every mutant against the whole battery."""
    rows = []
    for name, patch in MUTANTS.items():
        with pytest.MonkeyPatch.context() as monkeypatch:
            patch(monkeypatch)
            killers = [label for label, prop in BATTERY.items() if fails(prop)]
        rows.append((name, killers))
    print()  # noqa: T201
    for name, killers in rows:
        print(f"{name:46} {len(killers):2}  {', '.join(killers)}")  # noqa: T201
    assert all(killers for _, killers in rows)


def test_cg_is_the_one_that_the_core_calls() -> None:
    assert implicit.cg is cg
