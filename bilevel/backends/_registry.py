"""Which backend an array belongs to, and the refusal of mixtures."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import array_api_compat
import numpy as np
from scipy import sparse

from ._protocol import Array, Backend, BackendUnavailableError

#: Where the class of each backend is, or the class itself.
_CLASSES: dict[str, str | type[Any]] = {
    "numpy": "bilevel.backends.numpy:NumPyBackend",
    "cupy": "bilevel.backends.cupy:CuPyBackend",
    "torch": "bilevel.backends.torch:TorchBackend",
    "jax": "bilevel.backends.jax:JAXBackend",
    "array_api_strict": "bilevel.backends.strict:StrictBackend",
    "dpnp": "bilevel.backends.dpnp:DpnpBackend",
}

#: The backend of an array, by the first part of its type's module.
_MODULES = {
    **{name: name for name in _CLASSES},
    "cupyx": "cupy",
    "jaxlib": "jax",
    "scipy": "numpy",
}

#: The entry points by which an installed package makes a backend known.
ENTRY_POINTS = "bilevel.backends"


def register_backend(
    name: str, backend: str | type[Any], *, modules: Sequence[str] | None = None
) -> None:
    """Make an array library known, by name and by its arrays.

    A package that is installed does without a call: its backends are the entry points of the group
    ``bilevel.backends``, ``name = "package.module:Class"``.

    Parameters
    ----------
    name : str
        How users call it.
    backend : class or str
        What makes a :class:`Backend` of a device, mostly a subclass of
        :class:`~bilevel.backends.array_api.ArrayAPIBackend`; or ``"package.module:Class"``, which
        is imported when it is first asked for.
    modules : sequence of str, optional
        The packages whose types its arrays are, ``name`` when omitted.

    Raises
    ------
    ValueError
        If the name, or a package, is another backend's already.
    TypeError
        If ``backend`` is neither, or a class without what a :class:`Backend` has.

    Examples
    --------
    >>> from bilevel.backends import backend_names, register_backend
    >>> register_backend("numpy", "bilevel.backends.numpy:NumPyBackend")  # as it is already
    >>> "numpy" in backend_names()
    True
    """
    if not (isinstance(name, str) and name):
        raise TypeError(f"name must be a text, got {name!r}.")
    if not (isinstance(backend, type) or (isinstance(backend, str) and ":" in backend)):
        raise TypeError(f'backend must be a class or "package.module:Class", got {backend!r}.')
    packages = (name,) if modules is None else tuple(modules)
    if _CLASSES.get(name, backend) != backend:
        raise ValueError(f"The backend {name!r} is {_CLASSES[name]!r} already, got {backend!r}.")
    for package in packages:
        if _MODULES.get(package, name) != name:
            raise ValueError(
                f"Arrays of {package!r} belong to the backend {_MODULES[package]!r} already."
            )
    if isinstance(backend, type):
        _refuse_part(backend, name)
    _CLASSES[name] = backend
    _MODULES.update(dict.fromkeys(packages, name))


@cache
def _discover() -> None:
    """Register the backends of installed packages, once; what is registered by hand comes first."""
    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in _CLASSES:
            register_backend(point.name, point.value)


def _class_of(name: str) -> type[Any]:
    found = _CLASSES[name]
    if isinstance(found, type):
        return found
    module, _, cls = found.partition(":")
    try:
        made: type[Any] = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise BackendUnavailableError(
            f"The backend {name!r} is registered as {found!r}, which can't be imported: {error}."
        ) from error
    return made


#: What the class of a backend has, and what else has a backend that is made of it.
_METHODS = tuple(name for name, part in vars(Backend).items() if name[0] != "_" and callable(part))
_ATTRIBUTES = ("name", "xp", "device")

#: Classes that have been tried.
_TRIED: set[type[Any]] = set()


def _refuse_part(made: type[Any], name: str) -> None:
    """Refuse a class that is none of a backend, or that of a library with another name.

    Raises
    ------
    TypeError, ValueError
        The message says what is missing.
    """
    from .array_api import ArrayAPIBackend

    derived = issubclass(made, ArrayAPIBackend)
    wanted = (*_METHODS, *(("name", "module", "install") if derived else ()))
    missing = [member for member in wanted if not hasattr(made, member)]
    if missing:
        remedy = "" if derived else ": derive it from bilevel.backends.ArrayAPIBackend"
        raise TypeError(
            f"The class of the backend {name!r} must have {', '.join(missing)}, which "
            f"{made.__name__} has not{remedy}."
        )
    try:
        inspect.signature(made).bind(None)
    except TypeError as error:
        raise TypeError(
            f"{made.__name__}, the class of the backend {name!r}, must take a device, or None: "
            f"{error}."
        ) from error
    if getattr(made, "name", name) != name:
        raise ValueError(
            f"A backend must have the name by which it is registered, {name!r}, but that of "
            f"{made.__name__} is {made.name!r}."
        )


def _try(backend: Any, name: str) -> None:
    """Refuse a backend from outside that lacks parts, or does not bring numbers to the host."""
    missing = [member for member in _ATTRIBUTES if not hasattr(backend, member)]
    if missing or backend.name != name:
        had = f"without {', '.join(missing)}" if missing else f"of the name {backend.name!r}"
        raise TypeError(
            f"The backend {name!r} must have {', '.join(_ATTRIBUTES)}, got a "
            f"{type(backend).__name__} {had}."
        )
    numbers = np.asarray([0.5, -2.0], dtype=np.float32)  # which each device knows
    try:
        found: Any = backend.to_numpy(backend.asarray(numbers))
        host = type(found) is np.ndarray and found.dtype == numbers.dtype
        same = host and np.array_equal(found, numbers)
    except Exception as error:  # each library has its own
        found, same = f"{type(error).__name__}: {error}", False
    if not same:
        raise TypeError(
            f"{type(backend).__name__}.to_numpy, of the backend {name!r}, must bring an array to "
            f"the host as one of NumPy, got {found!r} for {numbers!r}: override it."
        )


def backend_names() -> tuple[str, ...]:
    """Return the names that :func:`get_backend` knows, installed or not."""
    _discover()
    return tuple(_CLASSES)


def library_of(array: Any) -> str | None:
    """Return the name of the backend of an array, or None if it is no array we know."""
    found = _known_library(array)
    if found is None and hasattr(array, "__array_namespace__"):
        _discover()
        found = _known_library(array)
    return found


def _known_library(array: Any) -> str | None:
    for cls in type(array).__mro__:
        # Classes that Cython made have no text there.
        name = _MODULES.get(str(cls.__module__).partition(".")[0])
        if name is not None:
            return name
    return None


def is_array(value: Any) -> bool:
    """Tell whether this is a dense array of a known library."""
    return library_of(value) is not None and array_api_compat.is_array_api_obj(value)


def is_sparse(array: Any) -> bool:
    """Tell whether this is a sparse matrix of SciPy, CuPy, torch or JAX."""
    if sparse.issparse(array):
        return True
    module = str(type(array).__module__)
    top = module.partition(".")[0]
    if top == "cupyx":
        return hasattr(array, "tocsr")
    if top == "jax":
        return module.startswith("jax.experimental.sparse")
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
    TypeError
        If ``like`` is neither a name nor an array of a known library.
    BackendUnavailableError
        If the library is not installed, or has no usable device; the message says what to do.

    Examples
    --------
    >>> from bilevel import get_backend
    >>> get_backend("numpy").name
    'numpy'
    """
    if isinstance(like, str):
        if like not in backend_names():
            raise ValueError(f"Unknown backend {like!r}: expected one of {list(_CLASSES)}.")
        name = like
    else:
        found = library_of(like)
        _refuse_without_numbers(like)
        if found is None:
            raise TypeError(
                f"No backend for an object of type {type(like).__name__}: expected an array of "
                f"one of {list(_CLASSES)}."
            )
        name, device = found, _device_of(like) if device is None else device
    made = _class_of(name)
    if made in _TRIED:
        backend: Backend = made(device)
        return backend
    ours = made.__module__.startswith(__package__)
    if not ours:
        _refuse_part(made, name)
    backend = made(device)
    if not ours:
        _try(backend, name)
    _TRIED.add(made)
    return backend


