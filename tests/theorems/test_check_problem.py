"""check_problem: it finds what is wrong and says why, and is silent over the whole model zoo."""

from __future__ import annotations

import functools
import math
from dataclasses import fields, replace
from typing import Any

import faulty
import numpy as np
import pytest
from drawn import drawn
from scipy import sparse

import bilevel
from bilevel import inner as inners
from bilevel import losses
from bilevel import outer as outers
from bilevel.domains import Box
from bilevel.inner import InnerConstants, StraightRay
from bilevel.outer.effective import RidgeSmoother
from bilevel.problem import Problem
from bilevel.problems import cross_validation
from bilevel.status import REFUTING, Status
from bilevel.testing import KnownProblem, linear, quadratic
from bilevel.testing.check import check_problem
from bilevel.testing.check.causes import likely_factor, likely_mu
from bilevel.testing.quadratic import Quadratic, QuadraticPoint

RNG = np.random.default_rng(3)
N, P = 16, 4
X, X_VAL = RNG.standard_normal((N, P)), RNG.standard_normal((10, P))
REALS, REALS_VAL = RNG.standard_normal(N), RNG.standard_normal(10)
SIGNS, SIGNS_VAL = np.sign(REALS), np.sign(REALS_VAL)
COUNTS, COUNTS_VAL = RNG.poisson(2.0, N) * 1.0, RNG.poisson(2.0, 10) * 1.0
CLASSES, CLASSES_VAL = RNG.integers(0, 3, N), RNG.integers(0, 3, 10)
GROUPS = np.array([0, 1, 1, 0])


# -- no false alarm: the model zoo ------------------------------------------------------------------


def glm(loss: Any, y: Any, y_val: Any, **options: Any) -> Problem:
    inner = inners.linear_model(X, y, loss, **options)
    held = {"fit_intercept": True} if options.get("fit_intercept") else {}
    return Problem(inner, outers.held_out(X_VAL, y_val, loss, **held))


def ridge(make: Any, **options: Any) -> Problem:
    inner = inners.linear_model(X, REALS, losses.Squared(), **options)
    return Problem(inner, make(inner))


def kernel(kind: Any, make: Any = outers.gcv) -> Problem:
    inner = inners.kernel_ridge(X, REALS, kind)
    return Problem(inner, make(inner), Box(-4.0, 4.0))


def network() -> Problem:
    inner = inners.mlp(X, CLASSES, losses.Multinomial(3), [3])
    return Problem(inner, outers.held_out_mlp(inner, X_VAL, CLASSES_VAL), Box(-4.0, 4.0))


def sparse_logistic() -> Problem:
    rows = sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0.0))
    held = sparse.csr_array(np.where(np.abs(X_VAL) > 0.5, X_VAL, 0.0))
    return bilevel.logistic_regression(rows, SIGNS, held, SIGNS_VAL, groups="each")


def from_functions() -> Problem:
    """Nothing but a value and a gradient: all products are differences."""

    def h(x: Any, lam: Any) -> Any:
        w = np.exp(lam[0])
        return np.sum(np.cosh(x)) + w * (x @ x) / 2, np.sinh(x) + w * x

    def g(x: Any, lam: Any) -> Any:
        return np.sum((x - 1) ** 2) / 2 + np.sum(lam**2), x - 1

    inner = inners.from_functions(h, like=X, x_shape=(P,), n_hyperparameters=1)
    outer = outers.from_functions(g, like=X, grad_lam=lambda x, lam: 2 * lam)
    return Problem(inner, outer, Box(-3.0, 3.0))


ZOO = {
    "logistic": lambda: glm(losses.Logistic(), SIGNS, SIGNS_VAL),
    "logistic, groups": lambda: glm(losses.Logistic(), SIGNS, SIGNS_VAL, groups=GROUPS),
    "logistic, each, sparse": sparse_logistic,
    "logistic, intercept": lambda: glm(losses.Logistic(), SIGNS, SIGNS_VAL, fit_intercept=True),
    "squared": lambda: glm(losses.Squared(), REALS, REALS_VAL),
    "huber": lambda: glm(losses.Huber(0.7), REALS, REALS_VAL),
    "squared hinge": lambda: glm(losses.SquaredHinge(), SIGNS, SIGNS_VAL, groups="each"),
    "poisson": lambda: glm(losses.Poisson(), COUNTS, COUNTS_VAL),
    "multinomial": lambda: glm(losses.Multinomial(3), CLASSES, CLASSES_VAL, groups=GROUPS),
    "elastic net": lambda: glm(
        losses.Squared(), REALS, REALS_VAL, penalty=inners.SmoothedElasticNet(0.3)
    ),
    "gcv": lambda: ridge(outers.gcv, groups=GROUPS),
    "sure": lambda: ridge(lambda h: outers.sure(h, 0.5)),
    "marginal likelihood": lambda: ridge(outers.marginal_likelihood, groups=GROUPS),
    "kernel, rbf": lambda: kernel(inners.RBF()),
    "kernel, matern 3/2": lambda: kernel(inners.Matern32(), outers.marginal_likelihood),
    "kernel, matern 5/2": lambda: kernel(inners.Matern52()),
    "kernel, polynomial": lambda: kernel(inners.Polynomial()),
    "perceptron": network,
    "cross-validation": lambda: cross_validation(X, SIGNS, losses.Logistic(), folds=3),
    "functions": from_functions,
    "quadratic": lambda: quadratic(0, p=6, m=3, coupled=True).problem,
    "quadratic, affine": lambda: quadratic(0, p=6, m=3, kind="affine").problem,
}


