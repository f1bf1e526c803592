"""What the members of parts from outside answer: asked once, where a run starts, for their shapes.

An array of another shape would be broadcast by what it is added to, and the run would end somewhere
else without a word. The numbers are not looked at: :func:`bilevel.testing.check_problem` does that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from .backends import (
    BOUND,
    NOT_NEGATIVE,
    Array,
    Backend,
    Has,
    Maybe,
    Pending,
    described,
    function,
    get_backend,
    is_array,
    is_sparse,
    same_backend,
)
from .inner import Preconditioned, Remarking, Rounded, Rounding
from .losses import Accounted
from .meter import EVALUATIONS, PASSES
from .outer import Curved, OuterRounding, RoundedOuter

Shape = tuple[int, ...]


def refuse_other_array(found: Any, where: str, shape: Shape, backend: Backend, dtype: Any) -> None:
    """Refuse what is no dense array of this shape, dtype and backend.

    Raises
    ------
    TypeError, ValueError
        The message says what it is and what it should be.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> numpy = bilevel.get_backend("numpy")
    >>> refuse_other_array(np.ones(1), "point.grad", (5,), numpy, np.dtype(float))
    Traceback (most recent call last):
    ValueError: point.grad must be of shape (5,) and dtype float64, got (1,) and float64.
    """
    if is_sparse(found) or not is_array(found):
        cause = ": make it a property" if inspect.ismethod(found) else ""
        raise TypeError(
            f"{where} must be an array of shape {shape}, got {described(found)}{cause}."
        )
    same_backend(backend, get_backend(found), "the problem", where)
    if tuple(found.shape) != shape or found.dtype != dtype:
        raise ValueError(
            f"{where} must be of shape {shape} and dtype {dtype}, got "
            f"{tuple(found.shape)} and {found.dtype}."
        )


@dataclass(frozen=True)
class Answers:
    """What is expected of the members of one part.

    Attributes
    ----------
    where : str
        How the part is called.
    backend, dtype
        Of its arrays.
    """

    where: str
    backend: Backend
    dtype: Any

    def found(self, member: str, ask: Callable[[], Any]) -> Any:
        """What a member answers; an error of its own says where it was asked."""
        try:
            return ask()
        except Exception as error:
            error.add_note(f"{self.where}.{member} was asked where the run starts.")
            raise

    def array(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """A member that returns an array; one that is not implemented is not asked."""
        try:
            found = self.found(member, ask)
        except NotImplementedError:
            return
        refuse_other_array(found, f"{self.where}.{member}", shape, self.backend, self.dtype)

    def maybe(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """The same of one that may know nothing."""
        found = self.found(member, ask)
        if found is not None:
            self.array(member, lambda: found, shape)

    def spread(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """The same of one that broadcasts to a shape, with as many axes."""
        found = self.found(member, ask)
        if found is None:
            return
        own = tuple(getattr(found, "shape", ()))
        fits = len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True))
        self.array(member, lambda: found, own if fits else shape)

    def bounds(self, member: str, ask: Callable[[], Any], kind: type, **shapes: Shape) -> None:
        """The bounds of rounding: None, or an object of numbers and arrays."""
        found = self.found(member, ask)
        if found is None:
            return
        if not isinstance(found, kind):
            raise TypeError(
                f"{self.where}.{member} must be a {kind.__name__} or None, got {described(found)}."
            )
        for name, shape in shapes.items():
            bound = getattr(found, name)
            if isinstance(bound, Pending):
                if bound.shape != shape:
                    raise ValueError(
                        f"{self.where}.{member}.{name} must be of shape {shape}, got {bound.shape}."
                    )
            elif shape or not isinstance(bound, Real):
                self.array(f"{member}.{name}", lambda bound=bound: bound, shape)  # type: ignore[misc]


@dataclass(frozen=True)
class Directions:
    """Ones, of the shapes that members take: zeros may be a special case."""

    v: Array
    several: Array
    d: Array

    @classmethod
    def of(cls, x: Array, lam: Array, backend: Backend) -> Directions:
        xp = backend.xp
        several = xp.ones((*x.shape, 2), dtype=x.dtype, device=backend.device)
        return cls(xp.ones_like(x), several, xp.ones_like(lam))


def refuse_other_term(answers: Answers, term: Any, x: Array, lam: Array) -> None:
    """Refuse a point of h or a term of a penalty whose members answer with other shapes."""
    shape, m = tuple(x.shape), tuple(lam.shape)
    give = Directions.of(x, lam, answers.backend)
    answers.array("value", lambda: term.value, ())
    answers.array("grad", lambda: term.grad, shape)
    answers.array("hvp(v)", lambda: term.hvp(give.v), shape)
    answers.array("hvp(V)", lambda: term.hvp(give.several), (*shape, 2))
    answers.array("cross_vjp(q)", lambda: term.cross_vjp(give.v), m)
    answers.array("cross_vjp(Q)", lambda: term.cross_vjp(give.several), (*m, 2))
    answers.array("cross_jvp(d)", lambda: term.cross_jvp(give.d), shape)
    answers.maybe("cross_norm", lambda: term.cross_norm, ())
    answers.spread("diag()", lambda: term.diag(), shape)
    if isinstance(term, Rounded):
        wanted: dict[str, Shape] = {"grad": (), "products": (2,), "cross": ()}
        answers.bounds("rounding(V)", lambda: term.rounding(give.several), Rounding, **wanted)


def refuse_other_point(answers: Answers, point: Any, x: Array, lam: Array) -> None:
    """The same of a point of h, which has a ray, and perhaps a preconditioner."""
    refuse_other_term(answers, point, x, lam)
    v = answers.backend.xp.ones_like(x)
    ray = answers.found("ray(d)", lambda: point.ray(v))
    Has("a half-line (bilevel.inner.Ray)", "at", "slope")(ray, f"{answers.where}.ray(d)")
    if isinstance(point, Preconditioned):
        inverse = answers.found("preconditioner()", lambda: point.preconditioner())
        if inverse is not None:
            name = "preconditioner()"
            function(inverse, f"{answers.where}.{name}")
            answers.array(f"{name}(r)", lambda: inverse(v), tuple(x.shape))


def refuse_other_criterion(answers: Answers, point: Any, x: Array, lam: Array) -> None:
    """The same of a point of g."""
    shape = tuple(x.shape)
    several = Directions.of(x, lam, answers.backend).several
    answers.array("value", lambda: point.value, ())
    answers.array("grad_x", lambda: point.grad_x, shape)
    answers.array("grad_lam", lambda: point.grad_lam, tuple(lam.shape))
    if isinstance(point, Curved):
        answers.array("hvp(V)", lambda: point.hvp(several), (*shape, 2))
        answers.maybe("top()", lambda: point.top(), ())
    if isinstance(point, RoundedOuter):
        wanted: dict[str, Shape] = {"value": (), "grad_x": (), "grad_lam": ()}
        answers.bounds("rounding()", lambda: point.rounding(), OuterRounding, **wanted)


def refuse_other_loss(answers: Answers, loss: Any, y: Array, shape: Shape) -> None:
    """Refuse a loss whose functions answer with other shapes than predictions have: no pass."""
    where, backend = answers.where, answers.backend
    for name in ("curvature_bound", "third_bound", "self_concordance"):
        Maybe(BOUND)(getattr(loss, name), f"{where}.{name}")
    BOUND(loss.curvature_lower, f"{where}.curvature_lower")
    xp = backend.xp
    t, several = (
        xp.zeros(axes, dtype=answers.dtype, device=backend.device) for axes in (shape, (*shape, 2))
    )
    rows = (shape[0], *(1 for _ in loss.output_shape), *shape[1 + len(loss.output_shape) :])
    answers.array("value(y, t)", lambda: loss.value(y, t, backend), rows)
    answers.array("derivative(y, t)", lambda: loss.derivative(y, t, backend), shape)
    curvature = answers.found("curvature(y, t)", lambda: loss.curvature(y, t, backend))
    for d, name in ((t, "d"), (several, "D")):
        answers.array(
            f"curvature_product(curvature, {name})",
            lambda d=d: loss.curvature_product(curvature, d, backend),  # type: ignore[misc]
            tuple(d.shape),
        )
    answers.spread("curvature_diag", lambda: loss.curvature_diag(curvature, backend), shape)
    if isinstance(loss, Accounted):
        pair = answers.found("rounding(y, t)", lambda: loss.rounding(y, t, backend))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"{where}.rounding(y, t) must be bounds of the errors of value and derivative, two "
                f"arrays, got {described(pair)}: leave it out where none is known."
            )
        for name, bound, of in zip(("value", "derivative"), pair, (rows, shape), strict=True):
            answers.array(f"rounding(y, t) of the {name}", lambda bound=bound: bound, of)  # type: ignore[misc]


def refuse_other_curvature(answers: Answers, loss: Any, y: Array, shape: Shape) -> None:
    """Refuse a loss of the model that bends down where predictions are zero: it is not convex."""
    backend = answers.backend
    t = backend.xp.zeros(shape, dtype=answers.dtype, device=backend.device)
    found = loss.curvature_diag(loss.curvature(y, t, backend), backend)
    (least,) = backend.scalars(backend.xp.min(found))
    if least < 0:
        raise ValueError(
            f"{answers.where} must be convex, got a curvature of {least:.3g} where predictions "
            "are zero."
        )


def refuse_other_counters(part: Any, where: str, names: Iterable[str]) -> None:
    """Refuse counters that are no numbers, and a unit that nobody knows."""
    for name in names:
        NOT_NEGATIVE(getattr(part, name), f"{where}.{name}")
    unit = getattr(part, "unit", PASSES)
    if unit not in (PASSES, EVALUATIONS):
        raise ValueError(
            f"{where}.unit must be {PASSES!r} or {EVALUATIONS!r}, got {described(unit)}."
        )


def refuse_other_sentence(inner: Any, lam: Array) -> None:
    """Refuse a ``remark`` that is none."""
    if isinstance(inner, Remarking):
        function(inner.remark, "problem.inner.remark")
        found: Any = inner.remark(lam)
        if not (found is None or isinstance(found, str)):
            raise TypeError(
                f"problem.inner.remark(lam) must be a sentence or None, got {described(found)}."
            )


def without_carry(inner: Any) -> str | None:
    """What is wrong with an ``at`` that does not take the ``carry`` of another point.

    Examples
    --------
    >>> class Short:
    ...     def at(self, x, lam): ...
    >>> without_carry(Short())
    'at must take (x, lam, carry=None), got at(x, lam)'
    """
    try:
        signature = inspect.signature(inner.at)
    except (TypeError, ValueError):  # not written in Python
        return None
    for arguments in ((None, None), (None, None, None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            return f"at must take (x, lam, carry=None), got at{signature}"
    return None


def is_number(value: Any) -> bool:
    """Whether a method may state this as a number: of Python, or an array that holds one."""
    if type(value) is float:  # nearly always, and what the others ask takes a while
        return True
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real or (is_array(value) and tuple(value.shape) == ())
