"""The block solve of a correction, and what of it is kept for the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...backends import Array
from ...inner import InnerPoint
from ...linalg import CGResult, Recorder, cg
from ...problem import Problem
from ..correction import (
    Averages,
    Formed,
    Kept,
    Look,
    Pairs,
    Sketch,
    Wanted,
    accuracy,
    plain,
    preconditioner,
    rounded_point,
)


@dataclass(frozen=True)
class Found:
    """The three answers, the pairs seen on the way where they are worth keeping.

    ``sound``: its bounds of the errors are proven. ``curvature``: the least that its steps have
    shown of the system, infinite where something kept from other points preconditioned it.
    """

    result: CGResult
    seen: Recorder | None
    sound: bool
    curvature: float = math.inf


@dataclass(frozen=True)
class BlockSolver:
    """Conjugate gradients for the three questions at once.

    The attributes are those options of :class:`PathFollowing`.
    """

    max_cg: int
    rank: int
    sketch_after: int
    pairs: int
    worth: float

    def solve(
        self,
        problem: Problem,
        look: Look,
        rhs: Array,
        wanted: Wanted,
        sketch: Kept | None = None,
        rounded: bool = True,
        least: float = math.inf,
    ) -> Found:
        """Solve; the block takes the memory of the residuals.

        With few coefficients H itself preconditions, formed anew. ``rounded``: in the lower
        precision where that is cheaper; ``least``: the least curvature that other solves have
        shown. Where no plateau may pass for the end of a solve, sketches and pairs from elsewhere
        don't precondition it: nothing is known of the curvatures of what they make of H.
        """
        formed = Formed.at(problem, look) if self.pays(problem, self.rank) else None
        sketch = without_pairs(sketch) if wanted.guarded else sketch
        apply, bottom, sound = preconditioner(problem, look, formed or sketch)
        point, shift = rounded_point(problem, look, wanted)
        point = point if rounded else look.point
        if bottom is not None:  # of this solve, or of the one whose pairs precondition it
            bottom *= 1 - shift
        seen = None if formed is not None else self._recorder(problem, look, point, sketch)
        found = cg(
            point.hvp if seen is None else seen,
            rhs,
            tol=accuracy(look, wanted, bottom, least, isinstance(sketch, Averages)),
            preconditioner=apply,
            columns=True,
            verify=False,
            overwrite_b=True,
            max_iter=self.max_cg,
        )
        # Less than half as many pairs as may be kept say less than those from before.
        enough = seen is not None and 2 * len(seen) >= self.pairs
        known = formed is None and sketch is None
        return Found(found, seen if enough else None, sound, found.curvature if known else math.inf)

    def _recorder(
        self, problem: Problem, look: Look, point: InnerPoint, sketch: Kept | None
    ) -> Recorder | None:
        """What keeps the pairs of a solve, where they are worth it and no sketch is."""
        averaged = isinstance(sketch, Averages)
        vectors = 2 * self.pairs * (look.vectors.shape[-1] + 1 if averaged else 1)
        if (self._sketches(problem, look) and not averaged) or not self.pays(problem, vectors):
            return None
        return Recorder(point.hvp, self.pairs, columns=True, every=averaged)

    def kept(self, problem: Problem, look: Look, found: Found, sketch: Kept | None) -> Kept | None:
        """What is to precondition the next solve; ``sketch`` has done so for this one."""
        if isinstance(sketch, Averages):
            pairs = sketch.pairs if found.seen is None else Pairs.at(look, found.seen)
            return replace(sketch, pairs=pairs)
        averages = self.averages(look, found.result)
        if averages is not None:
            return averages
        if found.result.misjudged > _MISJUDGED:
            return None
        if found.seen is not None:
            return Pairs.at(look, found.seen)
        if sketch is None and found.result.n_iter >= self.sketch_after:
            return Sketch.at(look, self.rank) if self._sketches(problem, look) else None
        return sketch

    def averages(self, look: Look, found: CGResult) -> Averages | None:
        """What mean curvatures are worth forming for, after a solve that took many steps."""
        many = found.n_iter >= self.sketch_after and self.rank > 0
        return Averages.at(look) if many else None

    def pays(self, problem: Problem, vectors: int) -> bool:
        """Whether a step with so many vectors costs little beside the passes that it saves.

        The sketch is read twice a step, the pairs too, and so are the data. On text, which has
        fewer entries than the sketch, it lowered the passes and raised the seconds: 20 Newsgroups
        425 to 373 passes, 1.12 to 1.48 s; Reuters 190 to 180, 0.14 to 0.21 s.

        With one λ sketch and pairs save alike (breast cancer 209 to 143 and 141 passes, digits 202
        to 156 and 159), and the sketch can be proven anywhere. With several λ, or an intercept,
        there is no sketch, and 8 pairs save a fifth: digits 1206 to 850 passes with three λ and
        241 to 199 with an intercept, MNIST 1122 to 1035 and 829 to 619. The table is in
        docs/path-following.md.
        """
        entries = getattr(problem.inner, "entries", 0)
        return vectors > 0 and entries >= self.worth * vectors * math.prod(problem.inner.x_shape)

    def _sketches(self, problem: Problem, look: Look) -> bool:
        """Whether there is a plain H, as a sketch needs it, and it pays; pairs do without."""
        return plain(problem, look) and self.pays(problem, self.rank)


def without_pairs(sketch: Kept | None) -> Kept | None:
    """What of it is of this very point."""
    return replace(sketch, pairs=None) if isinstance(sketch, Averages) else None


#: Elsewhere than where they were found a sketch and pairs have no proven bound, and the errors of
#: such a solve are estimated. Where a bound has shown estimates to be so many times too small,
#: nothing is kept: on standardised data they were at most 1.3 times too small at λ = 0, on raw
#: columns of unlike scales 2.7 to 5 times, and more further on.
_MISJUDGED = 2.0