def _refuse_without_numbers(array: Any) -> None:
    """Refuse what stands for numbers that are yet to come, or is no one array.

    Raises
    ------
    TypeError
        If it is traced by JAX (jit, grad, vmap), or a nested tensor of torch.
    """
    if any(cls.__name__ == "Tracer" for cls in type(array).__mro__):
        raise TypeError(
            "An array that JAX traces holds no numbers yet: call bilevel outside of jax.jit, "
            "jax.grad and jax.vmap."
        )
    if getattr(array, "is_nested", False) is True:
        raise TypeError("A nested tensor has rows of several lengths: pad them to one array.")


def _device_of(array: Any) -> Any:
    # A sparse matrix is no array-API object, but the ones on a device know it all the same.
    if array_api_compat.is_array_api_obj(array) and not is_sparse(array):
        return array_api_compat.device(array)
    if library_of(array) == "cupy":  # its matrices have the property, which is not implemented
        array = array.data
    return getattr(array, "device", None)


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
        If the arrays are of different libraries, or on different devices; the message names
        both.

    Examples
    --------
    >>> import numpy as np
    >>> backend_of(X=np.ones((2, 2)), y=np.ones(2)).name
    'numpy'
    """
    first_name, backend = "", None
    for name, array in arrays.items():
        if array is None:
            continue
        if isinstance(array, np.generic) or library_of(array) is None:
            raise TypeError(f"{name} must be an array, got {_kind(array)}.")
        refuse_matrix_classes(array, name)
        found = get_backend(array)
        if backend is None:
            first_name, backend = name, found
        else:
            same_backend(backend, found, first_name, name)
    if backend is None:
        raise TypeError(f"{' or '.join(arrays)} must be an array, got None.")
    return backend


def lent(backend: Backend, *arrays: Any) -> Iterator[Any]:
    """Copies of arrays for a user's function, or of what it returned.

    It may write into the former as into any array of its own, and return the same buffer each time.
    Beside what it computes they cost little.
    """
    return map(backend.copied, arrays)


def constant(array: Any) -> Any:
    """The same numbers, not to be differentiated: torch would keep a record of all their uses."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def refuse_matrix_classes(array: Any, name: str) -> None:
    """Refuse NumPy arrays whose own rules our products would break or pass over.

    Raises
    ------
    TypeError
        If it is a masked array, whose mask would be ignored, or a numpy.matrix, or a list of such.
    """
    for part in array if isinstance(array, (list, tuple)) else (array,):
        if isinstance(part, (np.ma.MaskedArray, np.matrix)):  # the first hides that rows are lost
            raise TypeError(
                f"{name} must be a plain array, got a {type(part).__name__}: leave out or fill "
                "what is masked, and take numpy.asarray of it."
            )


