"""Parts from outside: what they lack is said in a sentence, and nothing is claimed of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

import bilevel
from bilevel import inner, outer
from bilevel.backends import ArrayAPIBackend
from bilevel.design import Passes, recounted
from bilevel.fingerprint import fingerprint, unknown
from bilevel.losses import Pointwise, Squared

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
        _, point, error = at(Proxy, dtype)
        assert (error <= point.rounding(x[:, None]).grad) == holds
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


@pytest.mark.parametrize("needs", ["inner.rows", ("foo.rows",)])
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
