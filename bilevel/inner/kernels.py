"""Kernels k(x, z; θ) with their derivatives in θ, the logarithms of their parameters.

Each computes a block of the kernel matrix from two sets of rows, so that memory is bounded by
the block and not by the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..backends import (
    COUNT,
    NOT_NEGATIVE,
    Array,
    Backend,
    Maybe,
    check_fields,
    function,
)


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


def square_distances(X: Array, Z: Array, backend: Backend) -> Array:
    """‖x_i - z_j‖², clipped at zero where rounding would make it negative."""
    xp = backend.xp
    squares = xp.sum(X * X, axis=1)[:, None] + xp.sum(Z * Z, axis=1)[None, :]
    distances = squares - 2 * xp.matmul(X, Z.T)
    return xp.maximum(distances, xp.zeros_like(distances))


class _Stationary:
    """A kernel of one parameter θ = log γ and of the distance alone, with k(x, x) = 1."""

    @property
    def n_parameters(self) -> int:
        return 1

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        return backend.xp.ones_like(X[:, 0])


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

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        gamma = backend.xp.exp(theta[0])
        return backend.xp.exp(-gamma * square_distances(X, Z, backend))

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = backend.xp.exp(theta[0]) * square_distances(X, Z, backend)
        return (-a * backend.xp.exp(-a),)


@dataclass(frozen=True)
class Matern32(_Stationary):
    """k = (1 + a) e^{-a} with a = √3 γ ‖x - z‖; ∂k/∂log γ = -a² e^{-a}, at most 4/e².

    1/γ is the length scale (Rasmussen and Williams 2006, equation 4.17).
    """

    derivative_bound: ClassVar[float] = 4 * math.exp(-2)

    def _scaled(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        xp = backend.xp
        return 3**0.5 * xp.exp(theta[0]) * xp.sqrt(square_distances(X, Z, backend))

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        a = self._scaled(X, Z, theta, backend)
        return (1 + a) * backend.xp.exp(-a)

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (-a * a * backend.xp.exp(-a),)


@dataclass(frozen=True)
class Matern52(_Stationary):
    """k = (1 + a + a²/3) e^{-a} with a = √5 γ ‖x - z‖; ∂k/∂log γ = -a² (1 + a) e^{-a} / 3.

    The derivative is largest at a = 1 + √3. 1/γ is the length scale (Rasmussen and Williams
    2006, equation 4.17).
    """

    derivative_bound: ClassVar[float] = (1 + 3**0.5) ** 2 * (2 + 3**0.5) * math.exp(-1 - 3**0.5) / 3

    def _scaled(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        xp = backend.xp
        return 5**0.5 * xp.exp(theta[0]) * xp.sqrt(square_distances(X, Z, backend))

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        a = self._scaled(X, Z, theta, backend)
        return (1 + a + a * a / 3) * backend.xp.exp(-a)

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        a = self._scaled(X, Z, theta, backend)
        return (-a * a * (1 + a) * backend.xp.exp(-a) / 3,)


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

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        xp = backend.xp
        return (xp.exp(theta[0]) * xp.sum(X * X, axis=1) + self.constant) ** self.degree


@dataclass(frozen=True)
class UserKernel:
    """A kernel from functions of (X, Z, θ), on arrays of the user's own library.

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

    def __post_init__(self) -> None:
        check_fields(
            self,
            n_parameters=COUNT,
            function=function,
            function_derivatives=function,
            function_diag=function,
            derivative_bound=Maybe(NOT_NEGATIVE),
        )

    def block(self, X: Array, Z: Array, theta: Array, backend: Backend) -> Array:
        return self.function(X, Z, theta)

    def derivatives(self, X: Array, Z: Array, theta: Array, backend: Backend) -> tuple[Array, ...]:
        return self.function_derivatives(X, Z, theta)

    def diag(self, X: Array, theta: Array, backend: Backend) -> Array:
        return self.function_diag(X, theta)
