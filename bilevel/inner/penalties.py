"""ℓ2 penalties with their hyperparameters: ½ Σ_j e^{λ_g(j)} x_j².

One λ for all coefficients, one for each group of them, or one for each. The hyperparameter is
the logarithm of the regularisation constant, so that D is a box and the constant positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..backends import Array, Backend


class Penalty(Protocol):
    """½ Σ_j w_j(λ) x_j², w = e^λ spread over the coefficients."""

    @property
    def n_hyperparameters(self) -> int: ...

    def weights(self, lam: Array, backend: Backend) -> Array:
        """w(λ), broadcastable to (p,)."""
        ...

    def cross_vjp(self, wx: Array, q: Array, backend: Backend) -> Array:
        """Σ_{j in group} (w x)_j q_j for each group, shape (m,); (m, k) for q of (p, k)."""
        ...

    def spread(self, d: Array, backend: Backend) -> Array:
        """d (m,) at each coefficient, broadcastable to (p,)."""
        ...


@dataclass(frozen=True)
class SingleL2:
    """e^λ/2 ‖x‖², one hyperparameter.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> SingleL2().weights(np.array([0.0]), bilevel.get_backend("numpy"))
    array([1.])
    """

    @property
    def n_hyperparameters(self) -> int:
        return 1

    def weights(self, lam: Array, backend: Backend) -> Array:
        return backend.xp.exp(lam)

    def cross_vjp(self, wx: Array, q: Array, backend: Backend) -> Array:
        product = backend.xp.matmul(wx, q)
        return backend.xp.reshape(product, (1, *q.shape[1:]))

    def spread(self, d: Array, backend: Backend) -> Array:
        return d


@dataclass(frozen=True)
class GroupL2:
    """½ Σ_j e^{λ_g(j)} x_j², one hyperparameter for each group of coefficients.

    Attributes
    ----------
    groups : array of integers, shape (p,)
        The group 0, ..., m-1 of each coefficient.
    n_groups : int
        m.
    """

    groups: Array
    n_groups: int

    @classmethod
    def from_labels(cls, groups: npt.ArrayLike, p: int, backend: Backend) -> GroupL2:
        """Check group numbers and move them to the backend.

        Raises
        ------
        ValueError
            If ``groups`` is not of shape (p,) or does not use each of 0, ..., m-1.
        """
        labels = np.asarray(groups)
        if labels.shape != (p,):
            raise ValueError(f"groups must have shape ({p},), got {labels.shape}.")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"groups must be integers, got dtype {labels.dtype}.")
        used = np.unique(labels)
        if not np.array_equal(used, np.arange(len(used))):
            raise ValueError(
                f"groups must use each of 0, ..., m-1, got the numbers {used[:10].tolist()}."
            )
        return cls(backend.asarray(labels.astype(np.int64)), len(used))

    @property
    def n_hyperparameters(self) -> int:
        return self.n_groups

    def weights(self, lam: Array, backend: Backend) -> Array:
        return backend.xp.take(backend.xp.exp(lam), self.groups, axis=0)

    def cross_vjp(self, wx: Array, q: Array, backend: Backend) -> Array:
        xp = backend.xp
        if q.ndim == 1:
            return backend.segment_sum(wx * q, self.groups, self.n_groups)
        columns = [
            backend.segment_sum(wx * q[:, i], self.groups, self.n_groups)
            for i in range(q.shape[1])
        ]
        return xp.stack(columns, axis=1)

    def spread(self, d: Array, backend: Backend) -> Array:
        return backend.xp.take(d, self.groups, axis=0)


@dataclass(frozen=True)
class EachL2:
    """½ Σ_j e^{λ_j} x_j², one hyperparameter for each of p coefficients."""

    p: int

    @property
    def n_hyperparameters(self) -> int:
        return self.p

    def weights(self, lam: Array, backend: Backend) -> Array:
        return backend.xp.exp(lam)

    def cross_vjp(self, wx: Array, q: Array, backend: Backend) -> Array:
        return wx * q if q.ndim == 1 else wx[:, None] * q

    def spread(self, d: Array, backend: Backend) -> Array:
        return d
