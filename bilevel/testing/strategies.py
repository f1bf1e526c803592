"""Hypothesis strategies for problems with known constants, tolerance sequences and domains.

Sizes, condition numbers and dtypes are drawn by Hypothesis and shrink; the numbers inside the
arrays are a function of a drawn seed. This module alone needs ``hypothesis``.

>>> from hypothesis import find
>>> from bilevel.testing import strategies
>>> find(strategies.schedules(summable=False), lambda s: True).summable
False
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from ..backends import BackendUnavailableError, get_backend
from ..domains import Ball, Box, Domain
from ..schedules import Constant, Custom, Exponential, Power, Schedule
from .problems import KnownProblem, known_losses, linear, quadratic
from .reference import Host, host

#: Where a dtype still tells something at this condition number.
_MAX_CONDITION = {"float64": 1e8, "float32": 1e3}


def seeds() -> st.SearchStrategy[int]:
    """Seeds of NumPy's generators."""
    return st.integers(0, 2**20)


def domains(m: int | None = None, *, balls: bool = True) -> st.SearchStrategy[Domain]:
    """Boxes with one bound for all or one for each of m hyperparameters, and balls.

    Bounds are multiples of ⅛, so that float32 holds them exactly.
    """

    def box(bound: tuple[int, int]) -> Box:
        return Box(bound[0] / 8, (bound[0] + bound[1]) / 8)

    pairs = st.tuples(st.integers(-32, 16), st.integers(1, 32))
    found: list[st.SearchStrategy[Domain]] = [pairs.map(box)]
    if m is not None:
        many = st.lists(pairs, min_size=m, max_size=m)
        found.append(
            many.map(
                lambda p: Box(
                    tuple(low / 8 for low, _ in p), tuple((low + width) / 8 for low, width in p)
                )
            )
        )
    if balls:
        found.append(st.builds(lambda c, r: Ball(c / 8, r / 8), st.integers(-8, 8), pairs.map(_r)))
    return st.one_of(found)


def _r(pair: tuple[int, int]) -> int:
    return pair[1]


def schedules(*, summable: bool | None = None) -> st.SearchStrategy[Schedule]:
    """Tolerance sequences ε_k: summable, not summable, or either."""
    first = st.floats(1e-3, 1.0)
    finite: st.SearchStrategy[Schedule] = st.one_of(
        st.builds(Power, first, st.floats(1.5, 4.0)),
        st.builds(Exponential, first, st.floats(0.3, 0.95)),
        first.map(lambda c: Custom(lambda k: c / (k * math.log(k + 1) ** 2), summable=True)),
    )
    infinite: st.SearchStrategy[Schedule] = st.one_of(
        st.builds(Power, first, st.floats(0.1, 1.0)),
        st.builds(Constant, first),
        first.map(lambda c: Custom(lambda k: c / (k * math.log(k + 1)), summable=False)),
    )
    return {True: finite, False: infinite, None: st.one_of(finite, infinite)}[summable]


@st.composite
def quadratics(
    draw: st.DrawFn,
    *,
    kinds: Sequence[str] = ("penalty", "affine"),
    max_p: int = 30,
    max_m: int | None = None,
    max_condition: float = 1e8,
    max_scaling: float = 1e3,
    balls: bool = True,
    backends: Sequence[str] = ("numpy",),
    dtypes: Sequence[str] = ("float64",),
) -> KnownProblem:
    """Quadratic problems with a chosen spectrum; see :func:`bilevel.testing.quadratic`.

    λ lies inside the domain or on its boundary.
    """
    dtype = draw(st.sampled_from(list(dtypes)))
    p = draw(st.integers(1, max_p))
    m = draw(st.integers(1, min(p, max_m or p)))
    top = math.log10(min(max_condition, _MAX_CONDITION[dtype]))
    worst = 10.0 ** draw(st.floats(0, top))
    stretch = 10.0 ** draw(st.floats(0, math.log10(max_scaling)))
    return quadratic(
        draw(seeds()),
        p=p,
        m=m,
        condition=worst,
        scaling=1.0 if dtype == "float32" else min(stretch, 1e9 / worst),
        kind=draw(st.sampled_from(list(kinds))),
        coupled=draw(st.booleans()),
        domain=draw(domains(m, balls=balls)),
        backend=draw(st.sampled_from(list(backends))),
        dtype=dtype,
    )


@st.composite
def linear_models(
    draw: st.DrawFn,
    *,
    losses: Sequence[str] | None = None,
    max_n: int = 40,
    max_p: int = 12,
    max_m: int | None = None,
    max_scaling: float = 100.0,
    balls: bool = True,
    backends: Sequence[str] = ("numpy",),
    dtypes: Sequence[str] = ("float64",),
) -> KnownProblem:
    """Ridge, logistic and Poisson regression; see :func:`bilevel.testing.linear`."""
    p = draw(st.integers(1, max_p))
    m = draw(st.integers(1, min(p, max_m or p)))
    dtype = draw(st.sampled_from(list(dtypes)))
    return linear(
        draw(seeds()),
        loss=draw(st.sampled_from(list(losses or known_losses()))),
        n=draw(st.integers(1, max_n)),
        p=p,
        m=m,
        scaling=1.0 if dtype == "float32" else 10.0 ** draw(st.floats(0, math.log10(max_scaling))),
        domain=draw(domains(m, balls=balls)),
        backend=draw(st.sampled_from(list(backends))),
        dtype=dtype,
    )


def known_problems(
    *,
    backends: Sequence[str] = ("numpy",),
    dtypes: Sequence[str] = ("float64",),
    max_p: int = 12,
    max_m: int | None = None,
) -> st.SearchStrategy[KnownProblem]:
    """Any problem whose X(λ) and ∇f(λ) are known."""
    return st.one_of(
        quadratics(max_p=max_p, max_m=max_m, backends=backends, dtypes=dtypes),
        linear_models(max_p=max_p, max_m=max_m, backends=backends, dtypes=dtypes),
    )


def points(m: int, size: float = 50.0) -> st.SearchStrategy[Host]:
    """Points of Rᵐ, of any length up to ``size`` per coordinate, zeros and ties among them."""
    number = st.one_of(st.floats(-size, size), st.integers(-3, 3).map(float))
    return st.lists(number, min_size=m, max_size=m).map(host)


@st.composite
def definite_systems(
    draw: st.DrawFn, *, max_p: int = 12, max_condition: float = 1e6
) -> tuple[Host, Host, int]:
    """A symmetric positive definite matrix, a right-hand side, and its number of eigenvalues."""
    p = draw(st.integers(1, max_p))
    distinct = draw(st.integers(1, min(p, 4)))
    rng = np.random.default_rng(draw(seeds()))
    levels = np.geomspace(1, 10.0 ** draw(st.floats(0, math.log10(max_condition))), distinct)
    spectrum = levels[
        np.concatenate([np.arange(distinct), rng.integers(0, distinct, p - distinct)])
    ]
    basis = np.linalg.qr(rng.standard_normal((p, p)))[0]
    matrix = basis * spectrum @ basis.T
    return host((matrix + matrix.T) / 2), host(rng.standard_normal(p)), distinct


def usable(*names: str) -> tuple[str, ...]:
    """Those of the named backends that are installed and have a device here.

    Examples
    --------
    >>> usable("numpy")
    ('numpy',)
    """

    def works(name: str) -> bool:
        try:
            get_backend(name)
        except BackendUnavailableError:
            return False
        return True

    return tuple(name for name in names if works(name))
