"""The kernels compile for every architecture that they may meet, by NVRTC, which needs no device."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import pytest

from bilevel.backends import _cupy_kernels as kernels

pytestmark = pytest.mark.cupy_contract


def nvrtc() -> ctypes.CDLL:
    found = importlib.util.find_spec("nvidia.cuda_nvrtc") if _has("nvidia") else None
    if found is None or not found.submodule_search_locations:
        pytest.skip("nvidia-cuda-nvrtc-cu12 is not installed")
    folder = Path(next(iter(found.submodule_search_locations))) / "lib"
    return ctypes.CDLL(str(folder / "libnvrtc.so.12"))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def compiled(source: str, architecture: str) -> tuple[int, str]:
    """The code of NVRTC, 0 for success, and what it says."""
    library, program = nvrtc(), ctypes.c_void_p()
    code = source.encode()
    library.nvrtcCreateProgram(ctypes.byref(program), code, b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++14"]
    status = library.nvrtcCompileProgram(program, 2, (ctypes.c_char_p * 2)(*options))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return int(status), log.value.decode()


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100"])
def test_the_kernels_compile(architecture: str) -> None:
    assert compiled(kernels.source(), architecture) == (0, "")


def test_a_fault_is_found() -> None:
    status, log = compiled(kernels.source().replace("atomicInc", "atomicIncrease"), "sm_80")
    assert status != 0
    assert "atomicIncrease" in log
