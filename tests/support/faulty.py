"""One right problem written by hand, and the mistakes that people make with such a one.

h(x, λ) = Σ s_i φ(a_iᵀ x - y_i) + ½ Σ e^{λ_g(j)} x_j² with φ(t) = √(1 + t²) - 1, and g the mean
square over held-out rows plus 0.05 ‖λ‖².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from bilevel import inner as inners
from bilevel import outer as outers
from bilevel.domains import Box
from bilevel.inner import FunctionInner, InnerConstants
from bilevel.outer import FunctionOuter, OuterConstants
from bilevel.problem import Problem

_RNG = np.random.default_rng(11)
N, P, M = 18, 5, 2
A, B = _RNG.standard_normal((N, P)), _RNG.standard_normal((12, P))
Y, Z = 2 * _RNG.standard_normal(N), 2 * _RNG.standard_normal(12)
S = _RNG.exponential(size=N)
GROUP = np.array([0, 1, 0, 1, 1])
ROWS = np.sqrt((A**2).sum(1))
LOSS_TOP = float(np.linalg.eigvalsh((A.T * S) @ A)[-1])
HELD_TOP = float(2 * np.linalg.eigvalsh(B.T @ B)[-1] / 12)


def weight(lam: Any) -> Any:
    return np.exp(lam)[GROUP]


def value(x: Any, lam: Any, A: Any = A, Y: Any = Y, S: Any = S) -> float:
    t = A @ x - Y
    return float((S * (np.sqrt(1 + t * t) - 1)).sum() + (weight(lam) * x * x).sum() / 2)


def grad(x: Any, lam: Any, A: Any = A, Y: Any = Y, S: Any = S) -> Any:
    t = A @ x - Y
    return A.T @ (S * t / np.sqrt(1 + t * t)) + weight(lam) * x


def hvp(x: Any, lam: Any, v: Any, A: Any = A, S: Any = S, least: float = 0.0) -> Any:
    t = A @ x - Y
    return A.T @ (S * np.maximum((1 + t * t) ** -1.5, least) * (A @ v)) + weight(lam) * v


def cross_vjp(x: Any, lam: Any, q: Any) -> Any:
    both = weight(lam) * x * q
    return np.array([both[j == GROUP].sum() for j in range(M)])


def cross_jvp(x: Any, lam: Any, d: Any) -> Any:
    return weight(lam) * x * d[GROUP]


def outer(x: Any, lam: Any) -> Any:
    r = B @ x - Z
    return float(r @ r / 12 + 0.05 * lam @ lam), 2 * B.T @ r / 12


def outer_lam(x: Any, lam: Any) -> Any:
    return 0.1 * lam


def constants(**changed: Callable[[Any], float]) -> Callable[[Any], InnerConstants]:
    def at(lam: Any) -> InnerConstants:
        right = {
            "mu": float(np.exp(lam.min())),
            "smoothness": LOSS_TOP + float(np.exp(lam.max())),
            "hessian_lipschitz": float((S * ROWS**3).sum()) * 0.86,
            "cross_lipschitz": float(np.exp(lam.max())),
            "self_concordance": 1.5 * float(ROWS.max()),
        }
        return InnerConstants(**(right | {name: f(lam) for name, f in changed.items()}))

    return at


def problem(
    *,
    both: Any = None,
    products: Any = None,
    vjp: Any = cross_vjp,
    jvp: Any = cross_jvp,
    criterion: Any = outer,
    criterion_lam: Any = outer_lam,
    stated: Any = None,
    lipschitz: float = HELD_TOP,
) -> Problem:
    """The problem, with some functions replaced by wrong ones."""
    inner = inners.from_functions(
        both or (lambda x, lam: (value(x, lam), grad(x, lam))),
        like=np.zeros(1),
        x_shape=(P,),
        n_hyperparameters=M,
        hvp=products or hvp,
        cross_vjp=vjp,
        cross_jvp=jvp,
        constants=stated or constants(),
    )
    of_outer = OuterConstants(lipschitz, 0.0, self_concordance=0.0)
    criterion = outers.from_functions(
        criterion, like=np.zeros(1), grad_lam=criterion_lam, constants=of_outer
    )
    return Problem(inner, criterion, Box(-8.0, 8.0))


def wrong_grad(change: Callable[[Any, Any, Any], Any]) -> Callable[[], Problem]:
    """A gradient that is ``change`` of the right one, x and λ."""
    return lambda: problem(both=lambda x, lam: (value(x, lam), change(grad(x, lam), x, lam)))


def wrong_product(change: Callable[[Any, Any, Any, Any], Any]) -> Callable[[], Problem]:
    return lambda: problem(products=lambda x, lam, v: change(hvp(x, lam, v), x, lam, v))


def wrong_cross(factor: Callable[[Any], Any]) -> Callable[[], Problem]:
    """Both cross products, consistent with each other, with a factor for each λ."""
    return lambda: problem(
        vjp=lambda x, lam, q: cross_vjp(x, lam, q) * factor(lam),
        jvp=lambda x, lam, d: cross_jvp(x, lam, d * factor(lam)),
    )


def wrong_outer(change: Callable[[float, Any, Any, Any], Any]) -> Callable[[], Problem]:
    return lambda: problem(criterion=lambda x, lam: change(*outer(x, lam), x, lam))


def wrong_constant(**changed: Callable[[Any], float]) -> Callable[[], Problem]:
    return lambda: problem(stated=constants(**changed))


def single(a: Any) -> Any:
    return np.asarray(a, dtype=np.float32).astype(np.float64)


def half(a: Any) -> Any:
    return np.asarray(a, dtype=np.float16).astype(np.float64)


# -- functions with a memory -----------------------------------------------------------------------


def accumulates() -> Problem:
    total = np.zeros(P)

    def both(x: Any, lam: Any) -> Any:
        total[:] += 1e-3 * grad(x, lam)
        return value(x, lam), grad(x, lam) + total

    return problem(both=both)


def one_behind() -> Problem:
    last = [np.zeros(P)]

    def both(x: Any, lam: Any) -> Any:
        before, last[0] = last[0], x.copy()
        return value(x, lam), grad(before, lam)

    return problem(both=both)


def first_lam() -> Problem:
    kept: list[Any] = []

    def products(x: Any, lam: Any, v: Any) -> Any:
        kept.append(lam.copy())
        return hvp(x, kept[0], v)

    return problem(products=products)


def rounded_key() -> Problem:
    cache: dict[Any, Any] = {}

    def both(x: Any, lam: Any) -> Any:
        key = (*np.round(x, 2), *np.round(lam, 2))
        return cache.setdefault(key, (value(x, lam), grad(x, lam)))

    return problem(both=both)


def cache_of_first_entry() -> Problem:
    cache: dict[float, Any] = {}
    return problem(criterion=lambda x, lam: cache.setdefault(float(x[0]), outer(x, lam)))


def every_ninth() -> Problem:
    count = [0]

    def products(x: Any, lam: Any, v: Any) -> Any:
        count[0] += 1
        return hvp(x, lam, v) * (count[0] % 9 != 0)

    return problem(products=products)


def minibatch() -> Problem:
    rng = np.random.default_rng(0)

    def both(x: Any, lam: Any) -> Any:
        rows = rng.choice(N, N - 1, replace=False)
        return value(x, lam), grad(x, lam, A[rows], Y[rows], S[rows])

    return problem(both=both)


class OwnInner(FunctionInner):
    """A class of a user's, whose points hand on the arrays themselves; functions get copies."""

    def product(self, name: str, x: Any, lam: Any, direction: Any, shape: Any) -> Any:
        return getattr(self, name)(x, lam, direction)


