"""Linear algebra with operators: conjugate gradients and preconditioners."""

from .cg import CGResult, cg
from .preconditioners import Preconditioner, jacobi

__all__ = ["CGResult", "Preconditioner", "cg", "jacobi"]
