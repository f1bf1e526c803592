"""How Sphinx builds the documentation."""

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import bilevel

project = "bilevel"
author = "The bilevel developers"
copyright = author  # noqa: A001
release = version = bilevel.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = "bilevel"


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(convert(node.astext()))
    raise SkipNode


def _display(translator: Any, node: Any) -> None:
    translator.body.append(f"<p>{convert(node.astext(), display='block')}</p>")
    raise SkipNode


def _bars(*arguments: Any) -> None:
    """Take the bars of |a - b| in a docstring for what they are, and not for a substitution."""
    lines: list[str] = arguments[-1]
    code = ("``", ">>>", "...")
    lines[:] = [
        line if any(mark in line for mark in code) else line.replace("|", r"\|") for line in lines
    ]


def setup(app: Sphinx) -> None:
    """Write formulas as MathML: every browser shows them, without a script from elsewhere."""
    app.connect("autodoc-process-docstring", _bars, priority=1)
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
