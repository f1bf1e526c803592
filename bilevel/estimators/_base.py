"""What the estimators share: the search for λ, and what they tell of it."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from sklearn.utils.validation import _num_samples

import bilevel
from bilevel.backends import (
    POSITIVE,
    Array,
    Backend,
    flag,
    get_backend,
    numbers_of,
    same_backend,
)
from bilevel.fitting import MODERATE

from ._rows import Rows, check_features, half_of_cv, refuse_masked
from ._splits import Split, check_groups, is_splitter, is_validation_set, split_rows

#: What helps where a run ended early.
_LONGER = "Raise max_iter or tol."

#: Ends at which the numbers gave out, not the patience.
_OUT_OF_RANGE = (bilevel.Status.NON_FINITE, bilevel.Status.STALLED)

Fit = TypeVar("Fit", bound=Callable[..., Any])


def fitted_whole(fit: Fit) -> Fit:
    """Let ``fit`` begin without what an earlier one found, and put that back where it fails.

    Half of a new model beside half of an old one predicts, and wrongly.
    """

    @functools.wraps(fit)
    def whole(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        for name in before:
            if name.endswith("_") and not name.startswith("_"):
                delattr(self, name)
        try:
            return fit(self, *args, **kwargs)
        except BaseException:  # Ctrl-C too
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return cast(Fit, whole)


class BilevelEstimator(BaseEstimator):
    """The search of an estimator that tunes itself; a subclass states and reads the problem."""

    #: Whether X may be sparse.
    _sparse = True

    #: ``fit`` hands them to the splitter, which requests them itself.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"groups": UNUSED}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._sparse
        tags.array_api_support = True
        return tags

    def get_metadata_routing(self) -> Any:
        """What ``fit`` takes itself, and what goes to a splitter."""
        return self._routed_to_splitter(MetadataRouter(owner=self).add_self_request(self))

    def _routed_to_splitter(self, router: Any) -> Any:
        if is_splitter(self.cv):
            mapping = MethodMapping().add(caller="fit", callee="split")
            router.add(splitter=self.cv, method_mapping=mapping)
        return router

    def _splits(self, rows: Rows, groups: Any, labels: Any = None) -> list[Split] | None:
        """The splits of the rows, None where the held-out rows are given apart."""
        groups = check_groups(self.cv, groups, rows.n)
        if is_validation_set(self.cv):
            return None
        host = rows.backend.to_numpy
        present = np.arange(rows.n)
        if rows.weights is not None:
            present = np.flatnonzero(host(rows.weights) > 0)
        numbers = None if labels is None else host(labels)
        return split_rows(self.cv, present, numbers, rows.n, self.random_state, groups)

    def _validation_set(self, rows: Rows, encode: Callable[[Any], Array]) -> tuple[Any, Array]:
        """X_val and y_val of ``cv``, checked; ``encode`` gives y_val the form of ``rows.y``."""
        X_val, y_val = self.cv
        refuse_masked(X_val=X_val, y_val=y_val)
        with half_of_cv("X_val"):
            X_val = check_features(self, X_val, sparse=self._sparse, reset=False)
        same_backend(rows.backend, get_backend(X_val), "X", "X_val")
        if X_val.dtype != rows.X.dtype:
            raise TypeError(f"X_val has dtype {X_val.dtype} but X has {rows.X.dtype}: convert one.")
        with half_of_cv("y_val"):
            n_val = _num_samples(y_val)
            if X_val.shape[0] != n_val:
                raise ValueError(f"X_val has {X_val.shape[0]} rows but y_val has {n_val}.")
            return X_val, like_targets(encode(y_val), rows.y)

    def _search(self, problem: bilevel.Problem, lam0: Any) -> bilevel.Result:
        """Minimise, and keep what there is to tell."""
        certify = flag(self.certify, "certify")
        check_random_state(self.random_state)  # where nothing is drawn, too
        result = bilevel.minimize(
            problem, lam0, method=self.method, max_iter=self.max_iter, tol=self.tol
        )
        if result.broken_off:  # a fit is one step of a loop of others, which is to end too
            raise KeyboardInterrupt
        if not math.isfinite(result.fun):
            raise ValueError(f"No model was found: {result.message}")
        if result.status is not bilevel.Status.CONVERGED:
            warnings.warn(
                f"The search for the regularisation ended early: {result.message} "
                f"{MODERATE if result.status in _OUT_OF_RANGE else _LONGER}",
                ConvergenceWarning,
                stacklevel=5,
            )
        for note in result.notes:
            if note.startswith(("At the start", "Here")):
                warnings.warn(note, ConvergenceWarning, stacklevel=5)
                break
        domain = problem.domain
        self.at_bound_ = isinstance(domain, bilevel.Box) and (
            domain.contact(result.lam, problem.backend) is not None
        )
        self.path_ = result.history
        self.n_iter_ = result.nit
        self.n_passes_ = result.passes
        if certify:
            self.certificate_ = bilevel.certify(result, problem, method=self.method)
        return result

    def _check_new(self, X: Any, fitted: Array, method: str) -> tuple[Any, Backend]:
        """Rows to predict, on the library and device of the fit."""
        X = check_features(self, X, sparse=self._sparse, reset=False)
        backend = get_backend(X)
        ours = get_backend(fitted)
        if backend != ours:
            raise ValueError(
                f"{type(self).__name__}.{method}() and fit() must use the same namespace and "
                f"device: X is on {backend.name} ({backend.device}), the model on {ours.name} "
                f"({ours.device})."
            )
        return X, backend


def like_targets(y_val: Array, y: Array) -> Array:
    """Return held-out targets, which must have the columns of those of training."""
    wanted = (int(y_val.shape[0]), *y.shape[1:])
    if tuple(y_val.shape) != wanted:
        raise ValueError(f"y_val must have shape {wanted} as y has, got {tuple(y_val.shape)}.")
    return y_val


def log_bounds(bounds: Any, name: str) -> tuple[float, float]:
    """Return the logarithms of a pair of positive numbers."""
    pair = numbers_of(bounds, name, POSITIVE)
    if len(pair) != 2 or not pair[0] <= pair[1]:
        raise ValueError(f"{name} must be a pair (low, high), low <= high, got {bounds!r}.")
    return math.log(pair[0]), math.log(pair[1])


def within(value: Any, bounds: Any, backend: Backend) -> Any:
    """Return e^λ in its bounds, which it may leave by a rounding: a float, or an array."""
    low, high = (float(bound) for bound in bounds)
    if isinstance(value, float):
        return min(max(value, low), high)
    return backend.xp.clip(value, low, high)


def positive(value: Any, name: str) -> float:
    """Return the logarithm of a positive number."""
    return math.log(POSITIVE(value, name))


def start_within(log_value: float, bounds: tuple[float, float], name: str) -> float:
    """Where the search starts: the nearest end of the bounds, with a warning, if outside."""
    low, high = bounds
    if not low <= log_value <= high:
        warnings.warn(
            f"{name} = {math.exp(log_value):g} lies outside of its bounds, "
            f"{math.exp(low):g} to {math.exp(high):g}: the search starts at the nearest of them.",
            UserWarning,
            stacklevel=4,
        )
    return min(max(log_value, low), high)


def total_weight(weights: Array | None, n: int, backend: Backend) -> float:
    """The sum of the weights of n rows."""
    return float(n) if weights is None else backend.scalars(backend.xp.sum(weights))[0]


def number(value: Array, backend: Backend) -> Any:
    """A 0-d array, as a float where the library is NumPy."""
    return backend.scalars(value)[0] if backend.name == "numpy" else value
