"""A domain: the λ of which a weighted sum is no more than a level, a half-space."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HalfSpace:
    """{λ : aᵀλ ≤ b}."""

    a: tuple[float, ...]
    b: float

    def project(self, lam: Any, backend: Any) -> Any:
        xp = backend.xp
        a = backend.asarray(list(self.a), dtype=lam.dtype)
        beyond = xp.maximum(xp.vecdot(a, lam) - self.b, xp.zeros_like(lam[0]))
        return lam - beyond / xp.vecdot(a, a) * a
