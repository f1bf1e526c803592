"""JAX arrays: immutable, asynchronous, float32 unless JAX_ENABLE_X64=1."""

from __future__ import annotations

import importlib
from typing import Any

from ._processes import NotForked
from ._protocol import Array, BackendUnavailableError
from .array_api import ArrayAPIBackend


class JAXBackend(NotForked, ArrayAPIBackend):
    """JAX on one device.

    Parameters
    ----------
    device : str or jax.Device, optional
        ``"cpu"``, ``"gpu"``, ``"tpu"``, or a device object.
    """

    name = "jax"
    module = "jax.numpy"
    install = "pip install 'bilevel[jax]'"

    def _parse_device(self, device: Any) -> Any:
        if not isinstance(device, str):
            return device
        kind, _, number = device.partition(":")
        try:
            return importlib.import_module("jax").devices(kind)[int(number or 0)]
        except (RuntimeError, IndexError, ValueError) as error:
            raise BackendUnavailableError(
                f"JAX finds no device {device!r} here: use device='cpu', or install the JAX build "
                "for that device."
            ) from error

    def _device_name(self) -> Any:
        alike = importlib.import_module("jax").devices(self.device.platform)
        return f"{self.device.platform}:{alike.index(self.device)}"

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        ops = importlib.import_module("jax.ops")
        return ops.segment_sum(values, segments, num_segments=n_segments)

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        linalg = importlib.import_module("jax.scipy.linalg")
        return linalg.solve_triangular(a, b, lower=lower)

    def with_row(self, block: Array, i: int, row: Array) -> Array:
        return block.at[i].set(row)

    def copied(self, array: Array) -> Array:
        return array  # which nobody can write into

    def synchronize(self) -> None:
        # Work on a device is done in order: a new array that is ready ends the queue.
        self.xp.zeros(1, device=self.device).block_until_ready()
