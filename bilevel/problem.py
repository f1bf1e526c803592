"""A bilevel problem: an inner objective, an outer criterion, and the domain of λ."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from ._cached import cached_property
from ._ours import is_ours
from ._untouched import Untouched
from .answers import beside, refuse_other_array
from .backends import (
    COUNT,
    Array,
    Backend,
    Has,
    Number,
    dense_backend_of,
    described,
    is_number,
    lent,
    numbers_of,
    same_backend,
)
from .domains import Box, Domain
from .inner import Inner, LinearModel, Startable
from .outer import Outer, OuterConstants, check_pair

#: What an inner objective, a criterion and a domain have to have to be taken for one.
INNER = Has(
    "an inner objective",
    "backend",
    "x_shape",
    "dtype",
    "n_hyperparameters",
    "at",
    "constants",
    "passes",
    "column_passes",
)
OUTER = Has("an outer criterion", "at", "constants", "passes")
DOMAIN = Has("a Box, a Ball or another domain", "project")
BACKEND = Has("a backend (bilevel.get_backend)", "name", "xp", "device", "asarray", "scalars")

#: A λ beyond most domains.
_BEYOND = 1e3

#: How far a second projection may move what was projected, of the size of λ: one that is iterated
#: ends at 10⁻⁶ or so of that, and what is none moves a good part of it.
_NEAR = 1e-4


def _refuse_no_dtype(dtype: Any, backend: Any) -> None:
    """Refuse what is no floating dtype of the backend."""
    if not any(dtype == getattr(backend.xp, name) for name in ("float32", "float64")):
        raise TypeError(
            f"inner.dtype must be float32 or float64 of the backend ({backend.name}), got "
            f"{described(dtype)}."
        )


def _refuse_no_shape(shape: Any) -> None:
    """Refuse what is no shape of x."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"inner.x_shape must be a tuple of integers, got {described(shape)}.")
    for i, n in enumerate(shape):
        COUNT(n, f"inner.x_shape[{i}]")


