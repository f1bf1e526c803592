"""A design built on another one: it passes on what it does not change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from ..backends import Backend
from ._protocol import Design, rounded


@dataclass(frozen=True)
class Wrapper:
    """The properties of the base design, but for its counter: a wrapper may have its own."""

    base: Design

    @property
    def backend(self) -> Backend:
        return self.base.backend

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    @property
    def columns_per_pass(self) -> int:
        return self.base.columns_per_pass

    @property
    def entries(self) -> int:
        return self.base.entries

    @property
    def centred_rounding(self) -> float:
        return self.base.centred_rounding

    def rounded(self) -> Self | None:
        """On the rounded base, one object for all who ask: of a shared design shared as well."""
        base = rounded(self.base)
        return None if base is None else replace(self, base=base)
