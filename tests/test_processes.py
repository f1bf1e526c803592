"""Threads, processes and copies: forks, spawned children, joblib, pickles, deep copies."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel import schedules
from bilevel.backends import _host_csr
from bilevel.design import CSRDesign, MixedPrecision, Standardized, WithIntercept, as_design
from bilevel.hypergrad import Direct, ForwardUnrolled, Implicit, Neumann
from bilevel.inner import (
    RBF,
    GroupL2,
    Matern52,
    SmoothedElasticNet,
    from_autodiff,
    kernel_ridge,
    linear_model,
    mlp,
)
from bilevel.losses import Huber, Logistic, Multinomial, Poisson, Squared, SquaredHinge
from bilevel.methods import HOAG, MAID, METHODS
from bilevel.outer import from_autodiff as outer_from_autodiff
from bilevel.outer import gcv, held_out, held_out_kernel, held_out_mlp, marginal_likelihood, sure
from bilevel.problems import cross_validation, stacked

rng = np.random.default_rng(0)
X, Y, SIGNS = (
    rng.standard_normal((24, 3)),
    rng.standard_normal(24),
    np.where(rng.random(24) > 0.5, 1.0, -1.0),
)
CLASSES = rng.permutation(np.arange(24) % 3)

COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=list(COPIES))
def copied(request):
    return COPIES[request.param]


def need_copies_of_arrays(backend):
    if backend.name == "dpnp":
        pytest.skip("dpnp's arrays can neither be pickled nor copied")


# -- copies --------------------------------------------------------------------------------------


def test_a_backend_stays_equal(backend, copied):
    again = copied(backend)
    assert again == backend
    assert hash(again) == hash(backend)
    assert again.xp is backend.xp
    assert len(pickle.dumps(backend)) < 200  # by name: no module, no device


def designs(backend):
    dense = backend.asarray(X)
    yield as_design(dense)
    yield WithIntercept(Standardized.fit(as_design(dense)))
    yield MixedPrecision(as_design(backend.asarray(X, dtype=backend.xp.float32)))
    if backend.name in ("numpy", "torch", "cupy"):
        csr = sparse.csr_array(X * (X > 0))
        kernel = backend.csr(csr.data, csr.indices, csr.indptr, csr.shape, backend.xp.float64)
        yield CSRDesign(kernel, backend)


def test_designs_multiply_and_count_alike(backend, copied):
    need_copies_of_arrays(backend)
    for design in designs(backend):
        r = backend.asarray(np.arange(24.0))
        product = design.rmatmul(r)
        design.gram_diag(r)  # fills what a kernel keeps
        again = copied(design)
        assert again.passes.total == design.passes.total
        np.testing.assert_array_equal(backend.to_numpy(again.rmatmul(r)), backend.to_numpy(product))
        assert again.passes.total == design.passes.total + 1  # a counter of its own


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_problems_and_results_on_every_backend(backend, copied, fit_intercept):
    need_copies_of_arrays(backend)
    data, labels = backend.asarray(X), backend.asarray(SIGNS)
    problem = bilevel.logistic_regression(data, labels, data, labels, fit_intercept=fit_intercept)
    result = bilevel.minimize(problem, max_iter=3)  # fills what a problem keeps
    again = copied(problem)
    assert again.backend == backend
    assert again.probe == problem.probe
    found = bilevel.minimize(again, max_iter=3)
    kept = copied(result)
    for other in (found, kept):
        assert other.status is result.status
        assert other.fun == result.fun
        assert len(other.history) == len(result.history)
        np.testing.assert_array_equal(backend.to_numpy(other.x), backend.to_numpy(result.x))


def h(x, lam):
    return ((x - 1) ** 2).sum() / 2 + lam[0].exp() * (x * x).sum() / 2


def g(x, lam):
    return ((x - 2) ** 2).sum() / 2 + (lam * lam).sum() / 10


def problems():
    yield (
        "ridge",
        lambda: bilevel.Problem(
            linear_model(X, Y, Squared(), groups=[0, 1, 0]), held_out(X, Y, Squared())
        ),
    )
    for loss, y in (
        (Huber(), Y),
        (Poisson(), np.abs(np.round(Y))),
        (SquaredHinge(), SIGNS),
        (Multinomial(3), CLASSES),
    ):
        yield (
            type(loss).__name__,
            lambda loss=loss, y=y: bilevel.Problem(
                linear_model(X, y, loss, fit_intercept=True),
                held_out(X, y, loss, fit_intercept=True),
            ),
        )
    yield (
        "elastic net",
        lambda: bilevel.Problem(
            linear_model(X, Y, Squared(), penalty=SmoothedElasticNet()), held_out(X, Y, Squared())
        ),
    )
    for name, criterion in (
        ("gcv", gcv),
        ("sure", lambda model: sure(model, 0.5)),
        ("marginal likelihood", lambda model: marginal_likelihood(model, noise=0.5)),
    ):
        yield name, lambda criterion=criterion: _own(linear_model(X, Y, Squared()), criterion)
    for kernel in (RBF(), Matern52()):
        yield (
            type(kernel).__name__,
            lambda kernel=kernel: _own(
                kernel_ridge(X, Y, kernel), lambda model: held_out_kernel(model, X, Y, Squared())
            ),
        )
    yield (
        "network",
        lambda: _own(mlp(X, SIGNS, Logistic(), [2]), lambda net: held_out_mlp(net, X, SIGNS)),
    )
    yield "folds", lambda: cross_validation(X, SIGNS, Logistic(), folds=3)
    yield "stacked", lambda: stacked([bilevel.logistic_regression(X, SIGNS, X, SIGNS)] * 2)


def _own(model, criterion):
    return bilevel.Problem(model, criterion(model))


PROBLEMS = dict(problems())


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_kind_of_problem(name, copied):
    problem = PROBLEMS[name]()
    lam = problem.lam(0.1)
    x = problem.backend.normal(0, problem.inner.x_shape, problem.dtype) / 10
    for part in (problem.inner.at(x, lam), problem.outer.at(x, lam)):
        _ = part.value  # fills what the owners of points keep
    _ = problem.inner.constants(lam), problem.outer_constants
    again = copied(problem)
    assert again.probe == problem.probe
    assert again.inner.at(x, lam).value == problem.inner.at(x, lam).value
    assert again.domain == problem.domain


@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_derivatives_by_an_engine(engine, copied):
    pytest.importorskip(engine)
    functions = (h, g) if engine == "torch" else (h_jax, g_jax)
    problem = bilevel.Problem(
        from_autodiff(
            functions[0], engine=engine, like=np.zeros(1), x_shape=(3,), n_hyperparameters=1
        ),
        outer_from_autodiff(functions[1], engine=engine, like=np.zeros(1)),
    )
    x, lam = np.arange(3.0), np.array([0.3])
    point = problem.inner.at(x, lam)
    expected = point.value, point.hvp(x), point.cross_vjp(x), point.cross_jvp(lam)
    point = copied(problem).inner.at(x, lam)
    for ours, theirs in zip(
        (point.value, point.hvp(x), point.cross_vjp(x), point.cross_jvp(lam)), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(point.hvp(x), (1 + np.exp(0.3)) * x)
    np.testing.assert_allclose(point.cross_vjp(x), np.exp(0.3) * x @ x)


def h_jax(x, lam):
    import jax.numpy as jnp

    return jnp.sum((x - 1) ** 2) / 2 + jnp.exp(lam[0]) * jnp.sum(x * x) / 2


def g_jax(x, lam):
    return ((x - 2) ** 2).sum() / 2 + (lam * lam).sum() / 10


@pytest.mark.parametrize(
    "value",
    [
        *(make() for make in METHODS.values()),
        HOAG(),
        MAID(),
        *(make() for make in (Implicit, Direct, Neumann, ForwardUnrolled)),
        schedules.quadratic(),
        schedules.Exponential(),
        bilevel.Box(-1, 2),
        bilevel.Ball(0.0, 3.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_methods_and_their_parts(value, copied):
    assert copied(value) == value


def test_groups_and_multistarts(copied):
    backend = bilevel.get_backend("numpy")
    penalty = GroupL2.from_labels([0, 1, 0], (3,), backend)
    assert copied(penalty).n_hyperparameters == 2
    found = bilevel.multistart(bilevel.logistic_regression(X, SIGNS, X, SIGNS), 2, max_iter=2)
    assert copied(found).best.fun == found.best.fun


def test_an_array_of_another_process_is_of_the_same_backend(backend):
    need_copies_of_arrays(backend)
    array = COPIES["pickle"](backend.asarray(X))
    assert bilevel.get_backend(array) == backend


# -- threads -------------------------------------------------------------------------------------


def large():
    draw = np.random.default_rng(1)
    A = sparse.random_array((2000, 400), density=0.3, format="csr", rng=draw)
    y = np.where(A @ draw.standard_normal(400) > 0, 1.0, -1.0)
    return bilevel.logistic_regression(A[:1500], y[:1500], A[1500:], y[1500:])


@pytest.mark.parametrize("kernel", ["default", "SciPy"])
def test_runs_in_threads_are_as_alone(kernel, monkeypatch, request):
    if kernel == "SciPy":
        request.getfixturevalue("no_mkl")
    monkeypatch.setattr(_host_csr, "_MIN_NNZ_PER_THREAD", 1000)
    monkeypatch.setenv("BILEVEL_NUM_THREADS", "3")
    problem = large()
    alone = bilevel.minimize(large(), max_iter=2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: bilevel.minimize(problem, max_iter=2), range(4)))
    assert [result.fun for result in found] == [alone.fun] * 4


SCRIPT = """
import os, sys, threading, time
os.environ["BILEVEL_NUM_THREADS"] = "2"
import multiprocessing
import numpy as np
from scipy import sparse
import bilevel
from bilevel.backends import _host_csr

