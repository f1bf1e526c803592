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
import itertools
import json
import math
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._replacing import is_plain_or_new, replacing
from .answers import ask_again
from .backends import described, get_backend, is_array, read_arrays, read_npz, write_npz
from .fingerprint import counts, differences, fingerprint, unknown
from .problem import Problem
from .snapshot import History, Snapshot

if TYPE_CHECKING:
    from .methods import Method

_FORMAT = 5

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
    """The checkpoint of one run: kept up to date as it goes on, and no reason to end it.

    Attributes
    ----------
    trouble : str
        Why the file does not hold the last iteration, as a sentence; empty where it does.

    Raises
    ------
    ValueError
        If there is no such folder, or the path is that of something else than a file.
    TypeError
        If a state of this method could not be read again.
    """

    def __init__(
        self, path: str | Path, problem: Problem, method: Method, begun: Snapshot, **start: Any
    ) -> None:
        self._path, self._problem = Path(path).absolute(), problem
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint is to be written to {path}: there is no such folder.")
        if not is_plain_or_new(self._path):
            raise ValueError(f"checkpoint must be the path of a file, got {path}, which is none.")
        self._packages = packages_of(method)
        _refuse_unreadable(begun.state, method, _Codec(problem, self._packages))
        self._identity, self._method = identify(problem, method, **start), method
        with contextlib.suppress(Exception):  # what a problem can't compute is said by its run
            _ = problem.probe  # kept: its passes are not the run's
        self._warned = self._tried = False
        self._due, self._kept = 0.0, 0
        self._questions, self._remark = _QUESTIONS, ""
        self.trouble = ""

    def begin(self, *, resume: bool) -> Snapshot | None:
        """What the file holds, if the run is to go on from it; None where it begins anew.

        A file that is no checkpoint is not written over: it may be all there is of something. An
        empty one is none of anything.
        """
        if not self._path.exists():
            return None
        if resume:
            found = load(self._path, self._problem, self._identity, self._packages)
            self._kept = found.n_iter
            return found
        if self._path.stat().st_size and not is_checkpoint(self._path):
            raise ValueError(
                f"checkpoint: {self._path} is there and is no checkpoint of bilevel; it would be "
                "written over. Give another path, or remove that file."
            )
        return None

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot, unless writing the last one took a good part of the time since."""
        if time.perf_counter() >= self._due:
            self._write(snapshot)

    def close(self, snapshot: Snapshot) -> None:
        """Write a snapshot that is not written yet."""
        if snapshot.n_iter > self._kept:
            self._write(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        """Write; where that fails, warn once and let the run go on."""
        began = time.perf_counter()
        self.trouble = f"The checkpoint {self._path} does not hold the last iteration."
        try:
            if not self._tried:  # the state at the start may have held less
                codec = _Codec(self._problem, self._packages)
                _refuse_unreadable(snapshot.state, self._method, codec)
                self._tried = True
            save(self._path, snapshot, self._problem, self._identity, self._packages)
        except Exception as error:  # whatever it is, the run is worth more than its checkpoint
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.trouble = (
                f"The checkpoint {self._path} could not be written: {reason.rstrip('.')}."
            )
            if not self._warned:
                self._warned = True
                warnings.warn(f"{self.trouble} The run goes on.", RuntimeWarning, stacklevel=3)
        else:
            self._ask()
            self.trouble, self._kept = self._remark, snapshot.n_iter
        now = time.perf_counter()
        self._due = now + _PATIENCE * (now - began)

    def _ask(self) -> None:
        """Ask, now and then, whether the method keeps in itself what belongs into its state."""
        if self._remark or not self._questions:
            return
        self._questions -= 1
        now = fingerprint(self._method, "method")
        differing = differences(self._identity["method"], now)
        if differing:
            self._remark = f"The method changes itself ({differing[0]}): a resumed run differs."
            warnings.warn(self._remark, RuntimeWarning, stacklevel=5)


#: How often a method is asked whether it is still what it was.
_QUESTIONS = 2

#: Seconds of the run for each second that writing takes, at least.
_PATIENCE = 20.0


def packages_of(method: Method) -> tuple[str, ...]:
    """The packages whose dataclasses a state may be made of: this one, and those of the method."""
    theirs = (cls.__module__.partition(".")[0] for cls in type(method).__mro__[:-1])
    return tuple(dict.fromkeys((__name__.partition(".")[0], *theirs)))


def _refuse_unreadable(state: Any, method: Method, codec: _Codec) -> None:
    """Refuse a state that could not be written, could not be read, or would come back another."""
    arrays: dict[str, Any] = {}
    try:
        tree = codec.encode(state, arrays)
        try:
            again = codec.decode(tree, arrays)
        except Exception as error:  # whatever the class of a state raises where it is made
            made = f"{type(error).__name__}: {error}"
            raise TypeError(f"since it can't be made anew of its fields ({made})") from error
        changed = _changed(state, again, "state")
        if changed is not None:
            raise TypeError(f"since it comes back another: {changed}")
    except TypeError as error:
        raise TypeError(
            f"checkpoint: a state of {type(method).__name__} could not be resumed, {error}."
        ) from None


def _changed(value: Any, again: Any, path: str) -> str | None:
    """What of a value is another where it was written and read again; None where nothing is."""
    if is_array(value) and not isinstance(value, float):  # as NumPy's are
        return _changed_array(value, again, path)
    if isinstance(value, History):
        return None
    pairs, same = _parts(value, again, path), type(again) is type(value)
    if isinstance(value, (tuple, list)):
        same = same and len(again) == len(value)
    elif not pairs:
        same = value == again or (value != value and again != again)
    if not same:
        return f"{path}, {described(value)}, as {described(again)}"
    found = (_changed(a, b, name) for name, a, b in pairs)
    return next((change for change in found if change is not None), None)


def _parts(value: Any, again: Any, path: str) -> list[tuple[str, Any, Any]]:
    """Those of a list, a tuple or a dataclass, side by side; of all else there are none."""
    if isinstance(value, (tuple, list)):
        both = zip(value, again, strict=False) if isinstance(again, (tuple, list)) else ()
        return [(f"{path}[{i}]", *pair) for i, pair in enumerate(both)]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return [(f"{path}.{n}", getattr(value, n), getattr(again, n, None)) for n in names]
    return []


def _changed_array(value: Any, again: Any, path: str) -> str | None:
    """The same of an array: of another library, or other numbers."""
    if not is_array(again):
        return f"{path}, {described(value)}, as {described(again)}"
    here, there = get_backend(value), get_backend(again)
    if here.name != there.name:
        return f"{path}, an array of {here.name}, as one of {there.name}"
    a, b = here.to_numpy(value), there.to_numpy(again)
    if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
        return f"{path}, of {a.dtype}, as an array of {b.dtype} with other numbers or another shape"
    return None


def save(
    path: str | Path,
    snapshot: Snapshot,
    problem: Problem,
    identity: Identity,
    packages: Iterable[str] = (),
) -> None:
    """Write a snapshot; the file is replaced in one step.

    ``packages`` are those that may define the classes of a state, beside this one.
    """
    arrays: dict[str, Any] = {}
    tree = _Codec(problem, packages).encode(snapshot, arrays)
    content = json.dumps(
        {
            "identity": identity,
            "library": problem.backend.name,
            "probe": problem.probe,
            "tree": tree,
        }
    )
    header = {"format": _FORMAT, "digest": _digest(content, arrays), "content": content}
    buffer = io.BytesIO()
    write_npz(buffer, json.dumps(header), arrays)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def load(
    path: str | Path, problem: Problem, identity: Identity, packages: Iterable[str] = ()
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
    _refuse_another(path, found, identity, problem)
    _warn_of_unknown(path, identity)
    _warn_of_another_library(path, content.get("library"), problem)
    _refuse_other_values(path, (value, criterion), problem)
    with _damage(path):
        snapshot: Snapshot = _Codec(problem, packages).decode(content["tree"], arrays)
        _refuse_misfits(snapshot, problem)
    return snapshot


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is a checkpoint, of this version or another; its arrays are not read."""
    try:
        with Path(path).open("rb") as file:
            text = read_arrays(file, wanted=lambda name: name == "text")["text"]
        return bool({"format", "content"} <= json.loads(str(text)).keys())
    except OSError:
        raise
    except Exception:  # the readers raise whatever another file leads to
        return False


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


