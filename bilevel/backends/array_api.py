"""Any library that array-api-compat knows: torch, JAX, array-api-strict, dpnp, ...

Every method here is written against the standard; the table ``_LIBRARIES`` holds the little
that differs from one library to the next. NumPy and CuPy refine this class in their own files.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from ._protocol import Array, BackendUnavailableError, SparseKernel


@dataclass(frozen=True)
class Library:
    """What the standard leaves open, for one library."""

    module: str
    install: str
    to_numpy: Callable[[Array], npt.NDArray[Any]]
    synchronize: Callable[[Any], None] = lambda device: None
    default_device: Callable[[Any], Any] = lambda xp: None
    parse_device: Callable[[Any, Any], Any] = lambda xp, device: device


def _torch_sync(device: Any) -> None:
    torch = importlib.import_module("torch")
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)


def _torch_device(xp: Any, device: Any) -> Any:
    torch = importlib.import_module("torch")
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError(
            "torch finds no CUDA device here: use device='cpu', or install a CUDA build of torch "
            "and an NVIDIA driver."
        )
    return found


def _jax_device(xp: Any, device: Any) -> Any:
    jax = importlib.import_module("jax")
    if not isinstance(device, str):
        return device
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise BackendUnavailableError(
            f"JAX finds no {device!r} device here: use device='cpu', or install the JAX build "
            "for that device."
        ) from error


def _strict_device(xp: Any, device: Any) -> Any:
    return xp.Device(device) if isinstance(device, str) else device


def _strict_to_numpy(array: Array) -> npt.NDArray[Any]:
    xp = importlib.import_module("array_api_strict")
    return np.array(xp.asarray(array, device=xp.Device("CPU_DEVICE"), copy=True))


_LIBRARIES: dict[str, Library] = {
    "torch": Library(
        "array_api_compat.torch",
        "pip install 'bilevel[torch]'",
        lambda a: a.detach().cpu().numpy().copy(),
        synchronize=_torch_sync,
        parse_device=_torch_device,
    ),
    "jax": Library(
        "jax.numpy",
        "pip install 'bilevel[jax]'",
        lambda a: np.array(a),
        parse_device=_jax_device,
    ),
    "array_api_strict": Library(
        "array_api_strict",
        "pip install array-api-strict",
        _strict_to_numpy,
        parse_device=_strict_device,
    ),
    "dpnp": Library(
        "dpnp",
        "pip install dpnp intel-opencl-rt",
        lambda a: a.asnumpy(),
        synchronize=lambda device: device.sycl_queue.wait() if device is not None else None,
    ),
}


class ArrayAPIBackend:
    """A backend written against the Array API standard alone.

    Parameters
    ----------
    name : str
        The library: ``"torch"``, ``"jax"``, ``"array_api_strict"`` or ``"dpnp"``.
    device : object, optional
        A device of that library or its name; the library's default device when omitted.
    """

    def __init__(self, name: str, device: Any = None) -> None:
        library = _LIBRARIES[name]
        try:
            self.xp = importlib.import_module(library.module)
        except ImportError as error:
            raise BackendUnavailableError(
                f"The {name} backend is not installed: {library.install}."
            ) from error
        self.name = name
        self._library = library
        if device is not None:
            device = library.parse_device(self.xp, device)
        try:
            probe = self.xp.zeros(1, device=device) if device is not None else self.xp.zeros(1)
        except Exception as error:  # each library has its own kind of "no such device"
            raise BackendUnavailableError(
                f"The {name} backend has no usable device {device!r} here ({error}); "
                "`bilevel info` lists what is usable."
            ) from error
        self.device = array_api_compat.device(probe)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, device={str(self.device)!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ArrayAPIBackend)
            and self.name == other.name
            and self.device == other.device
        )

    def __hash__(self) -> int:
        return hash((self.name, str(self.device)))

    # -- arrays in and out -------------------------------------------------------------------

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        if not array_api_compat.is_array_api_obj(value):
            value = np.asarray(value)
        if isinstance(value, np.ndarray) and dtype is None and value.dtype.kind not in "fiub":
            raise TypeError(f"Expected numbers, got an array of dtype {value.dtype}.")
        array = self.xp.asarray(value, dtype=dtype, device=self.device)
        if str(dtype or getattr(value, "dtype", "")).endswith("float64") and (
            array.dtype != self.xp.float64
        ):
            raise BackendUnavailableError(
                f"The {self.name} backend turned float64 into {array.dtype}: for JAX set "
                "JAX_ENABLE_X64=1, or ask for float32."
            )
        return array

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return self._library.to_numpy(array)

    def scalars(self, *values: Array) -> tuple[float, ...]:
        if len(values) == 1:
            return (float(values[0]),)
        host = self.to_numpy(self.xp.stack(list(values)))
        return tuple(float(value) for value in host)

    def synchronize(self) -> None:
        self._library.synchronize(self.device)

    def describe(self) -> str:
        module = importlib.import_module(self.name)
        version = getattr(module, "__version__", "?")
        return f"{self.name} {version}, device {self.device}"

    # -- special functions, written so that no intermediate overflows -------------------------

    def expit(self, t: Array) -> Array:
        xp = self.xp
        e = xp.exp(-xp.abs(t))
        return xp.where(t >= 0, 1 / (1 + e), e / (1 + e))

    def softplus(self, t: Array) -> Array:
        xp = self.xp
        return xp.maximum(t, xp.zeros_like(t)) + xp.log1p(xp.exp(-xp.abs(t)))

    def logsumexp(self, t: Array, axis: int = -1) -> Array:
        xp = self.xp
        top = xp.max(t, axis=axis, keepdims=True)
        # An all -inf slice has top = -inf, and -inf - -inf is nan: shift by 0 there.
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
        total = xp.sum(xp.exp(t - top), axis=axis, keepdims=True)
        return xp.squeeze(xp.log(total) + top, axis=axis)

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        xp = self.xp
        zero = xp.zeros_like(values)
        return xp.stack([xp.sum(xp.where(segments == j, values, zero)) for j in range(n_segments)])

    # -- vector updates: in place where the library can ---------------------------------------

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        return y + alpha * x

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        return x + alpha * y

    # -- random numbers: drawn on the host, so that every backend sees the same ----------------

    def normal(self, seed: int | Sequence[int], shape: tuple[int, ...], dtype: Any) -> Array:
        numbers = np.random.Generator(np.random.Philox(seed)).standard_normal(shape)
        return self.asarray(numbers, dtype=dtype)

    # -- sparse ---------------------------------------------------------------------------------

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        if self.name == "torch":
            from ._torch_csr import TorchCSR

            return TorchCSR.from_host(self, data, indices, indptr, shape, dtype)
        raise BackendUnavailableError(
            f"The {self.name} backend has no sparse arrays: use backend='numpy', 'cupy' or "
            "'torch' for sparse data, or pass a dense array."
        )

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        if self.name == "torch":
            from ._torch_csr import TorchCSR

            return TorchCSR(self, matrix)
        raise BackendUnavailableError(
            f"The {self.name} backend has no sparse arrays: use backend='numpy', 'cupy' or "
            "'torch' for sparse data, or pass a dense array."
        )
