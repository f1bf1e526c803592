"""Random bad input at random doors: each ends in a sentence, or in the right answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from doors import all_doors, fault

import bilevel
from bilevel import inner, losses, outer
from bilevel.linalg import cg
from bilevel.problems import weighted_validation


def _spoiled(rng: np.random.Generator, bad: list[Any]) -> Any:
    """One of the bad values; an array in another order, locked, or as a view of a larger one."""
    value = bad[int(rng.integers(len(bad)))]
    if type(value) is not np.ndarray or value.dtype.kind not in "fiu" or value.size == 0:
        return value
    locked = value.copy()
    locked.flags.writeable = False
    if value.ndim == 0:
        return locked
    strided = np.concatenate([value, value], axis=-1)[..., : value.shape[-1]]
    forms = [value, locked, np.asfortranarray(value), strided]
    return forms[int(rng.integers(len(forms)))]


def test_bad_values_one_or_several_at_once(draws):
    """Any sentence will do where several arguments are bad, but it names one of them."""
    doors = all_doors()
    wrong = []
    for seed in draws(4000):
        rng = np.random.default_rng(seed)
        door = doors[int(rng.integers(len(doors)))]
        names = list(rng.permutation(list(door.bad)))[: int(rng.integers(1, 4))]
        changes = {name: _spoiled(rng, door.bad[name]) for name in names}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first, *others = names
            faulted = fault(door, first, changes[first]) if not others else None
            if others:
                found = [_fault_of_several(door, changes, name) for name in names]
                faulted = None if any(f is None for f in found) else found[0]
        if faulted is not None:
            wrong.append(f"{seed}: {door.name}({', '.join(names)}): {faulted}")
    assert wrong == []


def _fault_of_several(door: Any, changes: dict[str, Any], name: str) -> str | None:
    others = {key: value for key, value in changes.items() if key != name}
    several = type(door)(door.name, door.call, {**door.good, **others}, door.bad)
    return fault(several, name, changes[name])


LOSSES: dict[str, Callable[[], Any]] = {
    "logistic": losses.Logistic,
    "hinge": losses.SquaredHinge,
    "poisson": losses.Poisson,
    "multinomial": lambda: losses.Multinomial(3),
    "squared": losses.Squared,
}


def _rows(rng: np.random.Generator, name: str, n: int) -> np.ndarray:
    """Labels of which some are rare."""
    rare = rng.random(n) < rng.choice([0.05, 0.2, 0.5])
    if name in ("logistic", "hinge"):
        return np.where(rare, 1.0, -1.0)
    if name == "poisson":
        return np.where(rare, rng.integers(1, 5, n), 0).astype(float)
    if name == "multinomial":
        return np.where(rare, rng.integers(1, 3, n), 0)
    return rng.normal(size=n)


def _lacks(name: str, y: np.ndarray, s: np.ndarray) -> bool:
    """By the definition: a class, or every count, has no weight."""
    if name in ("logistic", "hinge"):
        return any(not np.any(s[y == c] > 0) for c in (-1, 1))
    if name == "poisson":
        return not np.any((s > 0) & (y > 0))
    if name == "multinomial":
        return any(not np.any(s[y == c] > 0) for c in range(3))
    return not np.any(s > 0)


def test_a_free_intercept_exists_exactly_where_it_is_taken(draws):
    """Refused where a class has no weight in a training part; elsewhere the fit ends, finite."""
    taken = refused = 0
    for seed in draws(300):
        rng = np.random.default_rng(seed)
        name = str(rng.choice(list(LOSSES)))
        n, k = int(rng.integers(4, 25)), int(rng.integers(1, 4))
        X, y, loss = rng.normal(size=(n, 2)), _rows(rng, name, n), LOSSES[name]()
        train = (rng.random((n, k)) < rng.choice([0.3, 0.7, 1.0])) * rng.uniform(0.5, 2, (n, k))
        train[0, :] = np.where(np.any(train > 0, axis=0), train[0, :], 1.0)
        lacking = any(_lacks(name, y, train[:, j]) for j in range(k))
        said = ""
        try:
            problem = weighted_validation(X, y, loss, train, np.ones((n, k)), fit_intercept=True)
        except ValueError as error:
            said = str(error)
        assert lacking == ("with a free intercept there is no best model" in said), seed
        if lacking:
            refused += 1
            continue
        taken += 1
        found = bilevel.minimize(problem, max_iter=2)
        assert np.all(np.isfinite(found.x)), seed
    assert min(taken, refused) > 0


def test_pairs_are_taken_exactly_where_they_fit(draws):
    """Features, intercepts, classes and columns of both sides, drawn apart."""
    fitting = 0
    for seed in draws(400):
        rng = np.random.default_rng(seed)
        sides = []
        for n in (9, 7):
            p, c, k = (int(v) for v in rng.choice([2, 3], 3, p=[0.8, 0.2]))
            p, intercept, kind = p - 1, bool(rng.random() < 0.3), rng.choice(["one", "many"])
            dtype = np.float32 if rng.random() < 0.15 else np.float64
            X = rng.normal(size=(n, p)).astype(dtype)
            if kind == "many":
                loss, y = losses.Multinomial(c), np.arange(n) % c
                tail: tuple[int, ...] = (c,)
            else:
                loss, y, tail = losses.Squared(), rng.normal(size=n).astype(dtype), ()
            weights = None
            if rng.random() < 0.3:
                weights, tail = np.ones((n, k), dtype=dtype), (*tail, k)
            options = {"sample_weight": weights, "fit_intercept": intercept}
            sides.append(((p, intercept, tail, dtype), (X, y, loss), options))
        (ours, rows, options), (theirs, held, held_options) = sides
        h, g = inner.linear_model(*rows, **options), outer.held_out(*held, **held_options)
        try:
            problem = bilevel.Problem(h, g)
        except (ValueError, TypeError):
            assert ours != theirs, seed
            continue
        assert ours == theirs, f"{seed}: {ours} {theirs}"
        fitting += 1
        lam, x = problem.lam(0.0), problem.x(None)
        assert math.isfinite(float(g.at(x, lam).value))
    assert fitting > 0


def test_singular_systems_are_said(draws):
    """A x = b without a solution never ends as converged, with x finite; with one it is solved."""
    said = 0
    for seed in draws(1500):
        rng = np.random.default_rng(seed)
        n, dtype = int(rng.integers(2, 40)), np.float32 if rng.random() < 0.5 else np.float64
        rank = int(rng.integers(1, n))
        basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
        spectrum = np.concatenate([10.0 ** -rng.uniform(0, 4, rank), np.zeros(n - rank)])
        A = (basis * spectrum @ basis.T * 10 ** rng.uniform(-3, 3)).astype(dtype)
        A = (A + A.T) / 2
        consistent = rng.random() < 0.3
        part = basis[:, :rank] if consistent else basis
        b = (part @ rng.normal(size=part.shape[1])).astype(dtype)
        outside = np.linalg.norm(basis[:, rank:].T @ b.astype(np.float64))
        x0 = rng.normal(size=n).astype(dtype) if rng.random() < 0.5 else None
        tol = float(np.linalg.norm(b)) * (1e-3 if dtype == np.float32 else 1e-7)
        found = cg(lambda v, A=A: A @ v, b, tol=tol, x0=x0)
        assert np.all(np.isfinite(found.x)), seed
        if outside > 10 * tol:
            assert not found.status.success, seed
            said += found.status is bilevel.Status.SINGULAR
    assert said > 0
