"""``bilevel info`` and ``bilevel datasets``: what is here."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import click
from rich.console import Console
from rich.table import Table as Grid

import bilevel
from bilevel import datasets as registry
from bilevel.backends import backend_names

from ._console import open_console, was_printed

#: What a report and ``bilevel info`` state the versions of, where it is installed.
_PACKAGES = (
    "array-api-compat",
    "numpy",
    "scipy",
    "scikit-learn",
    "sparse_dot_mkl",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "jax",
    "dpnp",
    "matplotlib",
)


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the libraries that are installed."""
    found = {"bilevel": bilevel.__version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return found


@click.command()
def info() -> None:
    """List the backends and whether each is usable here, and the versions."""
    console = open_console()
    grid = Grid("backend", "usable", "what it is, or what to do", box=None, pad_edge=False)
    for name in backend_names():
        try:
            grid.add_row(name, "yes", bilevel.get_backend(name).describe())
        except bilevel.BackendUnavailableError as error:
            grid.add_row(name, "no", str(error))
    console.print(grid)
    console.print()
    for name, version in versions().items():
        console.print(f"{name}: {version}", soft_wrap=True)
    _end(console)


@click.command()
def datasets() -> None:
    """List the data sets that `bilevel tune` knows by name."""
    console = open_console()
    folder = registry.data_folder()
    grid = Grid("name", "what it is", "rows × features", "here", box=None, pad_edge=False)
    for entry in registry.REGISTRY.values():
        if not entry.files:
            where = "bundled with scikit-learn"
        else:
            found = entry.found(folder)
            where = str(found) if found else "no"
        grid.add_row(entry.name, entry.description, entry.size, where)
    console.print(grid)
    console.print()
    console.print(
        f"Files are looked for in {folder} (BILEVEL_DATA)."
        if folder
        else "Set BILEVEL_DATA to a folder to keep the files of the sets there.",
        soft_wrap=True,
    )
    _end(console)


def _end(console: Console) -> None:
    if not was_printed(console):
        click.get_current_context().exit(1)
