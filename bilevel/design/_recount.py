"""The same matrix with a counter of its own, for a second use that is accounted apart."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from ..backends import Array, HostIndex
from ..meter import Passes, SharedPasses
from ._protocol import Design


def recounted(design: Design, passes: Passes | None = None) -> Design:
    """Return a view of a design whose passes are counted apart; no data are copied.

    ``passes`` is the counter, a new one when omitted.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = bilevel.as_design(np.eye(2))
    >>> recounted(X).matmul(np.ones(2)), X.passes.total
    (array([1., 1.]), 0)
    """
    own: Any = design
    held = {f.name for f in fields(own)} if is_dataclass(own) else set(vars(own))
    changed: dict[str, Any] = {}
    if "passes" in held:
        changed = {"passes": Passes() if passes is None else passes}
    elif "base" in held:
        changed = {"base": recounted(own.base, passes)}
    else:
        raise TypeError(
            f"A {type(design).__name__} keeps neither a counter, as an attribute `passes`, nor a "
            "base design."
        )
    if is_dataclass(own):
        made: Design = replace(own, **changed)  # type: ignore[type-var,assignment]
        return made
    view: Any = object.__new__(type(own))  # as copy does, but for what a __getattr__ may answer
    vars(view).update(vars(own) | changed)
    found: Design = view
    return found


def part_of(design: Design, index: HostIndex) -> Design:
    """Return these rows of a design, whose products count as their share of a pass over it.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = bilevel.as_design(np.eye(2))
    >>> part_of(X, np.array([1])).matmul(np.ones(2)), X.passes.total
    (array([1.]), 0.5)
    """
    share = len(index) / design.shape[0]
    return recounted(design.rows(index), SharedPasses(design.passes, share, *_others(design)))


def _others(design: Any) -> tuple[Passes, ...]:
    """Counters below the one that a design shows: where it has one of its own beside its base's."""
    below: tuple[Passes, ...] = ()
    while hasattr(design, "base"):
        if design.base.passes is not design.passes:
            below = (*below, design.base.passes)
        design = design.base
    return below


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
