"""What the package asks of CuPy, read from its code: names, numbers of arguments, keywords."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupy_names import signature_of

PACKAGE = Path(__file__).resolve().parents[2] / "bilevel"

#: Modules whose ``xp`` is never CuPy's.
OTHERS = {
    PACKAGE / "backends" / name
    for name in "autodiff.py dpnp.py jax.py numpy.py strict.py torch.py _torch_csr.py"
    " _processes.py".split()
}

NAMESPACE = "array_api_compat.cupy"
MATRIX = "cupyx.scipy.sparse.csr_matrix"

#: What the variables of backends/cupy.py are.
VARIABLES = {
    "matrix": MATRIX,
    "rows": MATRIX,
    "self.matrix": MATRIX,
    "self.device": "cupy.cuda.Device",
    "device": "cupy.cuda.Device",
    "found": "cupy.cuda.Device",
}


@dataclass(frozen=True)
class Use:
    """A name of CuPy, and how it is called, if it is."""

    owner: str
    name: str
    where: str
    call: ast.Call | None = None


def _dotted(node: ast.AST) -> str | None:
    """``a.b.c`` of names and attributes, None where something else is inside."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inside = _dotted(node.value)
        return None if inside is None else f"{inside}.{node.attr}"
    return None


def _imported(node: ast.AST) -> str | None:
    """The module of ``importlib.import_module("module")``, also of attributes of it."""
    if isinstance(node, ast.Attribute):
        inside = _imported(node.value)
        return None if inside is None else f"{inside}.{node.attr}"
    if isinstance(node, ast.Call):
        if ast.unparse(node.func) == "importlib.import_module":
            (name,) = node.args
            return str(name.value) if isinstance(name, ast.Constant) else None
        if ast.unparse(node.func) == "_sparse":
            return "cupyx.scipy.sparse"
    return None


def of_namespace(code: str, where: str) -> Iterator[Use]:
    """Every use of a name of ``xp`` and of ``xp.linalg``."""
    tree = ast.parse(code)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        path = f".{_dotted(node)}" if isinstance(node, ast.Attribute) else ""
        if ".xp." in path:
            inside = path.rpartition(".xp.")[2]
            extension, _, name = inside.rpartition(".")
            owner = f"{NAMESPACE}.{extension}" if extension else NAMESPACE
            yield Use(owner, name, f"{where}:{node.lineno}", calls.get(id(node)))


def of_libraries(code: str, where: str) -> Iterator[Use]:
    """Every use of a module of CuPy by its name, and of the objects in ``VARIABLES``."""
    tree = ast.parse(code)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = dict(VARIABLES)
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and (path := _imported(node.value)):
                    names[ast.unparse(node.targets[0])] = path
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute):
                    owner = _imported(node.value) or _aliased(_dotted(node.value), names)
                    if owner is not None:
                        line = f"{where}:{node.lineno}"
                        yield Use(owner, node.attr, line, calls.get(id(node)))


def _aliased(path: str | None, names: Mapping[str, str]) -> str | None:
    """``cuda.runtime`` is ``cupy.cuda.runtime`` where cuda is ``cupy.cuda``."""
    for length in range((path or "").count(".") + 1, 0, -1):
        parts = (path or "").split(".")
        known = names.get(".".join(parts[:length]))
        if known is not None:
            return ".".join([known, *parts[length:]])
    return None


def of_package() -> list[Use]:
    """All of them."""
    found: list[Use] = []
    for path in sorted(set(PACKAGE.rglob("*.py")) - OTHERS):
        code = path.read_text(encoding="utf-8")
        where = path.relative_to(PACKAGE).as_posix()
        found.extend(of_namespace(code, where))
        if where in ("backends/cupy.py", "backends/_transposing_csr.py"):
            found.extend(of_libraries(code, where))
    return found


def fault(use: Use, names: Mapping[str, Any]) -> str | None:
    """Why this use does not fit what a version of CuPy offers; None where it does."""
    owners = {**names["modules"], **names["classes"]}
    module, _, function = use.owner.rpartition(".")
    is_ufunc = isinstance(owners.get(module, {}).get(function), list)
    known = owners["cupy.ufunc"] if is_ufunc else owners.get(use.owner)
    if known is None:  # an attribute of an attribute: of an array, or of a dtype
        return None if use.owner.startswith((MATRIX, f"{NAMESPACE}.")) else f"no {use.owner}"
    if use.name not in known:
        return f"{use.where}: {use.owner} has no {use.name}"
    if use.name in names["unimplemented"].get(use.owner, ()):
        return f"{use.where}: {use.name} of {use.owner} is not implemented"
    if use.call is None:
        return None
    forwarded = names["modules"]["cupy"].get(use.name)
    wrong = _unfit(use.call, known[use.name], forwarded, method=use.owner in names["classes"])
    return f"{use.where}: {use.owner}.{use.name} {wrong}" if wrong else None


def _unfit(call: ast.Call, taken: Any, forwarded: Any, *, method: bool) -> str | None:
    """Why the arguments of a call can't be bound."""
    keywords = [keyword.arg for keyword in call.keywords]
    n = len(call.args) + method
    open_ended = None in keywords or any(isinstance(arg, ast.Starred) for arg in call.args)
    if isinstance(taken, list):
        return _unfit_ufunc(n, keywords, *taken)
    if not taken.startswith("("):
        return None  # compiled, or a class: its arguments are not known
    signature = signature_of(taken)
    bind = signature.bind_partial if open_ended else signature.bind
    try:
        bound = bind(*range(n), **{str(name): 0 for name in keywords if name})
    except TypeError as error:
        return f"does not bind: {error}"
    rest = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    extra = list(bound.arguments.get(rest[0], {})) if rest else []
    if not extra:
        return None
    # The wrapper hands them on to the function of CuPy.
    if isinstance(forwarded, list):
        return _unfit_ufunc(forwarded[0], extra, *forwarded)
    inner = signature_of(forwarded).parameters if str(forwarded).startswith("(") else {}
    unknown = [name for name in extra if name not in inner]
    return f"knows no {unknown}" if unknown else None


def _unfit_ufunc(n: int, keywords: list[str | None], nin: int, nout: int) -> str | None:
    unknown = set(keywords) - {"out", "dtype", "casting", None}
    if unknown:
        return f"is a ufunc without {sorted(map(str, unknown))}"
    return None if nin <= n <= nin + nout else f"takes {nin} arrays, got {n}"
