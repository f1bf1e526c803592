"""Array libraries and devices: the only package that knows their names.

>>> import bilevel
>>> backend = bilevel.get_backend("numpy")
>>> backend.to_numpy(backend.expit(backend.asarray([0.0])))
array([0.5])
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import array_api_compat
import numpy as np
from scipy import sparse

from ._protocol import Array, Backend, BackendUnavailableError, HostIndex, SparseKernel

__all__ = [
    "Array",
    "Backend",
    "BackendUnavailableError",
    "HostIndex",
    "SparseKernel",
    "backend_names",
    "backend_of",
    "common_dtype",
    "get_backend",
    "is_array",
    "is_sparse",
    "read_npz",
    "write_npz",
]


def _numpy(device: Any) -> Backend:
    from .numpy import NumPyBackend

    return NumPyBackend(device)


def _cupy(device: Any) -> Backend:
    from .cupy import CuPyBackend

    return CuPyBackend(device)


def _standard(name: str) -> Callable[[Any], Backend]:
    def build(device: Any) -> Backend:
        from .array_api import ArrayAPIBackend

        return ArrayAPIBackend(name, device)

    return build


_FACTORIES: dict[str, Callable[[Any], Backend]] = {
    "numpy": _numpy,
    "cupy": _cupy,
    "torch": _standard("torch"),
    "jax": _standard("jax"),
    "array_api_strict": _standard("array_api_strict"),
    "dpnp": _standard("dpnp"),
}

#: The library of an array, by the first part of its type's module.
_MODULES = {
    "numpy": "numpy",
    "cupy": "cupy",
    "cupyx": "cupy",
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "array_api_strict": "array_api_strict",
    "dpnp": "dpnp",
    "scipy": "numpy",
}


def backend_names() -> tuple[str, ...]:
    """Return the names that :func:`get_backend` knows, installed or not."""
    return tuple(_FACTORIES)


def _library_of(array: Any) -> str | None:
    for cls in type(array).__mro__:
        name = _MODULES.get(cls.__module__.partition(".")[0])
        if name is not None:
            return name
    return None


def is_array(value: Any) -> bool:
    """Tell whether this is a dense array of a known library."""
    return _library_of(value) is not None and array_api_compat.is_array_api_obj(value)


def is_sparse(array: Any) -> bool:
    """Tell whether this is a sparse matrix of SciPy, CuPy or torch."""
    if sparse.issparse(array):
        return True
    top = type(array).__module__.partition(".")[0]
    if top == "cupyx":
        return hasattr(array, "tocsr")
    return top == "torch" and str(getattr(array, "layout", "")).startswith("torch.sparse")


def get_backend(like: Any = "numpy", *, device: Any = None) -> Backend:
    """Return the backend of a library by name, or that of an array.

    Parameters
    ----------
    like : str or array
        ``"numpy"``, ``"cupy"``, ``"torch"``, ``"jax"``, ``"array_api_strict"`` or ``"dpnp"``;
        or an array (dense or sparse), whose library and device are taken.
    device : object, optional
        A device of that library, or its name (``"cuda:0"``). The default device of the library,
        or the array's, when omitted.

    Returns
    -------
    Backend
        The library on that device.

    Raises
    ------
    ValueError
        If no such backend is known.
    BackendUnavailableError
        If the library is not installed, or has no usable device; the message says what to do.

    Examples
    --------
    >>> from bilevel import get_backend
    >>> get_backend("numpy").name
    'numpy'
    """
    if isinstance(like, str):
        if like not in _FACTORIES:
            raise ValueError(f"Unknown backend {like!r}: expected one of {list(_FACTORIES)}.")
        return _FACTORIES[like](device)
    name = _library_of(like)
    if name is None:
        raise TypeError(
            f"No backend for an object of type {type(like).__name__}: expected an array of one of "
            f"{list(_FACTORIES)}."
        )
    if device is None and name != "numpy":
        # A sparse matrix is no array-API object, but knows its device all the same.
        device = getattr(like, "device", None) if is_sparse(like) else array_api_compat.device(like)
    return _FACTORIES[name](device)


def backend_of(**arrays: Any) -> Backend:
    """Return the one backend of all these arrays, and refuse a mixture.

    Parameters
    ----------
    **arrays : array
        Arrays by the name under which the user knows them. ``None`` is passed over.

    Raises
    ------
    TypeError
        If an argument is no array of a known library.
    ValueError
        If the arrays are of different libraries, or on different devices.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    first_name, backend = "", None
    for name, array in given.items():
        if isinstance(array, (list, tuple, int, float, np.generic)) or _library_of(array) is None:
            raise TypeError(f"{name} must be an array, got {type(array).__name__}.")
        found = get_backend(array)
        if backend is None:
            first_name, backend = name, found
        elif found.name != backend.name:
            raise ValueError(
                f"{name} is a {found.name} array but {first_name} is a {backend.name} array: "
                "move one of them with get_backend(...).asarray first."
            )
        elif found.device != backend.device:
            raise ValueError(
                f"{name} is on {found.device} but {first_name} is on {backend.device}: "
                "move one of them first."
            )
    if backend is None:
        raise TypeError("Expected at least one array.")
    return backend


def common_dtype(backend: Backend, **arrays: Any) -> Any:
    """Return the one real floating dtype of these arrays, and refuse a mixture."""
    first_name, dtype = "", None
    for name, array in arrays.items():
        if array is None:
            continue
        found = array.dtype
        if not backend.xp.isdtype(found, "real floating"):
            raise TypeError(f"{name} must be of a real floating dtype, got {found}.")
        if dtype is None:
            first_name, dtype = name, found
        elif found != dtype:
            raise TypeError(
                f"{name} has dtype {found} but {first_name} has dtype {dtype}: convert one."
            )
    return dtype



def write_npz(file: IO[bytes], text: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write host arrays and a text beside them as an .npz file."""
    np.savez(file, allow_pickle=False, text=np.array(text), **arrays)


def read_npz(path: str | Path) -> tuple[str, dict[str, np.ndarray[Any, Any]]]:
    """Read back what :func:`write_npz` wrote."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return str(arrays.pop("text")), arrays
