"""``functools.cached_property`` without the lock that it holds until Python 3.12.

That lock is one for all instances of a class, and it is held while the value is computed: runs in
several threads would compute the gradients of their own points one at a time, and runs that wait
for each other at a product (:mod:`bilevel.multistart`) would wait for ever.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801
        """A property that is computed when first asked for, once, and kept by the instance."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            kept = instance.__dict__
            if self.attrname not in kept:
                kept[self.attrname] = self.func(instance)
            return kept[self.attrname]