#: One of each kind of model away from λ = 0, where a factor e^λ is not 1; the rest are slow.
AWAY = {
    "logistic, groups",
    "multinomial",
    "elastic net",
    "gcv",
    "kernel, rbf",
    "perceptron",
    "functions",
    "quadratic",
}


@pytest.mark.parametrize(
    ("name", "lam"),
    [
        pytest.param(name, lam, marks=[pytest.mark.slow] if lam and name not in AWAY else [])
        for lam in (0.0, -1.5)
        for name in ZOO
    ],
)
def test_no_false_alarm(name: str, lam: float) -> None:
    report = check_problem(ZOO[name](), lam)
    assert report.ok, str(report)
    assert len(report.checked) >= 20


@pytest.mark.slow_on("jax", "dpnp")
def test_no_false_alarm_on_any_backend(backend: Any) -> None:
    known = linear(1, n=8, p=3, m=3, backend=backend, dtype="float32")
    report = check_problem(known.problem, known.array(known.lam))
    assert report.ok, str(report)


def test_no_false_alarm_in_float32_at_zero() -> None:
    known = linear(1, n=30, p=10, m=2, dtype="float32")
    assert check_problem(known.problem, 0.0, known.problem.x(None)).ok


# -- faults: each is found, at the right member, and explained -----------------------------------------


class Faulty:
    """An object some members of which are replaced; ``point`` is the right one."""

    def __init__(self, right: Any, faults: dict[str, Any], **more: Any) -> None:
        self.right, self.faults = right, faults
        self.__dict__.update(more)

    def __getattr__(self, name: str) -> Any:
        if name in self.faults:
            return self.faults[name](self.right)
        return getattr(self.right, name)


class FaultyObjective(Faulty):
    """An inner objective or a criterion with wrong points or wrong constants."""

    def at(self, x: Any, lam: Any, *carry: Any) -> Any:
        if "at" in self.faults:
            return self.faults["at"](self.right, x, lam, *carry)
        point = self.right.at(x, lam, *carry)
        spoilt = Faulty(point, self.faults, inner=self)
        spoilt.__dict__["ray"] = lambda d, pushed=None: StraightRay(spoilt, d)
        return spoilt

    def constants(self, *lam: Any) -> Any:
        right = self.right.constants(*lam)
        return self.faults["constants"](right) if "constants" in self.faults else right


def inner_fault(known: KnownProblem, **faults: Any) -> Problem:
    return replace(known.problem, inner=FaultyObjective(known.problem.inner, faults))


def outer_fault(known: KnownProblem, **faults: Any) -> Problem:
    return replace(known.problem, outer=FaultyObjective(known.problem.outer, faults))


def one_weight() -> KnownProblem:
    return linear(0, n=15, p=4, m=1, lam=[1.5])


def each_weight() -> KnownProblem:
    return quadratic(1, p=3, m=3, lam=[1.5, -1.0, 0.5])


def affine() -> KnownProblem:
    return quadratic(2, p=3, m=3, kind="affine", coupled=True)


def weight(point: Any) -> Any:
    return np.exp(point.lam[0])


def stale_carry(inner: Any, x: Any, lam: Any, carry: Any = None) -> Any:
    return inner.at(x, lam, carry if carry is None else carry * 0.9)


def indefinite() -> Problem:
    """Consistent to the last digit, with one eigenvalue of the wrong sign and μ declared."""
    known = quadratic(3, p=4, m=2, kind="affine")
    inner: Any = known.problem.inner
    values, vectors = np.linalg.eigh(inner.matrix)
    values[0] = -0.2
    lost = replace(inner, matrix=vectors * values @ vectors.T)
    return replace(
        known.problem,
        inner=FaultyObjective(lost, {"constants": lambda right: replace(right, mu=0.1)}),
    )


def exponential_criterion() -> Problem:
    """g = ½ ‖x‖² + Σ e^λ, with the derivative of λ where that of e^λ is meant."""
    known = each_weight()
    outer = outers.from_functions(
        lambda x, lam: (x @ x / 2 + np.sum(np.exp(2 * lam)) / 2, x),
        like=X,
        grad_lam=lambda x, lam: np.exp(lam),
    )
    return replace(known.problem, outer=outer)


