"""Libraries and forked processes: the threads of a library do not come along."""

from __future__ import annotations

import os
from typing import Any

from ._protocol import BackendUnavailableError

#: The process in which each library was first used.
_FIRST_USED: dict[str, int] = {}


class NotForked:
    """A backend whose library would wait for ever in a child that was forked after its first use.

    Every call of the core goes through ``xp``, so this is where a child hears of it.
    """

    name: str

    @property
    def xp(self) -> Any:
        if _FIRST_USED[self.name] != os.getpid():
            raise BackendUnavailableError(
                f"The {self.name} backend was in use when this process was forked, and its "
                "threads did not come along: start processes by 'spawn' or 'forkserver' "
                "(multiprocessing.get_context), or with joblib."
            )
        return self._xp

    @xp.setter
    def xp(self, namespace: Any) -> None:
        _FIRST_USED.setdefault(self.name, os.getpid())
        self._xp = namespace
