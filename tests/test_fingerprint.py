"""What a fingerprint sees of the data that the functions of a user reach, by whatever way."""

from __future__ import annotations

import copy
import functools
import math
import os
import subprocess
import sys
import threading
import types
from collections import OrderedDict, deque
from typing import Any, ClassVar

import numpy as np
import pandas
import pytest

import bilevel
from bilevel.fingerprint import differences, fingerprint, unknown
from bilevel.inner import InnerConstants, Point, from_functions, linear_model
from bilevel.losses import Squared
from bilevel.outer import from_functions as outer_from_functions
from bilevel.outer import held_out

Function = Any


class Plain:
    def __init__(self, data: Any) -> None:
        self.data = data

    def f(self, x: Any) -> Any:
        return x * self.data


class Slotted:
    __slots__ = ("data", "unset")

    def __init__(self, data: Any) -> None:
        self.data = data


class Slotter(Slotted):
    __slots__ = ("more",)


class Listing(list):  # type: ignore[type-arg]
    data: Any = None


def by_dict(data: Any) -> Function:
    return lambda held={"a": {"b": data}}: held


def by_closed_dict(data: Any) -> Function:
    held = {"a": [data]}
    return lambda x: x * held["a"][0]


def by_set(data: Any) -> Function:
    held = {("a", float(data[2])), ("b", 1.0), "c"}
    return lambda x: x in held


def by_object(data: Any) -> Function:
    held = Plain(data)
    return lambda x: x * held.data


def by_slots(data: Any) -> Function:
    held = Slotter(data)
    return lambda x: x * held.data


def by_namespace(data: Any) -> Function:
    held = types.SimpleNamespace(inner=types.SimpleNamespace(data=data))
    return lambda x: x * held.inner.data


def by_subclass_of_a_list(data: Any) -> Function:
    held = Listing([1])
    held.data = data
    return lambda x: x * held.data


def by_method(data: Any) -> Function:
    return Plain(data).f


def by_built_in_method(data: Any) -> Function:
    return data.copy().dot


def by_partial(data: Any) -> Function:
    return functools.partial(np.multiply, data)


def by_keyword_of_a_partial(data: Any) -> Function:
    return functools.partial(lambda x, w: x * w, w={"data": data})


def by_cached(data: Any) -> Function:
    return functools.lru_cache(lambda x: x * data)


def by_attribute(data: Any) -> Function:
    def f(x: Any) -> Any:
        return x * f.data  # type: ignore[attr-defined]

    f.data = data  # type: ignore[attr-defined]
    return f


def by_a_class(data: Any) -> Function:
    class Config:
        weights = data

    return lambda x: x * Config.weights


def by_a_class_of_the_object(data: Any) -> Function:
    class Model:
        weights: ClassVar[Any] = {"a": data}

        @property
        def w(self) -> Any:
            return self.weights["a"]

        def f(self, x: Any) -> Any:
            return x * self.w

    return Model().f


def by_deque(data: Any) -> Function:
    held = deque([OrderedDict(a=data)])
    return lambda x: x * held[0]["a"]


def by_frame(data: Any) -> Function:
    held = pandas.DataFrame({"a": data, "b": "text"})
    return lambda x: x * held["a"]


def by_generator(data: Any) -> Function:
    held = np.random.default_rng(int(1e6 * data[2]))
    return lambda x: x * copy.deepcopy(held).normal()


def by_long_list(data: Any) -> Function:
    held = [[0.0] * 3] * 500 + [list(data)]
    return lambda x: x * held[500][2]


def in_module(body: str) -> Any:
    """The same through the names of a module."""

    def way(data: Any) -> Function:
        scope: dict[str, Any] = {"__name__": "theirs", "data": data, "Plain": Plain}
        scope["config"] = types.ModuleType("config")
        scope["config"].inner = types.ModuleType("config.inner")
        scope["config"].inner.data = data
        exec(body, scope)
        return scope["f"]

    return way


WAYS = {
    **{name: way for name, way in globals().items() if name.startswith("by_")},
    "a nested lambda": in_module("def f(x): return (lambda z: z * data)(x)"),
    "a nested def": in_module("def f(x):\n  def g(z):\n    return [data * w for w in z]\n  return g(x)"),
    "a dict of the module": in_module("held = {'a': data}\ndef f(x): return x * held['a']"),
    "a tuple of dicts": in_module("held = ({'a': data},)\ndef f(x): return x * held[0]['a']"),
    "an object of the module": in_module("held = Plain(data)\ndef f(x): return held.f(x)"),
    "a function of the module": in_module(
        "held = {'a': data}\ndef g(x): return x * held['a']\ndef f(x): return g(x)"
    ),
    "a partial of the module": in_module(
        "import functools\ng = functools.partial(lambda w, x: w * x, data)\ndef f(x): return g(x)"
    ),
    "a class of the module": in_module(
        "class C:\n  def g(self, x): return x * data\ndef f(x): return C().g(x)"
    ),
    "another module": in_module("def f(x): return x * config.inner.data"),
}  # fmt: skip

