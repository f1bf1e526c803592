"""A criterion: the share of pairs in the wrong order, 1 - AUC, made smooth."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bilevel.backends import Backend
from bilevel.design import Design
from bilevel.outer import OuterConstants


@dataclass(frozen=True)
class WrongPairs:
    """g(x) = mean of σ((t_j - t_i) / width) over i of class +1 and j of class -1, t = X x."""

    design: Design
    y: Any
    width: float = 0.1

    @property
    def backend(self) -> Backend:  # it and dtype are optional: then they are held against h's
        return self.design.backend

    @property
    def dtype(self) -> Any:
        return self.design.dtype

    @property
    def passes(self) -> float:
        return self.design.passes.total

    def at(self, x: Any, lam: Any) -> "WrongPairsPoint":
        return WrongPairsPoint(self, x, lam)

    def constants(self) -> OuterConstants:  # None where nothing is known
        return OuterConstants(grad_lam_lipschitz=0.0, least=0.0)


@dataclass(frozen=True)
class WrongPairsPoint:
    """Value and two gradients."""

    outer: WrongPairs
    x: Any
    lam: Any

    @cached_property
    def _pairs(self) -> tuple[Any, Any]:
        """Which pairs there are, weighted to a mean, and σ of each."""
        outer, backend = self.outer, self.outer.backend
        xp, t = backend.xp, outer.design.matmul(self.x)
        pair = xp.astype((outer.y[:, None] > 0) & (outer.y[None, :] < 0), t.dtype)
        wrong = backend.expit((t[None, :] - t[:, None]) / outer.width)
        return pair / xp.sum(pair), wrong

    @cached_property
    def value(self) -> Any:
        weight, wrong = self._pairs
        return self.outer.backend.xp.sum(weight * wrong)

    @cached_property
    def grad_x(self) -> Any:
        xp, (weight, wrong) = self.outer.backend.xp, self._pairs
        slope = weight * wrong * (1 - wrong) / self.outer.width
        return self.outer.design.rmatmul(xp.sum(slope, axis=0) - xp.sum(slope, axis=1))

    @property
    def grad_lam(self) -> Any:
        return 0 * self.lam
