"""Ctrl-C while a model is searched for and saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_SAVING = b"note: the results are being saved; Ctrl-C once more gives them up.\n"


@dataclass
class Interrupts:
    """The first Ctrl-C ends the search, the next one waits for the files, one more ends all.

    Who presses twice, or holds the keys, wants the search to end, not the model to be lost.

    Attributes
    ----------
    heard : int
        How many there were; the end of a search is one of them.
    """

    heard: int = 0

    def searched(self) -> None:
        """The search is over, by itself or not."""
        self.heard = max(self.heard, 1)

    def __call__(self, *_: Any) -> None:
        self.heard += 1
        if self.heard != 2:
            raise KeyboardInterrupt
        os.write(2, _SAVING)


@contextmanager
def patient_interrupts() -> Iterator[Interrupts]:
    """Hear Ctrl-C so, where it is what it is by default."""
    ours, before = Interrupts(), signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not is_main:
        yield ours
        return
    signal.signal(signal.SIGINT, ours)
    try:
        yield ours
    finally:
        signal.signal(signal.SIGINT, before)
