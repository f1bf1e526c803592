"""check_problem asks what an author may supply beside the required members, and names what is wrong.

Each part is right by itself, and then with one member in which it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

import bilevel
from bilevel import inner as inners
from bilevel import losses
from bilevel import outer as outers
from bilevel.design import DenseDesign, Passes, SharedPasses
from bilevel.inner import InnerConstants, LinearModel, Point, Rounding
from bilevel.inner.linear import LinearPoint
from bilevel.outer import OuterConstants, OuterRounding
from bilevel.problem import Problem
from bilevel.testing import check_problem, linear

RNG = np.random.default_rng(5)
N, P = 14, 4
A, Y = RNG.standard_normal((N, P)), RNG.standard_normal(N)
B, Z = RNG.standard_normal((9, P)), RNG.standard_normal(9)


def changed(cls: type, **members: Any) -> Any:
    """The class with some members replaced."""
    return type(f"Other{cls.__name__}", (cls,), members)


def without(name: str, cls: type, base: type) -> Any:
    """The class without a member."""
    kept = {k: v for k, v in vars(cls).items() if k not in (name, "__dict__", "__weakref__")}
    return type(f"Plain{cls.__name__}", (base,), kept)


def named(problem: Problem, what: str, *clues: str) -> None:
    """One finding of that name, and what it says."""
    report = check_problem(problem)
    assert [finding.what for finding in report.findings] == [what], str(report)
    for clue in clues:
        assert clue in str(report.findings[0]), str(report)


# -- an objective of rows, with all that is optional -----------------------------------------------


@dataclass(frozen=True)
class Ridge:
    """h = ½ s ‖A x - y‖² + ½ e^λ ‖x‖² by a class of one's own."""

    A: Any = field(default_factory=A.copy)
    y: Any = field(default_factory=Y.copy)
    s: float = 1.0
    counter: Passes = field(default_factory=Passes, compare=False)

    backend = property(lambda self: bilevel.get_backend(self.A))
    dtype = property(lambda self: self.A.dtype)
    x_shape = property(lambda self: (int(self.A.shape[1]),))
    n_hyperparameters = 1
    passes = property(lambda self: self.counter.total)
    column_passes = property(lambda self: self.counter.columns)
    n_rows = property(lambda self: int(self.A.shape[0]))

    def at(self, x: Any, lam: Any, carry: Any = None) -> Any:
        return RidgePoint(self, x, lam)

    def constants(self, lam: Any) -> InnerConstants:
        return InnerConstants(hessian_lipschitz=0.0, self_concordance=0.0)

    def share(self, index: Any, s: float) -> Any:
        counter = SharedPasses(self.counter, len(index) / self.n_rows)
        rows = self.backend.asarray(index)
        xp = self.backend.xp
        return replace(
            self, A=xp.take(self.A, rows, axis=0), y=xp.take(self.y, rows), s=s, counter=counter
        )

    def rows(self, index: Any) -> Any:
        return self.share(index, self.s * self.n_rows / len(index))

    def start(self) -> Any:
        return self.backend.xp.ones_like(self.A[0, :])

    def remark(self, lam: Any) -> str | None:
        return "It is nearly 0." if float(self.backend.to_numpy(lam)[0]) < -10 else None


class RidgePoint(Point):
    """Five members, and the bounds of their rounding."""

    weight = property(lambda self: self.inner.backend.xp.exp(self.lam[0]))

    @cached_property
    def _residual(self) -> Any:
        self.inner.counter.count_forward(self.x)
        return self.inner.backend.xp.matmul(self.inner.A, self.x) - self.inner.y

    @cached_property
    def value(self) -> Any:
        xp, r = self.inner.backend.xp, self._residual
        return (self.inner.s * xp.sum(r * r) + self.weight * xp.sum(self.x * self.x)) / 2

    @cached_property
    def grad(self) -> Any:
        self.inner.counter.count_backward(self._residual)
        xp = self.inner.backend.xp
        return self.inner.s * xp.matmul(self.inner.A.T, self._residual) + self.weight * self.x

    def hvp(self, v: Any) -> Any:
        self.inner.counter.count_forward(v)
        self.inner.counter.count_backward(v)
        xp = self.inner.backend.xp
        product = xp.matmul(self.inner.A.T, xp.matmul(self.inner.A, v))
        return self.inner.s * product + self.weight * v

    def cross_vjp(self, q: Any) -> Any:
        return self.weight * self.inner.backend.xp.matmul(self.x[None, :], q)

    def cross_jvp(self, d: Any) -> Any:
        return d[0] * self.weight * self.x

    def rounding(self, vectors: Any, pushed: Any = None, scale: Any = None) -> Any:
        xp, inner = self.inner.backend.xp, self.inner
        few = 4 * sum(inner.A.shape) * float(xp.finfo(inner.dtype).eps)
        few = few if scale is None else few * xp.max(xp.abs(scale))
        heavy = inner.s * xp.sum(inner.A**2) + self.weight

        def size(v: Any) -> Any:
            return xp.sqrt(xp.sum(v * v, axis=0))

        grad = heavy * size(self.x) + inner.s * xp.sum(xp.abs(inner.A)) * size(inner.y)
        return Rounding(few * grad, few * heavy * size(vectors), few * self.weight * size(self.x))