def constants(**changed: float) -> Any:
    """The right constants, some multiplied by a factor."""
    return lambda right: replace(
        right, **{name: getattr(right, name) * factor for name, factor in changed.items()}
    )


FAULTS: dict[str, tuple[Any, str, str]] = {
    "gradient, sign": (
        lambda: inner_fault(one_weight(), grad=lambda pt: -pt.grad),
        "inner.grad",
        "the sign",
    ),
    "gradient, a ½ of the penalty forgotten": (
        lambda: inner_fault(one_weight(), grad=lambda pt: pt.grad + weight(pt) * pt.x),
        "inner.grad",
        "counted twice",
    ),
    "gradient, penalty forgotten": (
        lambda: inner_fault(one_weight(), grad=lambda pt: pt.grad - weight(pt) * pt.x),
        "inner.grad",
        "is missing",
    ),
    "gradient, one component": (
        lambda: inner_fault(one_weight(), grad=lambda pt: pt.grad + np.array([0.0, 0.0, 0.3, 0.0])),
        "inner.grad",
        "component 2",
    ),
    "product, penalty forgotten": (
        lambda: inner_fault(
            one_weight(), hvp=lambda pt: lambda v: pt.hvp(v) - weight(pt) * v, diag=no_diagonal
        ),
        "inner.hvp",
        "curvature of the penalty",
    ),
    "product, factor 2": (
        lambda: inner_fault(one_weight(), hvp=lambda pt: lambda v: 2 * pt.hvp(v), diag=no_diagonal),
        "inner.hvp",
        "factor 2",
    ),
    "product, not symmetric": (
        lambda: inner_fault(
            affine(), hvp=lambda pt: lambda v: np.triu(pt.inner.matrix) @ v, diag=no_diagonal
        ),
        "inner.hvp is symmetric",
        "transposed",
    ),
    "product, not linear": (
        lambda: inner_fault(affine(), hvp=lambda pt: lambda v: pt.hvp(v) + 0.1, diag=no_diagonal),
        "inner.hvp is linear",
        "H (2 u - 3 v)",
    ),
    "cross products, chain rule": (
        lambda: inner_fault(
            each_weight(),
            cross_jvp=lambda pt: lambda d: pt.cross_jvp(d * np.exp(-pt.lam)),
            cross_vjp=lambda pt: lambda q: (np.exp(-pt.lam) * pt.cross_vjp(q).T).T,
            constants=lambda right: replace(right, cross_lipschitz=None),
        ),
        "inner.cross_jvp",
        "chain rule through exp",
    ),
    "cross product, sign of one": (
        lambda: inner_fault(each_weight(), cross_vjp=lambda pt: lambda q: -pt.cross_vjp(q)),
        "inner.cross_vjp",
        "the sign",
    ),
    "cross products, transposed": (
        lambda: inner_fault(
            affine(), cross_vjp=lambda pt: lambda q: pt.cross_jvp(q), cross_norm=no_norm
        ),
        "inner.cross_vjp",
        "transposed",
    ),
    "criterion, a ½ too many": (
        lambda: outer_fault(one_weight(), grad_x=lambda pt: pt.grad_x / 2),
        "outer.grad_x",
        "factor ½",
    ),
    "criterion, direct dependence on λ forgotten": (
        lambda: outer_fault(affine(), grad_lam=lambda pt: 0 * pt.grad_lam),
        "outer.grad_lam",
        "a term is missing",
    ),
    "criterion, chain rule": (exponential_criterion, "outer.grad_lam", "chain rule through exp"),
    "not finite": (
        lambda: inner_fault(
            one_weight(), hvp=lambda pt: lambda v: pt.hvp(v) + np.array([0, np.inf, 0, 0])
        ),
        "inner.hvp",
        "component 1",
    ),
    "overflow at a face of the domain": (
        lambda: replace(one_weight().problem, domain=Box(-5.0, 1000.0)),
        "inner.value",
        "overflow",
    ),
    "curvature lost": (indefinite, "inner.constants().mu", "curvature is lost"),
    "μ twice too large": (
        lambda: inner_fault(each_weight(), constants=constants(mu=2.0)),
        "inner.constants().mu",
        "factor 2",
    ),
    "smoothness too small": (
        lambda: inner_fault(each_weight(), constants=constants(smoothness=0.5)),
        "inner.constants().smoothness",
        "factor 2",
    ),
    "Lipschitz constant of the Hessian too small": (
        lambda: inner_fault(one_weight(), constants=constants(hessian_lipschitz=1e-3)),
        "inner.constants().hessian_lipschitz",
        "is attained",
    ),
    "self-concordance too small": (
        lambda: inner_fault(one_weight(), constants=constants(self_concordance=0.01)),
        "inner.constants().self_concordance",
        "is attained",
    ),
    "Lipschitz constant of the cross products too small": (
        lambda: inner_fault(each_weight(), constants=constants(cross_lipschitz=0.5)),
        "inner.constants().cross_lipschitz",
        "is attained",
    ),
    "Lipschitz constant of the criterion too small": (
        lambda: outer_fault(affine(), constants=constants(grad_x_lipschitz=0.5)),
        "outer.constants().grad_x_lipschitz",
        "is attained",
    ),
    "Lipschitz constant in λ of the criterion too small": (
        lambda: outer_fault(affine(), constants=constants(grad_lam_lipschitz=0.1)),
        "outer.constants().grad_lam_lipschitz",
        "is attained",
    ),
    "norm of the cross products too small": (
        lambda: inner_fault(each_weight(), cross_norm=lambda pt: pt.cross_norm / 2),
        "inner.cross_norm",
        "factor 2",
    ),
    "diagonal": (
        lambda: inner_fault(one_weight(), diag=lambda pt: lambda: pt.diag() - weight(pt)),
        "inner.diag",
        "unit vectors",
    ),
    "margins kept from another x": (
        lambda: inner_fault(one_weight(), at=stale_carry),
        "inner.at(carry=...)",
        "a point without carry",
    ),
    "another dtype": (
        lambda: inner_fault(
            linear(0, n=15, p=4, m=1, dtype="float32"),
            grad=lambda pt: pt.grad.astype(np.float64),
        ),
        "inner.grad",
        "dtype",
    ),
    "another shape": (
        lambda: inner_fault(each_weight(), cross_vjp=lambda pt: lambda q: pt.cross_vjp(q)[None, :]),
        "inner.cross_vjp",
        "shape",
    ),
}


