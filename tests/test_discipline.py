"""The core names no library; README, examples and continuous integration say the same."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_core_names_no_library() -> None:
    assert tool("check_discipline").offences(ROOT / "bilevel") == []


@pytest.mark.parametrize(
    ("line", "offence"),
    [
        ("import numpy as np", "imports numpy"),
        ("def f():\n    from scipy import sparse", "imports scipy"),
        ("import torch.nn", "imports torch.nn"),
        ("from ..io import read", "stands above"),
        ("from bilevel.cli import main", "stands above"),
        ("from ..multistart.shared import Shared", "imports ..multistart.shared, which stands"),
        ("from .. import loop, losses", "imports ..loop, which stands above"),
        ("def f():\n    from bilevel import minimize", "stands above"),
        ("import bilevel", "stands above"),
        ("from functools import cached_property, partial", "holds a lock"),
        ("import functools\nkeep = functools.cached_property", "holds a lock"),
        (
            "def f(backend):\n    backend.xp.linalg.cholesky(1)",
            "xp.linalg.cholesky is silent in CuPy",
        ),
        ("solve = xp.linalg.solve", "xp.linalg.solve is silent in CuPy"),
        ("xp.linalg.eigh(a), backend.solve(a, b)", None),
        ("from functools import partial", None),
        ("from .._cached import cached_property", None),
        ("import math", None),
        ("from .. import losses", None),
        ("from bilevel.inner import Point", None),
        ("from .problem import solve", None),
        ("from .backends import get_backend", None),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", None),
    ],
)
def test_the_check_sees_what_it_should(tmp_path: Path, line: str, offence: str | None) -> None:
    """A check that never fails would pass too: hold it against modules that are wrong."""
    package = tmp_path / "bilevel"
    (package / "solvers").mkdir(parents=True)
    (package / "backends").mkdir()
    (package / "solvers" / "new.py").write_text(line)
    (package / "backends" / "numpy.py").write_text("import numpy")
    found = tool("check_discipline").offences(package)
    if offence is None:
        assert found == []
    else:
        assert len(found) == 1
        assert offence in found[0]


def test_every_room_has_a_floor(tmp_path: Path) -> None:
    (tmp_path / "bilevel" / "attic").mkdir(parents=True)
    (tmp_path / "bilevel" / "attic" / "__init__.py").write_text("")
    (found,) = tool("check_discipline").offences(tmp_path / "bilevel")
    assert "attic/__init__.py: a room of no floor" in found


def test_readme_commands_are_marked_once_and_make_their_environment() -> None:
    readme_command = tool("readme_command").readme_command
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("tune", "test"):
        command = readme_command(name, text)
        assert command.startswith("python3 -m venv .venv && ")
        assert "\n" not in command
    with pytest.raises(LookupError, match="0 blocks"):
        readme_command("none", text)


def test_continuous_integration_runs_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme tune" in script
    assert "readme test" in script
    own = [line for line in script.splitlines() if "pytest" in line]
    assert all(re.search("examples/outside|stand-in|compiling", line) for line in own)


def test_readme_python_runs() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


def test_quickstart_runs() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    exec(compile(code, "quickstart.md", "exec"), {})


def example(name: str, *words: str, marks: Any = ()) -> Any:
    return pytest.param(name, words, marks=marks, id=" ".join([name, *words]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            example(path.name)
            for path in sorted((ROOT / "examples").glob("*.py"))
            if path.name != "any_array.py"
        ),
        example("any_array.py", "numpy", "array_api_strict"),
        example("any_array.py", marks=pytest.mark.slow),  # the libraries that compile take long
    ],
)
def test_examples_run(name: str, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "λ = " in done.stdout


def test_importing_the_package_loads_no_optional_library() -> None:
    """`import bilevel` is to work, and to be quick, with the three core dependencies alone."""
    optional = "cupy torch jax dpnp sklearn matplotlib click rich jinja2 pandas numba dask".split()
    code = f"import bilevel, sys; print([m for m in {optional} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