def dense_backend_of(**arrays: Any) -> Backend:
    """Return the one backend of all these arrays, and refuse a mixture, a sparse one and None.

    Examples
    --------
    >>> import numpy as np
    >>> dense_backend_of(y=np.ones(2)).name
    'numpy'
    """
    for name, array in arrays.items():
        if array is None:
            raise TypeError(f"{name} must be an array, got None.")
    backend = backend_of(**arrays)
    for name, array in arrays.items():
        if is_sparse(array):
            raise TypeError(f"{name} must be a dense array, got a sparse matrix: make it dense.")
    return backend


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def same_backend(expected: Backend, found: Backend, expected_name: str, found_name: str) -> None:
    """Refuse an argument that lives elsewhere than another.

    Raises
    ------
    ValueError
        If library or device differ; the message names both arguments and the cure.
    """
    if found != expected:
        raise ValueError(
            f"{found_name} is on {found.name} ({found.device}) but {expected_name} is on "
            f"{expected.name} ({expected.device}): move one of them with get_backend(...).asarray "
            "first."
        )


def common_dtype(backend: Backend, **arrays: Any) -> Any:
    """Return the one dtype, float32 or float64, of these arrays, and refuse a mixture.

    Raises
    ------
    TypeError
        If an array has another dtype, or two arrays differ; the message names both.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> common_dtype(bilevel.get_backend("numpy"), X=np.ones(2), y=np.ones(3))
    dtype('float64')
    """
    xp = backend.xp
    first_name, dtype = "", None
    for name, array in arrays.items():
        if array is None:
            continue
        found = array.dtype
        if found not in (xp.float32, xp.float64):
            raise TypeError(
                f"{name} must be of dtype float32 or float64, got {found}: convert it first."
            )
        if dtype is None:
            first_name, dtype = name, found
        elif found != dtype:
            raise TypeError(
                f"{name} has dtype {found} but {first_name} has dtype {dtype}: convert one."
            )
    return dtype


#: Up to here float32 holds every integer.
_EXACT = 2**24


def as_floats(backend: Backend, array: Array, name: str, dtype: Any = None) -> Array:
    """Return integers and truth values as floats; floats stay as they are.

    A library's own choice may be float32, as torch's is, which moves a Unix time by a minute.

    Parameters
    ----------
    backend : Backend
        Of the array.
    array : array
        Numbers.
    name : str
        How the user calls them.
    dtype : dtype, optional
        What they become; float64 by default, or float32 on a device that has no other.

    Raises
    ------
    ValueError
        If they are to be float32, and there are some that it may not hold.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> as_floats(backend, np.array([1, 2]), "X")
    array([1., 2.])
    >>> as_floats(backend, np.array([2**24 + 1]), "y", np.float32)
    Traceback (most recent call last):
    ValueError: y must hold integers of at most 2^24 in size, which float32 holds, got some up to \
1.67772e+07: give floats, or subtract an offset first.
    """
    xp = backend.xp
    if not xp.isdtype(array.dtype, ("integral", "bool")):
        return array
    if dtype is None:
        known = xp.__array_namespace_info__().dtypes(device=backend.device, kind="real floating")
        dtype = known.get("float64", xp.float32)
    if dtype == xp.float32 and 0 not in array.shape and not xp.isdtype(array.dtype, "bool"):
        largest = 0.0
        if xp.iinfo(array.dtype).max > _EXACT:
            largest = max(map(abs, backend.scalars(xp.min(array), xp.max(array))))
        if largest > _EXACT:
            raise ValueError(
                f"{name} must hold integers of at most 2^24 in size, which float32 holds, got some "
                f"up to {largest:g}: give floats, or subtract an offset first."
            )
    return xp.astype(array, dtype)
