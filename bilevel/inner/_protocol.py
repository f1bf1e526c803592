"""What an inner objective h(x, λ) is, and a point on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ..backends import (
    BOUND,
    NOT_NEGATIVE,
    Array,
    Backend,
    HostIndex,
    Maybe,
    Pending,
    check_fields,
    described,
)
from ..linalg import Preconditioner


@dataclass(frozen=True)
class InnerConstants:
    """Constants of h(., λ) that hold for every x; None where the objective states none.

    What is proven rests on them. μ is finite and none is negative; an upper bound may be infinite.

    Attributes
    ----------
    mu : float or None
        Strong convexity: ∂²_{xx} h ⪰ μ I. It turns a gradient into a distance,
        ‖x - X(λ)‖ ≤ ‖∇_x h(x, λ)‖ / μ.
    smoothness : float or None
        Upper bound of ‖∂²_{xx} h‖.
    hessian_lipschitz : float or None
        Lipschitz constant of x ↦ ∂²_{xx} h (spectral norm).
    cross_lipschitz : float or None
        Lipschitz constant of x ↦ ∂²_{xλ} h (spectral norm).
    self_concordance : float or None
        R with e^{-R‖u‖} A(x) ⪯ A(x + u) ⪯ e^{R‖u‖} A(x) for all u, where A = ∂²_{xx} h - μ I; then
        the same holds for ∂²_{xx} h (Bach 2010, for the logistic loss). Zero for a quadratic h.
        It bounds a change of the Hessian relative to the Hessian itself, which is far sharper
        than ``hessian_lipschitz``.
    """

    mu: float | None = None
    smoothness: float | None = None
    hessian_lipschitz: float | None = None
    cross_lipschitz: float | None = None
    self_concordance: float | None = None

    def __post_init__(self) -> None:
        upper = Maybe(BOUND)
        check_fields(
            self,
            mu=Maybe(NOT_NEGATIVE),
            smoothness=upper,
            hessian_lipschitz=upper,
            cross_lipschitz=upper,
            self_concordance=upper,
        )


def inner_constants(inner: Inner, lam: Array) -> InnerConstants:
    """The constants that an objective states at λ; refuse what has not checked itself.

    Raises
    ------
    TypeError
        If they are no :class:`InnerConstants`.
    """
    found = inner.constants(lam)
    if not isinstance(found, InnerConstants):
        raise TypeError(f"inner.constants must return InnerConstants, got {described(found)}.")
    return found


def constants_at(inner: Inner, point: InnerPoint, lam: Array | None = None) -> InnerConstants:
    """The same at the λ of a point, which keeps them: to state them reads λ to the host."""
    kept = getattr(point, "__dict__", {})
    known = kept.get(_STATED)
    if known is not None and known[0] is inner:
        stated: InnerConstants = known[1]
        return stated
    found = inner_constants(inner, point.lam if lam is None else lam)
    kept[_STATED] = (inner, found)
    return found


def same_constants(there: InnerPoint, point: InnerPoint) -> None:
    """Let a point of the same λ know what is stated there."""
    known = getattr(point, "__dict__", {}).get(_STATED)
    if known is not None:
        there.__dict__[_STATED] = known


_STATED = "_stated"


@dataclass(frozen=True)
class Rounding:
    """How far rounding may keep what a point computes from what it is.

    A bound rests on these: what was computed, and this much more. They are arrays, or numbers that
    follow from arrays (:class:`~bilevel.backends.Pending`).

    Attributes
    ----------
    grad : array
        Upper bound of the norm of the error of ∂_x h, 0-d.
    products : array, shape (k,)
        The same of ∂²_{xx} h · v for each of the vectors that it was asked for.
    cross : array
        The same of ∂²_{xλ} h as a matrix, 0-d; the sums of (∂²_{xλ} h)ᵀ q come on top.
    """

    grad: Array | Pending
    products: Array | Pending
    cross: Array | Pending


class InnerPoint(Protocol):
    """h and its derivatives at one (x, λ): an immutable snapshot.

    Each quantity is computed when first asked for, once. ``x`` has the shape of the inner
    variable; directions have that shape, or one more trailing axis that counts several.
    """

    @property
    def x(self) -> Array: ...

    @property
    def lam(self) -> Array: ...

    @property
    def value(self) -> Array:
        """h(x, λ), 0-d."""
        ...

    @property
    def grad(self) -> Array:
        """∂_x h, the shape of x."""
        ...

    def hvp(self, v: Array) -> Array:
        """∂²_{xx} h · v, for one direction or several."""
        ...

    def cross_vjp(self, q: Array) -> Array:
        """(∂²_{xλ} h)ᵀ q, shape (m,), or (m, k) for several q."""
        ...

    def cross_jvp(self, d: Array) -> Array:
        """(∂²_{xλ} h) d for d of shape (m,), the shape of x."""
        ...

    @property
    def carry(self) -> Array | None:
        """What the pass at x produced and λ does not change; None if nothing.

        Of a linear model the margins, and in a last row how far they may be from X x.

        Handed to :meth:`Inner.at` it makes the same x at another λ cost no pass, and a resumed
        run equal to an unbroken one to the last bit.
        """
        ...

    @property
    def cross_norm(self) -> Array | None:
        """An upper bound of ‖∂²_{xλ} h‖ (spectral norm), 0-d; None where there is none."""
        ...

    def diag(self) -> Array | None:
        """Diag ∂²_{xx} h, the shape of x, or None where it is not to be had."""
        ...

    def ray(self, d: Array) -> Ray:
        """Return the half-line x + t d, t ≥ 0."""
        ...


@runtime_checkable
class Rounded(Protocol):
    """A point, or a penalty at a point, that can bound its own rounding errors.

    Of a point that can't, nothing is proven: what it computes may be anything.
    """

    def rounding(
        self, vectors: Array, pushed: Array | None = None, scale: Array | None = None
    ) -> Rounding | None:
        """The bounds, no pass; None where they are not known.

        ``vectors`` of shape ``(*x_shape, k)``; with ``pushed`` their products are those of
        :meth:`Pushable.pull`, without it those of ``hvp``. With ``scale``, of the shape of x, the
        norms are those of the errors times it.
        """
        ...


@runtime_checkable
class Preconditioned(Protocol):
    """A point that may know a matrix M close to its Hessian H, with M⁻¹H ⪰ I.

    M is symmetric and positive definite. What runs take their errors for rests on this, and where
    the point is of a class of yours none is called proven by it: a direction that M⁻¹ makes far too
    little of is hidden from every number of a solve but the residual. A solve that meets the
    contrary ends the run, and before a run converges the question is put once more, to a random
    right-hand side and as far down as rounding allows. An M⁻¹ that is unsymmetric by less than a
    hundredth, or too small by less than a tenth, is not told from a right one and is taken on
    trust, as the error of each solve then is; :func:`~bilevel.testing.check_problem` looks further.
    """

    def preconditioner(self) -> Preconditioner | None:
        """The function r ↦ M⁻¹ r, for one direction or several, or None."""
        ...


@runtime_checkable
class Pushable(Protocol):
    """A point of an objective that sees x only through a linear map X x, its ``carry``.

    Directions that went through X once need it no more: they move the carry, and their products
    with the Hessian share the backward pass of the gradient.
    """

    def push(self, v: Array) -> Array:
        """X v for directions v of shape ``(*x_shape, k)``, one pass.

        It may hold more beside, as how far it is from X v; :meth:`joined` and :meth:`along` know.
        """
        ...

    def joined(self, pushed: Array, more: Array) -> Array:
        """What the sum of the directions of two :meth:`push` gives, no pass."""
        ...

    def along(self, pushed: Array, weights: Array) -> Array:
        """The same of the sum of the directions, weighted: of shape (k,), no pass."""
        ...

    def pull(self, v: Array, pushed: Array) -> tuple[Array, Array]:
        """(∂_x h, ∂²_{xx} h · v), v and X v given: one pass, with one column more than v."""
        ...

    def ray(self, d: Array, pushed: Array | None = None) -> Ray: ...


@runtime_checkable
class Swinging(Protocol):
    """A point that can bound what a change of x does to products with its Hessian H.

    Sharper than self-concordance alone, which has to allow for the worst direction: here the
    directions are known, and each row of the data answers for itself.
    """

    def swing(self, pushed: Array) -> tuple[Array | Pending, Array | Pending] | None:
        """Bound changes for v_0, ..., v_k that went through X, no pass; None where none is known.

        The first, (k + 1,), are M_j with abs(wᵀ(H(x + u) - H(x)) v_j) ≤ M_j φ(R‖u‖) ‖w‖_A ‖u‖_A for
        all u and w, where φ(s) = (eˢ - 1)/s, R is the self-concordance and A = H - μ I; the
        second, (k,), are M_j with abs(v_0ᵀ(H(x + u) - H(x)) v_j) ≤ M_j φ(R‖u‖) ‖u‖_A, j ≥ 1.
        """
        ...


@runtime_checkable
class Turning(Protocol):
    """A point that can say what a step further along a known direction does to products with H.

    Each row of the data answers for itself: those that the step moves far, and which saturate
    there, weigh by what they hold of the other directions.
    """

    def turning(self, pushed: Array, shares: tuple[float, ...]) -> Array | None:
        """What H turns along d, q and t_1, ..., t_k that went through X, no pass.

        For each share σ of d, a row of the result, shape (len(shares), k + 2): of the change of any
        ℓ''_i as a share of itself, of ‖ΔH q‖ in the norm of H⁻¹, and of the abs(qᵀ ΔH t_j), what
        is beyond the part linear in σ, if ℓ'' grows all the way as fast as it can anywhere. With
        s_i = c ‖(X d)_i‖, c the self-concordance of ℓ, and φ(s) = eˢ - 1 - s,

            max_i φ(σ s_i),   (Σ_i φ(σ s_i)² ℓ''_i[X q, X q])^½,
            Σ_i φ(σ s_i) (ℓ''_i[X q, X q] ℓ''_i[X t, X t])^½.

        None where the loss or the penalty is not self-concordant.
        """
        ...


@runtime_checkable
class Bending(Protocol):
    """A point of h, or of a penalty, that knows third derivatives: how its products with q change.

    They are the second derivatives of the function qᵀ ∂_x h, all that the Hessian of f needs of
    them (:func:`bilevel.hypergrad.hessian`). None where one is not known, as with a loss or a
    penalty that doesn't say. Directions T have the shape ``(*x_shape, k)``, D (m, k).
    """

    def bend(self, q: Array, T: Array, pushed: Array | None = None) -> Array | None:
        """T_iᵀ (∂³_{xxx} h [q]) T_j, shape (k, k): a pass at most, with k + 1 columns.

        No pass with ``pushed``, what :meth:`Pushable.push` gave of q and T side by side, q first.
        """
        ...

    def cross_bend(self, q: Array, T: Array) -> Array | None:
        """The numbers qᵀ (∂³_{xxλ_j} h) T_i, shape (m, k)."""
        ...

    def fold(self, q: Array, D: Array) -> Array | None:
        """(qᵀ ∂³_{xλλ} h) D, shape (m, k): products, as the matrix itself is m by m."""
        ...


@runtime_checkable
class Leveraged(Protocol):
    """A point of a self-concordant objective of predictions that are linear in x."""

    def leverage(self, pushed: Array, W: Array) -> Array | Pending:
        """C with which R ‖u‖ may be C ‖v‖ for every u = W v, no pass, 0-d.

        ``pushed`` is :meth:`Pushable.push` of the unit vectors, W of shape (size of x, k).
        """
        ...


@runtime_checkable
class Roundable(Protocol):
    """A point of an objective whose products with the Hessian may be cheaper when rounded."""

    def rounded(self) -> InnerPoint | None:
        """The same point with products in single precision, None where they are not cheaper."""
        ...


@runtime_checkable
class RoundingKnown(Protocol):
    """A point that bounds what rounding did to its gradient beyond the sums of the gradient itself.

    As where the matrix of h is computed in its turn: h as computed is another function than h.
    """

    @property
    def grad_rounding(self) -> Array:
        """An upper bound of ‖∂_x h as computed - ∂_x h‖, 0-d."""
        ...


def grad_rounding(point: InnerPoint, backend: Backend) -> float:
    """That number, 0 where a point knows of no such rounding."""
    return backend.scalars(point.grad_rounding)[0] if isinstance(point, RoundingKnown) else 0.0


@runtime_checkable
class RoundingAlong(Protocol):
    """A point that knows about what the rounding of its gradient is along a direction: no proof."""

    def rounding_along(self, q: Array, energy: Array) -> Array | Pending:
        """About |qᵀ(∂_x h as computed - ∂_x h)| for a q with qᵀHq = energy, no pass, 0-d."""
        ...


@runtime_checkable
class Startable(Protocol):
    """An objective that says where an inner solve without x0 begins; others begin at zero.

    Zero is a saddle of many functions that are not convex (networks, factorisations): all
    derivatives that would lead away from it vanish there.
    """

    def start(self) -> Array:
        """An x to begin at, the same each time and, rounding apart, on every backend."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """An objective that knows hyperparameters at which it can't be what was meant."""

    def remark(self, lam: Array) -> str | None:
        """A sentence for whoever starts or ends there; None where all is well."""
        ...


