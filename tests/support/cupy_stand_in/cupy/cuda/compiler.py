"""What the compiler of kernels says."""

from __future__ import annotations


class CompileException(Exception):
    """A source that NVRTC would not take, or the host's compiler does not."""

    def __init__(
        self, msg: str, source: str, name: str, options: tuple[str, ...], backend: str = "nvrtc"
    ) -> None:
        self._msg = msg
        self.source, self.name, self.options, self.backend = source, name, options, backend
        super().__init__()

    def __str__(self) -> str:
        return self._msg
