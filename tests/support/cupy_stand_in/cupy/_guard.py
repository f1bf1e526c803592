"""Where the real CuPy can be tested on, there is no stand-in."""

from __future__ import annotations

import ctypes
import sys
from importlib.machinery import PathFinder
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]


def refuse_beside_the_real_one() -> None:
    """Refuse to load where the real package is installed and finds a device."""
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != _HERE]
    if PathFinder.find_spec("cupy", elsewhere) is not None and count_devices() > 0:
        raise ImportError(
            "The stand-in for CuPy does not load where CuPy and a device are: test with "
            "`--backends cupy`."
        )


def count_devices() -> int:
    """The devices that the driver finds, by its own library: the real package is not loaded."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
