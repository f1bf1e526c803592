"""What the real CuPy offers, read from its wheel: no driver and no GPU is asked for.

``python tests/support/cupy_names.py`` writes what is installed into ``cupy_names.json`` beside it,
an entry for each version. The stand-in offers what stands there, and no more; the contract test
holds the file against the wheel.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")

#: Namespaces, by the name that an import takes.
MODULES = (
    "array_api_compat.cupy array_api_compat.cupy.linalg cupy cupy.linalg cupy.cuda"
    " cupy.cuda.runtime cupyx cupyx.scipy.sparse cupyx.scipy.special"
).split()

#: Namespaces that load a CUDA library on import: their text is read instead.
READ = {
    "cupyx.scipy.linalg": "cupyx/scipy/linalg/_solve_triangular.py",
    "cupyx.cusparse": "cupyx/cusparse.py",
}

#: Classes: what their instances have.
CLASSES = (
    "cupy.ndarray",
    "cupy.ufunc",
    "cupy.cuda.Device",
    "cupy.cuda.Stream",
    "cupy.cuda.ExternalStream",
    "cupyx.scipy.sparse.csr_matrix",
    "cupyx.scipy.sparse.csc_matrix",
    "cupyx.scipy.sparse.coo_matrix",
)


def text_of(signature: inspect.Signature) -> str:
    """A signature without annotations; a default that is no literal is written ``...``."""
    plain = []
    for parameter in signature.parameters.values():
        default = parameter.default
        if default is not parameter.empty and not isinstance(default, str | int | float | None):
            default = ...
        plain.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(inspect.Signature(plain)).replace("Ellipsis", "...")


def signature_of(text: str) -> inspect.Signature:
    """What :func:`text_of` wrote, to bind arguments to."""
    scope: dict[str, Any] = {}
    exec(f"def function{text}: ...", scope)
    return inspect.signature(scope["function"])


def described(value: Any) -> Any:
    """One name: ``[nin, nout]`` of a ufunc, a signature, or the name of a type."""
    if type(value).__name__ == "ufunc":
        return [value.nin, value.nout]
    if inspect.isclass(value):
        return "class"
    if inspect.ismodule(value):
        return "module"
    if callable(value):
        try:
            return text_of(inspect.signature(value))
        except (TypeError, ValueError):  # compiled
            return "callable"
    return type(value).__name__


#: Names of the Array API that begin as private ones do.
STANDARD = {"__array_namespace_info__"}


def module_names(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    public = [key for key in sorted(dir(module)) if key[0] != "_" or key in STANDARD]
    found = {key: described(getattr(module, key)) for key in public}
    # Of the runtime's three hundred names most are numbers that nobody asks for.
    return {key: value for key, value in found.items() if not (value == "int" and "cuda" in name)}


def read_names(path: str) -> dict[str, Any]:
    """The public functions of a module that cannot be imported here, from its text."""
    packages = Path(importlib.import_module("cupy").__file__ or "").parents[1]
    tree = ast.parse((packages / path).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found[node.name] = text_of(signature_of(f"({ast.unparse(node.args)})"))
    return found


def class_names(path: str) -> dict[str, Any]:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    special = {"__init__", "__matmul__", "__getitem__", "__setitem__", "__array__", "__enter__"}
    names = [key for key in dir(cls) if key[0] != "_" or key in special]
    found = {key: described(inspect.getattr_static(cls, key)) for key in names}
    return dict.fromkeys(assigned(cls), "attribute") | found


def assigned(cls: type) -> set[str]:
    """The public attributes that a class written in Python gives its instances, from its text."""
    found = set()
    for base in cls.__mro__:
        if "sparse" in base.__module__:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            stored = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
            written = {node.attr for node in stored if isinstance(node.ctx, ast.Store)}
            found |= {name for name in written if name[0] != "_"}
    return found


def unimplemented(path: str) -> list[str]:
    """Attributes that are there, and raise NotImplementedError when they are asked for."""
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    bare = object.__new__(cls)
    found = []
    for key in sorted(dir(cls)):
        try:
            getattr(bare, key)
        except NotImplementedError:
            found.append(key)
        except Exception:  # it lacks its arrays, which is no matter here
            continue
    return found


def installed() -> dict[str, Any]:
    """Everything of the CuPy that is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no toolkit
        matrices = [path for path in CLASSES if "sparse" in path]
        return {
            "array_api_compat": version("array-api-compat"),
            "modules": {
                **{name: module_names(name) for name in MODULES},
                **{name: read_names(path) for name, path in READ.items()},
            },
            "classes": {path: class_names(path) for path in CLASSES},
            "unimplemented": {path: unimplemented(path) for path in matrices},
        }


def installed_version() -> str:
    return str(importlib.import_module("cupy").__version__)


def stored() -> dict[str, Any]:
    """What the file says, by the version of CuPy."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def main() -> None:
    """Write what is installed to the file, beside what is there of other versions."""
    names = {**stored(), installed_version(): installed()}
    FILE.write_text(json.dumps(names, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
