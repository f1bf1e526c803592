"""What the driver fails with."""

from __future__ import annotations


class CUDADriverError(RuntimeError):
    """A kernel that is not there, or a launch that no device takes."""