_host_csr._MIN_NNZ_PER_THREAD = 1000

def problem(library):
    draw = np.random.default_rng(1)
    A = sparse.random_array((400, 60), density=0.5, format="csr", rng=draw)
    y = np.where(A @ draw.standard_normal(60) > 0, 1.0, -1.0)
    if library != "numpy":
        backend = bilevel.get_backend(library)
        A, y = backend.asarray(A.toarray()), backend.asarray(y)
    return bilevel.logistic_regression(A[:300], y[:300], A[300:], y[300:])

def run(problem):
    if problem.backend.name in ("numpy", "torch"):
        return bilevel.minimize(problem, max_iter=2).fun
    return float(problem.inner.at(problem.x(None), problem.lam(0.0)).value)  # they start slowly

def run_own(_):
    return run(OWN)

def answers(how, own):
    if how == "joblib":
        from joblib import Parallel, delayed
        return Parallel(2)(delayed(run)(own) for _ in range(3))
    if how == "fork":  # children have the parent's objects, with all that they keep
        global OWN
        OWN = own
        with multiprocessing.get_context(how).Pool(2) as pool:
            return pool.map_async(run_own, range(3)).get(60)
    with multiprocessing.get_context(how).Pool(2) as pool:
        return pool.map_async(run, [own] * 3).get(60)

