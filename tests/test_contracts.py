"""Parts from outside: what they lack is said in a sentence, and nothing is claimed of them."""

from __future__ import annotations

import functools
import math
from dataclasses import InitVar, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import optimize
from scipy.sparse.linalg import aslinearoperator

import bilevel
from bilevel import hypergrad, inner, outer, solvers
from bilevel.backends import ArrayAPIBackend
from bilevel.design import MixedPrecision, Passes, recounted
from bilevel.fingerprint import fingerprint, unknown
from bilevel.losses import Pointwise, Squared
from bilevel.methods import HOAG, MAID, AdaptiveStep, StepState
from bilevel.testing.check.designs import _Asked
from bilevel.testing.check.domains import domain as check_domain
from bilevel.testing.check.report import Book

RNG = np.random.default_rng(2)
X, X_VAL = RNG.standard_normal((30, 3)), RNG.standard_normal((20, 3))
Y, Y_VAL = (A @ [1.0, -1.0, 0.5] + 0.5 * RNG.standard_normal(len(A)) for A in (X, X_VAL))


def problem(h: Any = None, g: Any = None) -> bilevel.Problem:
    h = inner.linear_model(X, Y, Squared()) if h is None else h
    return bilevel.Problem(h, outer.held_out(X_VAL, Y_VAL, Squared()) if g is None else g)


class Bare:
    value = grad = hvp = cross_vjp = cross_jvp = None

    def __init__(self, *arguments):
        pass


class Penalty:
    n_hyperparameters = 1

    def at(self, x, lam, backend):
        return Bare()

    def constants(self, lam, backend):
        return inner.InnerConstants()


class Criterion:
    passes, at = 0, Bare

    def constants(self):
        return outer.OuterConstants()


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_bare_term_of_a_penalty_is_refused_at_the_start(fit_intercept):
    options = {"fit_intercept": fit_intercept}
    h = inner.linear_model(X, Y, Squared(), penalty=Penalty(), **options)
    g = outer.held_out(X_VAL, Y_VAL, Squared(), **options)
    with pytest.raises(TypeError, match=r"with cross_norm, diag, moved, .*inner\.PenaltyTerm"):
        bilevel.minimize(bilevel.Problem(h, g))


def test_a_bare_point_of_a_criterion_is_refused_at_the_start():
    with pytest.raises(TypeError, match=r"problem\.outer\.at must .* with grad_x, grad_lam, got"):
        bilevel.minimize(problem(g=Criterion()))


def test_what_a_method_needs_is_asked_for_at_the_start():
    class Stochastic(bilevel.methods.HOAG):
        needs = ("inner.rows", "outer.rows")

    bilevel.minimize(problem(), method=Stochastic(), max_iter=1)
    g = outer.from_functions(lambda x, lam: (x @ x / 2, x), like=X)
    for run in (bilevel.minimize, lambda *a, **b: next(bilevel.iterate(*a, **b))):
        with pytest.raises(TypeError, match=r"Stochastic needs problem\.outer\.rows, which a Fun"):
            run(problem(g=g), method=Stochastic())


class Bounded(Pointwise):
    """Three functions alone."""

    value = staticmethod(lambda y, t, backend: (t - y) ** 2 / 2)
    derivative = staticmethod(lambda y, t, backend: t - y)
    curvature = staticmethod(lambda y, t, backend: 0 * t + 1)


def test_a_loss_of_three_functions_is_whole():
    h = inner.linear_model(X, Y, Bounded())
    found = bilevel.minimize(problem(h, outer.held_out(X_VAL, Y_VAL, Bounded())))
    assert found.fun == pytest.approx(bilevel.minimize(problem()).fun, rel=1e-4)
    assert found.best.hypergrad_error is None


def test_a_loss_without_bounds_is_no_loss():
    class Half:
        output_shape = ()
        encode = value = derivative = curvature = curvature_product = print

    with pytest.raises(TypeError, match="without curvature_diag, least, curvature_bound"):
        inner.linear_model(X, Y, Half())


class Products:
    """X by products alone."""

    matmul, rmatmul = X.__matmul__, X.T.__matmul__


@pytest.mark.parametrize("half", [Products(), aslinearoperator(X)], ids=["own", "scipy"])
def test_half_a_design_is_told_what_it_lacks(half):
    with pytest.raises(
        TypeError, match=r"X must be a design, got .* without backend, passes.* rows"
    ):
        bilevel.as_design(half)


class Proxy:
    """A design around one of ours, of another precision; a plain class."""

    def __init__(self, base, dtype=np.float64):
        self.base, self.passes, self.kind = base, Passes(), dtype

    def __getattr__(self, name):
        return getattr(self.base, name)

    def matmul(self, v):
        self.passes.count_forward(v)
        return (self.base.array.astype(self.kind) @ v.astype(self.kind)).astype(np.float64)

    def rmatmul(self, r):
        self.passes.count_backward(r)
        return (self.base.array.T.astype(self.kind) @ r.astype(self.kind)).astype(np.float64)


class Silent(Proxy):
    """It does not say how it sums."""

    def __getattr__(self, name):
        if name == "longest_row":
            raise AttributeError(name)
        return super().__getattr__(name)


def test_a_proxy_is_counted_apart():
    own = Proxy(bilevel.as_design(X))
    view = recounted(own)
    view.matmul(np.ones(3))
    assert (own.passes.total, view.passes.total) == (0, 1)


def test_nothing_is_proven_of_products_that_may_be_anything():
    """Half precision behind a design of double: what is true of sums in double is wrong of it."""
    x, lam = np.array([1.0, 2.0, -1.0]), np.zeros(1)
    exact = X.T @ (X @ x - Y) + x

    def at(kind, dtype):
        h = inner.linear_model(kind(bilevel.as_design(X), dtype), Y, Squared())
        return h, h.at(x, lam), np.linalg.norm(h.at(x, lam).grad - exact)

    for dtype, holds in ((np.float64, True), (np.float16, False)):
        h, point, error = at(Proxy, dtype)
        (lost,) = h.backend.scalars(point.rounding(x[:, None]).grad)
        assert (error <= lost) == holds
    h, point, _ = at(Silent, np.float16)
    assert point.rounding(x[:, None]) is None
    best = bilevel.minimize(problem(h)).best
    assert (best.value_error, best.hypergrad_error, best.inner_error) == (None,) * 3
    g = outer.held_out(Silent(bilevel.as_design(X_VAL)), Y_VAL, Squared())
    assert bilevel.minimize(problem(g=g)).best.value_error is None


@dataclass
class Counter:
    """A number, and no Passes."""

    total: int = 0


@dataclass(frozen=True)
class Quadratic:
    """½ ‖x - y‖² + ½ e^λ ‖x‖², which counts its gradients itself."""

    counter: Counter = field(default_factory=Counter, compare=False)
    backend, dtype = bilevel.get_backend("numpy"), np.dtype(float)
    x_shape, n_hyperparameters = (20,), 1
    passes = column_passes = property(lambda self: self.counter.total)

    def at(self, x, lam, carry=None):
        return QuadraticPoint(self, x, lam)

    def constants(self, lam):
        return inner.InnerConstants(mu=1.0)


class QuadraticPoint(inner.Point):
    w = property(lambda self: np.exp(self.lam[0]))
    value = property(
        lambda self: ((self.x - Y_VAL) @ (self.x - Y_VAL) + self.w * self.x @ self.x) / 2
    )

    @functools.cached_property  # holds a lock until Python 3.12
    def grad(self):
        self.inner.counter.total += 1
        return self.x - Y_VAL + self.w * self.x

    def hvp(self, v):
        return (1 + self.w) * v

    def cross_vjp(self, q):
        return np.tensordot(self.w * self.x, q, axes=1)[None, ...]

    def cross_jvp(self, d):
        return d[0] * self.w * self.x


def test_a_number_that_counts_all_runs_is_read_for_each():
    g = outer.from_functions(lambda x, lam: (x @ x / 2 - x.sum(), x - 1), like=X)
    one = problem(Quadratic(), g)
    first, second = bilevel.minimize(one), bilevel.minimize(one)
    assert (second.passes, second.column_passes) == (first.passes, first.column_passes) != (0, 0)
    assert bilevel.minimize(one, max_passes=first.passes + 1).nit == first.nit
    several = bilevel.multistart(one, 2)
    assert several.passes == sum(result.passes for result in several.results)
    assert next(bilevel.iterate(one)).passes <= first.passes


def test_a_cached_property_hides_nothing():
    assert not unknown(fingerprint(Quadratic(), "h"))


def test_a_share_that_is_resumed_adds_up_to_a_number():
    costs = bilevel.Costs()
    for _ in range(30):
        costs = costs + bilevel.Costs(0.4, 0.1, 0.7)
    assert (costs.passes, costs.column_passes, costs.outer_passes) == (12, 3, 21)


def test_a_backend_may_have_any_name():
    class Named(ArrayAPIBackend):
        name, module, install = "no module of this name", "array_api_compat.numpy", ""

    assert Named().describe().startswith("no module of this name ")


# -- what a step returns ---------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    lam: Any
    x: Any
    record: Any = None
    status: Any = bilevel.Status.RUNNING


class Steps:
    """A method whose steps say what a test wants them to say."""

    def __init__(self, state=None, **record):
        self.state, self.record = state or {}, record

    def init(self, problem, lam0, x0, tol):
        return State(lam0, problem.x(x0))

    def step(self, problem, state):
        said = {"lam": state.lam, "value": 1.0, "hypergrad": state.lam} | self.record
        held = {"lam": state.lam, "x": state.x} | self.state
        return State(**held, record=bilevel.Record(**said))


def test_a_slim_record_is_enough():
    result = bilevel.minimize(problem(), 1.0, method=Steps(), max_iter=3)
    assert [record.k for record in result.history] == [1, 2, 3]
    assert result.history[0].step == 0.0
    assert result.history[0].optimality == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Steps(lam=None), "a Record with lam, value and hypergrad"),
        (Steps(lam=[1.0]), "record.lam of the state .* must be an array"),
        (Steps(lam=np.array([90.0])), "record.lam must lie in the domain"),
        (Steps(lam=np.ones(1, dtype=np.float32)), "record.lam .*float64, got .*float32"),
        (Steps(hypergrad=np.ones(2)), r"record.hypergrad .* shape \(1,\)"),
        (Steps(hypergrad=1.0), "record.hypergrad .* must be an array"),
        (Steps(value_error=-5.0), "record.value_error is a bound"),
        (Steps({"x": None}), "the x of the state"),
        (Steps({"lam": np.ones(3)}), "the lam of the state"),
        (Steps({"status": "converged"}), "status of a state must be a Status"),
    ],
)
def test_a_step_of_wrong_content_is_refused(method, says):
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(), 1.0, method=method, max_iter=3)


