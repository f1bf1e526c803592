"""Linear algebra with operators: conjugate gradients and preconditioners."""

from .cg import CGResult, cg
from .preconditioners import Preconditioner, jacobi
from .products import dot, dots, norm

__all__ = ["CGResult", "Preconditioner", "cg", "dot", "dots", "jacobi", "norm"]
