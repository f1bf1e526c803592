"""Conjugate gradients, and the products that they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Array, Backend, get_backend
from ...linalg import cg
from ..problems import KnownProblem
from ..reference import Host, host, norm, solve, spectral
from .violation import Figures, require

_EPS = float(np.finfo(np.float64).eps)


def cg_theory(
    matrix: Host,
    b: Host,
    *,
    backend: Backend | None = None,
    solver: Callable[..., Any] = cg,
    distinct: int | None = None,
) -> Figures:
    """Conjugate gradients on a symmetric positive definite matrix.

    The A-norm of the error falls at every step, lies under 2 ((√κ-1)/(√κ+1))ᵏ of the first, the
    residual that is stated is the true one, and after as many steps as b has eigenvalues
    (``distinct``) the solution is exact.

    Examples
    --------
    >>> figures = cg_theory(host([[2.0, 0.0], [0.0, 1.0]]), host([1.0, 1.0]), distinct=2)
    >>> figures["last"] < 1e-12
    True
    """
    found = backend or get_backend("numpy")
    case = _System.of(matrix, b)
    steps = min(matrix.shape[0] + 2, 30) if distinct is None else distinct
    operator, rhs = (found.asarray(np.asarray(a, dtype=np.float64)) for a in (matrix, b))
    errors = [case.energy]
    for k in range(1, steps + 1):
        result = solver(lambda v: found.xp.matmul(operator, v), rhs, tol=0.0, max_iter=k)
        x = host(found.to_numpy(result.x))
        errors.append(_energy(matrix, x - case.exact))
        case.hold(k, x, result.residual_norm, errors[-2], errors[-1])
    if distinct is not None:
        require(
            errors[-1] <= 1e-8 * case.energy + case.floor,
            "exact after as many steps as there are eigenvalues",
            error=errors[-1],
            steps=steps,
        )
    return {"last": errors[-1], "first": case.energy, "condition": case.condition}


@dataclass(frozen=True)
class _System:
    """A x = b with its exact solution, the first error in the A-norm and the condition number."""

    matrix: Host
    b: Host
    exact: Host
    energy: float
    condition: float

    @classmethod
    def of(cls, matrix: Host, b: Host) -> _System:
        values = np.linalg.eigvalsh(np.asarray(matrix, dtype=np.float64))
        exact = solve(matrix, b)
        return cls(matrix, b, exact, _energy(matrix, exact), float(values[-1] / values[0]))

    @property
    def floor(self) -> float:
        """What rounding leaves of the error."""
        return 64 * _EPS * self.condition * self.energy

    def hold(self, k: int, x: Host, stated: float, before: float, after: float) -> None:
        """Step k: the residual is what is stated, and the error falls, as fast as κ says."""
        true = norm(self.b - self.matrix @ x)
        require(
            abs(true - stated) <= 64 * _EPS * (norm(self.b) + spectral(self.matrix) * norm(x)),
            "the stated residual is ‖b - A x‖",
            stated=stated,
            true=true,
            k=k,
        )
        require(
            after <= before * (1 + 1e-10) + self.floor,
            "the A-norm of the error falls",
            k=k,
            before=before,
            after=after,
        )
        root = math.sqrt(self.condition)
        bound = 2 * ((root - 1) / (root + 1)) ** k * self.energy
        require(
            after <= bound + self.floor,
            "the bound by the condition number",
            k=k,
            error=after,
            bound=bound,
        )


def _energy(matrix: Host, v: Host) -> float:
    return math.sqrt(max(float(v @ (matrix @ v)), 0.0))


def products(known: KnownProblem, seed: int = 0) -> Figures:
    """The Hessian products are symmetric, linear and positive, the cross products adjoint."""
    inner, backend = known.problem.inner, known.problem.backend
    rng = np.random.default_rng(seed)
    p, m = known.reference.inner.p, known.m

    def draw(*shape: int) -> Array:
        return known.array(rng.standard_normal(shape))

    point = inner.at(draw(p), known.array(known.lam))
    u, v, d = draw(p), draw(p), draw(m)
    hu, hv = known.host(point.hvp(u)), known.host(point.hvp(v))
    hu_, hv_, hd = known.host(u), known.host(v), known.host(d)
    size = spectral(known.reference.inner.hessian(known.host(point.x), host(known.lam)))
    slack = 16 * (known.inner_terms + 4) * known.unit * size * norm(hu_) * norm(hv_)
    skew = abs(float(hu_ @ hv) - float(hv_ @ hu))
    require(skew <= slack, "uᵀ H v = vᵀ H u", difference=skew, rounding=slack)
    both = known.host(point.hvp(known.array(np.asarray(2 * hu_ - 3 * hv_, dtype=np.float64))))
    off = norm(both - 2 * hu + 3 * hv)
    slack = 16 * (known.inner_terms + 4) * known.unit * size * (2 * norm(hu_) + 3 * norm(hv_))
    require(off <= slack, "H (2 u - 3 v) = 2 H u - 3 H v", difference=off, rounding=slack)
    block = known.host(point.hvp(backend.xp.stack([u, v], axis=1)))
    apart = norm(block[:, 0] - hu) + norm(block[:, 1] - hv)
    require(apart <= slack, "a block of directions is one direction after the other", apart=apart)
    mu = inner.constants(point.lam).mu or 0.0
    rayleigh = float(hu_ @ hu) / float(hu_ @ hu_)
    require(
        rayleigh >= mu - slack,
        "uᵀ H u ≥ μ ‖u‖²",
        rayleigh=rayleigh,
        mu=mu,
    )
    left = float(known.host(point.cross_vjp(u)) @ hd)
    right = float(hu_ @ known.host(point.cross_jvp(d)))
    cross = spectral(known.reference.inner.cross(known.host(point.x), host(known.lam)))
    slack = 16 * (p + m + 4) * known.unit * (cross + 1e-300) * norm(hu_) * norm(hd)
    require(abs(left - right) <= slack, "⟨Bᵀ u, d⟩ = ⟨u, B d⟩", left=left, right=right)
    truth = known.reference.inner.cross(known.host(point.x), host(known.lam))
    wrong = norm(known.host(point.cross_jvp(d)) - truth @ hd)
    require(
        wrong <= 16 * (p + m + 4) * known.unit * (cross + 1) * norm(hd) * 4,
        "B d is the product with ∂²_{xλ} h",
        error=wrong,
    )
    return {"skew": skew, "rayleigh": rayleigh, "mu": mu}
