"""The group of commands."""

from __future__ import annotations

import click

import bilevel

from ._info import datasets, info
from ._tune import tune


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the solve failed, 2 bad input, 130 interrupted.",
)
@click.version_option(bilevel.__version__, prog_name="bilevel")
def app() -> None:
    """Tune the hyperparameters of a model by the gradient of its validation loss."""


for command in (tune, datasets, info):
    app.add_command(command)
