"""certify: every clause of Theorem 2 can be proved, left open, and found violated."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from drawn import drawn, features, targets
from scipy import optimize
from tampered import TAMPERINGS, missed
from thin import first

import bilevel
from bilevel import inner as inners
from bilevel import losses
from bilevel import outer as outers
from bilevel.domains import Ball, Box
from bilevel.hypergrad import Implicit
from bilevel.inner import InnerConstants
from bilevel.methods import HOAG, FixedStep
from bilevel.problem import Problem
from bilevel.problems import cross_validation
from bilevel.record import Costs
from bilevel.schedules import Constant, Custom
from bilevel.status import Status
from bilevel.testing import Mark, certify, linear, quadratic
from bilevel.testing.certificate.conclusions import _gap
from bilevel.testing.certificate.run import Run

KNOWN = linear(1, n=40, p=6, m=1)
METHOD = HOAG(tolerances="cubic", step_rule=FixedStep(3.0))
RESULT = bilevel.minimize(KNOWN.problem, 0.5, method=METHOD, max_iter=60, tol=1e-6)


def mark(certificate: Any, name: str) -> str:
    return certificate[name].mark.name


def test_a_sound_run_is_certified() -> None:
    certificate = certify(RESULT, KNOWN.problem, method=METHOD)
    assert certificate.ok
    marks = {c.name: c.mark.name for c in certificate.clauses}
    assert marks == {
        "history": "BOUNDED",
        "status": "PROVED",
        "model": "PROVED",
        "errors": "BOUNDED",
        "steps": "PROVED",
        "summable": "PROVED",
        "inner solutions": "PROVED",
        "adjoint solutions": "BOUNDED",
        "smooth criterion": "PROVED",
        "smooth objective": "PROVED",
        "regular Hessian": "PROVED",
        "derivatives": "BOUNDED",
        "bounded domain": "PROVED",
        "feasible": "PROVED",
        "step length": "BOUNDED",
        "hypergradients": "PROVED",
        "convergence": "BOUNDED",
        "stationary": "PROVED",
        "value": "PROVED",
    }


def test_its_figures_are_true() -> None:
    certificate = certify(RESULT, KNOWN.problem, method=METHOD)
    lam = KNOWN.host(RESULT.lam)
    truth = KNOWN.reference.value(lam)
    figures = certificate["value"].figures
    assert figures["f(λ*)"] == pytest.approx(truth, abs=figures["error of f(λ*)"] + 1e-10)
    left = unit_gap(KNOWN.problem.domain, lam, KNOWN.reference.hypergradient(lam))
    assert left <= certificate["stationary"].figures["gap at worst"] + 1e-9


def test_it_prints_and_serialises() -> None:
    certificate = bilevel.certify(RESULT, KNOWN.problem, method=METHOD)
    text = str(certificate)
    assert "proved" in text
    assert "Σ ε_k < ∞" in text
    content = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert content["ok"] is True
    assert len(content["assumptions"]) == 10
    assert len(content["consistency"]) == 5
    assert "The run itself" in text
    with pytest.raises(KeyError):
        certificate["nothing"]


def test_without_the_method_its_clauses_are_assumed() -> None:
    certificate = certify(RESULT, KNOWN.problem)
    assert mark(certificate, "summable") == "ASSUMED"
    assert mark(certificate, "step length") == "ASSUMED"


def test_the_default_method_is_certified_at_the_end() -> None:
    result = bilevel.minimize(KNOWN.problem, 0.5)
    certificate = certify(result, KNOWN.problem, method="path")
    assert certificate.ok, str(certificate)
    assert mark(certificate, "stationary") == "PROVED"
    assert mark(certificate, "summable") == "ASSUMED"


# -- each clause violated ---------------------------------------------------------------------------


def test_a_constant_tolerance_is_not_summable() -> None:
    method = HOAG(tolerances=Constant(1e-6))
    result = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=5)
    assert mark(certify(result, KNOWN.problem, method=method), "summable") == "VIOLATED"


def test_a_custom_schedule_is_taken_at_its_word() -> None:
    method = HOAG(tolerances=Custom(lambda k: 0.1 / k**2, summable=True))
    result = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=5)
    assert mark(certify(result, KNOWN.problem, method=method), "summable") == "ASSUMED"


def test_tolerances_that_were_not_met() -> None:
    method = HOAG(
        tolerances="cubic", max_inner=1, hypergradient=Implicit(max_iter=1, precondition=False)
    )
    result = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=8)
    certificate = certify(result, KNOWN.problem, method=method)
    assert not certificate.ok
    assert mark(certificate, "inner solutions") == "VIOLATED"
    assert mark(certificate, "adjoint solutions") == "VIOLATED"


def test_an_unbounded_domain() -> None:
    problem = replace(KNOWN.problem, domain=Box(-3.0, math.inf))
    certificate = certify(bilevel.minimize(problem, 0.5), problem)
    assert mark(certificate, "bounded domain") == "VIOLATED"


def test_a_ball_is_bounded_and_its_gap_in_closed_form() -> None:
    known = linear(2, n=40, p=6, m=2, domain=Ball(0.0, 1.5))
    certificate = certify(bilevel.minimize(known.problem, 0.5, tol=1e-7), known.problem)
    assert mark(certificate, "bounded domain") == "PROVED"
    assert certificate["stationary"].figures["gap"] >= 0
    assert certificate.ok, str(certificate)


def test_an_iterate_outside_the_domain() -> None:
    first = replace(RESULT.history[0], lam=np.array([7.0]))
    result = replace(RESULT, history=(first, *RESULT.history[1:]))
    assert mark(certify(result, KNOWN.problem), "feasible") == "VIOLATED"


def unit_gap(domain, lam, p):
    """max ⟨-p, α - λ⟩ over the α in D with ‖α - λ‖ ≤ 1, by SciPy."""
    lam, p = np.asarray(lam, dtype=float), np.asarray(p, dtype=float)  # of long double, maybe
    inside = [{"type": "ineq", "fun": lambda a: 1 - np.sum((a - lam) ** 2)}]
    bounds = None
    if isinstance(domain, Ball):
        inside += [
            {"type": "ineq", "fun": lambda a: domain.radius**2 - np.sum((a - domain.center) ** 2)}
        ]
    else:
        bounds = optimize.Bounds(np.full(len(lam), domain.lower), np.full(len(lam), domain.upper))
    found = optimize.minimize(
        lambda a: p @ (a - lam),
        lam,
        jac=lambda a: p,
        bounds=bounds,
        constraints=inside,
        method="SLSQP",
    )
    return -found.fun


@pytest.mark.parametrize("domain", [Box(-3.0, 3.0), Box(-3.0, math.inf), Ball(0.0, 3.0)], ids=str)
@pytest.mark.parametrize("place", ["inside", "near", "at the bound"])
def test_the_gap_is_that_of_scipy(domain, place) -> None:
    rng = np.random.default_rng(3)
    for m in (1, 2, 3):
        problem = replace(linear(2, n=20, p=6, m=m, domain=domain).problem, domain=domain)
        size = {"inside": 0.3, "near": 0.99, "at the bound": 1.0}[place] * 3.0
        for _ in range(3):
            lam = rng.standard_normal(m)
            lam *= -size / (
                np.linalg.norm(lam) if isinstance(domain, Ball) else np.max(np.abs(lam))
            )
            lam = domain.project(lam, problem.backend)
            p = rng.standard_normal(m) * 10.0 ** rng.uniform(-3, 3)
            run = Run(replace(RESULT, lam=lam), problem, None, 1e-2, 0)
            least, most = _gap(run, lam, p)
            truth = unit_gap(domain, lam, p)
            scale = np.linalg.norm(p)
            assert least <= truth + 1e-6 * scale
            assert most >= truth - 1e-6 * scale
            assert most - least <= 1e-6 * scale


def test_a_run_that_has_converged_to_its_tolerance_is_stationary() -> None:
    """Over a box 24 wide a slope well within that tolerance counted as a violation."""
    problem = linear(0, domain=Box(-12.0, 12.0)).problem
    result = bilevel.minimize(problem, tol=1e-3)
    assert result.success
    assert mark(certify(result, problem, method="path"), "stationary") == "PROVED"


def test_an_early_end_is_not_stationary() -> None:
    result = bilevel.minimize(KNOWN.problem, 2.5, method="hoag", max_iter=1)
    certificate = certify(result, KNOWN.problem, delta=1e-3)
    assert mark(certificate, "stationary") == "VIOLATED"


def test_a_loose_last_fit_misstates_f() -> None:
    result = replace(RESULT, fun=RESULT.fun * 0.9)
    certificate = certify(result, KNOWN.problem)
    assert mark(certificate, "value") == "VIOLATED"


def test_steps_that_are_too_long() -> None:
    """L = 0.05 is far below the constant of ∇f: the change of p along the path shows it."""
    known = quadratic(1, p=4, m=2, kind="affine", domain=Box(-8.0, 8.0))
    method = HOAG(tolerances="cubic", step_rule=FixedStep(0.05))
    result = bilevel.minimize(known.problem, 4.0, method=method, max_iter=12)
    certificate = certify(result, known.problem, method=method)
    assert mark(certificate, "step length") == "VIOLATED"
    assert not certificate.ok


def test_constants_that_are_declared_and_false() -> None:
    def h(x: Any, lam: Any) -> Any:
        w = np.exp(lam[0])
        return w * (x @ x) / 2 - np.sum(x), w * x - 1

    for factor, expected in ((1.0, "BOUNDED"), (2.0, "VIOLATED")):
        inner = inners.from_functions(
            h,
            like=np.zeros(3),
            x_shape=(3,),
            n_hyperparameters=1,
            constants=lambda lam, factor=factor: inners.InnerConstants(
                mu=factor * float(np.exp(lam[0]))
            ),
        )
        outer = outers.from_functions(lambda x, lam: ((x - 1) @ (x - 1) / 2, x - 1), like=X)
        problem = Problem(inner, outer, Box(-2.0, 2.0))
        result = bilevel.minimize(problem, 0.5, method="hoag", max_iter=10)
        certificate = certify(result, problem)
        assert mark(certificate, "regular Hessian") == expected
        assert mark(certificate, "smooth objective") == "ASSUMED"
        assert mark(certificate, "hypergradients") == "ASSUMED"


X = np.random.default_rng(0).standard_normal((12, 3))


def test_wrong_derivatives() -> None:
    outer = outers.from_functions(lambda x, lam: (x @ x / 2 - np.sum(x), x - 2), like=np.zeros(6))
    problem = replace(KNOWN.problem, outer=outer)
    result = bilevel.minimize(problem, 0.5, method="hoag", max_iter=5)
    assert mark(certify(result, problem), "derivatives") == "VIOLATED"


def test_a_model_without_a_constant_of_convexity() -> None:
    y = np.random.default_rng(1).integers(0, 2, 12)
    inner = inners.mlp(X, y, losses.Multinomial(2), [2])
    problem = Problem(inner, outers.held_out_mlp(inner, X, y), Box(-2.0, 2.0))
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=4)
    certificate = certify(result, problem)
    assert mark(certificate, "regular Hessian") in ("BOUNDED", "VIOLATED")
    assert mark(certificate, "inner solutions") == "ASSUMED"
    assert certificate["stationary"].mark is not Mark.PROVED


@pytest.mark.slow_on("jax", "dpnp")
def test_on_every_backend_in_float32(backend: Any) -> None:
    known = linear(1, n=20, p=4, m=1, backend=backend, dtype="float32")
    result = bilevel.minimize(known.problem, 0.5, tol=1e-5)
    certificate = certify(result, known.problem)
    assert certificate.ok, str(certificate)


# -- what is claimed is held against the result itself ---------------------------------------------


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampering_is_seen(name: str) -> None:
    tampering = TAMPERINGS[name]
    certificate = certify(tampering.change(RESULT), KNOWN.problem, method=METHOD)
    assert missed(tampering, certificate) is None, (
        f"{missed(tampering, certificate)}\n{certificate}"
    )


def test_a_history_of_another_run() -> None:
    other = bilevel.minimize(KNOWN.problem, 1.5, method=METHOD, max_iter=60, tol=1e-6)
    certificate = certify(replace(RESULT, history=other.history), KNOWN.problem, method=METHOD)
    assert mark(certificate, "history") == "VIOLATED"
    assert mark(certificate, "hypergradients") == "ASSUMED"


@pytest.mark.parametrize("method", ["hoag", "maid"])
def test_a_limit_that_is_called_convergence_in_result_and_record(method: str) -> None:
    """Nothing of the records says what was asked: the rule of the method does, with its tol."""
    early = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=4)
    assert early.status is Status.MAX_ITER
    last = replace(early.history[-1], status=Status.CONVERGED)
    said = replace(early, status=Status.CONVERGED, history=(*early.history[:-1], last))
    assert mark(certify(said, KNOWN.problem, method=method), "status") == "ASSUMED"
    assert mark(certify(said, KNOWN.problem, method=method, tol=1e-4), "status") == "VIOLATED"
    right = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=200, tol=1e-3)
    assert right.success
    assert mark(certify(right, KNOWN.problem, method=method, tol=1e-3), "status") == "PROVED"


@pytest.mark.parametrize("method", ["path", "hoag", "maid", None])
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_a_right_end_is_not_accused_by_its_tol(method: str | None, tol: float) -> None:
    """What is not known of a rule is no fault: of path following and of no method= it is much."""
    result = bilevel.minimize(KNOWN.problem, 0.5, method=method or "path", max_iter=200, tol=tol)
    assert result.success
    certificate = certify(result, KNOWN.problem, method=method, tol=tol)
    assert certificate.ok, str(certificate)
    assert mark(certificate, "status") == ("PROVED" if method in ("hoag", "maid") else "ASSUMED")


def test_an_end_of_path_following_whose_model_is_not_fitted_to_its_tol() -> None:
    """By hand: value less estimate is what the model would still change of f."""
    result = bilevel.minimize(KNOWN.problem, 0.5, tol=1e-3)
    last = result.history[-1]
    assert result.success and last.estimate is not None
    shift = abs(last.value - last.estimate) / abs(last.value)
    for tol, expected in ((1.01 * shift, "ASSUMED"), (0.5 * shift, "VIOLATED"), (0, "VIOLATED")):
        assert mark(certify(result, KNOWN.problem, method="path", tol=tol), "status") == expected


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_a_budget_that_no_record_tells_is_no_proof(method: str) -> None:
    for said in (Status.MAX_PASSES, Status.MAX_SECONDS, Status.MAX_ITER, Status.INTERRUPTED):
        result = bilevel.minimize(KNOWN.problem, 0.5, method=method)
        last = replace(result.history[-1], status=Status.RUNNING)
        other = replace(result, status=said, history=(*result.history[:-1], last))
        assert mark(certify(other, KNOWN.problem, method=method), "status") == "ASSUMED"
    early = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=2)
    assert mark(certify(early, KNOWN.problem, method=method), "status") == "ASSUMED"


def test_every_kind_of_cost_is_looked_at() -> None:
    """Evaluations too: they grow along a history, and begin at no less than 0."""
    assert RESULT.costs.evaluations == 0
    for name in (field.name for field in fields(Costs)):
        for spent in (-1.0, 1e9):
            costs = replace(RESULT.history[0].costs, **{name: spent})
            history = (replace(RESULT.history[0], costs=costs), *RESULT.history[1:])
            false = certify(replace(RESULT, history=history), KNOWN.problem, method=METHOD)
            assert mark(false, "history") == "VIOLATED", (name, spent)


@pytest.mark.parametrize("method", ["path", "hoag"])
def test_evaluations_of_a_right_run_are_no_fault(method: str) -> None:
    a, b = np.diag([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 0.5])

    def h(x: Any, lam: Any) -> Any:
        r = a @ x - b
        return r @ r / 2 + np.exp(lam[0]) * (x @ x) / 2, a @ r + np.exp(lam[0]) * x

    def g(x: Any, lam: Any) -> Any:
        return (x - 0.1) @ (x - 0.1) / 2, x - 0.1

    like = np.zeros(1)
    inner = inners.from_functions(h, like=like, x_shape=(3,), n_hyperparameters=1)
    outer = outers.from_functions(g, like=like, grad_lam=lambda x, lam: 0 * lam)
    problem = Problem(inner, outer, Box(-2.0, 2.0))
    result = bilevel.minimize(problem, 0.0, method=method, max_iter=20)
    assert result.evaluations > 0 and result.outer_evaluations > 0
    assert mark(certify(result, problem, method=method), "history") == "BOUNDED"


def test_a_warning_that_was_left_out() -> None:
    problem = replace(KNOWN.problem, domain=Box(-0.1, 0.1))
    result = bilevel.minimize(problem, 0.0, method="hoag")
    assert result.notes
    assert certify(result, problem, method="hoag").ok
    silent = certify(replace(result, notes=("All is proven.",)), problem, method="hoag")
    assert mark(silent, "status") == "VIOLATED"


MIDDLE: dict[str, Any] = {
    "its value halved": lambda q: {"value": q.value / 2},
    "its p negated": lambda q: {"hypergrad": -q.hypergrad},
    "no error of its value": lambda q: {"value_error": 0.0},
    "no error of its p": lambda q: {"hypergrad_error": 0.0},
    "no error of its x": lambda q: {"inner_error": 0.0},
    "an estimate of nothing": lambda q: {"estimate": 0.0, "estimate_error": 0.0},
}


@pytest.mark.parametrize("name", MIDDLE)
@pytest.mark.parametrize("method", first(1, ["path", "hoag"]))
def test_a_record_in_the_middle_is_held_against_a_fit(name: str, method: str) -> None:
    result = bilevel.minimize(KNOWN.problem, 2.0, method=method, max_iter=10)
    assert certify(result, KNOWN.problem, method=method).ok
    changed = replace(result.history[2], **MIDDLE[name](result.history[2]))
    history = (*result.history[:2], changed, *result.history[3:])
    assert not certify(replace(result, history=history), KNOWN.problem, method=method).ok


def drawn_logistic(seed: int) -> tuple[Problem, Any]:
    """A problem, and a function that tells X, f and ∇f at a λ by NumPy alone."""
    rng, n, p = np.random.default_rng(seed), 60, 5
    a, w = rng.standard_normal((2 * n, p)), rng.standard_normal(p)
    y = np.sign(a @ w + rng.standard_normal(2 * n))
    s = a * y[:, None]

    def truth(lam: float) -> dict[str, Any]:
        penalty, x = math.exp(lam), np.zeros(p)
        for _ in range(50):
            share = 1 / (1 + np.exp(s[:n] @ x))
            hessian = s[:n].T @ ((share * (1 - share))[:, None] * s[:n]) + penalty * np.eye(p)
            x = x - np.linalg.solve(hessian, penalty * x - s[:n].T @ share)
        held = s[n:] @ x
        q = np.linalg.solve(hessian, -s[n:].T @ (1 / (1 + np.exp(held))))
        return {"x": x, "f": float(np.sum(np.logaddexp(0, -held))), "p": -penalty * float(x @ q)}

    return bilevel.logistic_regression(a[:n], y[:n], a[n:], y[n:]), truth


@pytest.mark.parametrize("method", first(1, ["path", "hoag", "maid"]))
@pytest.mark.parametrize("seed", first(1, [0, 1]))
def test_an_error_of_the_best_below_the_true_one_is_seen(seed: int, method: str) -> None:
    problem, truth = drawn_logistic(seed)
    result = bilevel.minimize(problem, method=method, max_iter=100)
    best, right = result.best, truth(float(result.lam[0]))
    assert best is not None and result.jac is not None and best.estimate is not None
    true = {
        "inner_error": float(np.linalg.norm(result.x - right["x"])),
        "value_error": abs(result.fun - right["f"]),
        "hypergrad_error": abs(float(result.jac[0]) - right["p"]),
    }
    honest = certify(result, problem, method=method)
    assert honest.ok and mark(honest, "model") == mark(honest, "hypergradients") == "PROVED"
    for name, error in true.items():
        assert error <= getattr(best, name)
        for factor in (10, 1e6):
            false = replace(result, best=replace(best, **{name: error / factor}))
            assert not certify(false, problem, method=method).ok, (name, factor)
    off = abs(best.estimate - right["f"])
    for changed in (
        {"estimate": 0.0, "estimate_error": 0.0},
        {"estimate": best.value, "estimate_error": 0.0},
        {"estimate_error": off / 1e3},
        {"estimate": 1.01 * best.value},
    ):
        false = replace(result, best=replace(best, **changed))
        assert not certify(false, problem, method=method).ok, changed


class Blind(inners.LinearModel):
    """A model of which no constants are known."""

    def constants(self, lam: Any) -> Any:
        return InnerConstants()


@pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.slow), "float32"])
@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_what_a_last_look_makes_of_the_best_is_no_fault(method: str, dtype: Any) -> None:
    """Early ends, bounds of D, no constants: the best knows more than its record, or otherwise."""
    right = linear(3, n=40, p=6, m=1, dtype=dtype).problem
    model: Any = right.inner
    blind = Blind(**{f.name: getattr(model, f.name) for f in fields(model) if f.init})
    for domain in (Box(-1.0, 0.5), Ball(0.0, 2.0)):
        for inner in (model,) if method == "maid" else (model, blind):
            posed = replace(right, inner=inner, domain=domain)
            for most in (3, 100):
                result = bilevel.minimize(posed, 0.2, method=method, max_iter=most)
                certificate = certify(result, posed, method=method)
                accused = {c.name for c in certificate.clauses if c.mark is Mark.VIOLATED}
                assert accused <= {"stationary"}, f"{certificate}"


def test_what_rests_on_a_declared_mu_is_no_proof() -> None:
    """The same problem with its functions stated by a user: nothing of it is proved by us."""
    inner, outer = KNOWN.problem.inner, KNOWN.problem.outer

    class Theirs:
        def __init__(self, part: Any) -> None:
            self.part = part

        def __getattr__(self, name: str) -> Any:
            return getattr(self.part, name)

    problem = Problem(Theirs(inner), outer, KNOWN.problem.domain)  # type: ignore[arg-type]
    result = bilevel.minimize(problem, 0.5, method=METHOD, max_iter=60, tol=1e-6)
    certificate = certify(result, problem, method=METHOD)
    for name in ("model", "inner solutions", "hypergradients", "stationary", "value"):
        assert mark(certificate, name) == "BOUNDED"
        assert "problem.inner declare" in certificate[name].reason


def test_an_early_end_that_says_converged() -> None:
    early = bilevel.minimize(KNOWN.problem, 0.5, method=METHOD, max_iter=3)
    certificate = certify(replace(early, status=Status.CONVERGED), KNOWN.problem, method=METHOD)
    assert mark(certificate, "status") == "VIOLATED"


@pytest.mark.parametrize("other", ["rows", "scale", "held-out targets", "loss", "weights"])
def test_another_problem(other: str) -> None:
    rng = np.random.default_rng(5)
    A, V = rng.standard_normal((30, 4)), rng.standard_normal((20, 4))
    y, z = rng.standard_normal(30), rng.standard_normal(20)

    def problem(A: Any, y: Any, V: Any, z: Any, loss: Any, weights: Any = None) -> Problem:
        inner = inners.linear_model(A, y, loss, sample_weight=weights)
        return Problem(inner, outers.held_out(V, z, loss))

    right = problem(A, y, V, z, losses.Squared())
    result = bilevel.minimize(right, 1.0, method="hoag")
    assert certify(result, right, method="hoag").ok
    changed = {
        "rows": lambda: problem(A[::-1], y, V, z, losses.Squared()),
        "scale": lambda: problem(1.01 * A, y, V, z, losses.Squared()),
        "held-out targets": lambda: problem(A, y, V, -z, losses.Squared()),
        "loss": lambda: problem(A, y, V, z, losses.Huber(1.0)),
        "weights": lambda: problem(A, y, V, z, losses.Squared(), np.linspace(0.5, 1.5, 30)),
    }
    certificate = certify(result, changed[other](), method="hoag")
    assert mark(certificate, "model") == "VIOLATED"
    assert not certificate.ok


@pytest.mark.parametrize(
    "claimed",
    [
        HOAG(tolerances="quadratic", step_rule=FixedStep(3.0)),
        HOAG(tolerances="cubic", step_rule=FixedStep(3.1)),
        HOAG(tolerances="cubic"),
        HOAG(tolerances=Custom(lambda k: 0.2 / k**3, summable=True), step_rule=FixedStep(3.0)),
    ],
    ids=["schedule", "L", "rule", "custom schedule"],
)
def test_a_method_that_it_was_not(claimed: Any) -> None:
    assert not certify(RESULT, KNOWN.problem, method=claimed).ok


def test_adaptive_steps_are_computed_again() -> None:
    result = bilevel.minimize(KNOWN.problem, 2.0, method="hoag", max_iter=20)
    assert mark(certify(result, KNOWN.problem, method="hoag"), "steps") == "PROVED"
    other = certify(result, KNOWN.problem, method=HOAG(step_rule=FixedStep(2.0)))
    assert mark(other, "steps") == "VIOLATED"


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_a_schedule_that_is_summable_by_word_alone(exponent: float) -> None:
    method = HOAG(tolerances=Custom(lambda k: 0.1 / k**exponent, summable=True))
    result = bilevel.minimize(KNOWN.problem, 0.5, method=method, max_iter=5)
    assert mark(certify(result, KNOWN.problem, method=method), "summable") == "VIOLATED"


def test_a_fixed_step_is_held_against_fits_of_our_own() -> None:
    """L far below the constant of ∇f: one step to the bound of D, and all is still there."""
    method = HOAG(step_rule=FixedStep(0.01))
    result = bilevel.minimize(KNOWN.problem, 2.5, method=method, max_iter=20)
    assert mark(certify(result, KNOWN.problem, method=method), "step length") == "VIOLATED"


def test_nothing_is_stationary_outside_the_domain() -> None:
    outside = replace(RESULT, lam=RESULT.lam + 50)
    certificate = certify(outside, KNOWN.problem, method=METHOD)
    assert mark(certificate, "stationary") == "ASSUMED"
    assert mark(certificate, "feasible") == "VIOLATED"


def test_a_singular_hessian_is_unknown_up_to_rounding() -> None:
    """A constant added to all intercepts of a multinomial model changes nothing."""
    y = np.arange(12) % 3
    inner = inners.linear_model(X, y, losses.Multinomial(3), fit_intercept=True)
    outer = outers.held_out(X, y, losses.Multinomial(3), fit_intercept=True)
    problem = Problem(inner, outer, Box(-3.0, 3.0))
    certificate = certify(bilevel.minimize(problem, 0.0, method="hoag"), problem)
    assert mark(certificate, "regular Hessian") == "ASSUMED"


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_the_model_is_that_of_the_iterate(method: str) -> None:
    """MAID used to return the model of the next λ where a budget ended it."""
    result = bilevel.minimize(KNOWN.problem, 2.5, method=method, max_iter=3)
    certificate = certify(result, KNOWN.problem, method=method)
    assert mark(certificate, "model") in ("PROVED", "BOUNDED"), str(certificate)


@pytest.mark.parametrize("seed", range(3))
def test_features_of_unlike_scales_raise_no_alarm(seed: int) -> None:
    problem, name = drawn(seed, kind="logistic", scale="unlike")
    certificate = certify(bilevel.minimize(problem, 0.0), problem, method="path")
    assert mark(certificate, "derivatives") == "BOUNDED", f"{name}: {certificate}"
    assert all(clause.mark is not Mark.VIOLATED for clause in certificate.consistency)


def test_arguments_are_checked() -> None:
    for delta in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="delta"):
            certify(RESULT, KNOWN.problem, delta=delta)
    with pytest.raises(ValueError, match="iteration"):
        certify(replace(RESULT, history=()), KNOWN.problem)


def unmoved(status: Status) -> tuple[Any, Problem]:
    """A run of one record whose x is zero, with proven bounds so large that they hold."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(80, 4))
    y = np.where(A @ [1, -2, 0.5, 0] + rng.normal(size=80) > 0, 1.0, -1.0)
    A = A * [1, 1e6, 1, 1]
    problem = bilevel.logistic_regression(A[:40], y[:40], A[40:], y[40:])
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=1)
    x = np.zeros(4)
    grad = float(np.linalg.norm(problem.inner.at(x, result.lam).grad))  # μ = e⁰
    first = replace(
        result.history[0],
        value=40 * math.log(2),
        value_error=6e5,
        inner_error=1.01 * grad,
        hypergrad=np.zeros(1),
        hypergrad_error=1e30,
        optimality=0.0,
        step=0.0,
        status=status,
    )
    history = (first,)
    changed = replace(
        result, x=x, fun=first.value, jac=first.hypergrad, history=history, best=first, nit=1
    )
    return replace(changed, status=status), problem


