"""Several problems that share their hyperparameters alone, as one: the sums of h_k and of g_k.

    h(x, λ) = Σ_k h_k(x_k, λ),   g(x, λ) = Σ_k g_k(x_k, λ),   x = (x_1, ..., x_K), flat

The Hessian is block diagonal, so all of it falls apart but λ. This is for folds whose features
differ, as behind a transformation that was fitted on each of them; folds that share their X are
cheaper as columns (:mod:`.cross_validation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._cached import cached_property
from ..backends import Array, Backend, Has, described, pending
from ..inner import (
    Bending,
    Inner,
    InnerConstants,
    Preconditioned,
    Remarking,
    Rounded,
    Rounding,
    Startable,
)
from ..linalg import Preconditioner, Proven
from ..linalg.rounding import gamma, unit_roundoff, upper_norm
from ..meter import EVALUATIONS, PASSES, Unit, unit_of
from ..outer import BendingOuter, Outer, OuterConstants, OuterPoint, OuterRounding, RoundedOuter
from ..problem import INNER, OUTER, Problem


@dataclass(frozen=True)
class Layout:
    """Where each x_k lies in x."""

    shapes: tuple[tuple[int, ...], ...]
    backend: Backend

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def split(self, x: Array) -> list[Array]:
        """The vector x, or directions (p, k), as parts of their own shapes."""
        parts, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            part = x[start:stop, ...]
            parts.append(self.backend.xp.reshape(part, (*shape, *x.shape[1:])))
            start = stop
        return parts

    def join(self, parts: Iterable[Array]) -> Array:
        """The way back."""
        xp = self.backend.xp
        flat = [
            xp.reshape(part, (math.prod(shape), *part.shape[len(shape) :]))
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return xp.concat(flat, axis=0)


def _total(parts: Iterable[Any]) -> Any:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _known_total(parts: Iterable[Array | None]) -> Array | None:
    """The sum, None where one of the parts is."""
    found = list(parts)
    known = [part for part in found if part is not None]
    return _total(known) if len(known) == len(found) else None


def _bound(numbers: Iterable[float | None], rule: Callable[[list[float]], float]) -> float | None:
    found = list(numbers)
    known = [number for number in found if number is not None]
    return rule(known) if len(known) == len(found) else None


def _root(numbers: list[float]) -> float:
    return math.hypot(*numbers)


_LAYOUT = Has("a Layout", "shapes", "backend", "split", "join")


def _unit(parts: Iterable[Any]) -> Unit:
    """Evaluations where they are among what is added up: that sum is no number of passes."""
    return EVALUATIONS if any(unit_of(part) == EVALUATIONS for part in parts) else PASSES


def _parts(parts: Any, rule: Has) -> tuple[Any, ...]:
    """The parts as a tuple; each has to be what the rule takes."""
    if not isinstance(parts, (list, tuple)):
        raise TypeError(f"parts must be a tuple, got {described(parts)}.")
    return tuple(rule(part, f"parts[{k}]") for k, part in enumerate(parts))


def _refuse_unlike(parts: Sequence[Inner], name: str) -> None:
    """Refuse none, and inner objectives that no common λ can be handed to."""
    if not parts:
        raise ValueError(f"{name} must hold one at least, got none.")
    first = parts[0]
    for k, part in enumerate(parts):
        pairs = (
            ("the backend", _place(first.backend), _place(part.backend)),
            ("the dtype", first.dtype, part.dtype),
            ("the number of hyperparameters", first.n_hyperparameters, part.n_hyperparameters),
        )
        for what, expected, found in pairs:
            if found != expected:
                raise ValueError(
                    f"{name}[{k}] must have {what} of {name}[0], {expected}, got {found}."
                )


def _place(backend: Backend) -> str:
    return f"{backend.name} ({backend.device})"


def _refuse_other_layout(
    layout: Layout, shapes: tuple[tuple[int, ...], ...], backend: Backend
) -> None:
    if layout.shapes != shapes or layout.backend != backend:
        raise ValueError(
            f"layout must be of shapes {shapes} on {_place(backend)} as the parts, got "
            f"{layout.shapes} on {_place(layout.backend)}."
        )


@dataclass(frozen=True)
class StackedInner:
    """Σ_k h_k(x_k, λ).

    Attributes
    ----------
    parts : tuple of Inner
        h_k: on one backend, of one dtype and number of hyperparameters.
    layout : Layout
        Of their x_k.

    Raises
    ------
    TypeError, ValueError
        If they are none, or differ.
    """

    parts: tuple[Inner, ...]
    layout: Layout

    def __post_init__(self) -> None:
        parts, layout = _parts(self.parts, INNER), _LAYOUT(self.layout, "layout")
        object.__setattr__(self, "parts", parts)
        _refuse_unlike(parts, "parts")
        _refuse_other_layout(layout, tuple(tuple(part.x_shape) for part in parts), parts[0].backend)

    @property
    def backend(self) -> Backend:
        return self.layout.backend

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.layout.size,)

    @property
    def n_hyperparameters(self) -> int:
        return self.parts[0].n_hyperparameters

    @property
    def passes(self) -> float:
        return sum(part.passes for part in self.parts)

    @property
    def column_passes(self) -> float:
        return sum(part.column_passes for part in self.parts)

    @property
    def unit(self) -> Unit:
        return _unit(self.parts)

    def start(self) -> Array:
        """Each part's own, zeros where it states none."""
        xp, layout = self.layout.backend.xp, self.layout
        return layout.join(
            part.start()
            if isinstance(part, Startable)
            else xp.zeros(part.x_shape, dtype=self.dtype, device=layout.backend.device)
            for part in self.parts
        )

    def remark(self, lam: Array) -> str | None:
        """That of the first part that has one."""
        found = (part.remark(lam) for part in self.parts if isinstance(part, Remarking))
        return next((sentence for sentence in found if sentence is not None), None)

    def constants(self, lam: Array) -> InnerConstants:
        """Of a block diagonal Hessian: the least μ, the largest of the others.

        The blocks of ∂²_{xλ} h stand on top of each other: their constants add in squares.
        """
        found = [part.constants(lam) for part in self.parts]
        return InnerConstants(
            mu=_bound((c.mu for c in found), min),
            smoothness=_bound((c.smoothness for c in found), max),
            hessian_lipschitz=_bound((c.hessian_lipschitz for c in found), max),
            cross_lipschitz=_bound((c.cross_lipschitz for c in found), _root),
            self_concordance=_bound((c.self_concordance for c in found), max),
        )

    def at(self, x: Array, lam: Array, carry: Any = None) -> StackedPoint:
        carries = (None,) * len(self.parts) if carry is None else carry
        split = zip(self.parts, self.layout.split(x), carries, strict=True)
        points = tuple(part.at(x_k, lam, carry_k) for part, x_k, carry_k in split)
        return StackedPoint(points, self.layout, x, lam)


