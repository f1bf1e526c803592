"""Problems whose constants, X(λ), f(λ) and ∇f(λ) are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import losses
from .._cached import cached_property
from ..backends import COUNT, SEED, Array, Backend, Has, Number, OneOf, Whole, get_backend
from ..domains import Ball, Box, Domain
from ..inner import linear_model
from ..outer import held_out
from ..problem import Problem
from .quadratic import Quadratic, QuadraticOuter
from .reference import (
    LOSSES,
    HeldOutReference,
    Host,
    LinearReference,
    QuadraticOuterReference,
    QuadraticReference,
    Reference,
    host,
    norm,
    solve,
    spectral,
)


@dataclass(frozen=True)
class KnownProblem:
    """A problem, and all that theory says of it.

    Attributes
    ----------
    problem : Problem
        On its backend, in its dtype.
    reference : Reference
        The same problem on the host in long double.
    lam : list of float, length m
        A point of the domain, representable in the dtype.
    name : str
        What it is, for messages.
    curvature : array, shape (m, m), or None
        ∂²f, where f is a quadratic.
    """

    problem: Problem
    reference: Reference
    lam: list[float]
    name: str
    curvature: Host | None = None

    def __repr__(self) -> str:
        return f"KnownProblem({self.name}, lam={self.lam[:4]}{'...' if self.lam[4:] else ''})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    @property
    def m(self) -> int:
        return self.problem.inner.n_hyperparameters

    @cached_property
    def unit(self) -> float:
        """The unit roundoff of the dtype."""
        return float(self.problem.backend.xp.finfo(self.problem.dtype).eps) / 2

    def array(self, values: Any) -> Array:
        """Move host numbers to the backend and the dtype of the problem."""
        dtype = np.float32 if "float32" in str(self.problem.dtype) else np.float64
        return self.problem.backend.asarray(np.asarray(values, dtype=dtype))

    def host(self, array: Array) -> Host:
        """Copy an array of the problem to the host, in long double."""
        return host(self.problem.backend.to_numpy(array))

    @cached_property
    def solution(self) -> Host:
        """X(λ) at ``lam``."""
        return self.reference.solution(host(self.lam))

    @cached_property
    def hypergradient(self) -> Host:
        """∇f(λ) at ``lam``."""
        return self.reference.hypergradient(host(self.lam))

    @cached_property
    def solution_rounding(self) -> float:
        """How far from X(λ) rounding may keep a solver that sees ∂_x h in working precision."""
        lam, inner = host(self.lam), self.reference.inner
        mu = self.problem.inner.constants(self.array(self.lam)).mu
        size = inner.size(self.solution, lam)
        return 4 * (math.sqrt(self.inner_terms) + 4) * self.unit * size / max(mu or 0.0, 1e-300)

    @cached_property
    def adjoint_rounding(self) -> float:
        """The like for the residual ‖H q - ∂_x g‖."""
        lam, x = host(self.lam), self.solution
        hessian = spectral(self.reference.inner.hessian(x, lam))
        adjoint = norm(self.reference.adjoint(lam, x))
        return 4 * (self.inner_terms + 4) * self.unit * hessian * adjoint

    @cached_property
    def hypergradient_rounding(self) -> float:
        """The like for p: what rounding may add to ‖p - ∇f(λ)‖ at an exact x and q."""
        lam, x = host(self.lam), self.solution
        constants = self.problem.inner.constants(self.array(self.lam))
        outer = self.problem.outer_constants
        q = self.reference.adjoint(lam, x)
        hessian = spectral(self.reference.inner.hessian(x, lam))
        cross = spectral(self.reference.inner.cross(x, lam))
        mu = max(constants.mu or 0.0, 1e-300)
        l_g = outer.grad_x_lipschitz or 0.0
        scale = norm(self.reference.outer.grad_x(x, lam)) + l_g * norm(x)
        adjoint = (hessian * norm(q) + scale) / mu + norm(q)
        direct = norm(self.reference.outer.grad_lam(x, lam))
        terms = 4 * (math.sqrt(self.inner_terms) + 4)
        moved = (outer.grad_lam_lipschitz or 0.0) * norm(x)
        return terms * self.unit * (cross * adjoint + direct + moved)

    @cached_property
    def inner_terms(self) -> int:
        """How many terms the longest sum in ∂_x h has."""
        inner = self.reference.inner
        return max(inner.p, int(getattr(inner, "design", np.zeros(1)).shape[0]))


def quadratic(
    seed: int,
    *,
    p: int = 5,
    m: int = 2,
    condition: float = 10.0,
    kind: str = "penalty",
    scaling: float = 1.0,
    coupled: bool = False,
    domain: Domain | None = None,
    lam: Sequence[float] | None = None,
    backend: str | Backend = "numpy",
    dtype: str = "float64",
) -> KnownProblem:
    """Draw a quadratic problem with a chosen spectrum.

    Parameters
    ----------
    seed : int
        Everything below is a function of it.
    p, m : int
        Coefficients and hyperparameters, m ≤ p.
    condition : float
        The condition number of A; its eigenvalues run geometrically from 1/condition to 1.
    kind : {"penalty", "affine"}
        Weights e^λ on groups of coefficients, or a linear term C λ (then f is a quadratic).
    scaling : float
        The coefficients are stretched by factors from 1 to this number: a badly scaled problem.
    coupled : bool
        Let g depend on λ itself: N ≠ 0 and ρ > 0.
    domain : Domain, optional
        Box(-2, 2) when omitted.
    lam : sequence of float, optional
        The point; drawn from the domain when omitted.
    backend : str or Backend
        Where the arrays live.
    dtype : {"float64", "float32"}
        Their precision.

    Examples
    --------
    >>> known = quadratic(0, p=3, m=1)
    >>> known.problem.inner.x_shape, known.hypergradient.shape
    ((3,), (1,))
    """
    OneOf(("penalty", "affine"))(kind, "kind")
    seed, p = SEED(seed, "seed"), COUNT(p, "p")
    m = Whole(1, p if kind == "penalty" else None)(m, "m")
    condition, scaling = (
        Number(at_least=1)(value, name)
        for value, name in ((condition, "condition"), (scaling, "scaling"))
    )
    _DTYPE(dtype, "dtype")
    rng = np.random.default_rng([seed, p, m])
    parts = _quadratic_parts(rng, p, m, condition, scaling, kind)
    outer_parts = _criterion_parts(rng, p, m, coupled)
    domain = Box(-2.0, 2.0) if domain is None else domain
    return quadratic_from(
        parts,
        outer_parts,
        weight=0.5 if coupled else 0.0,
        domain=domain,
        lam=draw_lam(rng, m, domain, dtype) if lam is None else lam,
        backend=backend,
        dtype=dtype,
        name=f"quadratic {kind}, seed={seed}, p={p}, m={m}, condition {condition:.2g}, "
        f"scaling {scaling:.2g}, {'coupled, ' if coupled else ''}{domain}",
    )


def _quadratic_parts(
    rng: np.random.Generator, p: int, m: int, condition: float, scaling: float, kind: str
) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of h."""
    spectrum = np.geomspace(1 / condition, 1, p) if p > 1 else np.ones(1)
    basis = np.linalg.qr(rng.standard_normal((p, p)))[0]
    stretch = np.geomspace(1, scaling, p)[rng.permutation(p)] ** 0.5
    matrix = stretch[:, None] * (basis * spectrum @ basis.T) * stretch
    groups = np.zeros((p, m))
    slope = np.zeros((p, m))
    if kind == "penalty":
        owner = np.concatenate([np.arange(m), rng.integers(0, m, p - m)])
        groups[np.arange(p), rng.permutation(owner)] = 1
    else:
        slope = rng.standard_normal((p, m)) / p**0.5
    return {
        "matrix": (matrix + matrix.T) / 2,
        "offset": rng.standard_normal(p) * stretch,
        "slope": slope,
        "groups": groups,
    }


