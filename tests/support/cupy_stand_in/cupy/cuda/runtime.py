"""Two devices; each thread starts on the first."""

from __future__ import annotations

import threading
from typing import Any

_DEVICES = 2
_current = threading.local()

is_hip = False


class CUDARuntimeError(RuntimeError):
    """What a call of the runtime fails with."""


def getDeviceCount() -> int:  # noqa: N802
    return _DEVICES


def getDevice() -> int:  # noqa: N802
    return getattr(_current, "number", 0)


def setDevice(number: int) -> None:  # noqa: N802
    if not 0 <= number < _DEVICES:
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _current.number = int(number)


def getDeviceProperties(number: int) -> dict[str, Any]:  # noqa: N802
    return {"name": b"Stand-in, no GPU", "multiProcessorCount": 2, "warpSize": 32}


def runtimeGetVersion() -> int:  # noqa: N802
    return 12080


def driverGetVersion() -> int:  # noqa: N802
    return 12080