def test_a_step_without_a_state_is_refused():
    class Nothing(Steps):
        def step(self, problem, state):
            return None

    with pytest.raises(TypeError, match="the state that method.step returns must be a Record"):
        bilevel.minimize(problem(), 1.0, method=Nothing())


@pytest.mark.parametrize("needs", ["inner.rows", ("foo.rows",), None, ("inner.rows", 3), 3])
def test_needs_are_a_tuple_of_names(needs):
    method = Steps()
    method.needs = needs
    with pytest.raises(TypeError, match="needs must be a tuple of names"):
        bilevel.minimize(problem(), 1.0, method=method)


class Counting(Steps):
    """A method that keeps in itself what belongs into its state."""

    def step(self, problem, state):
        self.count = getattr(self, "count", 0) + 1
        return super().step(problem, state)


def test_a_method_that_changes_itself_is_no_method_to_resume(tmp_path):
    options = {"max_iter": 3, "checkpoint": tmp_path / "run.npz"}
    with pytest.warns(RuntimeWarning, match="The method changes itself"):
        result = bilevel.minimize(problem(), 1.0, method=Counting(), **options)
    assert "a resumed run differs" in result.message
    result = bilevel.minimize(problem(), 1.0, method=Steps(), **options)
    assert "changes itself" not in result.message


def test_few_of_the_records_make_no_certificate():
    result = bilevel.minimize(problem(), every=3)
    assert [r.k for r in result.history] == sorted({*range(1, result.nit + 1, 3), result.nit})
    with pytest.raises(ValueError, match="each 3-th record only"):
        bilevel.certify(result, problem())


class Rows(Steps):
    needs = ("inner.rows",)

    def step(self, problem, state):
        _ = problem.inner.rows(np.arange(3)).at(state.x, state.lam).grad
        return super().step(problem, state)


def test_shares_of_several_searches_are_counted_once_each():
    found = bilevel.multistart(problem(), [0.0, 1.0], method=Rows(), max_iter=10)
    alone = bilevel.minimize(problem(), 0.0, method=Rows(), max_iter=10)
    assert alone.passes == 2.0  # two products of a tenth of the rows, ten times
    assert [result.passes for result in found.results] == [2.0, 2.0]
    assert found.passes == 4.0
    ended = bilevel.multistart(problem(), [0.0, 1.0], method=Rows(), max_total_passes=1)
    assert ended.passes <= 1
    assert {result.status for result in ended.results} == {bilevel.Status.MAX_PASSES}


# -- what members answer ---------------------------------------------------------------------------


class Each(inner.PenaltyTerm):
    """½ Σ_j e^{λ_j} x_j²."""

    grad = property(lambda self: np.exp(self.lam) * self.x)
    value = property(lambda self: np.sum(self.grad * self.x) / 2)

    def hvp(self, v):
        return self.beside(np.exp(self.lam), v) * v

    def cross_vjp(self, q):
        return self.beside(self.grad, q) * q

    def cross_jvp(self, d):
        return self.grad * d

    def beside(self, a, v):
        return a[(...,) + (None,) * (v.ndim - 1)]


def each(**members):
    """A penalty whose terms have some members that are not those above."""
    made = type("Term", (Each,), members)

    class Ridges(Penalty):
        n_hyperparameters = 3

        def at(self, x, lam, backend):
            return made(self, x, lam, backend)

    return Ridges()


def penalised(penalty, **options):
    h = inner.linear_model(X, Y, Squared(), penalty=penalty, **options)
    return bilevel.Problem(h, outer.held_out(X_VAL, Y_VAL, Squared(), **options))


def test_a_penalty_that_answers_rightly_runs_as_ours():
    ours = inner.linear_model(X, Y, Squared(), groups=np.arange(3))
    found, right = bilevel.minimize(penalised(each())), bilevel.minimize(problem(ours))
    assert found.fun == pytest.approx(right.fun, rel=1e-4)


#: A member of the term, and what is said of it.
WRONG = [
    (
        {"cross_vjp": lambda self, q: Each.cross_vjp(self, q)[:1]},
        r"cross_vjp\(q\) .*\(3,\).*\(1,\)",
    ),
    (
        {"cross_vjp": lambda self, q: np.sum(q)},
        r"cross_vjp\(q\) must be of shape \(3,\).* got \(\)",
    ),
    ({"cross_jvp": lambda self, d: np.sum(d)}, r"cross_jvp\(d\) .*\(3,\).* got \(\)"),
    ({"value": property(lambda self: 0.5)}, r"value must be an array of shape \(\), got 0\.5"),
    ({"value": lambda self: 0.5}, "value must be an array .* make it a property"),
    ({"value": property(lambda self: np.ones(1))}, r"value must be of shape \(\).* got \(1,\)"),
    ({"grad": property(lambda self: [1.0, 2.0, 3.0])}, r"grad must be an array of shape \(3,\)"),
    ({"grad": property(lambda self: self.x[:, None])}, r"grad .*\(3,\).*\(3, 1\)"),
    ({"grad": property(lambda self: self.x.astype("float32"))}, "grad .*float64.*float32"),
    ({"hvp": lambda self, v: v if v.ndim == 1 else v[:, 0]}, r"hvp\(V\) .*\(3, 2\).* got \(3,\)"),
    ({"diag": lambda self: np.ones(2)}, r"diag\(\) must be of shape \(3,\).* got \(2,\)"),
    ({"cross_norm": property(lambda self: np.ones(3))}, r"cross_norm must be of shape \(\)"),
    ({"rounding": lambda self, *_: (0.0, 0.0, 0.0)}, r"rounding\(V\) must be a Rounding or None"),
    ({"rounding": lambda self, *_: inner.Rounding(0.0, np.ones(1), 0.0)}, r"products .*\(2,\)"),
]


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(("members", "says"), WRONG)
def test_a_term_of_other_shapes_is_refused_at_the_start(members, says, fit_intercept):
    one = penalised(each(**members), fit_intercept=fit_intercept)
    for method in ("path", "hoag"):
        with pytest.raises((TypeError, ValueError), match=r"problem\.inner\.penalty\.at.*" + says):
            bilevel.minimize(one, method=method)
    with pytest.raises((TypeError, ValueError), match=r"inner\.parts\[0\]\.penalty\.at.*" + says):
        bilevel.minimize(bilevel.problems.stacked([one, penalised(each())]))


class Bowl(inner.Point):
    """½ ‖x - 1‖² + ½ e^λ ‖x‖²."""

    w = property(lambda self: np.exp(self.lam[0]))
    value = property(lambda self: (np.sum((self.x - 1) ** 2) + self.w * np.sum(self.x**2)) / 2)
    grad = property(lambda self: self.x - 1 + self.w * self.x)

    def hvp(self, v):
        return (1 + self.w) * v

    def cross_vjp(self, q):
        return self.w * (self.x[None, :] @ q)

    def cross_jvp(self, d):
        return d[0] * self.w * self.x


class Bowls:
    """A model of two numbers, with members of the point, and its own, that are handed over."""

    backend, dtype = bilevel.get_backend("numpy"), np.dtype(float)
    x_shape, n_hyperparameters, passes, column_passes = (2,), 1, 0, 0

    def __init__(self, members=None, **own):
        self.point = type("BowlPoint", (Bowl,), members or {})
        vars(self).update(own)

    def at(self, x, lam, carry=None):
        return self.point(self, x, lam)

    def constants(self, lam):
        return inner.InnerConstants(mu=1.0)


def near(members=None, **own):
    """A criterion by a class: ½ ‖x - ½‖²."""

    class Near:
        def __init__(self, x, lam):
            self.x, self.lam = x, lam

        value = property(lambda self: np.sum((self.x - 0.5) ** 2) / 2)
        grad_x = property(lambda self: self.x - 0.5)
        grad_lam = property(lambda self: 0 * self.lam)

    class Distance:
        passes = 0
        at = staticmethod(type("Point", (Near,), members or {}))

        def constants(self):
            return outer.OuterConstants()

    found = Distance()
    vars(found).update(own)
    return found


def test_a_model_that_answers_rightly_runs():
    found = bilevel.minimize(bilevel.Problem(Bowls(), near()), method="hoag", tol=1e-9)
    assert found.lam == pytest.approx([0.0], abs=1e-6)  # x = 1 / (1 + e^λ) = ½


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            Bowls({"cross_vjp": lambda self, q: np.sum(q)}),
            r"\.at\(x, lam\)\.cross_vjp\(q\) .*\(1,\)",
        ),
        (Bowls({"ray": lambda self, d: 3}), r"ray\(d\) must be a half-line"),
        (
            Bowls({"preconditioner": lambda self: lambda r: r[:1]}),
            r"preconditioner\(\)\(r\) .*\(2,\)",
        ),
        (Bowls({"preconditioner": lambda self: 3}), r"preconditioner\(\) must be callable"),
        (
            Bowls({"preconditioner": lambda self: lambda r: r if r.ndim == 1 else r[:, :1]}),
            r"preconditioner\(\)\(R\) .*\(2, 3\)",
        ),
        (
            Bowls({"preconditioner": lambda self: lambda r: r / np.ones(2)}),
            "could not be broadcast",
        ),
        (
            Bowls({"rounding": lambda self, vectors: None}),
            r"rounding must take \(vectors, pushed=None, scale=None\), got rounding\(vectors\)",
        ),
        (
            Bowls({"rounding": lambda self, vectors, pushed: None}),
            r"rounding must take .*, got rounding\(vectors, pushed\)",
        ),
        (
            Bowls(
                {
                    "rounding": lambda self, vectors, pushed=None, scale=None: (
                        None if scale is None else 3
                    )
                }
            ),
            r"rounding\(V, None, scale\) must be a Rounding or None, got 3",
        ),
        (Bowls(passes=print), "inner.passes must be a number"),
        (Bowls(entries=None), "inner.entries must be a number, got None"),
        (Bowls(unit="calls"), "inner.unit must be 'passes' or 'evaluations'"),
        (Bowls(remark=3), "inner.remark must be callable"),
        (Bowls(remark=lambda lam: True), r"remark\(lam\) must be a sentence or None, got True"),
        (Bowls(constants=lambda lam: None), "constants must return InnerConstants"),
    ],
)
def test_a_model_of_other_answers_is_refused_at_the_start(model, says):
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(bilevel.Problem(model, near()), method="hoag")


