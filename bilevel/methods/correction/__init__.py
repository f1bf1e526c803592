"""One correction of x, q and the tangents, and what is proven of p after it.

Path following is made of such corrections, and the bounds of the iterate that any method returns
are as sharp as one more makes them.
"""

from .certified import Proof, Wanted, provable_at, prove, proven
from .claims import contradicted
from .kept import (
    FORMED,
    Averages,
    Formed,
    Kept,
    Pairs,
    Sketch,
    accuracy,
    plain,
    preconditioner,
    rounded_point,
)
from .looks import SHARES, Look, Solved, Turn, ahead, corrected, look_at, turned, walk
from .reported import sharpened

__all__ = [
    "FORMED",
    "SHARES",
    "Averages",
    "Formed",
    "Kept",
    "Look",
    "Pairs",
    "Proof",
    "Sketch",
    "Solved",
    "Turn",
    "Wanted",
    "accuracy",
    "ahead",
    "contradicted",
    "corrected",
    "look_at",
    "plain",
    "preconditioner",
    "provable_at",
    "prove",
    "proven",
    "rounded_point",
    "sharpened",
    "turned",
    "walk",
]
