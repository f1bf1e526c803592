"""The products are in ``cupyx.scipy.sparse``; that this can be imported says that cuSPARSE is there."""

from __future__ import annotations


def check_availability(name: str) -> bool:
    """The calls of CUDA 12."""
    return name in ("spmv", "spmm", "spgemm", "csrgeam2", "csc2csrEx2", "csr2cscEx2")