def ridge(points: Any = RidgePoint, **members: Any) -> Problem:
    """A right criterion, and the objective with some members of its own or of its points."""
    members = {"at": lambda self, x, lam, carry=None: points(self, x, lam), **members}
    return Problem(changed(Ridge, **members)(), outers.held_out(B, Z, losses.Squared()))


@pytest.mark.slow_on("jax", "dpnp")
def test_all_that_is_optional_is_right(backend: Any) -> None:
    parts = [backend.asarray(a) for a in (A, Y, B, Z)]
    problem = Problem(Ridge(*parts[:2]), outers.held_out(*parts[2:], losses.Squared()))
    report = check_problem(problem)
    assert report.ok, str(report)
    asked = {"inner.rows (hvp)", "inner.start", "inner.remark", "inner.rounding (products)"}
    assert asked | {"inner.passes", "inner.rows (passes)"} <= set(report.checked)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_single_precision_is_right_too(dtype: str) -> None:
    parts = [a.astype(dtype) for a in (A, Y, B, Z)]
    problem = Problem(Ridge(*parts[:2]), outers.held_out(*parts[2:], losses.Squared()))
    report = check_problem(problem)
    assert report.ok, str(report)


def whole_passes(self: Any, index: Any) -> Any:
    return replace(Ridge.rows(self, index), counter=self.counter)


def no_passes(self: Any, index: Any) -> Any:
    return replace(Ridge.rows(self, index), counter=Passes())


def unique_rows(self: Any, index: Any) -> Any:
    index = np.unique(index)
    return self.share(index, self.s * self.n_rows / len(index))


def all_weights(self: Any, index: Any) -> Any:
    """The penalty is taken n / k times with the rows."""
    part = Ridge.rows(self, index)
    scaled = changed(RidgePoint, weight=property(lambda pt: 3 * np.exp(pt.lam[0])))
    return changed(Ridge, at=lambda self, x, lam, carry=None: scaled(self, x, lam))(
        part.A, part.y, part.s, part.counter
    )


@pytest.mark.parametrize(
    ("rows", "what", "clue"),
    [
        (lambda self, index: self.share(index, self.s), "inner.rows (value)", "all rows"),
        (lambda self, index: Ridge.rows(self, index[1:]), "inner.rows (value)", "all rows"),
        (all_weights, "inner.rows (value)", "does not depend on rows"),
        (whole_passes, "inner.rows (passes)", "SharedPasses"),
        (no_passes, "inner.rows (passes)", "SharedPasses"),
        (lambda self, index: self.A[index], "inner.rows", "AttributeError"),
        (3, "inner.rows", "integers on the host"),
    ],
)
def test_rows_that_do_not_stand_for_all(rows: Any, what: str, clue: str) -> None:
    named(ridge(rows=rows), what, clue)


def test_a_row_that_comes_twice_is_not_left_out() -> None:
    """Of rows 0, 0 and 1 a part that forgets the repetition is another mean."""
    named(ridge(rows=unique_rows), "inner.rows (a row twice)", "each as often as it comes")


@pytest.mark.parametrize("n", [0, 2.5, None])
def test_a_number_of_rows_that_is_none(n: Any) -> None:
    named(ridge(n_rows=n, rows=Ridge.rows), "inner.n_rows", "expected the number of rows")


def random_start(self: Any) -> Any:
    return np.random.default_rng().standard_normal(P)


