"""A backend: an array library that bilevel does not know, found by an entry point."""

from typing import Any

import numpy as np

from bilevel.backends import ArrayAPIBackend


class OutsideBackend(ArrayAPIBackend):
    """What the standard leaves open: how an array comes to the host."""

    name = "outside"
    module = "outside.arrays"
    install = "pip install outside"

    def to_numpy(self, array: Any) -> Any:
        return np.array(array.to_device(self.xp.Device("CPU_DEVICE")))
