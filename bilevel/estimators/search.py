"""The regularisation of a scikit-learn model, alone or at the end of a pipeline, by hypergradient.

scikit-learn's model stays as it is: bilevel states the same objective, finds its parameters, and
scikit-learn fits it once, at the end. The steps before it are fitted on the training rows of each
split, so that no held-out row is seen; what comes out differs from split to split, and the splits
are stacked (:mod:`bilevel.problems.stacked`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array, get_tags, indexable
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
)

import bilevel
from bilevel.inner import RBF, Kernel, Polynomial
from bilevel.losses import Logistic, Multinomial, Squared
from bilevel.problems import stacked

from ._base import (
    BilevelEstimator,
    fitted_whole,
    like_targets,
    log_bounds,
    positive,
    start_within,
    within,
)
from ._linear import LinearSearch
from ._rows import Rows, class_numbers, half_of_cv, refuse_masked, refuse_unreadable
from ._splits import Split, check_groups, is_validation_set, split_rows
from .kernel_ridge import kernel_problem, kernel_scale

Part = tuple[bilevel.Problem, float]


@dataclass(frozen=True)
class Tunable:
    """How bilevel states a model of scikit-learn.

    Attributes
    ----------
    names : tuple of str
        Its parameters that are tuned.
    signs : tuple of int
        Each is e^{sign λ}.
    start : callable
        (model, training rows) ↦ where they start.
    problem : callable
        (model, training rows, held-out rows, number of classes, domain) ↦ the problem of one
        split and the weight of its held-out rows. Classes are numbers.
    sparse : bool
        Whether it takes sparse features.
    """

    names: tuple[str, ...]
    signs: tuple[int, ...]
    start: Callable[[Any, Rows], tuple[float, ...]]
    problem: Callable[[Any, Rows, Rows, int, bilevel.Box], Part]
    sparse: bool = True


def _refuse(model: Any, **expected: Any) -> None:
    """Refuse a setting under which scikit-learn minimises something else than we state."""
    for name, wanted in expected.items():
        found = getattr(model, name, wanted)
        if found != wanted:
            raise ValueError(
                f"{type(model).__name__} with {name}={found!r} cannot be tuned, expected "
                f"{name}={wanted!r}."
            )


def _logistic(model: Any, train: Rows, held: Rows, n_classes: int, domain: bilevel.Box) -> Part:
    _refuse(model, class_weight=None)
    if getattr(model, "l1_ratio", None) not in (None, 0, 0.0) or model.penalty in (
        "l1",
        "elasticnet",
        None,
    ):
        raise ValueError(
            "LogisticRegression can be tuned with its ℓ2 penalty alone, got "
            f"penalty={model.penalty!r}, l1_ratio={getattr(model, 'l1_ratio', None)!r}."
        )
    if model.solver == "liblinear":
        raise ValueError(
            "LogisticRegression with solver='liblinear' cannot be tuned, since it penalises its "
            "intercept: expected another solver, such as 'lbfgs'."
        )
    loss = Logistic() if n_classes == 2 else Multinomial(n_classes)

    def coded(rows: Rows) -> Rows:
        y = 2 * rows.y - 1 if n_classes == 2 else np.eye(n_classes)[rows.y]
        return replace(rows, y=y.astype(rows.X.dtype))

    return _linear(model, coded(train), coded(held), loss, domain)


def _ridge(model: Any, train: Rows, held: Rows, n_classes: int, domain: bilevel.Box) -> Part:
    _refuse(model, positive=False)
    return _linear(model, train, held, Squared(), domain)


def _linear(model: Any, train: Rows, held: Rows, loss: Any, domain: bilevel.Box) -> Part:
    search = LinearSearch(train, loss, None, bool(model.fit_intercept), domain)
    return search.on_set(held.X, held.y, held.weights)


def _kernel_of(model: Any) -> Kernel:
    if model.kernel == "rbf":
        return RBF()
    if model.kernel in ("poly", "polynomial"):
        return Polynomial(int(model.degree), float(model.coef0))
    raise ValueError(
        f"KernelRidge can be tuned with the kernels 'rbf' and 'polynomial', got {model.kernel!r}."
    )


def _kernel(model: Any, train: Rows, held: Rows, n_classes: int, domain: bilevel.Box) -> Part:
    return kernel_problem(_kernel_of(model), train, held, domain)


#: The models that can be tuned; another is one entry.
TUNABLE: Mapping[type, Tunable] = MappingProxyType(
    {
        LogisticRegression: Tunable(("C",), (-1,), lambda m, rows: (m.C,), _logistic),
        Ridge: Tunable(("alpha",), (1,), lambda m, rows: (m.alpha,), _ridge),
        KernelRidge: Tunable(
            ("gamma", "alpha"),
            (1, 1),
            lambda m, rows: (
                math.exp(kernel_scale(_kernel_of(m), rows)) if m.gamma is None else m.gamma,
                m.alpha,
            ),
            _kernel,
            sparse=False,
        ),
    }
)


def _tunable(model: Any) -> Tunable:
    for cls, found in TUNABLE.items():
        # A subclass may have other parameters: LogisticRegressionCV has no C.
        if isinstance(model, cls) and all(hasattr(model, name) for name in found.names):
            return found
    known = ", ".join(cls.__name__ for cls in TUNABLE)
    raise TypeError(
        f"estimator must be, or be a pipeline that ends in, one of {known}; got "
        f"{type(model).__name__}."
    )


def _takes_sparse(model: Any) -> bool:
    """For the tags, which must not fail on what ``fit`` is to refuse."""
    return all(t.sparse for cls, t in TUNABLE.items() if isinstance(model, cls))


def _takes(estimator: Any, name: str) -> bool:
    """Whether ``fit`` takes a parameter: of a pipeline <step>__<name>, as scikit-learn has it."""
    if isinstance(estimator, Pipeline):
        step, _, rest = name.partition("__")
        return bool(rest) and _takes(dict(estimator.steps).get(step), rest)
    taken = inspect.signature(getattr(estimator, "fit", _no_fit)).parameters
    return name in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values())


def _no_fit() -> None:
    """That of a step that passes everything through."""


def _how(estimator: Any) -> str:
    """How a parameter reaches a step."""
    if not isinstance(estimator, Pipeline):
        return ""
    return ": name the step, as in " + " or ".join(f"{s}__<name>" for s, _ in estimator.steps)


def _has(method: str) -> Callable[[Any], bool]:
    def check(self: Any) -> bool:
        getattr(getattr(self, "best_estimator_", self.estimator), method)
        return True

    return check


class HyperparameterSearchCV(MetaEstimatorMixin, BilevelEstimator):
    """Tune the last step of a pipeline, or a model alone, by its hypergradient.

    It stands where :class:`sklearn.model_selection.GridSearchCV` does, for the parameters that
    have a gradient: C of :class:`~sklearn.linear_model.LogisticRegression`, alpha of
    :class:`~sklearn.linear_model.Ridge`, gamma and alpha of
    :class:`~sklearn.kernel_ridge.KernelRidge`.

    Parameters
    ----------
    estimator : estimator or Pipeline
        One of these models, or a pipeline that ends in one. The search starts at its parameters;
        a gamma of None at the scale of the data (:class:`BilevelKernelRidge`).
    bounds : pair of float, or dict
        Where the parameters stay; a dict gives a pair for each by its name (``"alpha"``).
    cv : int, float, (X_val, y_val), splitter or iterable of splits
        As in :class:`BilevelLogisticRegression`. The steps before the last are fitted on the
        training rows of each split, and X_val goes through them.
    method, max_iter, tol, certify, random_state
        As in :class:`BilevelLogisticRegression`.

    Attributes
    ----------
    best_params_ : dict
        The parameters found, by the names that ``estimator.set_params`` takes.
    best_estimator_ : estimator
        The estimator with them, fitted by scikit-learn on all rows.
    best_score_ : float
        Minus the mean held-out loss: ``neg_log_loss``, or ``neg_mean_squared_error``, of several
        targets the mean.
    n_splits_, n_iter_, n_passes_ : int
        Splits, steps of the search, and passes over the training rows of all splits.
    at_bound_, path_, certificate_
        As in :class:`BilevelLogisticRegression`.
    classes_, n_features_in_, feature_names_in_
        Those of ``best_estimator_``.

    Notes
    -----
    Data is on the host, as scikit-learn's models want it. For a linear model without a pipeline
    :class:`BilevelLogisticRegression` and :class:`BilevelRidge` share the passes of all folds.

    ``fit`` hands its parameters on to the estimator: to the steps before the last in each split,
    the rows of which they are given. The search uses ``sample_weight`` of the last
    step: ``sample_weight`` of a model, ``<step>__sample_weight`` of a pipeline, or whatever is
    requested where metadata routing is enabled.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from bilevel.estimators import HyperparameterSearchCV
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    >>> search = HyperparameterSearchCV(pipeline).fit(X, y)
    >>> list(search.best_params_), search.score(X, y) > 0.97
    (['logisticregression__C'], True)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        bounds: Any = (1e-5, 1e5),
        cv: Any = 5,
        method: Any = "path",
        max_iter: int = 50,
        tol: float | None = None,
        certify: bool = False,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.bounds = bounds
        self.cv = cv
        self.method = method
        self.max_iter = max_iter
        self.tol = tol
        self.certify = certify
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = BaseEstimator.__sklearn_tags__(self)
        ours = get_tags(self.estimator)
        tags.estimator_type = ours.estimator_type
        tags.classifier_tags, tags.regressor_tags = ours.classifier_tags, ours.regressor_tags
        tags.target_tags, tags.input_tags = ours.target_tags, ours.input_tags
        if not isinstance(self.estimator, Pipeline):
            tags.input_tags.sparse = ours.input_tags.sparse and _takes_sparse(self.estimator)
        return tags

    def get_metadata_routing(self) -> Any:
        """What ``fit`` is given goes to the estimator, and what a splitter requests to that."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add(estimator=self.estimator, method_mapping=mapping)
        return self._routed_to_splitter(router)

    @fitted_whole
    def fit(self, X: Any, y: Any = None, **params: Any) -> HyperparameterSearchCV:
        """Find the parameters, and fit the estimator with them.

        Parameters
        ----------
        X : array, sparse matrix, data frame or list
            Whatever the first step takes.
        y : array, shape (n,) or (n, n_targets)
        **params
            For the ``fit`` of the estimator, but for ``groups``, which go to the splitter.

        Returns
        -------
        self
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        head, model, prefix = self._steps()
        tunable = _tunable(model)
        refuse_masked(**params)
        refuse_unreadable(X=X, y=y)
        if is_validation_set(self.cv):
            refuse_unreadable(X_val=self.cv[0], y_val=self.cv[1])
        X, y = indexable(X, y)
        n = _num_samples(X)
        targets, classes = self._targets(y)
        routed, groups = self._routed(params)
        groups = check_groups(self.cv, groups, n)
        weights, head_params = self._metadata(head, model, prefix, routed, n)
        given = partial(_check_method_params, X, head_params)
        prepared = [
            self._prepare(head, train, held, given)
            for train, held in self._parts(X, targets, classes, weights, groups)
        ]
        names, signs = tunable.names, tunable.signs
        start = tunable.start(model, prepared[0][0])
        domain = self._domain(tunable)
        lam0 = [
            s * start_within(positive(v, name), pair, name)
            for s, v, name, pair in zip(signs, start, names, self._log_bounds(tunable), strict=True)
        ]
        n_classes = 0 if classes is None else len(classes)
        parts = [tunable.problem(model, *rows, n_classes, domain) for rows in prepared]
        problems = [problem for problem, _ in parts]
        problem = problems[0] if len(problems) == 1 else stacked(problems)
        result = self._search(problem, lam0)
        values = [
            within(math.exp(s * float(v)), self._pair(name), problem.backend)
            for name, s, v in zip(names, signs, result.lam, strict=True)
        ]
        self.best_params_ = {prefix + name: v for name, v in zip(names, values, strict=True)}
        per_row = 1 if classes is not None else 2  # our squared loss has a half
        n_targets = 1 if targets.ndim == 1 else targets.shape[1]
        total = sum(weight for _, weight in parts)
        self.best_score_ = -per_row * result.fun / (total * n_targets)
        self.n_splits_ = len(parts)
        best = clone(self.estimator).set_params(**self.best_params_)
        self.best_estimator_ = best.fit(X, y, **routed)
        return self

    def _routed(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """What the estimator's ``fit`` is given, and the splitter's groups."""
        if _routing_enabled():
            routed = process_routing(self, "fit", **params)
            return routed.estimator.fit, routed.get("splitter", {"split": {}})["split"].get(
                "groups"
            )
        own = {name: value for name, value in params.items() if name != "groups"}
        for name in own:
            if not _takes(self.estimator, name):
                raise TypeError(
                    f"{type(self).__name__}.fit got {name}, which the fit of "
                    f"{type(self.estimator).__name__} does not take{_how(self.estimator)}."
                )
        return own, params.get("groups")

    def _steps(self) -> tuple[Any, Any, str]:
        """The steps before the last, the model, and what its parameters are prefixed with."""
        if isinstance(self.estimator, Pipeline):
            if not self.estimator.steps:
                raise ValueError(
                    "estimator must be a pipeline that ends in a model to tune, got a Pipeline "
                    "without steps."
                )
            name, model = self.estimator.steps[-1]
            head = self.estimator[:-1] if len(self.estimator.steps) > 1 else None
            return head, model, f"{name}__"
        return None, self.estimator, ""

    def _targets(self, y: Any) -> tuple[Any, Any]:
        """Class numbers and classes, or float targets and None."""
        if not is_classifier(self.estimator):
            return check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"), None
        check_classification_targets(y)
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"This classifier needs rows of 2 classes, got {len(classes)} class.")
        return numbers, classes

    def _metadata(
        self, head: Any, model: Any, prefix: str, params: Mapping[str, Any], n: int
    ) -> tuple[Any, dict[str, Any]]:
        """Weights of the model's rows, and what the steps before it are to be given."""
        key = f"{prefix}sample_weight"
        head_params = {k: v for k, v in params.items() if prefix and not k.startswith(prefix)}
        if _routing_enabled() and params:
            asked = model.get_metadata_routing().consumes("fit", params.keys())
            key = "sample_weight" if "sample_weight" in asked else ""
            head_params = {}
            if head is not None:
                taken = head.get_metadata_routing().consumes("fit_transform", params.keys())
                head_params = {name: params[name] for name in taken}
        weights = params.get(key)
        if weights is not None:
            weights = _check_sample_weight(
                weights, np.empty((n, 1)), dtype=np.float64, ensure_non_negative=True
            )
        return weights, head_params

    def _parts(
        self, X: Any, y: Any, classes: Any, weights: Any, groups: Any
    ) -> list[tuple[tuple[Any, Rows], tuple[Any, Rows]]]:
        """Rows of each split: their numbers (None for rows given apart), and they themselves."""
        backend, n = bilevel.get_backend("numpy"), len(y)

        def rows(index: Any) -> tuple[Any, Rows]:
            s = None if weights is None else weights[index]
            return index, Rows(_safe_indexing(X, index), y[index], s, backend)

        if is_validation_set(self.cv):
            X_val, y_val = self._validation_set_for(y, classes)
            return [(rows(np.arange(n)), (None, Rows(X_val, y_val, None, backend)))]
        present = np.arange(n) if weights is None else np.flatnonzero(weights > 0)
        labels = None if classes is None else y
        splits: list[Split] = split_rows(self.cv, present, labels, n, self.random_state, groups)
        return [(rows(split.train), rows(split.held)) for split in splits]

    def _validation_set_for(self, y: Any, classes: Any) -> tuple[Any, Any]:
        """X_val as it was given, and y_val in the form of the targets y."""
        X_val, y_val = self.cv
        with half_of_cv("y_val"):
            if classes is None:
                y_val = check_array(y_val, ensure_2d=False, dtype=np.float64, input_name="y_val")
            else:
                y_val = class_numbers(y_val, classes, bilevel.get_backend("numpy"), "y_val")
            y_val = like_targets(np.atleast_1d(y_val), y)
        with half_of_cv("X_val"):
            n_val = _num_samples(X_val)
            if n_val != len(y_val):
                raise ValueError(f"X_val has {n_val} rows but y_val has {len(y_val)}.")
        return X_val, y_val

    def _prepare(
        self, head: Any, train: tuple[Any, Rows], held: tuple[Any, Rows], given: Callable[..., Any]
    ) -> tuple[Rows, Rows]:
        """Both parts of a split behind the steps before the last, fitted on the training part."""
        (index, rows), (index_held, held_rows) = train, held
        X, transform = rows.X, None
        if head is not None:
            steps = clone(head)
            X, transform = steps.fit_transform(X, rows.y, **given(indices=index)), steps.transform
        prepared = self._checked(X, rows)
        with half_of_cv("X_val") if index_held is None else nullcontext():
            X_val = held_rows.X if transform is None else transform(held_rows.X)
            return prepared, self._checked(X_val, held_rows)

    def _checked(self, X: Any, rows: Rows) -> Rows:
        """Features as floats, dense where the model wants them so."""
        sparse = {"accept_sparse": "csr"} if _takes_sparse(self._steps()[1]) else {}
        X = check_array(X, dtype=np.float64, input_name="X", **sparse)
        return replace(rows, X=X)

    def _log_bounds(self, tunable: Tunable) -> list[tuple[float, float]]:
        """Those of each parameter, as logarithms."""
        names = tunable.names
        if not isinstance(self.bounds, Mapping):
            return [log_bounds(self.bounds, "bounds")] * len(names)
        if set(self.bounds) != set(names):
            raise ValueError(f"bounds must have the keys {list(names)}, got {list(self.bounds)}.")
        return [log_bounds(self.bounds[name], f"bounds[{name!r}]") for name in names]

    def _pair(self, name: str) -> Any:
        """The bounds of a parameter, as they were given."""
        return self.bounds[name] if isinstance(self.bounds, Mapping) else self.bounds

    def _domain(self, tunable: Tunable) -> bilevel.Box:
        pairs = zip(self._log_bounds(tunable), tunable.signs, strict=True)
        bounds = [(low, high) if sign > 0 else (-high, -low) for (low, high), sign in pairs]
        low_all, high_all = zip(*bounds, strict=True)
        return bilevel.Box(low_all, high_all)

    # -- what the fitted estimator does ----------------------------------------------------------

    @property
    def classes_(self) -> Any:
        return self._fitted("classes_")

    @property
    def n_features_in_(self) -> int:
        found: int = self._fitted("n_features_in_")
        return found

    @property
    def feature_names_in_(self) -> Any:
        return self._fitted("feature_names_in_")

    def _fitted(self, name: str) -> Any:
        """An attribute of the fitted estimator; AttributeError before, as for any attribute."""
        if "best_estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name} before fit.")
        return getattr(self.best_estimator_, name)

    def _asked(self, method: str, X: Any, *args: Any, **params: Any) -> Any:
        """The answer of ``best_estimator_``, to rows that ``fit`` would take."""
        check_is_fitted(self)
        refuse_unreadable(X=X)
        return getattr(self.best_estimator_, method)(X, *args, **params)

    @available_if(_has("predict"))
    def predict(self, X: Any) -> Any:
        """Predict by ``best_estimator_``."""
        return self._asked("predict", X)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Any) -> Any:
        """Probabilities by ``best_estimator_``."""
        return self._asked("predict_proba", X)

    @available_if(_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> Any:
        """Their logarithms."""
        return self._asked("predict_log_proba", X)

    @available_if(_has("decision_function"))
    def decision_function(self, X: Any) -> Any:
        """Margins by ``best_estimator_``."""
        return self._asked("decision_function", X)

    @available_if(_has("score"))
    def score(self, X: Any, y: Any = None, **params: Any) -> Any:
        """The score of ``best_estimator_``: accuracy, or R²."""
        refuse_masked(**params)
        refuse_unreadable(y=y)
        return self._asked("score", X, y, **params)
