"""The iterations as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from .._replacing import replacing


def plain(value: Any, to_numpy: Any = None) -> Any:
    """Return a value as what JSON knows: arrays as lists, enumerations by value, NaN as null."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name), to_numpy) for f in fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v, to_numpy) for v in value]
    return plain((to_numpy(value) if to_numpy else value).tolist())


def line(record: Any, backend: Any) -> str:
    """Return a record as one line of JSON, with its end."""
    return json.dumps(plain(record, backend.to_numpy)) + "\n"


def write_log(path: str | Path, records: Iterable[Any], backend: Any) -> None:
    """Write the records of a run, a line each; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        A regular file, or none yet.
    records : iterable of Record
        ``result.history``.
    backend : Backend
        Where their arrays live.
    """
    with replacing(path) as stream:
        for record in records:
            stream.write(line(record, backend).encode())


class JSONLines:
    r"""Write each record of a run as one line of JSON: a callback of ``minimize``.

    Parameters
    ----------
    path : str or Path
        The file; it is written anew, and each line reaches it at once.
    backend : Backend
        Where the arrays of the records live.

    Examples
    --------
    >>> import tempfile, pathlib, bilevel
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Line:
    ...     k: int
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> with JSONLines(path, bilevel.get_backend("numpy")) as log:
    ...     log(Line(0))
    >>> path.read_text()
    '{"k": 0}\n'
    """

    def __init__(self, path: str | Path, backend: Any) -> None:
        self._backend = backend
        self._stream: TextIO = Path(path).open("w", encoding="utf-8")  # noqa: SIM115

    def __call__(self, record: Any) -> None:
        self._stream.write(line(record, self._backend))
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
