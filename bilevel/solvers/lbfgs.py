"""Limited-memory BFGS: Liu and Nocedal (1989), Nocedal and Wright (2006), algorithm 7.4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..backends import COUNT, Backend, check_fields, function
from ..inner import InnerPoint
from ..linalg import PairMemory, dot
from ._protocol import Step
from .linesearch import Unbounded, WolfeSearch
from .progress import Progress


@dataclass(frozen=True)
class LBFGS:
    """L-BFGS with a strong Wolfe search.

    An iteration on a linear model costs two passes, however many trials the search needs.
    Host reads an iteration: one for each trial of the line search, and one of the inner products
    of the pairs.

    Parameters
    ----------
    history : int
        How many pairs (s, y) are kept.
    search : WolfeSearch
        The line search. It is tighter (c₂ = 0.2) than for a function whose every trial costs
        an evaluation: along a ray of a linear model trials cost no pass, and the better step
        saves iterations. Take WolfeSearch(c2=0.9) for costly trials.
    """

    history: int = 10
    search: WolfeSearch = WolfeSearch(c2=0.2)

    def __post_init__(self) -> None:
        check_fields(self, history=COUNT, search=function)

    def walk(self, point: InnerPoint, backend: Backend, target: float) -> Iterator[Step]:
        pairs = PairMemory(self.history, backend)
        value, square = backend.scalars(point.value, dot(point.grad, point.grad, backend))
        limits = backend.xp.finfo(point.x.dtype)
        progress, tiny = Progress(float(limits.eps)), float(limits.smallest_normal)
        endless: Unbounded | None = None
        yield Step(point, math.sqrt(square))
        while square > 0 and not progress.ended(value, math.sqrt(square)):
            d, slope = pairs.direction(point.grad, square)
            t0 = 1.0 if pairs else min(1.0, 1 / math.sqrt(square))
            found, before, endless = None, endless, None
            if slope < 0:
                try:
                    found = self.search(point.ray(d), value, slope, t0, backend, point.x.dtype)
                except Unbounded as end:
                    if before is not None:
                        raise
                    # A first step knows no unit of x: the next one has that of this step.
                    found = (endless := end).point
            if found is None:
                if not pairs:
                    return  # not even the gradient descends: rounding is reached
                pairs.clear()
                continue
            s, grad = found.x - point.x, found.grad
            value, square, ss, *products = backend.scalars(
                found.value,
                dot(grad, grad, backend),
                dot(s, s, backend),
                *pairs.written(s, grad - point.grad, grad),
            )
            sy = pairs.take(products, tiny)
            point = found
            size = math.sqrt(square) if square >= 0 else math.nan
            yield Step(point, size, (sy, ss))
            if not math.isfinite(square):
                return