def _criterion_parts(
    rng: np.random.Generator, p: int, m: int, coupled: bool
) -> dict[str, npt.NDArray[np.float64]]:
    """The arrays of g."""
    n = max(p, 2)
    return {
        "matrix": rng.standard_normal((n, p)) / n**0.5,
        "target": rng.standard_normal(n),
        "coupling": rng.standard_normal((m, p)) / p if coupled else np.zeros((m, p)),
        "center": rng.standard_normal(m),
    }


def quadratic_from(
    inner: dict[str, npt.NDArray[np.float64]],
    outer: dict[str, npt.NDArray[np.float64]],
    *,
    weight: float = 0.0,
    domain: Domain,
    lam: Sequence[float],
    backend: str | Backend = "numpy",
    dtype: str = "float64",
    name: str = "quadratic",
) -> KnownProblem:
    """Build a quadratic problem from its arrays.

    Parameters
    ----------
    inner : dict of array
        The ``matrix``, ``offset``, ``slope`` and ``groups`` of :class:`Quadratic`.
    outer : dict of array
        The ``matrix``, ``target``, ``coupling`` and ``center`` of :class:`QuadraticOuter`.
    weight : float
        ρ of the criterion.
    domain, lam, backend, dtype
        As for :func:`quadratic`.
    name : str
        What it is, for messages.

    Examples
    --------
    >>> one, zero = np.eye(1), np.zeros((1, 1))
    >>> inner = {"matrix": one, "offset": np.zeros(1), "slope": one, "groups": zero}
    >>> outer = {"matrix": one, "target": np.ones(1), "coupling": zero, "center": np.zeros(1)}
    >>> known = quadratic_from(inner, outer, domain=Box(-2.0, 2.0), lam=[0.0])
    >>> float(known.hypergradient[0])  # f = ½ (λ - 1)²
    -1.0
    """
    found = _backend(backend)
    arrays, h = _both(inner, found, dtype)
    outer_arrays, g = _both(outer, found, dtype)
    problem = Problem(
        Quadratic(**arrays, backend=found),
        QuadraticOuter(**outer_arrays, weight=weight, backend=found),
        domain,
    )
    reference = Reference(QuadraticReference(**h), QuadraticOuterReference(**g, weight=weight))
    curvature = None
    if not np.any(inner["groups"]) and np.linalg.matrix_rank(inner["matrix"]) == len(h["offset"]):
        curvature = _curvature(reference.inner, reference.outer)
    name = f"{name}, {found.name} {dtype}"
    return KnownProblem(problem, reference, _rounded(lam, dtype), name, curvature)


