"""A multilayer perceptron with one weight decay for each layer.

    h(x, λ) = Σ_i s_i ℓ(y_i, t(a_i; x)) + ½ Σ_l e^{λ_l} (‖W_l‖² + ‖b_l‖²)

x holds W_1, b_1, W_2, b_2, ... one after the other. Hessian products are exact, by the
R-operator (Pearlmutter, Neural Comput. 6, 1994): the derivative of the backward pass along v.

**Curvature.** h is not convex: ∂²_{xx} h may be indefinite, no μ > 0 holds for every x, and
:meth:`MLP.constants` states none. No bound on a distance or on a hypergradient follows then,
and none is given; :func:`negative_curvature` looks for a direction of negative curvature, and
what it finds proves that a point is no strict local minimum. An inner solve without x0 begins at
random parameters, the same each time (:meth:`MLP.start`): zero is a saddle point, which gradients
do not leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from .._cached import cached_property
from ..backends import (
    COUNT,
    SEED,
    Array,
    Backend,
    Has,
    common_dtype,
    dense_backend_of,
    described,
)
from ..design import Passes
from ..linalg import grams, norm
from ..losses import LOSS, Loss, Thirds
from ._checks import check_weights, refuse_other_rows
from ._jets import Jets
from ._protocol import Bending, InnerConstants
from .kernel_ridge import check_matrix
from .penalties import GroupL2, PenaltyPoint
from .point import Point


class Activation(Protocol):
    """A smooth function of one number, by its value z: a = φ(z)."""

    def value(self, z: Array, backend: Backend) -> Array: ...

    def slopes(self, a: Array, backend: Backend) -> tuple[Array, Array]:
        """φ' and φ'' as functions of a = φ(z)."""
        ...


@runtime_checkable
class Third(Protocol):
    """An activation that knows its third derivative."""

    def third(self, a: Array, backend: Backend) -> Array:
        """φ''' as a function of a = φ(z)."""
        ...


@dataclass(frozen=True)
class Tanh:
    """a = tanh z: φ' = 1 - a², φ'' = -2 a φ', φ''' = (6 a² - 2) φ'."""

    def value(self, z: Array, backend: Backend) -> Array:
        return backend.xp.tanh(z)

    def slopes(self, a: Array, backend: Backend) -> tuple[Array, Array]:
        first = 1 - a * a
        return first, -2 * a * first

    def third(self, a: Array, backend: Backend) -> Array:
        square = a * a
        return (6 * square - 2) * (1 - square)


@dataclass(frozen=True)
class Sigmoid:
    """a = 1/(1 + e^-z): φ' = a (1 - a), φ'' = φ' (1 - 2 a), φ''' = φ' (1 - 6 φ')."""

    def value(self, z: Array, backend: Backend) -> Array:
        return backend.expit(z)

    def slopes(self, a: Array, backend: Backend) -> tuple[Array, Array]:
        first = a * (1 - a)
        return first, first * (1 - 2 * a)

    def third(self, a: Array, backend: Backend) -> Array:
        first = a * (1 - a)
        return first * (1 - 6 * first)


