"""What a design matrix is, and how its products are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..backends import Array, Backend, HostIndex


@dataclass
class Passes:
    """Products with X and with Xᵀ since the counter was made: the true cost of a method.

    Attributes
    ----------
    forward, backward : int
        Products X @ V and Xᵀ @ R, each with any number of columns.
    columns : int
        The same, each column counted on its own.
    """

    forward: int = 0
    backward: int = 0
    columns: int = 0

    @property
    def total(self) -> int:
        """Passes over the data, forward and backward."""
        return self.forward + self.backward

    def count_forward(self, v: Array) -> None:
        self.forward += 1
        self.columns += 1 if v.ndim == 1 else v.shape[1]

    def count_backward(self, r: Array) -> None:
        self.backward += 1
        self.columns += 1 if r.ndim == 1 else r.shape[1]


class Design(Protocol):
    """A matrix X of shape (n, p) that multiplies arrays from both sides.

    One right-hand side is an array of shape (p,) or (n,), several are its columns.
    """

    backend: Backend
    passes: Passes

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def columns_per_pass(self) -> int:
        """How many right-hand sides one product should carry (1: no gain from several)."""
        ...

    def matmul(self, v: Array) -> Array:
        """X @ v, shape (n,) or (n, k)."""
        ...

    def rmatmul(self, r: Array) -> Array:
        """Xᵀ @ r, shape (p,) or (p, k)."""
        ...

    def gram_diag(self, d: Array) -> Array:
        """diag(Xᵀ diag(d) X), shape (p,) for d (n,), (p, k) for d (n, k)."""
        ...

    def square_matmul(self, v: Array) -> Array:
        """(X∘X) @ v, shape (n,): weighted square norms of the rows."""
        ...

    def rows(self, index: HostIndex) -> Design:
        """The design of these rows, in this order, with a counter of its own."""
        ...
