"""What predictors of dense rows share: the rows, their counter, and the check of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..backends import POSITIVE, Array, Backend, Number, common_dtype, dense_backend_of, described
from ..design import Passes
from ..inner import Inner
from ..inner._checks import refuse_other_rows
from ..inner.kernel_ridge import check_matrix


@dataclass(frozen=True)
class RowsPredictor:
    """Predicts rows of a dense matrix, and counts the passes over them."""

    model: Inner
    rows: Array
    counter: Passes = field(default_factory=Passes, compare=False)

    @property
    def backend(self) -> Backend:
        return self.model.backend

    @property
    def dtype(self) -> Any:
        return self.model.dtype

    @property
    def n_rows(self) -> int:
        return int(self.rows.shape[0])

    @property
    def passes(self) -> float:
        return self.counter.total

    def row_square_norms(self) -> None:
        return None


def check_rows(X: Array, X_train: Array, y: Array) -> Backend:
    """Refuse held-out rows that do not fit the training rows; return the backend of both."""
    backend = dense_backend_of(X_train=X_train, X_val=X, y_val=y)
    common_dtype(backend, X_train=X_train, X_val=X)
    check_matrix(X, "X_val", backend)
    if X.shape[1] != X_train.shape[1]:
        raise ValueError(f"X_val has {X.shape[1]} features but X has {X_train.shape[1]}.")
    refuse_other_rows(y, X.shape[0], "y_val", "X_val")
    return backend


def standard_deviation(noise: Any, dtype: Any, backend: Backend) -> float:
    """Refuse a σ that is not positive, or whose square leaves the numbers of a dtype."""
    noise = POSITIVE(noise, "noise")
    reach = 10.0 ** (math.log10(float(backend.xp.finfo(dtype).max)) // 2 - 1)
    return Number(at_least=1 / reach, at_most=reach)(noise, "noise")


def refuse_other_models(model: Any, *kinds: type) -> None:
    """Refuse a model of another kind than those that a criterion is made of."""
    if not isinstance(model, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"model must be a {expected}, got {described(model)}.")