@pytest.mark.parametrize("m", [0, 2.0, True])
def test_the_number_of_hyperparameters_is_one(m):
    with pytest.raises((TypeError, ValueError), match="inner.n_hyperparameters must be"):
        bilevel.Problem(Bowls(n_hyperparameters=m), near())
    penalty = each()
    penalty.n_hyperparameters = m
    with pytest.raises((TypeError, ValueError), match="penalty.n_hyperparameters must be"):
        penalised(penalty)


def test_a_penalty_without_constants_is_refused():
    penalty = each()
    penalty.constants = lambda lam, backend: None
    with pytest.raises(TypeError, match="penalty.constants must return InnerConstants, got None"):
        bilevel.minimize(penalised(penalty))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"grad_x": property(lambda self: self.x[:1])}, r"outer\.at\(x, lam\)\.grad_x .*\(2,\)"),
        ({"grad_lam": property(lambda self: np.asarray(0.5))}, r"grad_lam .*\(1,\).* got \(\)"),
        ({"grad_lam": 0.0}, "grad_lam must be an array"),
        ({"value": 1.0}, "value must be an array"),
        ({"hvp": lambda self, v: v[:, 0], "top": lambda self: self.x[0]}, r"hvp\(V\) .*\(2, 2\)"),
        ({"rounding": lambda self, scale=None: 3}, "must be a OuterRounding or None, got 3"),
        ({"rounding": lambda self: None}, r"must take \(scale=None\), got rounding\(\)"),
        (
            {"rounding": lambda self, scale=None: None if scale is None else 3},
            r"rounding\(scale\) must be a OuterRounding or None, got 3",
        ),
    ],
)
def test_a_criterion_of_other_answers_is_refused_at_the_start(members, says):
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(bilevel.Problem(Bowls(), near(members)), method="hoag")
    with pytest.raises(TypeError, match="outer.passes must be a number"):
        bilevel.minimize(bilevel.Problem(Bowls(), near(passes=print)))


def test_what_a_member_raises_says_where_it_was_asked():
    def grad_x(self):
        return X_VAL.T @ (X_VAL @ self.x)  # of three numbers, where x has two

    with pytest.raises(ValueError, match="matmul") as caught:
        bilevel.minimize(bilevel.Problem(Bowls(), near({"grad_x": property(grad_x)})))
    assert "problem.outer.at(x, lam).grad_x was asked" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"curvature_bound": "1"}, "curvature_bound must be a number, got '1'"),
        (
            {"value": lambda self, y, t, backend: np.sum(t - y)},
            r"value\(y, t\) .*\(30,\).* got \(\)",
        ),
        (
            {"derivative": lambda self, y, t, backend: np.ones(1)},
            r"derivative.*\(30,\).* got \(1,\)",
        ),
        ({"curvature": lambda self, y, t, backend: np.ones(2)}, r"curvature\(y, t\) .* got \(2,\)"),
        ({"curvature": lambda self, y, t, backend: np.ones(1)}, r"curvature\(y, t\) .* got \(1,\)"),
        ({"curvature": lambda self, y, t, backend: None}, r"curvature\(y, t\) .*\(30,\), got None"),
        ({"curvature": lambda self, y, t, backend: 1.0}, r"curvature\(y, t\) .*\(30,\), got 1\.0"),
    ],
)
def test_a_loss_of_other_answers_is_refused_at_the_start(members, says):
    loss = type("Loss", (Bounded,), members)()
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(inner.linear_model(X, Y, loss)))


@pytest.mark.parametrize("where", ["inner", "outer"])
def test_the_losses_of_networks_and_of_held_out_rows_are_asked(where):
    short = type("Short", (Bounded,), {"derivative": lambda self, y, t, backend: np.ones(1)})()
    loss = {"inner": Bounded(), "outer": Bounded()} | {where: short}
    h = inner.mlp(X, Y, loss["inner"], [2])
    network = bilevel.Problem(h, outer.held_out_mlp(h, X_VAL, Y_VAL, loss["outer"]))
    linear = inner.linear_model(X, Y, loss["inner"])
    several = problem(linear, outer.held_out(X_VAL, Y_VAL, loss["outer"]))
    for one in (network, several):
        with pytest.raises(
            ValueError, match=rf"problem\.{where}\.loss\.derivative\(y, t\) must be"
        ):
            bilevel.minimize(one)
    h = inner.mlp(X, Y, Bounded(), [2])
    network = bilevel.Problem(h, outer.held_out_mlp(h, X_VAL, Y_VAL, Bounded()))
    assert bilevel.minimize(network, method=Steps(), max_iter=1).nit == 1


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("wrong", [lambda a: a[:1], lambda a: a + 0j, lambda a: a[..., None]])
def test_an_error_of_a_later_answer_names_the_parts_that_are_not_ours(method, wrong):
    calls = []

    def grad_x(self):
        calls.append(None)
        return self.x - 0.5 if len(calls) < 4 else wrong(self.x - 0.5)

    pair = bilevel.Problem(Bowls(), near({"grad_x": property(grad_x)}))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is NumPy's, as it comes
        bilevel.minimize(pair, 1.0, method=method, tol=0.0)
    (note,) = caught.value.__notes__
    assert "problem.inner (a Bowls), problem.outer (a Distance)" in note
    assert "method" not in note


def test_an_error_of_parts_that_are_ours_names_none():
    method = Steps()
    method.step = lambda problem, state: 1 // 0
    with pytest.raises(ZeroDivisionError) as caught:
        bilevel.minimize(problem(inner.linear_model(X, Y, Squared())), method=method)
    (note,) = caught.value.__notes__
    assert "not of bilevel: method (a Steps). " in note


def test_asking_costs_a_run_nothing_and_a_second_run_is_not_asked():
    class Counted(Proxy):
        made = 0

        def matmul(self, v):
            type(self).made += 1
            return super().matmul(v)

    # A penalty is asked without the data, of which the design is asked for two products.
    one = problem(inner.linear_model(Counted(bilevel.as_design(X)), Y, Squared(), penalty=each()))
    assert bilevel.minimize(one, max_iter=1, method=Steps(), lam0=1.0).passes == 0
    assert Counted.made == 2
    seen = []
    model = Bowls({"hvp": lambda self, v: seen.append(v) or Bowl.hvp(self, v)})
    pair = bilevel.Problem(model, near())
    for _ in range(2):
        bilevel.minimize(pair, 1.0, method=Steps(), max_iter=2)
    assert len(seen) == 4  # one direction and a block, at two places


# -- arrays that have to stay as they are ----------------------------------------------------------


def reused(ask):
    """The same member, whose answers are all in one buffer."""
    buffers = {}

    def member(self, *arguments):
        found = ask(self, *arguments)
        buffer = buffers.setdefault(np.shape(found), np.zeros(np.shape(found)))
        buffer[...] = found
        return buffer

    return member


def own(ask):
    """The same member, whose answers are arrays of their own."""
    return lambda self, *arguments: np.array(ask(self, *arguments))


def bowls(name, ask):
    is_property = name in ("value", "grad")
    return bilevel.Problem(Bowls({name: property(ask) if is_property else ask}), near())


def asked_of(cls, name):
    found = vars(cls)[name]
    return getattr(found, "fget", None) or getattr(found, "__func__", found)


@pytest.mark.parametrize("name", ["value", "grad", "hvp", "cross_vjp", "cross_jvp"])
def test_one_buffer_for_all_answers_is_refused_at_the_start(name):
    """Tangents of the default method were all the last one: CONVERGED, well above the minimum."""
    right = asked_of(Bowl, name)
    says = rf"inner\.at\(x, lam\)\.{name}.* must return an array of its own"
    for method in ("path", "hoag"):
        with pytest.raises(ValueError, match=says):
            bilevel.minimize(bowls(name, reused(right)), method=method)
        assert bilevel.minimize(bowls(name, own(right)), method=method).success
    term = asked_of(Each, name)
    members = {name: property(reused(term)) if name in ("value", "grad") else reused(term)}
    with pytest.raises(ValueError, match=rf"penalty\.at.*{name}.* an array of its own"):
        bilevel.minimize(penalised(each(**members)))


def test_one_buffer_that_two_members_share_is_refused():
    scratch = np.zeros(2)

    def into(ask):
        def member(self, v):
            if v.ndim > 1:
                return ask(self, v)
            scratch[...] = ask(self, v)
            return scratch

        return member

    shared = {"hvp": into(Bowl.hvp), "cross_jvp": lambda self, d: into_of_cross(self, d)}
    into_of_cross = into(Bowl.cross_jvp)
    with pytest.raises(ValueError, match=r"hvp\(v\) must return an array of its own"):
        bilevel.minimize(bilevel.Problem(Bowls(shared), near()))


def test_a_criterion_of_one_buffer_is_refused():
    right = lambda self: self.x - 0.5
    for grad_x, good in ((reused(right), False), (own(right), True)):
        pair = bilevel.Problem(Bowls(), near({"grad_x": property(grad_x)}))
        if good:
            assert bilevel.minimize(pair, method="hoag").success
            continue
        with pytest.raises(ValueError, match=r"outer\.at\(x, lam\)\.grad_x must return an array"):
            bilevel.minimize(pair, method="hoag")


