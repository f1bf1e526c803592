"""A tuned linear model in an .npz archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ._table import HostMatrix


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
    """

    coef: npt.NDArray[np.floating]
    intercept: float
    lam: npt.NDArray[np.floating]
    classes: npt.NDArray[np.str_]

    def margins(self, X: HostMatrix) -> npt.NDArray[np.floating]:
        """Return X coef + intercept, shape (n,)."""
        return np.asarray(X @ self.coef) + self.intercept


def save_model(path: str | Path, model: LinearClassifier) -> None:
    """Write a model; the file appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            coef=model.coef,
            intercept=np.asarray(model.intercept),
            lam=model.lam,
            classes=model.classes,
        )
    partial.replace(path)


def load_model(path: str | Path) -> LinearClassifier:
    """Read what :func:`save_model` wrote.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.npz"
    >>> save_model(path, LinearClassifier(np.ones(1), -1.0, np.zeros(1), np.array(["a", "b"])))
    >>> load_model(path).margins(np.array([[3.0]]))
    array([2.])
    """
    with np.load(path, allow_pickle=False) as archive:
        return LinearClassifier(
            archive["coef"], float(archive["intercept"]), archive["lam"], archive["classes"]
        )