def main(how, library):
    own = problem(library)
    here = run(own)  # threads of this process exist from here on
    there = answers(how, own)
    assert all(abs(value - here) <= 1e-9 * abs(here) for value in there), (here, there)
    print("as here")

def ending():
    design = problem("numpy").inner.design
    def late():
        threading.main_thread().join()  # Python is ending, and waits for this thread
        print("as here" if design.matmul(np.ones(60)).shape == (300,) else "not")
    threading.Thread(target=late).start()

if __name__ == "__main__":
    ending() if sys.argv[1] == "ending" else main(*sys.argv[1:])
"""


def script(tmp_path, *arguments, **environment):
    """Run SCRIPT in a fresh interpreter: JAX, which others load, bears no fork."""
    import os

    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(file), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


STARTS = [
    how
    for how in ("fork", "forkserver", "spawn", "joblib")
    if how == "joblib" or how in __import__("multiprocessing").get_all_start_methods()
]


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("mkl", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_children_answer_as_their_parent(tmp_path, how, mkl):
    """A child that was forked after a threaded product once waited for threads it did not have."""
    done = script(tmp_path, how, "numpy", BILEVEL_MKL=mkl, OMP_NUM_THREADS="2")
    assert done.stdout.strip() == "as here", done.stderr[-2000:]


def test_a_forked_child_works_on_with_torch(tmp_path):
    pytest.importorskip("torch")
    if "fork" not in STARTS:
        pytest.skip("no forks here")
    done = script(tmp_path, "fork", "torch", OMP_NUM_THREADS="2")
    assert done.stdout.strip() == "as here", done.stderr[-2000:]


@pytest.mark.parametrize("library", ["jax", "dpnp"])
def test_a_library_that_bears_no_fork_says_so(tmp_path, library):
    """It would wait for ever; by 'spawn' it works."""
    try:
        bilevel.get_backend(library)
    except bilevel.BackendUnavailableError as error:
        pytest.skip(str(error))
    if "fork" not in STARTS:
        pytest.skip("no forks here")
    done = script(tmp_path, "fork", library)
    assert f"The {library} backend was in use when this process was forked" in done.stderr


@pytest.mark.slow
def test_spawned_children_of_jax(tmp_path):
    pytest.importorskip("jax")
    done = script(tmp_path, "spawn", "jax")
    assert done.stdout.strip() == "as here", done.stderr[-2000:]


def test_a_thread_that_outlives_the_main_one(tmp_path):
    """Python's pools refuse work then."""
    done = script(tmp_path, "ending", BILEVEL_MKL="0")
    assert done.stdout.strip() == "as here", done.stderr[-2000:]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("bilevel.stacked", "StackedInner"),
        ("bilevel.stacked", "StackedOuter"),
        ("bilevel.stacked", "Layout"),
        ("bilevel.cross_validation", "cross_validation"),
        ("bilevel.multistart", "MultistartResult"),
        ("bilevel.problem", "Problem"),
    ],
)
def test_pickles_of_0_1_0_name_what_is_there(module, name):
    """Classes have moved since; a pickle finds them by the module that they were in."""
    found = pickle.loads(f"c{module}\n{name}\n.".encode())
    assert found.__qualname__ == name
    assert found.__module__.startswith("bilevel.")
