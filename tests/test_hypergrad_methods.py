"""Hypergradient methods: against differences of what they differentiate, and of f itself."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from derivatives import central, close, one_of_each_kind

import bilevel
from bilevel.hypergrad import (
    Direct,
    ForwardUnrolled,
    Implicit,
    InformationBuffer,
    Neumann,
    ReverseLBFGS,
    ReverseUnrolled,
    Reversible,
    tangent_bound,
    unsolved,
)
from bilevel.hypergrad.surrogate import certified
from bilevel.hypergrad.unrolled_lbfgs import two_loop
from bilevel.inner import RBF, InnerConstants, kernel_ridge, linear_model, minibatches, mlp
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.outer import OuterConstants, gcv, held_out, held_out_mlp, marginal_likelihood, sure
from bilevel.problem import Problem
from bilevel.solvers import NewtonCG, solve
from bilevel.testing.quadratic import Quadratic, QuadraticOuter

N, P = 20, 4
NUMPY = bilevel.get_backend("numpy")
RNG = np.random.default_rng(0)
X, X_VAL = RNG.standard_normal((N, P)), RNG.standard_normal((10, P))
Y, Y_VAL = np.sign(RNG.standard_normal(N)), np.sign(RNG.standard_normal(10))
CLASSES, CLASSES_VAL = RNG.integers(0, 3, N), RNG.integers(0, 3, 10)
GROUPS = np.array([0, 1, 1, 0])


def logistic(backend=NUMPY):
    send = backend.asarray
    return bilevel.logistic_regression(send(X), send(Y), send(X_VAL), send(Y_VAL), groups=GROUPS)


def multinomial(backend=NUMPY):
    send = backend.asarray
    loss = Multinomial(3)
    inner = linear_model(send(X), send(CLASSES), loss, groups=GROUPS)
    return Problem(inner, held_out(send(X_VAL), send(CLASSES_VAL), loss))


def direct_dependence(make):
    def build(backend=NUMPY):
        inner = linear_model(backend.asarray(X), backend.asarray(Y), Squared(), groups=GROUPS)
        return Problem(inner, make(inner))

    return build


def kernel(backend=NUMPY):
    inner = kernel_ridge(backend.asarray(X), backend.asarray(Y), RBF())
    return Problem(inner, gcv(inner))


PROBLEMS = {
    "logistic": logistic,
    "multinomial": multinomial,
    "gcv": direct_dependence(gcv),
    "sure": direct_dependence(lambda h: sure(h, 0.5)),
    "marginal likelihood": direct_dependence(marginal_likelihood),
    "kernel": kernel,
}
METHODS = {
    "implicit": Implicit(),
    "direct": Direct(columns=3),
    "neumann": Neumann(n_terms=4000),
    "forward": ForwardUnrolled(n_steps=1500),
    "reverse": ReverseUnrolled(n_steps=1500),
    "heavy ball, forward": ForwardUnrolled(n_steps=400, momentum=0.8),
    "heavy ball, reverse": ReverseUnrolled(n_steps=400, momentum=0.8),
    "l-bfgs": ReverseLBFGS(n_steps=40, memory=20),
    "reversible": Reversible(n_steps=1000),
}
EXAMPLES = ("direct", "forward", "reverse", "l-bfgs", "reversible")
UNROLLED = [name for name in METHODS if name not in ("implicit", "direct", "neumann")]
LAM = np.array([0.3, -0.4])


def solved(problem, lam=LAM, tol=1e-11):
    backend = problem.backend
    lam = backend.asarray(lam)
    return solve(problem.inner, lam, problem.x(None), solver=NewtonCG(), tol=tol)


def true_hypergradient(problem, lam=LAM):
    """Central differences of f(λ) = g(X(λ), λ), each solved tightly."""

    def f(lam):
        inner = solved(problem, lam, 1e-13)
        return float(problem.outer.at(inner.x, inner.point.lam).value)

    return np.array([central(lambda t, e=e: f(lam + t * e), 1e-2) for e in np.eye(lam.shape[0])])


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_method_agrees_with_differences_of_f(name):
    problem = PROBLEMS[name]()
    truth = true_hypergradient(problem)
    inner = solved(problem)
    for label, method in METHODS.items():
        if label not in UNROLLED:
            result = method(problem, inner, tol=1e-9)
            close(result.value, truth, rtol=1e-5)
            assert result.status.success, label
            assert result.residual <= 1e-8


@pytest.mark.parametrize("label", UNROLLED)
def test_unrolled_methods_reach_the_hypergradient_from_zero(label):
    problem = logistic()
    result = METHODS[label](problem, unsolved(problem, LAM, np.zeros(P)), tol=1e-9)
    close(result.value, true_hypergradient(problem), rtol=1e-4)
    assert result.error_bound is not None
    assert result.error_bound < 0.1


@pytest.mark.parametrize("label", METHODS)
def test_backends_agree(backend, label):
    one_of_each_kind(backend, label in EXAMPLES)
    problem, here = multinomial(backend), multinomial()
    method = METHODS[label]
    if label in UNROLLED:
        method = replace(method, n_steps=7)
    elif label == "neumann":
        method = Neumann(n_terms=15)
    x = RNG.standard_normal((P, 3))
    found = method(problem, unsolved(problem, backend.asarray(LAM), backend.asarray(x)), tol=1e-9)
    expected = method(here, unsolved(here, LAM, x), tol=1e-9)
    close(backend.to_numpy(found.value), expected.value, rtol=1e-7)
    if expected.error_bound is not None:
        assert found.error_bound == pytest.approx(expected.error_bound, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
@pytest.mark.parametrize("mode", [ForwardUnrolled, ReverseUnrolled])
@pytest.mark.parametrize("name", ["logistic", "multinomial", "gcv", "kernel"])
def test_few_steps_are_differentiated_exactly(name, momentum, mode):
    """p is the derivative of λ ↦ g(x_T(λ), λ) for T = 6, far from any solution."""
    problem = PROBLEMS[name]()
    method = mode(n_steps=6, step=0.02, momentum=momentum)
    x0 = RNG.standard_normal(problem.inner.x_shape)

    def final(lam):
        points = method.walk(problem, problem.inner.at(x0, lam))
        return float(problem.outer.at(points[-1].x, lam).value)

    result = method(problem, unsolved(problem, LAM, x0), tol=0.0)
    d = np.array([0.6, -0.8])
    close(result.value @ d, central(lambda t: final(LAM + t * d), 1e-3))


@pytest.mark.parametrize("name", ["logistic", "multinomial", "gcv", "kernel"])
@pytest.mark.parametrize("memory", [2, 10])
def test_lbfgs_is_differentiated_exactly(name, memory):
    problem = PROBLEMS[name]()
    method = ReverseLBFGS(n_steps=6, memory=memory)
    x0 = 0.3 * RNG.standard_normal(problem.inner.x_shape)
    run = method.walk(problem, problem.inner.at(x0, LAM), 0.0)
    assert len(run.loops) == 6

    def final(lam):
        replay = method.walk(problem, problem.inner.at(x0, lam), 0.0, run.step_lengths)
        return float(problem.outer.at(replay.points[-1].x, lam).value)

    d = np.array([0.6, -0.8])
    result = method.differentiate(problem, run)
    close(result.value @ d, central(lambda t: final(LAM + t * d), 1e-4), rtol=1e-5)


def test_two_loop_recursion_satisfies_the_secant_equation():
    rng = np.random.default_rng(1)
    A = np.diag([1.0, 2.0, 3.0])
    from bilevel.hypergrad.unrolled_lbfgs import Pair

    pairs = []
    for i, s in enumerate(rng.standard_normal((2, 3))):
        pairs.append(Pair(i, s, A @ s, 1 / (s @ A @ s)))
    loop = two_loop(tuple(pairs), pairs[-1].y, NUMPY)
    close(loop.r, pairs[-1].s, rtol=1e-12)


@pytest.mark.parametrize("method", [ReverseUnrolled, ReverseLBFGS])
def test_truncation_drops_the_early_steps(method):
    problem = logistic()
    start = unsolved(problem, LAM, np.zeros(P))
    whole = method(n_steps=6)(problem, start, tol=0.0)
    almost = method(n_steps=6, truncate=6)(problem, start, tol=0.0)
    one = method(n_steps=6, truncate=1)(problem, start, tol=0.0)
    close(almost.value, whole.value, rtol=1e-14)
    assert one.n_iter == 1
    assert np.linalg.norm(one.value - whole.value) > 1e-3 * np.linalg.norm(whole.value)


def test_truncated_forward_and_reverse_mode_agree():
    problem = logistic()
    start = unsolved(problem, LAM, np.ones(P))
    options = {"n_steps": 9, "momentum": 0.5, "truncate": 4}
    forward = ForwardUnrolled(**options)(problem, start, tol=0.0)
    reverse = ReverseUnrolled(**options)(problem, start, tol=0.0)
    close(forward.value, reverse.value, rtol=1e-12)


@pytest.mark.parametrize("label", METHODS)
@pytest.mark.parametrize("n_steps", [1, 10, 60])
def test_the_error_bound_is_a_bound(label, n_steps):
    """Loose points and few steps: the true error never exceeds the stated bound."""
    problem, truth = logistic(), true_hypergradient(logistic())
    if label in ("implicit", "direct"):
        method = METHODS[label]
    elif label == "neumann":
        method = Neumann(n_terms=n_steps)
    else:
        method = replace(METHODS[label], n_steps=n_steps)
    near = solved(problem).x
    for size in (0.0, 1e-4, 1e-2, 1.0):
        x0 = near + size * RNG.standard_normal(P)
        result = method(problem, unsolved(problem, LAM, x0), tol=1e-3)
        assert result.error_bound is not None
        error = np.linalg.norm(result.value - truth)
        assert error <= result.error_bound * (1 + 1e-6) + 1e-7


def test_the_bound_counts_what_an_unrolled_sum_differs_by():
    """At an exact solution with an exact q, all that is left is the distance of p to p(q)."""
    problem = logistic()
    inner = solved(problem, tol=1e-13)
    exact = Direct()(problem, inner, tol=0.0)
    delta = np.array([3.0, -4.0])
    result = certified(
        problem,
        inner.point,
        exact.outer,
        exact.value + delta,
        exact.adjoint,
        n_iter=1,
        status=exact.status,
    )
    assert result.error_bound == pytest.approx(5.0, rel=1e-6)


def test_no_bound_is_given_without_the_constants():
    inner = mlp(X, CLASSES, Multinomial(3), [3])
    problem = Problem(inner, held_out_mlp(inner, X_VAL, CLASSES_VAL))
    start = unsolved(problem, np.ones(2), inner.initial())
    for method in (Direct(), ReverseUnrolled(n_steps=3, step=0.01), ReverseLBFGS(n_steps=3)):
        result = method(problem, start, tol=1e-6)
        assert result.error_bound is None
        assert np.isfinite(result.value).all()
    assert (
        tangent_bound(
            InnerConstants(),
            OuterConstants(1.0, 0.0),
            inner_error=0.0,
            residual=0.0,
            tangent_norm=0.0,
            grad_x_norm=0.0,
        )
        is None
    )


def test_direct_reports_negative_curvature():
    inner = mlp(X, CLASSES, Multinomial(3), [3])
    problem = Problem(inner, held_out_mlp(inner, X_VAL, CLASSES_VAL))
    start = unsolved(problem, np.full(2, -8.0), inner.initial())
    result = Direct()(problem, start, tol=0.0)
    assert result.status is bilevel.Status.NEGATIVE_CURVATURE
    assert result.error_bound is None


BENT = {
    "first": ([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]], True),
    "last": ([[4.0, 2.0, 2.0], [2.0, 5.0, 3.0], [2.0, 3.0, -3.0]], True),
    "hidden by the diagonal": ([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]], True),
    "singular": ([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], False),
}


@pytest.mark.parametrize("kind", BENT)
def test_direct_never_converges_where_the_hessian_is_not_definite(backend, kind):
    """On every library: some raise, some give NaN, and some finite numbers that are wrong."""
    A, regular = np.array(BENT[kind][0]), BENT[kind][1]
    send, m = backend.asarray, 1
    pull, target = np.eye(3), np.array([1.0, 2.0, -1.0])
    inner = Quadratic(
        send(A), send(np.ones(3)), send(np.zeros((3, m))), send(np.zeros((3, m))), backend
    )
    outer = QuadraticOuter(
        send(pull), send(target), send(np.zeros((m, 3))), 0.0, send(np.zeros(m)), backend
    )
    problem = Problem(inner, outer)
    x = np.array([0.5, -1.0, 2.0])
    result = Direct()(problem, unsolved(problem, send(np.zeros(m)), send(x)), tol=0.0)
    status = bilevel.Status.NEGATIVE_CURVATURE if regular else bilevel.Status.NON_FINITE
    assert result.status is status
    assert result.error_bound is None
    adjoint = backend.to_numpy(result.adjoint)
    if regular:  # solved all the same, and the residual says how well
        np.testing.assert_allclose(adjoint, np.linalg.solve(A, x - target), rtol=1e-12)
        assert result.residual < 1e-12
    else:
        assert np.isnan(adjoint).all()
        assert not result.residual < np.inf


def test_one_step_from_afar_that_comes_nearer_has_not_diverged():
    """‖H Z + B‖ is above ‖B‖ there, since B at the start was larger: no sign of a step too long."""
    problem, truth = logistic(), true_hypergradient(logistic())
    x0 = np.array([-0.08, 0.02, -0.31, -0.16])
    method = ForwardUnrolled(n_steps=1)
    result = method(problem, unsolved(problem, LAM, x0), tol=1e-3)
    assert result.status is bilevel.Status.TRUNCATED
    assert np.linalg.norm(result.value - truth) <= result.error_bound


def test_neumann_stops_where_the_series_diverges():
    problem = logistic()
    result = Neumann(n_terms=50, step=10.0)(problem, solved(problem), tol=1e-9)
    assert result.status is bilevel.Status.DIVERGED
    assert result.error_bound is None
    assert result.n_iter <= 2


def test_neumann_obeys_its_a_priori_rate_and_starts_warm():
    problem = logistic()
    inner = solved(problem)
    constants = problem.inner.constants(LAM)
    pull = np.linalg.norm(problem.outer.at(inner.x, LAM).grad_x)
    rate = 1 - constants.mu / constants.smoothness
    for n in (1, 20, 200):
        result = Neumann(n_terms=n)(problem, inner, tol=1e-14)
        assert result.residual <= rate**n * pull * (1 + 1e-9)
    again = Neumann()(problem, inner, tol=result.residual * 1.01, start=result.adjoint)
    assert again.n_iter == 0


# -- reversible SGD ------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [Fraction(9, 10), Fraction(1, 2), Fraction(65, 128)])
def test_the_buffer_makes_products_exact(factor):
    """Two thousand products by γ < 1 turn any integer into almost nothing, and come back."""
    rng = np.random.default_rng(0)
    start = rng.integers(-(2**50), 2**50, 200)
    buffer = InformationBuffer(np.zeros(200, dtype=np.int64))
    c, kept = start, []
    for _ in range(2000):
        kept.append(c)
        product = buffer.multiply(c, factor)
        exact = c * (factor.numerator / factor.denominator)
        assert np.all(np.abs(product - exact) <= factor.numerator + np.abs(exact) * 1e-15)
        c = product
    assert np.abs(c).max() <= 10 * factor.numerator
    for expected in reversed(kept):
        c = buffer.divide(c, factor)
        assert np.array_equal(c, expected)
    assert np.array_equal(c, start)
    assert not buffer.stack
    assert np.all(buffer.low == 0)


def test_the_buffer_grows_by_the_logarithm_of_the_fraction():
    """log2(10/9) = 0.152 bits a step: 3,000 steps are about 456 bits, eight arrays of 62."""
    buffer = InformationBuffer(np.zeros(1, dtype=np.int64))
    c = np.array([2**50])
    for _ in range(3000):
        c = buffer.multiply(c, Fraction(9, 10))
    assert len(buffer.stack) in (7, 8, 9)


@pytest.mark.parametrize("n_batches", [1, 4])
def test_reversal_reproduces_the_start_to_the_last_bit(backend, n_batches):
    from bilevel.hypergrad.reversible import _Walk

    one_of_each_kind(backend, n_batches == 4)
    problem = logistic(backend)
    batches = minibatches(problem.inner, n_batches) if n_batches > 1 else ()
    method = Reversible(n_steps=40, step=0.01, batches=batches)
    x0 = np.random.default_rng(0).standard_normal(P)
    lam = backend.asarray(LAM)
    walk = _Walk(method, problem, lam, 0.01)
    first = walk.integers(backend.asarray(x0))
    walk.forward(first)
    moved = backend.to_numpy(walk.x)
    assert np.all(moved != backend.to_numpy(first))
    for _ in walk.backward():
        pass
    assert np.array_equal(backend.to_numpy(walk.x), backend.to_numpy(first))
    assert np.all(backend.to_numpy(walk.v) == 0)
    result = method(problem, unsolved(problem, lam, backend.asarray(x0)), tol=0.0)
    assert result.status is bilevel.Status.TRUNCATED  # not STALLED: 40 steps came back exactly


def test_floating_point_would_not_reverse():
    """The negative control: the same steps in float64 do not come back to the start."""
    problem = logistic()
    x0 = np.random.default_rng(0).standard_normal(P)
    x, v = x0, np.zeros(P)
    for _ in range(400):
        v = 0.9 * v - 0.01 * problem.inner.at(x, LAM).grad
        x = x + v
    for _ in range(400):
        x = x - v
        v = (v + 0.01 * problem.inner.at(x, LAM).grad) / 0.9
    assert not np.array_equal(x, x0)
    assert Reversible(n_steps=400, step=0.01)(
        problem, unsolved(problem, LAM, x0), tol=1e-6
    ).status.success


INEXACT = {
    "forward": lambda step: ForwardUnrolled(n_steps=60, step=step),
    "forward, heavy ball": lambda step: ForwardUnrolled(n_steps=60, step=step, momentum=0.5),
    "reverse": lambda step: ReverseUnrolled(n_steps=60, step=step),
    "reverse, heavy ball": lambda step: ReverseUnrolled(n_steps=60, step=step, momentum=0.5),
    "neumann": lambda step: Neumann(n_terms=60, step=step),
    "reversible": lambda step: Reversible(n_steps=60, step=step),
}
LOST = {
    bilevel.Status.DIVERGED,
    bilevel.Status.OVERFLOW,
    bilevel.Status.NON_FINITE,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("step", [3.0, 1e2, 1e4, 1e150])
@pytest.mark.parametrize("label", INEXACT)
def test_what_diverges_says_so_and_has_no_bound(backend, label, step):
    one_of_each_kind(backend, step == 1e2)
    problem = logistic(backend)
    start = unsolved(problem, backend.asarray(LAM), backend.asarray(np.full(P, 0.1)))
    result = INEXACT[label](step)(problem, start, tol=1e-9)
    assert result.status in LOST, result.status
    assert result.error_bound is None


@pytest.mark.parametrize(
    "method",
    [
        ForwardUnrolled(n_steps=3),
        ForwardUnrolled(n_steps=400, truncate=1),
        ReverseUnrolled(n_steps=3),
        ReverseUnrolled(n_steps=400, truncate=1),
        ReverseUnrolled(n_steps=10, momentum=0.9),
        ReverseLBFGS(n_steps=2),
        ReverseLBFGS(n_steps=30, truncate=1),
        Reversible(n_steps=3),
        Neumann(n_terms=3),
    ],
)
@pytest.mark.parametrize("at_solution", [False, True])
def test_what_is_cut_short_says_so(backend, method, at_solution):
    """Also where x is exact: it is the derivative that has seen too few steps."""
    one_of_each_kind(backend, at_solution)
    problem = logistic(backend)
    inner = unsolved(problem, backend.asarray(LAM), problem.x(None))
    if at_solution:
        inner = solved(problem)
    result = method(problem, inner, tol=1e-6)
    assert result.status is bilevel.Status.TRUNCATED
    truth = true_hypergradient(logistic())
    error = np.linalg.norm(backend.to_numpy(result.value) - truth)
    assert error > 1e-5 * np.linalg.norm(truth)
    assert error <= result.error_bound * (1 + 1e-6)  # what is proven of it stays proven


@pytest.mark.parametrize("label", [label for label in METHODS if label != "l-bfgs"])
def test_what_has_converged_is_right(backend, label):
    """CONVERGED at ``tol`` is within what a residual of ``tol`` may do.

    Not L-BFGS, which takes no step from a solution, and so differentiates none.
    """
    one_of_each_kind(backend, label in EXAMPLES)
    problem, method = logistic(backend), METHODS[label]
    if getattr(method, "n_steps", 0) > 400:
        method = replace(method, n_steps=400)  # enough for tol: it says CONVERGED
    result = method(problem, solved(problem), tol=1e-6)
    assert result.status is bilevel.Status.CONVERGED, result.residual
    truth = true_hypergradient(logistic())
    constants = logistic().inner.constants(LAM)
    allowed = 1e-6 * constants.cross_lipschitz * 10 / constants.mu
    assert np.linalg.norm(backend.to_numpy(result.value) - truth) <= allowed


@pytest.mark.parametrize(("bits", "size"), [(40, 1e7), (48, 1e5), (52, 1e4)])
def test_integers_that_leave_their_range_are_noticed(backend, bits, size):
    problem = logistic(backend)
    start = unsolved(problem, backend.asarray(LAM), backend.asarray(np.full(P, size)))
    result = Reversible(n_steps=20, fraction_bits=bits)(problem, start, tol=1e-6)
    assert result.status is bilevel.Status.OVERFLOW
    assert result.error_bound is None


def test_direct_survives_a_singular_hessian(backend):
    """A row of zeros and no penalty: H = 0."""
    one_of_each_kind(backend, True)
    ones, two = backend.asarray(np.zeros((2, 1))), backend.asarray(np.array([1.0, -1.0]))
    domain = bilevel.Box(-800.0, 0.0)
    problem = bilevel.logistic_regression(ones, two, ones + 1, two, domain=domain)
    start = unsolved(problem, problem.lam(-800.0), problem.x(None))
    result = Direct()(problem, start, tol=0.0)
    assert not result.status.success
    assert result.error_bound is None


@pytest.mark.parametrize("label", ["neumann", "reverse", "forward", "reversible"])
def test_an_inexact_engine_shows_in_the_record(label):
    """The method that took such a p can see what it was."""
    method = bilevel.methods.HOAG(hypergradient=replace_steps(label))
    result = bilevel.minimize(logistic(), LAM_START, method=method, max_iter=4)
    assert result.history[-1].cg_status is bilevel.Status.TRUNCATED


LAM_START = 1.0


def replace_steps(label):
    return Neumann(n_terms=2) if label == "neumann" else replace(METHODS[label], n_steps=2)


def test_reversible_sgd_is_the_derivative_of_the_run():
    problem = logistic()
    batches = minibatches(problem.inner, 4)
    method = Reversible(n_steps=15, step=0.01, batches=batches)
    x0 = RNG.standard_normal(P)

    def final(lam):
        x, v = x0, np.zeros(P)
        for t in range(15):
            v = 0.9 * v - 0.01 * batches[t % 4].at(x, lam).grad
            x = x + v
        return float(problem.outer.at(x, lam).value)

    result = method(problem, unsolved(problem, LAM, x0), tol=0.0)
    d = np.array([0.6, -0.8])
    close(result.value @ d, central(lambda t: final(LAM + t * d), 1e-3))


def test_minibatches_average_to_the_objective():
    weights = RNG.uniform(0, 2, N)
    model = linear_model(X, Y, Logistic(), sample_weight=weights, fit_intercept=True)
    x = RNG.standard_normal(P + 1)
    batches = minibatches(model, 3, seed=2)
    mean = sum(batch.at(x, LAM[:1]).grad for batch in batches) / 3
    close(mean, model.at(x, LAM[:1]).grad, rtol=1e-12)


def test_folds_and_several_classes_go_through_every_method():
    from bilevel.problems import cross_validation

    problem = cross_validation(X, CLASSES, Multinomial(3), folds=2)
    lam = np.array([0.5])
    truth = true_hypergradient(problem, lam)
    inner = solved(problem, lam)
    for method in (Implicit(), Direct(), Neumann(n_terms=5000)):
        close(method(problem, inner, tol=1e-9).value, truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Neumann(n_terms=0), "n_terms"),
        (lambda: Neumann(step=-1.0), "step"),
        (lambda: Direct(columns=0), "columns"),
        (lambda: ReverseUnrolled(n_steps=0), "n_steps"),
        (lambda: ReverseUnrolled(momentum=1.0), "momentum"),
        (lambda: ForwardUnrolled(truncate=0), "truncate"),
        (lambda: ReverseLBFGS(memory=0), "memory"),
        (lambda: Reversible(momentum=0.9), "momentum"),
        (lambda: Reversible(fraction_bits=60), "fraction_bits"),
        (lambda: minibatches(linear_model(X, Y, Logistic()), N + 1), "n_batches"),
    ],
)
def test_parameters_out_of_range_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_step_must_be_given_where_no_smoothness_is_stated():
    inner = mlp(X, CLASSES, Multinomial(3), [3])
    problem = Problem(inner, held_out_mlp(inner, X_VAL, CLASSES_VAL))
    with pytest.raises(ValueError, match="step must be given"):
        Neumann()(problem, unsolved(problem, np.ones(2), inner.initial()), tol=0.1)
