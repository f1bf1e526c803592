"""Checkpoints: a whole run in one .npz file, written so that a kill leaves the last one whole.

A snapshot is a tree of frozen dataclasses, arrays and numbers. Arrays become entries of the
file, everything else one JSON text; floats go through JSON's shortest round-trip form, so that
a resumed run continues from the very same bits.

Beside it stands what the run is of: a fingerprint of the problem (all of its data), of the method
with every option, and of where it started. It costs one read of the data, once a run
(:mod:`bilevel.fingerprint`).

A SHA-256 digest of all that a file holds stands in it, and a file that does not match it is
refused: damage, and changes by hand. It is no signature: who changes a file and computes the digest
again is believed, so resume no file of somebody whom you do not trust with the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._replacing import is_plain_or_new, replacing
from .backends import is_array, read_npz, write_npz
from .fingerprint import differences, fingerprint, unknown
from .problem import Problem

if TYPE_CHECKING:
    from .loop import Snapshot
    from .methods import Method

_FORMAT = 3

#: Differences that a refusal names.
_NAMED = 3

#: What a run is of: texts by path under each of "problem", "method" and "start".
Identity = Mapping[str, Mapping[str, str]]


def identify(problem: Problem, method: Method, **start: Any) -> Identity:
    """Return what tells this run from another one.

    Parameters
    ----------
    problem : Problem
        All its data and options count, not the library that holds them: a run can go on with
        another.
    method : Method
        With its options.
    **start
        Where and how it starts: lam0, x0 and tol. Budgets are no part of it, a resumed run may
        have others.
    """
    origin = {name: fingerprint(value, name) for name, value in start.items()}
    return {
        "problem": fingerprint(problem, "problem"),
        "method": fingerprint(method, "method"),
        "start": {path: text for part in origin.values() for path, text in part.items()},
    }


class Keeper:
    """The checkpoint of one run: written after each iteration, and no reason to end the run.

    Attributes
    ----------
    trouble : str
        Why the file does not hold the last iteration, as a sentence; empty where it does.

    Raises
    ------
    ValueError
        If there is no such folder, or the path is that of something else than a file.
    """

    def __init__(self, path: str | Path, problem: Problem, method: Method, **start: Any) -> None:
        self._path, self._problem = Path(path).absolute(), problem
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint is to be written to {path}: there is no such folder.")
        if not is_plain_or_new(self._path):
            raise ValueError(f"checkpoint must be the path of a file, got {path}, which is none.")
        self._identity = identify(problem, method, **start)
        with contextlib.suppress(Exception):  # what a problem can't compute is said by its run
            _ = problem.probe  # kept: its passes are not the run's
        self._modules = tuple(cls.__module__ for cls in type(method).__mro__[:-1])
        self._warned = False
        self.trouble = ""

    def load(self) -> Snapshot | None:
        """Read the file, or return None where there is none."""
        if not self._path.exists():
            return None
        return load(self._path, self._problem, self._identity, self._modules)

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot; where that fails, warn once and let the run go on."""
        try:
            save(self._path, snapshot, self._problem, self._identity, self._modules)
        except Exception as error:  # whatever it is, the run is worth more than its checkpoint
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.trouble = f"The checkpoint {self._path} could not be written: {reason}."
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.trouble} The run goes on.", RuntimeWarning, stacklevel=3)
        else:
            self.trouble = ""