def no_diagonal(point: Any) -> Any:
    return lambda: None


def no_norm(point: Any) -> Any:
    return None


#: Of these more than one finding comes: all else is blamed alone.
SEVERAL = ("product, not", "product, f", "product, p", "gradient", "overflow")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_explained_and_nothing_else_is_blamed(name: str) -> None:
    build, what, clue = FAULTS[name]
    report = check_problem(build())
    found = {finding.what: finding for finding in report.findings}
    assert what in found, str(report)
    assert clue in str(found[what]), str(found[what])
    assert name.startswith(SEVERAL) or found.keys() <= {what, what.replace("jvp", "vjp")}
    with pytest.raises(AssertionError, match="wrong"):
        report.raise_for_findings()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_faults_are_found_with_any_seed(seed: int) -> None:
    missed = [
        name
        for name, (build, what, _) in FAULTS.items()
        if all(finding.what != what for finding in check_problem(build(), seed=seed).findings)
    ]
    assert not missed


def test_a_missing_chain_rule_shows_at_zero_too() -> None:
    """At λ = 0 the factor e^λ is 1: the second point has another λ."""
    known = each_weight()
    problem = inner_fault(
        known,
        cross_jvp=lambda pt: lambda d: pt.cross_jvp(d * np.exp(-pt.lam)),
        cross_vjp=lambda pt: lambda q: (np.exp(-pt.lam) * pt.cross_vjp(q).T).T,
    )
    report = check_problem(problem, 0.0)
    assert any("chain rule" in str(finding) for finding in report.findings)


def test_notes_name_what_is_not_stated() -> None:
    report = check_problem(ZOO["perceptron"](), 0.0)
    assert any("No μ" in note for note in report.notes)
    report = check_problem(replace(one_weight().problem, domain=Box(-1.0, math.inf)))
    assert any("unbounded" in note for note in report.notes)


def test_report_is_readable_and_a_dictionary() -> None:
    report = check_problem(FAULTS["gradient, sign"][0]())
    assert "Likely cause: the sign" in str(report)
    content = report.to_dict()
    assert content["ok"] is False
    assert content["findings"][0]["what"] == "inner.grad"


def test_arguments_are_checked() -> None:
    problem = one_weight().problem
    with pytest.raises(ValueError, match="lam"):
        check_problem(problem, np.zeros(3))
    with pytest.raises(ValueError, match="x must have shape"):
        check_problem(problem, 0.0, np.zeros(17))


def test_constants_are_optional() -> None:
    known = each_weight()
    problem = inner_fault(known, constants=lambda right: InnerConstants())
    assert check_problem(problem).ok


# -- faults of functions written by hand --------------------------------------------------------------

#: One of each kind; the campaign has them all.
BY_HAND = (
    "features in single precision",
    "value in single precision",
    "direction in single precision",
    "λ cut at 4 in the gradient",
    "gradient clipped",
    "a row's weight off by 10⁻⁵",
    "cache with a rounded key",
    "minibatches",
    "gradient that adds up",
    "product changes λ",
    "product in a buffer",
    "product divided by a length that may be 0",
    "product with a jitter of 10⁻⁶",
    "curvature held above 10⁻²",
    "cross products negated for λ < -3",
    "criterion wrong for small x",
    "μ of the mean λ",
    "smoothness without the penalty",
    "L of the criterion 1% too small",
    "an exception beyond λ = 6",
    "an exponential that overflows",
    "NaN for |x| above 12",
)


