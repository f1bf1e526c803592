"""Bilevel optimisation of continuous hyperparameters by approximate gradients, on any array."""

from ._loading import quiet_interrupts

with quiet_interrupts():
    from .backends import (
        BackendUnavailableError,
        backend_names,
        get_backend,
        register_backend,
    )
    from .design import as_design
    from .domains import Ball, Box
    from .loop import iterate, minimize
    from .multistart import MultistartResult, multistart
    from .problem import Problem, logistic_regression
    from .record import Costs, Record, Result
    from .status import Status
    from .testing import certify

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Ball",
    "Box",
    "Costs",
    "MultistartResult",
    "Problem",
    "Record",
    "Result",
    "Status",
    "as_design",
    "backend_names",
    "certify",
    "get_backend",
    "iterate",
    "logistic_regression",
    "minimize",
    "multistart",
    "register_backend",
]
