"""Ctrl-C while the command line loads: a line and exit code 130, as later on.

``bilevel`` and ``python -m bilevel`` import this package before any code of the command runs, and
that takes most of their time to start. In any other program Ctrl-C is its own business.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

#: As shells say it of a program that Ctrl-C ended.
INTERRUPTED = 130


def is_command(script: str, words: Sequence[str]) -> bool:
    """Whether Python was started as our command, by ``sys.argv[0]`` and all the words.

    Examples
    --------
    >>> is_command("/bin/bilevel", ["python", "/bin/bilevel", "info"])
    True
    >>> is_command("-m", ["python", "-m", "bilevel", "info"])
    True
    >>> is_command("mine.py", ["python", "mine.py", "bilevel"])
    False
    """
    return PurePath(script).stem == "bilevel" or ("-m", "bilevel") in itertools.pairwise(words)


def _quit(*_: Any) -> None:
    # No exception: extension modules that are being imported may turn one into another.
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """End on Ctrl-C without a traceback, where Python was started as our command."""
    before = signal.getsignal(signal.SIGINT)
    script = next(iter(getattr(sys, "argv", ())), "")  # a program that embeds Python may have none
    if before is not signal.default_int_handler or not is_command(script, sys.orig_argv):
        yield
        return
    signal.signal(signal.SIGINT, _quit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
