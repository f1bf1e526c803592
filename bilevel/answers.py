"""What the members of parts from outside answer: asked once, where a run starts, for their shapes.

An array of another shape would be broadcast by what it is added to, and the run would end somewhere
else without a word. The numbers are not looked at: :func:`bilevel.testing.check_problem` does that.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from ._untouched import Untouched
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
    refuse_matrix_classes,
    same_backend,
)
from .inner import Preconditioned, Remarking, Rounded, Rounding
from .losses import Accounted, Pointwise
from .meter import EVALUATIONS, PASSES, uncounted
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
    refuse_matrix_classes(found, where)
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
    untouched: Untouched = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "untouched", Untouched(self.backend, self.dtype))

    def lend(self, name: str, array: Array) -> Array:
        """A copy of an array for a part to read: see :meth:`refuse_touched`."""
        return self.untouched.lend(name, array)

    def found(self, member: str, ask: Callable[[], Any]) -> Any:
        """What a member answers; an error of its own says where it was asked."""
        try:
            found = ask()
        except Exception as error:
            error.add_note(f"{self.where}.{member} was asked where the run starts.")
            if isinstance(error, StopIteration):  # a generator would tell it as one of its own
                raised = f"{self.where}.{member} raised StopIteration: an iterator has run out."
                raise RuntimeError(raised) from error
            raise
        self.untouched.called(member)
        return found

    def refuse_touched(self) -> None:
        """Refuse members that wrote into what they were lent, or into what they had returned.

        Raises
        ------
        ValueError
            The message names the first.
        """
        for member, fault in self.untouched.faults():
            raise ValueError(f"{self.where}.{member} {fault}")

    def array(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """A member that returns an array; one that is not implemented is not asked."""
        try:
            found = self.found(member, ask)
        except NotImplementedError:
            return
        self.held(member, found, shape)

    def held(self, member: str, found: Any, shape: Shape) -> None:
        """An array that was found: remembered, since later calls have to leave it as it is."""
        refuse_other_array(found, f"{self.where}.{member}", shape, self.backend, self.dtype)
        self.untouched.keep(member, found)

    def maybe(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """The same of one that may know nothing."""
        found = self.found(member, ask)
        if found is not None:
            self.held(member, found, shape)

    def spread(self, member: str, ask: Callable[[], Any], shape: Shape) -> None:
        """The same of one that broadcasts to a shape, with as many axes."""
        found = self.found(member, ask)
        if found is None:
            return
        own = tuple(getattr(found, "shape", ()))
        fits = len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True))
        self.held(member, found, own if fits else shape)

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
                self.held(f"{member}.{name}", bound, shape)


@dataclass(frozen=True)
class Place:
    """Where members are asked, and the directions that they are given: all lent to the part."""

    x: Array
    lam: Array
    v: Array
    several: Array
    d: Array

    @classmethod
    def lent(cls, answers: Answers, **arrays: Array) -> Place:
        return cls(**{name: answers.lend(_CALLED[name], array) for name, array in arrays.items()})


#: What the arrays of a place are called in a sentence.
_CALLED = {"x": "x", "lam": "λ", "v": "its direction", "several": "its directions"}
_CALLED["d"] = "its direction of λ"


def places(
    answers: Answers, x: Array, lam: Array, project: Callable[[Array], Array]
) -> Iterator[Place]:
    """Two places, of other numbers: what a member fills anew at the second it changes of the first.

    Ones are the directions at the first, since zeros may be a special case.
    """
    xp, backend = answers.backend.xp, answers.backend
    v, d = xp.ones_like(x), xp.ones_like(lam)
    given = {"x": x, "lam": lam, "v": v, "several": columns_of(v, 2, backend), "d": d}
    yield Place.lent(answers, **given)
    other = {name: beside(array, backend) for name, array in given.items()}
    yield Place.lent(answers, **other | {"lam": project(other["lam"])})


def columns_of(v: Array, k: int, backend: Backend) -> Array:
    """An array of k columns, each of them v."""
    return backend.xp.stack([v] * k, axis=-1)


def beside(array: Array, backend: Backend) -> Array:
    """An array of other numbers, of both signs where they were zeros."""
    xp, size = backend.xp, math.prod(array.shape)
    count = xp.arange(1, size + 1, dtype=array.dtype, device=backend.device)
    return array + xp.reshape(xp.cos(12.9898 * count), tuple(array.shape)) / 4


def refuse_other_term(answers: Answers, term: Any, give: Place) -> None:
    """Refuse a point of h or a term of a penalty whose members answer with other shapes."""
    shape, m = tuple(give.x.shape), tuple(give.lam.shape)
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
        _refuse_other_signature(answers, term.rounding, "rounding", _ROUNDING, (1, 2, 3))
        answers.bounds("rounding(V)", lambda: term.rounding(give.several), Rounding, **wanted)
        name = "rounding(V, None, scale)"
        answers.bounds(name, lambda: term.rounding(give.several, None, give.v), Rounding, **wanted)


def refuse_other_point(answers: Answers, point: Any, give: Place) -> None:
    """The same of a point of h, which has a ray, and perhaps a preconditioner."""
    refuse_other_term(answers, point, give)
    shape, v = tuple(give.x.shape), give.v
    answers.untouched.keep("carry", answers.found("carry", lambda: point.carry))
    ray = answers.found("ray(d)", lambda: point.ray(v))
    Has("a half-line (bilevel.inner.Ray)", "at", "slope")(ray, f"{answers.where}.ray(d)")
    if isinstance(point, Preconditioned):
        inverse = answers.found("preconditioner()", lambda: point.preconditioner())
        if inverse is not None:
            name = "preconditioner()"
            function(inverse, f"{answers.where}.{name}")
            answers.array(f"{name}(r)", lambda: inverse(v), shape)
            # So many columns as x has no entries: else it may be the other axis that is broadcast.
            k = 3 if shape[-1] == 2 else 2
            several = answers.lend("its columns", columns_of(v, k, answers.backend))
            answers.array(f"{name}(R)", lambda: inverse(several), (*shape, k))


def refuse_other_criterion(answers: Answers, point: Any, give: Place) -> None:
    """The same of a point of g."""
    shape = tuple(give.x.shape)
    answers.array("value", lambda: point.value, ())
    answers.array("grad_x", lambda: point.grad_x, shape)
    answers.array("grad_lam", lambda: point.grad_lam, tuple(give.lam.shape))
    if isinstance(point, Curved):
        answers.array("hvp(V)", lambda: point.hvp(give.several), (*shape, 2))
        answers.maybe("top()", lambda: point.top(), ())
    if isinstance(point, RoundedOuter):
        wanted: dict[str, Shape] = {"value": (), "grad_x": (), "grad_lam": ()}
        _refuse_other_signature(answers, point.rounding, "rounding", "(scale=None)", (0, 1))
        answers.bounds("rounding()", lambda: point.rounding(), OuterRounding, **wanted)
        name = "rounding(scale)"
        answers.bounds(name, lambda: point.rounding(give.v), OuterRounding, **wanted)


def ask_again(problem: Any) -> None:
    """Ask all of a problem what runs ask it, in nobody's passes: what counts has then counted.

    What can't be asked is left: this looks for no faults.
    """
    x, lam, backend = problem.x(None), problem.lam(0.0), problem.backend
    inner, outer = (
        Answers(f"problem.{side}", backend, problem.dtype) for side in ("inner", "outer")
    )
    with uncounted():
        for at in places(inner, x, lam, lambda other: problem.domain.project(other, backend)):
            with suppress(Exception):
                problem.inner.constants(at.lam)
                refuse_other_point(inner, problem.inner.at(at.x, at.lam), at)
            with suppress(Exception):
                refuse_other_criterion(outer, problem.outer.at(at.x, at.lam), at)


def refuse_other_loss(answers: Answers, loss: Any, y: Array, shape: Shape) -> None:
    """Refuse a loss whose functions answer with other shapes than predictions have: no pass."""
    where, backend = answers.where, answers.backend
    for name in ("curvature_bound", "third_bound", "self_concordance"):
        Maybe(BOUND)(getattr(loss, name), f"{where}.{name}")
    BOUND(loss.curvature_lower, f"{where}.curvature_lower")
    zeros = backend.xp.zeros(shape, dtype=answers.dtype, device=backend.device)
    labels = answers.lend("y", y)
    for t in (zeros, beside(zeros, backend)):
        _refuse_other_loss(answers, loss, labels, answers.lend("t", t))
    answers.refuse_touched()


def _refuse_other_loss(answers: Answers, loss: Any, y: Array, t: Array) -> None:
    """At these predictions."""
    shape, backend = tuple(t.shape), answers.backend
    rows = (shape[0], *(1 for _ in loss.output_shape), *shape[1 + len(loss.output_shape) :])
    answers.array("value(y, t)", lambda: loss.value(y, t, backend), rows)
    answers.array("derivative(y, t)", lambda: loss.derivative(y, t, backend), shape)
    curvature = answers.found("curvature(y, t)", lambda: loss.curvature(y, t, backend))
    if getattr(type(loss), "curvature_product", None) is Pointwise.curvature_product:
        answers.held("curvature(y, t)", curvature, shape)
    else:
        answers.untouched.keep("curvature(y, t)", curvature)
    for d, name in ((t, "d"), (columns_of(t, 2, backend), "D")):
        given = answers.lend(name, d)
        answers.array(
            f"curvature_product(curvature, {name})",
            lambda given=given: loss.curvature_product(curvature, given, backend),  # type: ignore[misc]
            tuple(given.shape),
        )
    answers.spread("curvature_diag", lambda: loss.curvature_diag(curvature, backend), shape)
    answers.untouched.keep("least(y)", answers.found("least(y)", lambda: loss.least(y, backend)))
    if isinstance(loss, Accounted):
        pair = answers.found("rounding(y, t)", lambda: loss.rounding(y, t, backend))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"{answers.where}.rounding(y, t) must be bounds of the errors of value and "
                f"derivative, two arrays, got {described(pair)}: leave it out where none is known."
            )
        for name, bound, of in zip(("value", "derivative"), pair, (rows, shape), strict=True):
            answers.held(f"rounding(y, t) of the {name}", bound, of)


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


def refuse_other_kernel(answers: Answers, kernel: Any, X: Array, theta: Array) -> None:
    """Refuse a kernel whose blocks are of other shapes: of a few rows, no pass.

    Rows of the data alone: they may be of unit length, or the numbers of objects.
    """
    backend, n = answers.backend, X.shape[0]
    shape = (X[:2, :].shape[0], X[:3, :].shape[0])
    first = X[:2, :], X[:3, :], theta
    last = X[max(n - 2, 0) :, :], X[max(n - 3, 0) :, :], beside(theta, backend)
    for place in (first, last):
        at = (*map(answers.lend, ("X", "Z", "θ"), place), backend)
        answers.array("block(X, Z, θ)", lambda at=at: kernel.block(*at), shape)  # type: ignore[misc]
        found = answers.found("derivatives(X, Z, θ)", lambda at=at: kernel.derivatives(*at))  # type: ignore[misc]
        if not isinstance(found, (tuple, list)) or len(found) != kernel.n_parameters:
            raise TypeError(
                f"{answers.where}.derivatives(X, Z, θ) must be a tuple of {kernel.n_parameters} "
                f"arrays, one for each entry of θ, got {described(found)}."
            )
        for derivative in found:
            answers.held("derivatives(X, Z, θ)", derivative, shape)
        answers.array("diag(X, θ)", lambda at=at: kernel.diag(at[0], *at[2:]), shape[:1])  # type: ignore[misc]
    answers.refuse_touched()


def refuse_other_design(answers: Answers, design: Any) -> None:
    """Refuse a design whose products write into their argument, or into each other: two of each."""
    backend, (n, p) = answers.backend, design.shape
    v, r = (backend.xp.ones(size, dtype=answers.dtype, device=backend.device) for size in (p, n))
    for move in (lambda a, _: a, beside):
        right, left = answers.lend("v", move(v, backend)), answers.lend("r", move(r, backend))
        answers.array("matmul(v)", lambda right=right: design.matmul(right), (n,))  # type: ignore[misc]
        answers.array("rmatmul(r)", lambda left=left: design.rmatmul(left), (p,))  # type: ignore[misc]
    answers.refuse_touched()


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
    other = _other_signature(inner.at, (2, 3))
    return None if other is None else f"at must take (x, lam, carry=None), got at{other}"


def _other_signature(asked: Callable[..., Any], counts: tuple[int, ...]) -> str | None:
    """The arguments of a function that can't be called with so many, None where it can."""
    try:
        signature = inspect.signature(asked)
    except (TypeError, ValueError):  # not written in Python
        return None
    for count in counts:
        try:
            signature.bind(*[None] * count)
        except TypeError:
            return str(signature)
    return None


#: What runs call the rounding of a point of h with, or some of it.
_ROUNDING = "(vectors, pushed=None, scale=None)"


def _refuse_other_signature(
    answers: Answers, asked: Callable[..., Any], name: str, right: str, counts: tuple[int, ...]
) -> None:
    """Refuse a member that does not take all the arguments that runs call it with."""
    other = _other_signature(asked, counts)
    if other is not None:
        raise TypeError(f"{answers.where}.{name} must take {right}, got {name}{other}.")


def is_number(value: Any) -> bool:
    """Whether a method may state this as a number: of Python, or an array that holds one."""
    if type(value) is float:  # nearly always, and what the others ask takes a while
        return True
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real or (is_array(value) and tuple(value.shape) == ())