@pytest.mark.parametrize(
    ("start", "clue"),
    [
        (lambda self: np.zeros(P + 1), "must have shape (4,)"),
        (lambda self: np.full(P, np.nan), "must be finite"),
        (lambda self: np.zeros(P, np.float32), "dtype"),
        (lambda self: [0.0] * P, "the start that h states"),
        (random_start, "random numbers"),
        (np.zeros(P), "is a method"),
    ],
)
def test_a_start_that_is_none(start: Any, clue: str) -> None:
    named(ridge(start=start), "inner.start", clue)


def test_a_start_in_a_buffer_that_is_written_again() -> None:
    kept = np.zeros(P)

    def start(self: Any) -> Any:
        kept[:] += 1.0
        return kept

    named(ridge(start=start), "inner.start", "one buffer")


def louder(self: Any, lam: Any, said: list[str] = []) -> str:  # noqa: B006
    said.append("again")
    return " ".join(said)


def halved(self: Any, lam: Any) -> None:
    lam *= 0.5


@pytest.mark.parametrize(
    ("remark", "clue"),
    [
        (lambda self, lam: bool(lam[0] < -10), "expected a sentence or None"),
        (lambda self, lam: 1 / 0, "ZeroDivisionError"),
        (louder, "is remembered"),
        (halved, "in place"),
        ("all is well", "is a method"),
    ],
)
def test_a_remark_that_is_none(remark: Any, clue: str) -> None:
    named(ridge(remark=remark), "inner.remark", clue)


def test_a_remark_that_fails_at_an_end_of_the_domain_alone() -> None:
    def remark(self: Any, lam: Any) -> str | None:
        return None if lam[0] > -11 else [][0]

    named(ridge(remark=remark), "inner.remark", "IndexError")


# -- counters -----------------------------------------------------------------------------------------


class Restarted(Passes):
    """One that is set to 0 by a product with several columns."""

    def count_backward(self, r: Any) -> None:
        super().count_backward(r)
        if r.ndim == 2:
            self._totals = type(self._totals)()


@pytest.mark.parametrize(
    ("members", "what", "clue"),
    [
        ({"passes": property(lambda self: self.counter)}, "inner.passes", "counter.total"),
        ({"passes": property(lambda self: -self.counter.total)}, "inner.passes", "not negative"),
        ({"passes": property(lambda self: math.nan)}, "inner.passes", "not negative"),
        ({"column_passes": lambda self: 3}, "inner.column_passes", "is a property"),
        ({"column_passes": 0}, "inner.column_passes", "right-hand side"),
    ],
)
def test_counters_that_show_no_passes(members: Any, what: str, clue: str) -> None:
    named(ridge(**{**members, "rows": None, "n_rows": property(no_rows)}), what, clue)


def no_rows(self: Any) -> int:
    raise AttributeError("rows")


def test_a_counter_that_runs_backwards() -> None:
    right = ridge()
    inner = type(right.inner)(counter=Restarted())
    named(replace(right, inner=inner), "inner.passes", "expected it to grow")


def test_a_unit_that_runs_do_not_know() -> None:
    assert check_problem(ridge(unit="evaluations")).ok
    named(ridge(unit="calls"), "inner.unit", "'passes', 'evaluations'")


def test_an_objective_that_counts_nothing_is_noted() -> None:
    report = check_problem(ridge(passes=0, column_passes=0))
    assert any("inner.passes counts nothing" in note for note in report.notes)


# -- bounds of rounding -------------------------------------------------------------------------------


def spoilt(change: Callable[[Rounding], Any]) -> Any:
    """Points whose bounds are changed."""

    def rounding(self: Any, *arguments: Any) -> Any:
        return change(RidgePoint.rounding(self, *arguments))

    return changed(RidgePoint, rounding=rounding)


def deaf(self: Any, vectors: Any, pushed: Any = None, scale: Any = None) -> Any:
    return RidgePoint.rounding(self, vectors)


