"""Whether arrays stay as they were: what parts from outside are given, and what they returned.

A member that fills one buffer at each call hands out arrays that turn into others under whoever
holds them, and a loss that writes into its labels fits other data. Both run to an end, of something
else, without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .backends import Array, Backend, is_array, lent


@dataclass(frozen=True)
class Untouched:
    """Arrays beside what they were, compared on their device, and read once all has been asked.

    What is given is compared after each call, which tells who wrote into it. What was returned is
    compared at the end: any later call may have filled the buffer anew, that of another member too.
    """

    backend: Backend
    dtype: Any
    given: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    returned: list[tuple[str, Array, Array]] = field(default_factory=list)
    written: list[tuple[str, str, Array]] = field(default_factory=list)

    def lend(self, name: str, array: Array) -> Array:
        """A copy to be given away: what is written there harms nobody."""
        copy = next(lent(self.backend, array))
        self.given[name] = (copy, array)
        return copy

    def keep(self, member: str, found: Any) -> None:
        """Remember what a member returned: an array, or several of them."""
        for array in found if isinstance(found, (tuple, list)) else (found,):
            if is_array(array):
                self.returned.append((member, array, next(lent(self.backend, array))))

    def called(self, member: str) -> None:
        """Compare what has been given, after a call of a member."""
        for name, (copy, array) in self.given.items():
            if copy is not array:  # where nobody can write they are one
                self.written.append((member, name, self._differ(copy, array)))

    def _differ(self, array: Array, before: Array) -> Array:
        """1 where an entry is another, NaN being NaN."""
        xp = self.backend.xp
        other = (array != before) & ((array == array) | (before == before))
        return xp.astype(xp.any(other), self.dtype)

    def faults(self) -> list[tuple[str, str]]:
        """Each member that has not left an array as it was, with what is to be said of it."""
        held = [(member, a, before) for member, a, before in self.returned if a is not before]
        said = [(member, _WRITTEN.format(name)) for member, name, _ in self.written]
        said += [(member, _BUFFER) for member, *_ in held]
        flags = [flag for *_, flag in self.written]
        flags += [self._differ(a, before) for _, a, before in held]
        read = self.backend.scalars(*flags) if flags else ()
        # What was written into may have been returned as well, as a product with the identity.
        one = slice(1) if any(read[: len(self.written)]) else slice(None)
        return [fault for fault, other in zip(said, read, strict=True) if other > 0][one]


#: What is said of a member that writes into an array.
_WRITTEN = "must not write into {}, which it is given to read: work on a copy."

#: What is said of an array that has become another one.
_BUFFER = (
    "must return an array of its own: a later call changes what it returned before, as one buffer "
    "that is filled each time does. Return a copy."
)
