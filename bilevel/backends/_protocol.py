"""What a backend is: everything that the Array API standard leaves to the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ._pending import Pending

#: An array of any library that array-api-compat knows.
Array: TypeAlias = Any

#: Row numbers: always on the host, since they choose what is sent to a device.
HostIndex: TypeAlias = npt.NDArray[np.intp]


class BackendUnavailableError(RuntimeError):
    """The library or its device is not usable here; the message says what to do."""


@runtime_checkable
class SparseKernel(Protocol):
    """A CSR matrix that lives on a backend and multiplies dense arrays from both sides."""

    #: The number of right-hand sides at which a product costs the least for each of them (1: no
    #: gain from several). Measured: see the module of each kernel.
    columns_per_pass: int

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def nnz(self) -> int: ...

    @property
    def longest_row(self) -> int:
        """The most entries that a row may have, p where they are not counted."""
        ...

    def matmul(self, v: Array) -> Array:
        """Return X @ v for v of shape (p,) or (p, k)."""
        ...

    def rmatmul(self, r: Array) -> Array:
        """Return Xᵀ @ r for r of shape (n,) or (n, k)."""
        ...

    def square_rmatmul(self, r: Array) -> Array:
        """Return (X∘X)ᵀ @ r for r of shape (n,) or (n, k)."""
        ...

    def square_matmul(self, v: Array) -> Array:
        """Return (X∘X) @ v for v of shape (p,) or (p, k)."""
        ...

    def values(self) -> Array:
        """Return the stored entries, shape (nnz,)."""
        ...

    def parts(self) -> tuple[Array, Array, Array]:
        """Return stored entries, their columns, and where each row starts among them."""
        ...

    def rows(self, index: HostIndex) -> SparseKernel:
        """Return the sub-matrix of these rows, in this order."""
        ...


class Backend(Protocol):
    """One array library on one device.

    The core calls ``backend.xp`` for all that the standard has, and the methods below for
    what it lacks. Nothing outside ``bilevel/backends`` knows which library it is.
    """

    name: str
    xp: Any
    device: Any

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        """Bring numbers, or an array of any backend, to this device: the explicit transfer in.

        Nothing is copied where the array is there already.
        """
        ...

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Bring an array to the host: the explicit transfer out."""
        ...

    def copied(self, array: Array) -> Array:
        """The same numbers in an array of their own; a derivative goes through it."""
        ...

    def scalars(self, *values: Array | Pending) -> tuple[float, ...]:
        """Read small arrays of one dtype to the host in one transfer, one after the other.

        0-d arrays mostly, or (k,), and numbers that follow from such: the only read of numbers.
        """
        ...

    def fused(self, name: str, formula: Callable[..., Array], *arrays: Array) -> Array:
        """Return ``formula(*arrays)``, entry by entry; ``name`` is that of its kernel."""
        ...

    def dot(self, a: Array, b: Array) -> Array:
        """⟨a, b⟩ of two arrays of one shape, 0-d."""
        ...

    def norm(self, a: Array) -> Array:
        """‖a‖, 0-d; of few entries to full range."""
        ...

    def column_dot(self, u: Array, v: Array) -> Array:
        """Inner products of the columns of two blocks (…, k), shape (k,)."""
        ...

    def column_norm(self, a: Array) -> Array:
        """Norms of the columns of a block (…, k), shape (k,); of few entries to full range."""
        ...

    def stepped(self, x: Array, t: float, d: Array) -> Array:
        """A new array x + t d, for arrays of one shape."""
        ...

    def absolute_sums(self, v: Array, weights: Array | None = None) -> Array:
        """Σ_i abs(w_i v_i) over the first axis, of weights (p,) or of 1."""
        ...

    def cg_length(
        self, curvature: Array, rz: Array, square: Array, top: Array, least: float
    ) -> tuple[Array, Array, Array]:
        """Lengths of a step of CG, and how little A bends: see :class:`ArrayAPIBackend`."""
        ...

    def scratch(self, like: Array) -> Array | None:
        """Memory for products that the updates of a solve make on the way; None where none do."""
        ...

    def cg_advance(
        self, alpha: Array, p: Array, ap: Array, x: Array, r: Array, work: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """x + α p, r - α A p and the squares of the columns of the new r; A p stays as it is."""
        ...

    def cg_turn(
        self, z: Array, p: Array, rz: Array, before: Array, square: Array
    ) -> tuple[Array, Array]:
        """The next directions z + (rz / before) p, and their squares in the metric of M."""
        ...

    def expit(self, t: Array) -> Array:
        """1 / (1 + e^-t), without overflow."""
        ...

    def softplus(self, t: Array) -> Array:
        """log(1 + e^t), without overflow."""
        ...

    def logsumexp(self, t: Array, axis: int = -1) -> Array:
        """Log Σ e^t over one axis, without overflow."""
        ...

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        """Sum ``values`` (p,) or (p, k) over equal entries of ``segments`` (p,).

        The result has shape (n_segments,) or (n_segments, k).
        """
        ...

    def cholesky(self, a: Array) -> Array | None:
        """The lower factor of a symmetric (n, n); None where a is not positive definite.

        Where that is so ``xp.linalg`` raises in some libraries, gives NaN in others, and in CuPy
        finite numbers that are wrong.
        """
        ...

    def solve(self, a: Array, b: Array) -> Array | None:
        """Solve a z = b for a (n, n), b (n, k); None where a is singular, or z overflows.

        As for :meth:`cholesky` no two libraries say it alike in ``xp.linalg``.
        """
        ...

    def eigh(self, a: Array) -> tuple[Array, Array] | None:
        """Eigenvalues of a symmetric (n, n), the least first, and vectors; None where not found."""
        ...

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        """Solve a z = b for a triangular ``a`` (n, n), b (n,) or (n, k).

        The other triangle of ``a`` must hold zeros.
        """
        ...

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        """Return y + alpha x, overwriting y where the library allows it.

        ``alpha`` is a float, 0-d, or broadcasts over the columns of x and y.
        ``work`` is scratch of the shape of x, for libraries that need it to avoid an allocation.
        """
        ...

    def with_row(self, block: Array, i: int, row: Array) -> Array:
        """Return a block (k, n) with another row i, overwriting it where the library allows it."""
        ...

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        """Return x + alpha y, overwriting y where the library allows it."""
        ...

    def normal(self, seed: int | Sequence[int], shape: tuple[int, ...], dtype: Any) -> Array:
        """Draw standard normal numbers, the same on every backend for the same seed."""
        ...

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        """Build a CSR matrix on this backend from its three host arrays."""
        ...

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        """Wrap a sparse matrix of the backend's own library."""
        ...

    def context(self) -> AbstractContextManager[Any]:
        """What the library keeps for each thread, as it is here: for another thread to enter, once.

        The current device and stream of CuPy, for one: work on another stream would not wait for
        what this thread has asked for.
        """
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all that was asked of it."""
        ...

    def describe(self) -> str:
        """One line for ``bilevel info``: version, device, sparse kernel."""
        ...