@pytest.mark.parametrize(
    ("points", "what", "clue"),
    [
        (spoilt(lambda r: (r.grad, r.products, r.cross)), "inner.rounding", "expected a Rounding"),
        (spoilt(lambda r: replace(r, grad=math.nan * r.grad)), "inner.rounding", "NaN"),
        (spoilt(lambda r: replace(r, grad=-r.grad)), "inner.rounding", "below 0"),
        (spoilt(lambda r: replace(r, grad=1e-9)), "inner.rounding", "of Python"),
        (spoilt(lambda r: replace(r, products=r.grad)), "inner.rounding", "shape ()"),
        (
            spoilt(lambda r: replace(r, products=1e-9 * r.products)),
            "inner.rounding (products)",
            "too few operations",
        ),
        (changed(RidgePoint, rounding=deaf), "inner.rounding", "scale is left out"),
        (changed(RidgePoint, rounding=3), "inner.rounding", "is a method"),
    ],
)
def test_bounds_of_rounding_that_are_none(points: Any, what: str, clue: str) -> None:
    named(ridge(points), what, clue)


def test_a_bound_of_the_gradient_that_counts_none_of_what_cancels() -> None:
    """10⁶ is added and taken away: noise of 10⁻¹⁰, where the bound knows of 10⁻¹³."""

    def grad(self: Any) -> Any:
        return (RidgePoint.grad.func(self) + 1e6) - 1e6

    points = changed(RidgePoint, grad=property(grad))
    named(ridge(points), "inner.rounding (grad)", "close points show noise")


def test_bounds_that_are_not_stated_are_no_fault() -> None:
    unknown = changed(RidgePoint, rounding=lambda self, *arguments: None)
    for points in (unknown, without("rounding", RidgePoint, Point)):
        report = check_problem(ridge(points))
        assert report.ok, str(report)


# -- criteria -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Misfit:
    """g = ½ s ‖B x - z‖², with all that a criterion may have."""

    B: Any = field(default_factory=B.copy)
    z: Any = field(default_factory=Z.copy)
    s: float = 1.0
    counter: Passes = field(default_factory=Passes, compare=False)

    passes = property(lambda self: self.counter.total)
    n_rows = property(lambda self: len(self.z))

    def at(self, x: Any, lam: Any) -> Any:
        return MisfitPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        return OuterConstants(grad_lam_lipschitz=0.0, self_concordance=0.0, least=0.0)

    def rows(self, index: Any) -> Any:
        share = len(index) / self.n_rows
        counter = SharedPasses(self.counter, share)
        return replace(self, B=self.B[index], z=self.z[index], s=self.s / share, counter=counter)


@dataclass(frozen=True)
class MisfitPoint:
    """Its value and gradients, G, and the bounds."""

    outer: Any
    x: Any
    lam: Any

    @cached_property
    def _residual(self) -> Any:
        self.outer.counter.count_forward(self.x)
        return self.outer.B @ self.x - self.outer.z

    value = cached_property(lambda self: self.outer.s * np.sum(self._residual**2) / 2)
    grad_lam = property(lambda self: 0 * self.lam)

    @cached_property
    def grad_x(self) -> Any:
        self.outer.counter.count_backward(self._residual)
        return self.outer.s * self.outer.B.T @ self._residual

    def hvp(self, v: Any) -> Any:
        return self.outer.s * self.outer.B.T @ (self.outer.B @ v)

    def top(self) -> Any:
        return np.asarray(self.outer.s * np.sum(self.outer.B**2))

    @property
    def _sizes(self) -> tuple[float, float, float]:
        few = 4 * sum(self.outer.B.shape) * np.finfo(self.x.dtype).eps
        heavy = float(np.linalg.norm(self.outer.B))
        size = heavy * float(np.linalg.norm(self.x)) + float(np.linalg.norm(self.outer.z))
        return self.outer.s * few, heavy, size

    def rounding(self, scale: Any = None) -> Any:
        few, heavy, size = self._sizes
        most = 1.0 if scale is None else np.max(np.abs(scale))
        return OuterRounding(*map(np.asarray, (few * size**2, most * few * heavy * size, 0.0)))

    @property
    def value_rounding(self) -> Any:
        few, _, size = self._sizes
        return np.asarray(few * size**2)

    def product_rounding(self, v: Any) -> Any:
        few, heavy, _ = self._sizes
        return few * heavy**2 * np.linalg.norm(v, axis=0)


def misfit(points: Any = MisfitPoint, **members: Any) -> Problem:
    members = {"at": lambda self, x, lam: points(self, x, lam), **members}
    return Problem(Ridge(), changed(Misfit, **members)())


