"""What an outer iteration says of itself, and what a run returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .backends import Array, described
from .meter import EVALUATIONS, PASSES, Unit, tidy
from .status import Status


@dataclass(frozen=True)
class Costs:
    """What a run has spent until now.

    Attributes
    ----------
    passes : int, or float
        Products with the training data, X @ V or Xᵀ @ R, each with any number of columns; those
        with some of the rows count as their share.
    column_passes : int, or float
        The same, each column counted.
    outer_passes : int, or float
        Products with the data of the outer criterion.
    seconds : float
        Wall-clock seconds inside the method; what the consumers of the stream do is not counted.
    evaluations, outer_evaluations : int
        Calls of functions of h and of g that do not state what they cost in passes
        (:func:`bilevel.inner.from_functions`); these are not among the passes.
    """

    passes: float = 0
    column_passes: float = 0
    outer_passes: float = 0
    seconds: float = 0.0
    evaluations: float = 0
    outer_evaluations: float = 0

    def __add__(self, other: Costs) -> Costs:
        return self._and(other, 1)

    def __sub__(self, other: Costs) -> Costs:
        return self._and(other, -1)

    def _and(self, other: Costs, sign: int) -> Costs:
        return Costs(
            tidy(self.passes + sign * other.passes),
            tidy(self.column_passes + sign * other.column_passes),
            tidy(self.outer_passes + sign * other.outer_passes),
            self.seconds + sign * other.seconds,
            tidy(self.evaluations + sign * other.evaluations),
            tidy(self.outer_evaluations + sign * other.outer_evaluations),
        )

    @property
    def unit(self) -> Unit:
        """In what the work on h is counted."""
        return EVALUATIONS if self.evaluations else PASSES

    @property
    def work(self) -> float:
        """The work on h in that unit."""
        return tidy(self.passes + self.evaluations)

    def rows(self) -> dict[str, object]:
        """What is shown of them."""
        columns = {} if self.unit == EVALUATIONS else {"column_passes": self.column_passes}
        return {self.unit: self.work, **columns, "seconds": round(self.seconds, 3)}


class Costed:
    """What has ``costs`` shows each of them under its own name."""

    costs: Costs

    @property
    def passes(self) -> float:
        return self.costs.passes

    @property
    def column_passes(self) -> float:
        return self.costs.column_passes

    @property
    def outer_passes(self) -> float:
        return self.costs.outer_passes

    @property
    def evaluations(self) -> float:
        return self.costs.evaluations

    @property
    def outer_evaluations(self) -> float:
        return self.costs.outer_evaluations

    @property
    def seconds(self) -> float:
        return self.costs.seconds


def aligned(rows: Mapping[str, object]) -> str:
    """Names and values, a line each, the names flush right."""
    return "\n".join(f"{name:>14}: {value}" for name, value in rows.items())


@dataclass(frozen=True)
class Record(Costed):
    """One outer iteration.

    A method states ``lam``, ``value`` and ``hypergrad``, and what else it knows. The loop numbers
    the records, and fills in ``costs``, ``status``, and where they are NaN ``optimality`` and
    ``step``.

    Attributes
    ----------
    k : int
        Its number, from 1.
    lam : array, shape (m,)
        λ_k.
    value : float, or array, 0-d
        g(x_k, λ_k), an approximation of f(λ_k). Where a method states an array the loop reads it,
        with ``optimality`` and ``step`` at once.
    value_error : float or None
        A proven bound of abs(g(x_k, λ_k) - f(λ_k)), where one is to be had; 0 where x_k is X(λ_k).
        None and inf know nothing: without an ``estimate`` either, iterates are not ranked by f.
    estimate, estimate_error : float or None
        g - q_kᵀ ∂_x h, which is f(λ_k) to first order in x_k - X(λ_k), and what its error is taken
        for (inf where the correction says nothing); None where the method has no q_k.
    hypergrad : array, shape (m,)
        p_k.
    hypergrad_error : float or None
        A proven bound of ‖p_k - ∇f(λ_k)‖, where one is to be had.
    tol : float
        The tolerance ε_k that was asked of x_k and q_k; NaN of methods that ask none.
    inner_error : float or None
        A proven bound of ‖x_k - X(λ_k)‖.
    cg_residual : float or None
        ‖H q_k - ∂_x g‖.
    optimality : float
        ‖P_D(λ_k - τ p_k) - λ_k‖ / τ, τ ‖p_k‖ being ‖p_k‖ cut to [10⁻³, 1]: ‖p_k‖ inside D, zero at
        a stationary point.
    step : float
        ‖λ_{k+1} - λ_k‖.
    n_inner, n_cg : int
        Iterations of the inner solver and of CG.
    inner_status, cg_status : Status
        How the two solves ended; RUNNING of methods that make none.
    status : Status
        RUNNING, or why the method itself has stopped.
    costs : Costs
        What the run has spent until now.
    details : object
        What only one method has to say: a frozen dataclass of arrays and numbers, or None.
    """

    k: int = 0
    lam: Array = None
    value: float = math.nan
    value_error: float | None = None
    hypergrad: Array = None
    hypergrad_error: float | None = None
    tol: float = math.nan
    inner_error: float | None = None
    cg_residual: float | None = None
    optimality: float = math.nan
    step: float = math.nan
    n_inner: int = 0
    n_cg: int = 0
    inner_status: Status = Status.RUNNING
    cg_status: Status = Status.RUNNING
    status: Status = Status.RUNNING
    costs: Costs = Costs()
    estimate: float | None = None
    estimate_error: float | None = None
    details: Any = None

    def _known(self) -> tuple[tuple[float, float], ...]:
        """Values of f(λ_k) and their errors, proven or estimated; an error left out is unknown."""
        pairs = ((self.value, self.value_error), (self.estimate, self.estimate_error))
        known = tuple((v, e) for v, e in pairs if v is not None and e is not None)
        return known or ((self.value, math.inf),)

    @property
    def unproven(self) -> Record:
        """The same of which no error is known: what they rest on has been refuted."""
        nothing = {"value_error": None, "hypergrad_error": None, "inner_error": None}
        return replace(self, **nothing, estimate=self.value, estimate_error=math.inf)  # type: ignore[arg-type]

    @property
    def likely(self) -> float:
        """What f(λ_k) is taken for: the value of the least error, whatever that is."""
        return min(self._known(), key=lambda pair: pair[1] if pair[1] == pair[1] else math.inf)[0]

    @property
    def at_most(self) -> float:
        """What f(λ_k) is at most, as far as is known; inf where the value is NaN.

        A loosely fitted x has a validation loss below f(λ): the value alone would prefer it.
        """
        top = min(v + e if v + e == v + e else math.inf for v, e in self._known())
        return top if math.isfinite(self.value) else math.inf

    @property
    def at_least(self) -> float:
        """What f(λ_k) is at least, as far as is known."""
        return max(v - e if v - e == v - e else -math.inf for v, e in self._known())


@dataclass(frozen=True, repr=False)
class Result(Costed):
    """What :func:`bilevel.minimize` found, in the manner of SciPy's ``OptimizeResult``.

    Attributes
    ----------
    lam : array, shape (m,)
        The hyperparameters.
    x : array
        The model at lam.
    fun : float
        g(x, lam). What a method from outside states instead stays, with a note that says so.
    jac : array, shape (m,) or None
        The hypergradient at lam.
    success : bool
        Whether the tolerance was reached.
    status : Status
        Why the run ended.
    message : str
        The same in a sentence, and what else is to be known of the end (``notes``).
    nit : int
        Outer iterations.
    history : tuple of Record
        All of them.
    costs : Costs
        What the run has spent.
    best : Record or None
        The iteration that is returned, with what is known of the errors there: more than when it
        was made, where the method corrects it once more.
    every : int
        The history holds each ``every``-th record, and the last.
    notes : tuple of str
        Sentences about the end: λ at a bound of the domain, nothing fitted, a checkpoint that could
        not be written, and the like.
    broken_off : bool
        Whether Ctrl-C broke into the run (a KeyboardInterrupt, wherever it came from): into its
        iterations, which ends it as INTERRUPTED, or into what was to be said of the end, which is
        as it was. A callback that asks for the end breaks nothing off. Where a run is one step of
        a loop of yours, raise KeyboardInterrupt here, lest the loop go on.
    """

    lam: Array
    x: Array
    fun: float
    jac: Array | None
    status: Status
    nit: int
    history: tuple[Record, ...]
    costs: Costs
    best: Record | None = None
    notes: tuple[str, ...] = ()
    every: int = 1
    broken_off: bool = False

    @property
    def success(self) -> bool:
        return self.status.success

    @property
    def message(self) -> str:
        return " ".join([self.status.message, *self.notes])

    def __repr__(self) -> str:
        rows = {
            "message": self.message,
            "success": self.success,
            "status": self.status.value,
            "fun": self.fun,
            "lam": self.lam if self.lam.shape[0] <= 10 else f"array of shape {self.lam.shape}",
            "x": f"array of shape {tuple(self.x.shape)}",
            "nit": self.nit,
            **self.costs.rows(),
        }
        return aligned(rows)


def refuse_no_result(result: Any) -> None:
    """Refuse what is no :class:`Result`."""
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result, got {described(result)}.")
