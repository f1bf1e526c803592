"""Kernels in CUDA C++, compiled for the host by its own compiler and kept in a temporary folder."""

from __future__ import annotations

import ctypes
import functools
import getpass
import hashlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = Path(__file__).with_name("_kernels.h")
#: Each library has its own of what the header defines; fibers jump between stacks.
_OPTIONS = (
    *("-std=c++20", "-O1", "-shared", "-fPIC", "-w"),
    *("-fno-gnu-unique", "-U_FORTIFY_SOURCE"),
)

#: A kernel that is no template, whose name is what ``get_function`` takes.
_PLAIN_KERNEL = re.compile(
    r"__global__\s+(?:\w+\s*\([^)]*\)\s+)?void\s+(?:\w+\s*\([^)]*\)\s+)?(\w+)\s*\("
)
_TEMPLATE = re.compile(r"template\s*<[^;{}]*>\s*(?:__\w+__\s+|inline\s+|static\s+)*$")
_DYNAMIC = re.compile(r"extern\s+__shared__\s+((?:\w+\s+)*\w+)\s+(\w+)\s*\[\s*\]\s*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

#: What the host's compiler would take, and NVRTC does not.
_NOT_NVRTC = {
    r"#\s*include": "an #include: NVRTC finds no header of the host",
    r"\bstd\s*::": "std::, whose headers NVRTC does not have",
    r"\bu?int(8|16|32|64)_t\b": "a type of <cstdint>, which NVRTC does not have",
    r"\bstand_in\b": "a name of the stand-in",
}

_LAUNCHER = """
extern "C" const char* stand_in_signature_{i}() {{
    static const std::string text = stand_in::signature(&{name});
    return text.c_str();
}}
extern "C" const char* stand_in_run_{i}(void** args, const unsigned* sizes, size_t shared) {{
    static thread_local std::string problem;
    problem = stand_in::run(&{name}, args, sizes, shared);
    return problem.c_str();
}}
"""


class CompilerMissing(RuntimeError):
    """The host has no C++ compiler."""


@functools.cache
def compiler() -> str | None:
    """The host's C++ compiler."""
    return shutil.which("g++")


@dataclass(frozen=True)
class HostKernel:
    """One kernel: what its parameters are, and how to run it."""

    parameters: tuple[str, ...]
    run: Any


@dataclass(frozen=True)
class HostModule:
    """A library of kernels, by the names that ``get_function`` takes."""

    kernels: dict[str, HostKernel]


class SourceError(ValueError):
    """What NVRTC or the compiler says of a source."""


def _check(code: str) -> None:
    for pattern, what in _NOT_NVRTC.items():
        if re.search(pattern, code):
            raise SourceError(f"The source has {what}.")


def _plain_names(code: str) -> list[str]:
    """The kernels that need no name expression: no templates, with C's names."""
    found = []
    for match in _PLAIN_KERNEL.finditer(code):
        before = code[: match.start()]
        if not _TEMPLATE.search(before) and _has_c_name(before):
            found.append(match.group(1))
    return found


def _has_c_name(before: str) -> bool:
    """Whether what follows is ``extern "C"``, by itself or within its braces."""
    if re.search(r'extern\s+"C"\s*$', before):
        return True
    opened = list(re.finditer(r'extern\s+"C"\s*\{', before))
    inside = before[opened[-1].end() :] if opened else "}"
    return inside.count("{") >= inside.count("}")


@functools.cache
def compile_module(
    code: str, options: tuple[str, ...], expressions: tuple[str, ...] | None
) -> HostModule:
    """Compile a source, or take what was compiled before."""
    _check(_COMMENT.sub(" ", code))
    defined = tuple(option for option in options if option.startswith(("-D", "--define-macro=")))
    names = list(dict.fromkeys([*(expressions or ()), *_plain_names(_expanded(code, defined))]))
    shared = r"\1* \2 = stand_in::shared_memory<\1>();"
    launchers = "".join(_LAUNCHER.format(i=i, name=name) for i, name in enumerate(names))
    source = f'#include "{_HEADER}"\n#line 1 "kernel"\n{_DYNAMIC.sub(shared, code)}\n{launchers}'
    library = ctypes.CDLL(str(_built(source, defined)))
    return HostModule({name: _kernel(library, i) for i, name in enumerate(names)})


def _kernel(library: Any, i: int) -> HostKernel:
    signature, run = library[f"stand_in_signature_{i}"], library[f"stand_in_run_{i}"]
    signature.restype = run.restype = ctypes.c_char_p
    run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return HostKernel(tuple(signature().decode().split()), run)


def _run(source: str, *options: str) -> str:
    """Give a source to the compiler."""
    command = compiler()
    if command is None:
        raise CompilerMissing("The stand-in runs kernels by g++, which is not here.")
    asked = [command, *options, "-x", "c++", "-"]
    done = subprocess.run(asked, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SourceError(done.stderr)
    return done.stdout


def _expanded(code: str, defined: tuple[str, ...]) -> str:
    """A source with its own macros written out: some make kernels."""
    return _run(code, "-E", "-P", *defined)


def _built(source: str, defined: tuple[str, ...]) -> Path:
    """The library of a source, where it was built before."""
    options = (*_OPTIONS, *defined)
    text = "\0".join((str(compiler()), *options, _HEADER.read_text(encoding="utf-8"), source))
    folder = Path(tempfile.gettempdir()) / f"cupy-stand-in-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{hashlib.sha256(text.encode()).hexdigest()}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            made = Path(name) / "kernel.so"
            _run(source, *options, "-o", str(made))
            made.replace(target)  # at once, for the processes beside this one
    return target
