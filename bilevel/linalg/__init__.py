"""Linear algebra with operators: conjugate gradients and preconditioners."""

from .accuracy import Accuracy, Energy, EstimatedEnergy, GuardedEnergy, Residual
from .cg import CGResult, cg
from .claims import contradicted
from .preconditioners import Nystrom, Preconditioner, Proven, QuasiNewton, Recorder, jacobi
from .products import dot, dots, grams, norm
from .two_loops import Pair, PairMemory, two_loops

__all__ = [
    "Accuracy",
    "CGResult",
    "Energy",
    "EstimatedEnergy",
    "GuardedEnergy",
    "Nystrom",
    "Pair",
    "PairMemory",
    "Preconditioner",
    "Proven",
    "QuasiNewton",
    "Recorder",
    "Residual",
    "cg",
    "contradicted",
    "dot",
    "dots",
    "grams",
    "jacobi",
    "norm",
    "two_loops",
]
