"""A tuned linear model in an .npz archive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .._replacing import replacing
from ..backends import read_arrays, refuse_matrix_classes
from ._files import FAULTS, brief, check_file, told
from ._table import BadFileError, HostMatrix


@dataclass(frozen=True)
class LinearClassifier:
    """sign(X coef + intercept), in the units of the file that it was tuned on.

    Its arrays are checked when it is made, and so when it is loaded.

    Attributes
    ----------
    coef : array, shape (p,)
    intercept : float
    lam : array, shape (m,)
        The hyperparameters, logarithms of the regularisation constants.
    classes : array of text, shape (2,)
        The labels that -1 and +1 stand for.
    features : array of text, shape (p,), or None
        The names of the columns, where the training file had them.

    Raises
    ------
    ValueError
        If an array has another shape or kind, holds NaN, or names a column or a class twice.
    """

    coef: npt.NDArray[np.floating]
    intercept: float
    lam: npt.NDArray[np.floating]
    classes: npt.NDArray[np.str_]
    features: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        for name, axes in (("coef", 1), ("intercept", 0), ("lam", 1)):
            array = np.asarray(getattr(self, name))
            if array.dtype.kind not in "fiu" or array.ndim != axes or not np.isfinite(array).all():
                raise ValueError(f"{name} must hold finite real numbers along {axes} axes")
        for name, length in (("classes", 2), ("features", len(self.coef))):
            texts = getattr(self, name)
            if texts is None and name == "features":
                continue
            array = np.asarray(texts)
            if array.dtype.kind != "U" or array.shape != (length,) or len(set(array)) < length:
                raise ValueError(f"{name} must hold {length} different texts")

    def margins(self, X: HostMatrix) -> npt.NDArray[np.floating]:
        """Return X coef + intercept, shape (n,).

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
        if np.ndim(X) != 2 or np.shape(X)[1] != len(self.coef):
            raise ValueError(f"X must have the shape (n, {len(self.coef)}), got {np.shape(X)}.")
        stored = X.data if sparse.issparse(X) else np.asarray(X)
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            raise ValueError("X holds NaN or infinite values: its rows would have no class.")
        return np.asarray(X @ self.coef) + self.intercept

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
            return LinearClassifier(
                found["coef"],
                found["intercept"].item(),
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
