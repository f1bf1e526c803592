"""The checks of labels and row weights that all models share."""

from __future__ import annotations

from typing import Any

from ..backends import Array, Backend, dense_backend_of, same_backend


def refuse_other_rows(y: Array, n: int, name: str, X_name: str) -> None:
    """Refuse labels that are not one, or some columns, for each of n rows."""
    if y.ndim not in (1, 2) or y.shape[0] != n or 0 in y.shape:
        raise ValueError(
            f"{name} must have shape ({n},) or ({n}, K), a label for each row of {X_name}, got "
            f"{tuple(y.shape)}."
        )


def check_weights(
    weights: Array | None,
    X: Any,
    backend: Backend,
    *,
    X_name: str = "X",
    axes: tuple[int, ...] = (1, 2),
) -> Array | None:
    """Refuse row weights that do not fit the rows of a matrix or design, or are no weights.

    ``axes`` are the numbers of axes that they may have: a second one counts problems.
    """
    if weights is None:
        return None
    name, n = "sample_weight", X.shape[0]
    same_backend(backend, dense_backend_of(**{name: weights}), X_name, name)
    if weights.ndim not in axes or weights.shape[0] != n or 0 in weights.shape:
        shapes = " or ".join({1: f"({n},)", 2: f"({n}, K)"}[k] for k in axes)
        raise ValueError(f"{name} must have shape {shapes}, got {tuple(weights.shape)}.")
    if weights.dtype != X.dtype:
        raise TypeError(f"{name} has dtype {weights.dtype}, expected {X.dtype} as {X_name}.")
    _refuse_bad_weights(weights, backend, name)
    return weights


def _refuse_bad_weights(weights: Array, backend: Backend, name: str) -> None:
    """Refuse row weights that are negative, not finite, or all 0 in one of the problems."""
    xp = backend.xp
    if not bool(xp.all(xp.isfinite(weights) & (weights >= 0))):
        raise ValueError(f"{name} must be finite and not negative.")
    if not bool(xp.all(xp.max(weights, axis=0) > 0)):
        raise ValueError(f"{name} must be positive in one row at least of each problem, got 0.")
