"""The backends that the tests of the models run on."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

import bilevel


def _backend(name: str) -> Any:
    if name != "numpy" and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if name == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    return bilevel.get_backend(name)


every_backend = pytest.mark.parametrize(
    "make_backend",
    [
        pytest.param(lambda name=name: _backend(name), id=name)
        for name in ("numpy", "array_api_strict", "torch", "jax")
    ],
)