def test_a_criterion_with_all_that_is_optional_is_right() -> None:
    report = check_problem(misfit())
    assert report.ok, str(report)
    asked = {"outer.rows (grad_x)", "outer.rounding (value)", "outer.product_rounding"}
    assert asked | {"outer.passes", "outer.value_rounding", "outer.top"} <= set(report.checked)


@pytest.mark.parametrize(
    ("problem", "what", "clue"),
    [
        (
            lambda: misfit(changed(MisfitPoint, rounding=lambda self, scale=None: (0.0, 0.0, 0.0))),
            "outer.rounding",
            "return OuterRounding(value, grad_x, grad_lam)",
        ),
        (
            lambda: misfit(
                changed(
                    MisfitPoint,
                    rounding=lambda self, scale=None: OuterRounding(
                        *(np.asarray(math.nan) for _ in range(3))
                    ),
                )
            ),
            "outer.rounding",
            "NaN",
        ),
        (
            lambda: misfit(changed(MisfitPoint, rounding=lambda self: MisfitPoint.rounding(self))),
            "outer.rounding",
            "TypeError",
        ),
        (
            lambda: misfit(changed(MisfitPoint, value_rounding=np.asarray(-1.0))),
            "outer.value_rounding",
            "below 0",
        ),
        (
            lambda: misfit(
                changed(
                    MisfitPoint,
                    product_rounding=lambda self, v: 1e-9 * MisfitPoint.product_rounding(self, v),
                )
            ),
            "outer.product_rounding",
            "the bounds of the three allow",
        ),
        (
            lambda: misfit(rows=lambda self, index: replace(Misfit.rows(self, index), s=self.s)),
            "outer.rows (value)",
            "n / k times",
        ),
        (
            lambda: misfit(passes=property(lambda self: "many")),
            "outer.passes",
            "expected a number",
        ),
    ],
    ids=["tuple", "NaN", "no scale", "negative", "products", "rows", "passes"],
)
def test_a_criterion_whose_optional_member_is_wrong(problem: Any, what: str, clue: str) -> None:
    report = check_problem(problem())
    assert {finding.what for finding in report.findings} == {what}, str(report)
    assert clue in str(report.findings[0])


def test_a_value_that_is_known_worse_than_it_says() -> None:
    """10⁶ is added and taken away: noise of 10⁻¹⁰ in g."""
    value = property(lambda self: (MisfitPoint.value.func(self) + 1e6) - 1e6)
    report = check_problem(misfit(changed(MisfitPoint, value=value)))
    found = {finding.what: str(finding) for finding in report.findings}
    assert "close points show noise" in found["outer.rounding (value)"]


def test_only_a_linear_model_offers_rows_to_hold_out() -> None:
    """A method that needs rows of the criterion is refused where the run starts, not within."""
    model = inners.kernel_ridge(A, Y, inners.RBF())
    outer = outers.held_out_kernel(model, B, Z, losses.Squared())
    assert not hasattr(outer, "rows")
    assert hasattr(outers.held_out(B, Z, losses.Squared()), "rows")


# -- designs ------------------------------------------------------------------------------------------


class Own:
    """A dense matrix of an author's own."""

    columns_per_pass, centred_rounding = 1, 1e-30

    def __init__(self, X: Any) -> None:
        self.X, self.passes = X, Passes()
        self.backend, self.dtype, self.shape = bilevel.get_backend(X), X.dtype, X.shape
        self.entries, self.longest_row = X.size, X.shape[1]

    def matmul(self, v: Any) -> Any:
        self.passes.count_forward(v)
        return self.X @ v

    def rmatmul(self, r: Any) -> Any:
        self.passes.count_backward(r)
        return self.X.T @ r

    def gram_diag(self, d: Any, centre: Any = None) -> Any:
        self.passes.count_backward(d)
        return ((self.X if centre is None else self.X - centre) ** 2).T @ d

    def square_matmul(self, v: Any, centre: Any = None) -> Any:
        self.passes.count_forward(v)
        return (self.X if centre is None else self.X - centre) ** 2 @ v

    def rows(self, index: Any) -> Any:
        return type(self)(self.X[index])


def designed(**members: Any) -> Problem:
    design = changed(Own, **members)(A)
    inner = inners.linear_model(design, Y, losses.Squared())
    return Problem(inner, outers.held_out(B, Z, losses.Squared()))


