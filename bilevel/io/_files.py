"""Bytes and lines of a file, plain or compressed, of a known encoding, within the memory there is.

What a file is, is read off its first bytes, not off its name: a renamed one is read rightly.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ._table import BadFileError

#: Suffixes that say that a file is compressed; the one before them says the format.
COMPRESSED = (".gz", ".bz2", ".xz")

#: Characters of the longest line (a dense row of a million features has a tenth of that).
_LONGEST_LINE = 1 << 28

#: Bytes that an .xz file may ask for to be unpacked: its highest level takes 65 MiB.
_XZ_MEMORY = 1 << 30

_BLOCK = 1 << 16

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"

_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)

_OTHER_FORMATS = (
    (b"PK", "a zip archive", "Read .npz with --format npz; save a table of Excel as CSV."),
    (
        b"\x93NUMPY",
        "a single array of NumPy",
        "Save X and y together: numpy.savez(name, X=X, y=y).",
    ),
    (b"\x89HDF", "an HDF5 file", "Save X and y as an .npz archive, or the table as CSV."),
    (b"PAR1", "a Parquet file", "Save the table as CSV."),
)


def memory() -> int:
    """Bytes of memory that this process could ever have; as good as endless where unknown."""
    found = [sys.maxsize]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit)
    return min(found)


def check_file(path: Path) -> None:
    """Refuse what is no regular file with something in it: a folder, a pipe, a device."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise BadFileError(path, "there is no such file", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise BadFileError(
            path, f"it can't be reached ({_reason(error)})", "Check the path."
        ) from None
    if stat.S_ISDIR(found.st_mode):
        raise BadFileError(path, "this is a folder", "Give a file.")
    if not stat.S_ISREG(found.st_mode):
        raise BadFileError(
            path, "this is a pipe or a device, no file", "Write what comes from it to a file first."
        )
    if found.st_size == 0:
        raise BadFileError(path, "the file is empty", "Give a file with data.")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


#: What the system and the decompressors raise; :func:`told` says it in words.
FAULTS = (OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError)


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Say what the system and the decompressors raise in the words of :class:`BadFileError`."""
    try:
        yield
    except BadFileError:
        raise
    except MemoryError:
        raise BadFileError(
            path, "it does not fit into memory", "Give fewer rows or features, or a sparse format."
        ) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        # The decompressors raise OSError, too, but of the system it has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise BadFileError(
                path, f"it can't be read ({_reason(error)})", "Check the file and its permissions."
            ) from error
        raise BadFileError(
            path,
            f"it is compressed, and damaged or cut off ({_reason(error)})",
            "Get the file again.",
        ) from error


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; a compressed one yields what it holds."""
    with path.open("rb") as file:
        unpack = _unpacker(file)
        if unpack is None:
            yield file
            return
        with io.BufferedReader(_Bounded(path, unpack), _BLOCK) as stream:
            again = stream.peek(8)
            if again.startswith((_GZIP, _BZIP2, _XZ)):
                raise BadFileError(path, "it is compressed twice", "Unpack it once.")
            yield stream


@contextlib.contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """The same for readers that jump: a compressed file is unpacked to the disk first."""
    with open_bytes(path) as stream:
        if not isinstance(stream.raw, _Bounded):  # type: ignore[attr-defined]
            yield stream
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield unpacked


def _unpacker(file: io.BufferedReader) -> Callable[[int], bytes] | None:
    """Return what reads a compressed file, None where it is none."""
    magic = file.peek(8)
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file, mode="rb").read
    if magic.startswith(_BZIP2):
        return _Streams(file, bz2.BZ2Decompressor).read
    if magic.startswith(_XZ):
        return _Streams(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), pad=4).read
    return None


class _Streams:
    """Compressed streams one after the other.

    The readers of bz2 and lzma take a second stream that is damaged from its start for waste, and
    leave out its rows. After a stream of .xz zero bytes may follow, a multiple of ``pad``.
    """

    def __init__(self, file: IO[bytes], new: Callable[[], Any], *, pad: int = 0) -> None:
        self._file, self._new, self._unpacker, self._pad = file, new, new(), pad

    def read(self, size: int) -> bytes:
        while True:
            block = b""
            if self._unpacker.eof:
                block = self._next_stream(self._unpacker.unused_data)
                if not block:
                    return b""
                self._unpacker = self._new()
            elif self._unpacker.needs_input:
                block = self._file.read(_BLOCK)
                if not block:
                    raise EOFError("it ends before its end mark")
            found: bytes = self._unpacker.decompress(block, size)
            if found:
                return found

    def _next_stream(self, block: bytes) -> bytes:
        """Return what begins the next stream, empty where there is none."""
        block = block or self._file.read(_BLOCK)
        padding = 0
        while self._pad and block.startswith(b"\0"):
            rest = block.lstrip(b"\0")
            padding += len(block) - len(rest)
            block = rest or self._file.read(_BLOCK)
        if self._pad and padding % self._pad:
            raise EOFError(f"{padding} zero bytes follow a stream, no multiple of {self._pad}")
        return block


class _Bounded(io.RawIOBase):
    """What a compressed file holds, as long as it could fit into memory."""

    def __init__(self, path: Path, read: Callable[[int], bytes]) -> None:
        self._path, self._read, self._left = path, read, memory()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._read(len(buffer))
        buffer[: len(found)] = found
        self._left -= len(found)
        if self._left < 0:
            raise BadFileError(
                self._path, "it unpacks to more than this machine's memory", "Give fewer rows."
            )
        return len(found)


def lines(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line: UTF-8, or UTF-16 and UTF-32 with their mark.

    Parameters
    ----------
    errors : str
        Of :func:`open`: what is done about bytes that are no UTF-8.

    Raises
    ------
    BadFileError
        If the file is no such text.
    """
    with open_bytes(path) as stream:
        start = stream.peek(8)  # type: ignore[attr-defined]
        for magic, what, cure in _OTHER_FORMATS:
            if start.startswith(magic):
                raise BadFileError(path, f"this is {what}, no text", cure)
        encoding = next((name for mark, name in _ENCODINGS if start.startswith(mark)), "utf-8")
        text = io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="")
        number = 0
        try:
            while line := text.readline(_LONGEST_LINE):
                number += 1
                _refuse_no_text(path, number, line)
                yield number, line
        except UnicodeError:
            raise _not_encoded(path, encoding, number) from None


def _refuse_no_text(path: Path, number: int, line: str) -> None:
    if "\0" in line:
        raise BadFileError(
            path,
            "it holds a zero byte: UTF-16 without its mark, or no text at all",
            "Save it as UTF-8 text.",
            line=number,
        )
    if len(line) == _LONGEST_LINE:
        raise BadFileError(path, "the line has no end", "Give one row a line.", line=number)


def _not_encoded(path: Path, encoding: str, last: int) -> BadFileError:
    """The error for a file of another encoding, with its first line that is wrong."""
    cure = "Save it as UTF-8, from Latin-1 say by: iconv -f latin1 -t utf-8 FILE."
    if encoding.startswith("utf-8"):
        with open_bytes(path) as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    problem = f"the byte 0x{line[error.start]:02x} is no UTF-8"
                    return BadFileError(path, problem, cure, line=number)
    return BadFileError(path, f"it is no {encoding.upper()} after line {last}", cure)


def brief(error: BaseException) -> str:
    """What a library says of a fault; some of them show all that they found."""
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def shown(text: str) -> str:
    """Quote what a file holds, in full where it is short."""
    return repr(text) if len(text) <= 40 else f"{text[:37]!r}..."


def format_suffix(path: Path) -> str:
    """The suffix that says the format: .csv of a.csv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
