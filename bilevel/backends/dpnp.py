"""dpnp: NumPy on SYCL devices; an OpenCL CPU runtime from PyPI is enough to run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ._blocks import Writable
from ._processes import NotForked
from ._protocol import Array
from .array_api import ArrayAPIBackend


class DpnpBackend(Writable, NotForked, ArrayAPIBackend):
    """dpnp on one SYCL device.

    Parameters
    ----------
    device : str or dpctl.SyclDevice, optional
        A filter such as ``"cpu"``, ``"gpu"`` or ``"opencl:cpu:0"``.
    """

    name = "dpnp"
    module = "dpnp"
    install = "pip install dpnp intel-opencl-rt"

    def _import(self) -> Any:
        _announce_opencl_runtime()
        module = super()._import()
        _keep_off_onemkl_elementwise()
        return module

    def _device_name(self) -> Any:
        return self.device.sycl_device.filter_string

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = array.asnumpy()
        return host

    def synchronize(self) -> None:
        self.device.sycl_queue.wait()


def _announce_opencl_runtime() -> None:
    """Name the OpenCL runtime of the wheel ``intel-opencl-rt``.

    The wheel puts it where the OpenCL loader does not look; the loader reads this variable
    when SYCL first asks for devices. A variable that the user set stays.
    """
    runtime = Path(sys.prefix) / "lib" / "libintelocl.so"
    if runtime.exists() and "dpctl" not in sys.modules:
        os.environ.setdefault("OCL_ICD_FILENAMES", str(runtime))


def _keep_off_onemkl_elementwise() -> None:
    """Have dpnp compute sums and products of arrays by its own kernels, in the whole process.

    Those of oneMKL (seen in dpnp 0.20) wait on a CPU for the tasks before them while they hold
    Python's lock, and the tasks in which dpnp lets go of an array wait for that lock: now and
    then, on a busy machine, neither goes on, and no signal is heard.
    """
    onemkl: Any = sys.modules.get("dpnp.backend.extensions.vm._vm_impl")
    if hasattr(onemkl, "_is_available"):
        onemkl._is_available = lambda: False