def test_the_problem_by_hand_is_right() -> None:
    report = check_problem(faulty.problem())
    assert report.ok, str(report)
    assert 0 < report.passes < 8000
    assert report.to_dict()["passes"] == report.passes


@functools.cache
def report_by_hand(name: str) -> Any:
    return check_problem(faulty.FAULTS[name][0]())


@pytest.mark.parametrize("name", BY_HAND)
def test_fault_by_hand_is_found(name: str) -> None:
    _, what = faulty.FAULTS[name]
    report = report_by_hand(name)
    assert any(finding.what.startswith(what) for finding in report.findings), str(report)


@pytest.mark.parametrize(
    ("name", "clue"),
    [
        ("product in single precision", "float32"),
        ("one group without its penalty", "gradient of the penalty"),
        ("product without a group's penalty", "curvature of the penalty"),
        ("product changes x", "in place"),
        ("product in a buffer", "buffer"),
        ("minibatches", "random"),
        ("gradient one call behind", "cache"),
        ("cross products by e^λ for λ", "chain rule"),
        ("criterion with a ½", "factor ½"),
        ("product by forward differences", "transposed"),
        ("an exponential that overflows", "largest exponent"),
        ("cross_lipschitz 10% too small", "not at all"),
    ],
)
def test_cause_is_told(name: str, clue: str) -> None:
    report = report_by_hand(name)
    assert any(clue in str(finding) for finding in report.findings), str(report)


@pytest.mark.parametrize("seed", range(4))
def test_features_of_unlike_scales_are_no_fault(seed: int) -> None:
    """An income of 10⁷ beside a ratio: steps are measured in the curvature of h."""
    problem, name = drawn(seed, kind="logistic", scale="unlike")
    report = check_problem(problem, seed=seed)
    assert report.ok, f"{name}: {report}"


def test_a_kink_is_no_fault() -> None:
    """A squared hinge with a margin of exactly 1: each second derivative between two is right."""
    inner = inners.linear_model(X, SIGNS, losses.SquaredHinge())
    problem = Problem(inner, outers.held_out(X_VAL, SIGNS_VAL, losses.SquaredHinge()))
    x = np.linalg.lstsq(X[:P], SIGNS[:P], rcond=None)[0]
    assert check_problem(problem, 0.0, x).ok