def test_a_design_of_an_authors_own_is_right() -> None:
    report = check_problem(designed())
    assert report.ok, str(report)
    asked = {"passes", "rmatmul", "gram_diag", "square_matmul", "rows", "longest_row"}
    assert {f"inner.design.{name}" for name in asked} <= set(report.checked)


def uncounted(name: str) -> dict[str, Any]:
    return {name: lambda self, v: (self.X if name == "matmul" else self.X.T) @ v}


def shared_counter(self: Any, index: Any) -> Any:
    part = Own(self.X[index])
    part.passes = self.passes
    return part


def in_single(self: Any, v: Any) -> Any:
    self.passes.count_forward(v)
    return (self.X.astype(np.float32) @ v.astype(np.float32)).astype(np.float64)


@pytest.mark.parametrize(
    ("members", "what", "clue"),
    [
        (uncounted("matmul"), "passes", "expected 1 with 1"),
        (uncounted("rmatmul"), "passes", "rmatmul counts 0"),
        (
            {"gram_diag": lambda self, d, centre=None: Own.gram_diag(self, d)},
            "gram_diag",
            "columns of X",
        ),
        (
            {"square_matmul": lambda self, v, centre=None: Own.square_matmul(self, abs(v) ** 2)},
            "square_matmul",
            "rows of X",
        ),
        ({"rows": lambda self, index: Own(self.X[np.sort(index)])}, "rows", "these rows"),
        ({"rows": shared_counter}, "rows (passes)", "new Passes()"),
        ({"longest_row": property(lambda self: 2, lambda self, v: None)}, "longest_row", "entries"),
        (
            {"rounded": lambda self: DenseDesign(np.float32(self.X), self.backend)},
            "rounded (passes)",
            "one counter",
        ),
    ],
)
def test_a_design_whose_member_is_wrong(members: Any, what: str, clue: str) -> None:
    report = check_problem(designed(**members))
    found = {finding.what: str(finding) for finding in report.findings}
    assert f"inner.design.{what}" in found, str(report)
    assert clue in found[f"inner.design.{what}"]


def test_a_transform_that_says_that_it_is_a_sum() -> None:
    """Products in single precision are no sums in the precision of X."""
    report = check_problem(designed(matmul=in_single))
    found = [finding for finding in report.findings if finding.what == "inner.design.longest_row"]
    assert found, str(report)
    assert "leave it out" in str(found[0])


# -- losses -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogCosh(losses.Pointwise):
    """ℓ = log cosh(t - y)."""

    curvature_bound = 1.0
    third_bound = 4 / 27**0.5
    self_concordance = 2.0

    def value(self, y: Any, t: Any, backend: Any) -> Any:
        size = backend.xp.abs(t - y)
        return size + backend.softplus(-2 * size) - math.log(2)

    def derivative(self, y: Any, t: Any, backend: Any) -> Any:
        return backend.xp.tanh(t - y)

    def curvature(self, y: Any, t: Any, backend: Any) -> Any:
        s = backend.expit(-2 * backend.xp.abs(t - y))
        return 4 * s * (1 - s)

    def rounding(self, y: Any, t: Any, backend: Any) -> Any:
        xp, size = backend.xp, backend.xp.abs(t - y)
        units = 2 * losses.ELEMENTARY
        return units * (1 + size), units * (xp.abs(xp.tanh(t - y)) + size)


def lost(**members: Any) -> Problem:
    loss = changed(LogCosh, **members)()
    return Problem(inners.linear_model(A, Y, loss), outers.held_out(B, Z, LogCosh()))


def test_a_loss_of_an_authors_own_is_right() -> None:
    report = check_problem(lost())
    assert report.ok, str(report)
    assert {"inner.loss.rounding", "inner.loss.third_bound"} <= set(report.checked)


def bounded(change: Callable[[Any, Any], Any]) -> Any:
    return lambda self, y, t, backend: change(*LogCosh.rounding(self, y, t, backend))


@pytest.mark.parametrize(
    ("rounding", "clue"),
    [
        (bounded(lambda value, slope: value), "expected a tuple"),
        (bounded(lambda value, slope: (value, slope, slope)), "expected a tuple"),
        (bounded(lambda value, slope: None), "got None"),
        (bounded(lambda value, slope: (math.nan * value, slope)), "of value got NaN"),
        (bounded(lambda value, slope: (value, -slope)), "of derivative got -"),
        (bounded(lambda value, slope: (value, slope[:2])), "of derivative got the shape (2,)"),
        (bounded(lambda value, slope: (1e-3 * value, slope)), "value is off by"),
        (3, "TypeError"),
    ],
)
def test_bounds_of_a_loss_that_are_none(rounding: Any, clue: str) -> None:
    report = check_problem(lost(rounding=rounding))
    found = {finding.what: str(finding) for finding in report.findings}
    assert clue in found["inner.loss.rounding"], str(report)


