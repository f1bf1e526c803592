"""What a design matrix is; its products are counted (:class:`bilevel.meter.Passes`)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..backends import Array, Backend, HostIndex
from ..meter import Passes


@runtime_checkable
class Design(Protocol):
    """A matrix X of shape (n, p) that multiplies arrays from both sides.

    One right-hand side is an array of shape (p,) or (n,), several are its columns.
    """

    @property
    def backend(self) -> Backend: ...

    @property
    def passes(self) -> Passes: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def columns_per_pass(self) -> int:
        """How many right-hand sides make a product cheapest for each (1: no gain from several)."""
        ...

    @property
    def entries(self) -> int:
        """How many numbers a pass reads: n p, or the stored ones of a sparse matrix."""
        ...

    def matmul(self, v: Array) -> Array:
        """X @ v, shape (n,) or (n, k)."""
        ...

    def rmatmul(self, r: Array) -> Array:
        """Xᵀ @ r, shape (p,) or (p, k)."""
        ...

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        """diag(X_cᵀ diag(d) X_c), X_c = X - 1 centreᵀ; shape (p,) for d (n,), (p, k) for (n, k).

        ``centre`` of shape (p,) is what is subtracted from each column; nothing when omitted.
        """
        ...

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        """(X_c∘X_c) @ v, shape (n,) or (n, k): weighted square norms of the centred rows."""
        ...

    @property
    def centred_rounding(self) -> float:
        """Rounding error of ``gram_diag(d, mean)``, relative to ``gram_diag(d)``, at worst about.

        Far below the unit roundoff where entries are centred before they are squared, that size
        where the squares are centred after.
        """
        ...

    def rows(self, index: HostIndex) -> Design:
        """Return the design of these rows, in this order, with a counter of its own.

        Raises
        ------
        ValueError
            If ``index`` does not hold integers in 0, ..., n-1 along one axis.
        """
        ...


@runtime_checkable
class Rounds(Protocol):
    """A design that may serve products in float32 for less.

    A sparse one does not: its indices weigh as much as its values, and conjugate gradients pay for
    the rounding (docs/path-following.md).
    """

    def rounded(self) -> Design | None:
        """The matrix in float32 for products with float64, on the same counter.

        None where such products are not cheaper, or X is of float32 itself.
        """
        ...


@runtime_checkable
class Summing(Protocol):
    """A design each product of which is sums of products of its entries, in its own precision.

    Proven bounds rest on that. Of a design that does not say so (a product of two matrices, a
    transform, entries of less precision) nothing is proven.
    """

    @property
    def longest_row(self) -> int:
        """The most terms that the sum of a row has."""
        ...


@runtime_checkable
class Grams(Protocol):
    """A design that may form XᵀSX, which pays where rows are many and columns few."""

    def gram(self, weights: Array | None = None) -> Array | None:
        """Xᵀ diag(weights) X, shape (p, p), a pass of p columns; None where it does not pay."""
        ...


def gram(design: Design, weights: Array | None = None) -> Array | None:
    """Its XᵀSX, None where it has none."""
    return design.gram(weights) if isinstance(design, Grams) else None


def column_sums(design: Design, weights: Array | None) -> tuple[Array, Array]:
    """Xᵀs and Σ s, s all ones where there are no weights."""
    xp = design.backend.xp
    if weights is None:
        weights = xp.ones(design.shape[0], dtype=design.dtype, device=design.backend.device)
    return design.rmatmul(weights), xp.sum(weights)


def rounded(design: Design) -> Design | None:
    """Its rounded form, None where it has none."""
    return design.rounded() if isinstance(design, Rounds) else None


def per_column(a: Array, v: Array) -> Array:
    """Give a (p,) the number of axes of v, (p,) or (p, k), so that it broadcasts over columns."""
    return a if v.ndim == 1 else a[:, None]