@dataclass(frozen=True)
class Problem:
    """min over λ in D of g(X(λ), λ), X(λ) = argmin over x of h(x, λ).

    Attributes
    ----------
    inner : Inner
        h.
    outer : Outer
        g.
    domain : Domain
        D, a box when omitted: [-12, 12] for each hyperparameter, as in the paper (section 4).

    Raises
    ------
    ValueError, TypeError
        If the three do not fit each other, or h has no minimum: a free intercept and a training
        part of one class.
    """

    inner: Inner
    outer: Outer
    domain: Domain = Box()

    def __post_init__(self) -> None:
        INNER(self.inner, "inner")
        OUTER(self.outer, "outer")
        DOMAIN(self.domain, "domain")
        COUNT(self.inner.n_hyperparameters, "inner.n_hyperparameters")
        BACKEND(self.inner.backend, "inner.backend")
        _refuse_no_dtype(self.inner.dtype, self.inner.backend)
        _refuse_no_shape(self.inner.x_shape)
        check_pair(self.inner, self.outer)
        if isinstance(self.inner, LinearModel):
            self.inner.refuse_without_minimum()
        self._refuse_other_domain()

    def _refuse_other_domain(self) -> None:
        """Refuse a domain whose projection is no λ, or none: of one within it perhaps, and beyond.

        What is projected lies in D and stays where it is. Else a step ends elsewhere by each
        projection alone, and where p is balanced by that a run would call it an end.
        """
        if is_ours(self.domain):
            self.domain.project(self.lam(0.0), self.backend)  # refuses another dimension
            return
        xp, held = self.backend.xp, Untouched(self.backend, self.dtype)
        nought = self.lam(0.0)
        for lam in (nought, nought + _BEYOND, nought - _BEYOND, beside(nought, self.backend)):
            once = self._projected(held, lam)
            twice = self._projected(held, once)
            moved, reach = self.backend.scalars(
                xp.max(xp.abs(twice - once)), xp.max(xp.abs(lam) + xp.abs(once))
            )
            if moved > _NEAR * (1 + reach):
                raise ValueError(
                    "domain.project must be a projection, which leaves where it is what is "
                    f"projected: the second one moves λ by another {moved:.3g}."
                )
        for member, fault in held.faults():
            raise ValueError(f"{member} {fault}")

    def _projected(self, held: Untouched, lam: Array) -> Array:
        """What the domain makes of λ, if that can be one."""
        found = self.domain.project(held.lend("lam", lam), self.backend)
        held.called("domain.project")
        shape, xp = (self.inner.n_hyperparameters,), self.backend.xp
        refuse_other_array(found, "domain.project(lam)", shape, self.backend, self.dtype)
        if not bool(xp.all(xp.isfinite(found))):
            raise ValueError(
                "domain.project(lam) must be finite, got NaN or infinite values at "
                f"λ = {self.backend.to_numpy(lam).tolist()}."
            )
        held.keep("domain.project", found)
        return found

    @property
    def backend(self) -> Backend:
        return self.inner.backend

    @property
    def dtype(self) -> Any:
        return self.inner.dtype

    @cached_property
    def outer_constants(self) -> OuterConstants:
        """The constants of g; they hold for every x and λ, so they are computed once."""
        found = self.outer.constants()
        if not isinstance(found, OuterConstants):
            raise TypeError(f"outer.constants must return OuterConstants, got {described(found)}.")
        return found

    @cached_property
    def probe(self) -> tuple[float, float]:
        """Values of h and g at an arbitrary point, the same each time: they tell data apart."""
        backend = self.backend
        lam = self.domain.project(self.lam(0.0), backend)
        x = backend.normal(0, tuple(self.inner.x_shape), self.dtype)
        value, criterion = backend.scalars(self.inner.at(x, lam).value, self.outer.at(x, lam).value)
        return value, criterion

    def lam(self, value: Any, name: str = "lam0") -> Array:
        """Check hyperparameters and bring a number to the shape (m,), without projecting.

        Raises
        ------
        ValueError
            If they are not finite, or not of shape (m,), or live on another backend or device.
        TypeError
            If an array is not of the dtype of the problem.
        """
        backend, m = self.backend, self.inner.n_hyperparameters
        xp = backend.xp
        if is_number(value):
            number = Number()(value, name)
            value = xp.full((m,), number, dtype=self.dtype, device=backend.device)
        elif isinstance(value, (list, tuple)):
            value = backend.asarray(list(numbers_of(value, name, Number())), dtype=self.dtype)
        elif not hasattr(value, "shape") or isinstance(value, type):
            raise TypeError(
                f"{name} must be a number, a list of numbers or an array of shape ({m},), got "
                f"{described(value)}."
            )
        self._check_array(value, (m,), name)
        return next(lent(backend, value))  # the user may go on to write into it

    def start(self, value: Any, name: str = "lam0") -> Array:
        """Check where a search is to start, and warn where that is outside of D.

        Returns
        -------
        array, shape (m,)
            The nearest point of D: the point itself within rounding.

        Examples
        --------
        >>> import bilevel, numpy as np
        >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
        >>> bilevel.logistic_regression(X, y, X, y).start(np.float32(2))
        array([2.])
        """
        lam = self.lam(value, name)
        backend, xp = self.backend, self.backend.xp
        inside = self.domain.project(lam, backend)
        off = xp.max(xp.abs(inside - lam) / (1 + xp.abs(lam)))
        if backend.scalars(off)[0] > 8 * float(xp.finfo(self.dtype).eps):
            warnings.warn(
                f"{name} lies outside of the domain, {self.domain}: the search starts at the "
                "nearest point of it.",
                UserWarning,
                stacklevel=4,
            )
        return inside

    def x(self, value: Array | None, name: str = "x0") -> Array:
        """Check an inner variable; where there is none, what h says to start at, or zeros."""
        backend = self.backend
        if value is None and isinstance(self.inner, Startable):
            value, name = self.inner.start(), "the start that h states"
            if value is None:
                raise TypeError(f"{name} must be an array of shape {self.inner.x_shape}, got None.")
        if value is None:
            return backend.xp.zeros(self.inner.x_shape, dtype=self.dtype, device=backend.device)
        self._check_array(value, tuple(self.inner.x_shape), name)
        return next(lent(backend, value))

    def _check_array(self, value: Array, shape: tuple[int, ...], name: str) -> None:
        backend = self.backend
        same_backend(backend, dense_backend_of(**{name: value}), "the problem", name)
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}.")
        if value.dtype != self.dtype:
            raise TypeError(
                f"{name} has dtype {value.dtype} but the problem has dtype {self.dtype}."
            )
        if not bool(backend.xp.all(backend.xp.isfinite(value))):
            raise ValueError(f"{name} must be finite, got NaN or infinite values.")