def test_the_two_weights_of_a_model_with_one_buffer_are_not_taken_for_one():
    """The problem of which 11% were lost, and by an array of its own the minimum that SciPy finds."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal(7) * 2
    z, buffer = 0.4 * y + 0.3, np.zeros(7)

    def grad(self):
        a, b = np.exp(self.lam)
        return (self.x - y) / np.sqrt(1 + (self.x - y) ** 2) + a * self.x + b * (self.x - 1)

    def value(self):
        a, b = np.exp(self.lam)
        smooth = np.sum(np.sqrt(1 + (self.x - y) ** 2))
        return smooth + a / 2 * self.x @ self.x + b / 2 * (self.x - 1) @ (self.x - 1)

    def hvp(self, v):
        d = (1 + (self.x - y) ** 2) ** -1.5 + np.exp(self.lam).sum()
        return (d if v.ndim == 1 else d[:, None]) * v

    def parts(self):
        a, b = np.exp(self.lam)
        return np.stack([a * self.x, b * (self.x - 1)])

    def filled(self, d):
        buffer[...] = d @ parts(self)
        return buffer

    members = {"value": property(value), "grad": property(grad), "hvp": hvp}
    members["cross_vjp"] = lambda self, q: parts(self) @ q

    def pair(cross_jvp):
        h = Bowls(members | {"cross_jvp": cross_jvp}, x_shape=(7,), n_hyperparameters=2)
        h.constants = lambda lam: inner.InnerConstants(mu=float(np.exp(lam).sum()))
        g = outer.from_functions(
            lambda x, lam: (0.5 * np.sum((x - z) ** 2) + 0.05 * lam @ lam, x - z),
            like=y,
            grad_lam=lambda x, lam: 0.1 * lam,
        )
        return bilevel.Problem(h, g)

    with pytest.raises(ValueError, match=r"cross_jvp\(d\) must return an array of its own"):
        bilevel.minimize(pair(filled), 0.2)
    found = bilevel.minimize(pair(lambda self, d: d @ parts(self)), 0.2)

    def f(lam):
        fit = optimize.root(lambda x: grad(SimpleNamespace(x=x, lam=lam)), np.zeros(7), tol=1e-12)
        return 0.5 * np.sum((fit.x - z) ** 2) + 0.05 * lam @ lam

    best = optimize.minimize(f, np.full(2, 0.2), method="Nelder-Mead", options={"xatol": 1e-8})
    assert found.success
    assert found.fun == pytest.approx(best.fun, rel=1e-4)


@pytest.mark.parametrize("name", ["grad", "hvp", "cross_vjp", "cross_jvp"])
def test_a_masked_answer_is_refused_at_the_start(name):
    right = asked_of(Bowl, name)
    masked = lambda self, *arguments: np.ma.masked_array(right(self, *arguments))
    says = rf"inner\.at\(x, lam\)\.{name}.* must be a plain array, got a MaskedArray"
    with pytest.raises(TypeError, match=says):
        bilevel.minimize(bowls(name, masked), method="hoag")
    assert bilevel.minimize(bowls(name, own(right)), method="hoag").success


@pytest.mark.parametrize("name", ["value", "hvp", "cross_jvp"])
def test_an_iterator_that_runs_out_at_the_start_is_said_to(name):
    out = lambda self, *arguments: next(iter(()))
    for run in (bilevel.minimize, lambda *a, **b: next(bilevel.iterate(*a, **b))):
        with pytest.raises(RuntimeError, match=rf"lam\)\.{name}.* raised StopIteration: an iter"):
            run(bowls(name, out))
    model = Bowls(constants=lambda lam: next(iter(())))
    with pytest.raises(RuntimeError, match=r"constants\(lam\) raised StopIteration"):
        bilevel.minimize(bilevel.Problem(model, near()))


def zeroed(y):
    y[...] = 0


def shrunk(y):
    y *= 0.9


def centred(y):
    y -= y.mean()


def cut(t):
    np.maximum(t, 0, out=t)


#: A member of a loss, which of its arguments it writes into and how, and what that is called.
TOUCHING = [
    ("derivative", 0, zeroed, "y"),
    ("derivative", 0, shrunk, "y"),
    ("value", 0, centred, "y"),
    ("curvature", 0, shrunk, "y"),
    ("value", 1, cut, "t"),
    ("derivative", 1, shrunk, "t"),
    ("curvature_product", 1, shrunk, "d"),
    ("least", 0, shrunk, "y"),
]


def touched(name, which, write):
    """A loss that writes into what it is given, and then answers."""

    def member(self, *arguments):
        write(arguments[which])
        return (
            asked_of(Bounded, name)(*arguments)
            if name in vars(Bounded)
            else (getattr(Pointwise, name)(self, *arguments))
        )

    return type("Touching", (Bounded,), {name: member})()


@pytest.mark.parametrize(("name", "which", "write", "called"), TOUCHING)
def test_a_loss_that_writes_into_what_it_is_given_is_refused_and_found(name, which, write, called):
    """Labels that were 0 were fitted by 0: CONVERGED, and the labels of the caller were lost."""
    loss, y, y_val = touched(name, which, write), Y.copy() + 1, Y_VAL.copy() + 1
    says = rf"{name}\(.*\) must not write into {called}, which it is given to read"
    h, g = inner.linear_model(X, y, Bounded()), outer.held_out(X_VAL, y_val, loss)
    for one, side in (
        (problem(inner.linear_model(X, y, loss)), "inner"),
        (problem(h, g), "outer"),
    ):
        with pytest.raises(ValueError, match=rf"problem\.{side}\.loss\.{says}"):
            bilevel.minimize(one)
        report = bilevel.testing.check_problem(one)
        assert [f.what.partition("(")[0] for f in report.findings] == [f"{side}.loss.{name}"]
        assert f"must not write into {called}" in report.findings[0].message
    assert np.all(y == Y + 1)
    assert np.all(y_val == Y_VAL + 1)
    stack = bilevel.problems.stacked([problem(h, g), problem(h, g)])
    with pytest.raises(ValueError, match=rf"problem\.outer\.parts\[0\]\.loss\.{says}"):
        bilevel.minimize(stack)


@pytest.mark.parametrize("name", ["value", "derivative", "curvature"])
def test_a_loss_of_one_buffer_is_refused_and_found(name):
    answers = {"value": lambda r: r * r / 2, "derivative": lambda r: r, "curvature": np.cosh}
    refilled = reused(lambda self, y, t, backend: answers[name](t - y))
    wrong = type("Reusing", (Bounded,), {name: refilled})()
    one = problem(inner.linear_model(X, Y, wrong))
    with pytest.raises(ValueError, match=rf"loss\.{name}\(y, t\) must return an array of its own"):
        bilevel.minimize(one)
    assert bilevel.testing.check_problem(one).findings[0].what == f"inner.loss.{name}(y, t)"
    assert bilevel.minimize(problem(inner.linear_model(X, Y, Bounded()))).success


@pytest.mark.parametrize("name", ["matmul", "rmatmul", "gram_diag", "square_matmul"])
def test_a_design_that_touches_arrays_is_found(name):
    right = getattr(Proxy, name, None) or (lambda self, *a: getattr(self.base, name)(*a))

    def writing(self, v, *others):
        v *= 0.9
        return right(self, v, *others)

    for ask, says in ((writing, "must not write into its"), (reused(right), "array of its own")):
        made = type("Touching", (Proxy,), {name: ask})(bilevel.as_design(X))
        pair = problem(inner.linear_model(made, Y, Squared()))
        book = Book(np.random.default_rng(0))
        probe = SimpleNamespace(problem=pair, eps=1e-16, send=lambda v, _: v.copy(), host=np.copy)
        _Asked("inner.design", made, probe, book, 1.0, None, None)._untouched()
        assert [f.what for f in book.findings] == [f"inner.design.{name}"]
        assert says in book.findings[0].message


def writing_into(name, ask, late=0):
    """The same member, which writes into x or λ of its point, from a call on."""
    calls = []

    def member(self, *arguments):
        found = np.array(ask(self, *arguments))
        calls.append(None)
        if len(calls) > late:
            shift = getattr(self, name)
            shift += 3.0
        return found

    return member


@pytest.mark.parametrize("method", ["path", "hoag", Steps()])
@pytest.mark.parametrize("name", ["x", "lam"])
def test_a_point_that_writes_into_its_place_is_named(method, name):
    """λ = 376 came back as one at the upper bound of [-12, 12]; or the method was blamed."""
    says = (
        rf"problem\.inner\.at\(x, lam\)\.hvp\(v\) must not write into {name.replace('lam', 'λ')},"
    )
    with pytest.raises(ValueError, match=says):
        bilevel.minimize(bowls("hvp", writing_into(name, Bowl.hvp)), method=method)
    right = bilevel.Problem(Bowls(), near({"grad_x": property(lambda self: self.x - 0.5)}))
    assert bilevel.minimize(right, method="hoag").success
    wrong = writing_into(name, lambda self: self.x - 0.5)
    with pytest.raises(ValueError, match=r"outer\.at\(x, lam\)\.grad_x must not write"):
        bilevel.minimize(bilevel.Problem(Bowls(), near({"grad_x": property(wrong)})), method=method)


def test_a_point_that_writes_later_shares_the_blame_of_a_step():
    class Asking(Steps):
        def step(self, problem, state):
            problem.inner.at(state.x, state.lam).hvp(state.x)
            return Steps.step(self, problem, state)

    pair = bowls("hvp", writing_into("lam", Bowl.hvp, late=4))
    with pytest.raises(ValueError, match=r"nor may a part that it asks \(problem\.inner, problem"):
        bilevel.minimize(pair, 1.0, method=Asking(hypergrad=np.ones(1)))


def test_a_box_names_its_bound_and_not_what_lies_beyond():
    box, numpy = bilevel.Box(-1, 2), bilevel.get_backend("numpy")
    for lam, says in ((376.0, "upper bound 2"), (-9.0, "lower bound -1"), (2.0, "upper bound 2")):
        assert box.contact(np.array([lam]), numpy) == f"λ[0] lies at its {says}"
    assert box.contact(np.array([0.0]), numpy) is None


def test_a_domain_of_one_buffer_is_refused():
    buffer, one = np.zeros(1), problem()

    def project(lam):
        return np.clip(lam, -3, 3, out=buffer)

    with pytest.raises(ValueError, match=r"domain\.project must return an array of its own"):
        bilevel.Problem(one.inner, one.outer, Domain(project))
    assert bilevel.minimize(bilevel.Problem(one.inner, one.outer, Domain(clipped))).success


def iterated(lam):
    """The nearest point of a box and a ball at once, by Dykstra's iteration: to 10⁻⁶."""
    moved, offs = lam, [0 * lam, 0 * lam]
    box = lambda v: np.clip(v, -3, 3)
    ball = lambda v: 1 + (v - 1) / max(1, np.linalg.norm(v - 1) / 2)
    for k in range(10_000):
        given = moved + offs[k % 2]
        found = (box, ball)[k % 2](given)
        offs[k % 2] = given - found
        if k % 2 and np.linalg.norm(found - moved) < 1e-6:
            break
        moved = found
    return found


@pytest.mark.parametrize(
    ("project", "right"),
    [
        (lambda lam: lam / 2, False),
        (lambda lam: -lam, False),
        (np.tanh, False),
        (lambda lam: np.clip(lam, -3, 3) / 2, False),
        (lambda lam: 12 * np.tanh(lam / 12), False),
        (lambda lam: lam + 0.99 * (np.clip(lam, -3, 3) - lam), False),
        (lambda lam: np.clip(lam, -3, 3), True),
        (iterated, True),
        (lambda lam: np.clip(lam, -3, 3) + 1e-7 * (lam - np.clip(lam, -3, 3)), True),
    ],
)
def test_what_moves_again_what_it_projected_is_no_projection(project, right):
    """λ / 2 was accepted, and HOAG CONVERGED where half of λ made up for its step."""
    one = problem()
    if right:
        bilevel.Problem(one.inner, one.outer, Domain(project))
        return
    with pytest.raises(ValueError, match=r"domain\.project must be a projection"):
        bilevel.Problem(one.inner, one.outer, Domain(project))


