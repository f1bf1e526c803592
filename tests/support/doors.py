"""Every door of the package, with arguments that open it and ones that must not.

A door is a call with good arguments; each of its arguments has a kind, and each kind a list of
values that are none of it. What comes of a bad value has to be one sentence of ours that names the
argument.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

import bilevel
from bilevel import inner, losses, outer, schedules, solvers
from bilevel.hypergrad import (
    Direct,
    ForwardUnrolled,
    Implicit,
    Neumann,
    ReverseLBFGS,
    ReverseUnrolled,
    Reversible,
)
from bilevel.linalg import cg
from bilevel.methods import HOAG, MAID, AdaptiveStep, FixedStep, PathFollowing
from bilevel.problems import cross_validation, stacked, weighted_validation
from bilevel.solvers.linesearch import WolfeSearch
from bilevel.testing import check_problem
from bilevel.testing.problems import linear, quadratic

NAN, INF = float("nan"), float("inf")

RNG = np.random.default_rng(0)
N, P = 12, 3
X = RNG.standard_normal((N, P))
X_VAL = RNG.standard_normal((N - 2, P))
SIGNS, SIGNS_VAL = (np.where(np.arange(len(rows)) % 2 == 0, 1.0, -1.0) for rows in (X, X_VAL))
TARGETS, TARGETS_VAL = X.sum(axis=1), X_VAL.sum(axis=1)
CLASSES = np.arange(N) % 3


def holes(a: Any, value: float = NAN) -> Any:
    """The same with one entry that is none."""
    bad = np.array(a, dtype=np.float64)
    bad.reshape(-1)[-1] = value
    return bad


def problem(**changes: Any) -> bilevel.Problem:
    return bilevel.logistic_regression(X, SIGNS, X_VAL, SIGNS_VAL, **changes)


def ridge() -> Any:
    return inner.linear_model(X, TARGETS, losses.Squared())


def kernel() -> Any:
    return inner.kernel_ridge(X, TARGETS, inner.RBF())


def network() -> Any:
    return inner.mlp(X, TARGETS, losses.Squared(), [2])


def held() -> Any:
    return outer.held_out(X_VAL, TARGETS_VAL, losses.Squared())


# -- kinds of arguments, and what is none of them ----------------------------------------------

NO_NUMBER = ["1", [1.0], np.ones(2), True, object(), 1j, NAN, {}, np.ma.masked]
NO_FINITE = [*NO_NUMBER, INF, 10**400]
NO_POSITIVE = [*NO_FINITE, 0, -1.0, np.float32(-2), np.asarray(-1.0)]
NO_NOISE = [*NO_POSITIVE, 1e200, 1e-200]  # whose squares are no numbers
NO_SHARE = [*NO_POSITIVE, 1, 1.5]
NO_INTEGER = [*NO_NUMBER, 1.5, np.float64(2.0), Fraction(1, 2)]
NO_COUNT = [*NO_INTEGER, 0, -3, np.int64(-1)]
NO_SEED = [*NO_INTEGER, -1]
NO_FLAG = [1, 0, "yes", np.ones(2), 1.0]
NO_FUNCTION = [3, "f", [len], int]
NO_MATRIX = [
    None,
    3.0,
    "X",
    X.tolist(),
    X[:, 0],
    X[:0],
    X[:, :0],
    X[None],
    X.astype(np.int64),
    X.astype(np.float16),
    X.astype(complex),
    X.astype(object),
    holes(X),
    holes(X, INF),
    np.ma.masked_array(X, X > 1),
    type(X),
]
NO_LABELS = [
    None,
    1.0,
    "y",
    SIGNS.tolist(),
    SIGNS[:-1],
    np.ones((N, 1, 1)),
    np.ones((N, 0)),
    holes(SIGNS),
    holes(SIGNS, -INF),
    SIGNS.astype(np.float32),
    SIGNS.astype(complex),
    np.array(["a", "b"] * (N // 2)),
    np.ma.masked_array(SIGNS, SIGNS > 0),
]
NO_SIGNS = [*NO_LABELS, (SIGNS + 1) / 2, SIGNS * 2, CLASSES, np.ones((N, 0))]
NO_WEIGHTS = [
    1.0,
    "s",
    [1.0] * N,
    np.ones(N - 1),
    np.ones((N, 0)),
    np.ones((N, 2, 2)),
    -np.ones(N),
    holes(np.ones(N)),
    np.zeros(N),
    np.stack([np.ones(N), np.zeros(N)], axis=1),
    np.ones(N, dtype=np.float32),
    np.ma.masked_array(np.ones(N), SIGNS > 0),
]
NO_LOSS = ["squared", None, losses.Squared, 3, np.sum]
NO_PENALTY = ["l2", inner.SingleL2, 3]
NO_GROUPS = ["all", [0, 1], [0, 2, 2], [0.0, 1.0, 0.0], 3, [[0], [1, 2]], [True, False, True], -1]
NO_GROUPS += [np.ma.masked_array([0, 0, 1], [False, True, False])]
NO_DOMAIN = [(-1, 1), bilevel.Box, "box", bilevel.Box((-1, -1), 1), bilevel.Ball((0, 0), 1), 3]
NO_PROBLEM = [None, 3, "p", X, bilevel.Problem, (1, 2)]
NO_SOLVER = [None, "lbfgs", solvers.LBFGS, 3]
NO_METHOD = [None, "sgd", HOAG, 3, X]
NO_ARRAY_LIKE = [None, 3.0, [1.0], "numpy", np.ones(1, dtype=np.int32), np.float64(1)]
NO_MODEL = [None, 3, "ridge", bilevel.Problem, inner.LinearModel]
NO_KERNEL = [None, "rbf", inner.RBF, 3]


def maybe(bad: list[Any]) -> list[Any]:
    """What is none of an optional argument: None is."""
    return [value for value in bad if value is not None]


@dataclass(frozen=True)
class Door:
    """A call that works, and for each of its arguments what must not be taken."""

    name: str
    call: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, list[Any]]

    def cases(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, values in self.bad.items() for value in values)

    def knock(self, **changes: Any) -> Any:
        return self.call(**{**self.good, **changes})


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(problem: Any, **options: Any) -> Any:
        return function(problem, **{"max_iter": 1, **options})

    return call


def _first(problem: Any, **options: Any) -> Any:
    return next(iter(bilevel.iterate(problem, **options)))


_LOOP = {
    "problem": NO_PROBLEM,
    "method": NO_METHOD,
    "x0": ["0", 0.0, [0.0] * P, np.zeros(P - 1), holes(np.zeros(P)), np.zeros(P, dtype=np.float32)],
    "tol": maybe([*NO_FINITE, -1.0]),
}
_LAM = ["0", NAN, INF, True, None, [NAN], ["0"], [0.0, 0.0], np.zeros(2), np.zeros(1, dtype="f4")]
_LAM += [np.zeros((1, 1)), holes(np.zeros(1)), {}, object()]
_BUDGETS = {
    "max_iter": NO_COUNT,
    "max_passes": [*NO_NUMBER, 0, -1],
    "max_seconds": [*NO_NUMBER, 0.0, -1.0],
    "callback": NO_FUNCTION,
}


def _functions(**changes: Any) -> Any:
    good = {
        "value_and_grad": lambda x, lam: (x @ x, 2 * x),
        "like": np.zeros(1),
        "x_shape": (2,),
        "n_hyperparameters": 1,
    }
    return inner.from_functions(**{**good, **changes})


def _criterion(**changes: Any) -> Any:
    good = {"value_and_grad": lambda x, lam: (x @ x, 2 * x), "like": np.zeros(1)}
    return outer.from_functions(**{**good, **changes})


def loops() -> list[Door]:
    good = {"problem": problem()}
    found = bilevel.minimize(problem(), max_iter=2)
    lam = maybe(_LAM)
    return [
        Door(
            "minimize",
            _loop(bilevel.minimize),
            good,
            {
                **_LOOP,
                **_BUDGETS,
                "lam0": lam,
                "progress": NO_FUNCTION,
                "checkpoint": [3, "", "no/such/folder/x", True, b"x", ".", "a\0b", "x" * 300],
                "resume": [*NO_FLAG, True],
            },
        ),
        Door("iterate", _first, good, {**_LOOP, "lam0": lam}),
        Door(
            "multistart",
            _loop(bilevel.multistart),
            {**good, "starts": [0.0]},
            {
                **_LOOP,
                **_BUDGETS,
                "starts": [0, -1, 1.5, True, "2", None, [], np.zeros((2, 3)), [[0.0, 1.0]], [NAN]],
                "seed": NO_SEED,
            },
        ),
        Door(
            "certify",
            bilevel.certify,
            {"result": found, "problem": problem()},
            {
                "result": [None, 3, problem(), bilevel.Result],
                "problem": NO_PROBLEM,
                "method": maybe(NO_METHOD),
                "delta": NO_POSITIVE,
                "seed": NO_SEED,
            },
        ),
        Door(
            "check_problem",
            check_problem,
            {"problem": problem()},
            {"problem": NO_PROBLEM, "lam": _LAM, "x": _LOOP["x0"], "seed": NO_SEED},
        ),
    ]


def problems() -> list[Door]:
    data = {"X": X, "y": SIGNS, "X_val": X_VAL, "y_val": SIGNS_VAL}
    other = [X_VAL[:, :-1], X_VAL.astype(np.float32)]
    more = {
        "groups": NO_GROUPS,
        "fit_intercept": NO_FLAG,
        "domain": NO_DOMAIN,
    }
    linear = {"X": X, "y": TARGETS, "loss": losses.Squared()}
    return [
        Door(
            "logistic_regression",
            bilevel.logistic_regression,
            data,
            {
                "X": NO_MATRIX,
                "y": [*NO_SIGNS, SIGNS[:, None]],
                "X_val": [*NO_MATRIX, *other],
                "y_val": NO_SIGNS,
                **more,
            },
        ),
        Door(
            "Problem",
            bilevel.Problem,
            {"inner": ridge(), "outer": held()},
            {
                "inner": [None, 3, held(), inner.LinearModel, kernel(), network(), _functions()],
                "outer": [None, 3, ridge(), outer.HeldOut, *wrong_criteria()],
                "domain": [*NO_DOMAIN, None],
            },
        ),
        Door(
            "linear_model",
            inner.linear_model,
            linear,
            {
                "X": NO_MATRIX,
                "y": NO_LABELS,
                "loss": NO_LOSS,
                "groups": NO_GROUPS,
                "penalty": NO_PENALTY,
                "sample_weight": NO_WEIGHTS,
                "fit_intercept": NO_FLAG,
            },
        ),
        Door(
            "held_out",
            outer.held_out,
            linear,
            {
                "X": NO_MATRIX,
                "y": NO_LABELS,
                "loss": NO_LOSS,
                "sample_weight": NO_WEIGHTS,
                "fit_intercept": NO_FLAG,
            },
        ),
        Door(
            "cross_validation",
            cross_validation,
            linear,
            {
                "X": NO_MATRIX,
                "y": NO_LABELS,
                "loss": NO_LOSS,
                "folds": [
                    1,
                    0,
                    -2,
                    N + 1,
                    2.5,
                    True,
                    "5",
                    None,
                    np.zeros(N, dtype=int),
                    [0, 1],
                    np.ma.array(CLASSES),
                ],
                "seed": NO_SEED,
                **more,
            },
        ),
        Door(
            "weighted_validation",
            weighted_validation,
            {**linear, "train": np.ones((N, 2)), "held": np.ones((N, 2))},
            {"train": [*NO_WEIGHTS, np.ones(N)], "held": [*NO_WEIGHTS, np.ones((N, 3))]},
        ),
        Door("stacked", stacked, {"problems": [problem()]}, {"problems": [[], None, 3, [3]]}),
        Door(
            "as_design",
            bilevel.as_design,
            {"X": X},
            {"X": NO_MATRIX},
        ),
        Door(
            "get_backend",
            bilevel.get_backend,
            {"like": "numpy"},
            {"like": ["tensorflow", None, 3, [1.0]], "device": ["cuda", "tpu", 3]},
        ),
    ]


def wrong_criteria() -> list[Any]:
    """Criteria that do not fit a ridge regression of P features, in one respect each."""
    squared = losses.Squared()
    kernel_model, net = kernel(), network()
    return [
        outer.held_out(X_VAL[:, :-1], TARGETS_VAL, squared),
        outer.held_out(X_VAL, TARGETS_VAL, squared, fit_intercept=True),
        outer.held_out(X_VAL[:, :-1], TARGETS_VAL, squared, fit_intercept=True),
        outer.held_out(X_VAL.astype("f4"), TARGETS_VAL.astype("f4"), squared),
        outer.held_out(X_VAL, np.stack([TARGETS_VAL] * 2, axis=1), squared),
        outer.held_out(X_VAL, TARGETS_VAL, squared, sample_weight=np.ones((len(X_VAL), 2))),
        outer.held_out(X_VAL, np.arange(len(X_VAL)) % 3, losses.Multinomial(3)),
        outer.held_out_kernel(kernel_model, X_VAL, TARGETS_VAL, squared),
        outer.held_out_mlp(net, X_VAL, TARGETS_VAL),
        outer.gcv(kernel_model),
        outer.gcv(inner.linear_model(X_VAL, TARGETS_VAL, squared)),
        outer.sure(inner.linear_model(X, TARGETS + 1, squared), 1.0),
        outer.marginal_likelihood(kernel_model),
        outer.from_functions(lambda x, lam: (x @ x, 2 * x), like=np.zeros(1, dtype="f4")),
    ]


def models() -> list[Door]:
    dense = {
        "X": NO_MATRIX,
        "y": NO_LABELS,
        "sample_weight": [w for w in NO_WEIGHTS if not (hasattr(w, "ndim") and w.ndim == 2)],
    }
    autodiff = {
        "fun": lambda x, lam: (x * x).sum(),
        "engine": "torch",
        "like": np.zeros(1),
        "x_shape": (2,),
        "n_hyperparameters": 1,
    }
    shapes = [None, 3, "2", (), (0,), (1.5,), (True,), (-1,), ("2",)]
    return [
        Door(
            "kernel_ridge",
            inner.kernel_ridge,
            {"X": X, "y": TARGETS, "kernel": inner.RBF()},
            {
                **dense,
                "kernel": NO_KERNEL,
                "kept_entries": [*NO_INTEGER, -1],
                "block_entries": [*NO_INTEGER, -1],
            },
        ),
        Door(
            "mlp",
            inner.mlp,
            {"X": X, "y": TARGETS, "loss": losses.Squared(), "hidden": [2]},
            {
                **dense,
                "loss": NO_LOSS,
                "hidden": [None, 3, "2", [0], [-1], [2.5], [True], ["2"]],
                "activation": ["tanh", inner.Tanh, np.tanh],
            },
        ),
        Door(
            "minibatches",
            inner.minibatches,
            {"model": ridge(), "n_batches": 2},
            {"model": [*NO_MODEL, kernel()], "n_batches": [*NO_COUNT, N + 1], "seed": NO_SEED},
        ),
        Door(
            "inner.from_functions",
            _functions,
            {},
            {
                "value_and_grad": [None, *NO_FUNCTION],
                "like": NO_ARRAY_LIKE,
                "x_shape": shapes,
                "n_hyperparameters": NO_COUNT,
                "hvp": NO_FUNCTION,
                "cross_vjp": NO_FUNCTION,
                "cross_jvp": NO_FUNCTION,
                "constants": [3.0, "mu", {"mu": 1.0}],
                "passes_per_call": [*NO_FINITE, -1.0],
            },
        ),
        Door(
            "inner.from_autodiff",
            inner.from_autodiff,
            autodiff,
            {
                "fun": [None, *NO_FUNCTION],
                "engine": ["tf", None, 3, ["torch"]],
                "like": NO_ARRAY_LIKE,
                "x_shape": shapes,
                "n_hyperparameters": NO_COUNT,
                "passes_per_call": [*NO_FINITE, -1.0],
            },
        ),
        Door(
            "outer.from_functions",
            _criterion,
            {},
            {
                "value_and_grad": [None, *NO_FUNCTION],
                "like": NO_ARRAY_LIKE,
                "grad_lam": NO_FUNCTION,
                "constants": [3.0, inner.InnerConstants()],
                "passes_per_call": [*NO_FINITE, -1.0],
            },
        ),
        Door(
            "held_out_kernel",
            outer.held_out_kernel,
            {"model": kernel(), "X": X, "y": TARGETS, "loss": losses.Squared()},
            {**dense, "model": [*NO_MODEL, ridge()], "loss": [*NO_LOSS, losses.Multinomial(3)]},
        ),
        Door(
            "held_out_mlp",
            outer.held_out_mlp,
            {"model": network(), "X": X, "y": TARGETS},
            {
                "X": NO_MATRIX,
                "y": NO_LABELS,
                "model": [*NO_MODEL, ridge()],
                "loss": maybe(NO_LOSS),
            },
        ),
        Door(
            "gcv",
            outer.gcv,
            {"model": ridge()},
            {"model": [*NO_MODEL, network(), problem().inner]},
        ),
        Door(
            "sure",
            outer.sure,
            {"model": ridge(), "noise": 1.0},
            {"model": [*NO_MODEL, network()], "noise": NO_NOISE},
        ),
        Door(
            "marginal_likelihood",
            outer.marginal_likelihood,
            {"model": ridge()},
            {"model": [*NO_MODEL, network()], "noise": NO_NOISE},
        ),
        Door(
            "perturbed_targets",
            outer.perturbed_targets,
            {"y": TARGETS, "noise": 1.0},
            {
                "y": [None, 3.0, [1.0], X, TARGETS[:0], holes(TARGETS), TARGETS.astype(int)],
                "noise": NO_NOISE,
                "n_probes": NO_COUNT,
                "seed": NO_SEED,
                "epsilon": NO_POSITIVE,
            },
        ),
        Door(
            "monte_carlo_sure",
            outer.monte_carlo_sure,
            {
                "model": inner.linear_model(X, np.stack([TARGETS] * 3, axis=1), losses.Squared()),
                "probes": np.ones((N, 2)),
                "noise": 1.0,
                "epsilon": 0.1,
            },
            {
                "model": [*NO_MODEL, network(), ridge()],
                "probes": [None, 3.0, np.ones((N, 3)), np.ones(N), np.ones((N, 2), dtype="f4")],
                "noise": NO_NOISE,
                "epsilon": NO_POSITIVE,
            },
        ),
    ]


def parameters() -> list[Door]:
    """Dataclasses of numbers: domains, losses, penalties, schedules, solvers, methods."""
    numbers = ["1", None, {}, object(), [["a"]], NAN, [0.0, NAN], [True], []]
    steps = {"n_steps": NO_COUNT, "truncate": NO_COUNT}
    no_function = [None, *NO_FUNCTION]
    return [
        Door("Box", bilevel.Box, {}, {"lower": [*numbers, 13.0, INF], "upper": [*numbers, -13.0]}),
        Door(
            "Ball",
            bilevel.Ball,
            {"center": 0.0, "radius": 1.0},
            {"center": [*numbers, INF], "radius": [None, *NO_POSITIVE]},
        ),
        Door("Huber", losses.Huber, {}, {"delta": [None, *NO_POSITIVE]}),
        Door("Multinomial", losses.Multinomial, {"n_classes": 2}, {"n_classes": [*NO_COUNT, 1]}),
        Door("SmoothedElasticNet", inner.SmoothedElasticNet, {}, {"epsilon": NO_POSITIVE}),
        Door(
            "Polynomial",
            inner.Polynomial,
            {},
            {"degree": NO_COUNT, "constant": [*NO_FINITE, -1.0]},
        ),
        Door(
            "UserKernel",
            inner.UserKernel,
            {
                "n_parameters": 1,
                "function": max,
                "function_derivatives": max,
                "function_diag": max,
            },
            {
                "n_parameters": NO_COUNT,
                "function": no_function,
                "function_derivatives": no_function,
                "function_diag": no_function,
                "derivative_bound": [*NO_FINITE, -1.0],
            },
        ),
        Door(
            "FunctionOperator",
            inner.FunctionOperator,
            {"matvec": max, "rmatvec": max},
            {"matvec": no_function, "rmatvec": no_function},
        ),
        Door(
            "Tikhonov",
            inner.Tikhonov,
            {"operators": (bilevel.as_design(X),)},
            {
                "operators": [None, (), X, (X,), (3,), "L"],
                "norms": [(1.0, 2.0), 1.0, ("1",), (-1.0,), (NAN,)],
                "smallest_singular_value": [*NO_FINITE, -1.0],
            },
        ),
        Door("Power", schedules.Power, {}, {"first": NO_POSITIVE, "exponent": [None, *NO_FINITE]}),
        Door(
            "Exponential", schedules.Exponential, {}, {"first": NO_POSITIVE, "ratio": NO_POSITIVE}
        ),
        Door("Constant", schedules.Constant, {}, {"tol": NO_POSITIVE}),
        Door(
            "Custom",
            schedules.Custom,
            {"function": abs, "summable": True},
            {"function": no_function, "summable": [None, *NO_FLAG]},
        ),
        Door("quadratic", schedules.quadratic, {}, {"first": NO_POSITIVE}),
        Door("LBFGS", solvers.LBFGS, {}, {"history": NO_COUNT, "search": no_function}),
        Door(
            "NewtonCG",
            solvers.NewtonCG,
            {},
            {"max_cg": NO_COUNT, "precondition": NO_FLAG, "search": no_function},
        ),
        Door(
            "WolfeSearch",
            WolfeSearch,
            {},
            {"c1": [*NO_SHARE, 0.95], "c2": [*NO_SHARE, 1e-5], "max_trials": NO_COUNT},
        ),
        Door(
            "solve",
            solvers.solve,
            {
                "inner": ridge(),
                "lam": np.zeros(1),
                "x0": np.zeros(P),
                "solver": solvers.LBFGS(),
                "tol": 1e-3,
            },
            {
                "solver": NO_SOLVER,
                "tol": [None, *NO_POSITIVE],
                "min_iter": [*NO_INTEGER, -1],
                "max_iter": NO_COUNT,
            },
        ),
        Door(
            "Implicit",
            Implicit,
            {},
            {"precondition": NO_FLAG, "max_iter": NO_COUNT, "verify": NO_FLAG},
        ),
        Door(
            "cg",
            cg,
            {"operator": lambda v: 2 * v, "b": np.ones(3), "tol": 1e-3},
            {
                "operator": [None, *NO_FUNCTION],
                "b": [None, 3.0, [1.0], "b"],
                "tol": [None, "1", np.ones(2), True, NAN, INF, {}, -1.0, [0.1, 0.1], [-1.0]],
                "max_iter": [*NO_INTEGER, -3, np.int64(-1)],
                "columns": NO_FLAG,
            },
        ),
        Door(
            "testing.quadratic",
            quadratic,
            {"seed": 0},
            {
                "seed": NO_SEED,
                "p": NO_COUNT,
                "m": [*NO_COUNT, 9],
                "condition": [*NO_FINITE, 0.5],
                "scaling": [*NO_FINITE, 0.5],
                "kind": [None, 3, "linear"],
                "dtype": [None, "float16", 3],
                "backend": ["tensorflow", None, 3],
            },
        ),
        Door(
            "testing.linear",
            linear,
            {"seed": 0},
            {
                "seed": NO_SEED,
                "loss": [None, 3, "hinge"],
                "n": NO_COUNT,
                "p": NO_COUNT,
                "m": [*NO_COUNT, 9],
                "scaling": [*NO_FINITE, 0.5],
                "dtype": [None, "float16", 3],
                "backend": ["tensorflow", None, 3],
            },
        ),
        Door("Direct", Direct, {}, {"columns": NO_COUNT}),
        Door("Neumann", Neumann, {}, {"n_terms": NO_COUNT, "step": NO_POSITIVE}),
        *(
            Door(
                cls.__name__,
                cls,
                {},
                {**steps, "step": NO_POSITIVE, "momentum": [*NO_FINITE, -0.1, 1.0]},
            )
            for cls in (ReverseUnrolled, ForwardUnrolled)
        ),
        Door("ReverseLBFGS", ReverseLBFGS, {}, {**steps, "memory": NO_COUNT}),
        Door(
            "Reversible",
            Reversible,
            {},
            {
                "n_steps": NO_COUNT,
                "step": NO_POSITIVE,
                "momentum": [0.9, Fraction(1), Fraction(0), "9/10", Fraction(1, 1 << 17)],
                "fraction_bits": [*NO_COUNT, 53],
                "batches": [3, None, [3]],
            },
        ),
        Door("FixedStep", FixedStep, {"lipschitz": 1.0}, {"lipschitz": NO_POSITIVE}),
        Door(
            "AdaptiveStep",
            AdaptiveStep,
            {},
            {"C": [*NO_FINITE, -1.0], "M": [*NO_FINITE, -1.0], "growth": [*NO_FINITE, 1.0]},
        ),
        Door(
            "HOAG",
            HOAG,
            {},
            {
                "tolerances": [None, 3, "linear", schedules.Power, abs],
                "step_rule": [None, 3, FixedStep],
                "solver": NO_SOLVER,
                "hypergradient": [None, 3, Implicit],
                "max_inner": NO_COUNT,
                "default_tol": [*NO_FINITE, -1.0],
            },
        ),
        Door(
            "MAID",
            MAID,
            {},
            {
                "epsilon": NO_POSITIVE,
                "delta": NO_POSITIVE,
                "alpha": NO_POSITIVE,
                "eta": NO_SHARE,
                "shrink": NO_SHARE,
                "grow": [*NO_FINITE, 0.9],
                "tighten": NO_SHARE,
                "loosen": [*NO_FINITE, 0.9],
                "max_backtracks": NO_COUNT,
                "max_tightenings": NO_COUNT,
                "solver": NO_SOLVER,
                "hypergradient": [None, 3, Implicit],
            },
        ),
        Door(
            "PathFollowing",
            PathFollowing,
            {},
            {
                "theta": NO_SHARE,
                "newton": NO_SHARE,
                "adjoint": NO_SHARE,
                "trust": NO_POSITIVE,
                "max_tangents": [*NO_INTEGER, -1],
                "max_sweeps": NO_COUNT,
                "max_cg": NO_COUNT,
                "memory": NO_COUNT,
                "certify": NO_FLAG,
                "first_condition": [*NO_NUMBER, 0.5],
                "default_tol": [*NO_FINITE, -1.0],
                "rank": [*NO_INTEGER, -1],
                "sketch_after": [*NO_INTEGER, -1],
                "pairs": [*NO_INTEGER, -1],
                "worth": [*NO_NUMBER, -1.0],
            },
        ),
    ]


def all_doors() -> list[Door]:
    return [*loops(), *problems(), *models(), *parameters()]


#: How a sentence may call an argument beside its own name.
ALIASES = {
    "like": ("like", "backend"),
    "device": ("device",),
    "train": ("train", "sample_weight"),
    "held": ("held", "sample_weight"),
    "upper": ("upper", "lower"),
    "lower": ("lower", "box"),
    "domain": ("domain", "box", "ball"),
    "X": ("X", "X_val"),
    "X_val": ("X_val", "features"),
    "y": ("y", "y_val"),
    "method": ("method",),
    "inner": ("inner", "outer", "X_val", "x_shape"),
    "outer": ("outer", "X_val", "fit_intercept", "y_val", "loss"),
    "starts": ("starts",),
    "resume": ("resume", "checkpoint"),
    "problem": ("problem",),
    "c1": ("c1",),
    "summable": ("summable",),
}


def fault(door: Door, name: str, value: Any) -> str | None:
    """What is wrong with what comes of a bad argument, None where nothing is."""
    try:
        found = door.knock(**{name: value})
    except (ValueError, TypeError, bilevel.BackendUnavailableError) as error:
        return _fault_of(error, name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"accepted: {str(found)[:60]!r}"


def _fault_of(error: Exception, name: str) -> str | None:
    text = str(error)
    where = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
    if "/bilevel/" not in where or "/tests/" in where:
        return f"raised in {where.rpartition('/')[2]}: {text[:100]}"
    if "\n" in text or not text.endswith(".") or not 10 < len(text) < 400:
        return f"no sentence: {text[:200]!r}"
    if not any(alias in text for alias in ALIASES.get(name, (name,))):
        return f"does not name {name}: {text[:200]}"
    return None