def test_an_objective_that_grows_beyond_all_numbers_is_no_fault() -> None:
    """Σ exp(x_i) is infinite at x = 10³ by right."""
    inner = inners.from_functions(
        lambda x, lam: (
            np.sum(np.exp(x)) + np.exp(lam[0]) * (x @ x) / 2,
            np.exp(x) + np.exp(lam[0]) * x,
        ),
        like=X,
        x_shape=(P,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: np.exp(x) * v + np.exp(lam[0]) * v,
        cross_vjp=lambda x, lam, q: np.exp(lam[0]) * np.array([x @ q]),
        cross_jvp=lambda x, lam, d: np.exp(lam[0]) * x * d[0],
    )
    outer = outers.from_functions(
        lambda x, lam: (x @ x / 2, x), like=X, grad_lam=lambda x, lam: 0 * lam
    )
    assert check_problem(Problem(inner, outer, Box(-5.0, 5.0))).ok


def test_the_least_value_is_held_against_values() -> None:
    known = affine()
    problem = outer_fault(known, constants=lambda right: replace(right, least=1e6))
    report = check_problem(problem)
    assert [finding.what for finding in report.findings] == ["outer.constants().least"]


def test_names_of_causes() -> None:
    assert likely_factor(np.array([1.0, 2.0]), np.array([1.0, 2.1])) is None
    assert likely_factor(np.array([3.0, 6.0]) * (1 + 1e-5), np.array([3.0, 6.0])) is not None
    assert likely_mu(2.0, -1.0, np.zeros(1), 0.1) is not None
    assert "λ is used" in str(likely_mu(1.5, 0.9, np.array([1.5]), 0.1))


# -- rounding, kinks and underflow are no faults ------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 11, 23, 27])
def test_rows_that_change_sides_between_the_steps_are_no_fault(seed: int) -> None:
    """Huber losses of columns of mixed scales, in float32: no short step is above rounding."""
    rng = np.random.default_rng(seed)
    A = (rng.standard_normal((24, 4)) * 10.0 ** rng.uniform(0, 5, 4)).astype(np.float32)
    y = (30 * rng.standard_normal(24)).astype(np.float32)
    inner = inners.linear_model(A[:14], y[:14], losses.Huber(0.3))
    problem = Problem(inner, outers.held_out(A[14:], y[14:], losses.Huber(0.3)), Box(-12.0, -2.0))
    report = check_problem(problem, -7.0, seed=seed)
    assert report.ok, str(report)


@pytest.mark.parametrize(("dtype", "size"), [("float64", 1e-170), ("float32", 1e-22)])
def test_numbers_whose_squares_underflow_are_no_fault(dtype: str, size: float) -> None:
    rng = np.random.default_rng(2)
    A, y = (
        rng.standard_normal((20, 3)).astype(dtype),
        (size * rng.standard_normal(20)).astype(dtype),
    )
    inner = inners.linear_model(A[:12], y[:12], losses.Squared())
    problem = Problem(inner, outers.held_out(A[12:], y[12:], losses.Squared()))
    x = (size * rng.standard_normal(3)).astype(dtype)
    report = check_problem(problem, 0.5, x)
    assert report.ok, str(report)


def test_a_fault_that_shows_at_a_kink_alone_is_found() -> None:
    """Squared hinge with the curvature of all rows, beside right values and gradients."""

    def h(x: Any, lam: Any) -> Any:
        left = np.maximum(1 - SIGNS * (X @ x), 0)
        w = np.exp(lam[0])
        return left @ left / 2 + w * (x @ x) / 2, w * x - X.T @ (SIGNS * left)

    inner = inners.from_functions(
        h,
        like=X,
        x_shape=(P,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: X.T @ (X @ v) + np.exp(lam[0]) * v,
        cross_jvp=lambda x, lam, d: np.exp(lam[0]) * x * d[0],
        cross_vjp=lambda x, lam, q: np.exp(lam[0]) * np.array([x @ q]),
    )
    outer = outers.from_functions(lambda x, lam: (x @ x / 2, x), like=X)
    report = check_problem(Problem(inner, outer, Box(-3.0, 3.0)))
    assert any(finding.what == "inner.hvp" for finding in report.findings), str(report)


def test_traces_of_a_heavy_penalty_keep_their_digits() -> None:
    """p = 1: tr S = s = G / (G + w), and its slope -s (1 - s), in long double."""
    A, y = 1e-6 * RNG.standard_normal((9, 1)), RNG.standard_normal(9)
    inner = inners.linear_model(A, y, losses.Squared())
    gram = np.sum(A.astype(np.longdouble) ** 2)
    s = gram / (gram + np.exp(np.longdouble(1.0)))
    found = RidgeSmoother(inner).at(np.array([1.0]))
    assert float(found.trace) == pytest.approx(float(s), rel=1e-13, abs=0)
    assert float(found.trace_grad[0]) == pytest.approx(float(-s * (1 - s)), rel=1e-13, abs=0)
    assert float(found.log_det_grad[0]) == pytest.approx(float(-s), rel=1e-13, abs=0)


def test_the_rounding_of_nothing_is_nothing() -> None:
    """At x = 0 the hinge, whose curvature jumps, has turned by nothing: 0 times ∞ was NaN."""
    inner = inners.linear_model(X, SIGNS, losses.SquaredHinge())
    lost = inner.at(np.zeros(P), np.zeros(1)).rounding(np.zeros((P, 1)))
    assert lost is not None
    assert 0 <= inner.backend.scalars(lost.products)[0] < 1e-10


# -- a preconditioner from outside ---------------------------------------------------------------------


def with_member(member: Any, p: int = 3, known: Any = None) -> Problem:
    """A right problem, whose points have this ``preconditioner``."""
    known = known or quadratic(1, p=p, m=3, lam=[1.5, -1.0, 0.5])
    spoilt = type("Spoilt", (QuadraticPoint,), {"preconditioner": member})

    class Inner(Quadratic):
        def at(self, x: Any, lam: Any, carry: Any = None) -> Any:
            return spoilt(self, x, lam)

    right = known.problem.inner
    parts = {part.name: getattr(right, part.name) for part in fields(Quadratic) if part.init}
    return replace(known.problem, inner=Inner(**parts))


def sloping(apply: Any, p: int = 3, known: Any = None) -> Problem:
    """The same by a function of H and r."""

    def preconditioner(point: Any) -> Any:
        H = point.hvp(np.eye(p))
        return lambda r: apply(H, r)

    return with_member(preconditioner, p, known)


@pytest.mark.parametrize("share", [1.0, 0.999, 1e-6])
def test_a_right_preconditioner_is_no_fault(share: float) -> None:
    """M = c H with c ≤ 1, of which M⁻¹H = I / c."""
    report = check_problem(sloping(lambda H, r: np.linalg.solve(share * H, r)))
    assert report.ok, str(report)
    assert "inner.preconditioner" in report.checked


@pytest.mark.parametrize(
    ("apply", "clue"),
    [
        (lambda H, r: -np.linalg.solve(H, r), "positive"),
        (lambda H, r: 0 * r, "positive"),
        (lambda H, r: math.nan * r, "finite"),
        (lambda H, r: r[:2], "shape"),
        (lambda H, r: np.multiply(r, 1e3, out=r), "in place"),
        (lambda H, r: np.linalg.solve(H + 0.1 * np.triu(H, 1), r), "symmetric"),
        (lambda H, r: np.linalg.solve(50 * H, r), "quotient 0.02"),
        (lambda H, r: np.linalg.solve(1.001 * H, r), "quotient 0.999"),
        (lambda H, r: np.linalg.solve(H, r) * (1.0 if r.ndim == 1 else 2.0), "column"),
    ],
)
def test_a_wrong_preconditioner_is_found(apply: Any, clue: str) -> None:
    report = check_problem(sloping(apply))
    (finding,) = report.findings
    assert finding.what == "inner.preconditioner"
    assert clue in str(finding)


def test_a_preconditioner_that_is_no_method_is_found() -> None:
    member = property(lambda point: lambda r: r)
    (finding,) = check_problem(with_member(member)).findings
    assert finding.what == "inner.preconditioner"
    assert "is a method" in str(finding)


def test_one_direction_that_a_preconditioner_takes_for_too_steep_is_found() -> None:
    """Of 12 directions one is wrong: a random residual has little of it."""

    def apply(H: Any, r: Any) -> Any:
        values, vectors = np.linalg.eigh(H)
        values = np.where(np.arange(12) == 3, 1.1, 0.5) * values
        return vectors @ ((vectors.T @ r).T / values).T

    (finding,) = check_problem(sloping(apply, p=12)).findings
    assert "quotient 0.909091" in str(finding)


def hidden(H: Any, r: Any, share: float = 0.0) -> Any:
    """H⁻¹ of which one direction is left out, or as good as."""
    u = np.cos(np.arange(len(H)))
    u /= np.linalg.norm(u)
    Q = np.eye(len(H)) - (1 - share) * np.outer(u, u)
    return Q @ np.linalg.solve(H, Q @ r)


@pytest.mark.parametrize("p", [3, 20, 260])
@pytest.mark.parametrize("share", [0.0, 1e-6])
def test_a_direction_that_a_preconditioner_hides_is_found(share: float, p: int) -> None:
    """M is far too large along it, where no residual that M⁻¹ has made goes."""
    report = check_problem(sloping(functools.partial(hidden, share=share), p))
    (finding,) = report.findings
    assert finding.what == "inner.preconditioner"
    assert "M⁻¹H ⪰ I is asked for" in str(finding)


def skewed(H: Any, r: Any) -> Any:
    """H⁻¹ with as much that is not symmetric: positive all the same."""
    root = np.linalg.inv(np.linalg.cholesky(H))
    above = np.triu(np.ones(H.shape), 1)
    return root.T @ (np.eye(len(H)) + above - above.T) @ root @ r


def unrelated(H: Any, r: Any) -> Any:
    """A matrix that has nothing to do with H, but its size."""
    p = len(H)
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((p, p)))
    return (basis * 10 ** rng.uniform(-2, 2, p) / np.diag(H).mean()) @ basis.T @ r


@pytest.mark.parametrize("p", [3, 20])
@pytest.mark.parametrize(
    ("apply", "status"),
    [
        (lambda H, r: -r, Status.PRECONDITIONER),
        (lambda H, r: 0 * r, Status.PRECONDITIONER),
        (skewed, Status.PRECONDITIONER),
        (lambda H, r: np.linalg.solve(50 * H, r), Status.REFUTED),
        (lambda H, r: (r.T / (50 * np.diag(H))).T, Status.REFUTED),
        (unrelated, Status.REFUTED),
        (hidden, Status.REFUTED),
        (functools.partial(hidden, share=1e-7), Status.REFUTED),
    ],
)
def test_no_run_converges_by_a_wrong_preconditioner(apply: Any, status: Status, p: int) -> None:
    result = bilevel.minimize(sloping(apply, p), max_iter=10)
    assert result.status is status
    assert "preconditioner" in result.message
    assert "none is stated" in result.message
    for record in (result.best, *result.history):
        assert record is not None
        bounds = record.value_error, record.hypergrad_error, record.inner_error
        assert bounds == (None, None, None)
        assert (record.at_least, record.at_most) == (-math.inf, math.inf)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("smooth", [True, False])
def test_no_bound_rests_on_what_an_outside_preconditioner_hides(seed: int, smooth: bool) -> None:
    """M⁻¹ is singular: rounding may show that first."""
    u = np.random.default_rng(seed).standard_normal(30)
    Q = np.eye(30) - np.outer(u, u) / (u @ u)
    known = quadratic(seed, p=30, m=1)
    problem = sloping(lambda H, r: Q @ np.linalg.solve(H, Q @ r), 30, known)
    stated = problem.inner.constants
    if not smooth:
        object.__setattr__(
            problem.inner, "constants", lambda lam: replace(stated(lam), smoothness=None)
        )
    result = bilevel.minimize(problem)
    best = result.best
    assert result.status in REFUTING
    assert best is not None and best.value_error is None and best.hypergrad_error is None


@pytest.mark.parametrize("factor", [1.0, 0.9, 1e-3])
def test_a_preconditioner_that_is_too_small_costs_steps_alone(factor: float) -> None:
    problem = sloping(lambda H, r: np.linalg.solve(factor * H, r), 20)
    result = bilevel.minimize(problem)
    assert result.success
    start = problem.inner.at(np.zeros(20), result.lam)
    exact = np.linalg.solve(start.hvp(np.eye(20)), -start.grad)
    assert result.fun == pytest.approx(float(problem.outer.at(exact, result.lam).value), rel=1e-5)


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
@pytest.mark.parametrize("factor", [20.0, 1e4])
def test_no_run_converges_by_a_curvature_that_is_not_there(method: str, factor: float) -> None:
    """μ, where it is many times what H has."""
    known = quadratic(1, p=20, m=3, lam=[1.5, -1.0, 0.5])

    class Inner(Quadratic):
        def constants(self, lam: Any) -> InnerConstants:
            least = np.linalg.eigvalsh(self.at(np.zeros(20), lam).hvp(np.eye(20)))[0]
            return replace(super().constants(lam), mu=factor * float(least))

    right = known.problem.inner
    parts = {part.name: getattr(right, part.name) for part in fields(Quadratic) if part.init}
    problem = replace(known.problem, inner=Inner(**parts))
    result = bilevel.minimize(problem, method=method, max_iter=10)
    assert result.status is Status.REFUTED
    assert "constants" in result.message
    assert all(record.value_error is None for record in result.history)


# -- stated numbers that can be no bound -----------------------------------------------------------

IMPOSSIBLE = [-1e-3, -1.0, math.nan]


def functions_that_state(**stated: Any) -> Problem:
    b = np.arange(1.0, 5.0)

    h = inners.from_functions(
        lambda x, lam: (0.5 * (1 + np.exp(lam[0])) * x @ x - b @ x, (1 + np.exp(lam[0])) * x - b),
        like=b,
        x_shape=(4,),
        n_hyperparameters=1,
        hvp=lambda x, lam, v: (1 + np.exp(lam[0])) * v,
        cross_jvp=lambda x, lam, d: np.exp(lam[0]) * d[0] * x,
        cross_vjp=lambda x, lam, q: np.exp(lam) * (x @ q),
        cross_norm=lambda x, lam: stated.get("cross_norm", np.exp(lam[0]) * np.linalg.norm(x)),
        rounding=lambda x, lam, v: (
            stated.get("inner", 1e-12 * (1 + np.exp(lam[0])) * (8 + np.linalg.norm(x))),
            1e-12 * (1 + np.exp(lam[0])) * np.linalg.norm(v),
            1e-12 * np.exp(lam[0]) * np.linalg.norm(x) * np.linalg.norm(v),
        ),
    )
    g = outers.from_functions(
        lambda x, lam: (0.5 * np.sum((x - 0.1 * b) ** 2), x - 0.1 * b),
        like=b,
        grad_lam=lambda x, lam: 0 * lam,
        rounding=lambda x, lam: (stated.get("outer", 1e-12 * (1 + np.sum(x * x))),) * 3,
    )
    return Problem(h, g)


@pytest.mark.parametrize("number", IMPOSSIBLE)
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cross_norm", "inner.cross_norm"),
        ("inner", "inner.rounding"),
        ("outer", "outer.rounding"),
    ],
)
def test_no_function_states_a_number_that_bounds_nothing(name: str, what: str, number: float):
    """A run takes such a one for infinite, and so did the check: nothing was wrong."""
    assert check_problem(functions_that_state(**{name: math.inf})).ok  # nothing is known
    report = check_problem(functions_that_state(**{name: number}))
    assert [finding.what for finding in report.findings] == [what]
    assert "expected a number of at least 0" in report.findings[0].message


