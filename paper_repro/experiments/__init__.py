"""The experiments, each one file with the contract of ``paper_repro.contract``."""

from __future__ import annotations

from ..contract import Experiment
from . import (
    bengio,
    comparison,
    comparison_kernel,
    deladalle,
    domke,
    larsen,
    maclaurin,
    misprint,
    multiclass,
    tolerance,
)

#: In the order of the index page.
EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        tolerance,
        comparison,
        comparison_kernel,
        multiclass,
        misprint,
        larsen,
        bengio,
        domke,
        maclaurin,
        deladalle,
    )
}
