"""Kernels of our own, run on the host in their real logic: see ``_kernels.h`` for what that is not."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _counts
from ._array import ndarray
from ._compiled import HostKernel, SourceError, compile_module
from .cuda import MemoryPointer, runtime
from .cuda._stream import current_queue
from .cuda.compiler import CompileException
from .cuda.driver import CUDADriverError

#: The types of NumPy's scalars that a kernel takes by value, as CuPy's.
_BY_VALUE = {np.dtype(char).type for char in "?bhilqBHILQefdFD"}


class RawKernel:
    """A kernel by its source and name, compiled when it is first called."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool = False,
    ) -> None:
        _refuse(backend, options, translate_cucomplex, enable_cooperative_groups, jitify)
        self.code, self.name, self.options, self.backend = code, name, options, backend
        self.__name__ = name
        self._expressions: tuple[str, ...] | None = None

    @property
    def kernel(self) -> HostKernel:
        return _found(self.code, self.options, self._expressions, self.name)

    def compile(self, log_stream: Any = None) -> None:
        _ = self.kernel

    def __call__(
        self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        if stream is not None:
            raise NotImplementedError("The stand-in launches on the current stream.")
        kernel = self.kernel
        sizes = _sizes(grid, block)
        if len(args) != len(kernel.parameters):
            raise CUDADriverError(
                f"{self.name} has {len(kernel.parameters)} parameters, got {len(args)}."
            )
        pairs = zip(args, kernel.parameters, strict=True)
        held = [_argument(value, kind, i) for i, (value, kind) in enumerate(pairs)]
        pointers = (ctypes.c_void_p * max(1, len(held)))(*(cell.ctypes.data for cell in held))
        problem = kernel.run(pointers, sizes.ctypes.data, shared_mem)
        _counts.launched(self.name)
        _wrote(args, kernel.parameters)
        if problem:
            raise CUDADriverError(f"{self.name}: {problem.decode()}")


class RawModule:
    """Kernels of one source, templates by name expressions."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: bool = False,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None:
            raise NotImplementedError("The stand-in compiles sources alone.")
        _refuse(backend, options, translate_cucomplex, enable_cooperative_groups, jitify)
        self.code, self.options, self.backend = code, options, backend
        self.name_expressions = None if name_expressions is None else tuple(name_expressions)

    def compile(self, log_stream: Any = None) -> None:
        _module(self.code, self.options, self.name_expressions)

    def get_function(self, name: str) -> RawKernel:
        found = RawKernel(self.code, name, self.options, self.backend)
        found._expressions = self.name_expressions
        _ = found.kernel
        return found


def _refuse(backend: str, options: Any, *unknown: bool) -> None:
    if not isinstance(options, tuple):
        raise TypeError("Argument 'options' has incorrect type (expected tuple)")
    if backend != "nvrtc" or any(unknown):
        raise NotImplementedError("The stand-in knows NVRTC's plain C++.")


def _module(code: str, options: Any, expressions: Any) -> Any:
    try:
        return compile_module(code, options, expressions)
    except SourceError as error:
        raise CompileException(str(error), code, "kernel", options) from error


def _found(code: str, options: Any, expressions: Any, name: str) -> HostKernel:
    kernel: HostKernel | None = _module(code, options, expressions).kernels.get(name)
    if kernel is None:
        raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found ({name})")
    return kernel


def _sizes(grid: Any, block: Any) -> Any:
    """Grid and block, three numbers each, within the limits of every device."""
    if not (isinstance(grid, tuple) and isinstance(block, tuple)):
        raise TypeError("grid and block must be tuples")
    sizes = [max(1, int(n)) for n in (*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])]
    if sizes[1] > 65535 or sizes[2] > 65535 or sizes[5] > 64 or np.prod(sizes[3:]) > 1024:
        raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
    return np.array(sizes, dtype=np.uint32)


def _argument(value: Any, kind: str, i: int) -> Any:
    """The memory of one argument, which must suit the parameter: the device would not ask.

    Numbers of Python are 64 bits wide, as the real one passes them. An integer parameter that is
    narrower reads the low bytes, which is right where the number fits; any other that is of another
    width or kind would read part of a number, or what lies beside it.
    """
    if isinstance(value, ndarray):
        value._memory.check()
        points = kind[:1] == "p" and (kind[1:] == "o0" or _alike(kind[1:], value.dtype))
        _suits(points, value.dtype, kind, i)
        return np.array([value._host.ctypes.data], dtype=np.uintp)
    if isinstance(value, MemoryPointer):
        if value.device_id != runtime.getDevice():
            raise CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: a pointer of another device")
        _suits(kind[:1] == "p", "a pointer", kind, i)
        return np.array([value.ptr], dtype=np.uintp)
    if value is None:
        _suits(kind[:1] == "p", "a null pointer", kind, i)
        return np.zeros(1, dtype=np.uintp)
    if type(value) not in _BY_VALUE:
        value = _python_number(value)
    _suits(_alike(kind, value.dtype) or _fits(kind, value), value.dtype, kind, i)
    return np.array([value])


def _python_number(value: Any) -> Any:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    raise TypeError(f"Unsupported type {type(value)}")


def _alike(kind: str, dtype: Any) -> bool:
    """Whether a parameter or what it points to is of that dtype; a sign is no difference."""
    letter = dtype.kind if dtype.kind in "biuf" else "o"
    return kind.replace("u", "i") == f"{letter}{dtype.itemsize}".replace("u", "i")


def _fits(kind: str, value: Any) -> bool:
    """Whether an integer is among the numbers of a narrower integer parameter."""
    if kind[0] not in "iu" or value.dtype.kind not in "iu" or int(kind[1:]) > value.dtype.itemsize:
        return False
    bounds = np.iinfo(np.dtype(kind))
    return bool(bounds.min <= value <= bounds.max)


def _suits(right: bool, given: Any, kind: str, i: int) -> None:
    if not right:
        raise TypeError(
            f"Argument {i} is {given}, the kernel's parameter is {kind!r} (kind, bytes)."
        )


def _wrote(args: Any, kinds: tuple[str, ...]) -> None:
    """A launch may write wherever it has a pointer to."""
    work = current_queue().issue()
    for value in args:
        if isinstance(value, ndarray):
            value._memory.work = work
