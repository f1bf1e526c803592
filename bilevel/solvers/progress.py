"""When to give up: the point where rounding hides any further progress."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """Watches value and gradient norm of a walk.

    Progress is a value lower than all before by more than rounding, or a gradient norm smaller
    than all before by a hundredth. Near the minimum the values are equal to the last bit while
    the gradient still falls, though not at every iteration, and the more slowly the worse the
    conditioning: hence the patience, which grows with the length of the walk.

    Parameters
    ----------
    eps : float
        The machine epsilon of the values.
    patience : int
        How many iterations without progress are granted, or half of those made where that is
        more.
    value, norm : float
        The least value and gradient norm until now.
    idle, made : int
        Iterations since the last progress, and all of them.

    Examples
    --------
    >>> progress = Progress(eps=2e-16, patience=2)
    >>> [progress.ended(value, 1.0) for value in (2.0, 1.0, 1.0, 1.0)]
    [False, False, False, True]
    """

    eps: float
    patience: int = 20
    value: float = math.inf
    norm: float = math.inf
    idle: int = 0
    made: int = 0

    def ended(self, value: float, norm: float) -> bool:
        """Take note of an iteration; tell whether the patience is spent."""
        fell = not self.value < math.inf or value < self.value - 4 * self.eps * abs(self.value)
        self.made += 1
        self.idle = 0 if fell or norm < 0.99 * self.norm else self.idle + 1
        self.value, self.norm = min(value, self.value), min(norm, self.norm)
        return self.idle >= max(self.patience, self.made / 2)
