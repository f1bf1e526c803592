"""Linear algebra with operators: conjugate gradients and preconditioners."""

from .accuracy import Accuracy, Energy, EstimatedEnergy, Residual
from .cg import CGResult, cg
from .preconditioners import Nystrom, Preconditioner, jacobi
from .products import dot, dots, norm

__all__ = [
    "Accuracy",
    "CGResult",
    "Energy",
    "EstimatedEnergy",
    "Nystrom",
    "Preconditioner",
    "Residual",
    "cg",
    "dot",
    "dots",
    "jacobi",
    "norm",
]
