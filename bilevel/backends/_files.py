"""Host arrays in .npz files."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np


def write_npz(file: IO[bytes], text: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write host arrays and a text beside them as an .npz file."""
    np.savez(file, allow_pickle=False, text=np.array(text), **arrays)


def read_npz(path: str | Path) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    """Read back what :func:`write_npz` wrote."""
    # np.load of a path leaves the file open where it turns out to be no archive.
    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return str(arrays.pop("text")), arrays
