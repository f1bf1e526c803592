"""Checkpoints: a whole run in one .npz file, written so that a kill leaves the last one whole.

A snapshot is a tree of frozen dataclasses, arrays and numbers. Arrays become entries of the
file, everything else one JSON text; floats go through JSON's shortest round-trip form, so that
a resumed run continues from the very same bits.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import zipfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backends import is_array, read_npz, write_npz
from .problem import Problem

if TYPE_CHECKING:
    from .loop import Snapshot
    from .methods import Method

_FORMAT = 1


def save(path: str | Path, snapshot: Snapshot, problem: Problem, method: Method) -> None:
    """Write a snapshot; the file is replaced in one step."""
    arrays: dict[str, Any] = {}
    tree = _encode(snapshot, problem, arrays)
    header = {
        "format": _FORMAT,
        "problem": _describe(problem),
        "method": repr(method),
        "probe": problem.probe,
    }
    text = json.dumps({**header, "tree": tree})
    buffer = io.BytesIO()
    write_npz(buffer, text, arrays)
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    with partial.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def load(path: str | Path, problem: Problem, method: Method) -> Snapshot:
    """Read a snapshot back onto the backend of the problem.

    Raises
    ------
    ValueError
        If the file is no checkpoint, or one of another problem or method.
    """
    try:
        text, arrays = read_npz(path)
        content = json.loads(text)
        found = content["format"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no checkpoint of bilevel ({error}).") from error
    if found != _FORMAT:
        raise ValueError(f"{path} has checkpoint format {found}, expected {_FORMAT}.")
    for name, expected in (("problem", _describe(problem)), ("method", repr(method))):
        if content[name] != expected:
            raise ValueError(
                f"{path} is of another {name}: it holds {content[name]}, this run is {expected}."
            )
    # Another machine may round otherwise: other data differ by far more than this.
    if not all(
        math.isclose(saved, here, rel_tol=1e-3)
        for saved, here in zip(content["probe"], problem.probe, strict=True)
    ):
        raise ValueError(f"{path} is of another problem: its data are not those of this run.")
    snapshot: Snapshot = _decode(content["tree"], problem, arrays)
    return snapshot


def _describe(problem: Problem) -> str:
    """Shape, dtype and domain; not the library, so that a run can go on with another."""
    dtype = str(problem.dtype).rpartition(".")[2]
    shape = "x".join(str(n) for n in problem.inner.x_shape)
    return (
        f"{type(problem.inner).__name__} with x of shape {shape}, "
        f"{problem.inner.n_hyperparameters} hyperparameter(s), {dtype}, "
        f"{problem.domain!r}"
    )


def _types() -> dict[str, type]:
    """The classes that a snapshot may hold, by name."""
    from . import loop, methods, record, status

    found: dict[str, type] = {}
    for module in (loop, record, status, *methods.state_modules()):
        for name, value in vars(module).items():
            known = dataclasses.is_dataclass(value) or name == "Status"
            if isinstance(value, type) and known:
                found[name] = value
    return found


def _encode(value: Any, problem: Problem, arrays: dict[str, Any]) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, Enum):
        return {"enum": type(value).__name__, "name": value.name}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_encode(item, problem, arrays) for item in value]}
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: _encode(getattr(value, field.name), problem, arrays)
            for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__, "fields": fields}
    if is_array(value):
        name = f"a{len(arrays)}"
        arrays[name] = problem.backend.to_numpy(value)
        return {"array": name}
    raise TypeError(f"A checkpoint can't hold a {type(value).__name__}.")


def _decode(value: Any, problem: Problem, arrays: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float.fromhex(value["float"])
    if "enum" in value:
        members: Any = _types()[value["enum"]]
        return members[value["name"]]
    if "tuple" in value:
        return tuple(_decode(item, problem, arrays) for item in value["tuple"])
    if "array" in value:
        return problem.backend.asarray(arrays[value["array"]])
    fields = {name: _decode(item, problem, arrays) for name, item in value["fields"].items()}
    return _types()[value["class"]](**fields)