def test_a_box_of_another_projection_is_asked_like_any_domain():
    class Halved(bilevel.Box):
        def project(self, lam, backend):
            return super().project(lam, backend) / 2

    one = problem()
    with pytest.raises(ValueError, match=r"domain\.project must be a projection"):
        bilevel.Problem(one.inner, one.outer, Halved())


@pytest.mark.parametrize("side", ["inner", "outer"])
@pytest.mark.parametrize("name", ["matmul", "rmatmul"])
def test_a_design_of_one_buffer_is_refused_at_the_start(name, side):
    """HOAG converged to f = 9.35 where 6.49 is the minimum."""
    right = vars(Proxy)[name]

    def pair(ask, **options):
        made = type("Products", (Proxy,), {name: ask})
        A, A_val = X, X_VAL
        if side == "inner":
            A = made(bilevel.as_design(X))
        else:
            A_val = made(bilevel.as_design(X_VAL))
        signs, signs_val = np.sign(Y), np.sign(Y_VAL)
        return bilevel.logistic_regression(A, signs, A_val, signs_val, groups=[0, 1, 1], **options)

    says = rf"problem\.{side}\.design\.{name}\(.\) must return an array of its own"
    for options in ({}, {"fit_intercept": True}):
        with pytest.raises(ValueError, match=says):
            bilevel.minimize(pair(reused(right), **options), method="hoag")
    found = [bilevel.minimize(pair(ask)).fun for ask in (right, own(right))]
    assert found[0] == found[1] == pytest.approx(6.4907, abs=1e-3)


def test_a_design_below_one_of_ours_is_asked_in_its_own_precision():
    class Single(Proxy):
        dtype = np.dtype(np.float32)
        matmul = lambda self, v: (X.astype("f4") @ v).astype(self.kind)
        rmatmul = lambda self, r: (X.astype("f4").T @ r).astype(self.kind)

    for kind in (np.float32, np.float64):
        made = Single(bilevel.as_design(X.astype("f4")), kind)
        one = problem(inner.linear_model(MixedPrecision(made), Y, Squared()))
        if kind == np.float32:
            assert bilevel.minimize(one, max_iter=2).nit == 2
            continue
        with pytest.raises(
            ValueError, match=r"design\.matmul\(v\) must be .*float32, got .*float64"
        ):
            bilevel.minimize(one)


class OwnKernel:
    """RBF by hand."""

    n_parameters, derivative_bound = 1, None

    def block(self, X, Z, theta, backend):
        return np.exp(-np.exp(theta[0]) * self.squares(X, Z))

    def derivatives(self, X, Z, theta, backend):
        a = np.exp(theta[0]) * self.squares(X, Z)
        return (-a * np.exp(-a),)

    def diag(self, X, theta, backend):
        return np.ones(len(X))

    @staticmethod
    def squares(X, Z):
        return np.sum((X[:, None] - Z[None]) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"squares": lambda self, X, Z: shrunk(X) or OwnKernel.squares(X, Z)}, "write into X,"),
        ({"squares": lambda self, X, Z: shrunk(Z) or OwnKernel.squares(X, Z)}, "write into Z,"),
        ({"block": reused(OwnKernel.block)}, "block.* must return an array of its own"),
        ({"block": lambda self, X, Z, *_: np.ones(len(X))}, r"block.* \(2, 3\).* got \(2,\)"),
        ({"derivatives": lambda self, X, Z, *_: None}, "must be a tuple of 1 arrays, .* got None"),
    ],
)
def test_a_kernel_is_asked_with_a_few_rows(members, says):
    def pair(kernel):
        h = inner.kernel_ridge(X, Y, kernel)
        return bilevel.Problem(h, outer.held_out_kernel(h, X_VAL, Y_VAL, Squared()))

    with pytest.raises((TypeError, ValueError), match=rf"problem\.inner\.kernel\..*{says}"):
        bilevel.minimize(pair(type("Kernel", (OwnKernel,), members)()))
    found, right = bilevel.minimize(pair(OwnKernel())), bilevel.minimize(pair(inner.RBF()))
    assert found.fun == pytest.approx(right.fun, rel=1e-4)


def test_an_at_without_carry_is_refused_and_found():
    class Short(Bowls):
        def at(self, x, lam):
            return self.point(self, x, lam)

    pair = bilevel.Problem(Short(), near())
    with pytest.raises(
        TypeError, match=r"inner\.at must take \(x, lam, carry=None\), got at\(x, lam"
    ):
        bilevel.minimize(pair)
    report = bilevel.testing.check_problem(pair)
    assert [finding.what for finding in report.findings] == ["inner.at"]


@pytest.mark.parametrize("value", [property(lambda self: 0.5), lambda self: 0.5, [1.0]])
def test_the_check_names_a_value_that_is_no_array(value):
    report = bilevel.testing.check_problem(bilevel.Problem(Bowls({"value": value}), near()))
    assert report.findings[0].what == "inner.value"
    assert "expected an array of shape ()" in report.findings[0].message


@pytest.mark.parametrize("name", ["matmul", "rmatmul"])
def test_a_product_of_another_shape_is_not_broadcast(name):
    made = type("Short", (Proxy,), {name: lambda self, v: getattr(Proxy, name)(self, v)[:1]})
    with pytest.raises(ValueError, match=r"must be of shape \(3?0?3?,\).*, got \(1,\)"):
        bilevel.minimize(problem(inner.linear_model(made(bilevel.as_design(X)), Y, Squared())))


# -- what a design states --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated",
    [
        *({"columns_per_pass": bad} for bad in (None, 0, -3, 2.5)),
        *({"entries": bad} for bad in (None, -1, 3.5)),
        *({"centred_rounding": bad} for bad in (None, -1.0, "x")),
        *({"shape": bad} for bad in ((30.0, 3), (0, 3))),
    ],
)
def test_what_a_design_states_are_numbers(stated):
    design = Proxy(bilevel.as_design(X))
    vars(design).update(stated)
    with pytest.raises((TypeError, ValueError), match=rf"X.*{next(iter(stated))}|X must have the"):
        bilevel.as_design(design)


class Expanding(Proxy):
    """It centres squares after they are taken, and says that it does before."""

    def gram_diag(self, d, centre=None):
        self.passes.count_backward(d)
        square = self.base.gram_diag(d)
        if centre is None:
            return square
        c = centre if d.ndim == 1 else centre[:, None]
        return square - 2 * c * self.base.rmatmul(d) + c * c * np.sum(d, axis=0)


@pytest.mark.parametrize(("kind", "right"), [(Proxy, True), (Expanding, False)])
def test_a_false_rounding_of_the_centre_is_found(kind, right):
    designs = (kind(bilevel.as_design(A + 1e4)) for A in (X, X_VAL))
    parts = zip((inner.linear_model, outer.held_out), designs, (Y, Y_VAL), strict=True)
    h, g = (make(design, y, Squared(), fit_intercept=True) for make, design, y in parts)
    found = bilevel.testing.check_problem(bilevel.Problem(h, g)).findings
    wrong = {finding.what for finding in found}
    assert ("inner.design.centred_rounding" in wrong) == (not right)


# -- what later steps return, and what is offered --------------------------------------------------


class Late(Steps):
    """The same, but from the second step on."""

    def step(self, problem, state):
        wrong = Steps() if state.record is None else self
        return Steps.step(wrong, problem, state)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Late(lam=np.zeros(2)), r"record\.lam .* must be of shape \(1,\)"),
        (Late(lam=np.array([18.0])), "record.lam must lie in the domain"),
        (Late(hypergrad=None), "a Record with lam, value and hypergrad"),
        (Late(value=np.ones(3)), "record.value must be a number, got an array"),
        (Late(value_error=-1.0), "record.value_error is a bound"),
        (Late(value_error=float("nan")), "record.value_error is a bound"),
        (Late(value_error="x"), "record.value_error must be a number or None"),
        (Late(optimality="x"), "record.optimality must be a number"),
        (Late(tol=None), "record.tol must be a number, got None"),
        (Late(n_cg="x"), "record.n_cg must be a number, got 'x'"),
        (Late(cg_residual="x"), "record.cg_residual must be a number or None, got 'x'"),
        (Late({"x": np.zeros(9)}), "the x of the state"),
        (Late({"status": "converged"}), "must be a Status, got 'converged'"),
    ],
)
def test_a_later_step_of_wrong_content_is_refused(method, says):
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(), 1.0, method=method, max_iter=9)


def test_steps_that_leave_the_domain_never_come_back_as_a_result():
    """At whichever step: λ = 18 outside of [-12, 12] was returned, as converged."""

    class Leaving(Steps):
        last = 99

        def step(self, problem, state):
            made = Steps.step(self, problem, state)
            status = bilevel.Status.CONVERGED if made.lam[0] > self.last else made.status
            return State(made.lam + 1.0, made.x, made.record, status)

    for last, most in ((17.5, 50), (99, 7), (99, 6)):
        method = Leaving(value_error=float("inf"))
        method.last = last
        with pytest.raises(ValueError, match="record.lam must lie in the domain"):
            bilevel.minimize(problem(), 8.0, method=method, max_iter=most)
    assert bilevel.minimize(problem(), 8.0, method=Leaving(), max_iter=5).lam <= 12


class Offering(Steps):
    offered: Any = 3

    def step(self, problem, state):
        made = Steps.step(self, problem, state)
        bilevel.meter.offer(self.offered)
        _ = [problem.inner.at(state.x, state.lam).grad for _ in range(9)]
        return made


RECORD = bilevel.Record(lam=np.ones(1), value=np.asarray(2.0), hypergrad=np.ones(1))
KNOWN = {"lam": np.ones(1), "value": 2.0, "hypergrad": np.ones(1)}


def test_what_is_offered_is_returned_with_its_value_read():
    method = Offering()
    method.offered = RECORD, np.ones(3)
    found = bilevel.minimize(problem(), 1.0, method=method, max_passes=5)
    assert (found.fun, found.nit, type(found.fun)) == (2.0, 1, float)


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        (3, "must be a pair"),
        ((3, 4), "the record of what is offered must be a Record"),
        ((RECORD, np.ones(2)), r"the x that is offered must be of shape \(3,\)"),
        ((bilevel.Record(lam=np.ones(7), value=1.0, hypergrad=np.ones(7)), np.ones(3)), r"\(1,\)"),
        ((bilevel.Record(**KNOWN, value_error=-50.0), np.ones(3)), "record.value_error is a bound"),
        (
            (bilevel.Record(**KNOWN, value_error=np.nan), np.ones(3)),
            "record.value_error is a bound",
        ),
    ],
)
def test_what_can_not_be_returned_is_not_offered(offered, says):
    method = Offering()
    method.offered = offered
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(), 1.0, method=method, max_passes=5)


