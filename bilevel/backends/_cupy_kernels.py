"""The kernels of ``kernels.cu`` on CuPy arrays, compiled once a process, when the first is used.

None of them has run on a device yet: they are compiled for each architecture, and run on the host,
by the tests.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ._protocol import Array

#: Threads of a block, as the kernels know it, and blocks of a launch at most.
THREADS, BLOCKS = 256, 512

#: Entries for each thread before another block is worth its launch.
_EACH = 4

_SUFFIX = {"float32": "f", "float64": "d"}


@cache
def source() -> str:
    """The CUDA source of all kernels."""
    return (files(__package__) / "kernels.cu").read_text(encoding="utf-8")


@cache
def has(name: str) -> bool:
    """Whether there is a kernel of this name."""
    return f"({name}," in source() or f" {name}_##S(" in source()


@cache
def _module() -> Any:
    return importlib.import_module("cupy").RawModule(code=source(), options=("--std=c++14",))


@cache
def _kernel(name: str, suffix: str) -> Any:
    return _module().get_function(f"{name}_{suffix}")


class Workspace:
    """Partial sums, and the counter by which the block that ends last knows itself; per stream."""

    def __init__(self, cupy: Any) -> None:
        self.partial = cupy.empty(BLOCKS * THREADS, dtype=np.float64)
        self.counter = cupy.zeros(1, dtype=np.uint32)


@cache
def _workspace(device: int, stream: int) -> Workspace:
    return Workspace(importlib.import_module("cupy"))


def takes(*arrays: Array) -> bool:
    """Whether the kernels are written for these: contiguous, of one of two dtypes, not empty."""
    dtype = str(arrays[0].dtype)
    return dtype in _SUFFIX and all(
        str(a.dtype) == dtype and a.flags.c_contiguous and a.size > 0 for a in arrays
    )


def takes_blocks(k: int, *blocks: Array) -> bool:
    """The same of blocks of so many columns, which are as many as a block has threads at most."""
    return 0 < k <= THREADS and takes(*blocks)


def launch(name: str, dtype: Any, n_blocks: int, *arguments: Any) -> None:
    """Launch a kernel of entries of this dtype."""
    _kernel(name, _SUFFIX[str(dtype)])((n_blocks,), (THREADS,), arguments)


def blocks_for(entries: int) -> int:
    """How many blocks so many entries are worth."""
    return max(1, min(BLOCKS, -(-entries // (THREADS * _EACH))))


def summed(dtype: Any) -> tuple[Any, Any]:
    """The workspace of the stream that is current, for sums of this dtype."""
    cupy = importlib.import_module("cupy")
    stream = cupy.cuda.get_current_stream()
    space = _workspace(int(cupy.cuda.Device().id), int(stream.ptr))
    return space.partial.view(dtype), space.counter


def number(value: float, dtype: Any) -> Any:
    """A constant as a kernel of this dtype takes it."""
    return np.dtype(dtype).type(value)