class _Unknown(Exception):
    """A class that a file names, of a package that it may name, and that is not there."""


@contextlib.contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the file, and is said in one sentence."""
    try:
        yield
    except _Unknown as error:
        raise ValueError(
            f"{path} holds a {error}, which is not to be found here: another version wrote it, "
            "begin anew without resume."
        ) from error
    except Exception as error:  # there is no end to what a changed file may lead to
        raise ValueError(
            f"{path} is damaged or was changed ({type(error).__name__}: {str(error)[:200]}); "
            "begin anew without resume."
        ) from error


def _refuse_another(
    path: str | Path, found: Identity, identity: Identity, problem: Problem
) -> None:
    for what, expected in identity.items():
        differing = differences(found[what], expected)
        if differing and what == "problem":
            differing = _but_counts(found[what], expected, problem)
        if differing:
            more = len(differing) - _NAMED
            raise ValueError(
                f"{path} is of another {what}: {'; '.join(differing[:_NAMED])}"
                f"{f'; and {more} more' if more > 0 else ''}. "
                "Resume it with what it was begun with, or begin anew without resume."
            )


def _but_counts(
    found: Mapping[str, str], expected: Mapping[str, str], problem: Problem
) -> list[str]:
    """The differences but for those of numbers that a part counts itself: no data.

    Such a number changes where the problem is asked, and that is how it is told from data, here
    where something differs: elsewhere nobody pays for it.
    """
    ask_again(problem)
    counted = counts(expected, fingerprint(problem, "problem"))
    here = {path: text for path, text in expected.items() if path not in counted}
    return differences({k: v for k, v in found.items() if k not in counted}, here)


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


def _warn_of_another_library(path: str | Path, library: str | None, problem: Problem) -> None:
    """Another one sums in another order: the run goes on, but to other last digits."""
    here = problem.backend.name
    if library not in (None, here):
        warnings.warn(
            f"{path} was written with {library} and is resumed with {here}: the run goes on from "
            "it, but no more to the last bit as if it had not been broken off.",
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
    numbers = [0, *(record.k for record in history)]
    if any(b <= a for a, b in itertools.pairwise(numbers)) or numbers[-1] > snapshot.n_iter:
        raise TypeError("its iterations are not in order")


def _key(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class _Codec:
    """Snapshots as trees of plain values, and back.

    The classes that may occur are dataclasses and enumerations of a few packages, which are loaded
    already: a file can name no others, and import nothing.
    """

    def __init__(self, problem: Problem, packages: Iterable[str]) -> None:
        self._problem = problem
        self._packages = {__name__.partition(".")[0], *packages}

    def encode(self, value: Any, arrays: dict[str, Any]) -> Any:
        """Return a tree for JSON; its arrays go to ``arrays``."""
        if isinstance(value, Enum):
            return {"enum": self._known(type(value)), "name": value.name}
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return {"float": value.hex()}
        if isinstance(value, History):
            return {"history": [self.encode(record, arrays) for record in value]}
        if type(value) in (tuple, list):
            return {type(value).__name__: [self.encode(item, arrays) for item in value]}
        if dataclasses.is_dataclass(value):
            fields = {
                field.name: self.encode(getattr(value, field.name), arrays)
                for field in dataclasses.fields(value)
            }
            return {"class": self._known(type(value)), "fields": fields}
        if is_array(value):
            name = f"a{len(arrays)}"
            arrays[name] = self._problem.backend.to_numpy(value)
            if arrays[name].dtype.hasobject:
                raise TypeError("since a checkpoint can't hold an array of objects")
            return {"array": name}
        raise TypeError(f"since a checkpoint can't hold what is of the class {_key(type(value))}")

    def _known(self, cls: type) -> str:
        """The name of a class, by which it is found again."""
        key = _key(cls)
        try:
            found = self._class(key)
        except (KeyError, AttributeError) as error:
            raise TypeError(f"since {key} can't be found again by that name: {error}") from None
        if found is not cls:
            raise TypeError(f"since {key} is the name of another class")
        return key

    def _class(self, key: str) -> Any:
        """The class of a name."""
        module, _, name = key.partition(":")
        if module.partition(".")[0] not in self._packages:
            raise KeyError(f"its package is none of {sorted(self._packages)}")
        if module not in sys.modules:
            raise AttributeError(f"no module {module} is loaded")
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
        if not (dataclasses.is_dataclass(found) or issubclass(found, Enum)):
            raise AttributeError("it is no dataclass")
        return found

    def _named(self, key: str) -> Any:
        """The class that a file names."""
        try:
            return self._class(key)
        except AttributeError as error:
            raise _Unknown(key) from error

    def decode(self, value: Any, arrays: dict[str, Any]) -> Any:
        """Return what a tree stands for."""
        if not isinstance(value, dict):
            return value
        if "float" in value:
            return float.fromhex(value["float"])
        if "enum" in value:
            return self._named(value["enum"])[value["name"]]
        if "history" in value:
            return History([self.decode(record, arrays) for record in value["history"]])
        if "tuple" in value:
            return tuple(self.decode(item, arrays) for item in value["tuple"])
        if "list" in value:
            return [self.decode(item, arrays) for item in value["list"]]
        if "array" in value:
            return self._problem.backend.asarray(arrays[value["array"]])
        fields = {name: self.decode(item, arrays) for name, item in value["fields"].items()}
        return self._named(value["class"])(**fields)
