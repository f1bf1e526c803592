"""array-api-strict: the standard to the letter, with emulated devices. For tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._protocol import Array
from .array_api import ArrayAPIBackend


class StrictBackend(ArrayAPIBackend):
    """array-api-strict on one of its emulated devices.

    Parameters
    ----------
    device : str or array_api_strict.Device, optional
        ``"CPU_DEVICE"``, ``"device1"`` or ``"device2"``.
    """

    name = "array_api_strict"
    module = "array_api_strict"
    install = "pip install array-api-strict"

    def _parse_device(self, device: Any) -> Any:
        return self.xp.Device(device) if isinstance(device, str) else device

    def _device_name(self) -> Any:
        return self.device._device

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.array(array.to_device(self.xp.Device("CPU_DEVICE")))