class OwnOuter(FunctionOuter):
    def evaluate(self, x: Any, lam: Any) -> Any:
        number, slope = self.value_and_grad(x, lam)
        return np.asarray(number), slope


def by_class(problem: Any) -> Problem:
    """The same problem by classes of the user's own."""
    own = [
        cls(**{f.name: getattr(part, f.name) for f in fields(part)})
        for cls, part in ((OwnInner, problem.inner), (OwnOuter, problem.outer))
    ]
    return Problem(*own, problem.domain)


def in_place(which: str) -> Problem:
    def touched(x: Any, lam: Any, v: Any = None) -> None:
        if which == "lam":
            lam += 1e-9
        if which == "x":
            x -= 1e-12
        if which == "v" and v is not None:
            v /= 1 + 1e-9

    def products(x: Any, lam: Any, v: Any) -> Any:
        found = hvp(x, lam, v)
        touched(x, lam, v)
        return found

    return by_class(problem(products=products))


def buffers(member: str) -> Problem:
    kept, found = np.zeros(P), np.zeros(M)

    def products(x: Any, lam: Any, v: Any) -> Any:
        kept[:] = hvp(x, lam, v)
        return kept

    def criterion(x: Any, lam: Any) -> Any:
        number, slope = outer(x, lam)
        kept[:] = slope
        return number, kept

    def vjp(x: Any, lam: Any, q: Any) -> Any:
        found[:] = cross_vjp(x, lam, q)
        return found

    if member == "hvp":
        return by_class(problem(products=products))
    return by_class(problem(criterion=criterion) if member == "outer" else problem(vjp=vjp))


