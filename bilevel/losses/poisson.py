"""The Poisson loss e^t - y t, counts y ≥ 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..backends import Array, Backend
from ._protocol import ELEMENTARY, Pointwise, entrywise


@dataclass(frozen=True)
class Poisson(Pointwise):
    """ℓ(y, t) = e^t - y t: the negative log-likelihood of a count with mean e^t, less log y!.

    ℓ' = e^t - y, ℓ'' = ℓ''' = e^t: convex, with no bound of its curvature (McCullagh and Nelder,
    Generalized Linear Models, 1989, section 6.2).

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> backend = bilevel.get_backend("numpy")
    >>> Poisson().derivative(np.array([3.0]), np.array([0.0]), backend)
    array([-2.])
    """

    curvature_bound: ClassVar[None] = None
    third_bound: ClassVar[None] = None
    self_concordance: ClassVar[float | None] = 1.0

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        if bool(backend.xp.any(y < 0)):
            (least,) = backend.scalars(backend.xp.min(y))
            raise ValueError(f"{name} must hold counts, none below 0, got {least}.")

    def support(self, y: Array, backend: Backend) -> dict[str, Array]:
        return {"a count above 0": y > 0}

    @entrywise("poisson_value")
    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.exp(t) - y * t

    def least(self, y: Array, backend: Backend) -> Array:
        """The value y - y log y, at e^t = y; 0 where y = 0."""
        xp = backend.xp
        return y - y * xp.log(xp.where(y > 0, y, xp.ones_like(y)))

    @entrywise("poisson_derivative")
    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.exp(t) - y

    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.exp(t)

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        return backend.xp.exp(t)

    def rounding(self, y: Array, t: Array, backend: Backend) -> tuple[Array, Array]:
        """Those of e^t, of the product and of the difference, which may cancel."""
        mean = backend.xp.exp(t)
        value = (ELEMENTARY + 2) * mean + 4 * backend.xp.abs(y * t)
        return value, (ELEMENTARY + 2) * mean + 2 * y
