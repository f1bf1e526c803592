"""Whether an outer criterion fits the inner objective that it is to judge."""

from __future__ import annotations

from typing import Any

from ..backends import Backend, Has, same_backend
from ..design import Design, WithIntercept
from ..inner import LinearModel
from ..inner.penalties import FreeLast
from ._predictor import LinearPredictor
from .held_out import HeldOut
from .sure import MonteCarloSURE


def check_pair(inner: Any, outer: Any) -> None:
    """Refuse a criterion of another backend, dtype, shape or model than the inner objective.

    Raises
    ------
    ValueError, TypeError
        The message says what differs.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import linear_model
    >>> from bilevel.losses import Squared
    >>> from bilevel.outer import held_out
    >>> h = linear_model(np.eye(3), np.ones(3), Squared())
    >>> check_pair(h, held_out(np.eye(2), np.ones(2), Squared()))
    Traceback (most recent call last):
    ValueError: X_val has 2 features but X has 3.
    """
    if all(hasattr(outer, member) for member in ("x_shape", "n_hyperparameters", "column_passes")):
        raise TypeError(f"outer must be an outer criterion, got an inner {type(outer).__name__}.")
    predictor = getattr(outer, "predictor", None)
    for part in (outer, predictor):
        if part is not None:
            _same_library(inner, part)
    if isinstance(predictor, LinearPredictor):
        _same_space(inner, predictor.design)
    if isinstance(outer, HeldOut) and isinstance(predictor, LinearPredictor):
        _same_columns(inner, outer)
    for part in (outer, predictor, getattr(outer, "smoother", None)):
        model = getattr(part, "model", None)
        if model is not None and not _same_model(inner, model):
            raise ValueError(_OTHER)
    if isinstance(outer, MonteCarloSURE) and outer.targets is not getattr(inner, "y", None):
        raise ValueError(_OTHER)


_OTHER = "outer was made for another model than inner: hand over the model that it was made of."


_BACKEND = Has("a backend (bilevel.get_backend)", "name", "device")


def _same_library(inner: Any, part: Any) -> None:
    """Where the criterion says on which backend and in which dtype it computes."""
    theirs, ours = ("X_val", "X") if hasattr(part, "design") else ("outer", "inner")
    backend: Backend | None = getattr(part, "backend", None)
    if backend is not None:
        _BACKEND(backend, f"{theirs}.backend")
        same_backend(inner.backend, backend, ours, theirs)
    dtype = getattr(part, "dtype", None)
    if dtype is not None and dtype != inner.dtype:
        raise TypeError(
            f"{theirs} has dtype {dtype} but {ours} has dtype {inner.dtype}: convert one."
        )


def _has_intercept(design: Any) -> bool:
    while design is not None:
        if isinstance(design, WithIntercept):
            return True
        design = getattr(design, "base", None)
    return False


def _same_space(inner: Any, design: Design) -> None:
    """Training and held-out rows have the same features, and both an intercept or neither."""
    theirs, ours = design.shape[1], inner.x_shape[0]
    if isinstance(inner, LinearModel):
        free = isinstance(inner.penalty, FreeLast) or _has_intercept(inner.design)
        appended = _has_intercept(design)
        if free != appended:
            raise ValueError(
                f"fit_intercept is {free} for the training rows but {appended} for the held-out "
                "rows: give both the same."
            )
        theirs, ours = theirs - appended, ours - appended
    if theirs != ours:
        raise ValueError(f"X_val has {theirs} features but X has {ours}.")


def _same_columns(inner: Any, outer: HeldOut) -> None:
    """Held-out labels and weights fit the predictions, which have the last axes of x."""
    tail, own = tuple(inner.x_shape[1:]), tuple(outer.loss.output_shape)
    expected = tail[: len(own)]
    if expected != own or len(tail) > len(own) + 1:
        raise ValueError(
            f"The loss of the held-out rows takes predictions of shape (n, {_axes(own)}) but those "
            f"of the model have shape (n, {_axes(tail)}): give both the same loss."
        )
    columns = tail[len(own) :]
    found = [a for a in (outer.y, outer.sample_weight) if a is not None]
    widths = {a.shape[-1] if a.ndim > 1 + len(own) else None for a in found}
    fits = widths <= {None} if not columns else columns[0] in widths and widths <= {1, *columns}
    if not fits:
        wanted = f"{columns[0]} column(s)" if columns else "no columns"
        y = getattr(inner, "y", None)
        given = "" if y is None else f", as y of shape {tuple(y.shape)} says"
        raise ValueError(
            f"y and y_val must have the same columns, one for each problem: the inner model has "
            f"{wanted}{given}, and y_val or its sample_weight has "
            f"{' and '.join(str(tuple(a.shape)) for a in found)}. For one problem give both the "
            "shape (n,)."
        )


def _axes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _same_model(inner: Any, model: Any) -> bool:
    """The same object, or one that holds the same labels (as with views of its design)."""
    if model is inner:
        return True
    if type(model) is type(inner) and hasattr(model, "y"):
        return bool(model.y is inner.y)
    return (
        tuple(model.x_shape) == tuple(inner.x_shape)
        and model.n_hyperparameters == inner.n_hyperparameters
    )
