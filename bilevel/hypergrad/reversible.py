"""Reverse mode through SGD with momentum, reversed exactly (Maclaurin et al. 2015).

    v_{t+1} = γ v_t - η ∂_x h_t(x_t, λ),    x_{t+1} = x_t + v_{t+1}

The points are not kept: the backward pass runs the steps the other way round. In floating point
that fails, since the product with γ < 1 loses bits. Here x and v are integers, multiples of
2^-b; γ = n/d is a fraction; and what the product would lose is kept in an *information buffer*,
an integer for each parameter that grows by log2(d/n) bits a step (their algorithm 3). So the
reversal is exact to the last bit, and a step costs bits where other methods keep an array.

The gradients ∂_x h_t are those of ``batches``, one after the other: full gradients when there
are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from ..backends import (
    COUNT,
    POSITIVE,
    Array,
    Backend,
    Has,
    Maybe,
    Whole,
    check_fields,
    described,
)
from ..inner import Inner, InnerPoint
from ..problem import Problem
from ..solvers import InnerResult
from ..status import Status
from ._protocol import HypergradResult
from .neumann import step_length
from .surrogate import Walk, certified, transient

#: Integers stay below this: a buffer that could exceed it is put on the stack.
_LIMIT = 1 << 62


@dataclass
class InformationBuffer:
    """What division loses: an integer of unlimited length for each entry of an array.

    The low digits are an array of int64, the high digits a stack of arrays that are full. How
    full an array can be at most is known from the fractions alone, so no entry is ever read.

    Examples
    --------
    >>> import numpy as np
    >>> buffer = InformationBuffer(np.zeros(1, dtype=np.int64))
    >>> c = buffer.multiply(np.array([-7]), Fraction(9, 10))
    >>> c, buffer.divide(c, Fraction(9, 10))
    (array([-6]), array([-7]))
    """

    low: Array
    bound: int = 0
    stack: list[tuple[Array, int]] = field(default_factory=list)
    pushed: list[int] = field(default_factory=list)
    n_products: int = 0

    def multiply(self, c: Array, factor: Fraction) -> Array:
        """C times n/d (Maclaurin et al. 2015, algorithm 3); :meth:`divide` undoes it exactly.

        The result is n ⌊c/d⌋ plus a remainder below n, so within n of c n/d.
        """
        n, d = factor.numerator, factor.denominator
        if self.bound * d + d > _LIMIT:
            self.stack.append((self.low, self.bound))
            self.pushed.append(self.n_products)
            self.low, self.bound = self.low * 0, 0
        self.n_products += 1
        c, self.low = _exchange(c, self.low, n, d)
        self.bound = (self.bound * d + d - 1) // n
        return c

    def divide(self, c: Array, factor: Fraction) -> Array:
        """Undo the last product."""
        c, self.low = _exchange(c, self.low, factor.denominator, factor.numerator)
        self.n_products -= 1
        if self.pushed and self.pushed[-1] == self.n_products:
            self.pushed.pop()
            self.low, self.bound = self.stack.pop()
        return c


def _exchange(c: Array, low: Array, n: int, d: int) -> tuple[Array, Array]:
    """c/d's remainder goes into the buffer, the buffer's remainder by n comes out into n ⌊c/d⌋."""
    low = low * d + c % d
    return (c // d) * n + low % n, low // n


@dataclass(frozen=True)
class Reversible:
    """Run T steps of SGD with momentum from the point that is handed over, and reverse them.

    ``start`` of the call is not used. The status is STALLED where the reversal did not end at the
    start to the last bit: a gradient that is not the same each time it is computed (atomic sums on
    a GPU) prevents it. It is OVERFLOW where an integer left its range, DIVERGED where the steps led
    away, TRUNCATED where they left more undone than ``tol`` (as steps on batches do), and else
    CONVERGED.

    Parameters
    ----------
    n_steps : int
        T ≥ 1.
    step : float, optional
        η; when omitted (1 - γ) / ‖H‖, by the bound that the objective states.
    momentum : Fraction
        0 < γ < 1.
    fraction_bits : int
        b: x and v are multiples of 2^-b, and must stay below 2^(62 - b).
    batches : sequence of Inner
        Objectives h_0, h_1, ... whose gradients the steps use in turn, as those of
        :func:`bilevel.inner.minibatches`; the problem's own where there are none. Their passes
        are counted by themselves.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> from bilevel.hypergrad import unsolved
    >>> X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, -1.0, -1.0])
    >>> problem = bilevel.logistic_regression(X, y, X, y)
    >>> start = unsolved(problem, np.zeros(1), np.zeros(1))
    >>> Reversible(n_steps=500)(problem, start, tol=1e-6).status.value
    'converged'
    """

    n_steps: int = 100
    step: float | None = None
    momentum: Fraction = Fraction(9, 10)
    fraction_bits: int = 40
    batches: Sequence[Inner] = ()

    def __post_init__(self) -> None:
        check_fields(self, n_steps=COUNT, step=Maybe(POSITIVE), fraction_bits=Whole(1, 52))
        if not isinstance(self.momentum, Fraction) or not 0 < self.momentum < 1:
            raise ValueError(
                f"momentum must be a Fraction in (0, 1), got {described(self.momentum)}."
            )
        if not isinstance(self.batches, Sequence):
            raise TypeError(
                f"batches must be a sequence of inner objectives, got {described(self.batches)}."
            )
        for k, batch in enumerate(self.batches):
            Has("an inner objective", "at", "x_shape")(batch, f"batches[{k}]")
        if self.momentum.denominator >= 1 << 16:
            raise ValueError(
                f"momentum must have a denominator below 65536, got {self.momentum.denominator}."
            )

    def __call__(
        self, problem: Problem, inner: InnerResult, *, tol: float, start: Array | None = None
    ) -> HypergradResult:
        xp, lam = problem.backend.xp, inner.point.lam
        eta = self._step(problem, lam)
        walk = _Walk(self, problem, lam, eta)
        first = walk.integers(inner.point.x)
        walk.forward(first)
        last = problem.inner.at(walk.floats(walk.x), lam)
        outer = problem.outer.at(last.x, lam)
        x_bar, v_bar = outer.grad_x, xp.zeros_like(outer.grad_x)
        value, adjoint = outer.grad_lam, xp.zeros_like(outer.grad_x)
        gamma = float(self.momentum)
        for point in walk.backward():
            v_bar = v_bar + x_bar
            x_bar = x_bar - eta * point.hvp(v_bar)
            value = value - eta * point.cross_vjp(v_bar)
            adjoint = adjoint + eta * v_bar
            v_bar = gamma * v_bar
        exact = bool(xp.all(walk.x == first)) and bool(xp.all(walk.v == 0))
        status = Status.CONVERGED if exact else Status.STALLED
        status = status if walk.fits else Status.OVERFLOW
        return certified(
            problem,
            last,
            outer,
            value,
            adjoint,
            n_iter=self.n_steps,
            status=status,
            walk=Walk(problem, inner, tol, transient(gamma)),
        )

    def _step(self, problem: Problem, lam: Array) -> float:
        if self.step is not None:
            return self.step
        return float(1 - self.momentum) * step_length(None, problem, lam)


class _Walk:
    """The state of a run: integers x and v, and the buffer."""

    def __init__(self, method: Reversible, problem: Problem, lam: Array, eta: float) -> None:
        self._method, self._problem, self._lam, self._eta = method, problem, lam, eta
        self._scale = float(1 << method.fraction_bits)
        self._backend: Backend = problem.backend
        self._fits: Array | bool = True

    @property
    def fits(self) -> bool:
        """Whether every integer has stayed in its range: beyond it they wrap."""
        return bool(self._fits)

    def integers(self, x: Array) -> Array:
        """Round to multiples of 2^-b; what is too large, or NaN, is taken note of, and is 0."""
        xp = self._backend.xp
        scaled = xp.round(x * self._scale)
        small = xp.abs(scaled) < float(_LIMIT)
        self._fits = self._fits & xp.all(small)
        found = xp.astype(xp.where(small, scaled, xp.zeros_like(scaled)), xp.int64)
        if found.dtype != xp.int64:
            raise TypeError(
                f"Reversible needs integers of 64 bits, got {found.dtype}: for JAX set "
                "JAX_ENABLE_X64=1."
            )
        return found

    def _within(self, numbers: Array) -> None:
        """Take note of sums of two, which still fit where their terms did."""
        xp = self._backend.xp
        self._fits = self._fits & xp.all((numbers < _LIMIT) & (numbers > -_LIMIT))

    def floats(self, x: Array) -> Array:
        return self._backend.xp.astype(x, self._problem.dtype) / self._scale

    def _point(self, t: int) -> InnerPoint:
        batches = self._method.batches
        inner = batches[t % len(batches)] if batches else self._problem.inner
        return inner.at(self.floats(self.x), self._lam)

    def forward(self, first: Array) -> None:
        self.x, self.v = first, first * 0
        self.buffer = InformationBuffer(first * 0)
        for t in range(self._method.n_steps):
            kept = self.buffer.multiply(self.v, self._method.momentum)
            self.v = kept - self.integers(self._eta * self._point(t).grad)
            self.x = self.x + self.v
            self._within(self.v)
            self._within(self.x)

    def backward(self) -> Iterator[InnerPoint]:
        """Yield the points x_{T-1}, ..., x_0, each reached by undoing a step."""
        for t in range(self._method.n_steps - 1, -1, -1):
            self.x = self.x - self.v
            point = self._point(t)
            kept = self.v + self.integers(self._eta * point.grad)
            self.v = self.buffer.divide(kept, self._method.momentum)
            yield point
