"""Products asked for by several searches at once, served as the columns of one product.

A :class:`Shared` design hands each product to a function that may wait until others have asked,
too; :func:`serve` then makes one product of all that they ask of the same matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from .._ours import is_ours
from ..backends import Array, HostIndex
from ..design import Design, Wrapper
from ..meter import Passes


@dataclass(frozen=True)
class Product:
    """A product that is wanted: ``getattr(design, name)(operand)``.

    Attributes
    ----------
    design : Design
        X.
    name : str
        ``"matmul"`` or ``"rmatmul"``, ``"gram_diag"`` or ``"square_matmul"``.
    operand : array, shape (p,) or (p, k), or with n in place of p
        What X or its transpose is multiplied with.
    """

    design: Design
    name: str
    operand: Array

    @property
    def kind(self) -> tuple[int, str]:
        """What products must have in common to be served as one."""
        return id(self.design), self.name

    @property
    def width(self) -> int:
        """Its columns."""
        return 1 if self.operand.ndim == 1 else int(self.operand.shape[1])

    def __call__(self, operand: Array) -> Array:
        product: Callable[[Array], Array] = getattr(self.design, self.name)
        return product(operand)


def serve(wanted: Sequence[Product]) -> list[Array]:
    """Answer products of one kind by as few passes as the columns of all of them take.

    Columns are laid side by side and served in pieces of at most ``columns_per_pass``, for
    beyond that a wider product costs as much as two. A product that is wider by itself is served
    alone, as it would be without company: sharing never makes more passes than not sharing.

    Parameters
    ----------
    wanted : sequence of Product
        All of the same kind.

    Returns
    -------
    list of array
        An answer for each, in their order.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = bilevel.as_design(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> serve([Product(X, "matmul", np.array([1.0, 0.0])), Product(X, "matmul", np.eye(2))])
    [array([1., 3.]), array([[1., 2.],
           [3., 4.]])]
    >>> X.passes.total
    1
    """
    design = wanted[0].design
    most = design.columns_per_pass
    together = [k for k, product in enumerate(wanted) if product.width < most]
    if len(together) < 2:
        return [product(product.operand) for product in wanted]
    answers: list[Any] = [
        None if k in together else product(product.operand) for k, product in enumerate(wanted)
    ]
    for k, answer in zip(together, _joined([wanted[k] for k in together], most), strict=True):
        answers[k] = answer
    return answers


def _joined(wanted: Sequence[Product], most: int) -> list[Array]:
    product, xp = wanted[0], wanted[0].design.backend.xp
    columns = [w.operand[:, None] if w.operand.ndim == 1 else w.operand for w in wanted]
    block = xp.concat(columns, axis=1)
    width = int(block.shape[1])
    step = math.ceil(width / math.ceil(width / most))  # pieces of about one size
    edges = [*range(0, width, step), width]
    whole = xp.concat([product(block[:, a:b]) for a, b in itertools.pairwise(edges)], axis=1)
    answers, start = [], 0
    for w in wanted:
        part = whole[:, start] if w.operand.ndim == 1 else whole[:, start : start + w.width]
        # A copy of its own: who asked may overwrite it, and computes on as it would alone.
        answers.append(xp.asarray(part, copy=True))
        start += w.width
    return answers


@dataclass(frozen=True)
class Shared(Wrapper):
    """A design whose products are answered by a function, which may join them with others.

    Attributes
    ----------
    base : Design
        X.
    ask : callable
        Answers a :class:`Product` of ``base``.
    passes : Passes
        What is asked through this object: the passes that it would have cost alone.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = Shared(bilevel.as_design(np.eye(2)), lambda product: serve([product])[0])
    >>> X.matmul(np.ones(2)), X.passes.total, X.base.passes.total
    (array([1., 1.]), 1, 1)
    """

    ask: Callable[[Product], Array]
    passes: Passes = field(default_factory=Passes)

    def matmul(self, v: Array) -> Array:
        with self.passes.counting(forward=v):
            return self.ask(Product(self.base, "matmul", v))

    def rmatmul(self, r: Array) -> Array:
        with self.passes.counting(backward=r):
            return self.ask(Product(self.base, "rmatmul", r))

    def gram_diag(self, d: Array, centre: Array | None = None) -> Array:
        """Centred it is not shared."""
        with self.passes.counting(backward=d):
            if centre is None:
                return self.ask(Product(self.base, "gram_diag", d))
            return self.base.gram_diag(d, centre)

    def square_matmul(self, v: Array, centre: Array | None = None) -> Array:
        """Centred it is not shared."""
        with self.passes.counting(forward=v):
            if centre is None:
                return self.ask(Product(self.base, "square_matmul", v))
            return self.base.square_matmul(v, centre)

    def rows(self, index: HostIndex) -> Design:
        """Rows of the base, which are not shared."""
        return self.base.rows(index)


def map_designs(value: Any, change: Callable[[Design], Design]) -> Any:
    """Change every design that a dataclass holds, at any depth of dataclasses and tuples.

    What an object has computed and kept goes along: the changed design is to hold the same matrix.
    Dataclasses of other packages are left as they are: what they do around a product is their
    own, and it may not bear to wait there (see :mod:`bilevel._cached`).

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> h = bilevel.inner.linear_model(np.eye(2), np.ones(2), bilevel.losses.Squared())
    >>> map_designs(h, bilevel.design.recounted).design is h.design
    False
    >>> map_designs(h, lambda design: design) is h
    True
    """
    if isinstance(value, Design):
        return change(value)
    if isinstance(value, tuple):
        parts = tuple(map_designs(part, change) for part in value)
        same = all(new is old for new, old in zip(parts, value, strict=True))
        return value if same else parts
    if not is_dataclass(value) or isinstance(value, type) or not is_ours(value):
        return value
    names, changed = [f.name for f in fields(value)], {}
    for name in names:
        old = getattr(value, name)
        new = map_designs(old, change)
        if new is not old:
            changed[name] = new
    if not changed:
        return value
    copy = replace(value, **changed)
    copy.__dict__.update({name: kept for name, kept in vars(value).items() if name not in names})
    return copy
