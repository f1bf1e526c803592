"""The names that every recorded version of CuPy has, and how their arguments bind."""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).resolve().parents[2] / "cupy_names.py"


@cache
def _script() -> Any:
    """The module that wrote the file: its folder need not be on the path."""
    spec = importlib.util.spec_from_file_location("cupy_names", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _versions() -> tuple[dict[str, Any], ...]:
    return tuple(_script().stored().values())


@cache
def names(kind: str, place: str) -> dict[str, tuple[Any, ...]]:
    """What each version says of a name of a module or class, where all of them have it."""
    tables = [version[kind][place] for version in _versions()]
    shared = set.intersection(*map(set, tables))
    return {name: tuple(table[name] for table in tables) for name in sorted(shared)}


def unimplemented(path: str) -> list[str]:
    """Attributes of a class that raise NotImplementedError in some version."""
    return sorted(set().union(*(version["unimplemented"][path] for version in _versions())))


class Bound:
    """The signatures of one function in every version: a call must suit all of them."""

    def __init__(self, name: str, texts: tuple[str, ...]) -> None:
        self.name = name
        self.signatures = [_script().signature_of(text) for text in texts]

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Bind as the newest version does; TypeError where some version does not know an argument."""
        try:
            return [signature.bind(*args, **kwargs) for signature in self.signatures][-1]
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from error


def restrict(cls: type, path: str) -> type:
    """Refuse a class of the stand-in that has public names which the real one lacks."""
    known = names("classes", path)
    extra = {name for name in vars(cls) if not name.startswith("_")} - set(known)
    if extra:
        raise AssertionError(f"The real {path} has no {sorted(extra)}.")
    return cls
