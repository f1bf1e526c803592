"""What the documentation names is there: parameters, attributes, objects, options, examples."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import minimize_scalar

import bilevel
from bilevel.cli._app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def public() -> tuple[tuple[str, Any], ...]:
    """Every public class and function of the package, with the name of its module."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(bilevel.__path__, "bilevel."):
        if module.name.endswith("__main__"):
            continue
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError:  # of an optional library
            continue
        for name, value in members.items():
            named = inspect.isclass(value) or inspect.isfunction(value)
            if named and not name.startswith("_") and value.__module__.startswith("bilevel"):
                found[f"{value.__module__}.{name}"] = value
    return tuple(sorted(found.items()))


def section(docstring: str, title: str) -> Iterator[str]:
    """The names that a section of a numpydoc docstring describes."""
    text = inspect.cleandoc(docstring) + "\n"
    found = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n---|\Z)", text, re.DOTALL | re.MULTILINE)
    for line in found[1].splitlines() if found else ():
        if line and not line.startswith(" "):
            yield from (name.strip(" *") for name in line.split(" : ")[0].split(","))


def test_the_sections_are_read() -> None:
    """A reader that finds nothing would let every docstring pass."""
    docstring = """Title.

    Parameters
    ----------
    a, b : int
        Two, with : in the text.
    *c
        More.

    Attributes
    ----------
    d : float
    """
    assert list(section(docstring, "Parameters")) == ["a", "b", "c"]
    assert list(section(docstring, "Attributes")) == ["d"]
    assert list(section("Title.", "Parameters")) == []
    documented = [v for _, v in public() if v.__doc__ and list(section(v.__doc__, "Parameters"))]
    assert len(documented) > 50


def wrong(value: Any) -> set[str]:
    """Names that a docstring describes and the object lacks, or the other way round."""
    documented = set(section(value.__doc__ or "", "Parameters"))
    attributes = set(section(value.__doc__ or "", "Attributes"))
    if not dataclasses.is_dataclass(value):
        return documented - set(inspect.signature(value).parameters) if documented else set()
    fields = {f.name: f.init and not f.name.startswith("_") for f in dataclasses.fields(value)}
    missing = {f for f, taken in fields.items() if taken} - documented if documented else set()
    attributes = {name for name in attributes if not hasattr(value, name)}
    return missing | (documented | attributes) - set(fields)


def test_docstrings_describe_what_there_is() -> None:
    found = {name: sorted(wrong(value)) for name, value in public()}
    assert {name: names for name, names in found.items() if names} == {}


def test_a_wrong_name_is_seen() -> None:
    @dataclasses.dataclass
    class Faulty:
        """A method.

        Parameters
        ----------
        step : float
            Called step_rule below.
        """

        step_rule: float = 1.0

    assert wrong(Faulty) == {"step", "step_rule"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page: Path) -> None:
    """Dotted names like ``bilevel.methods.HOAG``, whatever comes after them."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"\bbilevel(?:\.[A-Za-z]\w*)+", text))
    optional = {"cupy", "dpnp", "jax", "torch"}
    for name in names:
        value: Any = bilevel
        path = "bilevel"
        for part in name.split(".")[1:]:
            path += f".{part}"
            if not hasattr(value, part):
                assert inspect.ismodule(value), f"{page.name} names {name}"
                assert part in optional or importlib.import_module(path), f"{page.name}: {name}"
            value = getattr(value, part)


def run(page: str, first: int = 0, last: int | None = None) -> dict[str, Any]:
    """The names that the Python blocks of a page leave behind."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile("\n".join(blocks[first:last]), page, "exec"), found)
    return found


#: Rooms whose public names are for users, each to be found on the page of the interface.
ROOMS = (
    "inner outer problems multistart methods hypergrad solvers linalg losses domains schedules testing"
).split()


def documented() -> set[Any]:
    """What the page of the interface has an entry for, of its own or in that of a module."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [name for _, name in re.findall(r"auto(class|function|exception):: (\S+)", page)]
    for module, members in re.findall(r"automodule:: (\S+)\n   :members: (.*)", page):
        names += [f"{module}.{member}" for member in members.split(", ")]
    places = (name.rpartition(".") for name in names)
    return {getattr(importlib.import_module(module), name) for module, _, name in places}


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_on_the_page_of_the_interface(room: str) -> None:
    module, found = importlib.import_module(f"bilevel.{room}"), documented()
    named = {
        name: value
        for name in vars(module).get("__all__", vars(module))
        if (inspect.isclass(value := getattr(module, name)) or inspect.isfunction(value))
        and not name.startswith("_")
        and value.__module__.startswith(module.__name__)
    }
    assert named
    assert [name for name, value in named.items() if value not in found] == []


def test_the_problem_of_your_own_is_solved() -> None:
    """The curve of own-problems.md, against the closed form of X(λ) and SciPy's search."""
    try:
        import torch  # noqa: F401

        blocks = None
    except ImportError:
        blocks = 1  # the second is written for torch
    found = run("own-problems.md", last=blocks)
    n, trains, y = found["n"], found["trains"], found["y"]
    bends = np.diff(np.eye(n), n=2, axis=0)

    def f(lam: float) -> float:
        H = np.diag(1.0 * trains) + np.exp(lam) * bends.T @ bends + found["mu"] * np.eye(n)
        return float(np.sum((np.linalg.solve(H, trains * y) - y)[~trains] ** 2) / 2)

    best = minimize_scalar(f, bounds=(-12, 12), method="bounded", options={"xatol": 1e-9})
    results = [found["result"]] + ([found["again"]] if blocks is None else [])
    for result in results:
        assert result.success
        assert f(float(result.lam[0])) == pytest.approx(best.fun, rel=1e-5)
        assert result.fun == pytest.approx(best.fun, rel=1e-5)


def test_the_page_of_additions_runs() -> None:
    assert run("extending.md")["problem"].inner.n_hyperparameters == 1


def test_the_page_of_additions_says_how_each_protocol_is_written() -> None:
    """Those that a class or a call of ours takes: each has a section, and code beside it."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for name, anchor in re.findall(r"^\| \[([\w ]+)\]\(#([\w-]+)\)", text, re.MULTILINE):
        heading = f"## {anchor.replace('-', ' ').capitalize()}"
        assert f"\n{heading}\n" in text, name
    for file in re.findall(r"literalinclude\} \.\./(\S+)", text):
        assert (ROOT / file).is_file(), file
    for protocol in ("methods.StepRule", "solvers.Solver", "hypergrad.Hypergradient"):
        assert f"| `bilevel.{protocol}` |" in text


def test_the_page_of_the_estimators_runs() -> None:
    found = run("estimators.md")
    assert set(found["search"].best_params_) == {"logisticregression__C"}


def test_the_command_line_page_names_options_that_there_are() -> None:
    told = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "100"}).output
    options = set(re.findall(r"--[a-z][a-z-]*[a-z]", told))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for command in re.findall(r"bilevel tune [^\n`]*(?:\\\n[^\n`]*)*", text):
            named = set(re.findall(r"--[a-z][a-z-]*", command))
            assert named <= options, f"{page.name}: {sorted(named - options)}"
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(--[a-z][a-z-]*)", page)) - {"--help"}
    assert named <= options, sorted(named - options)
    missing = options - set(re.findall(r"--[a-z][a-z-]*", page)) - {"--help"}
    assert not missing, f"not in command-line.md: {sorted(missing)}"
