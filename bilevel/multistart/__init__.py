"""Several searches at once, which share every pass over the data."""

from .search import MultistartResult, multistart

__all__ = ["MultistartResult", "multistart"]
