"""What a loss of an author's own promises, held against the loss itself."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import described
from ...losses import Accounted
from .._probe import Probe, Vector
from .places import Place
from .report import Book

#: Predictions are looked at beside those of the place, so far off.
_AWAY = (0.3, 3.0)

#: Half the length over which curvatures are compared.
_STEP = 0.05


def losses(place: Place, book: Book) -> None:
    """The losses of h and of g, where these are made of one."""
    probe = place.probe
    for name, side, point in (
        ("inner", probe.problem.inner, probe.point),
        ("outer", probe.problem.outer, probe.outer),
    ):
        loss, y = getattr(side, "loss", None), getattr(side, "y", None)
        t = getattr(point, "margins", None)
        t = getattr(getattr(point, "prediction", None), "value", None) if t is None else t
        if loss is None or y is None or t is None:
            continue
        for away in _AWAY:
            asked = _Asked(f"{name}.loss", loss, y, t, probe, book)
            asked.away(away).all()


@dataclass(frozen=True)
class _Asked:
    """A loss at labels and predictions."""

    what: str
    loss: Any
    y: Any
    t: Any
    probe: Probe
    book: Book

    def away(self, size: float) -> _Asked:
        """At predictions that are small beside ``size``, and then that far off."""
        z = size * self.book.rng.standard_normal(tuple(self.t.shape))
        t = z + np.clip(self.host(self.t), -10.0, 10.0)
        return _Asked(
            self.what, self.loss, self.y, self.probe.send(t, t.shape), self.probe, self.book
        )

    @property
    def backend(self) -> Any:
        return self.probe.problem.backend

    def host(self, array: Any) -> Vector:
        return self.probe.host(array).reshape(tuple(array.shape))

    def all(self) -> None:
        with self.book.asking(f"{self.what}.least", "least(y, backend) is a method"):
            self._least()
        with self.book.asking(f"{self.what}.curvature"):
            self._curvature()
        if self.loss.shift_invariant:
            with self.book.asking(f"{self.what}.shift_invariant"):
                self._shifted()
        if isinstance(self.loss, Accounted):
            what = f"{self.what}.rounding"
            with self.book.asking(what, "rounding(y, t, backend) returns two arrays"):
                self._rounding(what)

    def _least(self) -> None:
        value = self.host(self.loss.value(self.y, self.t, self.backend))
        least = np.broadcast_to(self.host(self.loss.least(self.y, self.backend)), value.shape)
        if np.any(np.isnan(least)):
            message = "got NaN, expected the least value of each row."
            cause = "-inf says that none is known"
            self.book.add(f"{self.what}.least", "", math.inf, message, cause)
            return
        below = np.nan_to_num(least - value - 1e3 * self.probe.eps * (1 + np.abs(value)))
        if np.max(below) > 0:
            j = np.unravel_index(int(np.argmax(below)), below.shape)
            message = f"{least[j]:.6g} is stated as the least value but {value[j]:.6g} is attained."
            self.book.add(f"{self.what}.least", f"row {j[0]}", float(below[j]), message, None)

    def _diag(self, t: Vector) -> Vector:
        sent = self.probe.send(t, t.shape)
        kept = self.loss.curvature(self.y, sent, self.backend)
        return self.host(self.loss.curvature_diag(kept, self.backend))

    def _curvature(self) -> None:
        """Curvatures between their bounds, and no faster in their changes than is stated."""
        t, loss = self.host(self.t), self.loss
        here, eps = self._diag(t), self.probe.eps
        noise = 1e3 * eps * (1 + float(np.max(np.abs(here), initial=0.0)))
        self._least_curvature(here, noise)
        if loss.curvature_bound is not None:
            self._at_most("curvature_bound", loss.curvature_bound, float(np.max(here)), noise)
        u = self.book.rng.standard_normal(t.shape)
        own = tuple(range(1, 1 + len(loss.output_shape)))
        u = u / np.sqrt(np.sum(u * u, axis=own, keepdims=True)) if own else np.sign(u)
        ahead, behind = self._diag(t + _STEP * u), self._diag(t - _STEP * u)
        if loss.third_bound is not None:
            found = float(np.max(np.abs(ahead - behind))) / (2 * _STEP)
            self._at_most("third_bound", loss.third_bound, found, noise / _STEP)
        if loss.self_concordance is not None:
            known = np.minimum(ahead, behind) > 1e3 * noise
            ratio = np.log(ahead[known] / behind[known]) / (2 * _STEP)
            found = float(np.max(np.abs(ratio), initial=0.0))
            self._at_most("self_concordance", loss.self_concordance, found, 0.01)

    def _least_curvature(self, here: Vector, noise: float) -> None:
        stated, found = float(self.loss.curvature_lower), float(np.min(here))
        if not self.book.can_bound(f"{self.what}.curvature_lower", stated):
            return
        if found < stated - noise:
            message = f"{stated:.6g} is stated as the least curvature but {found:.6g} is attained."
            cause = "the loss is not convex" if found < 0 else None
            self.book.add(f"{self.what}.curvature_lower", "", math.inf, message, cause)

    def _at_most(self, name: str, stated: float, found: float, noise: float) -> None:
        self.book.constant(f"{self.what}.{name}", float(stated), found, 1e-6, noise)

    def _shifted(self) -> None:
        """ℓ(y, t + s 1) = ℓ(y, t)."""
        before = self.host(self.loss.value(self.y, self.t, self.backend))
        after = self.host(self.loss.value(self.y, self.t + 1.0, self.backend))
        size = 1e3 * self.probe.eps * (1 + float(np.max(np.abs(self.host(self.t)))))
        off = float(np.max(np.abs(after - before)))
        if off > size * (1 + float(np.max(np.abs(before)))):
            message = f"a shift of all predictions of a row by 1 changes the loss by {off:.6g}."
            self.book.add(f"{self.what}.shift_invariant", "", off, message, None)

    def _rounding(self, what: str) -> None:
        """A pair of bounds, of which single precision attains none that is too small."""
        found = self.loss.rounding(self.y, self.t, self.backend)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            message = f"got {described(found)}, expected a tuple (value, derivative)."
            cause = "return both bounds, or leave the method out: then nothing is proven"
            self.book.add(what, "", math.inf, message, cause)
            return
        names = ("value", "derivative")
        asked = [getattr(self.loss, name) for name in names]
        truths = [member(self.y, self.t, self.backend) for member in asked]
        for name, bound, truth in zip(names, found, truths, strict=True):
            if not self._can_be_bound(what, name, bound, tuple(truth.shape)):
                return
        with suppress(Exception):  # a loss may hold arrays of the precision of its problem
            self._attained(what)

    def _can_be_bound(self, what: str, name: str, bound: Any, shape: tuple[int, ...]) -> bool:
        got = getattr(bound, "shape", None)
        message, cause = "", None
        if got is None or tuple(got) != shape:
            shown = described(bound) if got is None else f"the shape {tuple(got)}"
            message = f"of {name} got {shown}, expected an array of shape {shape}."
        elif np.any(np.isnan(self.host(bound))):
            message = f"of {name} got NaN, expected upper bounds."
            cause = "a bound that is not known is infinite: 0 · ∞ and ∞ - ∞ are NaN"
        elif np.any(self.host(bound) < 0):
            message = f"of {name} got {np.min(self.host(bound)):.6g}, expected no number below 0."
            cause = "the bound of a signed error, without its size"
        if message:
            self.book.add(what, "", math.inf, message, cause)
        return not message

    def _attained(self, what: str) -> None:
        """The loss in single precision beside itself in double precision, at the same numbers."""
        xp = self.backend.xp
        unit = float(xp.finfo(xp.float32).eps) / 2
        narrow = [xp.astype(a, xp.float32) for a in (self.y, self.t)]
        wide = [xp.astype(a, xp.float64) for a in narrow]
        bounds = self.loss.rounding(*narrow, self.backend)
        for name, bound in zip(("value", "derivative"), bounds, strict=True):
            ask = getattr(self.loss, name)
            here, truth = (self.host(ask(*a, self.backend)) for a in (narrow, wide))
            off = np.abs(here - truth) / unit
            allowed = self.host(bound) * (1 + 1e-4) + 1e-20
            worst = np.nan_to_num(off - allowed)
            j = np.unravel_index(int(np.argmax(worst)), worst.shape)
            if worst[j] > 0:
                message = (
                    f"in single precision {name} is off by {off[j]:.4g} units of roundoff, "
                    f"{self.host(bound)[j]:.4g} are stated."
                )
                cause = "the bound counts too few operations, or not the size of what cancels"
                self.book.add(what, f"row {j[0]}", float(off[j] / allowed[j]), message, cause)
                return
