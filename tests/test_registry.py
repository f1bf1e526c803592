"""Array libraries that nobody here knows, registered from outside."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

import bilevel
from bilevel.backends import _registry
from bilevel.backends.array_api import ArrayAPIBackend

strict = pytest.importorskip("array_api_strict")


class Outside(ArrayAPIBackend):
    """The library of the tests."""

    name = "outside_arrays"
    module = "outside_arrays"
    install = "it is made by the test"

    def to_numpy(self, array):
        return np.array(array.to_device(self.xp.Device("CPU_DEVICE")))


@pytest.fixture
def library(monkeypatch):
    """array-api-strict under another name: classes of its own, of a library that is unknown."""
    origin = strict.__spec__
    spec = importlib.util.spec_from_file_location(
        "outside_arrays",
        origin.origin,
        submodule_search_locations=origin.submodule_search_locations,
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "outside_arrays", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(_registry, "_CLASSES", dict(_registry._CLASSES))
    monkeypatch.setattr(_registry, "_MODULES", dict(_registry._MODULES))
    return module


def halves(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((60, 4))
    y = np.sign(X[:, 0] + 0.5 * rng.standard_normal(60))
    return X[:30], y[:30], X[30:], y[30:]


def solved_with(xp):
    parts = [xp.asarray(a) for a in halves()]
    found = bilevel.minimize(bilevel.logistic_regression(*parts))
    host = bilevel.minimize(bilevel.logistic_regression(*halves()))
    assert bilevel.get_backend(found.lam).name == "outside_arrays"
    assert bilevel.get_backend(found.lam).to_numpy(found.lam) == pytest.approx(host.lam, rel=1e-9)


def test_before_it_is_registered_it_is_refused(library):
    with pytest.raises(TypeError, match="No backend for an object of type Array"):
        bilevel.get_backend(library.asarray([1.0]))
    with pytest.raises(ValueError, match="Unknown backend 'outside_arrays'"):
        bilevel.get_backend("outside_arrays")


@pytest.mark.parametrize("target", [Outside, f"{__name__}:Outside"], ids=["class", "path"])
def test_a_library_from_outside_solves_a_problem(library, target):
    bilevel.register_backend("outside_arrays", target)
    assert "outside_arrays" in bilevel.backend_names()
    solved_with(library)


def test_an_entry_point_needs_no_call(library, monkeypatch):
    class Point:
        name, value = "outside_arrays", f"{__name__}:Outside"

    monkeypatch.setattr(_registry, "entry_points", lambda group: [Point] if group else [])
    _registry._discover.cache_clear()
    try:
        solved_with(library)
    finally:
        _registry._discover.cache_clear()


def test_names_and_arrays_of_others_are_not_taken(library):
    with pytest.raises(ValueError, match="The backend 'torch' is"):
        bilevel.register_backend("torch", Outside)
    with pytest.raises(ValueError, match="Arrays of 'torch' belong to the backend 'torch'"):
        bilevel.register_backend("outside_arrays", Outside, modules=["torch"])
    for bad in (3, "no colon", None):
        with pytest.raises(TypeError, match="backend must be a class"):
            bilevel.register_backend("outside_arrays", bad)
    assert "outside_arrays" not in bilevel.backend_names()


def test_what_cannot_be_imported_is_said(library):
    bilevel.register_backend("outside_arrays", "nowhere.at_all:Backend")
    with pytest.raises(bilevel.BackendUnavailableError, match="can't be imported"):
        bilevel.get_backend("outside_arrays")


# -- what a backend has ----------------------------------------------------------------------------


class Lacking:
    def __init__(self, device=None):
        pass


class NoName(ArrayAPIBackend):
    module, install = "outside_arrays", ""


class NoModule(ArrayAPIBackend):
    name, install = "outside_arrays", ""


class Undirected(Outside):
    def __init__(self):
        super().__init__()


class Another(Outside):
    name = "numpy"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (object, "must have asarray, to_numpy, .*which object has not: derive it from"),
        (Lacking, "must have asarray, .*which Lacking has not"),
        (NoName, "must have name, which NoName has not"),
        (NoModule, "must have module, which NoModule has not"),
        (Undirected, "must take a device, or None"),
        (Another, "registered, 'outside_arrays', but that of Another is 'numpy'"),
    ],
)
def test_a_class_that_makes_no_backend_is_refused(library, made, says):
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.register_backend("outside_arrays", made)
    assert "outside_arrays" not in bilevel.backend_names()
    path = f"{made.__module__}:{made.__name__}"
    bilevel.register_backend("outside_arrays", path)  # is seen when it is imported
    with pytest.raises((TypeError, ValueError), match=says):
        bilevel.get_backend(library.asarray([1.0]))


class Elsewhere(Outside):
    def to_numpy(self, array):
        return array


class Halved(Outside):
    def to_numpy(self, array):
        return super().to_numpy(array) / 2


class Boxed(Outside):
    def to_numpy(self, array):
        return super().to_numpy(array).astype(object)


class Nowhere(Outside):
    def to_numpy(self, array):
        raise OSError("no way")


class Unplaced(Outside):
    def __init__(self, device=None):
        super().__init__(device)
        del self.xp


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Elsewhere, "Elsewhere.to_numpy, .* must bring an array to the host as one of NumPy"),
        (Halved, r"got array\(\[ 0.25, -1"),
        (Boxed, "dtype=object"),
        (Nowhere, "got 'OSError: no way'"),
        (Unplaced, "without xp"),
    ],
)
def test_a_backend_that_brings_nothing_to_the_host_is_refused(library, made, says):
    bilevel.register_backend("outside_arrays", made)
    with pytest.raises(TypeError, match=says):
        bilevel.get_backend(library.asarray([1.0]))