@pytest.mark.parametrize("status", [Status.CONVERGED, Status.STALLED])
def test_a_bound_that_is_true_of_everything_proves_nothing(status: Status) -> None:
    """x = 0 is within 1.2e7 of the fit; the value, 27.7, within 6e5 of f, 7.2548 by SciPy."""
    result, problem = unmoved(status)
    certificate = certify(result, problem, method="hoag")
    assert certificate["value"].figures["f(λ*)"] == pytest.approx(7.2548, abs=1e-3)
    expected = "VIOLATED" if status is Status.CONVERGED else "ASSUMED"
    assert mark(certificate, "model") == expected
    assert mark(certificate, "value") in ("ASSUMED", "VIOLATED")
    assert mark(certificate, "inner solutions") in ("ASSUMED", "VIOLATED")


# -- rounding is no violation, and a bound is a proof of no more than it says -------------------------


@pytest.mark.parametrize(
    ("status", "expected"), [(Status.CONVERGED, "ASSUMED"), (Status.MAX_ITER, "VIOLATED")]
)
def test_a_bound_above_the_tolerance_refutes_no_solver_that_met_it(
    status: Status, expected: str
) -> None:
    """An upper bound of the error, mostly rounding in float32, is no error."""
    records = [replace(q, inner_error=2 * q.tol, inner_status=status) for q in RESULT.history]
    result = replace(RESULT, history=tuple(records))
    assert mark(certify(result, KNOWN.problem, method=METHOD), "inner solutions") == expected


