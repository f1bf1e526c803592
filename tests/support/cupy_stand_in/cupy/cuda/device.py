"""Devices."""

from __future__ import annotations

from typing import Any, Self

from .._names import restrict
from . import runtime
from ._stream import synchronize_device


class Device:
    """A device by its number, the current one when omitted."""

    def __init__(self, device: Any = None) -> None:
        number = getattr(device, "id", device)
        self.id = runtime.getDevice() if number is None else int(number)
        self._before: list[int] = []

    def __enter__(self) -> Self:
        self._before.append(runtime.getDevice())
        runtime.setDevice(self.id)
        return self

    def __exit__(self, *error: object) -> None:
        runtime.setDevice(self._before.pop())

    def use(self) -> None:
        runtime.setDevice(self.id)

    def synchronize(self) -> None:
        synchronize_device(self.id)

    @property
    def attributes(self) -> dict[str, int]:
        return {"MaxThreadsPerBlock": 1024, "MultiProcessorCount": 2, "WarpSize": 32}

    @property
    def compute_capability(self) -> str:
        return "80"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


restrict(Device, "cupy.cuda.Device")
