"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of ``path`` in one step when the block ends well.

    It is written beside it, under a name that nobody can guess and that must not exist yet: a link
    planted there is not followed. Where the block fails, it is removed, and ``path`` is as it was.

    Raises
    ------
    OSError
        If it can't be written, or ``path`` is a folder, a pipe or a device.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new.bin"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    target = Path(path)
    if not is_plain_or_new(target):
        raise OSError(f"{target} is no regular file: give the path of a file")
    beside = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)  # noqa: PTH105
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def is_plain_or_new(path: Path) -> bool:
    """Tell whether there is a regular file or nothing: no folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
