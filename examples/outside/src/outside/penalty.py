"""A penalty: a fused ridge, for coefficients that have an order."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bilevel.backends import Backend
from bilevel.inner import InnerConstants, PenaltyTerm


@dataclass(frozen=True)
class FusedRidge:
    """r = ½ e^λ₀ ‖x‖² + ½ e^λ₁ Σ_j (x_{j+1} - x_j)²."""

    n_hyperparameters = 2

    def at(self, x: Any, lam: Any, backend: Backend) -> "FusedRidgeTerm":
        return FusedRidgeTerm(self, x, lam, backend)

    def constants(self, lam: Any, backend: Backend) -> InnerConstants:
        size, step = backend.scalars(*(backend.xp.exp(lam[j]) for j in (0, 1)))
        top = size + 4 * step  # the squared norm of differences is 4 at most
        return InnerConstants(size, top, 0.0, cross_lipschitz=top)


class FusedRidgeTerm(PenaltyTerm):
    """The five members that are the mathematics, as of a point."""

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        """The gradients of the two terms."""
        size, step = (self.backend.xp.exp(self.lam[j]) for j in (0, 1))
        return size * self.x, step * steps(self.x, self.backend)

    @cached_property
    def value(self) -> Any:
        return self.backend.xp.sum(self.grad * self.x) / 2

    @cached_property
    def grad(self) -> Any:
        size, step = self._parts
        return size + step

    def hvp(self, v: Any) -> Any:  # of the shape of x, or with one more axis
        size, step = (self.backend.xp.exp(self.lam[j]) for j in (0, 1))
        return size * v + step * steps(v, self.backend)

    def cross_vjp(self, q: Any) -> Any:  # (2,), or (2, k)
        xp, axes = self.backend.xp, tuple(range(self.x.ndim))
        columns = (..., *(None,) * (q.ndim - self.x.ndim))
        return xp.stack([xp.sum(part[columns] * q, axis=axes) for part in self._parts])

    def cross_jvp(self, d: Any) -> Any:
        size, step = self._parts
        return d[0] * size + d[1] * step


def steps(v: Any, backend: Backend) -> Any:
    """DᵀD v, D the differences along the first axis."""
    none = backend.xp.zeros_like(v[:1, ...])
    step = backend.xp.concat([none, v[1:, ...] - v[:-1, ...], none])
    return step[:-1, ...] - step[1:, ...]
