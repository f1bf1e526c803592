"""What ``fit`` and ``predict`` are given, checked: on the host by scikit-learn, else here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from bilevel import get_backend
from bilevel.backends import (
    Array,
    Backend,
    all_finite,
    as_floats,
    check_sparse,
    common_dtype,
    is_sparse,
    library_of,
    refuse_matrix_classes,
)


@dataclass(frozen=True)
class Rows:
    """Features, targets and weights of some rows, on one backend.

    All are of one dtype, but for targets of a regression, which may be finer than X until they are
    centred or cast.
    """

    X: Any
    y: Any
    weights: Array | None
    backend: Backend

    @property
    def n(self) -> int:
        return int(self.X.shape[0])

    def level(self) -> Array:
        """The weighted mean of the targets, in their own dtype."""
        xp, y = self.backend.xp, self.y
        if self.weights is None:
            return xp.mean(y, axis=0)
        shares = xp.astype(self.weights, y.dtype)
        return xp.tensordot(shares / xp.sum(shares), y, axes=1)

    def placed(self, level: Array | None) -> Rows:
        """The same with targets less that level, in the dtype of X."""
        y = self.y if level is None else self.y - level
        if y.dtype != self.X.dtype:
            y = self.backend.xp.astype(y, self.X.dtype)
        return replace(self, y=y)


def on_host(X: Any) -> bool:
    """Whether scikit-learn is to check this: what is no array of a device library."""
    return library_of(X) in (None, "numpy")


def refuse_elsewhere(**arrays: Any) -> None:
    """Refuse what scikit-learn's own code cannot read: it converts to NumPy without a word.

    Raises
    ------
    TypeError
        If an array lies on a device, or is a sparse matrix of another library than SciPy.
    """
    for name, array in arrays.items():
        if on_host(array):
            continue
        try:
            readable = not is_sparse(array) and np.asarray(array[:0, ...]) is not None
        except (TypeError, RuntimeError, BufferError):  # CuPy, dpnp; torch; array-api-strict
            readable = False
        if not readable:
            backend = get_backend(array)
            if backend.xp.isdtype(array.dtype, "real floating"):
                common_dtype(backend, **{name: array})  # bfloat16 is nowhere to be read
            raise TypeError(
                f"{name} is on {backend.name} ({backend.device}), where scikit-learn's steps "
                "cannot read it: bring it to the host with get_backend(...).to_numpy, or take an "
                "estimator of bilevel's own, which stays on the device."
            )


def check_features(estimator: Any, X: Any, *, sparse: bool, reset: bool) -> Any:
    """Return X as a float array or CSR matrix of its own library; set or check its features."""
    _check_class(X, "X")
    if on_host(X):
        return validate_data(
            estimator, X, reset=reset, dtype=[np.float64, np.float32], **_sparse(sparse)
        )
    backend = get_backend(X)
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: X has shape {tuple(X.shape)}."
        )
    if is_sparse(X):
        if not sparse:
            raise TypeError(
                f"Sparse data was passed to {type(estimator).__name__}, which takes dense data "
                "alone: use X.toarray()."
            )
    else:
        X = _floats(X, backend, "X")
    common_dtype(backend, X=X)
    if not is_sparse(X) and not all_finite(X, backend):
        raise ValueError("X holds NaN or infinite values; every entry must be finite.")
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input."
        )
    return X


def _floats(array: Array, backend: Backend, name: str) -> Array:
    """Integers as the floats that scikit-learn makes of them on the host."""
    if backend.xp.isdtype(array.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported: {name} has dtype {array.dtype}.")
    return as_floats(backend, array, name)


@contextmanager
def half_of_cv(name: str) -> Iterator[None]:
    """Let whatever is wrong with X_val or y_val name it, whoever finds it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        said = str(error)
        raise kind(said if name in said else f"{name} of cv is refused: {said}") from error


def refuse_masked(**arrays: Any) -> None:
    """Before scikit-learn or NumPy convert them, which drops a mask and takes what is under it."""
    for name, array in arrays.items():
        refuse_matrix_classes(array, name)


def refuse_unreadable(**arrays: Any) -> None:
    """Refuse what scikit-learn's own code would read wrongly, or could not.

    It drops masks, converts to NumPy, and trusts the indices of a sparse matrix.
    """
    refuse_masked(**arrays)
    refuse_elsewhere(**arrays)
    for name, array in arrays.items():
        check_sparse(array, name)


def _check_class(X: Any, name: str) -> None:
    """Before scikit-learn converts it: compiled code would trust the indices of a sparse matrix."""
    refuse_matrix_classes(X, name)
    check_sparse(X, name)