def raises_beyond(limit: float) -> Problem:
    def both(x: Any, lam: Any) -> Any:
        if np.max(lam) > limit:
            raise ValueError("no such λ")
        return value(x, lam), grad(x, lam)

    return problem(both=both)


def forward_differences() -> Problem:
    return problem(
        products=lambda x, lam, v: (grad(x + 1e-4 * v, lam) - grad(x, lam)) / 1e-4,
    )


_FIRST = np.arange(N) < N - 1
_TILT = np.triu(np.ones((P, P)), 1) * 1e-5

#: What is wrong, by the member that has to be blamed (the beginning of its name; "" for any).
FAULTS: dict[str, tuple[Callable[[], Problem], str]] = {
    "gradient of the loss negated": (
        wrong_grad(lambda g, x, lam: 2 * weight(lam) * x - g),
        "inner.grad",
    ),
    "one group without its penalty": (
        wrong_grad(lambda g, x, lam: g - weight(lam) * x * (GROUP == 1)),
        "inner.grad",
    ),
    "mean for sum in the gradient": (
        wrong_grad(lambda g, x, lam: (g - weight(lam) * x) / N + weight(lam) * x),
        "inner.grad",
    ),
    "targets shifted by one row": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, lam, Y=np.roll(Y, 1)))),
        "inner.grad",
    ),
    "gradient rounded to eight places": (
        wrong_grad(lambda g, x, lam: np.round(g, 8)),
        "inner.grad",
    ),
    "features in half precision": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, lam, A=half(A)))),
        "inner.grad",
    ),
    "features in single precision": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, lam, A=single(A)))),
        "inner.grad",
    ),
    "value in single precision": (
        lambda: problem(both=lambda x, lam: (float(np.float32(value(x, lam))), grad(x, lam))),
        "inner.value",
    ),
    "λ in single precision": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, single(lam)))),
        "inner.grad",
    ),
    "gradient clipped": (
        wrong_grad(lambda g, x, lam: g * min(1.0, 50 / np.linalg.norm(g))),
        "inner.grad",
    ),
    "value cut at 10⁴": (
        lambda: problem(both=lambda x, lam: (min(value(x, lam), 1e4), grad(x, lam))),
        "inner.grad",
    ),
    "wrong where λ differ much": (
        wrong_grad(lambda g, x, lam: g if abs(lam[0] - lam[1]) < 5 else 1.01 * g),
        "inner.grad",
    ),
    "λ cut at 4 in the gradient": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, np.minimum(lam, 4)))),
        "inner.grad",
    ),
    "the last row left out": (
        lambda: problem(both=lambda x, lam: (value(x, lam), grad(x, lam, S=S * _FIRST))),
        "inner.grad",
    ),
    "a row's weight off by 10⁻⁵": (
        lambda: problem(
            both=lambda x, lam: (value(x, lam), grad(x, lam, S=S * (1 - 1e-5 * ~_FIRST)))
        ),
        "inner.grad",
    ),
    "gradient that adds up": (accumulates, "inner.grad"),
    "gradient one call behind": (one_behind, "inner.grad"),
    "cache with a rounded key": (rounded_key, "inner."),
    "minibatches": (minibatch, "inner.grad"),
    "product without weights": (
        wrong_product(lambda h, x, lam, v: hvp(x, lam, v, S=np.ones(N))),
        "inner.hvp",
    ),
    "product at x = 0": (wrong_product(lambda h, x, lam, v: hvp(0 * x, lam, v)), "inner.hvp"),
    "product with a jitter of 10⁻⁶": (
        wrong_product(lambda h, x, lam, v: h + 1e-6 * v),
        "inner.hvp",
    ),
    "product without a group's penalty": (
        wrong_product(lambda h, x, lam, v: h - weight(lam) * v * (GROUP == 0)),
        "inner.hvp",
    ),
    "product of the unit vector": (
        wrong_product(lambda h, x, lam, v: h / max(np.linalg.norm(v), 1e-300)),
        "inner.hvp",
    ),
    "product divided by a length that may be 0": (
        wrong_product(lambda h, x, lam, v: h * (np.linalg.norm(v) / np.linalg.norm(v))),
        "inner.hvp",
    ),
    "curvature held above 10⁻²": (
        wrong_product(lambda h, x, lam, v: hvp(x, lam, v, least=1e-2)),
        "inner.hvp",
    ),
    "product by forward differences": (forward_differences, "inner.hvp"),
    "product in single precision": (
        wrong_product(lambda h, x, lam, v: single(h)),
        "inner.hvp",
    ),
    "direction in single precision": (
        wrong_product(lambda h, x, lam, v: hvp(x, lam, single(v))),
        "inner.hvp",
    ),
    "product a little unsymmetric": (
        wrong_product(lambda h, x, lam, v: h + _TILT @ v),
        "inner.hvp",
    ),
    "product with the first λ": (first_lam, "inner.hvp"),
    "every ninth product lost": (every_ninth, "inner.hvp"),
    "product changes x": (lambda: in_place("x"), "inner.hvp"),
    "product changes λ": (lambda: in_place("lam"), "inner.hvp"),
    "product changes its direction": (lambda: in_place("v"), "inner.hvp"),
    "product in a buffer": (lambda: buffers("hvp"), "inner.hvp"),
    "cross products by e^λ for λ": (wrong_cross(lambda lam: np.exp(-lam)), "inner.cross"),
    "cross products with e^2λ": (wrong_cross(lambda lam: np.exp(lam)), "inner.cross"),
    "cross products without a group": (
        wrong_cross(lambda lam: np.array([1.0, 0.0])),
        "inner.cross",
    ),
    "cross products negated for λ < -3": (
        wrong_cross(lambda lam: np.where(lam < -3, -1.0, 1.0)),
        "inner.cross",
    ),
    "groups swapped in one cross product": (
        lambda: problem(vjp=lambda x, lam, q: cross_vjp(x, lam, q)[::-1].copy()),
        "inner.cross_vjp",
    ),
    "cross product in a buffer": (lambda: buffers("vjp"), "inner.cross_vjp"),
    "criterion of the training rows": (
        wrong_outer(lambda f, g, x, lam: (f, 2 * A.T @ (A @ x - Y) / N)),
        "outer.grad_x",
    ),
    "criterion with a ½": (wrong_outer(lambda f, g, x, lam: (f, g / 2)), "outer.grad_x"),
    "criterion in single precision": (
        wrong_outer(lambda f, g, x, lam: (f, single(g))),
        "outer.grad_x",
    ),
    "criterion with noise": (
        wrong_outer(lambda f, g, x, lam: (f * (1 + 1e-10 * _RNG.standard_normal()), g)),
        "outer.value",
    ),
    "criterion in a buffer": (lambda: buffers("outer"), "outer.grad_x"),
    "criterion kept by its first entry": (cache_of_first_entry, "outer."),
    "criterion wrong for small x": (
        wrong_outer(lambda f, g, x, lam: (f, g if np.abs(x).max() > 0.02 else 1.001 * g)),
        "outer.grad_x",
    ),
    "derivative in λ negated": (
        lambda: problem(criterion_lam=lambda x, lam: -0.1 * lam),
        "outer.grad_lam",
    ),
    "derivative in λ without its 2": (
        lambda: problem(criterion_lam=lambda x, lam: 0.05 * lam),
        "outer.grad_lam",
    ),
    "μ of the mean λ": (
        wrong_constant(mu=lambda lam: float(np.exp(lam.mean()))),
        "inner.constants().mu",
    ),
    "μ not below 1": (
        wrong_constant(mu=lambda lam: max(1.0, float(np.exp(lam.min())))),
        "inner.constants().mu",
    ),
    "smoothness without the penalty": (
        wrong_constant(smoothness=lambda lam: LOSS_TOP),
        "inner.constants().smoothness",
    ),
    "smoothness of the loss halved": (
        wrong_constant(smoothness=lambda lam: LOSS_TOP / 4 + float(np.exp(lam.max()))),
        "inner.constants().smoothness",
    ),
    "cross_lipschitz of the smaller λ": (
        wrong_constant(cross_lipschitz=lambda lam: float(np.exp(lam.min()))),
        "inner.constants().cross_lipschitz",
    ),
    "cross_lipschitz 10% too small": (
        wrong_constant(cross_lipschitz=lambda lam: 0.9 * float(np.exp(lam.max()))),
        "inner.constants().cross_lipschitz",
    ),
    "hessian_lipschitz of a mean row": (
        wrong_constant(hessian_lipschitz=lambda lam: float(np.mean(S * ROWS**3)) / 4),
        "inner.constants().hessian_lipschitz",
    ),
    "self_concordance a tenth": (
        wrong_constant(self_concordance=lambda lam: 0.15 * float(ROWS.max())),
        "inner.constants().self_concordance",
    ),
    "L of the criterion 1% too small": (
        lambda: problem(lipschitz=0.99 * HELD_TOP),
        "outer.constants().grad_x_lipschitz",
    ),
    "an exception beyond λ = 6": (lambda: raises_beyond(6.0), "evaluation"),
    "an exponential that overflows": (
        wrong_grad(lambda g, x, lam: g + 0 * np.log(np.exp(np.abs(x)).sum())),
        "inner.grad",
    ),
    "NaN for |x| above 12": (
        wrong_grad(lambda g, x, lam: g if np.abs(x).max() < 12 else np.nan * g),
        "inner.grad",
    ),
}