def _curvature(h: Any, g: Any) -> Host:
    """∂²f of the affine family: X(λ) = H⁻¹ (b + C λ), so f is a quadratic."""
    tangent = np.stack([solve(h.matrix, column) for column in h.slope.T], axis=1)
    mixed = g.coupling @ tangent
    moved = g.matrix @ tangent
    m = h.slope.shape[1]
    return np.asarray(moved.T @ moved + mixed + mixed.T + g.weight * np.eye(m))


def linear(
    seed: int,
    *,
    loss: str = "logistic",
    n: int = 12,
    p: int = 4,
    m: int = 1,
    scaling: float = 1.0,
    domain: Domain | None = None,
    lam: Sequence[float] | None = None,
    backend: str | Backend = "numpy",
    dtype: str = "float64",
) -> KnownProblem:
    """Draw a linear model with an ℓ2 penalty of one, several or p hyperparameters.

    Parameters
    ----------
    seed : int
        Everything below is a function of it.
    loss : str
        One of :func:`known_losses`: "logistic", "squared" (ridge), "poisson".
    n, p, m : int
        Rows, coefficients and hyperparameters.
    scaling : float
        Columns are stretched by factors from 1 to this number.
    domain, lam, backend, dtype
        As for :func:`quadratic`; the domain is Box(-3, 3) when omitted.

    Examples
    --------
    >>> known = linear(0, loss="logistic")
    >>> known.problem.inner.n_hyperparameters
    1
    """
    seed, n, p = SEED(seed, "seed"), COUNT(n, "n"), COUNT(p, "p")
    m, scaling = Whole(1, p)(m, "m"), Number(at_least=1)(scaling, "scaling")
    _DTYPE(dtype, "dtype")
    chosen = _loss(loss)
    rng = np.random.default_rng([seed, n, p, m])
    found = _backend(backend)
    stretch = np.geomspace(1, scaling, p)[rng.permutation(p)]
    train, val = (rng.standard_normal((rows, p)) * stretch / p**0.5 for rows in (n, n + 3))
    truth = rng.standard_normal(p) / stretch
    y, y_val = (_labels(rng, loss, design @ truth) for design in (train, val))
    groups: Any = None
    spread = np.ones((p, 1))
    if m == p and m > 1:
        groups, spread = "each", np.eye(p)
    elif m > 1:
        owner = rng.permutation(np.concatenate([np.arange(m), rng.integers(0, m, p - m)]))
        groups, spread = owner, np.eye(m)[owner]
    arrays, hosts = _both({"X": train, "y": y, "Z": val, "z": y_val}, found, dtype)
    inner = linear_model(arrays["X"], arrays["y"], chosen, groups=groups)
    outer = held_out(arrays["Z"], arrays["z"], chosen, X_name="X_val", y_name="y_val")
    reference = Reference(
        LinearReference(hosts["X"], hosts["y"], LOSSES[loss], host(spread)),
        HeldOutReference(hosts["Z"], hosts["z"], LOSSES[loss]),
    )
    domain = Box(-3.0, 3.0) if domain is None else domain
    point = draw_lam(rng, m, domain, dtype) if lam is None else _rounded(lam, dtype)
    name = f"{loss}, seed={seed}, n={n}, p={p}, m={m}, scaling {scaling:.2g}, {domain}"
    return KnownProblem(
        Problem(inner, outer, domain), reference, point, f"{name}, {found.name} {dtype}"
    )


