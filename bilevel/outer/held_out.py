"""The loss on held-out rows: g(x) = Σ_i ℓ(y_i, a_iᵀ x)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..backends import Array
from ..design import Design, as_design
from ..inner.linear import check_labels
from ..losses import Loss
from ._protocol import OuterConstants


@dataclass(frozen=True)
class HeldOut:
    """Sum of the losses of the held-out rows, as in the paper (section 4).

    Build it with :func:`held_out`, which checks its input.
    """

    design: Design
    y: Array
    loss: Loss

    @property
    def passes(self) -> int:
        return self.design.passes.total

    def at(self, x: Array, lam: Array) -> HeldOutPoint:
        return HeldOutPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """∂_x g is Lipschitz with sup ℓ'' ‖X‖_F²; ∂_λ g = 0."""
        second = self.loss.curvature_bound
        if second is None:
            return OuterConstants(None, 0.0)
        backend, xp = self.design.backend, self.design.backend.xp
        ones = xp.ones(self.design.shape[1], dtype=self.design.dtype, device=backend.device)
        (square,) = backend.scalars(xp.sum(self.design.square_matmul(ones)))
        return OuterConstants(second * square, 0.0)


@dataclass(frozen=True)
class HeldOutPoint:
    """The held-out loss at x."""

    outer: HeldOut
    x: Array
    lam: Array

    @cached_property
    def margins(self) -> Array:
        return self.outer.design.matmul(self.x)

    @cached_property
    def value(self) -> Array:
        outer, backend = self.outer, self.outer.design.backend
        return backend.xp.sum(outer.loss.value(outer.y, self.margins, backend))

    @cached_property
    def grad_x(self) -> Array:
        outer, backend = self.outer, self.outer.design.backend
        return outer.design.rmatmul(outer.loss.derivative(outer.y, self.margins, backend))

    @cached_property
    def grad_lam(self) -> Array:
        return self.outer.design.backend.xp.zeros_like(self.lam)


def held_out(X: Any, y: Array, loss: Loss, *, X_name: str = "X", y_name: str = "y") -> HeldOut:
    """Build the held-out loss of a linear model.

    Parameters
    ----------
    X : array, sparse matrix or Design, shape (n, p)
        Held-out features.
    y : array, shape (n,)
        Held-out labels.
    loss : Loss
        The loss of one prediction.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Logistic
    >>> g = held_out(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> round(float(g.at(np.zeros(2), np.zeros(1)).value), 4)
    1.3863
    """
    design = as_design(X, name=X_name)
    return HeldOut(design, check_labels(design, y, loss, X_name, y_name), loss)
