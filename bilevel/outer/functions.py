"""Outer criteria from plain functions: what is not given is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .._cached import cached_property
from ..backends import (
    Array,
    Backend,
    Maybe,
    check_fields,
    dense_backend_of,
    described,
    function,
    lent,
)
from ..backends.autodiff import Engine, Scalar, products
from ..inner._calls import Calls, Origin, difference, unit_vectors
from ..inner.functions import Product
from ..linalg import grams
from ..meter import Unit
from ._protocol import OuterConstants, OuterRounding

DeclaredRounding = Callable[[Array, Array], tuple[Any, Any, Any]]


@dataclass(frozen=True)
class OuterDerivatives:
    """Where each derivative of g comes from: the user, autodiff, or differences of values."""

    grad_x: Origin
    grad_lam: Origin


@dataclass(frozen=True)
class OuterProducts:
    """Second derivatives of g: functions of (x, λ, direction), None where not given.

    Attributes
    ----------
    hvp : callable or None
        ∂²_{xx} g · v, the shape of x.
    cross_vjp : callable or None
        (∂²_{xλ} g)ᵀ v, shape (m,).
    lam_hvp : callable or None
        ∂²_{λλ} g · d, shape (m,).
    """

    hvp: Product | None = None
    cross_vjp: Product | None = None
    lam_hvp: Product | None = None

    def __post_init__(self) -> None:
        optional = Maybe(function)
        check_fields(self, hvp=optional, cross_vjp=optional, lam_hvp=optional)


@dataclass(frozen=True)
class FunctionOuter:
    """An outer criterion from functions; build it with :func:`from_functions`."""

    backend: Backend
    dtype: Any
    value_and_grad: Callable[[Array, Array], tuple[Any, Array]]
    grad_lam: Callable[[Array, Array], Array] | None
    derivatives: OuterDerivatives
    declared: OuterConstants
    declared_rounding: DeclaredRounding | None = None
    second: OuterProducts = OuterProducts()
    _calls: Calls = field(kw_only=True, compare=False, repr=False)

    @property
    def passes(self) -> float:
        """What the calls of the functions have cost, those for differences included."""
        return self._calls.total

    @property
    def unit(self) -> Unit:
        """Evaluations, unless it was stated what a call costs."""
        return self._calls.unit

    def constants(self) -> OuterConstants:
        return self.declared

    def at(self, x: Array, lam: Array) -> FunctionOuterPoint:
        return FunctionOuterPoint(self, x, lam)

    def evaluate(self, x: Array, lam: Array) -> tuple[Array, Array]:
        """The pair g, ∂_x g, checked and counted."""
        return self._calls.pair(self.value_and_grad, tuple(x.shape), x, lam)

    def evaluate_grad_lam(self, x: Array, lam: Array) -> Array | None:
        """∂_λ g as given, checked and counted; None where it is not given."""
        if self.grad_lam is None:
            return None
        return self._calls.array("grad_lam", self.grad_lam, tuple(lam.shape), x, lam)

    def products(
        self, name: str, at: FunctionOuterPoint, D: Array, shape: tuple[int, ...]
    ) -> Array | None:
        """Those of several directions along the last axis of D; None where the function is not."""
        return self._calls.columns(name, getattr(self.second, name), shape, at.x, at.lam, D)

    def roundings(self, *arguments: Array) -> tuple[Array, Array, Array]:
        """What ``rounding`` states."""
        assert self.declared_rounding is not None
        return self._calls.bounds(
            "rounding", self.declared_rounding(*lent(self.backend, *arguments))
        )


@dataclass(frozen=True)
class FunctionOuterPoint:
    """g from functions at (x, λ)."""

    outer: FunctionOuter
    x: Array
    lam: Array

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        return self.outer.evaluate(self.x, self.lam)

    @property
    def value(self) -> Array:
        return self._both[0]

    @property
    def grad_x(self) -> Array:
        return self._both[1]

    @cached_property
    def grad_lam(self) -> Array:
        given = self.outer.evaluate_grad_lam(self.x, self.lam)
        return self._differences() if given is None else given

    def gram(self, T: Array) -> Array | None:
        found = self.outer.products("hvp", self, T, tuple(self.x.shape))
        return None if found is None else grams(T, found, self.outer.backend)

    def cross_gram(self, T: Array) -> Array | None:
        return self.outer.products("cross_vjp", self, T, tuple(self.lam.shape))

    def fold(self, D: Array) -> Array | None:
        return self.outer.products("lam_hvp", self, D, tuple(self.lam.shape))

    def rounding(self, scale: Array | None = None) -> OuterRounding | None:
        """As declared; of functions that say nothing nothing is known."""
        outer = self.outer
        if outer.declared_rounding is None:
            return None
        value, grad_x, grad_lam = outer.roundings(self.x, self.lam)
        xp = outer.backend.xp
        most = 1.0 if scale is None else xp.max(xp.abs(scale))
        return OuterRounding(value, most * grad_x, grad_lam)

    def _differences(self) -> Array:
        """The difference of g(x, .) along each e_j."""
        backend, lam = self.outer.backend, self.lam

        def value(lam: Array) -> Array:
            return self.outer.evaluate(self.x, lam)[0]

        units = unit_vectors(lam, backend)
        return backend.xp.stack([difference(value, lam, unit, backend) for unit in units])


def from_functions(
    value_and_grad: Callable[[Array, Array], tuple[Any, Array]],
    *,
    like: Array,
    grad_lam: Callable[[Array, Array], Array] | None = None,
    constants: OuterConstants | None = None,
    rounding: DeclaredRounding | None = None,
    passes_per_call: float | None = None,
    hvp: Product | None = None,
    cross_vjp: Product | None = None,
    lam_hvp: Product | None = None,
) -> FunctionOuter:
    """Build an outer criterion g(x, λ) from functions.

    They are handed copies and what they return is copied, as in
    :func:`bilevel.inner.from_functions`.

    Parameters
    ----------
    value_and_grad : callable
        (x, λ) ↦ (g, ∂_x g): a number or 0-d array, and an array of the shape of x.
    like : array
        Any array of the library, device and dtype (float32 or float64) to compute with.
    grad_lam : callable, optional
        (x, λ) ↦ ∂_λ g, shape (m,); ``lambda x, lam: 0 * lam`` where g does not depend on λ.
        2m values a point when omitted.
    constants : OuterConstants, optional
        Lipschitz constants of the gradients; none are known when omitted.
    rounding : callable, optional
        (x, λ) ↦ three numbers: how far the computed g, ∂_x g and ∂_λ g may be from what they are,
        in norm. Without it nothing is proven.
    passes_per_call : float, optional
        Passes over the data of g that a call of any of the functions takes. When omitted that is
        not known: runs count ``outer_evaluations`` in place of ``outer_passes``.
    hvp, cross_vjp, lam_hvp : callable, optional
        What the Hessian of f needs (:func:`bilevel.hypergrad.hessian`): (x, λ, v) ↦ ∂²_{xx} g · v,
        the shape of x; (x, λ, v) ↦ (∂²_{xλ} g)ᵀ v, shape (m,); (x, λ, d) ↦ ∂²_{λλ} g · d,
        shape (m,). They don't come from differences where they are omitted.

    Returns
    -------
    FunctionOuter
        Its ``derivatives`` say what was given and what comes from differences.

    Raises
    ------
    TypeError
        If ``like`` is no array, or neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np
    >>> g = from_functions(lambda x, lam: (np.sum(x * x), 2 * x), like=np.zeros(1))
    >>> g.at(np.ones(2), np.zeros(1)).grad_x
    array([2., 2.])
    >>> g.derivatives
    OuterDerivatives(grad_x='given', grad_lam='differences')
    """
    calls = Calls.like(like, passes_per_call)
    function(value_and_grad, "value_and_grad")
    Maybe(function)(grad_lam, "grad_lam")
    if not (constants is None or isinstance(constants, OuterConstants)):
        raise TypeError(f"constants must be OuterConstants, got {described(constants)}.")
    return FunctionOuter(
        calls.backend,
        calls.dtype,
        value_and_grad,
        grad_lam,
        OuterDerivatives("given", "differences" if grad_lam is None else "given"),
        OuterConstants() if constants is None else constants,
        rounding,
        OuterProducts(hvp, cross_vjp, lam_hvp),
        _calls=calls,
    )


def from_autodiff(
    fun: Scalar,
    *,
    engine: Engine,
    like: Array,
    constants: OuterConstants | None = None,
    rounding: DeclaredRounding | None = None,
    passes_per_call: float | None = None,
) -> FunctionOuter:
    """Build an outer criterion from g alone, by automatic differentiation.

    Parameters
    ----------
    fun : callable
        (x, λ) ↦ g(x, λ), 0-d, written with the functions of ``engine``; for JAX it is compiled.
    engine : {"torch", "jax"}
        What differentiates.
    like, constants, rounding, passes_per_call
        As in :func:`from_functions`; arrays change hands by DLPack.

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
    >>> g = from_autodiff(lambda x, lam: torch.sum(x**2) + lam[0], engine="torch", like=np.zeros(1))
    >>> g.at(np.ones(2), np.zeros(1)).grad_lam
    array([1.])
    """
    by = products(function(fun, "fun"), engine, dense_backend_of(like=like), "g")
    found = from_functions(
        by.value_and_grad,
        like=like,
        grad_lam=by.grad_lam,
        constants=constants,
        rounding=rounding,
        passes_per_call=passes_per_call,
        hvp=by.hvp,
        cross_vjp=by.cross_vjp,
        lam_hvp=by.lam_hvp,
    )
    return replace(found, derivatives=OuterDerivatives("autodiff", "autodiff"))
