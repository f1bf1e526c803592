"""torch tensors on the CPU or a GPU, with torch's CSR products."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy.typing as npt

from ._blocks import Writable
from ._protocol import Array, BackendUnavailableError, SparseKernel
from ._sparse_check import check_csr
from .array_api import ArrayAPIBackend


class TorchBackend(Writable, ArrayAPIBackend):
    """torch on one device.

    Parameters
    ----------
    device : str or torch.device, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    """

    name = "torch"
    module = "array_api_compat.torch"
    install = "pip install 'bilevel[torch]'"

    def _probe(self, device: Any) -> Any:
        found = super()._probe(device)
        if found.type == "meta":  # by name, of a tensor, or torch's default
            raise ValueError(
                "Tensors on torch's device 'meta' hold no numbers: give ones on another device."
            )
        return found

    def _import(self) -> Any:
        _one_thread_after_a_fork()
        return super()._import()

    def _parse_device(self, device: Any) -> Any:
        torch = importlib.import_module("torch")
        try:
            found = torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"torch knows no device {device!r}.") from error
        if found.type == "cuda" and not torch.cuda.is_available():
            raise BackendUnavailableError(
                "torch finds no CUDA device here: use device='cpu', or install a CUDA build of "
                "torch and an NVIDIA driver."
            )
        return found

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = array.detach().cpu().numpy().copy()
        return host

    def copied(self, array: Array) -> Array:
        return array.clone()

    def context(self) -> AbstractContextManager[Any]:
        torch = importlib.import_module("torch")
        on_gpu = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if on_gpu else None
        return _as_here(torch.is_grad_enabled(), stream)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            importlib.import_module("torch").cuda.synchronize(self.device)

    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        shape = (n_segments, *values.shape[1:])
        total = self.xp.zeros(shape, dtype=values.dtype, device=self.device)
        return total.index_add_(0, segments, values)

    def solve_triangular(self, a: Array, b: Array, *, lower: bool = True) -> Array:
        solve = self.xp.linalg.solve_triangular
        if b.ndim == 1:
            return solve(a, b[:, None], upper=not lower)[:, 0]
        return solve(a, b, upper=not lower)

    def axpy(self, alpha: Array, x: Array, y: Array, work: Array | None = None) -> Array:
        if isinstance(alpha, (int, float)):
            return y.add_(x, alpha=alpha)
        return y.addcmul_(alpha, x)

    def xpay(self, x: Array, alpha: Array, y: Array) -> Array:
        return y.mul_(alpha).add_(x)

    def csr(
        self,
        data: npt.NDArray[Any],
        indices: npt.NDArray[Any],
        indptr: npt.NDArray[Any],
        shape: tuple[int, int],
        dtype: Any,
    ) -> SparseKernel:
        from ._torch_csr import TorchCSR

        check_csr(data, indices, indptr, shape, "X")
        return TorchCSR.from_host(self, data, indices, indptr, shape, dtype)

    def sparse_kernel(self, matrix: Any) -> SparseKernel:
        from ._torch_csr import TorchCSR

        return TorchCSR(matrix)


@contextmanager
def _as_here(grad: bool, stream: Any) -> Iterator[None]:
    """Enter what torch keeps for each thread: whether it records derivatives, and a stream."""
    torch = importlib.import_module("torch")
    with torch.set_grad_enabled(grad), torch.cuda.stream(stream) if stream else nullcontext():
        yield


@functools.cache
def _one_thread_after_a_fork() -> None:
    """Have torch work on one thread in forked children, as its own data loader has.

    Its threads on a CPU do not come along, and a child would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)


def _one_thread() -> None:
    importlib.import_module("torch").set_num_threads(1)