@pytest.mark.parametrize(
    ("reported", "says"),
    [
        (lambda *_: None, "what method.reported returns must be a Record"),
        (lambda p, record, x: bilevel.Record(lam=np.ones(5), hypergrad=np.ones(5)), r"\(1,\)"),
        (3, "reported must be callable, got 3"),
        (
            lambda p, record, x: bilevel.Record(lam=record.lam + 0.5, value=1.0, hypergrad=x[:1]),
            "a record of the λ that it is given, got one at a distance of 0.5",
        ),
    ],
)
def test_a_report_that_is_none_is_refused(reported, says):
    method = Steps()
    method.reported = reported
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(), 1.0, method=method, max_iter=3)


@pytest.mark.parametrize("method", [Rows(), "hoag"])
def test_a_product_that_the_budget_of_the_whole_refuses_is_counted_nowhere(method):
    found = bilevel.multistart(problem(), [0.0, 1.0], method=method, max_total_passes=1.5)
    assert found.passes <= 1.5
    if method != "hoag":  # whose searches share passes, each of which is counted for both
        assert sum(result.passes for result in found.results) == pytest.approx(found.passes)
    alone = bilevel.minimize(problem(), 0.0, method=method, max_passes=1.5)
    assert alone.passes <= 1.5


# -- what is not known of a record -----------------------------------------------------------------


LOGISTIC = bilevel.logistic_regression(X, np.sign(Y), X_VAL, np.sign(Y_VAL))


@dataclass(frozen=True)
class Fitting:
    """Gradient steps of x at one λ, whose held-out loss is least long before x is X(λ)."""

    last: int
    known: Any = None

    def init(self, problem, lam0, x0, tol):
        return Fitted(lam0, problem.x(x0))

    def step(self, problem, s):
        x = s.x - problem.inner.at(s.x, s.lam).grad / problem.inner.constants(s.lam).smoothness
        value, status = problem.outer.at(x, s.lam).value, bilevel.Status
        record = bilevel.Record(
            lam=s.lam, value=value, value_error=self.known, hypergrad=0 * s.lam, optimality=1.0
        )
        end = status.CONVERGED if s.k + 1 == self.last else status.RUNNING
        return Fitted(s.lam, x, s.k + 1, record, end)


@dataclass(frozen=True)
class Fitted:
    lam: Any
    x: Any
    k: int = 0
    record: Any = None
    status: Any = bilevel.Status.RUNNING


def test_an_error_that_is_left_out_is_unknown_and_not_zero():
    """g of a half-fitted x lies below f: such an iterate was returned, and the converged one not."""
    f = bilevel.minimize(LOGISTIC, -6.0, method="hoag", max_iter=1, tol=1e-9).history[0].likely
    found = bilevel.minimize(LOGISTIC, -6.0, method=Fitting(3000), max_iter=3000, every=50)
    assert found.success
    assert found.fun == pytest.approx(f, rel=1e-3)
    assert min(record.value for record in found.history) < 0.99 * f
    assert "how far it is from f is not known" in found.message
    cut = bilevel.minimize(LOGISTIC, -6.0, method=Fitting(3000), max_iter=99)
    assert cut.best.k == 99
    exact = bilevel.minimize(LOGISTIC, -6.0, method=Fitting(3000, 0.0), max_iter=3000)
    assert not exact.success  # who states that its values are exact is believed


def test_a_value_that_is_no_number_is_not_the_last_of_the_unknown():
    values = iter([3.0, 2.0, float("nan")])

    class Losing(Steps):
        def step(self, problem, state):
            self.record = {"value": next(values)}
            return super().step(problem, state)

    found = bilevel.minimize(problem(), 1.0, method=Losing())
    assert (found.status, found.fun) == (bilevel.Status.NON_FINITE, 2.0)


@pytest.mark.parametrize(
    "method",
    [
        Steps({"x": np.full(3, np.nan), "status": bilevel.Status.CONVERGED}),
        Steps({"status": bilevel.Status.CONVERGED}, hypergrad=np.full(1, np.nan), optimality=0.0),
        Steps({"status": bilevel.Status.CONVERGED}, lam=np.full(1, np.nan), optimality=0.0),
    ],
)
def test_what_is_no_number_is_no_solution(method):
    found = bilevel.minimize(problem(), 1.0, method=method)
    assert (found.status, found.success) == (bilevel.Status.NON_FINITE, False)
    assert np.isnan(found.fun) == np.isnan(found.x).any()
    value = float(problem().outer.at(np.zeros(3), np.ones(1)).value)
    right = Steps({"status": bilevel.Status.CONVERGED}, optimality=0.0, value=value)
    assert bilevel.minimize(problem(), 1.0, method=right).success


@dataclass(frozen=True)
class Telling:
    """HOAG, whose end is told as a test wants it told."""

    told: Any

    def init(self, problem, lam0, x0, tol):
        return HOAG().init(problem, lam0, x0, tol)

    def step(self, problem, state):
        state = HOAG().step(problem, state)
        return state if state.status is bilevel.Status.RUNNING else self.told(state)


def with_record(**fields):
    return lambda state: replace(state, record=replace(state.record, **fields))


@pytest.mark.parametrize(
    ("told", "right"),
    [
        (lambda state: replace(state, x=0 * state.x), False),
        (lambda state: replace(state, x=state.x * 1.001), False),
        (with_record(value=1.0), False),
        (with_record(value=1.0, value_error=0.1), False),
        (lambda state: state, True),
        (with_record(value=1.0, value_error=1e3), True),  # it says so itself
        (with_record(value=1.0, value_error=math.inf), True),
    ],
)
def test_a_value_that_is_not_that_of_its_x_is_no_success(told, right):
    """The x of nothing beside the record, or a value of 1: CONVERGED, without a word."""
    found = bilevel.minimize(LOGISTIC, 1.0, method=Telling(told), max_iter=200)
    g = float(LOGISTIC.outer.at(found.x, found.lam).value)
    assert found.success == right
    note = f"Telling states {found.fun:.6g} as fun, but g(x, lam) is {g:.6g}."
    assert (note in found.message) == (not right)
    assert found.outer_passes == found.history[-1].outer_passes  # to ask g is no run's


def test_a_value_of_rounding_may_be_another():
    """Of a perfect fit, computed in two ways, all that is left of f is rounding."""
    h = inner.from_functions(
        lambda x, lam: ((x - lam) @ (x - lam) / 2, x - lam),
        like=np.zeros(1), x_shape=(1,), n_hyperparameters=1,
        hvp=lambda x, lam, v: v, cross_vjp=lambda x, lam, q: -q, cross_jvp=lambda x, lam, d: -d,
        constants=inner.InnerConstants(mu=1.0, smoothness=1.0),
    )  # fmt: skip
    g = outer.from_functions(
        lambda x, lam: (((x - 1) ** 2).sum(), 2 * (x - 1)),
        like=np.zeros(1),
        grad_lam=lambda x, lam: 0 * lam,
    )

    class Expanded(Steps):
        def step(self, problem, state):
            x = state.lam
            value = float(x @ x - 2 * x.sum() + 1)
            record = bilevel.Record(lam=state.lam, value=value, hypergrad=2 * (x - 1))
            return State(state.lam - 0.5 * (x - 1) * (1 + 1e-8), x, record)

    found = bilevel.minimize(bilevel.Problem(h, g), 3.0, method=Expanded(), max_iter=4)
    assert found.fun != float(g.at(found.x, found.lam).value)
    assert "as fun, but" not in found.message


class Writing(Steps):
    """It writes into what it is given, in the step of this number."""

    def __init__(self, name, step, **record):
        super().__init__(**record)
        self.name, self.when = name, step

    def step(self, problem, state):
        self.n = getattr(self, "n", 0) + 1
        if self.n == self.when:
            holder = state.record if self.name.startswith("record") else state
            getattr(holder, self.name.rpartition(".")[2])[...] += 0.1
        return Steps.step(self, problem, state)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("lam", (1, 3, 7)), ("x", (1, 3, 7)), ("record.hypergrad", (2, 7))],
)
def test_a_step_that_writes_into_its_state_is_refused(name, steps):
    """Records held these arrays: they were of another λ, without a word."""
    for step in steps:
        method = Writing(name, step, hypergrad=np.ones(1))
        with pytest.raises(ValueError, match=f"must not write into the {name} of the state"):
            bilevel.minimize(problem(), 1.0, method=method, max_iter=9)
    assert bilevel.minimize(problem(), 1.0, method=Writing(name, 99), max_iter=9).nit == 9


class Alternating(Steps):
    """It has two buffers for each array, and fills that which it did not return last."""

    def __init__(self):
        super().__init__()
        self.buffers = [(np.zeros(1), np.zeros(3), np.zeros(1)) for _ in range(2)]

    def step(self, problem, state):
        n = 0 if state.record is None else int(state.x[0])
        lam, x, p = self.buffers[n % 2]
        lam[...], x[...], p[...] = n + 0.5, n + 1.0, n
        record = bilevel.Record(lam=lam, value=abs(n - 3.0), hypergrad=p, value_error=0.0)
        return State(state.lam + 0.1, x, record, bilevel.Status.RUNNING)


def test_buffers_that_are_filled_anew_leave_what_was_returned():
    found = bilevel.minimize(problem(), 0.0, method=Alternating(), max_iter=8)
    assert (found.fun, found.lam, found.best.lam, found.jac, found.x[0]) == (0, 3.5, 3.5, 3, 4)
    assert [float(record.lam[0]) for record in found.history] == [n + 0.5 for n in range(8)]
    assert [float(record.hypergrad[0]) for record in found.history] == list(range(8))


def test_what_is_offered_may_be_overwritten():
    class Reusing(Steps):
        def step(self, problem, state):
            lam, x = np.ones(1), np.ones(3)
            bilevel.meter.offer((bilevel.Record(lam=lam, value=2.0, hypergrad=lam), x))
            lam[...], x[...] = 9.0, 9.0
            _ = [problem.inner.at(state.x, state.lam).grad for _ in range(9)]
            return Steps.step(self, problem, state)

    found = bilevel.minimize(problem(), 1.0, method=Reusing(), max_passes=5)
    assert (found.fun, found.lam, found.jac) == (2.0, 1.0, 1.0)
    assert np.all(found.x == 1)


