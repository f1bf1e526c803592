"""Which parts are of this package, and are not asked whether they are what they should be."""

from __future__ import annotations

from typing import Any


def is_ours(value: Any) -> bool:
    """Whether the class of a value is one of this package.

    Examples
    --------
    >>> import bilevel
    >>> is_ours(bilevel.Box()), is_ours(len)
    (True, False)
    """
    return type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
