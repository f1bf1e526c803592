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
from collections.abc import Callable
from dataclasses import dataclass

from .._cached import cached_property
from ..backends import Array, Backend, Pending, each, pending
from ..design import Reach
from ..linalg.rounding import underflow, upper_norm
from ..losses import Accounted, Loss
from ..losses._protocol import ELEMENTARY, proportions


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
    losses : callable
        Gives s ℓ.
    drift : Pending
        ‖δt‖.
    backend : Backend
        Where the arrays live.
    """

    reach: Reach
    loss: Loss
    y: Array
    t: Array
    slopes: Array
    weights: Array | None
    losses: Callable[[], Array]
    drift: Pending
    backend: Backend

    @cached_property
    def _lost(self) -> tuple[Pending, Pending]:
        """Σ s e and ‖s e'‖, in units: by what is computed where the loss says so."""
        loss, backend, units = self.loss, self.backend, proportions(self.loss)
        if units is not None:
            value, slope = units
            return value * self._sum, slope * self._steepness
        assert isinstance(loss, Accounted)
        parts = loss.rounding(self.y, self.t, backend)
        own, slopes = (a if self.weights is None else self.weights * a for a in parts)
        return pending(backend.xp.sum(own)), upper_norm(slopes, backend)

    @cached_property
    def _steepness(self) -> Pending:
        """‖r‖."""
        return upper_norm(self.slopes, self.backend)

    @cached_property
    def _sum(self) -> Pending:
        """Σ s |ℓ|."""
        flat = self.backend.xp.reshape(self.losses(), (-1,))
        return pending(self.backend.absolute_sums(flat))

    @cached_property
    def _heaviest(self) -> Pending | float:
        return 1.0 if self.weights is None else pending(self.backend.xp.max(self.weights))

    @cached_property
    def _steepest(self) -> Pending | float:
        """D: the bound of the loss, or by self-concordance from the curvature that is seen."""
        loss, xp = self.loss, self.backend.xp
        if loss.curvature_bound is not None:
            return loss.curvature_bound
        bends = loss.self_concordance
        if bends is None:
            return math.inf
        curvature = loss.curvature(self.y, self.t, self.backend)
        top = xp.max(xp.abs(loss.curvature_diag(curvature, self.backend)))
        return each(lambda top, drift: top * _exp(2 * bends * drift), top, self.drift)

    @cached_property
    def _turning(self) -> Pending | float:
        """T."""
        loss = self.loss
        if loss.third_bound is not None:
            return loss.third_bound
        if loss.self_concordance is None:
            return math.inf
        return loss.self_concordance * self._steepest

    @property
    def _floor(self) -> float:
        """What underflow may take from a sum over the rows, and ten times that."""
        smallest = underflow(self.t.dtype, 1, self.backend) ** 2
        return 10.0 * math.prod(int(n) for n in self.t.shape) * smallest

    @cached_property
    def grad(self) -> Pending:
        """To be multiplied by ‖κ‖, or by the norm of κ times a scale."""
        unit, backward, floor = self.reach.unit, self.reach.backward, self._floor

        def bound(heaviest: float, steepest: float, drift: float, own: float, r: float) -> float:
            moved = heaviest * _times(steepest, drift)
            return 1.01 * (moved + unit * own + backward * r) + floor

        norms = self._lost[1], self._steepness
        return each(bound, self._heaviest, self._steepest, self.drift, *norms)

    @cached_property
    def value(self) -> Pending:
        """Of Σ s ℓ."""
        # The sum has the rows for its length, and the predictions of each.
        unit, sums = self.reach.unit, 2 * self.reach.backward * _length(self.t)
        floor = self._floor

        def bound(
            heaviest: float, steepest: float, drift: float, own: float, r: float, total: float
        ) -> float:
            moved = r * drift + heaviest * _times(steepest, drift * drift)
            return 1.01 * (moved + unit * own + sums * total) + floor

        sizes = self._lost[0], self._steepness, self._sum
        return each(bound, self._heaviest, self._steepest, self.drift, *sizes)

    def products(self, sizes: Pending, drifts: Pending) -> Pending:
        """For vectors with ‖X v‖ ≤ ``sizes``, through X with an error of ``drifts``, (k,) both.

        To be multiplied by ‖κ‖, as :attr:`grad`.
        """
        units = (ELEMENTARY + 2 * _length(self.t)) * self.reach.unit + self.reach.backward
        floor = self._floor

        def bound(
            heaviest: float, steepest: float, turning: float, own: float, size: float, drift: float
        ) -> float:
            lost = units * steepest + _times(turning, own)
            bent = _times(steepest, drift) + 2 * _times(lost, size + drift)
            return 1.01 * heaviest * bent + floor

        return each(bound, *self._curved, self.drift, sizes, drifts)

    def bent(self, drifts: Pending, sizes: Pending) -> tuple[Pending, Pending]:
        """Of (Σ s ℓ''[X v, X v])^½: what it is at most, and what may be lost of it.

        ``sizes`` are those of X v but for ``drifts``, as for :meth:`products`.

        The root of what ℓ'' may have lost is added, since a sum of tiny ℓ'' may be lost whole.
        """
        units = (ELEMENTARY + 2 * _length(self.t)) * self.reach.unit + self.reach.backward

        def most(heaviest: float, steepest: float, size: float, drift: float) -> float:
            return _times(math.sqrt(heaviest * steepest), size + drift)

        def lost(
            heaviest: float, steepest: float, turning: float, own: float, size: float, drift: float
        ) -> float:
            root = math.sqrt(heaviest * steepest)
            turned = math.sqrt(heaviest * _times(turning, own))
            return _times(root, drift) + _times(units**0.5 * root + turned, size + drift)

        heaviest, steepest, _ = self._curved
        return (
            each(most, heaviest, steepest, sizes, drifts),
            each(lost, *self._curved, self.drift, sizes, drifts),
        )

    @property
    def _curved(self) -> tuple[Pending | float, Pending | float, Pending | float]:
        return self._heaviest, self._steepest, self._turning


def _times(bound: float, size: float) -> float:
    """A bound, which may be infinite, times a size: of nothing it is nothing, not NaN."""
    return 0.0 if size == 0 else bound * size


def _exp(t: float) -> float:
    """e^t, infinite where it overflows; of NaN itself."""
    return math.inf if t > 709 else math.exp(t)


def _length(t: Array) -> int:
    """Sums over further axes are longer by their length; their γ grows no faster than this."""
    return max(1, math.prod(int(n) for n in t.shape[1:]))