@pytest.mark.parametrize(("factor", "expected"), [(1.05, "PROVED"), (0.5, "VIOLATED")])
def test_a_true_distance_far_below_the_bound_by_mu_is_no_violation(
    factor: float, expected: str
) -> None:
    """Folds of ridge with an error along the steepest direction: ‖∂_x h‖ / μ is 10⁶ times it."""
    rng = np.random.default_rng(4)
    A, y = rng.standard_normal((30, 2)) * [1e3, 1.0], rng.standard_normal(30)
    folds = np.arange(30) % 3
    problem = cross_validation(A, y, losses.Squared(), folds=folds)
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=3)
    w = float(np.exp(result.lam[0]))
    exact = np.stack(
        [
            np.linalg.solve(
                A[folds != k].T @ A[folds != k] + w * np.eye(2), A[k != folds].T @ y[k != folds]
            )
            for k in range(3)
        ],
        axis=1,
    )
    x = exact + np.array([[1e-9], [0.0]])
    stated = factor * float(np.linalg.norm(x - exact))
    value = float(problem.outer.at(x, result.lam).value)
    end = next(i for i, q in enumerate(result.history) if q.value == result.fun)
    history = list(result.history)
    history[end] = replace(history[end], inner_error=stated, value=value)
    changed = replace(result, x=x, fun=value, history=tuple(history), best=history[end])
    assert mark(certify(changed, problem, method="hoag"), "model") == expected


