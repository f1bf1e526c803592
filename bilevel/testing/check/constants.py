"""No declared constant is refuted: the worst points and directions are searched for.

Whatever is measured here is attained: Rayleigh quotients for μ and the smoothness, difference
quotients for Lipschitz constants, ratios of curvatures for self-concordance. So a constant is
blamed only where it is false, up to rounding.
"""

from __future__ import annotations

from ...inner import InnerConstants, inner_constants
from . import criterion, curvature, third
from .places import Place
from .report import Book


def stated(place: Place) -> InnerConstants:
    """The constants of the objective at the λ of the place."""
    probe = place.probe
    found: InnerConstants = inner_constants(probe.problem.inner, probe.send(probe.lam, (probe.m,)))
    return found


def noted(place: Place, book: Book) -> None:
    """What the theory would like and the problem does not state."""
    inner, outer = stated(place), place.probe.problem.outer_constants
    if inner.mu is None:
        book.note("No μ is stated: no distance to X(λ) can be certified.")
    for name in ("smoothness", "hessian_lipschitz", "cross_lipschitz"):
        if getattr(inner, name) is None:
            book.note(f"The objective states no {name}.")
    for name in ("grad_x_lipschitz", "grad_lam_lipschitz"):
        if getattr(outer, name) is None:
            book.note(f"The criterion states no {name}: no bound of the error follows.")


def search(place: Place, book: Book, *, thorough: bool) -> None:
    """All constants of the objective at this λ, and those of the criterion.

    A thorough search starts at several points and in several directions, any other in one.
    """
    inner = stated(place)
    directions = curvature.curvature(place, inner, book, thorough=thorough)
    if inner.hessian_lipschitz is not None or inner.self_concordance is not None:
        third.third_derivative(place, inner, directions, book, thorough=thorough)
    if inner.cross_lipschitz is not None:
        third.cross_lipschitz(place, inner.cross_lipschitz, book, turns=4 if thorough else 2)
    criterion.criterion(place, book, thorough=thorough)
