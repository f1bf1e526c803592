"""Libraries and forked processes: the threads of a library do not come along, its locks do."""

from __future__ import annotations

import os
import threading
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
        _ = self.xp  # refused here, before a child asks the library for its devices


class BetweenForks:
    """Calls that a fork waits for, as a context: they run side by side, and begin after it.

    A library that is forked in the middle of a call of another thread leaves its child with locks
    that nobody will open.

    Examples
    --------
    >>> calls = BetweenForks()
    >>> with calls:
    ...     pass
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._close, after_in_parent=self._open, after_in_child=self._renew
            )

    def _renew(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = self._forks = 0

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _close(self) -> None:
        with self._changed:
            self._forks += 1
            while self._inside:
                self._changed.wait()

    def _open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()