@pytest.mark.parametrize("dtype", [None, "float64", int, np.dtype("float16"), np.complex128])
def test_a_dtype_that_is_none_is_refused(dtype):
    h = problem().inner
    other = type("Typed", (), {"__getattr__": lambda self, name: getattr(h, name), "dtype": dtype})
    with pytest.raises(TypeError, match=r"inner\.dtype must be float32 or float64"):
        bilevel.Problem(other(), problem().outer)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"x": [0.0] * 3}, "the x of the state that method.init returns must be an array"),
        ({"x": None}, "the x of the state that method.init returns must be an array"),
        ({"x": np.full(3, np.nan)}, "the x of the state .* must be finite"),
        ({"lam": np.ones(2)}, r"the lam of the state that method.init .* \(1,\)"),
        ({"lam": np.ones(1, np.float32)}, "the lam of the state .* float64, got .*float32"),
        ({"status": "running"}, "method.init returns must be Status.RUNNING, got 'running'"),
        ({"status": bilevel.Status.CONVERGED}, "method.init returns must be Status.RUNNING"),
        ({"record": 3}, "the record of the state that method.init returns must be None"),
    ],
)
def test_a_start_of_wrong_content_is_refused(made, says):
    class Begun(Steps):
        def init(self, problem, lam0, x0, tol):
            return State(**{"lam": lam0, "x": problem.x(x0)} | made)

    for run in (bilevel.minimize, lambda *a, **b: next(bilevel.iterate(*a, **b))):
        with pytest.raises((TypeError, ValueError), match=says):
            run(problem(), 1.0, method=Begun())


def test_an_iterator_that_runs_out_in_a_step_is_said_to():
    class Out(Steps):
        def step(self, problem, state):
            return next(iter(()))

    class Begun(Steps):
        def init(self, *_):
            return next(iter(()))

    for method, name in ((Out(), "Out.step"), (Begun(), "Begun.init")):
        with pytest.raises(RuntimeError, match=f"{name} raised StopIteration: an iterator"):
            bilevel.minimize(problem(), 1.0, method=method)


def test_a_library_whose_arrays_are_constant_keeps_pairs_too():
    """A row was written into the block: TypeError in mid-run, unless with_row was overridden."""
    block, row = np.arange(12.0).reshape(4, 3), np.ones(3)
    block.flags.writeable = False
    numpy = bilevel.get_backend("numpy")
    for i in range(4):
        right = np.array(block)
        right[i] = row
        np.testing.assert_array_equal(ArrayAPIBackend.with_row(numpy, block, i, row), right)
    with pytest.raises(ValueError, match="read-only"):
        numpy.with_row(block, 0, row)
    own = np.array(block)
    assert numpy.with_row(own, 0, row) is own  # where it can, it writes
    np.testing.assert_array_equal(own[0], row)


# -- what HOAG is made of --------------------------------------------------------------------------


class Walk:
    """A walk of ours, each of whose steps is changed."""

    def __init__(self, change=lambda step: step):
        self.change = change

    def walk(self, point, backend, target):
        for step in solvers.LBFGS().walk(point, backend, target):
            yield self.change(step)


@pytest.mark.parametrize(
    ("walk", "says"),
    [
        (lambda *_: iter(()), "Odd.walk must yield a Step at its start"),
        (lambda *_: None, "Odd.walk must return an iterator of Steps, got None"),
        (lambda *_: iter([None]), "Odd.walk must yield Steps, got None"),
        (lambda point, *_: iter([point]), "Odd.walk must yield Steps, got"),
        (lambda point, *_: iter([solvers.Step(point, 0.0)]), "whose grad_norm is that .* got 0"),
        (
            Walk(lambda step: replace(step, grad_norm=1e-3 * step.grad_norm)).walk,
            "must yield Steps whose grad_norm is that of their point",
        ),
    ],
)
def test_a_solver_of_other_answers_is_refused(walk, says):
    odd = type("Odd", (), {"walk": staticmethod(walk)})()
    for method in (HOAG(solver=odd), MAID(solver=odd)):
        with pytest.raises((TypeError, ValueError), match=says):
            bilevel.minimize(problem(), method=method)
    mine, ours = (HOAG(solver=one, tolerances="cubic") for one in (Walk(), solvers.LBFGS()))
    assert (
        bilevel.minimize(problem(), method=mine).fun == bilevel.minimize(problem(), method=ours).fun
    )


def found_by(change):
    """A hypergradient of ours, changed."""
    return lambda *given, **options: change(hypergrad.Implicit()(*given, **options))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: None, "must return a HypergradResult, got None"),
        (lambda found: replace(found, value=np.ones(2)), r"the value of the .* \(1,\)"),
        (lambda found: replace(found, value=None), "the value of the .* must be an array"),
        (lambda found: replace(found, adjoint=np.ones(2)), r"the adjoint of the .* \(3,\)"),
        (lambda found: replace(found, error_bound=-1.0), "the error_bound of the .* got -1"),
        (lambda found: replace(found, error_bound=np.nan), "the error_bound of the .* nan"),
        (lambda found: replace(found, value_error=-1.0), "the value_error of the .* got -1"),
        (lambda found: replace(found, residual=-1.0), "the residual of the .* got -1"),
        (lambda found: replace(found, n_iter=None), "the n_iter of the .* got None"),
        (lambda found: replace(found, status="converged"), "must be a Status, got 'converged'"),
        (lambda found: replace(found, outer=None), "the outer of the .* got None"),
    ],
)
def test_a_hypergradient_of_other_answers_is_refused(change, says):
    for method in (HOAG, MAID):
        with pytest.raises((TypeError, ValueError), match=says):
            bilevel.minimize(problem(), method=method(hypergradient=found_by(change)))
    loose = found_by(lambda found: replace(found, error_bound=np.inf, value_error=None))
    for right in (loose, found_by(lambda found: found), hypergrad.Implicit()):
        assert bilevel.minimize(problem(), method=HOAG(hypergradient=right), max_iter=3).nit == 3


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"first": lambda self, *_: None}, r"step_rule\.first must return a StepState, got None"),
        ({"next": lambda self, *_: None}, r"step_rule\.next must return a StepState and"),
        ({"next": lambda self, state, *_: state}, r"step_rule\.next must return a StepState and"),
        ({"next": lambda self, state, *_: (state, 1)}, "step_rule.next accepts"),
        *(
            ({"first": lambda self, *_, L=L: StepState(L, 1.0, 1.0)}, "the lipschitz of the StepSt")
            for L in (-1.0, np.nan)
        ),
    ],
)
def test_a_step_rule_of_other_answers_is_refused(members, says):
    class Rule:
        def first(self, *given):
            return AdaptiveStep().first(*given)

        def next(self, *given):
            return AdaptiveStep().next(*given)

    odd = type("Odd", (Rule,), members)()
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.minimize(problem(), method=HOAG(step_rule=odd))
    mine, ours = (
        bilevel.minimize(problem(), method=HOAG(step_rule=r)) for r in (Rule(), AdaptiveStep())
    )
    assert mine.fun == ours.fun


# -- states that no checkpoint can bring back ------------------------------------------------------


class Named(NamedTuple):
    lam: Any
    x: Any
    record: Any = None
    status: Any = bilevel.Status.RUNNING


@dataclass(frozen=True)
class Holding(State):
    """With something more."""

    more: Any = None


@dataclass(frozen=True)
class Inside(State):
    more: Any = field(init=False, default=0)


@dataclass(frozen=True)
class Needing(State):
    more: InitVar[int] = field(kw_only=True)


@dataclass(frozen=True)
class Adding(State):
    more: int = 0

    def __post_init__(self):
        object.__setattr__(self, "more", self.more + 1)


def begun(make):
    class Begun(Steps):
        def init(self, problem, lam0, x0, tol):
            return make(lam0, problem.x(x0))

        def step(self, problem, state):
            made = Steps.step(self, problem, state)
            return make(made.lam, made.x, made.record, made.status)

    return Begun()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Named, "of the class .*Named"),
        (Inside, "can't be made anew of its fields"),
        (functools.partial(Needing, more=1), "can't be made anew of its fields"),
        (Adding, "comes back another: state.more, 1, as 2"),
        (functools.partial(Holding, more=np.array([1, None])), "an array of objects"),
        (functools.partial(Holding, more=Named(1, 2)), "of the class .*Named"),
    ],
)
def test_a_state_that_can_not_be_resumed_is_refused_at_the_start(tmp_path, make, says):
    path = tmp_path / "run.npz"
    with pytest.raises(TypeError, match=f"could not be resumed, since .*{says}"):
        bilevel.minimize(problem(), 1.0, method=begun(make), max_iter=2, checkpoint=path)
    assert not path.exists()
    bilevel.minimize(problem(), 1.0, method=begun(make), max_iter=2)


def test_what_a_state_comes_to_hold_is_asked_at_the_first_write(tmp_path):
    def make(lam, x, record=None, status=bilevel.Status.RUNNING):
        return Holding(lam, x, record, status, Adding(lam, x) if record else None)

    path = tmp_path / "run.npz"
    with pytest.warns(RuntimeWarning, match=r"comes back another: state\.more\.more, 1, as 2"):
        bilevel.minimize(problem(), 1.0, method=begun(make), max_iter=2, checkpoint=path)