@dataclass(frozen=True)
class Network:
    """The map from rows to predictions: layer sizes and the activation between them.

    Attributes
    ----------
    sizes : tuple of int
        Features, hidden units, ..., outputs.
    activation : Activation
        φ, after each layer but the last.
    """

    sizes: tuple[int, ...]
    activation: Activation

    @property
    def n_layers(self) -> int:
        return len(self.sizes) - 1

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Weights and biases of each layer."""
        pairs = pairwise(self.sizes)
        return tuple((a + 1) * b for a, b in pairs)

    @property
    def n_parameters(self) -> int:
        return sum(self.layer_sizes)

    def split(self, x: Array, backend: Backend) -> list[tuple[Array, Array]]:
        """(W_l, b_l) of each layer, from x of shape (P,) or directions (k, P)."""
        xp, layers, start = backend.xp, [], 0
        lead = x.shape[:-1]
        for a, b in pairwise(self.sizes):
            W = xp.reshape(x[..., start : start + a * b], (*lead, a, b))
            start += a * b
            layers.append((W, x[..., start : start + b][..., None, :]))
            start += b
        return layers

    def join(self, layers: list[tuple[Array, Array]], backend: Backend) -> Array:
        """Undo :meth:`split`."""
        xp, parts = backend.xp, []
        for W, b in layers:
            lead = W.shape[:-2]
            parts += [xp.reshape(W, (*lead, -1)), xp.reshape(b, (*lead, -1))]
        return xp.concat(parts, axis=-1)

    def forward(self, rows: Array, x: Array, backend: Backend) -> list[Array]:
        """Return the input of each layer, and the output of the last: [rows, a_1, ..., t]."""
        xp, levels = backend.xp, [rows]
        for index, (W, b) in enumerate(self.split(x, backend)):
            z = xp.matmul(levels[-1], W) + b
            last = index == self.n_layers - 1
            levels.append(z if last else self.activation.value(z, backend))
        return levels

    def backward(self, levels: list[Array], x: Array, r: Array, backend: Backend) -> Backward:
        """Pull r = ∂ℓ/∂t back through the layers."""
        xp = backend.xp
        layers, deltas = self.split(x, backend), [r]
        grads: list[tuple[Array, Array]] = []
        for index in range(self.n_layers - 1, -1, -1):
            delta, (W, _) = deltas[0], layers[index]
            grads.insert(0, (xp.matmul(levels[index].T, delta), xp.sum(delta, axis=0)[None, :]))
            if index > 0:
                first, _ = self.activation.slopes(levels[index], backend)
                deltas.insert(0, xp.matmul(delta, W.T) * first)
        return Backward(self.join(grads, backend), deltas)

    def forward_along(
        self, levels: list[Array], x: Array, v: Array, backend: Backend
    ) -> list[Array]:
        """R{levels}: their derivatives along directions v (k, P), each of shape (k, n, ...)."""
        xp = backend.xp
        moved = [xp.zeros_like(levels[0])[None, ...]]
        for index, ((W, _), (V, c)) in enumerate(
            zip(self.split(x, backend), self.split(v, backend), strict=True)
        ):
            rz = xp.matmul(levels[index], V) + c
            if index > 0:
                rz = rz + xp.matmul(moved[-1], W)
            if index < self.n_layers - 1:
                rz = rz * self.activation.slopes(levels[index + 1], backend)[0]
            moved.append(rz)
        return moved

    def jets(
        self, levels: list[Array], x: Array, q: Array, T: Array, backend: Backend
    ) -> Jets | None:
        """Derivatives of the outputs along q (P,) and T (k, P), None without φ'''."""
        jets = Jets.still(levels[0], T.shape[0], backend)
        layers = zip(*(self.split(v, backend) for v in (x, q, T)), strict=True)
        for index, ((W, _), along_q, along_t) in enumerate(layers):
            jets = jets.layer(levels[index], W, along_q, along_t, backend)
            if index < self.n_layers - 1:
                if not isinstance(self.activation, Third):
                    return None
                a = levels[index + 1]
                third = self.activation.third(a, backend)
                jets = jets.activated(*self.activation.slopes(a, backend), third)
        return jets

    def backward_along(
        self,
        levels: list[Array],
        deltas: list[Array],
        moved: list[Array],
        x: Array,
        v: Array,
        r: Array,
        backend: Backend,
    ) -> Array:
        """R{backward}: the derivative of the gradient along v, shape (k, P); r = R{∂ℓ/∂t}."""
        xp = backend.xp
        layers, along = self.split(x, backend), self.split(v, backend)
        grads: list[tuple[Array, Array]] = []
        for index in range(self.n_layers - 1, -1, -1):
            (W, _), (V, _), delta = layers[index], along[index], deltas[index]
            gW = xp.matmul(levels[index].T, r)
            if index > 0:
                gW = gW + xp.matmul(xp.matrix_transpose(moved[index]), delta)
            grads.insert(0, (gW, xp.sum(r, axis=-2, keepdims=True)))
            if index > 0:
                first, second = self.activation.slopes(levels[index], backend)
                pulled = xp.matmul(delta, W.T)
                # moved is R{a} = φ' R{z}; φ'' R{z} needs R{z} itself, so φ'' / φ' R{a}.
                bend = moved[index] * self._ratio(first, second, xp)
                r = (xp.matmul(r, W.T) + xp.matmul(delta, xp.matrix_transpose(V))) * first
                r = r + pulled * bend
        return self.join(grads, backend)

    def _ratio(self, first: Array, second: Array, xp: Any) -> Array:
        """φ''/φ', 0 where a saturated unit has φ' = 0 in floating point (then φ'' = 0 too)."""
        safe = xp.where(first == 0, xp.ones_like(first), first)
        return xp.where(first == 0, xp.zeros_like(first), second / safe)


@dataclass(frozen=True)
class Backward:
    """A gradient, and ∂ℓ/∂z of every layer."""

    grad: Array
    deltas: list[Array]


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron on training rows. Build it with :func:`mlp`.

    Attributes
    ----------
    network : Network
        The layers.
    X, y : array
        Training rows, and labels as the loss encodes them, broadcastable to (n, c).
    loss : Loss
        ℓ(y, t) of the c outputs of a row.
    sample_weight : array, shape (n, 1), or None
        s.
    """

    network: Network
    X: Array
    y: Array
    loss: Loss
    penalty: GroupL2
    backend: Backend
    sample_weight: Array | None = None
    counter: Passes = field(default_factory=Passes, compare=False)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.network.n_parameters,)

    @property
    def dtype(self) -> Any:
        return self.X.dtype

    @property
    def n_hyperparameters(self) -> int:
        return self.network.n_layers

    @property
    def passes(self) -> float:
        return self.counter.total

    @property
    def column_passes(self) -> float:
        return self.counter.columns

    def weigh(self, rows: Array) -> Array:
        return rows if self.sample_weight is None else self.sample_weight * rows

    def start(self) -> Array:
        """The parameters of :meth:`initial`: at zero no derivative tells one unit from another."""
        return self.initial()

    def initial(self, seed: int = 0) -> Array:
        """Random parameters, W_l ~ N(0, 1/inputs) and b_l = 0; zero is a saddle point.

        Drawn on the host in float64, so that every backend and dtype begins at the same.
        """
        layers = []
        xp, sizes = self.backend.xp, self.network.sizes
        for index, (a, b) in enumerate(pairwise(sizes)):
            W = self.backend.normal([SEED(seed, "seed"), index], (a, b), self.dtype) / a**0.5
            layers.append((W, xp.zeros((1, b), dtype=self.dtype, device=self.backend.device)))
        return self.network.join(layers, self.backend)

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> MLPPoint:
        point = MLPPoint(self, x, lam)
        if carry is not None:
            point.__dict__["carry"] = carry
        return point

    def constants(self, lam: Array) -> InnerConstants:
        """State no μ and no smoothness.

        The loss of a network is not convex, and its curvature grows without bound with x. Only
        ∂²_{xλ} h = W x has a Lipschitz constant, max e^λ.
        """
        top = self.penalty.constants(lam, self.backend).cross_lipschitz
        return InnerConstants(None, None, None, top)


class MLPPoint(Point):
    """A multilayer perceptron at (x, λ).

    Without a diagonal: that of an indefinite Hessian preconditions nothing.
    """

    inner: MLP

    @property
    def model(self) -> MLP:
        return self.inner

    @cached_property
    def carry(self) -> Array:
        """The outputs of all layers side by side, shape (n, Σ sizes): one pass."""
        model = self.model
        model.counter.count_forward(self.x)
        levels = model.network.forward(model.X, self.x, model.backend)
        return model.backend.xp.concat(levels[1:], axis=1)

    @cached_property
    def levels(self) -> list[Array]:
        """The input of each layer, and the predictions."""
        levels, start = [self.model.X], 0
        for size in self.model.network.sizes[1:]:
            levels.append(self.carry[:, start : start + size])
            start += size
        return levels

    @cached_property
    def penalty(self) -> PenaltyPoint:
        return self.model.penalty.at(self.x, self.lam, self.model.backend)

    @cached_property
    def value(self) -> Array:
        model = self.model
        losses = model.weigh(model.loss.value(model.y, self.levels[-1], model.backend))
        return model.backend.xp.sum(losses) + self.penalty.value

    @cached_property
    def _backward(self) -> Backward:
        model = self.model
        model.counter.count_backward(self.x)
        r = model.weigh(model.loss.derivative(model.y, self.levels[-1], model.backend))
        return model.network.backward(self.levels, self.x, r, model.backend)

    @property
    def grad(self) -> Array:
        return self._backward.grad + self.penalty.grad

    @cached_property
    def curvature(self) -> Array:
        return self.model.loss.curvature(self.model.y, self.levels[-1], self.model.backend)

    def hvp(self, v: Array) -> Array:
        """∂²_{xx} h v by the R-operator: two passes whatever the number of columns."""
        model, xp = self.model, self.model.backend.xp
        network, backend = model.network, model.backend
        directions = v[None, :] if v.ndim == 1 else v.T
        deltas = self._backward.deltas
        model.counter.count_forward(v)
        moved = network.forward_along(self.levels, self.x, directions, backend)
        bent = model.loss.curvature_product(self.curvature, xp.moveaxis(moved[-1], 0, -1), backend)
        r = xp.moveaxis(bent, -1, 0)
        if model.sample_weight is not None:
            r = model.sample_weight * r
        model.counter.count_backward(v)
        product = network.backward_along(self.levels, deltas, moved, self.x, directions, r, backend)
        return (product[0, :] if v.ndim == 1 else product.T) + self.penalty.hvp(v)

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        """The third derivative of ℓ(t(x)) along q, T_i and T_j, one pass."""
        model, loss, backend = self.model, self.model.loss, self.model.backend
        own = self.penalty.bend(q, T) if isinstance(self.penalty, Bending) else None
        if own is None or not isinstance(loss, Thirds):
            return None
        jets = model.network.jets(self.levels, self.x, q, T.T, backend)
        if jets is None:
            return None
        model.counter.count_forward(T)
        xp, t = backend.xp, self.levels[-1]
        slopes = model.weigh(loss.derivative(model.y, t, backend))
        turned = model.weigh(loss.curvature_product(self.curvature, jets.q, backend))
        moved, mixed = (xp.moveaxis(a, 0, -1) for a in (jets.t, jets.qt))
        bent = loss.curvature_product(self.curvature, mixed, backend)
        third = loss.third_product(loss.third(model.y, t, backend), jets.q, moved, backend)
        if model.sample_weight is not None:
            bent, third = (model.sample_weight[..., None] * a for a in (bent, third))
        sums = xp.sum(slopes * jets.qtt + turned * jets.tt, axis=(2, 3))
        crossed = grams(moved, bent, backend)
        return own + sums + crossed + crossed.T + grams(moved, third, backend)

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        return self.penalty.cross_bend(q, T) if isinstance(self.penalty, Bending) else None

    def fold(self, q: Array, D: Array) -> Array | None:
        return self.penalty.fold(q, D) if isinstance(self.penalty, Bending) else None

    def cross_vjp(self, q: Array) -> Array:
        return self.penalty.cross_vjp(q)

    def cross_jvp(self, d: Array) -> Array:
        return self.penalty.cross_jvp(d)

    @property
    def cross_norm(self) -> Array | None:
        return self.penalty.cross_norm


def mlp(
    X: Array,
    y: Array,
    loss: Loss,
    hidden: Sequence[int],
    *,
    activation: Activation | None = None,
    sample_weight: Array | None = None,
) -> MLP:
    """Build a multilayer perceptron from data.

    Parameters
    ----------
    X : array, shape (n, p)
        Training rows, float32 or float64.
    y : array
        Labels, as the loss wants them. A loss of one number a row is that of one output, y of
        shape (n,), or of T outputs, y of shape (n, T).
    loss : Loss
        The loss of the outputs.
    hidden : sequence of int
        Units of each hidden layer; none is a linear model.
    activation : Activation, optional
        :class:`Tanh` when omitted. It must be twice differentiable; with a member ``third`` (φ'''
        as a function of a) the third derivatives of h are known, too.
    sample_weight : array, shape (n,), optional
        Weights of the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from bilevel.losses import Multinomial
    >>> h = mlp(np.eye(3), np.array([0, 1, 1]), Multinomial(2), [4])
    >>> h.x_shape, h.n_hyperparameters
    ((26,), 2)
    """
    LOSS(loss, "loss")
    backend = dense_backend_of(X=X, y=y)
    dtype = common_dtype(backend, X=X)
    check_matrix(X, "X", backend)
    units = _units(hidden)
    refuse_other_rows(y, X.shape[0], "y", "X")
    labels = loss.encode(y, backend, dtype, "y")
    if labels.ndim == 1:
        labels = labels[:, None]
    sizes = (int(X.shape[1]), *units, int(labels.shape[1]))
    if activation is not None:
        Has("an activation", "value", "slopes")(activation, "activation")
    network = Network(sizes, Tanh() if activation is None else activation)
    groups = [index for index, size in enumerate(network.layer_sizes) for _ in range(size)]
    penalty = GroupL2.from_labels(groups, (network.n_parameters,), backend)
    weights = check_weights(sample_weight, X, backend, axes=(1,))
    if weights is not None:
        weights = weights[:, None]
    return MLP(network, X, labels, loss, penalty, backend, weights)


def _units(hidden: Any) -> tuple[int, ...]:
    if not isinstance(hidden, (Sequence, tuple)) or isinstance(hidden, str):
        raise TypeError(f"hidden must be a sequence of positive integers, got {described(hidden)}.")
    return tuple(COUNT(units, f"hidden[{j}]") for j, units in enumerate(hidden))


@dataclass(frozen=True)
class Curvature:
    """A direction of small curvature, and what it proves.

    Attributes
    ----------
    value : float
        dᵀ H d for the unit vector d: an upper bound of the smallest eigenvalue of H. Below
        zero it proves that H is indefinite or negative; above zero it proves nothing.
    residual : float
        ‖H d - value d‖: an eigenvalue of H lies within so much of ``value``.
    direction : array
        d.
    n_iter : int
        Products with H.
    """

    value: float
    residual: float
    direction: Array
    n_iter: int

    @property
    def is_negative(self) -> bool:
        """Whether negative curvature is proven, beyond the rounding of the product."""
        return self.value < 0 and math.isfinite(self.value)


def negative_curvature(
    point: Any, backend: Backend, *, n_iter: int = 30, seed: int = 0
) -> Curvature:
    """Seek a direction of negative curvature by the Lanczos method.

    Lanczos (1950), with full reorthogonalisation; the smallest Ritz pair is returned with its
    residual, recomputed with one more product.

    Parameters
    ----------
    point : InnerPoint
        Where; x of shape (p,).
    backend : Backend
        That of the point.
    n_iter : int
        Products with H at most.
    seed : int
        Of the first vector.

    Examples
    --------
    >>> import numpy as np, bilevel
    >>> from bilevel.losses import Squared
    >>> h = bilevel.inner.linear_model(np.eye(2), np.ones(2), Squared())
    >>> point = h.at(np.zeros(2), np.zeros(1))
    >>> found = negative_curvature(point, bilevel.get_backend("numpy"))
    >>> round(found.value, 6), found.is_negative
    (2.0, False)
    """
    xp, p = backend.xp, point.x.shape[0]
    n_iter, seed = COUNT(n_iter, "n_iter"), SEED(seed, "seed")
    v = backend.normal(seed, (p,), point.x.dtype)
    basis = [v / norm(v, backend)]
    diagonal: list[float] = []
    below: list[float] = []
    for _ in range(min(n_iter, p)):
        w = point.hvp(basis[-1])
        alpha = xp.vecdot(w, basis[-1])
        Q = xp.stack(basis, axis=1)
        for _ in range(2):  # once is not enough: Parlett and Kahan
            w = w - xp.matmul(Q, xp.matmul(Q.T, w))
        beta = norm(w, backend)
        a, b = backend.scalars(alpha, beta)
        diagonal.append(a)
        scale = max(abs(d) for d in diagonal)
        if len(diagonal) == min(n_iter, p) or b <= 1e-12 * scale or b == 0:
            break
        below.append(b)
        basis.append(w / beta)
    k = len(diagonal)
    rows = [
        [diagonal[i] if i == j else below[min(i, j)] if abs(i - j) == 1 else 0.0 for j in range(k)]
        for i in range(k)
    ]
    _, vectors = xp.linalg.eigh(backend.asarray(rows, dtype=point.x.dtype))
    d = xp.matmul(xp.stack(basis[:k], axis=1), vectors[:, 0])
    d = d / norm(d, backend)
    product = point.hvp(d)
    value = xp.vecdot(d, product)
    rest = product - value * d
    curvature, residual = backend.scalars(value, norm(rest, backend))
    return Curvature(curvature, residual, d, k + 1)
