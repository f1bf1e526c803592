"""NumPy archives: dense or CSR features, one part or train, val and test."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy import sparse

from ..backends import read_array, read_arrays
from ._files import FAULTS, brief, check_file, memory, open_bytes, open_seekable
from ._table import BadFileError, Dataset, HostMatrix, Table, distinct_names

_CONVENTION = (
    "Store X and y (or X_train and y_train, and X_val, X_test likewise); a CSR matrix X is stored "
    "as X_data, X_indices, X_indptr and X_shape, or as scipy.sparse.save_npz does"
)

#: Kinds of dtypes that become float64, and those of labels, which may be text.
_REAL = "fiub"
_LABELS = "fiubUS"

#: Names of the features, optional.
_NAMES = "feature_names"


def read_npz(path: Path) -> Dataset:
    """Read an archive.

    Each part is called ``X`` and ``y``, or ``X_train`` and ``y_train`` (``val`` and ``test``
    likewise). A matrix is one array, or the four arrays NAME_data, NAME_indices, NAME_indptr and
    NAME_shape of its CSR form. What :func:`scipy.sparse.save_npz` wrote is read too, as ``X``: its
    labels are ``y`` in the archive, or the file NAME.y.npy beside it.

    Raises
    ------
    BadFileError
        If an array is missing, or its shape or dtype does not fit.
    """
    try:
        with open_seekable(path) as file:
            names = _refuse_too_large(path, file)
            arrays = read_arrays(file, lambda n: n.startswith(("X", "y")) or n in _KNOWN)
    except (BadFileError, *FAULTS):
        raise
    except Exception as error:  # zipfile and NumPy raise whatever the damage leads to
        raise BadFileError(
            path, f"it is no .npz archive of plain arrays ({brief(error)})", _CONVENTION + "."
        ) from error
    _refuse_rivals(path, arrays)
    if set(_SCIPY) <= set(arrays):
        X = _scipy_matrix(path, arrays)
        y = _beside(path, arrays)
        train: Table | None = _named(path, arrays, X, y, str(path), "y")
    else:
        train = _part(path, arrays, "_train") or _part(path, arrays, "")
    if train is None:
        have = ", ".join(names) or "nothing"
        raise BadFileError(path, f"it has no X and y, but {have}", _CONVENTION + ".")
    return Dataset(train, _part(path, arrays, "_val"), _part(path, arrays, "_test"))


_SCIPY = ("data", "indices", "indptr", "shape", "format")

_KNOWN = frozenset({*_SCIPY, _NAMES})


def _refuse_rivals(path: Path, arrays: Mapping[str, Any]) -> None:
    """Refuse two matrices of which one would be left out, and parts of a name that is not known."""

    def forms(suffix: str) -> list[str]:
        return [name for name in (f"X{suffix}", f"X{suffix}_data") if name in arrays]

    whole = forms("") + (["data"] if set(_SCIPY) <= set(arrays) else [])
    for rivals in (whole + forms("_train"), forms("_val"), forms("_test")):
        if len(rivals) > 1:
            raise BadFileError(
                path, f"it has {' and '.join(rivals)}", "Leave out what is not to be used."
            )
    parts = {name[1:].removesuffix("_data") for name in arrays if name.startswith("X")}
    for part in sorted(parts - {"_train", "_val", "_test", "_indices", "_indptr", "_shape", ""}):
        if f"y{part}" in arrays:
            raise BadFileError(
                path,
                f"it has X{part} and y{part}, a part that is not known",
                "Call the parts train, val and test.",
            )


def _refuse_too_large(path: Path, file: IO[bytes]) -> list[str]:
    """Return the names of the arrays, if they could fit into memory."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > memory():
        raise BadFileError(
            path, f"its arrays take {size / 1e9:.3g} GB, more than there is", "Give fewer rows."
        )
    return [member.filename.removesuffix(".npy") for member in members]


def _part(path: Path, arrays: Mapping[str, Any], suffix: str) -> Table | None:
    X = _matrix(path, arrays, f"X{suffix}")
    label = f"y{suffix}"
    if X is None:
        if label in arrays:
            raise BadFileError(
                path, f"it has {label} but no X{suffix}", f"Add it, or drop {label}."
            )
        return None
    if label not in arrays:
        raise BadFileError(path, f"it has X{suffix} but no {label}", f"Add the labels as {label}.")
    source = str(path) if not suffix else f"{path} ({suffix[1:]} part)"
    return _named(path, arrays, X, arrays[label], source, label)