def test_a_loss_without_bounds_is_no_fault() -> None:
    Silent = without("rounding", LogCosh, losses.Pointwise)
    problem = Problem(inners.linear_model(A, Y, Silent()), outers.held_out(B, Z, Silent()))
    assert check_problem(problem).ok


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"curvature_bound": 0.5}, "curvature_bound"),
        ({"curvature_lower": 0.5}, "curvature_lower"),
        ({"third_bound": 0.2}, "third_bound"),
        ({"self_concordance": 0.5}, "self_concordance"),
        ({"least": lambda self, y, backend: 3.0 + 0 * y}, "least"),
        ({"shift_invariant": True}, "shift_invariant"),
    ],
)
def test_a_loss_whose_constant_is_false(members: Any, what: str) -> None:
    report = check_problem(lost(**members))
    assert any(finding.what == f"inner.loss.{what}" for finding in report.findings), str(report)


# -- what a linear model shortens -----------------------------------------------------------------------


def modelled(**members: Any) -> Problem:
    """A logistic regression, whose points have some members of their own."""
    known = linear(0, n=15, p=4, m=1).problem
    points = changed(LinearPoint, **members)

    class Model(LinearModel):
        def at(self, x: Any, lam: Any, carry: Any = None) -> Any:
            point, own = super().at(x, lam, carry), points(self, x, lam)
            own.__dict__.update(point.__dict__)
            return own

    right: Any = known.inner
    parts = {part.name: getattr(right, part.name) for part in fields(LinearModel) if part.init}
    return replace(known, inner=Model(**parts))


def test_a_linear_model_in_other_clothes_is_right() -> None:
    report = check_problem(modelled())
    assert report.ok, str(report)
    asked = {"inner.joined", "inner.along", "inner.swing", "inner.turning", "inner.leverage"}
    assert asked <= set(report.checked)


@pytest.mark.parametrize(
    ("members", "what", "clue"),
    [
        (
            {"joined": lambda self, pushed, more: pushed},
            "inner.joined",
            "products with the sums",
        ),
        (
            {"along": lambda self, pushed, weights: pushed[..., 0]},
            "inner.along",
            "weighted sum",
        ),
        (
            {"swing": lambda self, pushed: tuple(b / 50 for b in LinearPoint.swing(self, pushed))},
            "inner.swing",
            "is attained",
        ),
        ({"swing": lambda self, pushed: pushed}, "inner.swing", "a tuple of two arrays"),
        (
            {
                "turning": lambda self, pushed, shares: (
                    LinearPoint.turning(self, pushed, shares) / 50
                )
            },
            "inner.turning",
            "attained",
        ),
        ({"turning": lambda self, pushed, shares: pushed}, "inner.turning", "shape (3, 3)"),
        (
            {"leverage": lambda self, pushed, W: LinearPoint.leverage(self, pushed, W) / 20},
            "inner.leverage",
            "grows by",
        ),
        (
            {"rounding_along": lambda self, q, energy: -energy},
            "inner.rounding_along",
            "below 0",
        ),
        (
            {"grad_rounding": property(lambda self: math.nan * self.value)},
            "inner.grad_rounding",
            "NaN",
        ),
        (
            {
                "cross_vjp": lambda self, q: (
                    LinearPoint.cross_vjp(self, q)[:, :1]
                    if q.ndim > 1
                    else LinearPoint.cross_vjp(self, q)
                )
            },
            "inner.cross_vjp of two directions",
            "the shape (1, 1)",
        ),
    ],
)
def test_what_shortens_a_linear_model_and_is_wrong(members: Any, what: str, clue: str) -> None:
    named(modelled(**members), what, clue)


def test_a_point_in_single_precision_that_is_another() -> None:
    """``rounded`` is the same point with cheaper products."""

    def rounded(self: Any) -> Any:
        return self.model.at(2 * self.x, self.lam)

    named(modelled(rounded=rounded), "inner.rounded", "of the point itself")
