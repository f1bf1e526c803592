"""Two devices, the current one and the current stream of each thread."""

from __future__ import annotations

from . import compiler, device, driver, runtime
from ._stream import Event, ExternalStream, Stream, get_current_stream
from .device import Device
from .memory import MemoryPointer

__all__ = [
    "Device",
    "Event",
    "ExternalStream",
    "MemoryPointer",
    "Stream",
    "compiler",
    "device",
    "driver",
    "get_current_stream",
    "get_device_id",
    "is_available",
    "runtime",
]


def get_device_id() -> int:
    """The number of this thread's device."""
    return runtime.getDevice()


def is_available() -> bool:
    return runtime.getDeviceCount() > 0
