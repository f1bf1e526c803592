"""What a criterion asks of a model: predictions for its rows, and their transposed derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .._cached import cached_property
from ..backends import Array, Backend, Pending
from ..design import Design, Reach, row_square_norms
from ..inner.linear import matmul, rmatmul
from ..linalg.rounding import gamma


class Prediction(Protocol):
    """t(x, λ) at one (x, λ)."""

    @property
    def value(self) -> Array:
        """t, its first axis the rows."""
        ...

    @property
    def drift(self) -> Array | Pending:
        """About the norm of what rounding has done to t, 0-d."""
        ...

    def pull_x(self, r: Array) -> Array:
        """(∂_x t)ᵀ r, the shape of x."""
        ...

    def pull_lam(self, r: Array) -> Array:
        """(∂_λ t)ᵀ r, shape (m,)."""
        ...


@runtime_checkable
class Pushing(Protocol):
    """A prediction that knows how x moves it; it is linear in x unless it is :class:`Turning`."""

    def push_x(self, v: Array) -> Array:
        """(∂_x t) v for directions v of shape ``(*x_shape, k)``, one pass."""
        ...


@runtime_checkable
class Turning(Protocol):
    """One that is not linear in x."""

    def pull_twice(self, r: Array, v: Array) -> Array:
        """v_iᵀ (rᵀ ∂²_{xx} t) v_j, shape (k, k)."""
        ...


@runtime_checkable
class Direct(Pushing, Protocol):
    """One that depends on λ directly, and knows how, twice; its ``pull_lam`` takes several r."""

    def push_lam(self, D: Array) -> Array:
        """(∂_λ t) D for D of shape (m, k)."""
        ...

    def pull_cross(self, r: Array, v: Array) -> Array:
        """The numbers rᵀ (∂²_{xλ_j} t) v_i, shape (m, k)."""
        ...

    def pull_fold(self, r: Array, D: Array) -> Array | None:
        """(rᵀ ∂²_{λλ} t) D, shape (m, k), or None."""
        ...


class Predictor(Protocol):
    """Predicts the rows of a criterion from x, and from λ where the model depends on it."""

    @property
    def backend(self) -> Backend: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def n_rows(self) -> int: ...

    @property
    def depends_on_lam(self) -> bool:
        """Whether ∂_λ t is other than zero."""
        ...

    @property
    def passes(self) -> float:
        """Passes over the rows until now."""
        ...

    def at(self, x: Array, lam: Array) -> Prediction: ...

    def row_square_norms(self) -> Array | None:
        """Upper bounds of ‖∂_x t_i‖² that hold for every x and λ, shape (n,), or None."""
        ...


@dataclass(frozen=True)
class LinearPredictor:
    """t = X x.

    Attributes
    ----------
    design : Design
        X, shape (n, p).
    """

    design: Design

    @property
    def backend(self) -> Backend:
        return self.design.backend

    @property
    def dtype(self) -> Any:
        return self.design.dtype

    @property
    def n_rows(self) -> int:
        return self.design.shape[0]

    @property
    def depends_on_lam(self) -> bool:
        return False

    @property
    def passes(self) -> float:
        return self.design.passes.total

    def at(self, x: Array, lam: Array) -> LinearPrediction:
        return LinearPrediction(self, x, lam)

    @cached_property
    def reach(self) -> Reach:
        """What rounding does to products with X."""
        return Reach.of(self.design)

    def row_square_norms(self) -> Array:
        """‖a_i‖² and what rounding may have taken, off the counter: they belong to the data."""
        xp, rows = self.backend.xp, row_square_norms(self.design)
        lost = gamma(self.design.shape[1] + 16, self.reach.unit)
        # Centring on the fly loses what the columns had before it, and shows here.
        gone = xp.maximum(self.reach.total**2 - xp.sum(rows), xp.zeros_like(rows[0]))
        return (1 + lost) * rows + lost * gone


@dataclass(frozen=True)
class LinearPrediction:
    """X x."""

    predictor: LinearPredictor
    x: Array
    lam: Array

    @cached_property
    def value(self) -> Array:
        return matmul(self.predictor.design, self.x)

    def push_x(self, v: Array) -> Array:
        return matmul(self.predictor.design, v)

    @cached_property
    def drift(self) -> Pending:
        return self.predictor.reach.likely(self.x)

    def pull_x(self, r: Array) -> Array:
        return rmatmul(self.predictor.design, r)

    def pull_lam(self, r: Array) -> Array:
        return self.predictor.backend.xp.zeros_like(self.lam)
