"""Check that the core names no array library, imports nothing above it, and holds no lock.

Core modules work on arrays of any library through ``backend.xp``; the packages in
``FREE`` are the ones that may name libraries. Until Python 3.12 ``functools.cached_property`` holds
a lock, for which searches that wait for each other would wait for ever: ``_cached``'s holds none.
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

#: These may import the face (``bilevel``) only, and the core may not import them.
ABOVE = frozenset("cli datasets estimators io plotting report".split())


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of each absolute import that runs, wherever it stands."""
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
            yield node.lineno, "." * node.level + (node.module or "")


def _locking_caches(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each use of functools' cached_property."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "functools":
            if any(alias.name == "cached_property" for alias in node.names):
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "functools.cached_property":
            yield node.lineno


def offences(package: Path) -> list[str]:
    """Return a line for each import in the core that breaks the rules.

    Parameters
    ----------
    package : Path
        The folder of the package.
    """
    found = []
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] in FREE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if inside.name != "_cached.py":
            for line in _locking_caches(tree):
                where = f"{package.name}/{inside.as_posix()}:{line}"
                found.append(f"{where}: functools.cached_property holds a lock; use _cached's")
        for line, module in _imports(tree):
            where = f"{package.name}/{inside.as_posix()}:{line}"
            if module.partition(".")[0] in LIBRARIES:
                found.append(f"{where}: the core imports {module}; use backend.xp")
            parts = module.lstrip(".").removeprefix("bilevel.").partition(".")[0]
            if (module.startswith((".", "bilevel."))) and parts in ABOVE:
                found.append(f"{where}: the core imports {module}, which stands above it")
    return found


def main() -> int:
    """Print the offences of this repository's package."""
    found = offences(Path(__file__).resolve().parent.parent / "bilevel")
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