def _sparse(allowed: bool) -> dict[str, Any]:
    return {"accept_sparse": "csr"} if allowed else {}


def check_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, *, sparse: bool, classifier: bool
) -> Rows:
    """Check all that ``fit`` is given. y and weights follow X to its library and device."""
    refuse_masked(y=y, sample_weight=sample_weight)
    if on_host(X):
        _check_class(X, "X")
        more = {} if classifier else {"y_numeric": True, "multi_output": True}
        X, y = validate_data(
            estimator,
            X,
            y,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2,
            **_sparse(sparse),
            **more,
        )
    else:
        X = check_features(estimator, X, sparse=sparse, reset=True)
    backend = get_backend(X)
    if classifier:
        y = _classes(y, backend)
    elif not on_host(y) or backend.name != "numpy":
        y = backend.asarray(y)
    if X.shape[0] < 2 or X.shape[0] != y.shape[0]:
        raise ValueError(
            f"Found arrays with inconsistent or too few rows: X has n_samples = {X.shape[0]}, y "
            f"has {y.shape[0]}; a validation needs 2 rows or more."
        )
    if not classifier:
        y = check_targets(y, X.dtype, backend)
    return Rows(X, y, _weights(sample_weight, X, backend), backend)


def _classes(y: Any, backend: Backend) -> Any:
    """Labels as they are where the device has them, else on the host: they may be words."""
    if not on_host(y):
        same = library_of(y) == backend.name
        y = backend.asarray(y) if same else backend.asarray(get_backend(y).to_numpy(y))
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            raise ValueError(f"y must have shape (n,), a class for each row, got {tuple(y.shape)}.")
        check_classification_targets(get_backend(y).to_numpy(y))
        return y
    y = np.asarray(y)
    check_classification_targets(y)
    return y


def check_targets(y: Any, dtype: Any, backend: Backend, name: str = "y") -> Array:
    """Targets as floats of the precision of X, or of their own if finer: they are to be centred."""
    xp, y = backend.xp, backend.asarray(y)
    if not xp.isdtype(y.dtype, ("numeric", "bool")):  # of the host: objects, or words for numbers
        y = xp.astype(y, xp.float64)
    y = _floats(y, backend, name)
    if xp.finfo(y.dtype).eps > xp.finfo(dtype).eps:
        y = xp.astype(y, dtype)
    if y.ndim not in (1, 2):
        raise ValueError(f"{name} must have shape (n,) or (n, T), got {tuple(y.shape)}.")
    if not all_finite(y, backend):
        raise ValueError(f"{name} holds NaN or infinite values.")
    return y


def _weights(sample_weight: Any, X: Any, backend: Backend) -> Array | None:
    if sample_weight is None:
        return None
    if backend.name == "numpy" and on_host(sample_weight):
        weights = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
    else:
        weights = backend.asarray(sample_weight, dtype=X.dtype)
        if tuple(weights.shape) != (X.shape[0],):
            raise ValueError(
                f"sample_weight must have shape ({X.shape[0]},), got {tuple(weights.shape)}."
            )
        xp = backend.xp
        if not bool(xp.all(xp.isfinite(weights) & (weights >= 0))):
            raise ValueError("sample_weight must be finite and not negative.")
    (total,) = backend.scalars(backend.xp.sum(weights))
    if not total > 0:
        raise ValueError("sample_weight is 0 for every row.")
    return weights


def encode_classes(y: Any, backend: Backend) -> tuple[Any, Array]:
    """Return the classes, sorted, and the number 0, ..., c-1 of each label, on the backend."""
    if on_host(y):
        classes, numbers = np.unique(y, return_inverse=True)
        return classes, backend.asarray(numbers.reshape(-1).astype(np.int64))
    xp = backend.xp
    classes = xp.sort(xp.unique_values(y))
    return classes, class_numbers(y, classes, backend)


def class_numbers(y: Any, classes: Any, backend: Backend, name: str = "y") -> Array:
    """The number of each label among known classes; refuse a label that is none of them."""
    if on_host(classes):
        y = np.asarray(y)
        known = np.isin(y, classes)
        if not known.all():
            raise ValueError(
                f"{name} holds labels unseen in training: {np.unique(y[~known])[:5]}; training has "
                f"{classes[:5]}{' and more' if len(classes) > 5 else ''}."
            )
        return backend.asarray(np.searchsorted(classes, y).astype(np.int64))
    xp = backend.xp
    same = y[:, None] == classes[None, :]
    if not bool(xp.all(xp.any(same, axis=1))):
        raise ValueError(f"{name} holds labels unseen in training.")
    return xp.argmax(xp.astype(same, xp.int64), axis=1)
