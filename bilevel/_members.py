"""What a value is made of: the parts of containers, objects, classes and functions.

A function reaches data through what it closes over, through the names of its module that it and
the functions inside it load, and through modules. What belongs to Python and to installed packages
is named and not taken apart, but for the state of their objects.
"""

from __future__ import annotations

import copyreg
import dataclasses
import dis
import functools
import os
import site
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .backends import SparseKernel, dtype_name, get_backend, is_sparse
from .design import Standardized

#: Where the modules of Python, of installed packages and of this one are.
_INSTALLED = (
    "<frozen",
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    site.getusersitepackages() + os.sep,
    str(Path(__file__).absolute().parent) + os.sep,
)

#: What is computed from the other fields: another machine, or another number of threads, rounds it
#: otherwise.
_COMPUTED: Mapping[type, frozenset[str]] = {Standardized: frozenset({"mean", "scale"})}

#: Instructions that look a name up in the module.
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})

#: What a class holds of its instances' places, not of data.
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)

Members = Iterator[tuple[str, Any]]


def is_installed(value: types.CodeType | types.ModuleType | type) -> bool:
    """Whether code, a module or a class is of Python, of a package or of this one."""
    if isinstance(value, types.CodeType):
        return value.co_filename.startswith(_INSTALLED)
    if isinstance(value, type):
        name: object = value.__module__
        if not isinstance(name, str):  # as of those that Cython made
            return True
        top = name.partition(".")[0]  # of a library in C no module may bear the whole name
        module = sys.modules.get(name) or sys.modules.get(top)
        return module is not None and is_installed(module)
    file = getattr(value, "__file__", None)
    if file is None:
        return value.__name__ in sys.builtin_module_names
    return str(file).startswith(_INSTALLED)


def is_compiled(value: Any) -> bool:
    """Whether a value is a function of a library, not written in Python, and of no object."""
    owner = getattr(value, "__self__", None)
    return (
        callable(value)
        and not isinstance(value, (type, types.FunctionType, types.MethodType))
        and is_installed(type(value))
        and compiled_name(value) is not None
        and not hasattr(value, "__wrapped__")
        and (owner is None or isinstance(owner, (type, types.ModuleType)))
    )


#: Set in the flags of classes that are written in Python, or may be.
_HEAP_TYPE = 1 << 9


def compiled_name(value: Any) -> str | None:
    """What a library calls its function; a ufunc of CuPy has a short name alone.

    It notes in itself the kernels that it has made: what it holds says nothing of what it does.
    """
    static = not type(value).__flags__ & _HEAP_TYPE
    name = getattr(value, "__qualname__", None) or (static and getattr(value, "__name__", None))
    return name if isinstance(name, str) else None


def members(value: Any) -> Members:
    """Yield (name, part) of all that a value consists of.

    Raises
    ------
    Exception
        Of any kind, if it does not show that.
    """
    if isinstance(value, SparseKernel) or is_sparse(value):
        kernel = value if isinstance(value, SparseKernel) else None
        kernel = kernel or get_backend(value).sparse_kernel(value)
        yield from zip((".values", ".indices", ".indptr"), kernel.parts(), strict=True)
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield from ((".self", value.__self__), (".function", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".function", value.func), (".args", value.args), (".keys", value.keywords))
    elif isinstance(value, property):
        yield from ((".get", value.fget), (".set", value.fset))
    elif isinstance(value, weakref.ref):
        yield ".referent", value()
    else:
        yield from _of_object(value)


def _of_object(value: Any) -> Members:
    if not is_installed(type(value)):
        yield ".class", type(value)
    contained = isinstance(value, (Mapping, list, tuple, set, frozenset))
    if contained:
        yield from _of_container(value)
    if dataclasses.is_dataclass(value):
        yield from _of_dataclass(value)
    elif hasattr(value, "__wrapped__"):  # functions that a library has compiled
        yield ".wrapped", value.__wrapped__
    elif hasattr(value, "__self__"):  # a method that is not written in Python
        yield ".self", value.__self__
    elif hasattr(value, "attrname"):  # a cached property, which holds a lock until Python 3.12
        yield ".function", value.func
    else:
        yield from _attributes(value, contained)


def _of_container(value: Any) -> Members:
    """The entries; those of a set have no order, and whoever compares them gives them one."""
    if not isinstance(value, Mapping):
        yield from ((f"[{i}]", part) for i, part in enumerate(value))
        return
    for i, (key, part) in enumerate(value.items()):
        if key is None or isinstance(key, (str, bytes, int, float)):
            yield f"[{key!r}]", part
        else:  # the text of another one may name its place in memory
            yield from ((f"[{i}].key", key), (f"[{i}]", part))


