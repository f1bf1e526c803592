"""A tuned linear model in an .npz archive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .._replacing import replacing
from ..backends import read_arrays, refuse_matrix_classes
from ._files import FAULTS, brief, check_file, told
from ._table import BadFileError, HostMatrix


@dataclass(frozen=True)
class LinearClassifier:
    """A linear model of two classes or several, in the units of the file that it was tuned on.

    Of two classes it is sign(X coef + intercept); of several, the largest of X coefᵀ + intercept.
    Its arrays are checked when it is made, and so when it is loaded.

    Attributes
    ----------
    coef : array, shape (p,), or (n_classes, p) of several classes
    intercept : float, or array of shape (n_classes,)
    lam : array, shape (m,)
        The hyperparameters, logarithms of the regularisation constants.
    classes : array of text, shape (2,), or of integers, shape (n_classes,)
        The labels that -1 and +1 stand for, or those of the rows of ``coef``.
    features : array of text, shape (p,), or None
        The names of the columns, where the training file had them.

    Raises
    ------
    ValueError
        If an array has another shape or kind, holds NaN, or names a column or a class twice.
    """

    coef: npt.NDArray[np.floating]
    intercept: float | npt.NDArray[np.floating]
    lam: npt.NDArray[np.floating]
    classes: npt.NDArray[np.str_] | npt.NDArray[np.integer]
    features: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        several = np.ndim(self.intercept) > 0
        for name, axes in (("coef", 1 + several), ("intercept", 0 + several), ("lam", 1)):
            array = np.asarray(getattr(self, name))
            if array.dtype.kind not in "fiu" or array.ndim != axes or not np.isfinite(array).all():
                raise ValueError(f"{name} must hold finite real numbers along {axes} axes")
        n_classes = self.coef.shape[0] if several else 2
        if several and len(np.asarray(self.intercept)) != n_classes:
            raise ValueError(f"intercept must hold a number for each of {n_classes} classes")
        _refuse_doubles("classes", self.classes, n_classes, "iu" if several else "U")
        if self.features is not None:
            _refuse_doubles("features", self.features, self.coef.shape[-1], "U")

    def margins(self, X: HostMatrix) -> npt.NDArray[np.floating]:
        """Return X coef + intercept, shape (n,), or (n, n_classes) of several classes.

        Parameters
        ----------
        X : array or sparse matrix, shape (n, p), or data frame
            The columns of a data frame are matched by name, where the model has names.

        Raises
        ------
        ValueError
            If X has other columns, or an entry that is not finite.
        TypeError
            If X is a masked array or a numpy.matrix.
        """
        refuse_matrix_classes(X, "X")
        if hasattr(X, "columns"):
            X = self._in_order(X)
        p = self.coef.shape[-1]
        if np.ndim(X) != 2 or np.shape(X)[1] != p:
            raise ValueError(f"X must have the shape (n, {p}), got {np.shape(X)}.")
        stored = X.data if sparse.issparse(X) else np.asarray(X)
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            raise ValueError("X holds NaN or infinite values: its rows would have no class.")
        return np.asarray(X @ self.coef.T) + self.intercept

    def predict(self, X: HostMatrix) -> npt.NDArray[Any]:
        """Return the class of each row, shape (n,): the text of ``classes``, or the integer.

        Parameters
        ----------
        X : array or sparse matrix, shape (n, p), or data frame
            As in :meth:`margins`.
        """
        found: npt.NDArray[Any] = self.classes[winners(self.margins(X))]
        return found

    def _in_order(self, frame: HostMatrix) -> HostMatrix:
        """Return the columns of a data frame in the order of the coefficients."""
        names = list(frame.columns)
        if self.features is None or not all(isinstance(name, str) for name in names):
            return np.asarray(frame)  # numbered columns have no names
        if sorted(names) != sorted(self.features):
            raise ValueError(
                f"X has the columns {_few(names)}, and the model those of {_few(self.features)}: "
                "give it these, in any order."
            )
        return np.asarray(frame[self.features.tolist()])


def winners(margins: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """The class number of each row of margins, shape (n,), or (n, n_classes)."""
    return np.argmax(margins, axis=1) if margins.ndim == 2 else (margins > 0).astype(np.intp)


def _refuse_doubles(name: str, values: npt.NDArray[Any], length: int, kinds: str) -> None:
    array = np.asarray(values)
    if array.dtype.kind not in kinds or array.shape != (length,) or len(set(array)) < length:
        what = "texts" if kinds == "U" else "integers"
        raise ValueError(f"{name} must hold {length} different {what}")


def _few(names: Iterable[str]) -> str:
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def save_model(path: str | Path, model: LinearClassifier) -> None:
    """Write a model; the file appears whole or not at all."""
    arrays = {
        "coef": model.coef,
        "intercept": np.asarray(model.intercept),
        "lam": model.lam,
        "classes": model.classes,
    }
    if model.features is not None:
        arrays["features"] = model.features
    with replacing(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_model(path: str | Path) -> LinearClassifier:
    """Read what :func:`save_model` wrote.

    Raises
    ------
    BadFileError
        If the file holds no model.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.npz"
    >>> save_model(path, LinearClassifier(np.ones(1), -1.0, np.zeros(1), np.array(["a", "b"])))
    >>> load_model(path).margins(np.array([[3.0]]))
    array([2.])
    """
    path = Path(path)
    check_file(path)
    with told(path), path.open("rb") as file:
        try:
            found = read_arrays(file)
            intercept = found["intercept"]
            return LinearClassifier(
                found["coef"],
                intercept.item() if intercept.size == 1 else intercept,
                found["lam"],
                found["classes"],
                found.get("features"),
            )
        except FAULTS:
            raise
        except Exception as error:  # zipfile and NumPy raise whatever the damage leads to
            raise BadFileError(
                path,
                f"it is no model that bilevel saved ({brief(error)})",
                "Save it anew by --save.",
            ) from error
