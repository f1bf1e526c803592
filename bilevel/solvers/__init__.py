"""Inner solvers: each walks from point to point; :func:`solve` says when to stop."""

from ._protocol import SOLVER, InnerResult, Solver, Step, solve
from .lbfgs import LBFGS
from .newton_cg import NewtonCG

__all__ = ["LBFGS", "SOLVER", "InnerResult", "NewtonCG", "Solver", "Step", "solve"]
