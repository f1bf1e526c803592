"""Inner objectives from plain functions: what is not given is differentiated.

A user gives h with its gradient, and of the second derivatives those that are to hand; the rest
comes from central differences of the gradient (Nocedal and Wright, *Numerical optimization*,
2006, section 8.1). :func:`from_autodiff` takes all of them from h alone, by torch or JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .._cached import cached_property
from ..backends import (
    COUNT,
    Array,
    Backend,
    Maybe,
    check_fields,
    dense_backend_of,
    described,
    function,
    lent,
    same_backend,
)
from ..backends.autodiff import Engine, Scalar, products
from ..linalg import grams
from ..meter import Unit
from ._calls import Calls, Origin, difference, unit_vectors
from ._protocol import InnerConstants, Rounding
from .point import Point

ValueAndGrad = Callable[[Array, Array], tuple[Any, Array]]
Product = Callable[[Array, Array, Array], Array]
SlopeProduct = Callable[[Array, Array, Array, Array], Array]
Constants = InnerConstants | Callable[[Array], InnerConstants]
DeclaredRounding = Callable[[Array, Array, Array], tuple[Any, Any, Any]]


@dataclass(frozen=True)
class Derivatives:
    """Where each derivative of h comes from.

    Attributes
    ----------
    grad, hvp, cross_vjp, cross_jvp : {"given", "autodiff", "differences"}
        By the user, by automatic differentiation, or by central differences of the gradient.
    """

    grad: Origin
    hvp: Origin
    cross_vjp: Origin
    cross_jvp: Origin


@dataclass(frozen=True)
class SlopeProducts:
    """Second derivatives of qᵀ ∂_x h: functions of (x, λ, q, direction), None where not given.

    Attributes
    ----------
    bend : callable or None
        (∂³_{xxx} h [q]) v, the shape of x.
    cross_bend : callable or None
        The numbers qᵀ (∂³_{xxλ_j} h) v, shape (m,).
    fold : callable or None
        (qᵀ ∂³_{xλλ} h) d, shape (m,).
    """

    bend: SlopeProduct | None = None
    cross_bend: SlopeProduct | None = None
    fold: SlopeProduct | None = None

    def __post_init__(self) -> None:
        optional = Maybe(function)
        check_fields(self, bend=optional, cross_bend=optional, fold=optional)


@dataclass(frozen=True)
class FunctionInner:
    """An inner objective from functions; build it with :func:`from_functions`.

    Attributes
    ----------
    derivatives : Derivatives
        Where each derivative comes from.
    """

    backend: Backend
    dtype: Any
    x_shape: tuple[int, ...]
    n_hyperparameters: int
    value_and_grad: ValueAndGrad
    hvp: Product | None
    cross_vjp: Product | None
    cross_jvp: Product | None
    derivatives: Derivatives
    declared: Constants
    cross_norm: Callable[[Array, Array], Any] | None = None
    declared_rounding: DeclaredRounding | None = None
    declared_start: Array | None = None
    slope: SlopeProducts = SlopeProducts()
    _calls: Calls = field(kw_only=True, compare=False, repr=False)

    @property
    def passes(self) -> float:
        """What the calls of the functions have cost, those for differences included."""
        return self._calls.total

    @property
    def column_passes(self) -> float:
        """The same: every call takes one direction."""
        return self._calls.total

    @property
    def unit(self) -> Unit:
        """Evaluations, unless it was stated what a call costs."""
        return self._calls.unit

    def start(self) -> Array:
        """The start that was given, else zeros."""
        if self.declared_start is not None:
            return self.declared_start
        backend = self.backend
        return backend.xp.zeros(self.x_shape, dtype=self.dtype, device=backend.device)

    def constants(self, lam: Array) -> InnerConstants:
        declared = self.declared
        return declared(*lent(self.backend, lam)) if callable(declared) else declared

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> FunctionPoint:
        return FunctionPoint(self, x, lam)

    def evaluate(self, x: Array, lam: Array) -> tuple[Array, Array]:
        """The pair h, ∂_x h, checked and counted."""
        return self._calls.pair(self.value_and_grad, self.x_shape, x, lam)

    def product(
        self, name: str, x: Array, lam: Array, direction: Array, shape: tuple[int, ...]
    ) -> Array:
        """One of the given products, checked and counted."""
        return self._calls.array(name, getattr(self, name), shape, x, lam, direction)

    def slope_products(
        self, name: str, at: FunctionPoint, q: Array, D: Array, shape: tuple[int, ...]
    ) -> Array | None:
        """Those of several directions along the last axis of D; None where the function is not."""
        given = getattr(self.slope, name)
        return self._calls.columns(name, given, shape, at.x, at.lam, q, D)

    def bound(self, name: str, value: Any) -> Array:
        """An upper bound that a function states."""
        return self._calls.bound(name, value)

    def roundings(self, *arguments: Array) -> tuple[Array, Array, Array]:
        """What ``rounding`` states."""
        assert self.declared_rounding is not None
        return self._calls.bounds(
            "rounding", self.declared_rounding(*lent(self.backend, *arguments))
        )


class FunctionPoint(Point):
    """h from functions at (x, λ)."""

    inner: FunctionInner

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        return self.inner.evaluate(self.x, self.lam)

    @property
    def value(self) -> Array:
        return self._both[0]

    @property
    def grad(self) -> Array:
        return self._both[1]

    @property
    def cross_norm(self) -> Array | None:
        """As declared: no bound of a norm follows from products."""
        declared = self.inner.cross_norm
        if declared is None:
            return None
        found = declared(*lent(self.inner.backend, self.x, self.lam))
        return self.inner.bound("cross_norm", found)

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        """As declared; of functions that say nothing nothing is known."""
        if self.inner.declared_rounding is None:
            return None
        columns = range(vectors.shape[-1])
        found = [self.inner.roundings(self.x, self.lam, vectors[..., j]) for j in columns]
        grad, _, cross = found[0]
        xp, products = self.inner.backend.xp, [product for _, product, _ in found]
        most = 1.0 if scale is None else xp.max(xp.abs(scale))
        return Rounding(most * grad, most * xp.stack(products), most * cross)

    def hvp(self, v: Array) -> Array:
        return self._each(self._hvp, v, self.inner.x_shape)

    def cross_vjp(self, q: Array) -> Array:
        return self._each(self._cross_vjp, q, self.inner.x_shape)

    def cross_jvp(self, d: Array) -> Array:
        return self._each(self._cross_jvp, d, (self.inner.n_hyperparameters,))

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        found = self.inner.slope_products("bend", self, q, T, self.inner.x_shape)
        return None if found is None else grams(T, found, self.inner.backend)

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        return self.inner.slope_products("cross_bend", self, q, T, tuple(self.lam.shape))

    def fold(self, q: Array, D: Array) -> Array | None:
        return self.inner.slope_products("fold", self, q, D, tuple(self.lam.shape))

    def _each(self, product: Callable[[Array], Array], v: Array, shape: tuple[int, ...]) -> Array:
        """Apply a product to one direction, or to each of several along a last axis."""
        if tuple(v.shape) == shape:
            return product(v)
        columns = [product(v[..., i]) for i in range(v.shape[-1])]
        return self.inner.backend.xp.stack(columns, axis=-1)

    def _hvp(self, v: Array) -> Array:
        inner = self.inner
        if inner.hvp is not None:
            return inner.product("hvp", self.x, self.lam, v, inner.x_shape)
        return difference(lambda x: inner.evaluate(x, self.lam)[1], self.x, v, inner.backend)

    def _cross_jvp(self, d: Array) -> Array:
        inner = self.inner
        if inner.cross_jvp is not None:
            return inner.product("cross_jvp", self.x, self.lam, d, inner.x_shape)
        return difference(lambda lam: inner.evaluate(self.x, lam)[1], self.lam, d, inner.backend)

    def _cross_vjp(self, q: Array) -> Array:
        inner = self.inner
        if inner.cross_vjp is not None:
            shape = (inner.n_hyperparameters,)
            return inner.product("cross_vjp", self.x, self.lam, q, shape)
        xp = inner.backend.xp
        return xp.stack([xp.sum(column * q) for column in self._cross_columns])

    @cached_property
    def _cross_columns(self) -> list[Array]:
        """The columns of ∂²_{xλ} h: computed once, whatever the number of products."""
        return [self._cross_jvp(unit) for unit in unit_vectors(self.lam, self.inner.backend)]


def from_functions(
    value_and_grad: ValueAndGrad,
    *,
    like: Array,
    x_shape: tuple[int, ...],
    n_hyperparameters: int,
    hvp: Product | None = None,
    cross_vjp: Product | None = None,
    cross_jvp: Product | None = None,
    constants: Constants | None = None,
    cross_norm: Callable[[Array, Array], Any] | None = None,
    rounding: DeclaredRounding | None = None,
    start: Array | None = None,
    passes_per_call: float | None = None,
    bend: SlopeProduct | None = None,
    cross_bend: SlopeProduct | None = None,
    fold: SlopeProduct | None = None,
) -> FunctionInner:
    """Build an inner objective h(x, λ) from functions.

    The functions are handed copies of x, λ and directions, and what they return is copied: they may
    write into the former, and return the same buffer each time.

    Parameters
    ----------
    value_and_grad : callable
        (x, λ) ↦ (h, ∂_x h): a number or 0-d array, and an array of the shape of x.
    like : array
        Any array of the library, device and dtype (float32 or float64) to compute with.
    x_shape : tuple of int
        Shape of the inner variable.
    n_hyperparameters : int
        m; λ has shape (m,).
    hvp : callable, optional
        (x, λ, v) ↦ ∂²_{xx} h · v for one direction v. Two gradients a product when omitted.
    cross_vjp : callable, optional
        (x, λ, q) ↦ (∂²_{xλ} h)ᵀ q, shape (m,). When omitted: m products with ``cross_jvp``, or
        2m gradients, once a point.
    cross_jvp : callable, optional
        (x, λ, d) ↦ (∂²_{xλ} h) d, the shape of x. Two gradients a product when omitted.
    constants : InnerConstants or callable, optional
        Constants of h(., λ), or λ ↦ them. None are known when omitted.
    cross_norm : callable, optional
        (x, λ) ↦ an upper bound of ‖∂²_{xλ} h‖ (spectral norm), without which no hypergradient has
        a bound.
    rounding : callable, optional
        (x, λ, v) ↦ three numbers: how far the computed ∂_x h, ∂²_{xx} h · v and ∂²_{xλ} h (as a
        matrix) may be from what they are, in norm. With it and ``InnerConstants(mu=...)`` an inner
        solution comes with a bound of its error; without it nothing is proven, since what a
        function returns may be anything. A product by differences is off by far more than rounding.
    start : array, optional
        Where an inner solve without x0 begins, of the shape of x; zeros when omitted. A function
        that is not convex may have a saddle point or a maximum at zero (a network, a product of
        unknowns as in a matrix factorisation), which no gradient leaves: give a random start.
    passes_per_call : float, optional
        Passes over the data that a call of any of the functions takes, 2 for X x and Xᵀ r. When
        omitted that is not known: runs count ``evaluations`` in place of ``passes``, and take no
        ``max_passes``.
    bend, cross_bend, fold : callable, optional
        What the Hessian of f needs (:func:`bilevel.hypergrad.hessian`), the second derivatives of
        qᵀ ∂_x h: (x, λ, q, v) ↦ (∂³_{xxx} h [q]) v, the shape of x; (x, λ, q, v) ↦ the numbers
        qᵀ (∂³_{xxλ_j} h) v, shape (m,); (x, λ, q, d) ↦ (qᵀ ∂³_{xλλ} h) d, shape (m,). Unlike the
        second derivatives of h they don't come from differences where they are omitted.

    Returns
    -------
    FunctionInner
        Its ``derivatives`` say what was given and what comes from differences.

    Raises
    ------
    TypeError
        If ``like`` is no array, or neither float32 nor float64.
    ValueError
        If a shape is not positive; later, if a function returns a wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> def ridge(x, lam):  # ½ ‖x - 1‖² + ½ e^λ ‖x‖²
    ...     weight = np.exp(lam[0])
    ...     return 0.5 * np.sum((x - 1) ** 2) + 0.5 * weight * np.sum(x * x), x - 1 + weight * x
    >>> h = from_functions(ridge, like=np.zeros(1), x_shape=(2,), n_hyperparameters=1)
    >>> h.at(np.ones(2), np.zeros(1)).hvp(np.array([1.0, 0.0])).round(6)
    array([2., 0.])
    >>> h.derivatives.hvp
    'differences'
    """
    calls = Calls.like(like, passes_per_call)
    function(value_and_grad, "value_and_grad")
    for name, product in (("hvp", hvp), ("cross_vjp", cross_vjp), ("cross_jvp", cross_jvp)):
        Maybe(function)(product, name)
    if not (constants is None or isinstance(constants, InnerConstants) or callable(constants)):
        raise TypeError(
            f"constants must be InnerConstants or a function of λ, got {described(constants)}."
        )
    shape = _shape(x_shape)
    return FunctionInner(
        calls.backend,
        calls.dtype,
        shape,
        COUNT(n_hyperparameters, "n_hyperparameters"),
        value_and_grad,
        hvp,
        cross_vjp,
        cross_jvp,
        Derivatives(
            "given",
            "given" if hvp is not None else "differences",
            "given" if cross_vjp is not None or cross_jvp is not None else "differences",
            "given" if cross_jvp is not None else "differences",
        ),
        InnerConstants() if constants is None else constants,
        cross_norm,
        rounding,
        _checked_start(start, shape, calls.dtype, calls.backend),
        SlopeProducts(bend, cross_bend, fold),
        _calls=calls,
    )


def from_autodiff(
    fun: Scalar,
    *,
    engine: Engine,
    like: Array,
    x_shape: tuple[int, ...],
    n_hyperparameters: int,
    constants: Constants | None = None,
    cross_norm: Callable[[Array, Array], Any] | None = None,
    rounding: DeclaredRounding | None = None,
    start: Array | None = None,
    passes_per_call: float | None = None,
) -> FunctionInner:
    """Build an inner objective from h alone, by automatic differentiation.

    Parameters
    ----------
    fun : callable
        (x, λ) ↦ h(x, λ), 0-d, written with the functions of ``engine``; for JAX it is compiled,
        so its course may not depend on the numbers.
    engine : {"torch", "jax"}
        What differentiates.
    like, x_shape, n_hyperparameters, constants, cross_norm, rounding, start, passes_per_call
        As in :func:`from_functions`. The arrays may be of another library than ``engine``: they
        change hands by DLPack, without a copy where both can use the same device and the entries
        lie one after the other.

    Returns
    -------
    FunctionInner
        Its ``derivatives`` are "autodiff" throughout.

    Raises
    ------
    BackendUnavailableError
        If ``engine`` is not installed.
    ValueError
        If ``engine`` is unknown, or arrays cannot be handed to it.

    Examples
    --------
    >>> import numpy as np, pytest
    >>> torch = pytest.importorskip("torch")
    >>> h = from_autodiff(
    ...     lambda x, lam: torch.exp(lam[0]) * torch.sum(x**4),
    ...     engine="torch", like=np.zeros(1), x_shape=(2,), n_hyperparameters=1,
    ... )
    >>> h.at(np.array([1.0, 2.0]), np.zeros(1)).hvp(np.ones(2))
    array([12., 48.])
    """
    by = products(function(fun, "fun"), engine, dense_backend_of(like=like), "h")
    found = from_functions(
        by.value_and_grad,
        like=like,
        x_shape=x_shape,
        n_hyperparameters=n_hyperparameters,
        hvp=by.hvp,
        cross_vjp=by.cross_vjp,
        cross_jvp=by.cross_jvp,
        constants=constants,
        cross_norm=cross_norm,
        rounding=rounding,
        start=start,
        passes_per_call=passes_per_call,
        bend=by.bend,
        cross_bend=by.cross_bend,
        fold=by.fold,
    )
    origin: Origin = "autodiff"
    return replace(found, derivatives=Derivatives(origin, origin, origin, origin))


def _checked_start(
    start: Array | None, shape: tuple[int, ...], dtype: Any, backend: Backend
) -> Array | None:
    """Refuse a start that is no x."""
    if start is None:
        return None
    same_backend(backend, dense_backend_of(start=start), "like", "start")
    if tuple(start.shape) != shape or start.dtype != dtype:
        raise ValueError(
            f"start must have shape {shape} and dtype {dtype}, got {tuple(start.shape)} and "
            f"{start.dtype}."
        )
    if not bool(backend.xp.all(backend.xp.isfinite(start))):
        raise ValueError("start must be finite, got NaN or infinite values.")
    return start


def _shape(x_shape: Any) -> tuple[int, ...]:
    if not isinstance(x_shape, (tuple, list)):
        raise TypeError(f"x_shape must be a tuple of positive integers, got {described(x_shape)}.")
    if not x_shape:
        raise ValueError("x_shape must hold one positive integer at least, got none.")
    return tuple(COUNT(n, f"x_shape[{j}]") for j, n in enumerate(x_shape))