def test_a_bound_above_what_it_bounds_proves_nothing() -> None:
    """1e30 is above the error of any p: nothing that is said of ∇f follows from it."""
    loose = [replace(q, hypergrad_error=1e30) for q in RESULT.history]
    certificate = certify(replace(RESULT, history=tuple(loose)), KNOWN.problem, method=METHOD)
    assert mark(certificate, "hypergradients") == "ASSUMED"
    assert certificate["hypergradients"].figures["loose"] == len(loose)


def test_no_error_is_not_proven_in_single_precision() -> None:
    """The truth is no float32, and no fit in float32 can tell: not violated, but not proved."""
    known = linear(1, n=20, p=4, m=1, dtype="float32")
    result = bilevel.minimize(known.problem, 0.5, method="hoag", max_iter=5)
    exact = [replace(q, hypergrad_error=0.0, inner_error=0.0) for q in result.history]
    certificate = certify(replace(result, history=tuple(exact)), known.problem, method="hoag")
    for name in ("hypergradients", "model", "inner solutions"):
        assert mark(certificate, name) in ("ASSUMED", "VIOLATED")


def test_a_run_that_returns_to_a_lam_has_one_end() -> None:
    """Two records of one λ and one value, of which the earlier is the best, with its own p."""
    last = RESULT.history[-1]
    again = replace(last, k=last.k + 1, hypergrad=last.hypergrad * (1 + 1e-12), step=0.0)
    before = replace(last, status=Status.RUNNING, step=0.0)
    history = (*RESULT.history[:-1], before, again)
    result = replace(
        RESULT, lam=last.lam, fun=last.value, jac=last.hypergrad, history=history, best=before
    )
    certificate = certify(replace(result, nit=len(history)), KNOWN.problem)
    assert mark(certificate, "history") == "BOUNDED", certificate["history"].reason


