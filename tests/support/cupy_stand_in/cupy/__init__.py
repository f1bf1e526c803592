"""A stand-in for CuPy: its names and refusals, NumPy inside. **Nothing is tested on CuPy by this.**

It is put on the path by ``--backends cupy-stand-in`` alone, is never installed, and does not load
where the real package and a device are. What it is for: arrays that refuse what CuPy's refuse, linear
algebra that does not raise, two devices and streams of each thread, non-canonical matrices, kernels of
our own run by the host's compiler, and counts of launches and host reads.

What it is not. The numbers are NumPy's: no fused rounding, no atomics in another order, no other order
of NaN. The tables of dtypes are NumPy's as well; what cuBLAS, cuSPARSE and cuSOLVER refuse is here only
where somebody looked it up; memory, NVRTC, the loading of libraries and the hand-over by DLPack on a
device are not touched. Counts of launches are a model, not a measurement. That a test passes here does
not mean that it passes on a GPU: only ``tox -e gpu`` says that.
"""

from __future__ import annotations

from . import _guard

_guard.refuse_beside_the_real_one()

from . import _functions, _raw, cuda, fft, linalg  # noqa: E402, F401
from ._array import ndarray  # noqa: E402, F401
from ._functions import ufunc  # noqa: E402, F401
from ._raw import RawKernel, RawModule  # noqa: E402, F401

__version__ = "14.2.0"

globals().update(_functions.namespace())

#: As the real one, whose star leaves these builtins alone.
_KEPT = {"abs", "max", "min", "round"}
__all__ = sorted({name for name in globals() if not name.startswith("_")} - _KEPT - {"annotations"})


def __getattr__(name: str) -> object:
    raise AttributeError(f"module 'cupy' has no attribute {name!r}")
