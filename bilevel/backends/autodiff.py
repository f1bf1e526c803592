"""Derivatives of a scalar function by torch or JAX, for arrays of any library.

Arrays change hands by DLPack, so nothing is copied where both libraries can use the device, but
what is not one number after the other in memory. Arrays of dpnp on a CPU are copied.
All products are reverse over reverse, which every differentiable operation of both supports:

    ∂²_{xx} h v     = pullback of v by x ↦ ∂_x h
    (∂²_{xλ} h)ᵀ q  = pullback of q by λ ↦ ∂_x h
    (∂²_{xλ} h) d   = pullback of d by x ↦ ∂_λ h
    ∂²_{λλ} h d     = pullback of d by λ ↦ ∂_λ h

and those with the third derivatives are the same of the function qᵀ ∂_x h.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from .._cached import cached_property
from ._arguments import described, dtype_name
from ._protocol import Array, Backend
from ._registry import get_backend, library_of

Engine: TypeAlias = Literal["torch", "jax"]
Scalar: TypeAlias = Callable[[Array, Array], Array]

_NAMESPACES = {"torch": "torch", "jax": "jax.numpy"}


@dataclass(frozen=True)
class Products:
    """Value, gradients and second-order products of a function h of (x, λ).

    ``bend``, ``cross_bend`` and ``fold`` are ``hvp``, ``cross_vjp`` and ``lam_hvp`` of qᵀ ∂_x h.
    """

    value_and_grad: Callable[[Array, Array], tuple[Array, Array]]
    grad_lam: Callable[[Array, Array], Array]
    hvp: Callable[[Array, Array, Array], Array]
    cross_vjp: Callable[[Array, Array, Array], Array]
    cross_jvp: Callable[[Array, Array, Array], Array]
    lam_hvp: Callable[[Array, Array, Array], Array]
    bend: Callable[[Array, Array, Array, Array], Array]
    cross_bend: Callable[[Array, Array, Array, Array], Array]
    fold: Callable[[Array, Array, Array, Array], Array]


def products(fun: Scalar, engine: Engine, backend: Backend, called: str) -> Products:
    """Differentiate ``fun``, written with the functions of ``engine``, for arrays of ``backend``.

    ``called`` is how errors call it, as "h".

    Raises
    ------
    BackendUnavailableError
        If the engine is not installed.
    ValueError
        If the engine is unknown; later, if an array cannot be handed to it.
    """
    if engine not in ("torch", "jax"):
        raise ValueError(f"engine must be 'torch' or 'jax', got {engine!r}.")
    get_backend(engine)  # or an error that says what to install
    return Products(*(Derivative(fun, engine, backend, name, called) for name in _FORMULAS))


@dataclass(frozen=True)
class Derivative:
    """A member of :class:`Products` by its name; it can be pickled where ``fun`` can."""

    fun: Scalar
    engine: Engine
    backend: Backend
    name: str
    called: str

    @cached_property
    def _function(self) -> Callable[..., Any]:
        rules = _torch() if self.engine == "torch" else _jax()
        return _in_and_out(
            rules.finish(_FORMULAS[self.name](self._scalar, rules)), self.engine, self.backend
        )

    def _scalar(self, x: Any, lam: Any) -> Any:
        """What the function returns, which has to be a number that the engine knows the origin of.

        Each engine says in words of its own what is wrong with another, and not of which function.
        """
        found = self.fun(x, lam)
        if library_of(found) != self.engine or len(found.shape) > 0:
            raise TypeError(
                f"{self.called} must return a number made by functions of {self.engine}, an array "
                f"of shape (), got {described(found)}."
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def _library(self) -> Backend:
        return get_backend(self.engine)

    def __call__(self, *arguments: Array) -> Any:
        _ = self._library.xp  # refuses a forked child, where the engine would wait for ever
        return self._function(*arguments)


def _hvp(fun: Scalar, rules: _Rules) -> Any:
    grad = rules.grad(fun, 0)
    return lambda x, lam, v: rules.vjp(lambda z: grad(z, lam), x)[1](v)[0]


def _cross_vjp(fun: Scalar, rules: _Rules) -> Any:
    grad = rules.grad(fun, 0)
    return lambda x, lam, q: rules.vjp(lambda z: grad(x, z), lam)[1](q)[0]


def _cross_jvp(fun: Scalar, rules: _Rules) -> Any:
    grad = rules.grad(fun, 1)
    return lambda x, lam, d: rules.vjp(lambda z: grad(z, lam), x)[1](d)[0]


def _lam_hvp(fun: Scalar, rules: _Rules) -> Any:
    grad = rules.grad(fun, 1)
    return lambda x, lam, d: rules.vjp(lambda z: grad(x, z), lam)[1](d)[0]


def _of_slope(formula: Callable[[Scalar, Any], Any]) -> Callable[[Scalar, Any], Any]:
    """The formula for qᵀ ∂_x h: a function of (x, λ, q, direction)."""

    def build(fun: Scalar, rules: _Rules) -> Any:
        grad = rules.grad(fun, 0)
        return lambda x, lam, q, v: formula(lambda a, b: (q * grad(a, b)).sum(), rules)(x, lam, v)

    return build


_FORMULAS: Mapping[str, Callable[[Scalar, Any], Any]] = {
    "value_and_grad": lambda fun, rules: rules.value_and_grad(fun),
    "grad_lam": lambda fun, rules: rules.grad(fun, 1),
    "hvp": _hvp,
    "cross_vjp": _cross_vjp,
    "cross_jvp": _cross_jvp,
    "lam_hvp": _lam_hvp,
    "bend": _of_slope(_hvp),
    "cross_bend": _of_slope(_cross_vjp),
    "fold": _of_slope(_lam_hvp),
}


@dataclass(frozen=True)
class _Rules:
    """The transformations of an engine, under one set of names."""

    grad: Any
    value_and_grad: Callable[[Scalar], Any]
    vjp: Any
    finish: Callable[[Any], Any]


def _torch() -> _Rules:
    func = importlib.import_module("torch.func")

    def value_and_grad(fun: Scalar) -> Any:
        both = func.grad_and_value(fun)
        return lambda x, lam: both(x, lam)[::-1]

    return _Rules(func.grad, value_and_grad, func.vjp, lambda function: function)


def _jax() -> _Rules:
    jax = importlib.import_module("jax")
    return _Rules(jax.grad, jax.value_and_grad, jax.vjp, jax.jit)


def _in_and_out(function: Any, engine: Engine, backend: Backend) -> Callable[..., Any]:
    """Hand the arguments to the engine, and its results back."""

    def call(*arguments: Array) -> Any:
        results = function(*(_hand_over(a, engine, backend) for a in arguments))
        if isinstance(results, tuple):
            return tuple(_hand_back(result, engine, backend) for result in results)
        return _hand_back(results, engine, backend)

    return call


def _hand_over(array: Array, engine: Engine, backend: Backend) -> Any:
    if library_of(array) == engine:
        return array
    if _hidden_on_the_host(backend):
        return get_backend(engine, device="cpu").asarray(backend.to_numpy(array))
    from_dlpack = importlib.import_module(_NAMESPACES[engine]).from_dlpack
    compact = _compact(array, backend)
    try:
        handed = from_dlpack(compact)
    except Exception as error:  # each library has its own kind
        raise ValueError(
            f"An array of {library_of(array)} cannot be handed to {engine} without a copy "
            f"({error}): use arrays of {engine}, or give the derivatives by hand."
        ) from error
    if dtype_name(handed.dtype) != dtype_name(compact.dtype):
        raise TypeError(
            f"{engine} makes {dtype_name(handed.dtype)} of the {dtype_name(compact.dtype)} arrays "
            "that it is handed: set JAX_ENABLE_X64=1 before JAX is imported, or give arrays of "
            "float32."
        )
    return handed


def _hidden_on_the_host(backend: Backend) -> bool:
    """Whether the arrays are in the host's memory, but DLPack calls it another device (SYCL)."""
    return bool(getattr(getattr(backend.device, "sycl_device", None), "is_cpu", False))


def _compact(array: Array, backend: Backend) -> Array:
    """The same numbers one after the other in memory, a copy only where they are not.

    JAX refuses other strides, torch ends the process at negative ones, and DLPack cannot say
    "read-only" to every version of the engines.
    """
    if isinstance(array, (np.ndarray, np.generic)):
        native = array.dtype.newbyteorder("=")
        return np.require(array, native, ["C", "A", "W"])
    if backend.name == "torch":
        return array.detach().contiguous()
    if backend.name == "jax":
        return array
    xp = backend.xp
    flat = xp.asarray(xp.reshape(array, (-1,)), copy=True)
    return xp.reshape(flat, array.shape)


def _hand_back(result: Any, engine: Engine, backend: Backend) -> Array:
    if engine == "torch":
        # Gradients of sums are one number that stands for all: nobody could write into that.
        result = result.detach().contiguous()
    if backend.name == engine:
        return result
    if _hidden_on_the_host(backend):
        return backend.asarray(result)
    array = backend.asarray(backend.xp.from_dlpack(result))
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        return array.copy()  # JAX owns its memory and lends it for reading alone
    return array
