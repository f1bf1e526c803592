"""Bilevel optimisation of continuous hyperparameters by approximate gradients, on any array."""

import importlib
from typing import TYPE_CHECKING, Any

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
    from .linear_probe import ProbeResult, probe
    from .loop import iterate, minimize
    from .multistart import MultistartResult, multistart
    from .problem import Problem
    from .problems import logistic_regression
    from .record import Costs, Record, Result
    from .status import Status
    from .testing import certify

if TYPE_CHECKING:
    from . import cross_validation as cross_validation
    from . import datasets as datasets
    from . import estimators as estimators
    from . import io as io
    from . import plotting as plotting
    from . import report as report

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Ball",
    "Box",
    "Costs",
    "MultistartResult",
    "ProbeResult",
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
    "probe",
    "register_backend",
]

#: Modules that are loaded when they are first named: what they need is heavy, or may be missing.
_LAZY = frozenset({"cross_validation", "datasets", "estimators", "io", "plotting", "report"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
