"""What inner objectives and outer criteria of a user's functions have in common.

Their arguments are lent, what they return is checked and copied, each call is counted, and what is
not given is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, Self

from ..backends import (
    NOT_NEGATIVE,
    Array,
    Backend,
    Maybe,
    Pending,
    common_dtype,
    dense_backend_of,
    described,
    is_array,
    is_sparse,
    lent,
    library_of,
    python_number,
    refuse_matrix_classes,
)
from ..meter import EVALUATIONS, PASSES, Passes, Unit, tidy

Origin = Literal["given", "autodiff", "differences"]


@dataclass(frozen=True)
class Calls:
    """Calls of functions of one library, device and dtype.

    Attributes
    ----------
    backend, dtype
        Of what they are handed and return.
    price : float or None
        Passes over the data that each takes; None where that is not known.
    """

    backend: Backend
    dtype: Any
    price: float | None
    _made: Passes = field(default_factory=Passes)

    @classmethod
    def like(cls, like: Array, passes_per_call: float | None) -> Self:
        """Check what is handed to each ``from_functions``."""
        backend = dense_backend_of(like=like)
        price = Maybe(NOT_NEGATIVE)(passes_per_call, "passes_per_call")
        return cls(backend, common_dtype(backend, like=like), price)

    @property
    def unit(self) -> Unit:
        """In what they are counted."""
        return EVALUATIONS if self.price is None else PASSES

    @property
    def total(self) -> float:
        """Passes until now, or calls where their price is not known."""
        made = self._made.total
        return made if self.price is None else tidy(self.price * made)

    def pair(
        self, value_and_grad: Callable[..., Any], shape: tuple[int, ...], *arguments: Array
    ) -> tuple[Array, Array]:
        """Value and gradient, checked and counted."""
        self._made.count_call()
        result = value_and_grad(*lent(self.backend, *arguments))
        return _checked_pair(result, shape, self.backend, self.dtype)

    def array(
        self, name: str, product: Callable[..., Any], shape: tuple[int, ...], *arguments: Array
    ) -> Array:
        """What another function returns, checked and counted."""
        self._made.count_call()
        result = product(*lent(self.backend, *arguments))
        return _checked(name, result, shape, self.backend, self.dtype)

    def columns(
        self,
        name: str,
        product: Callable[..., Any] | None,
        shape: tuple[int, ...],
        *arguments: Array,
    ) -> Array | None:
        """The same for each direction along the last axis of the last; None without a function."""
        if product is None:
            return None
        *others, D = arguments
        found = [self.array(name, product, shape, *others, D[..., i]) for i in range(D.shape[-1])]
        return self.backend.xp.stack(found, axis=-1)

    def bound(self, name: str, value: Any) -> Array:
        """An upper bound that a function states, 0-d; infinite where it is negative or NaN.

        From such a one nothing follows, and an infinite one says so without a read.
        """
        xp = self.backend.xp
        if isinstance(value, Pending):
            (value,) = self.backend.scalars(value)
        if not isinstance(value, Real) and tuple(getattr(value, "shape", (0,))) != ():
            raise TypeError(f"{name} must return a number, got {described(value)}.")
        number = xp.asarray(value, dtype=self.dtype, device=self.backend.device)
        return xp.where(number >= 0, number, xp.full_like(number, xp.inf))

    def bounds(self, name: str, found: Any) -> tuple[Array, Array, Array]:
        """Three of them."""
        if not isinstance(found, (tuple, list)) or len(found) != 3:
            raise TypeError(f"{name} must return three numbers, got {described(found)}.")
        first, second, third = (self.bound(name, number) for number in found)
        return first, second, third


def _checked(name: str, result: Any, shape: tuple[int, ...], backend: Backend, dtype: Any) -> Array:
    """Copy what a user's function returned: it may return the same buffer each time.

    Raises
    ------
    ValueError, TypeError
        If it is of another library, shape or dtype than it should be.
    """
    if not hasattr(result, "shape") or not hasattr(result, "dtype"):
        raise TypeError(f"{name} must return an array of shape {shape}, got {described(result)}.")
    if library_of(result) != backend.name or is_sparse(result):
        kind = type(result)
        raise TypeError(
            f"{name} must return an array of {backend.name}, got one of class "
            f"{kind.__module__}.{kind.__name__}."
        )
    refuse_matrix_classes(result, f"What is returned by {name}")
    found = tuple(result.shape)
    if found != shape:
        raise ValueError(f"{name} must return an array of shape {shape}, got {found}.")
    if result.dtype != dtype:
        raise TypeError(f"{name} must return dtype {dtype}, got {result.dtype}.")
    return next(lent(backend, result))


def _checked_pair(
    result: Any, shape: tuple[int, ...], backend: Backend, dtype: Any
) -> tuple[Array, Array]:
    """Refuse the same of a value, which may be a Python number, and its gradient."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        found = f"{len(result)} things" if isinstance(result, (tuple, list)) else described(result)
        raise TypeError(f"value_and_grad must return two things, value and gradient, got {found}.")
    value, grad = result
    if not is_array(value) and isinstance(python_number(value), (int, float)):
        value = backend.asarray(float(value), dtype=dtype)
    return (
        _checked("value_and_grad (its value)", value, (), backend, dtype),
        _checked("value_and_grad (its gradient)", grad, shape, backend, dtype),
    )


def difference(f: Callable[[Array], Array], at: Array, v: Array, backend: Backend) -> Array:
    """(f(at + s v) - f(at - s v)) / 2s, s = eps^(1/3) (1 + ‖at‖) / ‖v‖.

    The step balances the truncation, of order s², with the rounding, of order eps/s. It is
    computed on the device: no scalar is read.
    """
    xp = backend.xp
    size = xp.sqrt(xp.sum(v * v))
    length = xp.finfo(v.dtype).eps ** (1 / 3) * (1 + xp.sqrt(xp.sum(at * at)))
    step = length / xp.where(size > 0, size, xp.ones_like(size))
    return (f(at + step * v) - f(at - step * v)) / (2 * step)


def unit_vectors(lam: Array, backend: Backend) -> Iterator[Array]:
    """e_1, ..., e_m, each of the shape of λ."""
    xp = backend.xp
    number = xp.arange(lam.shape[0], device=backend.device)
    one, zero = xp.ones_like(lam), xp.zeros_like(lam)
    return (xp.where(number == j, one, zero) for j in range(lam.shape[0]))
