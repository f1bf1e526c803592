"""What a loss is: a function of one label and one prediction, with its derivatives."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from ..backends import Array, Backend


class Loss(Protocol):
    """ℓ(y, t), row by row, convex in the prediction t, twice differentiable almost everywhere.

    Labels y and predictions t have the rows of the data as their first axis. A loss of one
    number a row (:class:`Pointwise`) takes any further axes, each entry on its own; a loss of c
    numbers a row has them on axis 1. Axes after these count independent problems (folds).
    """

    @property
    def curvature_bound(self) -> float | None:
        """Sup of the largest eigenvalue of ∂²ℓ/∂t², or None where there is none."""
        ...

    @property
    def third_bound(self) -> float | None:
        """Lipschitz constant of t ↦ ∂²ℓ/∂t² (spectral norm), or None where there is none."""
        ...

    @property
    def self_concordance(self) -> float | None:
        """Sup of |∂³ℓ[u, v, v]| / (‖u‖ ∂²ℓ[v, v]), or None where there is none (Bach 2010)."""
        ...

    @property
    def curvature_lower(self) -> float:
        """Inf of the smallest eigenvalue of ∂²ℓ/∂t²."""
        ...

    @property
    def shift_invariant(self) -> bool:
        """Whether the predictions of a row may be shifted together: ℓ(y, t + s 1) = ℓ(y, t)."""
        ...

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The predictions of one row: () for one number, (c,) for c of them."""
        ...

    def encode(self, y: Array, backend: Backend, dtype: Any, name: str) -> Array:
        """Check labels and return them in the form that the methods below take."""
        ...

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        """Raise ValueError where the labels are not of this loss."""
        ...

    def value(self, y: Array, t: Array, backend: Backend) -> Array:
        """ℓ(y, t), broadcastable to t: (n, 1, ...) where a row has c predictions."""
        ...

    def least(self, y: Array, backend: Backend) -> Array:
        """Inf of ℓ(y, t) over t for the rows of y, broadcastable to :meth:`value`."""
        ...

    def derivative(self, y: Array, t: Array, backend: Backend) -> Array:
        """∂ℓ/∂t, the shape of t."""
        ...

    def curvature(self, y: Array, t: Array, backend: Backend) -> Array:
        """Return what :meth:`curvature_product` needs of ∂²ℓ/∂t²: itself, if it is one number."""
        ...

    def curvature_product(self, curvature: Array, d: Array, backend: Backend) -> Array:
        """∂²ℓ/∂t² d, for d of the shape of t, or with one more axis that counts several."""
        ...

    def curvature_diag(self, curvature: Array, backend: Backend) -> Array:
        """Diag ∂²ℓ/∂t², the shape of t."""
        ...


class Pointwise:
    """What the losses of one number a row share: their curvature is a number a prediction."""

    curvature_lower: ClassVar[float] = 0.0
    self_concordance: ClassVar[float | None] = None
    shift_invariant: ClassVar[bool] = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        return ()

    def encode(self, y: Array, backend: Backend, dtype: Any, name: str) -> Array:
        y = float_labels(y, backend, dtype, name)
        self.validate(y, backend, name)
        return y

    def validate(self, y: Array, backend: Backend, name: str) -> None:
        """Take any finite number; a loss with labels of its own refuses the others."""

    def least(self, y: Array, backend: Backend) -> Array:
        """Zero, as of every loss but Poisson's."""
        return backend.xp.zeros_like(y)

    def curvature_product(self, curvature: Array, d: Array, backend: Backend) -> Array:
        return (curvature if d.ndim == curvature.ndim else curvature[..., None]) * d

    def curvature_diag(self, curvature: Array, backend: Backend) -> Array:
        return curvature


def float_labels(y: Array, backend: Backend, dtype: Any, name: str) -> Array:
    """Return finite labels of the dtype of the features; integers and booleans are converted.

    Raises
    ------
    TypeError
        If the labels are of another floating dtype.
    ValueError
        If one is NaN or infinite.
    """
    xp = backend.xp
    if xp.isdtype(y.dtype, ("integral", "bool")):
        return xp.astype(y, dtype)
    if y.dtype != dtype:
        raise TypeError(f"{name} has dtype {y.dtype} but X has dtype {dtype}: convert one.")
    if not bool(xp.all(xp.isfinite(y))):
        raise ValueError(f"{name} holds NaN or infinite values.")
    return y


def refuse_labels_but_signs(y: Array, backend: Backend, name: str) -> None:
    """Raise ValueError where a label is neither -1 nor +1."""
    xp = backend.xp
    if not bool(xp.all((y == 1) | (y == -1))):
        found = backend.to_numpy(xp.unique_values(y))[:5].tolist()
        raise ValueError(f"{name} must hold the labels -1 and +1 alone, got {found}.")
