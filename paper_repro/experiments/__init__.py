"""The experiments, each one file with the contract of ``paper_repro.contract``."""

from __future__ import annotations

from ..contract import Experiment
from . import comparison, misprint, tolerance

#: In the order of the index page.
EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (tolerance.EXPERIMENT, comparison.EXPERIMENT, misprint.EXPERIMENT)}
