"""The models of `bilevel tune`: of two classes, and of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

import bilevel
from bilevel import io
from bilevel.backends import row_blocks
from bilevel.fitting import fit_tightly
from bilevel.inner import linear_model
from bilevel.io.model import winners
from bilevel.linear_probe import Scored, Scoring
from bilevel.losses import Logistic, Loss, Multinomial
from bilevel.problems.linear import on_held_out_rows
from bilevel.report import show_lam

from ._columns import Columns, Scaling, refuse_overflow, refuse_underflow
from ._inputs import Inputs, Rows
from ._live import COLUMNS, Column

#: What :meth:`Prepared.classifier` makes of x on the host: coefficients of the columns as the model
#: has them, and the intercept.
_Parts = tuple[npt.NDArray[Any], Any]


class Model(ABC):
    """What depends on the number of classes."""

    name: str

    @property
    @abstractmethod
    def loss(self) -> Loss:
        """Of a row."""

    @abstractmethod
    def dtype(self, X: Any) -> str:
        """The precision that suits the rows of a file, where none was asked for."""

    @abstractmethod
    def scaling(self, X: Any, *, standardize: bool, intercept: bool) -> Scaling | None:
        """What is done to the columns."""

    @abstractmethod
    def method(self, name: str) -> Any:
        """The outer method, by its name or itself."""

    @abstractmethod
    def columns(self, n_val: int) -> tuple[Column, ...]:
        """What is printed of each iteration."""

    @abstractmethod
    def found(self, problem: bilevel.Problem, result: bilevel.Result) -> Any:
        """The x that is saved."""

    @abstractmethod
    def parts(self, x: npt.NDArray[Any], *, intercept: bool) -> _Parts:
        """Coefficients, of shape (p,) or (n_classes, p), and intercept, on the host."""

    @abstractmethod
    def scores(
        self, result: bilevel.Result, model: io.LinearClassifier, inputs: Inputs
    ) -> dict[str, str]:
        """What the summary says of λ and of the held-out and test rows."""


class TwoClasses(Model):
    """The logistic model."""

    name = "logistic"

    @property
    def loss(self) -> Loss:
        return Logistic()

    def dtype(self, X: Any) -> str:
        return "float64"

    def scaling(self, X: Any, *, standardize: bool, intercept: bool) -> Scaling | None:
        return Scaling.fit(X) if standardize else None

    def method(self, name: str) -> Any:
        return name

    def columns(self, n_val: int) -> tuple[Column, ...]:
        return COLUMNS

    def found(self, problem: bilevel.Problem, result: bilevel.Result) -> Any:
        return result.x

    def parts(self, x: npt.NDArray[Any], *, intercept: bool) -> _Parts:
        return (x[:-1], float(x[-1])) if intercept else (x, 0.0)

    def scores(
        self, result: bilevel.Result, model: io.LinearClassifier, inputs: Inputs
    ) -> dict[str, str]:
        n_val = inputs.val.X.shape[0]
        rows = {
            "λ": show_lam(model.lam),
            "regularisation e^λ": ", ".join(f"{v:.6g}" for v in np.exp(model.lam[:3]))
            + (", ..." if len(model.lam) > 3 else ""),
            "validation loss": f"{result.fun:.6f} ({result.fun / n_val:.6f} a row)",
            "validation accuracy": f"{self._accuracy(model, inputs.val):.2%}",
        }
        if inputs.test is not None:
            rows["test accuracy"] = f"{self._accuracy(model, inputs.test):.2%}"
        return rows

    @staticmethod
    def _accuracy(model: io.LinearClassifier, rows: Rows) -> float:
        return float(np.mean(np.where(model.margins(rows.X) > 0, 1.0, -1.0) == rows.y))


@dataclass(frozen=True)
class SeveralClasses(Model):
    """The multinomial model, as of a linear probe: what is saved is fitted tightly at λ."""

    n_classes: int

    name = "multinomial"

    @property
    def loss(self) -> Loss:
        return Multinomial(self.n_classes)

    def dtype(self, X: Any) -> str:
        return "float32" if X.dtype == np.float32 else "float64"

    def scaling(self, X: Any, *, standardize: bool, intercept: bool) -> Scaling | None:
        """Centring moves the intercept alone, and makes the fit of features far from 0 cheap."""
        if standardize:
            return Scaling.fit(X)
        return Scaling.centring(X) if intercept else None

    def method(self, name: str) -> Any:
        return Scoring() if name == "path" else name

    def columns(self, n_val: int) -> tuple[Column, ...]:
        k, lam, _, *others = COLUMNS
        scored = (
            Column("C", 10, lambda record, host: f"{np.exp(-host(record.lam)[0]):.4g}"),
            Column("log loss", 10, lambda record, host: f"{record.likely / n_val:.6f}"),
            Column("accuracy", 9, lambda record, host: _accuracy_shown(record)),
        )
        return (k, lam, *scored, *others)

    def found(self, problem: bilevel.Problem, result: bilevel.Result) -> Any:
        return fit_tightly(problem.inner, result.lam, result.x)

    def parts(self, x: npt.NDArray[Any], *, intercept: bool) -> _Parts:
        if not intercept:
            return x.T, np.zeros(self.n_classes)
        last = x[-1].astype(np.float64)
        return x[:-1].T, last - last.mean()  # the loss does not see a common shift of them

    def scores(
        self, result: bilevel.Result, model: io.LinearClassifier, inputs: Inputs
    ) -> dict[str, str]:
        rows = {"λ": show_lam(model.lam), "C = e^-λ": f"{np.exp(-model.lam[0]):.6g}"}
        for name, part in (("validation", inputs.val), ("test", inputs.test)):
            if part is not None:
                loss, accuracy = log_loss_and_accuracy(model, part)
                rows[f"{name} log loss"] = f"{loss:.6f} a row"
                rows[f"{name} accuracy"] = f"{accuracy:.2%}"
        return rows


def _accuracy_shown(record: Any) -> str:
    known = record.details
    return f"{known.accuracy:.2%}" if isinstance(known, Scored) else "-"


def log_loss_and_accuracy(model: io.LinearClassifier, rows: Rows) -> tuple[float, float]:
    """Of a model of several classes, a row, on the host."""
    loss, right, n = 0.0, 0, rows.X.shape[0]
    for block in row_blocks(n, max(rows.X.shape[1], len(model.classes))):
        margins = np.asarray(model.margins(rows.X[block]), dtype=np.float64)
        numbers = rows.y[block].astype(np.intp)
        top = margins.max(axis=1)
        total = top + np.log(np.exp(margins - top[:, None]).sum(axis=1))
        loss += float(np.sum(total - margins[np.arange(len(numbers)), numbers]))
        right += int(np.sum(winners(margins) == numbers))
    return loss / n, right / n


#: What makes a model of the labels, by its name.
MODELS: Mapping[str, Callable[[io.BinaryLabels | io.ClassLabels], Model]] = MappingProxyType(
    {
        "logistic": lambda labels: TwoClasses(),
        "multinomial": lambda labels: SeveralClasses(len(labels.classes)),
    }
)


@dataclass(frozen=True)
class Prepared:
    """A problem on its backend, and the way back to the units of the file."""

    problem: bilevel.Problem
    columns: Columns
    intercept: bool
    model: Model
    inputs: Inputs

    def classifier(self, lam: Any, x: Any) -> io.LinearClassifier:
        """Return the model in the units of the file."""
        host = self.problem.backend.to_numpy
        coef, intercept = self.model.parts(host(x), intercept=self.intercept)
        scaling = self.columns.scaling
        if scaling is not None:
            coef = coef / scaling.scale
            intercept = intercept - coef @ scaling.mean
        names = None if self.columns.names is None else np.array(self.columns.names)
        classes = np.asarray(self.inputs.labels.classes)
        return io.LinearClassifier(coef, intercept, host(lam), classes, names)

    def refitted(self, lam: Any, x: Any) -> Any:
        """The x of the training and held-out rows together, from one nearby."""
        train, val = self.inputs.train, self.inputs.val
        X = self.columns.design(train.stacked(val), f"{train.source} with {val.source}")
        y = self._labels(np.concatenate([train.y, val.y]))
        inner = linear_model(X, y, self.model.loss, fit_intercept=self.intercept)
        return fit_tightly(inner, lam, x)

    def _labels(self, y: npt.NDArray[np.float64]) -> Any:
        return self.problem.backend.asarray(y, self.problem.dtype)


def prepare(
    inputs: Inputs,
    *,
    model: Model,
    backend: Any,
    dtype: str | None,
    bounds: tuple[float, float],
    standardize: bool,
    intercept: bool,
) -> Prepared:
    """Move the rows to the backend and make the problem."""
    dtype = dtype or model.dtype(inputs.train.X)
    kind = backend.xp.float32 if dtype == "float32" else backend.xp.float64
    for part in (inputs.train, inputs.val, inputs.test):
        if part is not None:
            refuse_overflow(part.X, part.source, inputs.names, dtype, standardize=standardize)
    if standardize:
        refuse_underflow(inputs.train.X, inputs.train.source, inputs.names)
    scaling = model.scaling(inputs.train.X, standardize=standardize, intercept=intercept)
    columns = Columns(backend, dtype, scaling, inputs.names)
    X, X_val = (columns.design(part.X, part.source) for part in (inputs.train, inputs.val))
    y, y_val = (backend.asarray(part.y, kind) for part in (inputs.train, inputs.val))
    problem = on_held_out_rows(
        X, y, X_val, y_val, model.loss, fit_intercept=intercept, domain=bilevel.Box(*bounds)
    )
    return Prepared(problem, columns, intercept, model, inputs)