def save(
    path: str | Path,
    snapshot: Snapshot,
    problem: Problem,
    identity: Identity,
    modules: Iterable[str] = (),
) -> None:
    """Write a snapshot; the file is replaced in one step.

    ``modules`` are those that may define the classes of a state, beside this package's.
    """
    arrays: dict[str, Any] = {}
    tree = _Codec(problem, modules).encode(snapshot, arrays)
    content = json.dumps({"identity": identity, "probe": problem.probe, "tree": tree})
    header = {"format": _FORMAT, "digest": _digest(content, arrays), "content": content}
    buffer = io.BytesIO()
    write_npz(buffer, json.dumps(header), arrays)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def load(
    path: str | Path, problem: Problem, identity: Identity, modules: Iterable[str] = ()
) -> Snapshot:
    """Read a snapshot back onto the backend of the problem.

    Raises
    ------
    ValueError
        If the file is no checkpoint, is damaged or was changed, or is one of another problem,
        method or start.
    """
    content, arrays = _read(path)
    with _damage(path):
        found = {what: dict(content["identity"][what]) for what in identity}
        value, criterion = map(float, content["probe"])
    _refuse_another(path, found, identity)
    _warn_of_unknown(path, identity)
    _refuse_other_values(path, (value, criterion), problem)
    with _damage(path):
        snapshot: Snapshot = _Codec(problem, modules).decode(content["tree"], arrays)
        _refuse_misfits(snapshot, problem)
    return snapshot


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a file and its arrays, which are those that were written."""
    try:
        text, arrays = read_npz(path)
        header = json.loads(text)
        found = header["format"]
    except Exception as error:  # the readers raise whatever the damage leads to
        raise ValueError(f"{path} is no checkpoint of bilevel ({str(error)[:200]}).") from error
    if found != _FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {found!r}, expected {_FORMAT}: another version "
            "wrote it, begin anew without resume."
        )
    with _damage(path):
        if header["digest"] != _digest(header["content"], arrays):
            raise ValueError("its content does not match its digest")
        content: dict[str, Any] = json.loads(header["content"])
    return content, arrays


def _digest(content: str, arrays: Mapping[str, Any]) -> str:
    """SHA-256 of a text and of host arrays: their names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    heads = [[name, array.dtype.str, list(array.shape)] for name, array in sorted(arrays.items())]
    digest.update(json.dumps([content, heads]).encode())
    for _, array in sorted(arrays.items()):
        digest.update(array.tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the file, and is said in one sentence."""
    try:
        yield
    except Exception as error:  # there is no end to what a changed file may lead to
        raise ValueError(
            f"{path} is damaged or was changed ({type(error).__name__}: {str(error)[:200]}); "
            "begin anew without resume."
        ) from error


def _refuse_another(path: str | Path, found: Identity, identity: Identity) -> None:
    for what, expected in identity.items():
        differing = differences(found[what], expected)
        if differing:
            more = len(differing) - _NAMED
            raise ValueError(
                f"{path} is of another {what}: {'; '.join(differing[:_NAMED])}"
                f"{f'; and {more} more' if more > 0 else ''}. "
                "Resume it with what it was begun with, or begin anew without resume."
            )


def _warn_of_unknown(path: str | Path, identity: Identity) -> None:
    """What shows nothing of itself, a lock or an open file, is no reason to refuse a run."""
    hidden = [name for found in identity.values() for name in unknown(found)]
    if hidden:
        more = len(hidden) - _NAMED
        warnings.warn(
            f"{path} is resumed although nobody can tell whether {', '.join(hidden[:_NAMED])}"
            f"{f' and {more} more' if more > 0 else ''} is what it was: it does not show what it "
            "holds.",
            RuntimeWarning,
            stacklevel=5,
        )


def _refuse_other_values(path: str | Path, probe: Sequence[float], problem: Problem) -> None:
    """What the problem computes, and what its functions use that no fingerprint sees.

    Another machine may round otherwise.
    """
    xp = problem.backend.xp
    rel_tol = 1e-5 if problem.dtype == xp.float64 else 1e-3
    for saved, here in zip(probe, problem.probe, strict=True):
        both_nan = math.isnan(saved) and math.isnan(here)
        if not (both_nan or math.isclose(saved, here, rel_tol=rel_tol)):
            raise ValueError(
                f"{path} is of another problem: at the same point its value is {saved} in the "
                f"file and {here} here."
            )


def _refuse_misfits(snapshot: Snapshot, problem: Problem) -> None:
    """Refuse what does not belong together: a file that was tampered with."""
    state, history = snapshot.state, snapshot.history
    inner = problem.inner
    for name, array, expected in (
        ("lam", state.lam, (inner.n_hyperparameters,)),
        ("x", state.x, tuple(inner.x_shape)),
    ):
        if tuple(array.shape) != expected:
            raise TypeError(f"{name} has shape {tuple(array.shape)}, expected {expected}")
        if array.dtype != problem.dtype:
            raise TypeError(f"{name} is of {array.dtype}, expected {problem.dtype}")
    if [record.k for record in history] != list(range(1, len(history) + 1)):
        raise TypeError("its iterations are not numbered from 1")


def _key(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class _Codec:
    """Snapshots as trees of plain values, and back.

    The classes that may occur are those of this package and of the modules of the method: a file
    can name no others.
    """

    def __init__(self, problem: Problem, modules: Iterable[str]) -> None:
        from . import loop, methods, record, status

        theirs = (sys.modules[name] for name in modules if name in sys.modules)
        self._problem = problem
        self._types = {
            _key(value): value
            for module in (loop, record, status, *methods.state_modules(), *theirs)
            for value in vars(module).values()
            if isinstance(value, type)
            and (dataclasses.is_dataclass(value) or issubclass(value, Enum))
        }

    def encode(self, value: Any, arrays: dict[str, Any]) -> Any:
        """Return a tree for JSON; its arrays go to ``arrays``."""
        if isinstance(value, Enum):
            return {"enum": self._known(value), "name": value.name}
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return {"float": value.hex()}
        if isinstance(value, (tuple, list)):
            return {"tuple": [self.encode(item, arrays) for item in value]}
        if dataclasses.is_dataclass(value):
            fields = {
                field.name: self.encode(getattr(value, field.name), arrays)
                for field in dataclasses.fields(value)
            }
            return {"class": self._known(value), "fields": fields}
        if is_array(value):
            name = f"a{len(arrays)}"
            arrays[name] = self._problem.backend.to_numpy(value)
            return {"array": name}
        raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")

    def _known(self, value: Any) -> str:
        key = _key(type(value))
        if key not in self._types:
            raise TypeError(
                f"a checkpoint can't hold a {type(value).__name__} that is not a class of the "
                "module of its method"
            )
        return key

    def decode(self, value: Any, arrays: dict[str, Any]) -> Any:
        """Return what a tree stands for."""
        if not isinstance(value, dict):
            return value
        if "float" in value:
            return float.fromhex(value["float"])
        if "enum" in value:
            members: Any = self._types[value["enum"]]
            return members[value["name"]]
        if "tuple" in value:
            return tuple(self.decode(item, arrays) for item in value["tuple"])
        if "array" in value:
            return self._problem.backend.asarray(arrays[value["array"]])
        fields = {name: self.decode(item, arrays) for name, item in value["fields"].items()}
        return self._types[value["class"]](**fields)