# -- what can't be known is left open ---------------------------------------------------------------------


def single(seed: int) -> Any:
    """Features and targets in single precision."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((40, 4)).astype(np.float32)
    return A, (A[:, 0] + 0.5 * rng.standard_normal(40)).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_slope_without_an_error_leaves_the_end_open(seed: int) -> None:
    """A kernel matrix in single precision: the tight fit stalls at once, and nothing bounds ∇f."""
    inner = inners.kernel_ridge(*single(seed), inners.RBF())
    problem = Problem(inner, outers.gcv(inner), Box(-4.0, 4.0))
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=40)
    certificate = certify(result, problem, method="hoag")
    assert certificate["stationary"].figures["error of ∇f"] == math.inf
    assert mark(certificate, "stationary") == "ASSUMED"
    assert certificate.ok, str(certificate)


def undefined(beyond: float, slope: float = 1.0) -> Problem:
    """g = ½ ‖x - 1‖², which is NaN from some λ on; its slope is from another one on."""

    def g(x: Any, lam: Any) -> Any:
        value = math.nan if lam[0] > beyond else float((x - 1) @ (x - 1)) / 2
        return value, math.nan * x if lam[0] > beyond * slope else x - 1

    right = quadratic(1, p=3, m=1, lam=[0.5], domain=Box(-2.0, 2.0)).problem
    return replace(right, outer=outers.from_functions(g, like=X))


def test_a_criterion_that_is_nan_somewhere_is_unknown_and_not_wrong() -> None:
    problem = undefined(beyond=1.9)
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=2)
    clause = certify(result, problem)["derivatives"]
    assert clause.mark is Mark.ASSUMED
    assert "nan" in clause.reason


def test_a_slope_that_is_nan_beside_a_finite_value_is_wrong() -> None:
    problem = undefined(beyond=1.9, slope=0.95)
    outer = outers.from_functions(
        lambda x, lam: ((x - 1) @ (x - 1) / 2, x - 1 if lam[0] < 1.9 else math.nan * x), like=X
    )
    problem = replace(problem, outer=outer)
    result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=2)
    assert mark(certify(result, problem), "derivatives") == "VIOLATED"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_failed_at_once_is_not_called_tampered_with(value: float) -> None:
    """NaN is no other number than NaN, and ∞ no other than ∞."""
    problem = replace(
        KNOWN.problem,
        outer=outers.from_functions(lambda x, lam: (value, 0 * x), like=np.zeros(6)),
    )
    with np.errstate(invalid="ignore"):
        result = bilevel.minimize(problem, 0.0, method="hoag", max_iter=3)
        assert not result.success
        certificate = certify(result, problem, method="hoag")
    wrong = [clause for clause in certificate.consistency if clause.mark is Mark.VIOLATED]
    assert not wrong, str(certificate)


def test_the_end_of_hoag_keeps_to_its_tolerance_in_single_precision() -> None:
    """Its last solve asked for a tenth of what rounding had left, which was above ε_k, and met it."""
    rng = np.random.default_rng(23)
    A = features(rng, 60, 3, "offset", True).astype(np.float32)
    y = targets(rng, "squared", A).astype(np.float32)
    inner = inners.linear_model(A[:40], y[:40], losses.Squared())
    problem = Problem(inner, outers.held_out(A[40:], y[40:], losses.Squared()))
    method = HOAG(tolerances="cubic")
    result = bilevel.minimize(problem, 0.0, method=method, max_iter=60)
    met = [r for r in result.history if r.cg_status is Status.CONVERGED]
    assert met  # how the run ended is a matter of rounding
    assert all(record.cg_residual <= record.tol for record in met)
    assert mark(certify(result, problem, method=method), "adjoint solutions") != "VIOLATED"


@pytest.mark.parametrize(
    ("seed", "start"),
    [
        (56, 2.0),  # a preconditioner that solves a system of condition 10⁴ in single precision
        (238, 0.5),  # rows of a hinge that change sides between close points
    ],
)
def test_rounding_and_kinks_are_no_fault_of_derivatives(seed: int, start: float) -> None:
    problem, name = drawn(seed)
    method = HOAG(tolerances="cubic")
    result = bilevel.minimize(problem, start, method=method, max_iter=40)
    certificate = certify(result, problem, method=method, seed=seed)
    assert mark(certificate, "derivatives") == "BOUNDED", f"{name}: {certificate}"


@pytest.mark.parametrize("seed", range(2))
def test_predictions_that_are_saturated_are_no_fault(seed: int) -> None:
    """Of A = H - μ I nothing is left but rounding where each row is sure of its class."""
    rng = np.random.default_rng(seed)
    A = features(rng, 45, 8, "offset", False)
    y = targets(rng, "multinomial", A)
    y[:9] = np.arange(9) % 3
    problem = cross_validation(A, y, losses.Multinomial(3), folds=3)
    report = bilevel.testing.check_problem(problem, -6.0, seed=seed)
    assert report.ok, str(report)