def test_what_a_state_may_hold_comes_back_as_it_was(tmp_path):
    more = ([1, (2.0, float("nan"))], np.arange(3, dtype=np.int32), "x", True, np.float64(0.1))
    make = functools.partial(Holding, more=more)
    options = {"method": begun(make), "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(problem(), 1.0, max_iter=2, **options)
    assert bilevel.minimize(problem(), 1.0, max_iter=4, resume=True, **options).nit == 4


@dataclass
class Drawing(Steps):
    """A dataclass that keeps, beside its fields, what belongs into its state."""

    seed: int = 0

    def init(self, problem, lam0, x0, tol):
        self.state, self.record = {}, {}
        self.rng = np.random.default_rng(self.seed)
        return super().init(problem, lam0, x0, tol)

    def step(self, problem, state):
        self.rng.random()
        return super().step(problem, state)


def test_what_a_dataclass_keeps_beside_its_fields_is_warned_of(tmp_path):
    with pytest.warns(RuntimeWarning, match="The method changes itself .*rng"):
        bilevel.minimize(
            problem(), 1.0, method=Drawing(), max_iter=3, checkpoint=tmp_path / "run.npz"
        )


# -- domains, and what a problem is made of --------------------------------------------------------


class Domain:
    def __init__(self, project):
        self.project = lambda lam, backend: project(lam)


def clipped(lam, most=3.0):
    return np.clip(lam, -most, most)


@pytest.mark.parametrize(
    ("project", "says"),
    [
        (lambda lam: lam.astype(np.float32), ".* float64, got .*float32"),
        (lambda lam: lam if abs(lam) < 9 else clipped(lam).astype("f"), "float64, got .*float32"),
        (lambda lam: np.zeros(2), r"of shape \(1,\)|shape \(1,\)"),
        (lambda lam: [0.0], "an array of shape"),
        (lambda lam: None, "an array of shape"),
        (lambda lam: lam * np.nan, "finite"),
        (lambda lam: np.where(lam > 9, np.inf, lam), "finite"),
    ],
)
def test_a_domain_of_other_answers_is_refused(project, says):
    h, g = problem().inner, problem().outer
    with pytest.raises((TypeError, ValueError), match=rf"domain\.project\(lam\) must be .*{says}"):
        bilevel.Problem(h, g, Domain(project))
    with pytest.raises(ValueError, match="domain.project must not write into lam"):
        bilevel.Problem(h, g, Domain(lambda lam: np.clip(lam, -1, 1, out=lam)))
    assert bilevel.minimize(bilevel.Problem(h, g, Domain(clipped))).success


def ring(lam):
    """The nearest point of a set that is not convex."""
    size = max(float(np.sqrt(lam @ lam)), 1e-9)
    return lam * (min(max(size, 1.0), 2.0) / size)


def several(domain):
    """A problem of three λ."""
    h = inner.linear_model(X, Y, Squared(), penalty=inner.GroupL2(np.arange(3), 3))
    return bilevel.Problem(h, outer.held_out(X_VAL, Y_VAL, Squared()), domain)


@pytest.mark.parametrize(
    ("project", "says"),
    [
        (clipped, None),
        (lambda lam: lam / max(1.0, np.sqrt(lam @ lam) / 3), None),
        (lambda lam: lam - np.mean(lam), None),
        (lambda lam: lam / 2, "it moves"),
        (ring, "points that are nearer"),
        (lambda lam: np.round(lam), "points that are nearer"),
        (lambda lam: lam / max(1.0, np.max(abs(lam)) / 3), "points that are nearer"),
        (lambda lam: np.where(abs(lam) > 30, np.inf, clipped(lam)), "not finite"),
    ],
)
def test_a_projection_is_checked(project, says):
    one = several(Domain(clipped))
    vars(one)["domain"] = Domain(project)  # past the door, which sees the worst of them
    book = Book(np.random.default_rng(0))
    check_domain(one, np.zeros(3), book)
    assert [finding.what for finding in book.findings] == ["domain.project"] * (says is not None)
    assert says is None or says in book.findings[0].message


def test_the_check_of_a_problem_asks_its_domain():
    def skewed(lam):
        """Into the box, but not to the nearest point."""
        return lam * min(1.0, 3 / max(float(np.max(abs(lam))), 1e-9))

    for domain, right in ((bilevel.Ball(0.0, 3.0), True), (Domain(skewed), False)):
        report = bilevel.testing.check_problem(several(domain))
        assert "domain.project" in report.checked
        assert report.ok == right, str(report)
        assert right or [f.what for f in report.findings] == ["domain.project"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"backend": "numpy"}, "inner.backend must be a backend .*, got 'numpy'"),
        ({"x_shape": 4}, "inner.x_shape must be a tuple of integers, got 4"),
        ({"x_shape": (2.0,)}, r"inner.x_shape\[0\] must be an integer, got 2.0"),
        ({"start": lambda: None}, r"the start that h states must be an array .*, got None"),
    ],
)
def test_what_a_model_states_of_itself_is_asked(members, says):
    with pytest.raises(TypeError, match=says):
        bilevel.minimize(bilevel.Problem(Bowls(**members), near()), method="hoag")


def test_a_criterion_on_the_name_of_a_backend_is_refused():
    with pytest.raises(TypeError, match="outer.backend must be a backend .*, got 'numpy'"):
        bilevel.Problem(Bowls(), near(backend="numpy"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"rounding": lambda self, y, t, backend: None}, r"rounding\(y, t\) must be .* got None"),
        ({"rounding": lambda self, y, t, backend: (t, t[:1])}, r"of the derivative must .*\(30,\)"),
        (
            {"curvature": lambda self, y, t, backend: 0 * t - 1},
            "must be convex, got a curvature of -1",
        ),
    ],
)
def test_a_loss_that_bends_down_or_has_no_bounds_is_refused(members, says):
    loss = type("Loss", (Bounded,), members)()
    with pytest.raises((TypeError, ValueError), match=rf"problem\.inner\.loss.*{says}"):
        bilevel.minimize(problem(inner.linear_model(X, Y, loss)))


def test_nothing_follows_from_a_criterion_that_bends_down():
    """Its curvature refutes what it states: a bound by it was too small, or a domain error."""
    members = {"curvature": lambda self, y, t, backend: 0 * t - 1, "curvature_bound": 1.0}
    exact = {"rounding": lambda self, y, t, backend: (0 * t, 0 * t), "self_concordance": 1.0}
    loss = type("Loss", (Bounded,), members | exact | {"third_bound": 1.0})()
    for A in (X, X[:, :1]):
        h = inner.linear_model(A, Y, Squared())
        g = outer.held_out(X_VAL[:, : A.shape[1]], Y_VAL, loss)
        assert bilevel.minimize(problem(h, g), max_iter=5).best is not None
    states = inner.InnerConstants(1.0, 2.0, 0.0, 0.0, self_concordance=0.0)
    ridge, of_g = {"inner": states, "decrement": 0.1}, outer.OuterConstants(4.0, 0.0, 0.0)
    q = hypergrad.Inexact(1.0, 0.8, 0.0)
    for top, right in ((4.0, True), (-1e-9, False), (np.nan, False)):
        bend = hypergrad.Bend(2.0, 1.5, top)
        found = (
            hypergrad.self_concordant_bound(outer=of_g, adjoint=q, tangent=q, bend=bend, **ridge),
            hypergrad.self_concordant_adjoint_bound(
                outer=of_g, adjoint=q, cross_norm=2.0, top=top, **ridge
            ),
            hypergrad.self_concordant_value_bound(
                outer=of_g, adjoint=q, correction=1.0, top=top, **ridge
            ),
        )
        assert np.isfinite(found).tolist() == [right] * 3


# -- what a part returns is its own ----------------------------------------------------------------


class Memo(inner.Point):
    """h = xᵀK x / 2 - xᵀB λ, whose products are kept, or can't be written into."""

    value = property(lambda s: 0.5 * s.x @ K @ s.x - s.x @ (B @ s.lam))
    grad = property(lambda s: K @ s.x - B @ s.lam)
    cross_vjp = lambda s, q: -B.T @ q
    cross_jvp = lambda s, d: -B @ d

    def hvp(self, v):
        key, memo = (v.shape, v.tobytes()), self.inner.memo
        if key not in memo:
            memo[key] = K @ v
            memo[key].flags.writeable = self.inner.writeable
        return memo[key]


class Memoised:
    backend, dtype = bilevel.get_backend("numpy"), np.dtype(float)
    x_shape, n_hyperparameters, passes, column_passes = (6,), 3, 0, 0

    def __init__(self, writeable):
        self.memo, self.writeable = {}, writeable

    def at(self, x, lam, carry=None):
        return Memo(self, x, lam)

    def constants(self, lam):
        return inner.InnerConstants(mu=0.5, hessian_lipschitz=0.0, self_concordance=0.0)


_DRAWN = np.random.default_rng(0)
_Q = _DRAWN.standard_normal((9, 6))
K, B, C = _Q.T @ _Q + 0.5 * np.eye(6), _DRAWN.standard_normal((6, 3)), _DRAWN.standard_normal(6)


@pytest.mark.parametrize("method", ["path", "hoag"])
@pytest.mark.parametrize("writeable", [True, False])
def test_products_that_a_part_keeps_are_not_written_into(writeable, method):
    """A memoised H v was a scratch array of CG: a later run was REFUTED, or CONVERGED elsewhere."""
    h = Memoised(writeable)
    g = outer.from_functions(
        lambda x, lam: (C @ x + 0.5 * lam @ lam, C.copy()), like=C, grad_lam=lambda x, lam: lam
    )
    problem_, right = bilevel.Problem(h, g), -B.T @ np.linalg.solve(K, C)
    for _ in range(4):
        found = bilevel.minimize(problem_, method=method, max_iter=200)
        assert found.success
        np.testing.assert_allclose(found.lam, right, atol=0.05)
    for (shape, raw), product in h.memo.items():
        np.testing.assert_allclose(product, K @ np.frombuffer(raw).reshape(shape), rtol=1e-9)


class Kept:
    """A design whose products can't be written into."""

    def __init__(self, base):
        self.base = base

    def __getattr__(self, name):
        return getattr(self.base, name)

    def matmul(self, v):
        return self._kept(self.base.matmul(v))

    def rmatmul(self, r):
        return self._kept(self.base.rmatmul(r))

    @staticmethod
    def _kept(array):
        array.flags.writeable = False
        return array


@pytest.mark.parametrize("method", ["path", "hoag", "maid"])
def test_products_of_a_design_may_be_read_only(method):
    designs = [Kept(bilevel.as_design(A)) for A in (X, X_VAL)]
    h = inner.linear_model(designs[0], Y, Squared())
    own = bilevel.Problem(h, outer.held_out(designs[1], Y_VAL, Squared()))
    plain = bilevel.Problem(
        inner.linear_model(X, Y, Squared()), outer.held_out(X_VAL, Y_VAL, Squared())
    )
    found, right = (bilevel.minimize(p, 1.0, method=method, max_iter=5) for p in (own, plain))
    np.testing.assert_allclose(found.lam, right.lam)


def test_a_kernel_is_asked_about_rows_of_the_data_alone():
    """They may be the numbers of objects: it was refused by a KeyError for a row of its own making."""
    F = np.random.default_rng(0).standard_normal((50, 3))

    class ById:
        n_parameters, derivative_bound = 1, None

        def feats(self, rows):
            return np.array([F[int(i)] if i == int(i) else None for i in rows[:, 0]])

        def block(self, rows, others, theta, backend):
            return np.exp(theta[0]) * (self.feats(rows) @ self.feats(others).T + 1)

        def derivatives(self, rows, others, theta, backend):
            return (self.block(rows, others, theta, backend),)

        def diag(self, rows, theta, backend):
            return np.exp(theta[0]) * ((self.feats(rows) ** 2).sum(1) + 1)

    ids, t = np.arange(50.0)[:, None], np.sin(F[:, 0])
    h = inner.kernel_ridge(ids[:30], t[:30], ById())
    g = outer.held_out_kernel(h, ids[30:], t[30:], Squared())
    assert np.isfinite(bilevel.minimize(bilevel.Problem(h, g), max_iter=3).fun)