@dataclass(frozen=True)
class StackedPoint:
    """The points of all parts at one λ."""

    points: tuple[Any, ...]
    layout: Layout
    x: Array
    lam: Array

    @property
    def carry(self) -> None:
        """None: a checkpoint keeps one array, and the parts have several."""
        return None

    @cached_property
    def value(self) -> Array:
        return _total(point.value for point in self.points)

    @cached_property
    def grad(self) -> Array:
        return self.layout.join(point.grad for point in self.points)

    def hvp(self, v: Array) -> Array:
        parts = zip(self.points, self.layout.split(v), strict=True)
        return self.layout.join(point.hvp(v_k) for point, v_k in parts)

    def cross_vjp(self, q: Array) -> Array:
        parts = zip(self.points, self.layout.split(q), strict=True)
        return _total(point.cross_vjp(q_k) for point, q_k in parts)

    def cross_jvp(self, d: Array) -> Array:
        return self.layout.join(point.cross_jvp(d) for point in self.points)

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        parts = zip(self.points, self.layout.split(q), self.layout.split(T), strict=True)
        return _known_total(p.bend(*v) if isinstance(p, Bending) else None for p, *v in parts)

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        parts = zip(self.points, self.layout.split(q), self.layout.split(T), strict=True)
        return _known_total(p.cross_bend(*v) if isinstance(p, Bending) else None for p, *v in parts)

    def fold(self, q: Array, D: Array) -> Array | None:
        parts = zip(self.points, self.layout.split(q), strict=True)
        return _known_total(p.fold(v, D) if isinstance(p, Bending) else None for p, v in parts)

    @property
    def cross_norm(self) -> Array | None:
        norms = [point.cross_norm for point in self.points]
        if any(norm is None for norm in norms):
            return None
        return self.layout.backend.xp.sqrt(_total(norm * norm for norm in norms))

    def diag(self) -> Array | None:
        xp = self.layout.backend.xp
        found = [point.diag() for point in self.points]
        if any(diag is None for diag in found):
            return None
        whole = zip(found, self.layout.shapes, strict=True)
        return self.layout.join(xp.broadcast_to(diag, shape) for diag, shape in whole)

    def preconditioner(self) -> Preconditioner | None:
        """Those of the parts, where all have one."""
        return self._preconditioner

    @cached_property
    def _preconditioner(self) -> Preconditioner | None:
        found = [p.preconditioner() for p in self.points if isinstance(p, Preconditioned)]
        applies = [apply for apply in found if apply is not None]
        if len(applies) < len(self.points):
            return None

        def apply(r: Array) -> Array:
            parts = zip(applies, self.layout.split(r), strict=True)
            return self.layout.join(apply_k(r_k) for apply_k, r_k in parts)

        return Proven(apply) if all(isinstance(a, Proven) for a in applies) else apply

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        """The roots of the sums of squares; ∂²_{xλ} h has the parts on top of each other."""
        scales: Sequence[Array | None] = [None] * len(self.points)
        if scale is not None:
            scales = self.layout.split(scale)
        split = zip(self.points, self.layout.split(vectors), scales, strict=True)
        found = [p.rounding(v, None, s) if isinstance(p, Rounded) else None for p, v, s in split]
        known = [part for part in found if part is not None]
        if len(known) < len(found):
            return None
        grad, products, cross = (
            _total(pending(number) * number for number in numbers).root()
            for numbers in zip(*((k.grad, k.products, k.cross) for k in known), strict=True)
        )
        return Rounding(grad, products, cross)

    def ray(self, d: Array) -> StackedRay:
        parts = zip(self.points, self.layout.split(d), strict=True)
        return StackedRay(self, d, tuple(point.ray(d_k) for point, d_k in parts))


