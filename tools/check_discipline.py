"""Check that the core names no library, imports nothing upwards, holds no lock, asks for errors.

Core modules work on arrays of any library through ``backend.xp``; the packages in ``FREE`` are the
ones that may name libraries. ``FLOORS`` says what stands on what. Until Python 3.12
``functools.cached_property`` holds a lock, for which searches that wait for each other would wait
for ever: ``_cached``'s holds none. Where a matrix has no factor, or is singular, ``xp.linalg``
raises in one library and gives NaN or finite numbers in others: the backend's methods say it alike.
Run it from anywhere; it exits with 1 and a line for each offence.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: Names that only ``bilevel/backends`` and the host-side packages may import.
LIBRARIES = frozenset(
    "array_api_compat array_api_strict cupy cupyx dask distributed dpctl dpnp jax jaxlib matplotlib"
    " mkl numba numpy pandas scipy sklearn sparse_dot_mkl torch".split()
)

#: First part of the path, inside the package, of what is not the core.
FREE = frozenset(
    "__main__.py backends cli datasets.py distributed estimators io plotting plotting.py report.py"
    " testing".split()
)

#: The rooms of the package, modules and folders, from the ground up. Each imports from itself and
#: from those before it, so that no two need each other.
FLOORS = (
    "_cached _loading _ours _replacing status backends _untouched meter linalg losses schedules"
    " domains design inner outer answers solvers record problem hypergrad fitting methods snapshot"
    " _members fingerprint checkpoint contracts scale problems cross_validation stacked loop"
    " linear_probe multistart testing __init__ io datasets plotting report estimators cli __main__"
).split()


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of each import that runs, wherever it stands."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            bare = not node.module or module == "bilevel"
            names = [alias.name for alias in node.names] if bare else [""]
            for name in names:
                joint = "." if module == "bilevel" else ""
                yield node.lineno, f"{module}{joint if name else ''}{name}"


def _room(module: str, inside: Path) -> str | None:
    """The room of this package that an import leads to, None where it leads to another package."""
    dots = len(module) - len(module.lstrip("."))
    path = module.lstrip(".").split(".")
    if dots:
        folder = inside.parts[:-1]
        path = [*folder[: len(folder) + 1 - dots], *path]
    elif path.pop(0) != "bilevel":
        return None
    return path[0] if path and path[0] in FLOORS else "__init__"


def _climbs(inside: Path, module: str) -> bool:
    """Whether a module of this package imports a room above its own."""
    room, here = _room(module, inside), inside.parts[0].removesuffix(".py")
    return room not in (None, here) and FLOORS.index(here) < FLOORS.index(room)


def _locking_caches(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each use of functools' cached_property."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "functools":
            if any(alias.name == "cached_property" for alias in node.names):
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "functools.cached_property":
            yield node.lineno


def _unsaid(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each function of ``xp.linalg`` that may fail without a word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            inside, _, name = ast.unparse(node).rpartition(".")
            if name in ("cholesky", "inv", "solve") and inside.endswith("xp.linalg"):
                yield node.lineno, name


def offences(package: Path) -> list[str]:
    """Return a line for each import that breaks the rules.

    Parameters
    ----------
    package : Path
        The folder of the package.
    """
    found = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        where = f"{package.name}/{inside.as_posix()}"
        if inside.parts[0].removesuffix(".py") not in FLOORS:
            found.append(f"{where}: a room of no floor; give it one in FLOORS")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        free = inside.parts[0] in FREE
        if not free and inside.name != "_cached.py":
            for line in _locking_caches(tree):
                held = "functools.cached_property holds a lock; use _cached's"
                found.append(f"{where}:{line}: {held}")
        if inside.parts[0] != "backends":
            for line, name in _unsaid(tree):
                found.append(f"{where}:{line}: xp.linalg.{name} is silent in CuPy; ask the backend")
        for line, module in _imports(tree):
            if not free and module.partition(".")[0] in LIBRARIES:
                found.append(f"{where}:{line}: the core imports {module}; use backend.xp")
            elif _climbs(inside, module):
                found.append(f"{where}:{line}: imports {module}, which stands above it")
    return found


def main() -> int:
    """Print the offences of this repository's package."""
    found = offences(Path(__file__).resolve().parent.parent / "bilevel")
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
