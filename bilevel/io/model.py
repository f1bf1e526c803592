"""A tuned linear model in an .npz archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._replacing import replacing
from ..backends import read_arrays
from ._files import FAULTS, brief, check_file, told
from ._table import BadFileError, HostMatrix


@dataclass(frozen=True)
class LinearClassifier:
    """sign(X coef + intercept), in the units of the file that it was tuned on.

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
    """

    coef: npt.NDArray[np.floating]
    intercept: float
    lam: npt.NDArray[np.floating]
    classes: npt.NDArray[np.str_]
    features: npt.NDArray[np.str_] | None = None

    def margins(self, X: HostMatrix) -> npt.NDArray[np.floating]:
        """Return X coef + intercept, shape (n,)."""
        return np.asarray(X @ self.coef) + self.intercept


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
                float(found["intercept"]),
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
