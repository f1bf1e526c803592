"""Bilevel optimisation of continuous hyperparameters by approximate gradients, on any array."""

from .backends import BackendUnavailableError, get_backend
from .design import as_design

__version__ = "0.1.0"

__all__ = ["BackendUnavailableError", "as_design", "get_backend"]
