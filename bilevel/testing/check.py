"""Is this problem what it says it is?

:func:`check_problem` holds every derivative of an inner objective and of a criterion against
differences of what it is the derivative of, and every declared constant against what it claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import SEED, Array, described
from ..domains import Ball, Box
from ..problem import Problem
from ._probe import Probe, Vector, derivative, lanczos, largest, length


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    what : str
        The member: ``"inner.grad"``, ``"inner.constants().mu"``, ...
    where : str
        The coordinate, direction or point at which it shows most.
    error : float
        How much: relative to the size of the right answer, or the ratio of the true constant to
        the declared one.
    message : str
        A sentence with the numbers.
    cause : str or None
        A likely cause, where the error has the mark of one.
    """

    what: str
    where: str
    error: float
    message: str
    cause: str | None = None

    def __str__(self) -> str:
        cause = f" Likely cause: {self.cause}." if self.cause else ""
        return f"{self.what} at {self.where}: {self.message}{cause}"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_problem` found.

    Attributes
    ----------
    findings : tuple of Finding
        What is wrong; empty where nothing is.
    notes : tuple of str
        What the theory would like and the problem does not state or have.
    checked : tuple of str
        The checks that were made.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    checked: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    def raise_for_findings(self) -> None:
        """Raise an AssertionError with all findings, or do nothing where there are none."""
        if self.findings:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [vars(finding) for finding in self.findings],
            "notes": list(self.notes),
            "checked": list(self.checked),
        }

    def __str__(self) -> str:
        head = "Nothing is wrong" if self.ok else f"{len(self.findings)} thing(s) wrong"
        lines = [f"{head} in {len(self.checked)} checks."]
        lines += [f"  wrong: {finding}" for finding in self.findings]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def refuse_no_problem(problem: Any) -> None:
    """Refuse what is no problem."""
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {described(problem)}.")


def check_problem(
    problem: Problem, lam: Any = 0.0, x: Array | None = None, *, seed: int = 0
) -> CheckReport:
    """Check the derivatives, the Hessian and the declared constants of a problem.

    Checked are, at (x, λ) and at a random point near it (where a factor e^λ that is 1 at λ = 0
    shows): values are finite; ``grad`` against differences of ``value``; ``hvp`` and
    ``cross_jvp`` against differences of ``grad``; ``cross_vjp`` as the adjoint of ``cross_jvp``;
    the Hessian is symmetric and linear, positive where μ is declared; blocks of directions,
    ``diag``, ``cross_norm``, ``ray`` and ``carry`` agree with the rest; ``grad_x`` and
    ``grad_lam`` of the criterion against differences of its value; and that no declared constant
    is refuted by a sample. The cost is some hundred evaluations.

    Parameters
    ----------
    problem : Problem
        What to check, on any backend.
    lam : float or array of shape (m,)
        The hyperparameters.
    x : array, optional
        The inner variable; random when omitted. A special point, as zero is, hides faults.
    seed : int
        Of the random directions.

    Returns
    -------
    CheckReport

    Raises
    ------
    ValueError, TypeError
        If lam or x do not fit the problem.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> check_problem(bilevel.logistic_regression(X, y, X, y)).ok
    True
    """
    refuse_no_problem(problem)
    rng = np.random.default_rng(SEED(seed, "seed"))
    size = math.prod(problem.inner.x_shape)
    lam_host = np.asarray(problem.backend.to_numpy(problem.lam(lam, "lam")), dtype=np.float64)
    if x is None:
        x_host = rng.standard_normal(size)
    else:
        x_host = np.asarray(problem.backend.to_numpy(problem.x(x, "x")), np.float64).reshape(-1)
    here = Probe(problem, x_host, lam_host)
    shift = _project(problem, lam_host + rng.uniform(0.25, 0.5, lam_host.shape)) - lam_host
    there = here.moved(0.3 * rng.standard_normal(size) * (1 + length(x_host)) / size**0.5, shift)
    check = _Check(rng)
    with np.errstate(all="ignore"):  # what is not finite is reported, not warned of
        for name, probe in (("the given point", here), ("a point near it", there)):
            check.place = name
            check.run(probe)
        check.place = "a face of the domain"
        check.corners(here)
    return CheckReport(tuple(check.findings), tuple(check.notes), tuple(check.checked))


def _project(problem: Problem, lam: Vector) -> Vector:
    probe = Probe(problem, np.zeros(0), lam)
    moved = problem.domain.project(probe.send(lam, lam.shape), problem.backend)
    return probe.host(moved)


class _Check:
    """The checks, each a method; findings are kept once for each member."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.place = ""
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.checked: list[str] = []

    def run(self, probe: Probe) -> None:
        if not self.finite(probe):
            return  # differences of infinities say nothing
        self.inner_gradient(probe)
        self.hessian_structure(probe)
        if any(finding.what == "inner.grad" for finding in self.findings):
            self.note(
                "hvp and the cross products are held against differences of grad: check again "
                "once grad (or value) is right."
            )
        else:
            self.hessian(probe)
            self.cross(probe)
        self.consistency(probe)
        self.criterion(probe)
        self.curvature(probe)
        self.lipschitz(probe)
        self.self_concordance(probe)

    # -- bookkeeping ------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def add(self, what: str, where: str, error: float, message: str, cause: str | None) -> None:
        if all(finding.what != what for finding in self.findings):
            place = f"{where} ({self.place})" if where else self.place
            self.findings.append(Finding(what, place, error, message, cause))

    def compare(
        self,
        what: str,
        claimed: Vector,
        truth: Vector,
        slack: float,
        *,
        eps: float,
        where: Callable[[int], str] = lambda j: f"component {j}",
        cause: Callable[[Vector, Vector], str | None] | None = None,
        reference: str = "differences",
    ) -> bool:
        """Whether two vectors agree up to the precision of the dtype and ``slack``."""
        if what not in self.checked:
            self.checked.append(what)
        off = claimed - truth
        scale = max(length(truth), length(claimed))
        allowed = tolerance(eps) * scale + 10 * slack
        if length(off) <= allowed:
            return True
        j = int(np.argmax(np.abs(off)))
        relative = length(off) / max(length(truth), 1e-300)
        message = (
            f"got {claimed[j]:.6g} but {reference} give {truth[j]:.6g}; "
            f"the whole is off by {relative:.2g} of its size."
        )
        found = cause(claimed, truth) if cause else None
        self.add(what, where(j), relative, message, found or likely_factor(claimed, truth))
        return False

    # -- the checks -------------------------------------------------------------------------------

    def finite(self, probe: Probe) -> bool:
        """Every member is finite, of the right shape and dtype."""
        v = self.rng.standard_normal(probe.p)
        d = self.rng.standard_normal(probe.m)
        shape = tuple(probe.problem.inner.x_shape)
        m = (probe.m,)
        members: list[tuple[str, Callable[[], Any], tuple[int, ...]]] = [
            ("inner.value", lambda: probe.point.value, ()),
            ("inner.grad", lambda: probe.point.grad, shape),
            ("inner.hvp", lambda: probe.point.hvp(probe.send(v)), shape),
            ("inner.cross_vjp", lambda: probe.point.cross_vjp(probe.send(v)), m),
            ("inner.cross_jvp", lambda: probe.point.cross_jvp(probe.send(d, m)), shape),
            ("outer.value", lambda: probe.outer.value, ()),
            ("outer.grad_x", lambda: probe.outer.grad_x, shape),
            ("outer.grad_lam", lambda: probe.outer.grad_lam, m),
        ]
        sound = True
        for what, member, expected in members:
            array = member()
            name = f"{what} is finite, of shape {expected} and of the dtype"
            if name not in self.checked:
                self.checked.append(name)
            if tuple(array.shape) != expected:
                message = f"got the shape {tuple(array.shape)}, expected {expected}."
                transposed = tuple(array.shape) == expected[::-1]
                self.add(what, "", math.inf, message, "transposed" if transposed else None)
                sound = False
                continue
            if array.dtype != probe.problem.dtype:
                message = f"got the dtype {array.dtype}, expected {probe.problem.dtype}."
                self.add(what, "", math.inf, message, "a constant of another dtype")
            values = probe.host(array)
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                sound = False
                self.add(
                    what,
                    f"component {bad[0]}",
                    math.inf,
                    f"got {values[bad[0]]}, {bad.size} of {values.size} are not finite.",
                    "overflow of an exponential, a logarithm of 0 or a division by 0",
                )
        return sound

    def directional(
        self,
        what: str,
        probe: Probe,
        claimed: Vector,
        value: Callable[[Probe], Vector],
        move: Callable[[Vector], Callable[[float], Probe]],
        cause: Callable[[Vector, Vector, Vector], str | None],
        scale: float,
    ) -> None:
        """A gradient against differences of a value: random directions, then coordinates."""
        n = claimed.shape[0]
        if what not in self.checked:
            self.checked.append(what)

        def slopes(direction: Vector) -> tuple[float, float, float]:
            along = move(direction)
            truth, error = derivative(lambda t: value(along(t)), scale, probe.eps)
            return float(claimed @ direction), float(truth[0]), error

        wrong = False
        for _ in range(3):
            direction = self.rng.standard_normal(n) / n**0.5
            mine, truth, error = slopes(direction)
            size = max(abs(mine), abs(truth), length(claimed) / n**0.5)
            wrong = wrong or abs(mine - truth) > tolerance(probe.eps) * size + 10 * error
        if not wrong:
            return
        chosen = coordinates(claimed, self.rng)
        units = np.eye(n)[chosen] if n <= 4096 else (np.arange(n) == chosen[:, None]) * 1.0
        pairs = np.array([slopes(unit)[:2] for unit in units])
        mine_, truth_ = pairs[:, 0], pairs[:, 1]
        j = int(np.argmax(np.abs(mine_ - truth_)))
        relative = length(mine_ - truth_) / max(length(truth_), 1e-300)
        message = (
            f"got {mine_[j]:.6g} but differences of the value give {truth_[j]:.6g}; "
            f"over {len(chosen)} components it is off by {relative:.2g} of its size."
        )
        found = cause(mine_, truth_, chosen) or likely_factor(mine_, truth_)
        self.add(what, f"component {chosen[j]}", relative, message, found)

    def inner_gradient(self, probe: Probe) -> None:
        def cause(mine: Vector, truth: Vector, chosen: Vector) -> str | None:
            off = truth - mine
            return likely_factor(mine, truth) or penalty_cause(off, probe.x[chosen], probe.lam)

        self.directional(
            "inner.grad",
            probe,
            probe.grad,
            lambda at: at.value,
            lambda v: lambda t: probe.moved(t * v),
            cause,
            1 + length(probe.x) / probe.p**0.5,
        )

    def hessian(self, probe: Probe) -> None:
        for _ in range(2):
            v = self.rng.standard_normal(probe.p) / probe.p**0.5
            claimed = probe.hvp(v)
            truth, error = derivative(
                lambda t, v=v: probe.moved(t * v).grad,  # type: ignore[misc]
                1 + length(probe.x) / probe.p**0.5,
                probe.eps,
            )

            def cause(mine: Vector, right: Vector, v: Vector = v) -> str | None:
                return likely_factor(mine, right) or diagonal_cause(right - mine, v, probe.lam)

            self.compare(
                "inner.hvp",
                claimed,
                truth,
                error,
                eps=probe.eps,
                cause=cause,
                reference="differences of grad",
            )

    def hessian_structure(self, probe: Probe) -> None:
        """Symmetry, linearity, and several directions at once."""
        u, v = self.rng.standard_normal((2, probe.p))
        hu, hv = probe.hvp(u), probe.hvp(v)
        scale = length(hu) * length(v) + length(hv) * length(u)
        skew = abs(float(u @ hv) - float(v @ hu))
        self.checked.append("the Hessian is symmetric")
        if skew > 4 * tolerance(probe.eps) * scale:
            self.add(
                "inner.hvp is symmetric",
                "",
                skew / scale,
                f"uᵀ H v = {float(u @ hv):.6g} but vᵀ H u = {float(v @ hu):.6g}.",
                "a factor is transposed, or one triangle of a matrix is used alone",
            )
        both = probe.hvp(2 * u - 3 * v)
        self.compare(
            "inner.hvp is linear",
            both,
            2 * hu - 3 * hv,
            tolerance(probe.eps) * scale / length(u),
            eps=probe.eps,
            reference="H (2 u - 3 v) as 2 H u - 3 H v would",
        )
        shape = tuple(probe.problem.inner.x_shape)
        xp = probe.problem.backend.xp
        block = probe.point.hvp(xp.stack([probe.send(u), probe.send(v)], axis=len(shape)))
        if tuple(block.shape) != (*shape, 2):
            message = f"got the shape {tuple(block.shape)}, expected {(*shape, 2)}."
            self.add("inner.hvp of two directions", "", math.inf, message, None)
        else:
            self.compare(
                "inner.hvp of two directions",
                probe.host(block),
                np.stack([hu, hv], axis=1).reshape(-1),
                0.0,
                eps=probe.eps,
                reference="one after the other",
            )

    def cross(self, probe: Probe) -> None:
        m, p = probe.m, probe.p
        chosen = coordinates(np.zeros(m), self.rng, most=8)
        unit = np.eye(m) if m <= 4096 else None
        truths, errors = [], []
        for j in chosen:
            d = unit[j] if unit is not None else (np.arange(m) == j) * 1.0
            truth, error = derivative(
                lambda t, d=d: probe.moved(0.0, t * d).grad,  # type: ignore[misc]
                1.0,
                probe.eps,
            )
            truths.append(truth)
            errors.append(error)
        true = np.stack(truths, axis=1)  # (p, columns)
        claimed = np.stack([probe.cross_jvp(np.eye(m)[j]) for j in chosen], axis=1)
        scales = np.exp(probe.lam[chosen])

        def cause(mine: Vector, right: Vector) -> str | None:
            a, b = mine.reshape(claimed.shape), right.reshape(claimed.shape)
            return cross_cause(a, b, scales)

        agrees = self.compare(
            "inner.cross_jvp",
            claimed.reshape(-1),
            true.reshape(-1),
            max(errors),
            eps=probe.eps,
            where=lambda k: (
                f"x component {k // len(chosen)}, λ component {chosen[k % len(chosen)]}"
            ),
            cause=cause,
            reference="differences of grad in λ",
        )
        # The vjp against the true columns, so that one fault is not reported as two.
        queries = self.rng.standard_normal((4, p)) / p**0.5
        got = np.stack([probe.cross_vjp(q) for q in queries])[:, chosen]
        right = queries @ true

        def transposed(mine: Vector, other: Vector) -> str | None:
            a, b = mine.reshape(got.shape), other.reshape(got.shape)
            if p == m == len(chosen) and close(a, queries @ true.T):
                return "transposed: ∂²_{xλ} h is applied where its transpose is asked for"
            return cross_cause(a, b, scales)

        self.compare(
            "inner.cross_vjp",
            got.reshape(-1),
            right.reshape(-1),
            max(errors) * length(queries.reshape(-1)),
            eps=probe.eps,
            where=lambda k: f"λ component {chosen[k % len(chosen)]}",
            cause=transposed,
            reference="differences of grad in λ",
        )
        if agrees:
            self.adjoint(probe)

    def adjoint(self, probe: Probe) -> None:
        for _ in range(2):
            q, d = self.rng.standard_normal(probe.p), self.rng.standard_normal(probe.m)
            back, forth = probe.cross_vjp(q), probe.cross_jvp(d)
            left, right = float(back @ d), float(q @ forth)
            scale = length(back) * length(d) + length(q) * length(forth)
            if abs(left - right) > 4 * tolerance(probe.eps) * scale:
                self.add(
                    "inner.cross_vjp",
                    "",
                    abs(left - right) / scale,
                    f"⟨Bᵀ q, d⟩ = {left:.6g} but ⟨q, B d⟩ = {right:.6g}.",
                    "cross_vjp and cross_jvp are not adjoint to each other",
                )
        self.checked.append("the cross products are adjoint")
        norm = probe.point.cross_norm
        if norm is not None:
            stated = float(probe.host(norm)[0])
            found = largest(probe.cross_jvp, probe.cross_vjp, self.rng.standard_normal(probe.m))
            self.constant("inner.cross_norm", stated, found, probe.eps)

    def consistency(self, probe: Probe) -> None:
        """``diag``, ``ray`` and ``carry`` against the members that they shorten."""
        diagonal = probe.point.diag()
        if diagonal is not None:
            claimed = probe.host(diagonal)
            chosen = coordinates(claimed, self.rng, most=8)
            unit = [(np.arange(probe.p) == j) * 1.0 for j in chosen]
            self.compare(
                "inner.diag",
                claimed[chosen],
                np.array([float(e @ probe.hvp(e)) for e in unit]),
                0.0,
                eps=probe.eps,
                where=lambda j: f"component {chosen[j]}",
                reference="products with unit vectors",
            )
        v = self.rng.standard_normal(probe.p)
        ray = probe.point.ray(probe.send(v))
        ahead = ray.at(0.25)
        direct = probe.moved(0.25 * v)
        slack = probe.eps * (length(direct.grad) + length(probe.grad))
        self.compare(
            "inner.ray().at",
            probe.host(ahead.grad),
            direct.grad,
            slack,
            eps=probe.eps,
            reference="a point of its own would",
        )
        # The difference of two slopes cancels what both are known to.
        scale = length(direct.grad) * length(v)
        self.compare(
            "inner.ray().slope",
            probe.host(ray.slope(ahead)),
            np.array([direct.grad @ v]),
            tolerance(probe.eps) * scale,
            eps=probe.eps,
            reference="⟨grad, d⟩ would",
        )
        carry = probe.point.carry
        if carry is not None:
            other = probe.moved(0.0, 0.25)
            handed = probe.problem.inner.at(
                probe.send(probe.x), probe.send(other.lam, (probe.m,)), carry
            )
            self.compare(
                "inner.at(carry=...)",
                probe.host(handed.grad),
                other.grad,
                slack,
                eps=probe.eps,
                reference="a point without carry would",
            )

    def criterion(self, probe: Probe) -> None:
        self.directional(
            "outer.grad_x",
            probe,
            probe.outer_grad_x,
            lambda at: at.outer_value,
            lambda v: lambda t: probe.moved(t * v),
            lambda mine, truth, chosen: likely_factor(mine, truth),
            1 + length(probe.x) / probe.p**0.5,
        )

        def cause(mine: Vector, truth: Vector, chosen: Vector) -> str | None:
            scales = np.exp(probe.lam[chosen])
            return likely_factor(mine, truth) or chain_cause(mine, truth, scales)

        self.directional(
            "outer.grad_lam",
            probe,
            probe.outer_grad_lam,
            lambda at: at.outer_value,
            lambda d: lambda t: probe.moved(0.0, t * d),
            cause,
            1.0,
        )

    def curvature(self, probe: Probe) -> None:
        """The extreme eigenvalues of the Hessian against μ and the declared smoothness."""
        constants = probe.problem.inner.constants(probe.send(probe.lam, (probe.m,)))
        for spread in (0.0, 3.0):
            at = probe.moved(spread * self.rng.standard_normal(probe.p))
            low, high = lanczos(at, self.rng)
            if math.isnan(low):
                continue
            self.checked.append("extreme eigenvalues of the Hessian")
            slack = tolerance(probe.eps) * max(abs(high), abs(low))
            if constants.mu is not None and low < constants.mu - slack:
                self.add(
                    "inner.constants().mu",
                    "",
                    constants.mu / low if low > 0 else math.inf,
                    f"μ = {constants.mu:.6g} is declared but the Hessian has an eigenvalue "
                    f"{low:.6g} or below.",
                    "curvature is lost: a term of the Hessian has the wrong sign or is missing"
                    if low <= slack
                    else likely_ratio(constants.mu / low, probe.lam),
                )
            if constants.smoothness is not None and high > constants.smoothness + slack:
                self.add(
                    "inner.constants().smoothness",
                    "",
                    high / constants.smoothness if constants.smoothness > 0 else math.inf,
                    f"‖H‖ ≤ {constants.smoothness:.6g} is declared but the Hessian has an "
                    f"eigenvalue {high:.6g} or above.",
                    likely_ratio(high / max(constants.smoothness, 1e-300), probe.lam),
                )
            if constants.mu is None and low <= 0 and spread == 0.0:
                self.note(
                    f"The Hessian has an eigenvalue of {low:.3g} or below at this x: Theorem 2 "
                    "needs it non-singular at X(λ)."
                )
        if constants.mu is None:
            self.note("No μ is stated: no distance to X(λ) can be certified.")

    def lipschitz(self, probe: Probe) -> None:
        """The Lipschitz constants in x, on pairs of points near and far."""
        inner = probe.problem.inner.constants(probe.send(probe.lam, (probe.m,)))
        outer = probe.problem.outer.constants()
        size = 1 + length(probe.x)
        for share in (1e-2, 1.0):
            away = self.rng.standard_normal(probe.p)
            away *= share * size / length(away)
            other, apart = probe.moved(away), share * size
            if inner.hessian_lipschitz is not None:
                self._pair(
                    "inner.constants().hessian_lipschitz",
                    inner.hessian_lipschitz,
                    lambda v: probe.hvp(v) - other.hvp(v),  # noqa: B023
                    lambda v: probe.hvp(v) - other.hvp(v),  # noqa: B023
                    probe,
                    apart,
                    probe.p,
                )
            if inner.cross_lipschitz is not None:
                self._pair(
                    "inner.constants().cross_lipschitz",
                    inner.cross_lipschitz,
                    lambda d: probe.cross_jvp(d) - other.cross_jvp(d),  # noqa: B023
                    lambda q: probe.cross_vjp(q) - other.cross_vjp(q),  # noqa: B023
                    probe,
                    apart,
                    probe.m,
                )
            for name, declared, member in (
                ("grad_x_lipschitz", outer.grad_x_lipschitz, "outer_grad_x"),
                ("grad_lam_lipschitz", outer.grad_lam_lipschitz, "outer_grad_lam"),
            ):
                if declared is None:
                    self.note(f"The criterion states no {name}: no bound of the error follows.")
                    continue
                self._steepest(f"outer.constants().{name}", declared, member, probe, away)
        for name in ("smoothness", "hessian_lipschitz", "cross_lipschitz"):
            if getattr(inner, name) is None:
                self.note(f"The objective states no {name}.")

    def self_concordance(self, probe: Probe) -> None:
        """e^{-R‖u‖} ≤ vᵀ H(x + u) v / vᵀ H(x) v ≤ e^{R‖u‖} for random u and v."""
        constants = probe.problem.inner.constants(probe.send(probe.lam, (probe.m,)))
        declared = constants.self_concordance
        if declared is None:
            return
        worst = 0.0
        for share in (1e-1, 1.0):
            away = self.rng.standard_normal(probe.p)
            away *= share / length(away)
            other = probe.moved(away)
            for v in (away, self.rng.standard_normal(probe.p), probe.grad):
                before, after = float(v @ probe.hvp(v)), float(v @ other.hvp(v))
                if before > 0 and after > 0:
                    worst = max(worst, abs(math.log(after / before)) / share)
        noise = 100 * tolerance(probe.eps)
        self.constant("inner.constants().self_concordance", declared, worst, probe.eps, noise)

    def _pair(
        self,
        what: str,
        declared: float,
        forth: Callable[[Vector], Vector],
        back: Callable[[Vector], Vector],
        probe: Probe,
        apart: float,
        size: int,
    ) -> None:
        found = largest(forth, back, self.rng.standard_normal(size)) / apart
        unit = self.rng.standard_normal(size)
        image = probe.hvp(unit) if size == probe.p else probe.cross_jvp(unit)
        noise = 100 * probe.eps * length(image) / length(unit) / apart
        self.constant(what, declared, found, probe.eps, noise)

    def _steepest(
        self, what: str, declared: float, member: str, probe: Probe, away: Vector
    ) -> None:
        """Difference quotients of a gradient of g, along the direction of their own growth."""
        base, step, found = getattr(probe, member), away, 0.0
        for _ in range(4):
            change = getattr(probe.moved(step), member) - base
            found = max(found, length(change) / length(step))
            if member != "outer_grad_x" or not length(change) > 0:
                step = self.rng.standard_normal(probe.p) * length(away) / probe.p**0.5
            else:
                step = change * length(away) / length(change)
        noise = 100 * probe.eps * length(base) / length(away)
        self.constant(what, declared, found, probe.eps, noise)

    def constant(
        self, what: str, declared: float, found: float, eps: float, noise: float = 0.0
    ) -> None:
        """A declared upper bound against a value that is attained."""
        if what not in self.checked:
            self.checked.append(what)
        if found <= declared * (1 + 10 * tolerance(eps)) + noise:
            return
        ratio = found / declared if declared > 0 else math.inf
        self.add(
            what,
            "",
            ratio,
            f"{declared:.6g} is declared but {found:.6g} is attained.",
            likely_ratio(ratio, np.zeros(0)),
        )

    def corners(self, probe: Probe) -> None:
        """Finite values at the faces of a bounded domain."""
        domain = probe.problem.domain
        if not isinstance(domain, (Box, Ball)):
            return
        for bound in (-1e30, 1e30):
            lam = _project(probe.problem, np.full(probe.m, bound))
            if not np.all(np.isfinite(lam)) or np.max(np.abs(lam)) > 1e29:
                self.note("The domain is unbounded: Theorem 2 needs it bounded.")
                continue
            self.finite(Probe(probe.problem, probe.x, lam))


# -- tolerances and causes ------------------------------------------------------------------------


def tolerance(eps: float) -> float:
    """The relative agreement asked for: 1e-5 in float64, about 1e-2 in float32."""
    return max(1e-5, 30 * eps**0.5)


def coordinates(v: Vector, rng: np.random.Generator, most: int = 64) -> Any:
    """All components where they are few; else the largest ones and some at random."""
    n = v.shape[0]
    if n <= most:
        return np.arange(n)
    large = np.argsort(-np.abs(v))[: most // 2]
    rest = np.setdiff1d(np.arange(n), large)
    return np.sort(np.concatenate([large, rng.choice(rest, most - most // 2, replace=False)]))


def close(a: Vector, b: Vector, rtol: float = 0.02) -> bool:
    """Whether two arrays agree well enough to name a cause."""
    return a.shape == b.shape and bool(
        np.linalg.norm(a - b) <= rtol * max(np.linalg.norm(a), np.linalg.norm(b))
    )


def likely_factor(claimed: Vector, truth: Vector) -> str | None:
    """Name a constant factor between the claimed and the true vector.

    Examples
    --------
    >>> likely_factor(np.array([-1.0, 2.0]), np.array([1.0, -2.0]))
    'the sign'
    """
    if not np.linalg.norm(truth) > 0:
        return None
    if np.linalg.norm(claimed) <= 1e-8 * np.linalg.norm(truth):
        return "it is zero: a term is missing"
    ratio = float(claimed.reshape(-1) @ truth.reshape(-1)) / float(np.sum(truth**2))
    if claimed.size < 2 and abs(ratio) not in (0.5, 1.0, 2.0) and not _simple(ratio):
        return None
    if not close(claimed, ratio * truth):
        return None
    return _named(ratio)


def _simple(ratio: float) -> bool:
    return any(abs(abs(ratio) - simple) < 0.01 * simple for simple in (0.5, 1.0, 2.0, 4.0, 0.25))


def _named(ratio: float) -> str:
    size = abs(ratio)
    sign = "the sign and " if ratio < 0 else ""
    if abs(size - 1) < 0.02:
        return "the sign"
    if abs(size - 2) < 0.04:
        return f"{sign}a factor 2 (is a ½ missing?)"
    if abs(size - 0.5) < 0.01:
        return f"{sign}a factor ½ (is there one too many?)"
    return f"{sign}a factor {size:.4g}"


def likely_ratio(ratio: float, lam: Vector) -> str | None:
    """Name the factor by which a declared constant is wrong."""
    if lam.size and any(abs(math.log(max(ratio, 1e-300)) - abs(v)) < 0.02 for v in lam if v):
        return "λ is used where e^λ is meant, or the other way round"
    if _simple(ratio):
        return _named(ratio)
    return None


def chain_cause(claimed: Vector, truth: Vector, scales: Vector) -> str | None:
    """Name a missing or a repeated derivative of e^λ."""
    if np.allclose(scales, 1.0, atol=0.02):
        return None
    if close(claimed * scales, truth):
        return "the chain rule through exp(λ) is missing: a factor e^λ"
    if close(claimed, truth * scales):
        return "the chain rule through exp(λ) is applied twice: a factor e^λ too many"
    return None


def cross_cause(claimed: Vector, truth: Vector, scales: Vector) -> str | None:
    """Name the cause of a wrong ∂²_{xλ} h, whose columns (or entries) belong to λ."""
    chain = chain_cause(claimed, truth, scales)
    if chain:
        return chain
    if claimed.ndim == 2 and claimed.shape[0] == claimed.shape[1] and close(claimed, truth.T):
        return "transposed"
    return likely_factor(claimed, truth)


def penalty_cause(off: Vector, x: Vector, lam: Vector) -> str | None:
    """Name an error that is a multiple of x, as that of an ℓ2 penalty is."""
    share = float(off @ x) / max(float(x @ x), 1e-300)
    if not close(off, share * x, 0.05):
        return None
    weights = np.exp(lam)
    if np.any(np.abs(share - weights) < 0.05 * weights):
        return "the gradient of the penalty, e^λ x, is missing"
    if np.any(np.abs(share + weights) < 0.05 * weights):
        return "the gradient of the penalty is counted twice: is a ½ missing?"
    return f"a multiple of x, {share:.4g} x, is missing: the gradient of a penalty?"


def diagonal_cause(off: Vector, v: Vector, lam: Vector) -> str | None:
    """Name an error of H v that is a multiple of v."""
    share = float(off @ v) / max(float(v @ v), 1e-300)
    if not close(off, share * v, 0.05):
        return None
    weights = np.exp(lam)
    if np.any(np.abs(share - weights) < 0.05 * weights):
        return "the curvature of the penalty, e^λ I, is missing"
    return f"a multiple of the identity, {share:.4g} I, is missing: the curvature of a penalty?"