def known_losses() -> tuple[str, ...]:
    """The losses that :func:`linear` can draw."""
    return tuple(name for name in LOSSES if hasattr(losses, name.capitalize()))


def _backend(like: Any) -> Backend:
    """A backend by its name, or the backend itself."""
    found: Backend = get_backend(like) if isinstance(like, str) else _BACKEND(like, "backend")
    return found


_BACKEND = Has("a backend or its name", "xp", "asarray", "to_numpy")
_DTYPE = OneOf(("float32", "float64"))


def _loss(name: str) -> Any:
    if name not in known_losses():
        raise ValueError(f"loss must be one of {list(known_losses())}, got {name!r}.")
    return getattr(losses, name.capitalize())()


def _labels(
    rng: np.random.Generator, loss: str, margins: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    noise = rng.standard_normal(margins.shape)
    draw: dict[str, Callable[[], Any]] = {
        "logistic": lambda: np.where(margins + noise > 0, 1.0, -1.0),
        "squared": lambda: margins + noise,
        "poisson": lambda: rng.poisson(np.exp(np.clip(margins, -3, 2))).astype(np.float64),
    }
    return np.asarray(draw[loss](), dtype=np.float64)


def draw_lam(rng: np.random.Generator, m: int, domain: Domain, dtype: str) -> list[float]:
    """A point of the domain; each coordinate of a box is on a face with probability ¼."""
    low, high = bounds(domain, m)
    point = low + (high - low) * rng.random(m)
    if isinstance(domain, Box):
        face = rng.random(m)
        point = np.where(face < 0.125, low, np.where(face > 0.875, high, point))
    inside = domain.project(point, get_backend("numpy"))
    return _rounded(inside, dtype)


def bounds(domain: Domain, m: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The smallest box around a box or a ball."""
    if isinstance(domain, Box):
        return np.broadcast_to(domain.lower, (m,)).astype(np.float64), np.broadcast_to(
            domain.upper, (m,)
        ).astype(np.float64)
    assert isinstance(domain, Ball)
    center = np.broadcast_to(domain.center, (m,)).astype(np.float64)
    return center - domain.radius, center + domain.radius


def diameter(domain: Domain, m: int) -> float:
    """sup ‖α - β‖ over the domain; infinite where a box has an infinite bound."""
    low, high = bounds(domain, m)
    return 2 * domain.radius if isinstance(domain, Ball) else float(np.linalg.norm(high - low))


def _rounded(values: Any, dtype: str) -> list[float]:
    return [float(v) for v in np.asarray(values, dtype=dtype)]


def _both(
    parts: dict[str, npt.NDArray[np.float64]], backend: Backend, dtype: str
) -> tuple[dict[str, Array], dict[str, Host]]:
    """The arrays on the backend, and exactly the same numbers on the host."""
    rounded = {name: part.astype(dtype) for name, part in parts.items()}
    return (
        {name: backend.asarray(part) for name, part in rounded.items()},
        {name: host(part) for name, part in rounded.items()},
    )