@dataclass(frozen=True)
class StackedRay:
    """The rays of all parts, walked together."""

    start: StackedPoint
    d: Array
    rays: tuple[Any, ...]

    def at(self, t: float) -> StackedPoint:
        start = self.start
        points = tuple(ray.at(t) for ray in self.rays)
        return StackedPoint(points, start.layout, start.x + t * self.d, start.lam)

    def slope(self, point: Any) -> Array:
        parts = zip(self.rays, point.points, strict=True)
        return _total(pending(ray.slope(point_k)) for ray, point_k in parts)


@dataclass(frozen=True)
class StackedOuter:
    """Σ_k g_k(x_k, λ), each of the x_k of a layout.

    Raises
    ------
    TypeError, ValueError
        If a part is no criterion, or there are not as many as the layout has x_k.
    """

    parts: tuple[Outer, ...]
    layout: Layout

    def __post_init__(self) -> None:
        parts, layout = _parts(self.parts, OUTER), _LAYOUT(self.layout, "layout")
        object.__setattr__(self, "parts", parts)
        if len(parts) != len(layout.shapes):
            raise ValueError(
                f"parts must be {len(layout.shapes)}, one for each x_k of the layout, got "
                f"{len(parts)}."
            )

    @property
    def passes(self) -> float:
        return sum(part.passes for part in self.parts)

    @property
    def unit(self) -> Unit:
        return _unit(self.parts)

    def constants(self) -> OuterConstants:
        """Of a block diagonal ∂²_{xx} g, and of blocks of ∂²_{xλ} g on top of each other."""
        found = [part.constants() for part in self.parts]
        return OuterConstants(
            _bound((c.grad_x_lipschitz for c in found), max),
            _bound((c.grad_lam_lipschitz for c in found), _root),
            least=_bound((c.least for c in found), sum),
        )

    def at(self, x: Array, lam: Array) -> StackedOuterPoint:
        split = zip(self.parts, self.layout.split(x), strict=True)
        return StackedOuterPoint(tuple(part.at(x_k, lam) for part, x_k in split), self.layout)


