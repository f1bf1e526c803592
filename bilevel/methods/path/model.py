"""A quadratic model of f, and where in D it is least.

On an oblique face of D no coordinate is held by itself, and a Newton step that is projected is no
Newton step of the face. The model is one of few numbers: where in D it is least is found by
projected gradient steps with the exact length along each and the spectral one for the next (Birgin,
Martínez and Raydan 2000), as in projected quasi-Newton of Schmidt et al. (2009). No pass is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...backends import Array, Backend
from ...domains import Domain
from ...linalg import dot, norm

#: Steps between two looks at what they have gained, and how many times at most.
_STEPS, _LOOKS = 8, 40

#: The share of the decrease that so many steps may still gain where it is taken for found.
_GAINED = 1e-3

#: How far the length of a step may grow beyond the first: along a flat direction it has no end.
_LONGEST = 1e8


@dataclass(frozen=True)
class Model:
    """pᵀd + ½ dᵀB d of a step d from λ.

    Attributes
    ----------
    lam, p : array
    product : callable
        d ↦ B d.
    scale : float or 0-d array
        The length of the first step, as a share of the slope: about 1 / ‖B‖.
    """

    lam: Array
    p: Array
    product: Callable[[Array], Array]
    scale: Array | float


@dataclass(frozen=True)
class Least:
    """The step to where a model is least in D, how far it falls, and whether it falls no more."""

    step: Array
    decrease: float
    found: bool


def least(model: Model, domain: Domain, start: Array, backend: Backend) -> Least:
    """Where in D the model is least, beginning at ``start`` (projected on D)."""
    xp, lam = backend.xp, model.lam
    at = domain.project(start, backend)
    slope = model.p + model.product(at - lam)
    one = xp.ones_like(model.p[0])
    length, decrease, found = model.scale * one, -float("inf"), False
    longest = _LONGEST * length
    for _ in range(_LOOKS):
        for _ in range(_STEPS):
            way = domain.project(at - length * slope, backend) - at
            bent = model.product(way)
            curvature = dot(way, bent, backend)
            bends = curvature > 0
            curvature = xp.where(bends, curvature, one)
            share = xp.minimum(-dot(slope, way, backend) / curvature, one)
            share = xp.maximum(xp.where(bends, share, one), 0 * one)
            length = xp.where(bends, dot(way, way, backend) / curvature, length)
            length = xp.minimum(length, longest)
            at, slope = at + share * way, slope + share * bent
        before, step = decrease, at - lam
        (decrease,) = backend.scalars(-dot(model.p + slope, step, backend) / 2)
        found = abs(decrease - before) <= _GAINED * abs(decrease)
        if found or not abs(decrease) < float("inf"):
            break
    return Least(step, decrease, found)


def pairs_model(
    lam: Array, p: Array, pairs: Sequence[tuple[Array, Array]], backend: Backend
) -> Model:
    """The model whose B is the BFGS matrix of the pairs: Nocedal and Wright (2006), 7.2.

    Unrolled it is σ I + Σ a aᵀ - b bᵀ, a = y / √(sᵀy) and b = B s / √(sᵀB s) B before it.
    """
    xp = backend.xp
    s, y = pairs[-1]
    scale = dot(s, y, backend) / dot(y, y, backend)
    plus: list[Array] = []
    minus: list[Array] = []

    def unrolled(v: Array) -> Array:
        bent = v / scale
        for a, b in zip(plus, minus, strict=True):
            bent = bent + dot(a, v, backend) * a - dot(b, v, backend) * b
        return bent

    for s, y in pairs:
        bent = unrolled(s)
        minus.append(bent / xp.sqrt(dot(s, bent, backend)))
        plus.append(y / xp.sqrt(dot(s, y, backend)))
    more, less = xp.stack(plus), xp.stack(minus)

    def product(v: Array) -> Array:
        return v / scale + (more @ v) @ more - (less @ v) @ less

    return Model(lam, p, product, scale)


def generic(lam: Array, backend: Backend) -> Array:
    """A direction of length 1 that lies in no face of any D but by chance."""
    xp = backend.xp
    count = xp.arange(1, lam.shape[0] + 1, dtype=lam.dtype, device=backend.device)
    u = xp.cos(12.9898 * count * count)
    return u / norm(u, backend)
