"""Long random searches for answers that are wrong and do not say so.

``BILEVEL_CAMPAIGN_SIZE`` multiplies the number of draws (1), ``BILEVEL_CAMPAIGN_SEED`` chooses
them: a number, or ``new`` for draws that nobody has seen; the header says which was taken.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import numpy as np
import pytest


def _seed() -> int:
    asked = os.environ.get("BILEVEL_CAMPAIGN_SEED", "0")
    if asked == "new":
        os.environ["BILEVEL_CAMPAIGN_SEED"] = str(secrets.randbelow(2**31))  # also for workers
    return int(os.environ.get("BILEVEL_CAMPAIGN_SEED", "0"))


SEED = _seed()
SIZE = float(os.environ.get("BILEVEL_CAMPAIGN_SIZE", "1"))


def pytest_report_header() -> str:
    return f"campaign: BILEVEL_CAMPAIGN_SEED={SEED} BILEVEL_CAMPAIGN_SIZE={SIZE:g}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "campaign" in item.path.parts:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture
def draws(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """Seeds of so many draws, times the size of the campaign; the test's own, run after run."""
    own = [ord(letter) for letter in request.node.name]

    def seeds(number: int) -> list[int]:
        rng = np.random.default_rng([SEED, *own])
        return [int(s) for s in rng.integers(0, 2**31, max(1, round(number * SIZE)))]

    return seeds
