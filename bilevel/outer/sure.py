"""Stein's unbiased risk estimate, for y = truth + N(0, σ² I).

    SURE = ‖y - t‖² - n σ² + 2 σ² div,    E SURE = E ‖truth - t‖²    (Stein 1981)

The divergence div = tr ∂t/∂y has two forms here:

* exact, the trace of the smoother of ridge or kernel ridge regression, which depends on λ
  directly (:func:`sure`);
* by Monte Carlo, for any model (:func:`monte_carlo_sure`): finite differences in random
  directions δ, div ≈ ⟨t(y + ε δ) - t(y), δ⟩ / ε (Ramani, Blu and Unser 2008). Its gradient in
  λ, computed by differentiating this estimate, is SUGAR (Deladalle, Vaiter, Fadili and Peyré,
  SIAM J. Imaging Sci. 7, 2014, theorem 2). Here y and y + ε δ are targets of one inner problem
  with several columns, so that one pass serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._cached import cached_property
from ..backends import (
    COUNT,
    POSITIVE,
    SEED,
    Array,
    Backend,
    common_dtype,
    dense_backend_of,
)
from ..inner.kernel_ridge import KernelRidge
from ..inner.linear import LinearModel
from ..linalg.rounding import known
from ._predicted import PredictedPoint, SmoothedPoint
from ._predictor import Predictor
from ._protocol import OuterConstants
from ._rows import refuse_other_models, standard_deviation
from .effective import Smoother, smoother
from .fitted import fitted


@dataclass(frozen=True)
class SURE:
    """SURE with the exact divergence. Build it with :func:`sure`."""

    predictor: Predictor
    y: Array
    noise: float
    smoother: Smoother

    @property
    def passes(self) -> float:
        return self.predictor.passes

    def at(self, x: Array, lam: Array) -> SUREPoint:
        return SUREPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """For a linear model ∂_x g has 2 ‖X‖²; ∂_λ g does not depend on x."""
        return _constants(self.predictor)


@dataclass(frozen=True)
class SUREPoint(SmoothedPoint):
    """SURE at (x, λ)."""

    outer: SURE

    @cached_property
    def value(self) -> Array:
        return self.outer.predictor.backend.xp.sum(self._terms)

    @cached_property
    def _terms(self) -> Array:
        outer, trace = self.outer, self._smoother.trace
        return _terms(self._residual, outer.noise, trace, outer.predictor.backend)

    @property
    def _bend(self) -> float:
        return 2.0

    @cached_property
    def _slopes(self) -> Array:
        return 2 * self._residual

    def _curved(self, rows: Array) -> Array:
        return 2 * rows

    @property
    def _by_trace(self) -> float:
        return 2 * self.outer.noise**2

    @property
    def _by_trace_twice(self) -> float:
        return 0.0

    @property
    def _slopes_by_trace(self) -> None:
        return None


@dataclass(frozen=True)
class MonteCarloSURE:
    """SURE with r random directions. Build it with :func:`monte_carlo_sure`.

    Attributes
    ----------
    predictor : Predictor
        t(x, λ) for each target, shape (n, 1 + r).
    targets : array, shape (n, 1 + r)
        y, and y + ε δ_j.
    probes : array, shape (n, r)
        δ_j.
    noise, epsilon : float
        σ and ε.
    """

    predictor: Predictor
    targets: Array
    probes: Array
    noise: float
    epsilon: float

    @property
    def passes(self) -> float:
        return self.predictor.passes

    def at(self, x: Array, lam: Array) -> MonteCarloSUREPoint:
        return MonteCarloSUREPoint(self, x, lam)

    def constants(self) -> OuterConstants:
        """Quadratic in the first column of x, affine in the others: as with one target."""
        return _constants(self.predictor)


@dataclass(frozen=True)
class MonteCarloSUREPoint(PredictedPoint):
    """Monte-Carlo SURE at (x, λ)."""

    outer: MonteCarloSURE

    @cached_property
    def _residual(self) -> Array:
        return self.prediction.value[:, 0] - self.outer.targets[:, 0]

    @cached_property
    def divergence(self) -> Array:
        """The mean of ⟨t(y + ε δ_j) - t(y), δ_j⟩ / ε, 0-d."""
        outer, t = self.outer, self.prediction.value
        xp = outer.predictor.backend.xp
        total = xp.sum((t[:, 1:] - t[:, :1]) * outer.probes)
        return total / (outer.epsilon * outer.probes.shape[1])

    @cached_property
    def value(self) -> Array:
        return self.outer.predictor.backend.xp.sum(self._terms)

    @cached_property
    def _terms(self) -> Array:
        outer = self.outer
        return _terms(self._residual, outer.noise, self.divergence, outer.predictor.backend)

    @property
    def _bend(self) -> float:
        return 2.0

    @cached_property
    def _slopes(self) -> Array:
        """∂g/∂t, shape (n, 1 + r)."""
        outer = self.outer
        xp = outer.predictor.backend.xp
        scale = 2 * outer.noise**2 / (outer.epsilon * outer.probes.shape[1])
        pulled = scale * outer.probes
        first = 2 * self._residual - xp.sum(pulled, axis=1)
        return xp.concat([first[:, None], pulled], axis=1)

    def _curved(self, rows: Array) -> Array:
        """That of ‖y - t‖² in the first column alone."""
        xp = self.outer.predictor.backend.xp
        return xp.concat([2 * rows[:, :1, :], xp.zeros_like(rows[:, 1:, :])], axis=1)


def _terms(residual: Array, noise: float, divergence: Array, backend: Backend) -> Array:
    """‖y - t‖², -n σ² and 2 σ² div."""
    xp, variance = backend.xp, noise**2
    square = xp.vecdot(residual, residual)
    expected = -residual.shape[0] * variance * xp.ones_like(square)
    return xp.stack([square, expected, 2 * variance * divergence])


def _constants(predictor: Predictor) -> OuterConstants:
    if predictor.depends_on_lam:
        return OuterConstants(None, None)
    rows = predictor.row_square_norms()
    if rows is None:
        return OuterConstants(None, 0.0)
    backend = predictor.backend
    (square,) = backend.scalars(backend.xp.sum(rows))
    return OuterConstants(known(2 * square), 0.0)


def sure(model: LinearModel | KernelRidge, noise: float) -> SURE:
    """Build SURE with the exact divergence, for ridge or kernel ridge regression.

    Parameters
    ----------
    model : LinearModel or KernelRidge
        The inner model: squared loss, ℓ2 penalty, one target, no row weights.
    noise : float
        σ > 0, the standard deviation of the noise in y.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import linear_model
    >>> from bilevel.losses import Squared
    >>> h = linear_model(np.eye(2), np.array([1.0, 3.0]), Squared())
    >>> round(float(sure(h, 1.0).at(np.array([0.5, 1.5]), np.zeros(1)).value), 9)
    2.5
    """
    refuse_other_models(model, LinearModel, KernelRidge)
    noise = standard_deviation(noise, model.dtype, model.backend)
    return SURE(fitted(model), model.y, noise, smoother(model))


def perturbed_targets(
    y: Array, noise: float, *, n_probes: int = 1, seed: int = 0, epsilon: float | None = None
) -> tuple[Array, Array, float]:
    """Return the targets y and y + ε δ_j, the directions δ_j, and ε.

    Parameters
    ----------
    y : array, shape (n,)
        What was observed.
    noise : float
        σ.
    n_probes : int
        r ≥ 1 random directions.
    seed : int
        Of the directions, the same on every backend.
    epsilon : float, optional
        ε > 0; 2 σ / n^0.3 when omitted (Deladalle et al. 2014, section 5.1).

    Returns
    -------
    targets : array, shape (n, 1 + r)
    probes : array, shape (n, r)
    epsilon : float
    """
    backend = dense_backend_of(y=y)
    common_dtype(backend, y=y)
    noise, n_probes = standard_deviation(noise, y.dtype, backend), COUNT(n_probes, "n_probes")
    seed = SEED(seed, "seed")
    if y.ndim != 1 or y.shape[0] == 0:
        raise ValueError(f"y must have shape (n,), n not 0, got {tuple(y.shape)}.")
    if not bool(backend.xp.all(backend.xp.isfinite(y))):
        raise ValueError("y holds NaN or infinite values.")
    epsilon = 2 * noise / y.shape[0] ** 0.3 if epsilon is None else POSITIVE(epsilon, "epsilon")
    probes = backend.normal(seed, (y.shape[0], n_probes), y.dtype)
    column = y[:, None]
    return backend.xp.concat([column, column + epsilon * probes], axis=1), probes, epsilon


def monte_carlo_sure(
    model: LinearModel | KernelRidge, probes: Array, noise: float, epsilon: float
) -> MonteCarloSURE:
    """Build SURE with the Monte-Carlo divergence, for any model with several targets.

    Parameters
    ----------
    model : LinearModel or KernelRidge
        The inner model of the targets of :func:`perturbed_targets`.
    probes : array, shape (n, r)
        The directions that these were perturbed in.
    noise, epsilon : float
        σ and ε.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.inner import linear_model
    >>> from bilevel.losses import Squared
    >>> targets, probes, epsilon = perturbed_targets(np.array([1.0, 3.0]), 1.0, n_probes=4)
    >>> h = linear_model(np.eye(2), targets, Squared())
    >>> g = monte_carlo_sure(h, probes, 1.0, epsilon)
    >>> g.at(targets / 2, np.zeros(1)).divergence.shape
    ()
    """
    refuse_other_models(model, LinearModel, KernelRidge)
    noise = standard_deviation(noise, model.dtype, model.backend)
    epsilon = POSITIVE(epsilon, "epsilon")
    backend = dense_backend_of(y=model.y, probes=probes)
    common_dtype(backend, y=model.y, probes=probes)
    if model.y.ndim != 2:
        raise ValueError(
            "model must have the targets of perturbed_targets as columns, got y of shape "
            f"{tuple(model.y.shape)}."
        )
    expected = (model.y.shape[0], model.y.shape[-1] - 1)
    if tuple(probes.shape) != expected:
        raise ValueError(
            f"probes must have shape {expected}, one column fewer than the targets of the model, "
            f"got {tuple(probes.shape)}."
        )
    return MonteCarloSURE(fitted(model), model.y, probes, noise, epsilon)
