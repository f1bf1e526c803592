"""Host arrays in .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np


def write_npz(file: IO[bytes], text: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write host arrays and a text beside them as an .npz file."""
    np.savez(file, allow_pickle=False, text=np.array(text), **arrays)


def read_npz(path: str | Path) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    """Read back what :func:`write_npz` wrote."""
    with Path(path).open("rb") as file:
        arrays = read_arrays(file)
    return str(arrays.pop("text")), arrays


def read_arrays(
    file: IO[bytes], wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray[Any, Any]]:
    """Read arrays of an .npz archive by name, each to its last byte.

    ``numpy.load`` stops where the shape in the header of an array is satisfied. The checksum stands
    behind the last byte, so that a damaged shape would pass for a smaller array.

    Raises
    ------
    ValueError
        If an array holds objects, or more or fewer bytes than its shape says.
    Exception
        Whatever zipfile, the decompressors and NumPy raise for what is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise ValueError("it holds two arrays of one name")
        found = {}
        for member in names:
            name = member.removesuffix(".npy")
            # Opened in any case: a name that is damaged in the directory is not that of the member.
            with archive.open(member) as stream:
                if wanted(name):
                    found[name] = read_array(stream, name)
    return found


def read_array(file: IO[bytes], name: str) -> np.ndarray[Any, Any]:
    """Read one array in the format of .npy files, to the last byte."""
    array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError(f"{name} holds more bytes than its shape {array.shape} says")
    return array
