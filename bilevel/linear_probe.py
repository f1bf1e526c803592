"""The linear probe: a multinomial model of frozen features, its ℓ2 penalty found in one search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .backends import POSITIVE, Array, Backend, described, flag, get_backend, numbers_of
from .design import DenseDesign, Design, Standardized, as_design
from .domains import Box
from .fitting import fit_tightly
from .inner import Inner, linear_model
from .loop import minimize
from .losses import Logistic, Loss, Multinomial
from .methods import PathFollowing
from .methods.path.state import PathState
from .outer import HeldOutLoss
from .problem import Problem
from .problems.linear import on_held_out_rows
from .record import Result

__all__ = ["ProbeResult", "ProbeStep", "Scored", "Scoring", "probe"]


@dataclass(frozen=True)
class Scored:
    """What a record of :class:`Scoring` says besides.

    Attributes
    ----------
    accuracy : float
        The share of held-out rows that the model of the iteration gives their class.
    """

    accuracy: float


@dataclass(frozen=True)
class Scoring(PathFollowing):
    """Path following whose records have the accuracy on the held-out rows in their ``details``.

    Of each model on the way, which is fitted as tightly as its step needs; a product with the
    held-out rows each, no pass over the training rows.
    """

    def step(self, problem: Problem, state: PathState) -> PathState:
        ahead = super().step(problem, state)
        assert ahead.record is not None
        found = Scored(_accuracy(problem.outer, ahead.x, ahead.record.lam))
        return replace(ahead, record=replace(ahead.record, details=found))


def _accuracy(outer: Any, x: Array, lam: Array) -> float:
    assert isinstance(outer, HeldOutLoss)
    backend, xp = outer.predictor.backend, outer.predictor.backend.xp
    margins = outer.at(x, lam).prediction.value
    right = winners(margins) == winners(outer.y)
    (share,) = backend.scalars(xp.mean(xp.astype(right, margins.dtype)))
    return share


def winners(margins: Array) -> Array:
    """The number of the class with the largest margin, of two classes by the sign of one."""
    xp = get_backend(margins).xp
    return xp.argmax(margins, axis=1) if margins.ndim > 1 else xp.astype(margins > 0, xp.int64)


def log_proba(margins: Array) -> Array:
    """Logarithms of the probabilities of the classes, shape (n, n_classes)."""
    backend = get_backend(margins)
    if margins.ndim == 1:
        return -backend.xp.stack([backend.softplus(margins), backend.softplus(-margins)], axis=1)
    return margins - backend.logsumexp(margins, axis=1)[:, None]


@dataclass(frozen=True)
class ProbeStep:
    """One C on the way.

    Attributes
    ----------
    C : float
    log_loss : float
        Mean loss of a held-out row, corrected to first order for how loosely the model was fitted.
    accuracy : float
        On the held-out rows, of that model.
    passes : int, or float
        Passes over the training rows until then.
    """

    C: float
    log_loss: float
    accuracy: float
    passes: float


@dataclass(frozen=True)
class ProbeResult:
    """A linear probe, and how it was found.

    Attributes
    ----------
    C : float
        The inverse strength of the penalty that was found.
    classes : array, shape (n_classes,)
        The labels, the smallest first.
    coef : array, shape (n_classes, p), or (1, p) for two classes
    intercept : array, shape (n_classes,), or (1,)
        Zero without an intercept.
    log_loss, accuracy : float
        Of the model of the training rows at C, on the held-out rows.
    steps : tuple of ProbeStep
        The C on the way, in the order of the search.
    result : Result
        Of the search: its ``status`` says whether C is where the log loss is least.
    """

    C: float
    classes: Array
    coef: Array
    intercept: Array
    log_loss: float
    accuracy: float
    steps: tuple[ProbeStep, ...]
    result: Result

    def decision_function(self, X: Array) -> Array:
        """Margins, shape (n, n_classes), or (n,) for two classes."""
        margins = as_design(X).matmul(self.coef.T) + self.intercept
        return margins[:, 0] if self.coef.shape[0] == 1 else margins

    def predict(self, X: Array) -> Array:
        """The class of each row, shape (n,)."""
        xp = get_backend(self.coef).xp
        return xp.take(self.classes, winners(self.decision_function(X)), axis=0)

    def predict_proba(self, X: Array) -> Array:
        """The probability of each class, shape (n, n_classes)."""
        return get_backend(self.coef).xp.exp(log_proba(self.decision_function(X)))


def probe(
    X: Any,
    y: Array,
    X_val: Any,
    y_val: Array,
    *,
    C: float = 1.0,
    C_bounds: tuple[float, float] = (1e-5, 1e5),
    fit_intercept: bool = True,
    standardize: bool = False,
    refit: bool = False,
    max_iter: int = 50,
    tol: float | None = None,
    max_passes: float | None = None,
    max_seconds: float | None = None,
    callback: Callable[[ProbeStep], Any] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> ProbeResult:
    """Fit a linear classifier on frozen features, at the C with the least log loss held out.

    The customary way is a sweep of some tens of C. This is one search along the hypergradient,
    which ends where the slope is proven to be small, where that can be proven.

    Parameters
    ----------
    X, X_val : array or sparse matrix, shape (n, p) and (n_val, p)
        Features of the training and of the held-out rows, float32 or float64, of any library.
    y, y_val : array of integers, shape (n,) and (n_val,)
        Labels; every one of ``y_val`` is among those of ``y``.
    C : float
        Where the search starts: the model is that of scikit-learn's ``LogisticRegression(C)``, the
        sum of losses times C and ½ ‖coef‖².
    C_bounds : pair of float
        Where C stays.
    fit_intercept : bool
        Whether there is an intercept, without a penalty.
    standardize : bool
        Whether columns are divided by their standard deviation (of the training rows), without a
        copy. ``coef`` is that of the features as they were given.
    refit : bool
        Fit the model that is returned on the training and held-out rows together, at the C found;
        this copies them. ``log_loss`` and ``accuracy`` are those without.
    max_iter, tol, max_passes, max_seconds, checkpoint, resume
        As in :func:`bilevel.minimize`.
    callback : callable, optional
        Called with each :class:`ProbeStep`; a true answer ends the search.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 3, 400)
    >>> X = rng.standard_normal((400, 8)) + 2 * np.eye(3, 8)[y]
    >>> found = bilevel.probe(X[:200], y[:200], X[200:], y[200:])
    >>> found.result.success, found.coef.shape, found.accuracy > 0.7
    (True, (3, 8), True)
    """
    rows = _Rows.of(X, y, X_val, y_val, flag(fit_intercept, "fit_intercept"), standardize)
    low, high = _bounds(C_bounds)
    start = POSITIVE(C, "C")
    if not low <= start <= high:
        raise ValueError(f"C must lie within C_bounds, {low:g} to {high:g}, got {start:g}.")
    flag(refit, "refit")
    problem = rows.problem(Box(-math.log(high), -math.log(low)))
    result = minimize(
        problem,
        -math.log(start),
        method=Scoring(),
        max_iter=max_iter,
        tol=tol,
        max_passes=max_passes,
        max_seconds=max_seconds,
        callback=None if callback is None else lambda record: callback(_step(record, rows)),
        checkpoint=checkpoint,
        resume=resume,
    )
    return rows.found(problem, result, together=refit)


def _bounds(C_bounds: Any) -> tuple[float, float]:
    low_high = numbers_of(C_bounds, "C_bounds", POSITIVE)
    if len(low_high) != 2 or not low_high[0] < low_high[1]:
        raise ValueError(
            f"C_bounds must be two numbers, the lower first, got {described(C_bounds)}."
        )
    return low_high[0], low_high[1]


def _step(record: Any, rows: _Rows) -> ProbeStep:
    (lam,) = rows.backend.scalars(record.lam)
    known = record.details
    accuracy = known.accuracy if isinstance(known, Scored) else math.nan
    return ProbeStep(math.exp(-lam), record.likely / rows.n_val, accuracy, record.passes)


@dataclass(frozen=True)
class _Rows:
    """Features and class numbers of both sets, and what is done to the columns."""

    X: Design
    X_val: Design
    y: Array
    y_val: Array
    classes: Array
    fit_intercept: bool
    mean: Array | None
    scale: Array | None

    @classmethod
    def of(
        cls, X: Any, y: Any, X_val: Any, y_val: Any, fit_intercept: bool, standardize: bool
    ) -> _Rows:
        design = as_design(X)
        backend = design.backend
        held = as_design(X_val, name="X_val", backend=backend)
        if held.shape[1] != design.shape[1]:
            raise ValueError(
                f"X_val must have the {design.shape[1]} columns of X, got {held.shape[1]}."
            )
        classes, numbers = _classes(y, design.shape[0], backend)
        numbers_val = _numbers(y_val, held.shape[0], classes, backend)
        mean, scale = _columns(design, fit_intercept, flag(standardize, "standardize"))
        return cls(design, held, numbers, numbers_val, classes, fit_intercept, mean, scale)

    @property
    def backend(self) -> Backend:
        return self.X.backend

    @property
    def n_val(self) -> int:
        return self.X_val.shape[0]

    @property
    def loss(self) -> Loss:
        c = int(self.classes.shape[0])
        return Logistic() if c == 2 else Multinomial(c)

    def design(self, X: Design) -> Design:
        """The columns centred, which moves the intercept alone, and scaled where that is asked."""
        if self.mean is None and self.scale is None:
            return X
        xp = self.backend.xp
        one = self.mean if self.scale is None else self.scale
        mean = xp.zeros_like(one) if self.mean is None else self.mean
        return Standardized(X, mean, xp.ones_like(one) if self.scale is None else self.scale)

    def labels(self, numbers: Array) -> Array:
        """As the loss takes them: class numbers, or -1 and +1."""
        if int(self.classes.shape[0]) > 2:
            return numbers
        return self.backend.xp.astype(2 * numbers - 1, self.X.dtype)

    def model(self) -> Inner:
        return linear_model(
            self.design(self.X), self.labels(self.y), self.loss, fit_intercept=self.fit_intercept
        )

    def problem(self, domain: Box) -> Problem:
        return on_held_out_rows(
            self.design(self.X),
            self.labels(self.y),
            self.design(self.X_val),
            self.labels(self.y_val),
            self.loss,
            fit_intercept=self.fit_intercept,
            domain=domain,
        )

    def found(self, problem: Problem, result: Result, *, together: bool) -> ProbeResult:
        """The model at the C found, of the features as they were given."""
        (lam,) = self.backend.scalars(result.lam)
        x = fit_tightly(problem.inner, result.lam, result.x) if result.nit else result.x
        (loss,) = self.backend.scalars(problem.outer.at(x, result.lam).value)
        accuracy = _accuracy(problem.outer, x, result.lam)
        if together and result.nit:
            x = fit_tightly(self._both().model(), result.lam, x)
        coef, intercept = self._given(x)
        steps = tuple(_step(record, self) for record in result.history)
        return ProbeResult(
            C=math.exp(-lam),
            classes=self.classes,
            coef=coef,
            intercept=intercept,
            log_loss=loss / self.n_val,
            accuracy=accuracy,
            steps=steps,
            result=result,
        )

    def _both(self) -> _Rows:
        """Training and held-out rows together."""
        parts = (self.X, self.X_val)
        if not all(isinstance(part, DenseDesign) for part in parts):
            raise TypeError("refit=True needs dense X and X_val, to copy them into one matrix.")
        xp = self.backend.xp
        X = DenseDesign(xp.concat([part.array for part in parts], axis=0), self.backend)  # type: ignore[attr-defined]
        return replace(self, X=X, y=xp.concat([self.y, self.y_val], axis=0))

    def _given(self, x: Array) -> tuple[Array, Array]:
        """coef and intercept, of the columns as they were given, a row for each class."""
        xp = self.backend.xp
        coef = x[:-1, ...] if self.fit_intercept else x
        coef = xp.reshape(coef, (coef.shape[0], -1)).T
        if self.scale is not None:
            coef = coef / self.scale
        if not self.fit_intercept:
            return coef, xp.zeros_like(coef[:, 0])
        last = xp.reshape(x[-1, ...], (-1,))
        if int(self.classes.shape[0]) > 2:  # the loss does not see a common shift of them
            last = last - xp.mean(last)
        return coef, last if self.mean is None else last - xp.matmul(coef, self.mean)


def _columns(
    design: Design, fit_intercept: bool, standardize: bool
) -> tuple[Array | None, Array | None]:
    """What is subtracted from the columns, and what they are divided by."""
    if standardize:
        fitted = Standardized.fit(design)
        return (fitted.mean if fit_intercept else None), fitted.scale
    if not fit_intercept:
        return None, None
    n, backend = design.shape[0], design.backend
    weights = backend.xp.full(n, 1 / n, dtype=design.dtype, device=backend.device)
    return design.rmatmul(weights), None


def _classes(y: Any, n: int, backend: Backend) -> tuple[Array, Array]:
    """The labels that there are, the smallest first, and the number of that of each row."""
    xp = backend.xp
    labels = _integers(y, n, "y", backend)
    classes = xp.sort(xp.unique_values(labels))
    if classes.shape[0] < 2:
        raise ValueError("y must hold two classes or more, got one.")
    return classes, xp.searchsorted(classes, labels)


def _numbers(y_val: Any, n: int, classes: Array, backend: Backend) -> Array:
    xp = backend.xp
    labels = _integers(y_val, n, "y_val", backend)
    numbers = xp.clip(xp.searchsorted(classes, labels), 0, classes.shape[0] - 1)
    strange = xp.take(classes, numbers, axis=0) != labels
    if bool(xp.any(strange)):
        found = backend.to_numpy(xp.unique_values(labels[strange]))[:5].tolist()
        raise ValueError(f"y_val must hold labels of y, got others: {found}.")
    return numbers


def _integers(y: Any, n: int, name: str, backend: Backend) -> Array:
    xp = backend.xp
    labels = backend.asarray(y)
    if labels.ndim != 1 or labels.shape[0] != n:
        raise ValueError(f"{name} must have shape ({n},), got {tuple(labels.shape)}.")
    if not xp.isdtype(labels.dtype, "integral"):
        raise TypeError(f"{name} must hold integers, a class each, got {labels.dtype}.")
    return xp.astype(labels, xp.int64)
