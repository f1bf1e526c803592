"""What rounding does to a loss of the rows of a linear prediction t = X x, and to its derivatives.

Three things are off: the predictions (by ‖δt‖ ≤ ``drift``), the loss of each, and the sums. With s
the weights, r = s ℓ', D ≥ ℓ'' wherever a prediction may truly be, and κ the norms of the columns
of |X| (:class:`~bilevel.design.Reach`):

    gradient   ‖δ(Xᵀ r)‖ ≤ ‖κ‖ (max s · D ‖δt‖ + u ‖s e'‖ + γ_n ‖r‖),
    value      |δ Σ s ℓ| ≤ ‖r‖ ‖δt‖ + ½ max s · D ‖δt‖² + u Σ s e + γ_n Σ s |ℓ|,
    product    ‖δ(Xᵀ S ℓ'' X v)‖ ≤ ‖κ‖ max s (D ‖δ(X v)‖ + (C u D + T ‖δt‖ + γ_n D) ‖X v‖),

e and e' the errors of ℓ and ℓ' in units of u, C u D that of ℓ'', T the Lipschitz constant of ℓ''.
All of it comes from vectors that are there and norms that are computed once: no pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array, Backend
from ..design import Reach
from ..linalg.rounding import underflow, upper_norm
from ..losses import Accounted, Loss
from ..losses._protocol import ELEMENTARY


@dataclass(frozen=True)
class RowRounding:
    """The bounds of the module at one point.

    Attributes
    ----------
    reach : Reach
        Of X.
    loss : Loss
        ℓ, which is :class:`~bilevel.losses.Accounted`.
    y, t : array
        Labels and predictions.
    slopes : array
        r.
    weights : array or None
        s, broadcastable to the predictions.
    drift : array
        ‖δt‖, 0-d.
    backend : Backend
        Where the arrays live.
    """

    reach: Reach
    loss: Loss
    y: Array
    t: Array
    slopes: Array
    weights: Array | None
    drift: Array
    backend: Backend

    @cached_property
    def _errors(self) -> tuple[Array, Array]:
        assert isinstance(self.loss, Accounted)
        value, slope = self.loss.rounding(self.y, self.t, self.backend)
        s = self.weights
        return (value, slope) if s is None else (s * value, s * slope)

    @cached_property
    def _heaviest(self) -> Array | float:
        return 1.0 if self.weights is None else self.backend.xp.max(self.weights)

    @cached_property
    def _steepest(self) -> Array | float:
        """D: the bound of the loss, or by self-concordance from the curvature that is seen."""
        loss, xp = self.loss, self.backend.xp
        if loss.curvature_bound is not None:
            return loss.curvature_bound
        if loss.self_concordance is None:
            return math.inf
        curvature = loss.curvature(self.y, self.t, self.backend)
        top = xp.max(xp.abs(loss.curvature_diag(curvature, self.backend)))
        return top * xp.exp(2 * loss.self_concordance * self.drift)

    @cached_property
    def _turning(self) -> Array | float:
        """T."""
        loss = self.loss
        if loss.third_bound is not None:
            return loss.third_bound
        if loss.self_concordance is None:
            return math.inf
        turning: Array | float = loss.self_concordance * self._steepest
        return turning

    @property
    def _floor(self) -> float:
        """What underflow may take from a sum over the rows, and ten times that."""
        smallest = underflow(self.t.dtype, 1, self.backend) ** 2
        return 10.0 * math.prod(int(n) for n in self.t.shape) * smallest

    @cached_property
    def grad(self) -> Array:
        """To be multiplied by ‖κ‖, or by the norm of κ times a scale."""
        reach, slopes = self.reach, upper_norm(self.slopes, self.backend)
        moved = self._heaviest * self._times(self._steepest, self.drift)
        own = reach.unit * upper_norm(self._errors[1], self.backend)
        return 1.01 * (moved + own + reach.backward * slopes) + self._floor

    def value(self, losses: Array) -> Array:
        """Of Σ ``losses``, which are s ℓ."""
        xp, drift = self.backend.xp, self.drift
        moved = upper_norm(self.slopes, self.backend) * drift
        bent = self._heaviest * self._times(self._steepest, drift * drift)
        own = self.reach.unit * xp.sum(self._errors[0])
        # The sum has the rows for its length, and the predictions of each.
        sums = 2 * self.reach.backward * xp.sum(xp.abs(losses)) * _length(self.t)
        return 1.01 * (moved + bent + own + sums) + self._floor

    def products(self, sizes: Array, drifts: Array) -> Array:
        """For vectors with ‖X v‖ ≤ ``sizes``, through X with an error of ``drifts``, (k,) both.

        To be multiplied by ‖κ‖, as :attr:`grad`.
        """
        steepest, turned = self._steepest, self._times(self._turning, self.drift)
        units = (ELEMENTARY + 2 * _length(self.t)) * self.reach.unit
        lost = (units + self.reach.backward) * steepest + turned
        moved = self._times(steepest, drifts)
        bent = self._heaviest * (moved + 2 * self._times(lost, sizes + drifts))
        return 1.01 * bent + self._floor

    def bent(self, drifts: Array, sizes: Array) -> tuple[Array, Array]:
        """Of (Σ s ℓ''[X v, X v])^½: what it is at most, and what may be lost of it.

        ``sizes`` are those of X v but for ``drifts``, as for :meth:`products`.

        The root of what ℓ'' may have lost is added, since a sum of tiny ℓ'' may be lost whole.
        """
        root = (self._heaviest * self._steepest) ** 0.5
        units = (ELEMENTARY + 2 * _length(self.t)) * self.reach.unit + self.reach.backward
        turned = self._heaviest * self._times(self._turning, self.drift)
        lost = self._times(units**0.5 * root + turned**0.5, sizes + drifts)
        return self._times(root, sizes + drifts), self._times(root, drifts) + lost

    def _times(self, bound: Array | float, size: Array) -> Array:
        """A bound, which may be infinite, times a size: of nothing it is nothing, not NaN."""
        xp = self.backend.xp
        return xp.where(size > 0, bound * xp.ones_like(size), xp.zeros_like(size)) * size


def _length(t: Array) -> int:
    """Sums over further axes are longer by their length; their γ grows no faster than this."""
    return max(1, math.prod(int(n) for n in t.shape[1:]))
