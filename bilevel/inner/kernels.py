"""Kernels k(x, z; θ) with their derivatives in θ, the logarithms of their parameters.

Each computes a block of the kernel matrix from two sets of rows, so that memory is bounded by
the block and not by the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from ..backends import (
    COUNT,
    NOT_NEGATIVE,
    Array,
    Backend,
    Maybe,
    check_fields,
    function,
    lent,
)
from .distances import distance_rounding, square_distances


class Kernel(Protocol):
    """k(x, z; θ), symmetric and positive semidefinite."""

    @property
    def n_parameters(self) -> int:
        """The number of entries of θ."""
        ...

    @property
    def derivative_bound(self) -> float | None:
        """Sup abs(∂k/∂θ_i) over all x, z, θ and i, or None."""
        ...

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        """k(x_i, z_j), shape (n, m)."""
        ...

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        """∂k(x_i, z_j)/∂θ_l for each l, each of shape (n, m)."""
        ...

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        """k(x_i, x_i), shape (n,)."""
        ...


@runtime_checkable
class Rounding(Protocol):
    """A kernel that knows how much of it is lost in rounding."""

    def rounding(self, n_features: int, eps: float) -> float:
        """An r with |k as computed - k(x, z)| ≤ r √(k(x, x) k(z, z)); eps is that of the dtype."""
        ...


@runtime_checkable
class Scaled(Protocol):
    """A kernel that knows which θ fits the scale of the data."""

    def typical(self, X: Array, backend: Backend) -> tuple[float, ...]:
        """θ at which a kernel matrix of these rows is neither 0 nor 1 throughout."""
        ...


@runtime_checkable
class TwiceDifferentiable(Protocol):
    """A kernel that knows its second derivatives in θ."""

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...] | None:
        """∂²k(x_i, z_j)/∂θ_l∂θ_r for l ≤ r, row by row, each of shape (n, m); None if unknown."""
        ...


def second_derivatives(
    kernel: Kernel, X: Array, Z: Array, theta: Array, backend: Backend
) -> tuple[Array, ...] | None:
    """Those that the kernel knows, None where it is silent."""
    if not isinstance(kernel, TwiceDifferentiable):
        return None
    return kernel.second_derivatives(X, Z, theta, backend)


def kernel_rounding(kernel: Kernel, n_features: int, eps: float) -> float:
    """What the kernel states, or what a product of two rows loses at most where it is silent."""
    if isinstance(kernel, Rounding):
        return kernel.rounding(n_features, eps)
    return (n_features + 16) * eps


#: e^-a is 0 from here on in every precision; larger a would make a e^-a NaN where a overflows.
_FAR = 1e4


class _Stationary:
    """A kernel of one parameter θ = log γ and of the distance alone, with k(x, x) = 1.

    A subclass has k as a function of a = c γ ‖x - z‖^power.
    """

    derivative_bound: ClassVar[float]
    _factor: ClassVar[float]
    _power: ClassVar[int]

    @property
    def n_parameters(self) -> int:
        return 1

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        return backend.xp.ones_like(X[:, 0])

    def rounding(self, n_features: int, eps: float) -> float:
        """What a relative error of a does to k, |a dk/da| ≤ derivative_bound, and k's own."""
        relative = distance_rounding(n_features, eps) * self._power / 2 + 4 * eps
        return self.derivative_bound * relative + 8 * eps

    def typical(self, X: Array, backend: Backend) -> tuple[float, ...]:
        """A = 1 at the median distance."""
        middle = median_square_distance(X, backend)
        return (-math.log(self._factor) - math.log(middle) * self._power / 2,)

    def _scaled(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        """A, cut where it makes k zero."""
        xp = backend.xp
        distances = square_distances(X, Z, backend)
        if self._power == 1:
            distances = xp.sqrt(distances)
        # Cut before the product, which might overflow; the limit itself must not either.
        most = math.log(float(xp.finfo(distances.dtype).max) / (2 * _FAR))
        limit = _FAR * xp.exp(xp.minimum(-theta[0], xp.full_like(theta[0], most)))
        return self._factor * xp.exp(theta[0]) * xp.minimum(distances, limit)


#: Rows of the sample that the median distance is taken of.
_SAMPLE = 1000


def median_square_distance(X: Array, backend: Backend) -> float:
    """The median of ‖x_i - x_j‖² > 0 over a sample of the rows, 1 where all are equal.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> median_square_distance(np.array([[0.0], [1.0], [3.0]]), bilevel.get_backend("numpy"))
    4.0
    """
    stride = -(-X.shape[0] // _SAMPLE)
    sample = X[::stride, :]
    xp = backend.xp
    ordered = xp.sort(xp.reshape(square_distances(sample, sample, backend), (-1,)))
    none, known = (xp.sum(xp.astype(a, ordered.dtype)) for a in (ordered <= 0, ordered < math.inf))
    first, last = (int(count) for count in backend.scalars(none, known))
    return backend.scalars(ordered[(first + last) // 2])[0] if first < last else 1.0


@dataclass(frozen=True)
class RBF(_Stationary):
    """k = exp(-γ ‖x - z‖²); ∂k/∂log γ = -γ ‖x - z‖² k, at most 1/e.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> X = np.array([[0.0], [1.0]])
    >>> RBF().block(X, X, np.zeros(1), bilevel.get_backend("numpy")).round(4)
    array([[1.    , 0.3679],
           [0.3679, 1.    ]])
    """

    derivative_bound: ClassVar[float] = math.exp(-1)
    _factor: ClassVar[float] = 1.0
    _power: ClassVar[int] = 2

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        return backend.xp.exp(-self._scaled(X, Z, theta, backend))

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (-a * backend.xp.exp(-a),)

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (a * (a - 1) * backend.xp.exp(-a),)


@dataclass(frozen=True)
class Matern32(_Stationary):
    """k = (1 + a) e^{-a} with a = √3 γ ‖x - z‖; ∂k/∂log γ = -a² e^{-a}, at most 4/e².

    1/γ is the length scale (Rasmussen and Williams 2006, equation 4.17).
    """

    derivative_bound: ClassVar[float] = 4 * math.exp(-2)
    _factor: ClassVar[float] = 3**0.5
    _power: ClassVar[int] = 1

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        a = self._scaled(X, Z, theta, backend)
        return (1 + a) * backend.xp.exp(-a)

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (-a * a * backend.xp.exp(-a),)

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (a * a * (a - 2) * backend.xp.exp(-a),)


@dataclass(frozen=True)
class Matern52(_Stationary):
    """k = (1 + a + a²/3) e^{-a} with a = √5 γ ‖x - z‖; ∂k/∂log γ = -a² (1 + a) e^{-a} / 3.

    The derivative is largest at a = 1 + √3. 1/γ is the length scale (Rasmussen and Williams
    2006, equation 4.17).
    """

    derivative_bound: ClassVar[float] = (1 + 3**0.5) ** 2 * (2 + 3**0.5) * math.exp(-1 - 3**0.5) / 3
    _factor: ClassVar[float] = 5**0.5
    _power: ClassVar[int] = 1

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        a = self._scaled(X, Z, theta, backend)
        return (1 + a + a * a / 3) * backend.xp.exp(-a)

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (-a * a * (1 + a) * backend.xp.exp(-a) / 3,)

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (a * a * (a * (a - 2) - 2) * backend.xp.exp(-a) / 3,)


@dataclass(frozen=True)
class Polynomial:
    """k = (γ xᵀz + c)^d; ∂k/∂log γ = d (γ xᵀz + c)^{d-1} γ xᵀz.

    Parameters
    ----------
    degree : int
        d ≥ 1.
    constant : float
        c ≥ 0, fixed.
    """

    degree: int = 3
    constant: float = 1.0

    derivative_bound: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_fields(self, degree=COUNT, constant=NOT_NEGATIVE)

    @property
    def n_parameters(self) -> int:
        return 1

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        xp = backend.xp
        return (xp.exp(theta[0]) * xp.matmul(X, Z.T) + self.constant) ** self.degree

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        xp = backend.xp
        a = xp.exp(theta[0]) * xp.matmul(X, Z.T)
        return (self.degree * (a + self.constant) ** (self.degree - 1) * a,)

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...]:
        d, xp = self.degree, backend.xp
        a = xp.exp(theta[0]) * xp.matmul(X, Z.T)
        if d == 1:
            return (a,)
        return (d * a * (a + self.constant) ** (d - 2) * (d * a + self.constant),)

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        xp = backend.xp
        return (xp.exp(theta[0]) * xp.sum(X * X, axis=1) + self.constant) ** self.degree

    def rounding(self, n_features: int, eps: float) -> float:
        """Of γ xᵀz + c ≤ √(γ‖x‖² + c) √(γ‖z‖² + c), ``degree`` times, and of the power."""
        return self.degree * (n_features + 6) * eps

    def typical(self, X: Array, backend: Backend) -> tuple[float, ...]:
        """Γ ‖x‖² = 1 at the mean of the squares."""
        xp = backend.xp
        (square,) = backend.scalars(xp.mean(xp.sum(X * X, axis=1)))
        return (-math.log(square) if 0 < square < math.inf else 0.0,)


@dataclass(frozen=True)
class UserKernel:
    """A kernel from functions of (X, Z, θ), on arrays of the user's own library.

    They are handed copies, and what they return is copied.

    Parameters
    ----------
    n_parameters : int
        Entries of θ.
    function : callable
        (X, Z, θ) ↦ k, shape (n, m). It must be positive semidefinite: the strong convexity
        that kernel ridge regression states rests on that.
    function_derivatives : callable
        (X, Z, θ) ↦ a tuple of ∂k/∂θ_l, each of shape (n, m).
    function_diag : callable
        (X, θ) ↦ k(x_i, x_i), shape (n,).
    derivative_bound : float or None
        sup abs(∂k/∂θ_l), where it is known.
    function_second_derivatives : callable, optional
        (X, Z, θ) ↦ a tuple of ∂²k/∂θ_l∂θ_r for l ≤ r, row by row, each of shape (n, m).

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> linear = UserKernel(
    ...     1,
    ...     lambda X, Z, theta: np.exp(theta[0]) * (X @ Z.T),
    ...     lambda X, Z, theta: (np.exp(theta[0]) * (X @ Z.T),),
    ...     lambda X, theta: np.exp(theta[0]) * (X * X).sum(axis=1),
    ... )
    >>> linear.diag(np.array([[2.0]]), np.zeros(1), bilevel.get_backend("numpy"))
    array([4.])
    """

    n_parameters: int
    function: Callable[[Array, Array, Array], Array]
    function_derivatives: Callable[[Array, Array, Array], tuple[Array, ...]]
    function_diag: Callable[[Array, Array], Array]
    derivative_bound: float | None = None
    function_second_derivatives: Callable[[Array, Array, Array], tuple[Array, ...]] | None = None

    def __post_init__(self) -> None:
        check_fields(
            self,
            n_parameters=COUNT,
            function=function,
            function_derivatives=function,
            function_diag=function,
            derivative_bound=Maybe(NOT_NEGATIVE),
            function_second_derivatives=Maybe(function),
        )

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        return next(lent(backend, self.function(*lent(backend, X, Z, theta))))

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        found = self.function_derivatives(*lent(backend, X, Z, theta))
        return tuple(lent(backend, *found))

    def second_derivatives(
        self, X: Array, Z: Array, theta: Array, backend: Backend
    ) -> tuple[Array, ...] | None:
        if self.function_second_derivatives is None:
            return None
        found = self.function_second_derivatives(*lent(backend, X, Z, theta))
        return tuple(lent(backend, *found))

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        return next(lent(backend, self.function_diag(*lent(backend, X, theta))))
