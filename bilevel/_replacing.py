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
    A link is written through as :func:`destination` says, and else replaced.

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
    target = destination(Path(path))
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


def destination(path: Path) -> Path:
    """Return the file that a symbolic link leads to, if who made the link owns that file.

    Whoever planted another link has no right to the file, and would have it overwritten by us: such
    a link, and one that leads nowhere, is no more than a name to be replaced.
    """
    if not path.is_symlink():
        return path
    try:
        file = path.stat()
    except OSError:  # it leads nowhere, or in a circle
        return path
    is_theirs = stat.S_ISREG(file.st_mode) and path.lstat().st_uid == file.st_uid
    return Path(os.path.realpath(path)) if is_theirs else path


def is_plain_or_new(path: Path) -> bool:
    """Tell whether there is a regular file or nothing: no folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True
