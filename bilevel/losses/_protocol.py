"""What a loss is: a function of one label and one prediction, with its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from ..backends import Array, Backend, Has, all_finite, as_floats

#: A loss, its labels, predictions and where they live.
Formula: TypeAlias = Callable[[Any, Array, Array, Backend], Array]


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
        """Sup of abs(∂³ℓ[u, v, v]) / (‖u‖ ∂²ℓ[v, v]), or None where there is none (Bach 2010)."""
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


@runtime_checkable
class Accounted(Protocol):
    """A loss that says how exactly it is computed; without that nothing of it can be proven."""

    def rounding(self, y: Array, t: Array, backend: Backend) -> tuple[Array, Array]:
        """Bounds of the errors of value and derivative, in units of the roundoff.

        Of the shapes that :meth:`Loss.value` and :meth:`Loss.derivative` have, at exactly these t.
        The curvature is taken to be right to :data:`ELEMENTARY` units of its bound.
        """
        ...


#: Units of roundoff (half a last place) by which an elementary function may be off; those of the
#: libraries are good to a few last places.
ELEMENTARY = 32


@runtime_checkable
class Totals(Protocol):
    """A loss of c predictions a row that sums its Hessians without forming each of them."""

    def curvature_total(self, curvature: Array, s: Array | None, backend: Backend) -> Array:
        """Σ_i s_i ∂²ℓ/∂t² over the rows, (c, c), or (K, c, c) of curvatures (n, c, K)."""
        ...


@runtime_checkable
class Thirds(Protocol):
    """A loss that knows its third derivative; one whose ``third_bound`` is 0 need not say so."""

    def third(self, y: Array, t: Array, backend: Backend) -> Array:
        """Return what :meth:`third_product` needs of ∂³ℓ/∂t³: itself, if it is one number.

        Of a loss whose curvature jumps: that between the jumps.
        """
        ...

    def third_product(self, third: Array, u: Array, v: Array, backend: Backend) -> Array:
        """∂³ℓ/∂t³ [u, v], for u of the shape of t, and v with one more axis that counts several."""
        ...


#: What takes the place of a loss has to be one.
LOSS = Has(
    "a loss",
    *("output_shape", "encode", "value", "derivative", "curvature", "curvature_product"),
    *("curvature_diag", "least", "curvature_bound", "third_bound", "self_concordance"),
    *("curvature_lower", "shift_invariant"),
)


def entrywise(name: str, *constants: str) -> Callable[[Formula], Formula]:
    """A method (y, t, backend) that works entry by entry: one launch where there is a kernel.

    ``name`` is that of the kernel, ``constants`` are attributes of the loss that it takes besides.
    """

    def of(formula: Formula) -> Formula:
        @wraps(formula)
        def method(self: Any, y: Array, t: Array, backend: Backend) -> Array:
            numbers = (getattr(self, constant) for constant in constants)
            plain = lambda y, t, *_: formula(self, y, t, backend)
            return backend.fused(name, plain, y, t, *numbers)

        return method

    return of


class Proportional:
    """A loss that is :class:`Accounted`, whose errors are in proportion to what is computed.

    ``units`` are those of the value and of the derivative, of themselves.
    """

    units: ClassVar[tuple[float, float]]

    def rounding(self, y: Array, t: Array, backend: Backend) -> tuple[Array, Array]:
        value, slope = self.units
        found = self.value(y, t, backend), self.derivative(y, t, backend)  # type: ignore[attr-defined]
        return value * found[0], slope * backend.xp.abs(found[1])


def proportions(loss: Loss) -> tuple[float, float] | None:
    """The units of a loss that is :class:`Proportional`, and has no other account of its own."""
    own = getattr(type(loss), "rounding", None)
    return loss.units if own is Proportional.rounding else None  # type: ignore[attr-defined]


class Pointwise:
    """What the losses of one number a row share: their curvature is a number a prediction."""

    curvature_bound: ClassVar[float | None] = None
    third_bound: ClassVar[float | None] = None
    self_concordance: ClassVar[float | None] = None
    curvature_lower: ClassVar[float] = 0.0
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

    def support(self, y: Array, backend: Backend) -> dict[str, Array]:
        """The rows without which a free intercept has no best value, by what they are.

        One of each has to have a positive weight. For encoded labels.
        """
        return {"a row": backend.xp.ones_like(y)}

    def least(self, y: Array, backend: Backend) -> Array:
        """Zero, as of every loss but Poisson's."""
        return backend.xp.zeros_like(y)

    def curvature_product(self, curvature: Array, d: Array, backend: Backend) -> Array:
        return (curvature if d.ndim == curvature.ndim else curvature[..., None]) * d

    def curvature_diag(self, curvature: Array, backend: Backend) -> Array:
        return curvature

    def third_product(self, third: Array, u: Array, v: Array, backend: Backend) -> Array:
        return (third * u)[..., None] * v


