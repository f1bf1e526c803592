"""Linear models: a loss of the margins X x, plus a penalty.

    h(x, λ) = Σ_i s_i ℓ(y_i, a_iᵀ x) + r(x, λ),    r = ½ Σ_j e^{λ_g(j)} x_j² unless said otherwise

With D = diag s_i ℓ''(margins) (a block for each row where a row has several predictions):

    ∂_x h = Xᵀ s ℓ' + ∂_x r,   ∂²_{xx} h = Xᵀ D X + ∂²_{xx} r,   ∂²_{xλ} h = ∂²_{xλ} r.

x has shape (p,), or (p, c) for a loss of c predictions a row. A further axis of length K counts
independent problems that share X: several targets, or the folds of a cross-validation as row
weights s of shape (n, K). One pass over the data then serves all K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from .._cached import cached_property
from ..backends import (
    COUNT,
    Array,
    Backend,
    Has,
    HostIndex,
    Known,
    Pending,
    dense_backend_of,
    flag,
    larger,
    pending,
    postponed,
    same_backend,
)
from ..design import (
    Design,
    Reach,
    WithIntercept,
    as_design,
    part_of,
    rounded,
    row_square_norms,
)
from ..linalg import Preconditioner, dot, grams, norm
from ..linalg.rounding import gamma, known, upper_norm
from ..losses import ELEMENTARY, LOSS, Accounted, Loss, Thirds, Totals, refuse_without_support
from ..losses._protocol import proportions
from ._checks import check_weights, refuse_other_rows
from ._protocol import (
    Bending,
    InnerConstants,
    Rounded,
    Rounding,
    constants_at,
    same_constants,
)
from ._rows import RowRounding
from .averaged import Averaged, Spectrum
from .intercept import Coupling, KeptColumns, free_intercept
from .penalties import (
    FreeLast,
    Penalty,
    PenaltyPoint,
    SingleL2,
    WeightedL2,
    l2_penalty,
    penalty_constants,
)


@dataclass(frozen=True)
class LinearModel:
    """Loss of a linear prediction plus a penalty.

    Build it with :func:`linear_model`, which checks its input.

    Attributes
    ----------
    design : Design
        X, shape (n, p).
    y : array
        Labels as the loss encodes them, broadcastable to ``(n, *tail)``.
    loss : Loss
        ℓ(y, t).
    penalty : Penalty
        The penalty and the hyperparameters that it has.
    tail : tuple of int
        The axes of x after the first: (), (c,), (K,) or (c, K).
    sample_weight : array or None
        s, broadcastable to ``(n, *tail)``; None is all ones.
    """

    design: Design
    y: Array
    loss: Loss
    penalty: Penalty
    tail: tuple[int, ...] = ()
    sample_weight: Array | None = None
    _norms: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def backend(self) -> Backend:
        return self.design.backend

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.design.shape[1], *self.tail)

    @property
    def dtype(self) -> Any:
        return self.design.dtype

    @property
    def n_hyperparameters(self) -> int:
        return self.penalty.n_hyperparameters

    def rounded(self) -> LinearModel | None:
        """The same model with products in float32, None where they are not cheaper."""
        design = rounded(self.design)
        return None if design is None else replace(self, design=design)

    def refuse_without_minimum(self, y_name: str = "y") -> None:
        """Refuse rows for which a free intercept has no best value, as those of one class.

        Raises
        ------
        ValueError
            If a class, or every count, is missing in one of the problems.
        """
        if isinstance(self.penalty, FreeLast):
            refuse_without_support(self.loss, self.y, self.sample_weight, self.backend, y_name)

    @property
    def n_rows(self) -> int:
        return self.design.shape[0]

    @property
    def entries(self) -> int:
        """How many numbers a pass reads."""
        return self.design.entries

    @property
    def passes(self) -> float:
        return self.design.passes.total

    @property
    def column_passes(self) -> float:
        return self.design.passes.columns

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> LinearPoint:
        point = LinearPoint(self, x, lam)
        if carry is not None:  # fills the caches of a frozen point
            point.__dict__.update(carry=carry, margins=carry[:-1, ...], drift=carry[-1, ...])
        return point

    @cached_property
    def reach(self) -> Reach:
        """What rounding does to products with X."""
        return Reach.of(self.design)

    @cached_property
    def spectrum(self) -> Spectrum | None:
        """That of XᵀSX, for :meth:`LinearPoint.averaged`; None where that is of no use."""
        penalty, weights = self.penalty, self.sample_weight
        free = isinstance(penalty, FreeLast)
        plain = penalty.base if isinstance(penalty, FreeLast) else penalty
        if not isinstance(plain, SingleL2) or self.tail != self.loss.output_shape:
            return None
        n, xp = self.n_rows, self.backend.xp
        if weights is not None:
            if math.prod(weights.shape) != n:
                return None
            weights = xp.reshape(weights, (n,))
        return Spectrum.of(self.design, weights, free)

    def rows(self, index: HostIndex, *, factor: float | None = None) -> LinearModel:
        """The model of these rows, to stand for all; its passes count as their share.

        Parameters
        ----------
        index : array of int, shape (k,)
            On the host; a row may come several times.
        factor : float, optional
            Of the losses, n / k when omitted: then the mean over random rows is h.
        """
        n, backend = self.design.shape[0], self.backend
        weights = self.sample_weight
        if weights is None:
            shape = (n, *(1,) * len(self.tail))
            weights = backend.xp.ones(shape, dtype=self.dtype, device=backend.device)
        factor = n / max(len(index), 1) if factor is None else factor
        return replace(
            self,
            design=part_of(self.design, index),
            y=take_rows(self.y, index, backend),
            sample_weight=factor * take_rows(weights, index, backend),
            _norms={},
        )

    def weigh(self, rows: Array) -> Array:
        """S times an array of the shape of the margins, or with one more axis."""
        return weigh(self.sample_weight, rows)

    def bend(self, curvature: Array, rows: Array) -> Array:
        """S ℓ'', what the loss keeps of it given, times changes of the margins."""
        return self.weigh(self.loss.curvature_product(curvature, rows, self.backend))

    def constants(self, lam: Array) -> InnerConstants:
        """Those of the penalty, and of the data from ‖X‖² ≤ Σ_i s_i ‖a_i‖².

        ‖∂²_{xx}h‖ ≤ sup ℓ'' ‖X‖² + that of r; the Hessian has the Lipschitz constant
        sup |ℓ'''| max_i ‖a_i‖ ‖X‖² + that of r, since |t_i(x) - t_i(x')| ≤ ‖a_i‖ ‖x - x'‖.
        With a free intercept see :meth:`_mu_with_free_intercept`.
        """
        data_square, widest = self._square_norms()
        second, third = self.loss.curvature_bound, self.loss.third_bound
        r = penalty_constants(self.penalty, lam, self.backend)
        mu = r.mu
        if isinstance(self.penalty, FreeLast):
            base = penalty_constants(self.penalty.base, lam, self.backend)
            mu = self._mu_with_free_intercept(base.mu)
        return InnerConstants(
            mu=mu or None,
            smoothness=_sum(_times(second, data_square), r.smoothness),
            hessian_lipschitz=_sum(_times(third, widest * data_square), r.hessian_lipschitz),
            cross_lipschitz=r.cross_lipschitz,
            # A quadratic penalty keeps its Hessian, whatever that of the data does.
            self_concordance=(
                _times(self.loss.self_concordance, widest) if r.hessian_lipschitz == 0 else None
            ),
        )

    def _mu_with_free_intercept(self, w: float | None) -> float | None:
        """Bound the curvature from below where the intercept b has no penalty.

        With κ = inf ℓ'' and A the rows of X without the intercept, weighted by s, and any
        θ ≤ κ: κ ‖A v + b 1‖² + w ‖v‖² ≥ θ (½ S b² - ‖A‖² ‖v‖²) + w ‖v‖², S = Σ s_i. For
        θ = min(κ, w / (2 ‖A‖²)) this is at least ½ min(w, θ S). Losses that become flat
        (κ = 0) have no bound that holds for every x: None.
        """
        kappa = self.loss.curvature_lower
        if not w or not kappa:
            return None
        self._square_norms()
        total = self._norms["weight"]
        # At least ‖A‖²: less the column of ones, the sums of which may be off, too.
        square = self._norms["square"] - (1 - self._norms["lost"]) * total
        theta = min(kappa, w / (2 * square)) if square > 0 else kappa
        return min(w, theta * total) / 2

    def _square_norms(self) -> tuple[float, float]:
        """(upper bound of ‖√s X‖², max_i ‖a_i‖), off the counter: they belong to the data."""
        if not self._norms:
            xp = self.backend.xp
            rows = row_square_norms(self.design)
            ndim = 1 + len(self.tail)
            weights = self.weigh(
                xp.ones(
                    (rows.shape[0], *(1,) * (ndim - 1)),
                    dtype=self.dtype,
                    device=self.backend.device,
                )
            )
            columns = beside(rows, weights)
            totals = xp.sum(weights, axis=0)
            found = self.backend.scalars(
                xp.max(xp.sum(weights * columns, axis=0)),
                xp.max(rows),
                xp.min(totals),
                xp.sum(rows),
            )
            n, p = self.design.shape
            lost = gamma(n + p + 16, self.reach.unit)
            square, widest, weight, unweighted = found
            # Centring on the fly loses what the columns had before it, and shows here.
            gone = lost * max(self.reach.total**2 - unweighted, 0.0)
            self._norms.update(
                square=square * (1 + lost) + gone * square / max(unweighted, 1e-300),
                widest=math.sqrt(widest * (1 + lost) + gone),
                weight=weight * (1 - lost),
                lost=lost,
            )
        return self._norms["square"], self._norms["widest"]


def weigh(s: Array | None, rows: Array) -> Array:
    """S times an array of the shape of the margins, or with one more axis; s None is all ones."""
    if s is None:
        return rows
    return (s if rows.ndim == s.ndim else s[..., None]) * rows


def beside(rows: Array, a: Array) -> Array:
    """One number a row, with the axes that make it broadcast to a."""
    return rows[(slice(None), *(None,) * (a.ndim - 1))]


def _times(a: float | None, b: float) -> float | None:
    return None if a is None else known(a * b)  # 0 times a square that overflows


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


@dataclass(frozen=True)
class LinearPoint:
    """A linear model at (x, λ); its margins X x cost one pass, or none when handed over."""

    model: LinearModel
    x: Array
    lam: Array

    @cached_property
    def margins(self) -> Array:
        """X x, shape (n, *tail)."""
        return matmul(self.model.design, self.x)

    @cached_property
    def drift(self) -> Array:
        """How far each column of the margins may be from X x, the shape of the tail."""
        way = self.__dict__.pop("way", None)  # with it the ray would be kept, and its start
        return self.model.reach.drift(self.x) if way is None else way[0].drift(way[1])

    @cached_property
    def carry(self) -> Array:
        """The margins, and their drift in a last row."""
        return _below(self.margins, self.drift, self.model.backend)

    @cached_property
    def penalty(self) -> PenaltyPoint:
        """The penalty at (x, λ)."""
        return self.model.penalty.at(self.x, self.lam, self.model.backend)

    @cached_property
    def value(self) -> Array:
        return self.model.backend.xp.sum(self._losses) + self.penalty.value

    @cached_property
    def _losses(self) -> Array:
        """S ℓ at the margins."""
        model = self.model
        return model.weigh(model.loss.value(model.y, self.margins, model.backend))

    @cached_property
    def loss_derivative(self) -> Array:
        """S ℓ' at the margins, shape (n, *tail)."""
        model = self.model
        return model.weigh(model.loss.derivative(model.y, self.margins, model.backend))

    @cached_property
    def grad(self) -> Array:
        return rmatmul(self.model.design, self.loss_derivative) + self.penalty.grad

    @cached_property
    def curvature(self) -> Array:
        """ℓ'' at the margins (what the loss keeps of it), shape (n, *tail)."""
        return self.model.loss.curvature(self.model.y, self.margins, self.model.backend)

    def hvp(self, v: Array) -> Array:
        """(Xᵀ D X + ∂²_{xx} r) v, two passes whatever the number of columns."""
        model = self.model
        rows = matmul(model.design, v)
        # A new array: a design and a penalty from outside may keep what they return.
        return rmatmul(model.design, model.bend(self.curvature, rows)) + self.penalty.hvp(v)

    def cross_vjp(self, q: Array) -> Array:
        return self.penalty.cross_vjp(q)

    @property
    def cross_norm(self) -> Array | None:
        return self.penalty.cross_norm

    def cross_jvp(self, d: Array) -> Array:
        return self.penalty.cross_jvp(d)

    def diag(self) -> Array | None:
        """diag(Xᵀ D X) + diag ∂²_{xx} r, one pass."""
        return self._diag

    @cached_property
    def _diag(self) -> Array | None:
        model, penalty = self.model, self.penalty.diag()
        if penalty is None:
            return None
        d = model.weigh(model.loss.curvature_diag(self.curvature, model.backend))
        design = model.design
        return _by_columns(design.gram_diag, d, design.shape[1], design.backend) + penalty

    def preconditioner(self) -> Preconditioner | None:
        """M⁻¹ with M⁻¹ ∂²_{xx}h ⪰ I where the intercept is free, one pass; None elsewhere."""
        return self._preconditioner

    @cached_property
    def _preconditioner(self) -> Preconditioner | None:
        model, penalty = self.model, self.model.penalty
        if not isinstance(penalty, FreeLast) or not isinstance(penalty.base, WeightedL2):
            return None
        loss, backend, c = model.loss, model.backend, math.prod(model.loss.output_shape)
        if c > _MOST_KEPT and isinstance(loss, Totals):
            S = loss.curvature_total(self.curvature, model.sample_weight, backend)
            coupled: tuple[Coupling, Array] = (
                _Products(model, self.curvature, self.margins.shape[0]),
                backend.xp.reshape(S, (-1, c, c)),
            )
        else:
            coupled = KeptColumns.of(self._interceptcolumns(c), c, backend)
        weights = penalty.base.spread(backend.xp.exp(self.lam), self.x.ndim, backend)
        return free_intercept(*coupled, weights, model.tail, backend, loss.shift_invariant)

    def averaged(self) -> tuple[Preconditioner, float] | None:
        """The mean curvature in the place of that of every row: see :mod:`bilevel.inner.averaged`.

        For one ℓ2 constant and no independent problems; the first call takes a pass of p columns.
        """
        model, loss, backend = self.model, self.model.loss, self.model.backend
        if type(self) is not LinearPoint or type(model) is not LinearModel:
            return None  # H may be another: then M would prove what is not so
        if model.tail != loss.output_shape or model.spectrum is None:
            return None
        bends = self.curvature
        if loss.output_shape:
            if not isinstance(loss, Totals):
                return None
            total = loss.curvature_total(bends, model.sample_weight, backend)
        else:
            total = backend.xp.reshape(backend.xp.sum(model.weigh(bends)), (1, 1))
        mu = backend.xp.exp(self.lam[0])
        found = Averaged.of(model.spectrum, total / model.spectrum.total, mu, backend)
        if found is None:
            return None
        (bottom,) = backend.scalars(found.bottom)
        # The coupling of a free intercept is that of the means, and has no bound.
        return found, 0.0 if isinstance(model.penalty, FreeLast) else bottom

    def _interceptcolumns(self, c: int) -> Array:
        """H without its penalty times the c unit intercepts, in one pass where memory allows."""
        model, xp = self.model, self.model.backend.xp
        units = xp.eye(c, dtype=model.dtype, device=model.backend.device)
        units = xp.reshape(units, (1, *model.loss.output_shape, *self._ones, c))
        shape = self.margins.shape
        at_once = max(1, _COLUMN_ENTRIES // math.prod(shape))
        parts = []
        for start in range(0, c, at_once):
            some = units[..., start : min(start + at_once, c)]
            rows = xp.broadcast_to(some, (*shape, some.shape[-1]))
            parts.append(rmatmul(model.design, model.bend(self.curvature, rows)))
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)

    @property
    def _ones(self) -> tuple[int, ...]:
        """An axis of length 1 for that of the independent problems, if there is one."""
        return (1,) * (len(self.model.tail) - len(self.model.loss.output_shape))

    def rounded(self) -> LinearPoint | None:
        """The same point with products in float32, None where they are not cheaper."""
        model = self.model.rounded()
        if model is None:
            return None
        point = model.at(self.x, self.lam, self.carry)
        point.__dict__["curvature"] = self.curvature  # the margins are the same
        return point

    def push(self, v: Array) -> Array:
        """X v for directions v, and their drift in a last row: shape (n + 1, *tail, k)."""
        product = matmul(self.model.design, v)
        return _below(product, self.model.reach.drift(v), self.model.backend)

    def joined(self, pushed: Array, more: Array) -> Array:
        backend, unit = self.model.backend, self.model.reach.unit
        total = pushed + more
        rows, drift = total[:-1, ...], (1 + 4 * unit) * total[-1, ...]
        # The sum itself is right to one unit of each of its rows.
        return _below(rows, backend.stepped(drift, 2 * unit, _lengths(rows, backend)), backend)

    def along(self, pushed: Array, weights: Array) -> Array:
        backend, reach = self.model.backend, self.model.reach
        xp, rows = backend.xp, pushed[:-1, ...]
        terms = gamma(weights.shape[0] + 4, reach.unit)
        sizes = backend.stepped(pushed[-1, ...], terms, _lengths(rows, backend))
        drift = (1 + 2 * terms) * xp.matmul(sizes, xp.abs(weights))
        return _below(xp.matmul(rows, weights), drift, backend)

    @cached_property
    def _rows(self) -> RowRounding:
        model, backend = self.model, self.model.backend
        return RowRounding(
            reach=model.reach,
            loss=model.loss,
            y=model.y,
            t=self.margins,
            slopes=self.loss_derivative,
            weights=model.sample_weight,
            losses=lambda: self._losses,
            drift=pending(self.drift).length(),
            backend=backend,
        )

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        """Those of the rows and of the penalty; None where one of the two states none."""
        model, backend = self.model, self.model.backend
        if not isinstance(model.loss, Accounted) or not isinstance(self.penalty, Rounded):
            return None
        if not model.reach.proven:
            return None
        penalty = self.penalty.rounding(vectors, None, scale)
        if penalty is None:
            return None
        reach = model.reach
        if pushed is None:
            shape = (vectors.shape[-1],)
            sizes = postponed(lambda: column_lengths(reach(vectors), backend), shape)
            drifts = reach.forward * sizes
        else:
            rows = pushed[:-1, ...]
            sizes = postponed(lambda: backend.column_norm(rows), (rows.shape[-1],))
            sizes = (1 + reach.backward) * sizes
            drifts = columns(pushed[-1, ...], backend)
        total = reach.scaled_total(scale)
        # The sums of the two parts are right to one unit, which either part has already twice.
        return Rounding(
            2 * (total * self._rows.grad + penalty.grad),
            2 * (total * self._rows.products(sizes, drifts) + penalty.products),
            penalty.cross,
        )

    def rounding_along(self, q: Array, energy: Array) -> Pending:
        """Of the margins, by the curvature of their rows, and of the sums of Xᵀ r and ∂r."""
        model, xp, reach = self.model, self.model.backend.xp, self.model.reach
        bends = model.weigh(model.loss.curvature_diag(self.curvature, model.backend))
        steep = (pending(xp.max(xp.abs(bends))) * larger(energy, 0.0)).root()
        columns = reach.columns[(slice(None), *(None,) * (q.ndim - 1))]
        top = pending(xp.max(xp.abs(self.loss_derivative)))
        slopes, units = math.sqrt(reach.backward * reach.unit) * top, proportions(model.loss)
        if units is not None:
            slopes = slopes + reach.unit * units[1] * top
        elif isinstance(model.loss, Accounted):
            _, own = model.loss.rounding(model.y, self.margins, model.backend)
            slopes = slopes + reach.unit * pending(xp.max(model.weigh(own)))
        penalty = reach.unit * pending(product_size(self.penalty.grad, q, model.backend))
        summed = slopes * pending(norm(columns * q, model.backend))
        found: Pending = steep * reach.likely(self.x) + 4 * (summed + penalty)
        return found

    @cached_property
    def value_rounding(self) -> Pending:
        """About how far rounding may have moved ``value``."""
        model, drift = self.model, self.model.reach.likely(self.x)
        steep = pending(norm(self.loss_derivative, model.backend))
        return steep * drift + 16 * model.reach.unit * abs(pending(self.value))

    def pull(self, v: Array, pushed: Array) -> tuple[Array, Array]:
        """(∂_x h, ∂²_{xx} h · v) from one backward pass; ``pushed`` is X v."""
        model, xp = self.model, self.model.backend.xp
        rows = pushed[:-1, ...]
        bent = model.weigh(model.loss.curvature_product(self.curvature, rows, model.backend))
        both = xp.concat([self.loss_derivative[..., None], bent], axis=-1)
        back = rmatmul(model.design, both)
        self.__dict__["grad"] = back[..., 0] + self.penalty.grad
        return self.grad, self.penalty.hvp(v) + back[..., 1:]

    def swing(self, pushed: Array) -> tuple[Pending, Pending] | None:
        """From |∂³ℓ[u, v, w]| ≤ c ‖v‖ (∂²ℓ[u, u] ∂²ℓ[w, w])^½, row by row, and Cauchy-Schwarz.

        M_j = c max_i ‖(X v_j)_i‖, and M_0j² = c² Σ_i s_i ‖(X v_0)_i‖² ℓ''_i[X v_j, X v_j].
        """
        model, xp = self.model, self.model.backend.xp
        c = model.loss.self_concordance
        if c is None or constants_at(model, self).self_concordance is None:
            return None  # of the loss, and of the penalty
        own = tuple(range(1, 1 + len(model.loss.output_shape)))
        if c == 0:  # H does not turn, whatever the sizes
            still = Known((0.0,) * pushed.shape[-1], (pushed.shape[-1],))
            return still, still[1:]
        drift, pushed = columns(pushed[-1, ...], model.backend), pushed[:-1, ...]
        squares = xp.sum(pushed * pushed, axis=own) if own else pushed * pushed
        rows = tuple(range(squares.ndim - 1))
        tangents = pushed[..., 1:]
        bent = model.weigh(model.loss.curvature_product(self.curvature, tangents, model.backend))
        bent = xp.sum(bent * tangents, axis=own) if own else bent * tangents
        both = pending(xp.sum(squares[..., :1] * bent, axis=rows)).root()
        # What rounding may have taken, from X v and from ℓ''.
        most = 1.01 * pending(xp.max(squares, axis=rows)).root() + drift
        sizes = 1.01 * pending(model.backend.column_norm(pushed))
        widest, lost = self._rows.bent(drift[1:], sizes[1:])
        return c * most, c * (1.01 * both + most[0] * lost + drift[0] * widest)

    def turning(self, pushed: Array, shares: tuple[float, ...]) -> Array | None:
        """By the rows; ℓ'' holds what rounding may have taken of it."""
        model, backend = self.model, self.model.backend
        xp, c = backend.xp, model.loss.self_concordance
        if c is None or constants_at(model, self).self_concordance is None:
            return None  # of the loss, and of the penalty
        own = tuple(range(1, 1 + len(model.loss.output_shape)))
        rows = pushed[:-1, ...]
        d, others = rows[..., 0], rows[..., 1:]
        bent = model.loss.curvature_product(self.curvature, others, backend)
        lost = ELEMENTARY * model.reach.unit * (model.loss.curvature_bound or 0.0)
        bent, sizes = model.weigh((bent + lost * others) * others), d * d
        if own:
            bent, sizes = xp.sum(bent, axis=own), xp.sum(sizes, axis=own)
        phi = _beyond(c * xp.reshape(xp.sqrt(sizes), (-1,)), shares, backend)
        bent = xp.reshape(bent, (-1, bent.shape[-1]))
        root = xp.sqrt(xp.maximum(bent, xp.zeros_like(bent)))
        first = root[:, :1]
        both = xp.matmul(phi, first * root[:, 1:])
        alone = xp.sqrt(xp.matmul(phi * phi, first * first))
        return xp.concat([xp.max(phi, axis=1, keepdims=True), alone, both], axis=-1)

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        """Σ_i s_i ℓ'''_i[X q, X t, X t], and that of the penalty: no pass where ℓ''' is zero."""
        model, backend = self.model, self.model.backend
        own = self.penalty.bend(q, T) if isinstance(self.penalty, Bending) else None
        if own is None or model.loss.third_bound == 0:
            return own
        if not isinstance(model.loss, Thirds):
            return None
        if pushed is None:
            rows = matmul(model.design, backend.xp.concat([q[..., None], T], axis=-1))
        else:
            rows = pushed[:-1, ...]
        first, tangents = rows[..., 0], rows[..., 1:]
        third = model.loss.third(model.y, self.margins, backend)
        bent = model.weigh(model.loss.third_product(third, first, tangents, backend))
        return own + grams(tangents, bent, backend)

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        return self.penalty.cross_bend(q, T) if isinstance(self.penalty, Bending) else None

    def fold(self, q: Array, D: Array) -> Array | None:
        return self.penalty.fold(q, D) if isinstance(self.penalty, Bending) else None

    def leverage(self, pushed: Array, W: Array) -> Pending:
        """C max_i ‖Wᵀa_i‖, of the predictions of a row together."""
        model, xp = self.model, self.model.backend.xp
        rows = xp.matmul(pushed[:-1, ...], W)
        drift = upper_norm(W, model.backend) * norm(pushed[-1, ...], model.backend)
        axes = (*range(1, 1 + len(model.loss.output_shape)), rows.ndim - 1)
        longest = pending(xp.max(xp.sqrt(xp.sum(rows * rows, axis=axes))))
        found: Pending = (1 + model.reach.forward) * longest + drift
        return (model.loss.self_concordance or 0.0) * found

    def ray(self, d: Array, pushed: Array | None = None) -> LinearRay:
        model, reach = self.model, self.model.reach
        # x, its margins and their product with t are each right to one unit.
        units = 5 * reach.unit
        here = model.backend.stepped(self.drift, units, reach(self.x))
        if pushed is None:
            rows, drift = matmul(model.design, d), (1 + units / reach.forward) * reach.drift(d)
        else:
            rows, drift = pushed[:-1, ...], model.backend.stepped(pushed[-1, ...], units, reach(d))
        return LinearRay(self, d, rows, here, drift)


def _beyond(sizes: Array, shares: tuple[float, ...], backend: Backend) -> Array:
    """φ(σ s) = e^{σs} - 1 - σs, a row for each share; by its series where it would cancel."""
    xp = backend.xp
    most = math.log(float(xp.finfo(sizes.dtype).max)) / 2 - 20  # sums of its squares are numbers
    s = backend.asarray(shares, dtype=sizes.dtype)[:, None] * sizes
    s = xp.minimum(s, xp.full_like(s, most))
    near = 0.5 * s * s * (1 + s)
    return xp.where(s < _SMALL, near, xp.expm1(s) - s)


#: Where the series is right to a hundredth, and more than φ.
_SMALL = 1e-2

#: Predictions a row whose coupling with a free intercept is kept: c times the memory of x, and
#: c² columns of a product, where each application without it takes 2 c.
_MOST_KEPT = 32

#: Entries of the rows that are formed at once for it (128 MiB in float64).
_COLUMN_ENTRIES = 1 << 24


@dataclass(frozen=True)
class _Products:
    """B of a free intercept by products with X, off the diagonal of Xᵀ D X."""

    model: LinearModel
    curvature: Array
    n: int

    def down(self, b: Array) -> Array:
        model, xp = self.model, self.model.backend.xp
        rows = xp.broadcast_to(b, (self.n, *b.shape[1:]))
        return rmatmul(model.design, model.bend(self.curvature, rows))[:-1, ...]

    def up(self, u: Array) -> Array:
        model, xp = self.model, self.model.backend.xp
        v = xp.concat([u, xp.zeros_like(u[:1, ...])], axis=0)
        bent = model.bend(self.curvature, matmul(model.design, v))
        return xp.sum(bent, axis=0, keepdims=True)


@dataclass(frozen=True)
class LinearRay:
    """A linear model along x + t d: the margins are affine in t, so one pass serves every t."""

    start: LinearPoint
    d: Array
    d_margins: Array
    #: Of the margins of any point of the ray, and more for a step of unit length.
    here: Array
    step: Array

    def at(self, t: float) -> LinearPoint:
        start, backend = self.start, self.start.model.backend
        point = start.model.at(backend.stepped(start.x, t, self.d), start.lam)
        margins = backend.stepped(start.margins, t, self.d_margins)
        point.__dict__.update(margins=margins, way=(self, t))
        point.__dict__["penalty"] = start.penalty.moved(point.x)
        same_constants(point, start)
        return point

    def drift(self, t: float) -> Array:
        """Of the margins at x + t d."""
        return self.start.model.backend.stepped(self.here, abs(t), self.step)

    def slope(self, point: Any) -> Pending:
        backend = self.start.model.backend
        data, penalty = point.loss_derivative, point.penalty.grad
        found: Pending = pending(dot(data, self.d_margins, backend)) + dot(penalty, self.d, backend)
        return found


def product_size(a: Array, b: Array, backend: Backend) -> Array:
    """Σ |a b| over all entries of two arrays of one shape, 0-d."""
    return backend.absolute_sums(*(backend.xp.reshape(v, (-1,)) for v in (a, b)))


def columns(a: Array, backend: Backend) -> Pending:
    """The norms over all axes but the last; what is (k,) and not negative as it is."""
    return pending(column_lengths(a, backend))


def column_lengths(a: Array, backend: Backend) -> Array:
    """The same on the device."""
    return a if a.ndim == 1 else backend.column_norm(a)


def _lengths(rows: Array, backend: Backend) -> Array:
    """Norms over the first axis."""
    if rows.ndim == 1:
        return backend.norm(rows)
    columns = backend.column_norm(backend.xp.reshape(rows, (rows.shape[0], -1)))
    return backend.xp.reshape(columns, rows.shape[1:])


def take_rows(array: Array, index: HostIndex, backend: Backend) -> Array:
    """Rows of an array by their numbers."""
    return backend.xp.take(array, backend.asarray(index), axis=0)


def _below(rows: Array, last: Array, backend: Backend) -> Array:
    """Rows, and one more below them."""
    return backend.xp.concat([rows, last[None, ...]], axis=0)


def _by_columns(product: Any, v: Array, length: int, backend: Backend) -> Array:
    """Multiply a design with every axis of v but the first as columns.

    A product of another shape than it should have would be broadcast by what it is added to.
    """
    xp, flat = backend.xp, v.ndim <= 2
    result = product(v if flat else xp.reshape(v, (v.shape[0], -1)))
    expected = (length, *v.shape[1:]) if flat else (length, math.prod(v.shape[1:]))
    if tuple(result.shape) != expected:
        name = getattr(product, "__qualname__", "a product of the design")
        raise ValueError(f"{name} must be of shape {expected}, got {tuple(result.shape)}.")
    return result if flat else xp.reshape(result, (length, *v.shape[1:]))


def matmul(design: Design, v: Array) -> Array:
    """X v for v of shape (p, ...)."""
    return _by_columns(design.matmul, v, design.shape[0], design.backend)


def rmatmul(design: Design, r: Array) -> Array:
    """Xᵀ r for r of shape (n, ...)."""
    return _by_columns(design.rmatmul, r, design.shape[1], design.backend)


def linear_model(
    X: Any,
    y: Array,
    loss: Loss,
    *,
    groups: Any = None,
    penalty: Penalty | None = None,
    sample_weight: Array | None = None,
    fit_intercept: bool = False,
    X_name: str = "X",
    y_name: str = "y",
) -> LinearModel:
    """Build a linear model from data.

    Parameters
    ----------
    X : array, sparse matrix or Design, shape (n, p)
        Features, float32 or float64.
    y : array, shape (n,)
        Labels, of the backend, device and dtype of X. For a loss of one number a row also
        (n, K): K independent problems. For the multinomial loss classes (n,) or one-hot (n, c).
    loss : Loss
        The loss of one prediction.
    groups : None, array of integers of shape (p,), or "each"
        One λ for all coefficients, one for each group of them, or one for each.
    penalty : Penalty, optional
        Another penalty than ℓ2 (elastic net, generalised Tikhonov), in place of ``groups``.
    sample_weight : array, shape (n,) or (n, K), optional
        Weights s ≥ 0 that multiply the losses of the rows. With K columns: K independent
        problems, as the folds of a cross-validation.
    fit_intercept : bool
        Append a coefficient without penalty, the last of x.
    X_name, y_name : str
        How errors call the arguments.

    Raises
    ------
    ValueError, TypeError
        If shapes, labels, dtypes or backends do not fit; the message says which.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Logistic
    >>> h = linear_model(np.eye(2), np.array([1.0, -1.0]), Logistic())
    >>> h.at(np.zeros(2), np.zeros(1)).grad
    array([-0.5,  0.5])
    """
    if groups is not None and penalty is not None:
        raise ValueError("Give groups or penalty, not both.")
    fit_intercept = flag(fit_intercept, "fit_intercept")
    if penalty is not None:
        PENALTY(penalty, "penalty")
        COUNT(penalty.n_hyperparameters, "penalty.n_hyperparameters")
    design, labels, weights, tail = check_rows(X, y, loss, sample_weight, X_name, y_name)
    if penalty is None:
        penalty = l2_penalty(groups, (design.shape[1], *loss.output_shape), design.backend)
    if fit_intercept:
        design, penalty = WithIntercept(design), FreeLast(penalty)
    model = LinearModel(design, labels, loss, penalty, tail, weights)
    model.refuse_without_minimum(y_name)
    return model


#: What takes the place of a penalty has to be one.
PENALTY = Has("a penalty", "n_hyperparameters", "at", "constants")


def check_rows(
    X: Any, y: Array, loss: Loss, sample_weight: Array | None, X_name: str, y_name: str
) -> tuple[Design, Array, Array | None, tuple[int, ...]]:
    """Refuse rows that do not fit each other; return them aligned, and the tail of x."""
    LOSS(loss, "loss")
    design = as_design(X, name=X_name)
    labels = check_labels(design, y, loss, X_name, y_name)
    weights = check_weights(sample_weight, design, design.backend, X_name=X_name)
    problems = n_problems(labels, weights, loss, y_name)
    labels, weights = align(labels, weights, loss, problems)
    return design, labels, weights, (*loss.output_shape, *problems)


def n_problems(y: Array, weights: Array | None, loss: Loss, y_name: str) -> tuple[int, ...]:
    """Return (K,) where labels or weights have columns for K problems, () for one problem."""
    found = []
    if y.ndim > 1 + len(loss.output_shape):
        found.append((y_name, y.shape[-1]))
    if weights is not None and weights.ndim == 2:
        found.append(("sample_weight", weights.shape[1]))
    if len({k for _, k in found}) > 1:
        (a, ka), (b, kb) = found
        raise ValueError(f"{a} has {ka} columns but {b} has {kb}: expected the same number.")
    return (found[0][1],) if found else ()


def align(
    y: Array, weights: Array | None, loss: Loss, problems: tuple[int, ...]
) -> tuple[Array, Array | None]:
    """Give labels and weights the axes that make them broadcast to the margins."""
    if problems and y.ndim == 1 + len(loss.output_shape):
        y = y[..., None]
    if weights is None:
        return y, None
    if problems and weights.ndim == 1:
        weights = weights[:, None]
    if loss.output_shape:
        weights = weights[:, None, ...]
    return y, weights


def check_labels(design: Design, y: Array, loss: Loss, X_name: str, y_name: str) -> Array:
    """Refuse labels that do not fit the design or the loss; return them as the loss wants."""
    same_backend(design.backend, dense_backend_of(**{y_name: y}), X_name, y_name)
    refuse_other_rows(y, design.shape[0], y_name, X_name)
    return loss.encode(y, design.backend, design.dtype, y_name)
