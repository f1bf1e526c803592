"""One entry for all formats: the suffix chooses the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from ._files import check_file, format_suffix, memory, told
from ._table import BadFileError, Dataset, checked
from .csv import read_csv
from .libsvm import read_libsvm
from .npz import read_npz


class Format(Enum):
    """The formats that :func:`read` knows."""

    LIBSVM = "libsvm"
    NPZ = "npz"
    CSV = "csv"


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say of itself.

    Attributes
    ----------
    format : Format or None
        None: by the suffix, that before .gz, .bz2 or .xz; one that is not .npz, .csv or .tsv means
        LIBSVM.
    label : str or None
        CSV: name or number (from 0) of the label's column. None: the column called y, label,
        target or class, else the last one.
    header : bool or None
        CSV: whether the first line holds the names of the columns. None: it does where none of
        them is a number; what is not plain is refused.
    features : int or None
        LIBSVM: the number of features, where the file may stop short of the last one.
    zero_based : bool
        LIBSVM: feature numbers start at 0, not at 1.
    """

    format: Format | None = None
    label: str | None = None
    header: bool | None = None
    features: int | None = None
    zero_based: bool = False

    def given(self) -> dict[str, Format]:
        """Return the options that say something, and the one format that each is of."""
        return {
            field.name: _FORMAT_OF[field.name]
            for field in fields(self)
            if field.name in _FORMAT_OF and getattr(self, field.name) != field.default
        }

    def only(self, kind: Format) -> ReadOptions:
        """Return those of a format."""
        others = [name for name, of in self.given().items() if of is not kind]
        defaults = {field.name: field.default for field in fields(self) if field.name in others}
        return replace(self, **defaults)  # type: ignore[arg-type]


_FORMAT_OF = MappingProxyType(
    {
        "label": Format.CSV,
        "header": Format.CSV,
        "features": Format.LIBSVM,
        "zero_based": Format.LIBSVM,
    }
)


_SUFFIXES = MappingProxyType({".npz": Format.NPZ, ".csv": Format.CSV, ".tsv": Format.CSV})

_READERS: Mapping[Format, Callable[[Path, ReadOptions], Dataset]] = MappingProxyType(
    {
        Format.LIBSVM: lambda path, o: Dataset(
            read_libsvm(path, n_features=o.features, zero_based=o.zero_based)
        ),
        Format.NPZ: lambda path, o: read_npz(path),
        Format.CSV: lambda path, o: Dataset(read_csv(path, label=o.label, header=o.header)),
    }
)


def format_of(path: str | Path, options: ReadOptions) -> Format:
    """Return the format that a file is read as.

    Examples
    --------
    >>> format_of("a.csv.gz", ReadOptions())
    <Format.CSV: 'csv'>
    """
    return options.format or _SUFFIXES.get(format_suffix(Path(path)), Format.LIBSVM)


def read(path: str | Path, options: ReadOptions | None = None) -> Dataset:
    """Read a file of features and labels.

    Parameters
    ----------
    path : str or Path
        A LIBSVM file, a .npz archive, or a .csv or .tsv file; each also as .gz, .bz2 or .xz.
    options : ReadOptions, optional
        What the file does not say of itself.

    Returns
    -------
    Dataset
        Its rows; an .npz archive may hold held-out and test rows too.

    Raises
    ------
    BadFileError
        If the file is missing or unusable, or an option is of another format; the message names
        the file, the line where there is one, and the cure.
    """
    path, options = Path(path), options or ReadOptions()
    check_file(path)
    kind = format_of(path, options)
    for name, of in options.given().items():
        if of is not kind:
            raise BadFileError(
                path,
                f"it is read as {kind.value}, but {name} is an option of {of.value}",
                "Leave it out, or state the format.",
            )
    with told(path):
        found = _READERS[kind](path, options)
        for part in (found.train, found.val, found.test):
            if part is not None:
                checked(part, memory())
    return found
