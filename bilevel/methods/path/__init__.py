"""Path following, the default method."""

from .following import PathFollowing

__all__ = ["PathFollowing"]