def test_functions_that_state_right_numbers_are_right():
    assert check_problem(functions_that_state()).ok


class Squares(losses.Pointwise):
    """½ (t - y)², by a class from outside."""

    curvature_bound = curvature_lower = 1.0
    third_bound = self_concordance = 0.0
    lowest = 0.0

    def least(self, y: Any, backend: Any) -> Any:
        return 0 * y + self.lowest

    def value(self, y: Any, t: Any, backend: Any) -> Any:
        return (t - y) ** 2 / 2

    def derivative(self, y: Any, t: Any, backend: Any) -> Any:
        return t - y

    def curvature(self, y: Any, t: Any, backend: Any) -> Any:
        return 1 + 0 * t


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, number) for name in ("curvature_lower", "third_bound") for number in IMPOSSIBLE),
        *(("self_concordance", number) for number in IMPOSSIBLE),
        ("lowest", math.nan),
    ],
)
def test_no_loss_states_a_number_that_bounds_nothing(name: str, number: float) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)

    def report(**stated: float) -> Any:
        loss = type("Stating", (Squares,), stated)()
        h = inners.linear_model(X, y, loss)
        return check_problem(Problem(h, outers.held_out(X, y, losses.Squared())))

    assert report().ok
    what = "inner.loss." + {"lowest": "least"}.get(name, name)
    assert what in [finding.what for finding in report(**{name: number}).findings]
