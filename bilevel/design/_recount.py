"""The same matrix with a counter of its own, for a second use that is accounted apart."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, is_dataclass, replace

from ..backends import Array
from ..meter import Passes
from ._protocol import Design


def recounted(design: Design) -> Design:
    """Return a view of a design whose passes are counted apart; no data are copied.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = bilevel.as_design(np.eye(2))
    >>> recounted(X).matmul(np.ones(2)), X.passes.total
    (array([1., 1.]), 0)
    """
    held = {f.name for f in fields(design)} if is_dataclass(design) else set(vars(design))
    changed = {"passes": Passes()} if "passes" in held else {}
    if not changed and "base" in held:
        changed = {"base": recounted(design.base)}  # type: ignore[attr-defined]
    if not changed:
        raise TypeError(
            f"A {type(design).__name__} keeps neither a counter, as an attribute `passes`, nor a "
            "base design."
        )
    if is_dataclass(design) and not isinstance(design, type):
        return replace(design, **changed)
    view = copy(design)
    vars(view).update(changed)
    return view


def row_square_norms(design: Design) -> Array:
    """‖a_i‖² of the rows, shape (n,), off the counter: they belong to the data.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = bilevel.as_design(np.array([[3.0, 4.0]]))
    >>> row_square_norms(X), X.passes.total
    (array([25.]), 0)
    """
    ones = design.backend.xp.ones(design.shape[1], dtype=design.dtype, device=design.backend.device)
    return recounted(design).square_matmul(ones)