def _named(
    path: Path, arrays: Mapping[str, Any], X: HostMatrix, y: Any, source: str, label: str
) -> Table:
    """Return the table with the names of its features, if the archive has them."""
    if y.dtype.kind not in _LABELS:
        raise BadFileError(
            path, f"{label} has the dtype {y.dtype}", "Store the labels as numbers or as text."
        )
    if y.dtype.kind == "f" and y.dtype.itemsize > 8:
        raise BadFileError(
            path, f"{label} has the dtype {y.dtype}", "Store the labels as float64, or as integers."
        )
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError:
            raise BadFileError(
                path, f"{label} holds bytes that are no UTF-8", "Store the labels as text (str)."
            ) from None
    names = None
    if _NAMES in arrays:
        found = arrays[_NAMES]
        if found.dtype.kind != "U" or found.shape != X.shape[1:]:
            raise BadFileError(
                path,
                f"{_NAMES} has the shape {found.shape} and the dtype {found.dtype}",
                f"Store {X.shape[1]} names as text.",
            )
        names = tuple(str(name) for name in found)
        distinct_names(path, names)
    return Table(X, y, source, label=label, names=names)


def _matrix(path: Path, arrays: Mapping[str, Any], name: str) -> HostMatrix | None:
    if name in arrays:
        return _dense(path, arrays[name], name)
    parts = [f"{name}_{part}" for part in ("data", "indices", "indptr", "shape")]
    missing = [part for part in parts if part not in arrays]
    if len(missing) == len(parts):
        return None
    if missing:
        raise BadFileError(
            path,
            f"the CSR matrix {name} lacks {', '.join(missing)}",
            "Store all four of its arrays.",
        )
    return _csr(path, name, *(arrays[part] for part in parts))


def _dense(path: Path, X: Any, name: str) -> HostMatrix:
    if X.ndim != 2:
        raise BadFileError(
            path, f"{name} has the shape {X.shape}", "Store it with two axes: rows, features."
        )
    return X.astype(_floating(path, X.dtype, name), copy=False)


def _csr(path: Path, name: str, data: Any, indices: Any, indptr: Any, shape: Any) -> HostMatrix:
    dtype = _floating(path, data.dtype, f"{name}_data")
    for part, array in (("indices", indices), ("indptr", indptr), ("shape", shape)):
        # SciPy would cut off fractions.
        if array.dtype.kind not in "iu":
            raise BadFileError(
                path, f"{name}_{part} has the dtype {array.dtype}", "Store integers."
            )
    try:
        matrix = sparse.csr_matrix(
            (data.astype(dtype, copy=False), indices, indptr), shape=tuple(int(s) for s in shape)
        )
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadFileError(
            path,
            f"the CSR arrays of {name} do not fit each other ({brief(error)})",
            "Write them anew.",
        ) from error
    matrix.sum_duplicates()
    return matrix


def _scipy_matrix(path: Path, arrays: Mapping[str, Any]) -> HostMatrix:
    stated = arrays["format"]
    kind = stated.item() if stated.ndim == 0 else stated
    kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
    if kind != "csr":
        raise BadFileError(
            path, f"the sparse matrix is of format {kind!r}", "Save it with X.tocsr()."
        )
    return _csr(path, "X", *(arrays[part] for part in ("data", "indices", "indptr", "shape")))


def _beside(path: Path, arrays: Mapping[str, Any]) -> Any:
    if "y" in arrays:
        return arrays["y"]
    beside = path.with_suffix(".y.npy")
    if not beside.exists():
        raise BadFileError(
            path,
            "the sparse matrix comes without labels",
            f"Save them beside it: numpy.save({beside.name!r}, y).",
        )
    check_file(beside)
    try:
        with open_bytes(beside) as file:
            return read_array(file, beside.name)
    except (BadFileError, *FAULTS):
        raise
    except Exception as error:  # NumPy raises whatever the damage leads to
        raise BadFileError(
            beside, f"it is no array of numbers or text ({brief(error)})", "Save the labels anew."
        ) from error


def _floating(path: Path, dtype: Any, name: str) -> Any:
    if dtype.kind not in _REAL:
        raise BadFileError(path, f"{name} has the dtype {dtype}", "Store numbers.")
    return dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