def _of_dataclass(value: Any) -> Members:
    computed = _COMPUTED.get(type(value), frozenset())
    for field in dataclasses.fields(value):
        if field.compare and field.name not in computed:
            part = getattr(value, field.name)
            yield f".{field.name}", dtype_name(part) if field.name == "dtype" else part
    if not is_installed(type(value)):  # what one of ours keeps beside its fields it has computed
        yield from _beside_fields(value)


def _beside_fields(value: Any) -> Members:
    """What an object of a user's dataclass keeps that is no field, and no cached property."""
    kind, fields = type(value), {field.name for field in dataclasses.fields(value)}
    slots = [name for cls in kind.__mro__ for name in _slots(cls)]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    for name, part in sorted((held | getattr(value, "__dict__", {})).items()):
        if name not in fields and not hasattr(getattr(kind, name, None), "attrname"):
            yield f".{name}", part


def _attributes(value: Any, contained: bool) -> Members:
    """What an object of another kind holds, but for what it computed and keeps."""
    kind = type(value)
    if is_installed(kind) and _pickles_itself(kind) and not contained:
        yield from _state(value)
        return
    slots = [name for cls in kind.__mro__ for name in _slots(cls)]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    held |= getattr(value, "__dict__", {})
    for name, part in sorted(held.items()):
        if not hasattr(getattr(kind, name, None), "attrname"):  # a cached property
            yield f".{name}", part
    if not (contained or slots or hasattr(value, "__dict__")):
        yield from _state(value)


def _slots(cls: type) -> list[str]:
    return [
        name
        for name, part in vars(cls).items()
        if isinstance(part, types.MemberDescriptorType) and not _is_special(name)
    ]


def _pickles_itself(kind: type) -> bool:
    """Whether it says itself what its state is: without caches."""
    return any(
        getattr(kind, name, None) is not getattr(object, name, None)
        for name in ("__getstate__", "__reduce__", "__reduce_ex__")
    )


def _state(value: Any) -> Members:
    """What pickle would write of an object."""
    reduce = copyreg.dispatch_table.get(type(value))
    state = value.__reduce_ex__(4) if reduce is None else reduce(value)
    parts = [state] if isinstance(state, str) else list(state)
    yield ".state", [list(part) if isinstance(part, Iterator) else part for part in parts]


def _of_class(cls: type) -> Members:
    """The functions and data of a class of the user's."""
    if is_installed(cls):
        return
    for i, base in enumerate(cls.__bases__):
        yield f".base{i}", base
    for name, part in vars(cls).items():
        written = isinstance(part, types.FunctionType) and part.__code__.co_filename != "<string>"
        special = _is_special(name) or name == "_abc_impl"
        if not isinstance(part, _DESCRIPTORS) and (written or not special):
            yield f".{name}", part


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _of_function(function: types.FunctionType) -> Members:
    code = function.__code__
    if function.__defaults__ or function.__kwdefaults__:
        yield ".defaults", (function.__defaults__, function.__kwdefaults__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    if is_installed(code):
        return  # what the modules of a library hold is not ours
    for name, part in sorted(vars(function).items()):
        yield f".{name}", part
    names = {name for inner in _codes(code) for name in inner.co_names}
    for name, found in _loaded(function):
        if isinstance(found, types.ModuleType):
            yield from _of_module(found, names, name, {id(found)})
        else:
            yield f".{name}", found


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of the functions, lambdas and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _loaded(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function and those inside it take from their module, and the modules they import."""
    done = set()
    for step in (step for code in _codes(function.__code__) for step in dis.get_instructions(code)):
        name = step.argval
        if not isinstance(name, str) or (step.opname, name) in done:
            continue
        done.add((step.opname, name))
        if step.opname in _LOADS and name in function.__globals__ and not _is_special(name):
            yield name, function.__globals__[name]
        elif step.opname == "IMPORT_NAME" and name in sys.modules:
            yield name, sys.modules[name]


def _of_module(
    module: types.ModuleType, names: set[str], path: str, above: set[int]
) -> Iterator[tuple[str, Any]]:
    """What a function may take from a module of the user's, by the names that it uses."""
    if is_installed(module):
        return
    for name in sorted(names & vars(module).keys()):
        part = vars(module)[name]
        if not isinstance(part, types.ModuleType):
            yield f".{path}.{name}", part
        elif id(part) not in above:
            yield from _of_module(part, names, f"{path}.{name}", above | {id(part)})
