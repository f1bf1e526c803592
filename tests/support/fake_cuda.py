"""The few calls of CuPy that choose a device, with numbers of NumPy: what our backend does with them.

No array of it is CuPy's; ``tests/cupy_contract`` says that the calls are there.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import array_api_compat.numpy
import numpy as np


class FakeCuda:
    """Two devices, current ones and streams for each thread, and what was asked of them."""

    def __init__(self, n_devices: int = 2) -> None:
        self.local = threading.local()
        self.computed: list[int] = []
        self.raising = False
        owner = self

        class Device:
            def __init__(self, number: int | None = None) -> None:
                self.id = owner.current() if number is None else int(number)

            def use(self) -> None:
                owner.local.device = self.id

            def synchronize(self) -> None:
                owner.computed.append(self.id)

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Device) and self.id == other.id

            def __hash__(self) -> int:
                return hash(self.id)

            def __enter__(self) -> Self:
                owner.local.__dict__.setdefault("devices", []).append(owner.current())
                self.use()
                return self

            def __exit__(self, *error: object) -> None:
                owner.local.device = owner.local.devices.pop()

        self.Device = Device
        runtime = SimpleNamespace(
            getDeviceCount=lambda: n_devices, getDevice=self.current, CUDARuntimeError=OSError
        )
        self.cuda = SimpleNamespace(
            Device=Device, runtime=runtime, get_current_stream=lambda: self.stream()
        )

    def current(self) -> int:
        return int(getattr(self.local, "device", 0))

    def stream(self) -> Any:
        return getattr(self.local, "stream", self.as_stream("null"))

    def as_stream(self, name: str) -> Any:
        owner = self

        class Stream:
            def __init__(self) -> None:
                self.name = name

            def __enter__(self) -> None:
                owner.local.__dict__.setdefault("streams", []).append(owner.stream())
                owner.local.stream = self

            def __exit__(self, *error: object) -> None:
                owner.local.stream = owner.local.streams.pop()

        return Stream()

    @contextmanager
    def errstate(self, *, linalg: str) -> Any:
        before, self.raising = self.raising, linalg == "raise"
        try:
            yield
        finally:
            self.raising = before

    def linalg(self, name: str) -> Any:
        """As CuPy's: an error only where one asked for it, else LAPACK's remains."""

        def function(*arrays: Any) -> Any:
            try:
                return getattr(np.linalg, name)(*arrays)
            except np.linalg.LinAlgError:
                if self.raising:
                    raise
                left = np.tril(np.nan_to_num(np.abs(arrays[0]))) + np.eye(len(arrays[0]))
                return (left[0], left) if name == "eigh" else left  # finite, and wrong

        return function

    def install(self, monkeypatch: Any) -> FakeCuda:
        """Be CuPy for the time of a test."""
        from bilevel.backends import cupy as ours

        linalg = SimpleNamespace(
            **{**vars(array_api_compat.numpy.linalg), **{n: self.linalg(n) for n in _TOLD}}
        )
        cupy = ModuleType("cupy")
        cupy.__dict__.update(cuda=self.cuda, ones=np.ones, eye=np.eye, linalg=linalg)
        cupyx = ModuleType("cupyx")
        cupyx.__dict__.update(errstate=self.errstate)
        xp = ModuleType("array_api_compat.cupy")
        xp.__dict__.update({**vars(array_api_compat.numpy), "linalg": linalg})
        for name, module in {
            "cupy": cupy,
            "cupyx": cupyx,
            "array_api_compat.cupy": xp,
            "cupyx.scipy.linalg": ModuleType("cupyx.scipy.linalg"),
        }.items():
            monkeypatch.setitem(sys.modules, name, module)
        ours._check_libraries.cache_clear()
        monkeypatch.setattr(ours.CuPyBackend, "to_numpy", lambda self, array: np.asarray(array))
        return self


_TOLD = ("cholesky", "eigh", "solve")
