"""Parameters of which the default run takes the first few, and the slow run all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first(n: int, values: Iterable[Any]) -> list[Any]:
    """The values; those after the first n under the marker ``slow``."""
    return [
        value if k < n else pytest.param(*_several(value), marks=pytest.mark.slow)
        for k, value in enumerate(values)
    ]


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
