"""A loss: log-cosh, squared near the label and linear far from it, as smooth as any."""

import math
from dataclasses import dataclass
from typing import Any

from bilevel.backends import Backend
from bilevel.losses import ELEMENTARY, Pointwise


@dataclass(frozen=True)
class LogCosh(Pointwise):
    """ℓ(y, t) = log cosh r, r = t - y: ℓ' = tanh r, ℓ'' = 1 - tanh² r, ℓ''' = -2 ℓ' ℓ''."""

    curvature_bound = 1.0
    third_bound = 4 / 27**0.5  # at tanh² r = 1/3
    self_concordance = 2.0

    def value(self, y: Any, t: Any, backend: Backend) -> Any:
        size = backend.xp.abs(t - y)
        return size + backend.softplus(-2 * size) - math.log(2)

    def derivative(self, y: Any, t: Any, backend: Backend) -> Any:
        return backend.xp.tanh(t - y)

    def curvature(self, y: Any, t: Any, backend: Backend) -> Any:
        s = backend.expit(-2 * backend.xp.abs(t - y))
        return 4 * s * (1 - s)

    def third(self, y: Any, t: Any, backend: Backend) -> Any:
        """Optional, for the Hessian of f."""
        return -2 * self.derivative(y, t, backend) * self.curvature(y, t, backend)

    def rounding(self, y: Any, t: Any, backend: Backend) -> tuple[Any, Any]:
        """Optional, for proofs: errors of value and derivative in units of roundoff."""
        xp, size = backend.xp, backend.xp.abs(t - y)
        return 2 * ELEMENTARY * (1 + size), 2 * ELEMENTARY * xp.abs(xp.tanh(t - y))