def sign_support(y: Array) -> dict[str, Array]:
    """One row of each sign: without it the intercept runs off to infinity."""
    return {"a row of class -1": y < 0, "a row of class +1": y > 0}


def refuse_without_support(
    loss: Loss, y: Array, weights: Array | None, backend: Backend, name: str
) -> None:
    """Refuse labels with which a model with a free intercept has no (unique) minimum.

    Parameters
    ----------
    loss : Loss
        Whose ``support`` says what rows it needs; one without is not asked.
    y : array
        Labels as the loss encodes them.
    weights : array or None
        Row weights, broadcastable to y; with columns, each problem needs its rows.
    backend : Backend
        Where they live.
    name : str
        How the user calls y.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> loss, backend = bilevel.losses.Logistic(), bilevel.get_backend("numpy")
    >>> refuse_without_support(loss, np.ones(3), None, backend, "y")
    Traceback (most recent call last):
    ValueError: y must hold a row of class -1 in the training part, since with a free intercept \
there is no best model otherwise: got none.
    """
    support = getattr(loss, "support", None)
    if support is None:
        return
    xp = backend.xp
    needed: dict[str, Array] = support(y, backend)

    def heaviest(rows: Array) -> Array:
        rows = xp.astype(rows, y.dtype)
        return xp.max(rows if weights is None else rows * weights, axis=0)

    best = [heaviest(rows) for rows in needed.values()]
    for what, least, columns in zip(
        needed, backend.scalars(*(xp.min(b) for b in best)), best, strict=True
    ):
        if not least > 0:
            weighted = "" if weights is None else " of positive sample_weight"
            flat = backend.to_numpy(columns).reshape(-1)
            part = f"training part {int(flat.argmin())}" if flat.size > 1 else "the training part"
            raise ValueError(
                f"{name} must hold {what}{weighted} in {part}, since with a free intercept there "
                "is no best model otherwise: got none."
            )


def float_labels(y: Array, backend: Backend, dtype: Any, name: str) -> Array:
    """Return finite labels of the dtype of the features; integers and booleans are converted.

    Raises
    ------
    TypeError
        If the labels are of another floating dtype.
    ValueError
        If one is NaN or infinite, or an integer that float32 may not hold.
    """
    y = as_floats(backend, y, name, dtype)
    if y.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {y.dtype} but its features have dtype {dtype}: convert one."
        )
    if not all_finite(y, backend):
        raise ValueError(f"{name} holds NaN or infinite values.")
    return y


def refuse_labels_but_signs(y: Array, backend: Backend, name: str) -> None:
    """Raise ValueError where a label is neither -1 nor +1."""
    xp = backend.xp
    if not bool(xp.all((y == 1) | (y == -1))):
        found = backend.to_numpy(xp.unique_values(y))[:5].tolist()
        raise ValueError(f"{name} must hold the labels -1 and +1 alone, got {found}.")
