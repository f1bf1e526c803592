r"""The statements of the theory, each a function that holds an implementation to it.

Each returns the figures that it compared and raises :class:`Violation` where the statement is
false. Numbers in names are those of Pedregosa (2016). A term of rounding, computed from the
dtype and the size of the problem (:class:`KnownProblem`), is allowed where working precision
enters; nothing else is.
"""

from .hypergradients import (
    hypergradient_certificate,
    order,
    shifted,
    slope,
    theorem_1,
    theorem_1_constant,
)
from .inner import inner_certificate, inner_stop
from .linear_algebra import cg_theory, products
from .outer_loop import summability, theorem_2
from .projections import projection
from .records import records_hold
from .stationary import gap, stationarity, vertices
from .traces import (
    Trace,
    descent,
    inside,
    lipschitz_of_gradient,
    projected_steps,
    squared_steps,
    trace,
)
from .violation import Figures, Violation, require

__all__ = [
    "Figures",
    "Trace",
    "Violation",
    "cg_theory",
    "descent",
    "gap",
    "hypergradient_certificate",
    "inner_certificate",
    "inner_stop",
    "inside",
    "lipschitz_of_gradient",
    "order",
    "products",
    "projected_steps",
    "projection",
    "records_hold",
    "require",
    "shifted",
    "slope",
    "squared_steps",
    "stationarity",
    "summability",
    "theorem_1",
    "theorem_1_constant",
    "theorem_2",
    "trace",
    "vertices",
]