class Ray(Protocol):
    """h(., λ) along x + t d. A linear model needs one product with X for the whole of it."""

    def at(self, t: float) -> InnerPoint:
        """Return the point at x + t d."""
        ...

    def slope(self, point: InnerPoint) -> Array | Pending:
        """d/dt h at a point of this ray, 0-d."""
        ...


class Inner(Protocol):
    """h(x, λ), to be minimised over x.

    A new objective is one class with these members.
    """

    @property
    def backend(self) -> Backend: ...

    @property
    def x_shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def n_hyperparameters(self) -> int: ...

    def at(self, x: Array, lam: Array, carry: Array | None = None) -> InnerPoint:
        """Return the point (x, λ); ``carry`` is that of another point with this x.

        x and λ are the caller's: they are read, and never written into.
        """
        ...

    def constants(self, lam: Array) -> InnerConstants:
        """Constants that hold for every x at this λ."""
        ...

    @property
    def passes(self) -> float:
        """Passes over the data (or evaluations, where there is no matrix) until now."""
        ...

    @property
    def column_passes(self) -> float:
        """The same, each right-hand side counted on its own."""
        ...


#: What is left of a part when some of its rows are: an objective, or a criterion.
Part = TypeVar("Part", covariant=True)


@runtime_checkable
class Sampled(Protocol[Part]):
    """An objective or a criterion of rows, some of which can stand for all, as samples do."""

    @property
    def n_rows(self) -> int: ...

    def rows(self, index: HostIndex) -> Part:
        """The same of these rows, on the host, a row several times perhaps.

        Its mean over random rows is the whole; its passes count there as their share.
        """
        ...