DATA = np.arange(1.0, 7.0)


@pytest.mark.parametrize("way", WAYS)
def test_other_data_are_seen_by_every_way(way: str) -> None:
    """And equal data are equal: the functions are made anew."""
    moved = DATA.copy()
    moved[2] *= 1 + 1e-6
    first, again, other = (fingerprint(WAYS[way](data), "f") for data in (DATA, DATA.copy(), moved))
    assert not differences(first, again)
    assert differences(first, other), first
    assert not unknown(first), first


@pytest.mark.parametrize("way", ["by_closed_dict", "by_slots", "a nested lambda", "by_method"])
def test_a_resume_with_other_data_is_refused(tmp_path: Any, way: str) -> None:
    """The data change nothing at the point of the probe, nor at the start."""

    def problem(data: Any) -> bilevel.Problem:
        weigh = WAYS[way](data)

        def h(x: Any, lam: Any) -> Any:
            w = math.exp(lam[0])
            if lam[0] > 1e6:
                weigh(x)
            return ((x - 1) ** 2).sum() / 2 + w * (x**2).sum() / 2, x - 1 + w * x

        like = np.zeros(1)
        inner = from_functions(h, x_shape=(6,), n_hyperparameters=1, like=like)
        outer = outer_from_functions(lambda x, lam: (((x - 1) ** 2).sum() / 2, x - 1), like=like)
        return bilevel.Problem(inner, outer)

    options = {"method": "hoag", "tol": 0.0, "max_iter": 2, "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(problem(DATA), 0.5, **options)
    with pytest.raises(ValueError, match="another problem"):
        bilevel.minimize(problem(DATA + 1e-9), 0.5, **options, resume=True)
    assert bilevel.minimize(problem(DATA), 0.5, **options, resume=True).nit == 2


def test_circles_end() -> None:
    held: dict[str, Any] = {"data": DATA}
    held["self"], node = held, Plain(held)
    held["node"] = [node, {"again": node}]
    node.up = held  # type: ignore[attr-defined]

    def f(x: Any) -> Any:
        return f(x) * held["data"]

    assert any("float64" in text for text in fingerprint(f, "f").values())


def test_what_is_too_deep_is_said_to_be_unknown() -> None:
    deep: Any = [DATA]
    for _ in range(3000):
        deep = [deep]
    assert len(unknown(fingerprint(deep, "deep"))) == 1
    ladder = Plain(None)  # 2 ** 200 ways through it
    for _ in range(20):
        step = Plain(ladder)
        step.other = ladder  # type: ignore[attr-defined]
        ladder = step
    assert len(fingerprint(ladder, "ladder")) < 200


def test_what_shows_nothing_of_itself_is_named(tmp_path: Any) -> None:
    lock = threading.Lock()

    def outer(x: Any, lam: Any) -> Any:
        with lock:
            return ((x - 1) ** 2).sum() / 2, x - 1

    def h(x: Any, lam: Any) -> Any:
        w = math.exp(lam[0])
        return ((x - 1) ** 2).sum() / 2 + w * (x**2).sum() / 2, x - 1 + w * x

    like = np.zeros(1)
    inner = from_functions(h, x_shape=(6,), n_hyperparameters=1, like=like)
    problem = bilevel.Problem(inner, outer_from_functions(outer, like=like))
    options = {"method": "hoag", "tol": 0.0, "max_iter": 2, "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(problem, **options)
    with pytest.warns(RuntimeWarning, match=r"nobody can tell whether problem\.outer\..*\.lock is"):
        bilevel.minimize(problem, **options, resume=True)


OTHER_PROCESS = """
import numpy as np
from bilevel.fingerprint import fingerprint

class Key:
    def __init__(self, a): self.a = a
class Held:
    names = {"a", "b", "c", ("d", 1), Key}
    drawn = np.random.default_rng(3)
    def __init__(self):
        self.keys = {Key(1): 2.0, Key(2): Key}
        self.more = {Key(i) for i in range(3)}
        self.many = {str(i) for i in range(300)}
    def f(self, x): return np.exp(x) if x in {"a", "b", "c"} else object()

print(sorted(fingerprint(Held().f, "f").items()))
"""


def test_it_is_the_same_in_another_process() -> None:
    """Sets have another order there, and objects another address."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = {
        subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.not_on_stand_in("its functions are Python's, and of no installed package")
def test_functions_of_libraries_are_known_by_name(backend: Any) -> None:
    xp = backend.xp
    exp, expit = xp.exp, math.erf
    held = fingerprint(lambda x: expit(exp(x)) * np.linalg.norm(x), "f")
    assert not unknown(held), held


def test_functions_that_jax_has_transformed_are_seen_through() -> None:
    jax = pytest.importorskip("jax")

    def made(data: Any) -> dict[str, str]:
        return fingerprint(jax.jit(jax.value_and_grad(jax.jit(lambda x: x @ data))), "f")

    first, moved = made(DATA), made(DATA + 1e-9)
    assert not unknown(first), unknown(first)
    assert not differences(first, made(DATA.copy()))
    assert differences(first, moved)


class Counting:
    """½ (x - a)ᵀ(x - a) + ½ e^λ xᵀx, which counts in numbers of its own wherever they may lie."""

    n_hyperparameters, x_shape, dtype = 1, (3,), np.dtype(float)
    backend = bilevel.get_backend("numpy")

    def __init__(self, data: Any, weight: float = 1.0) -> None:
        self.data, self.weight = data, weight
        self.n, self.calls, self.seconds = 0, {"hvp": 0}, 0.0

    passes = property(lambda self: self.n + self.calls["hvp"])
    column_passes = passes

    def at(self, x: Any, lam: Any, carry: Any = None) -> Any:
        self.n += 1
        self.seconds += 0.25
        return CountingPoint(self, x, lam)

    def constants(self, lam: Any) -> Any:
        return InnerConstants(mu=self.weight)


class CountingPoint(Point):
    @property
    def value(self) -> Any:
        r, w = self.x - self.inner.data, self.inner.weight
        return np.asarray((w * (r @ r) + np.exp(self.lam[0]) * (self.x @ self.x)) / 2)

    @property
    def grad(self) -> Any:
        return self.inner.weight * (self.x - self.inner.data) + np.exp(self.lam[0]) * self.x

    def hvp(self, v: Any) -> Any:
        self.inner.calls["hvp"] += 1
        return (self.inner.weight + np.exp(self.lam[0])) * v

    def cross_vjp(self, q: Any) -> Any:
        return np.exp(self.lam[0]) * (self.x[None, :] @ q)

    def cross_jvp(self, d: Any) -> Any:
        return np.exp(self.lam[0]) * d[0] * self.x


class CountingDesign:
    """The products of one of ours, which it counts in its own way, too."""

    def __init__(self, X: Any) -> None:
        self.base, self.products = bilevel.as_design(X), 0

    def __getattr__(self, name: str) -> Any:
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    def matmul(self, v: Any) -> Any:
        self.products += 1
        return self.base.matmul(v)

    def rmatmul(self, r: Any) -> Any:
        self.products += 1
        return self.base.rmatmul(r)


def counting_model(data: Any = 1.0, weight: float = 1.0) -> bilevel.Problem:
    target = np.array([1.0, 0.5, -0.25])
    h = Counting(np.array([2.0, 1.0, data]), weight)
    g = outer_from_functions(
        lambda x, lam: (((x - target) ** 2).sum() / 2, x - target),
        like=target,
        grad_lam=lambda x, lam: 0 * lam,
    )
    return bilevel.Problem(h, g)


def counting_design(data: Any = 1.0, weight: float = 1.0) -> bilevel.Problem:
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    X[0, 0] = data
    h = linear_model(CountingDesign(X[:10]), weight * y[:10], Squared())
    return bilevel.Problem(h, held_out(CountingDesign(X[10:]), y[10:], Squared()))


def counting_functions(data: Any = 1.0, weight: float = 1.0) -> bilevel.Problem:
    n, a = 0, np.array([2.0, 1.0, data])

    def h(x: Any, lam: Any) -> Any:
        nonlocal n
        n += 1
        w = math.exp(lam[0])
        return weight * ((x - a) ** 2).sum() / 2 + w * (x**2).sum() / 2, weight * (x - a) + w * x

    like = np.zeros(1)
    inner = from_functions(h, x_shape=(3,), n_hyperparameters=1, like=like)
    outer = outer_from_functions(lambda x, lam: (((x - 1) ** 2).sum() / 2, x - 1), like=like)
    return bilevel.Problem(inner, outer)


@pytest.mark.parametrize("made", [counting_model, counting_design, counting_functions])
def test_a_number_that_a_part_counts_is_no_data(tmp_path: Any, made: Any) -> None:
    """A resume of the very same problem was refused as one of another: it had counted on."""
    path, problem = tmp_path / "run.npz", made()
    options = {"method": "hoag", "tol": 0.0, "checkpoint": path}
    whole = bilevel.minimize(made(), 0.5, max_iter=5, **options | {"checkpoint": None})
    bilevel.minimize(problem, 0.5, max_iter=2, **options)
    bilevel.minimize(problem, 0.5, max_iter=4, **options, resume=True)
    found = bilevel.minimize(made(), 0.5, max_iter=5, **options, resume=True)
    assert (found.lam, found.fun, found.nit) == (whole.lam, whole.fun, 5)
    for other in ({"data": 1 + 1e-9}, {"weight": 1 + 1e-9}):
        another = made(**other)
        bilevel.minimize(another, 0.5, method="hoag", tol=0.0, max_iter=1)  # it has counted
        with pytest.raises(ValueError, match="another problem") as refused:
            bilevel.minimize(another, 0.5, max_iter=5, **options, resume=True)
        assert not any(name in str(refused.value) for name in (".n is", "calls", ".products"))
