"""Pointers, which are the host's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryPointer:
    """Where the numbers of an array are."""

    ptr: int
    device_id: int

    def __int__(self) -> int:
        return self.ptr
