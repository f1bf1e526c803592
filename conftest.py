"""What every test and every docstring example shares."""

from __future__ import annotations

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")  # before JAX is first imported
os.environ.setdefault("MPLBACKEND", "agg")
# Before NumPy: -n auto fills the cores, on which the threads of BLAS would wait for one another by
# spinning (one example took 80 s of them in place of 7). The tests of threads ask for theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

#: The default draws the same few examples each time: a failure is the change's, not the day's.
settings.register_profile(
    "default",
    derandomize=True,
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("default"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
