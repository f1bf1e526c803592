"""A backend written against the Array API standard alone.

One subclass, in its own file, adds what the standard leaves open for one library: how an array
comes to the host, what a device is called, what works in place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import array_api_compat
import numpy as np
import numpy.typing as npt

from ._fused import Fused
from ._pending import Pending, read_all
from ._protocol import Array, BackendUnavailableError, SparseKernel


class ArrayAPIBackend(Fused):
    """One array library on one device, by the standard.

    Parameters
    ----------
    device : object, optional
        A device of that library or its name; the library's default device when omitted.
    """

    #: How users call the library, and the name of its own package.
    name: str
    #: The namespace that follows the standard.
    module: ClassVar[str]
    #: The command that installs the library.
    install: ClassVar[str]

    def __init__(self, device: Any = None) -> None:
        self.xp: Any = self._import()
        asked = None if device is None else self._parse_device(device)
        self.device: Any = self._probe(asked)

    def _import(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise BackendUnavailableError(
                f"The {self.name} backend is not installed: `{self.install}`."
            ) from error

    def _parse_device(self, device: Any) -> Any:
        """Turn a name into a device of the library."""
        return device

    def _probe(self, device: Any) -> Any:
        """Allocate a number there, since only that tells a usable device from a named one."""
        xp = self.xp
        try:
            probe = xp.zeros(1) if device is None else xp.zeros(1, device=device)
        except Exception as error:  # each library has its own kind of "no such device"
            raise BackendUnavailableError(
                f"The {self.name} backend cannot use the device "
                f"{'that is its default' if device is None else repr(str(device))} "
                f"({error}): choose one that `bilevel info` lists."
            ) from error
        return array_api_compat.device(probe)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(device={str(self.device)!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ArrayAPIBackend)
            and self.name == other.name
            and bool(self.device == other.device)
        )

    def __hash__(self) -> int:
        return hash((self.name, str(self.device)))

    # -- copies: the namespace is a module, and the device may be no object that can be pickled --

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._device_name(),)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # as no backend ever changes

    def _device_name(self) -> Any:
        """What makes the same device when it is given to the class, in another process as well."""
        return str(self.device)

    # -- arrays in and out -------------------------------------------------------------------

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        value = self._known(value)
        array = self.xp.asarray(value, dtype=dtype, device=self.device)
        wanted = dtype if dtype is not None else getattr(value, "dtype", None)
        # By name, too: a dtype of NumPy is not that of torch.
        is_double = wanted is self.xp.float64 or str(wanted).endswith("float64")
        if is_double and str(array.dtype).endswith("float32"):
            raise BackendUnavailableError(
                f"The {self.name} backend turned float64 into {array.dtype}: for JAX set "
                "JAX_ENABLE_X64=1, for a device without float64 ask for float32."
            )
        if dtype is None:
            self._refuse_wrapped(value, array)
        return array

    def _refuse_wrapped(self, value: Any, array: Array) -> None:
        """Refuse integers that became others: JAX without 64 bits keeps their last 32."""
        if getattr(getattr(value, "dtype", None), "kind", "?") not in "iu" or not value.size:
            return
        held = self.xp.iinfo(array.dtype)
        if 8 * value.dtype.itemsize <= held.bits:
            return
        if not held.min <= int(value.min()) <= int(value.max()) <= held.max:
            raise BackendUnavailableError(
                f"The {self.name} backend turned {value.dtype} into {array.dtype}, which does not "
                f"hold {max(-int(value.min()), int(value.max()))}: for JAX set JAX_ENABLE_X64=1, "
                "or give floats."
            )

    def _known(self, value: Any) -> Any:
        """Give an array of this library, or one on the host."""
        from ._registry import get_backend, library_of, refuse_matrix_classes

        refuse_matrix_classes(value, "What becomes an array")
        library = library_of(value)
        if library == self.name:
            return value
        if library not in (None, "numpy"):
            return get_backend(value).to_numpy(value)
        host = np.asarray(value)
        if host.dtype.kind not in "fiub":
            raise TypeError(f"Expected numbers, got an array of dtype {host.dtype}.")
        # torch would share the memory of a read-only array, and warns of it; other byte orders and
        # negative strides it does not know.
        backwards = any(stride < 0 for stride in host.strides)
        return np.require(host, host.dtype.newbyteorder("="), ["W", *("C" if backwards else "")])

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.array(array)

    def copied(self, array: Array) -> Array:
        return self.xp.asarray(array, copy=True)

    def scalars(self, *values: Array | Pending) -> tuple[float, ...]:
        if any(isinstance(value, Pending) for value in values):
            return read_all(self._read, values)
        return tuple(self._read(list(values)))

    def _read(self, arrays: list[Array]) -> list[float]:
        """Their entries in one transfer."""
        return list(map(float, self.to_numpy(self.joined(arrays)).tolist()))

    def synchronize(self) -> None:
        """Nothing to do where every call returns with its work done."""

    def context(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def describe(self) -> str:
        library = sys.modules.get(self.name, self.xp)  # of a wrapper like array-api-compat's too
        version = getattr(library, "__version__", "?")
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
        with np.errstate(divide="ignore"):  # NumPy inside: log 0 = -inf is meant, for all -inf
            return xp.squeeze(xp.log(total) + top, axis=axis)

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        # The standard has no scatter: one masked sum a segment.
        xp = self.xp
        zero = xp.zeros_like(values)
        mask = segments if values.ndim == 1 else segments[:, None]
        return xp.stack(
            [xp.sum(xp.where(mask == j, values, zero), axis=0) for j in range(n_segments)]
        )

    # -- linear algebra: what the standard lacks, and what it leaves open where there is no answer

    def cholesky(self, a: Array) -> Array | None:
        xp = self.xp
        factor = self._finite(xp.linalg.cholesky, a)
        # A library that says nothing leaves the pivot at which it stopped, as LAPACK does.
        if factor is None or self.scalars(xp.min(xp.linalg.diagonal(factor))) <= (0.0,):
            return None
        return factor

    def solve(self, a: Array, b: Array) -> Array | None:
        return self._finite(self.xp.linalg.solve, a, b)

    def eigh(self, a: Array) -> tuple[Array, Array] | None:
        found = self._finite(self.xp.linalg.eigh, a)
        return None if found is None else (found[0], found[1])

    def _finite(self, function: Callable[..., Any], *arrays: Array) -> Any:
        """What it returns, or None: some libraries raise where there is no answer, some give NaN.

        Errors of another kind, as of the memory of a device, say nothing about the matrix.
        """
        try:
            found = function(*arrays)
        except Exception as error:  # each library has a class of its own, of this name
            if not any(cls.__name__.endswith("LinAlgError") for cls in type(error).__mro__):
                raise
            return None
        parts = found if isinstance(found, tuple) else (found,)
        finite = self.scalars(*(self.xp.all(self.xp.isfinite(part)) for part in parts))
        return found if all(finite) else None

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        # The standard has the general solve alone: exact too, at (2/3) n³ more operations.
        return self.xp.linalg.solve(a, b)

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
        raise self._no_sparse()

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        raise self._no_sparse()

    def _no_sparse(self) -> BackendUnavailableError:
        return BackendUnavailableError(
            f"The {self.name} backend has no sparse arrays: use the backend 'numpy', 'cupy' or "
            "'torch' for sparse data, or pass a dense array."
        )