@dataclass(frozen=True)
class StackedOuterPoint:
    """The criteria of all parts at one λ."""

    points: tuple[OuterPoint, ...]
    layout: Layout

    @cached_property
    def value(self) -> Array:
        return _total(point.value for point in self.points)

    @cached_property
    def grad_x(self) -> Array:
        return self.layout.join(point.grad_x for point in self.points)

    @cached_property
    def grad_lam(self) -> Array:
        return _total(point.grad_lam for point in self.points)

    def gram(self, T: Array) -> Array | None:
        parts = zip(self.points, self.layout.split(T), strict=True)
        return _known_total(p.gram(v) if isinstance(p, BendingOuter) else None for p, v in parts)

    def cross_gram(self, T: Array) -> Array | None:
        parts = zip(self.points, self.layout.split(T), strict=True)
        return _known_total(
            p.cross_gram(v) if isinstance(p, BendingOuter) else None for p, v in parts
        )

    def fold(self, D: Array) -> Array | None:
        return _known_total(p.fold(D) if isinstance(p, BendingOuter) else None for p in self.points)

    def rounding(self, scale: Array | None = None) -> OuterRounding | None:
        """The sums of the parts, and those of their own sums."""
        scales: Sequence[Array | None] = [None] * len(self.points)
        if scale is not None:
            scales = self.layout.split(scale)
        parts = zip(self.points, scales, strict=True)
        found = [p.rounding(s) if isinstance(p, RoundedOuter) else None for p, s in parts]
        known = [part for part in found if part is not None]
        if len(known) < len(found):
            return None
        unit = unit_roundoff(self.value.dtype, self.layout.backend)
        sizes = (
            _total(abs(pending(point.value)) for point in self.points),
            _total(upper_norm(point.grad_lam, self.layout.backend) for point in self.points),
        )
        value, direct = (2 * gamma(len(known), unit) * size for size in sizes)
        return OuterRounding(
            value + _total(pending(k.value) for k in known),
            _total(pending(k.grad_x) for k in known),
            direct + _total(pending(k.grad_lam) for k in known),
        )


def stacked(problems: Sequence[Problem]) -> Problem:
    """Make one problem of several that have the same hyperparameters.

    Parameters
    ----------
    problems : sequence of Problem
        On one backend, of one dtype and number of hyperparameters; the domain is the first's.

    Returns
    -------
    Problem
        x is flat: the x of the problems, one after the other.

    Raises
    ------
    ValueError
        If there is none, or they differ in backend, dtype or number of hyperparameters.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X, y = np.array([[1.0], [2.0], [-1.0], [0.5]]), np.array([1.0, -1.0, -1.0, 1.0])
    >>> fold = bilevel.logistic_regression(X, y, X, y)
    >>> problem = stacked([fold, fold])
    >>> problem.inner.x_shape
    (2,)
    """
    if not isinstance(problems, (list, tuple)):
        raise TypeError(f"problems must be a list of problems, got {described(problems)}.")
    for k, problem in enumerate(problems):
        if not isinstance(problem, Problem):
            raise TypeError(f"problems[{k}] must be a Problem, got {described(problem)}.")
    _refuse_unlike([problem.inner for problem in problems], "problems")
    first = problems[0]
    layout = Layout(tuple(tuple(p.inner.x_shape) for p in problems), first.backend)
    inner = StackedInner(tuple(p.inner for p in problems), layout)
    return Problem(inner, StackedOuter(tuple(p.outer for p in problems), layout), first.domain)
