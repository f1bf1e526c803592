"""Several searches from several starts, whose products with the data share every pass.

Each search is an ordinary :func:`bilevel.minimize`. All wait at their products; when the last has
come to one, the kind of product that most wait for is made once, with the columns of all of them,
and those who wait for another kind go on waiting, so that the searches fall into step. A pass over
the data costs about the same with several columns as with one, so S searches cost much less than S
times one.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backends import COUNT, SEED, Array, Maybe, described, function, is_array, python_number
from ..contracts import refuse_bare_parts
from ..design import Design
from ..domains import Unfolds
from ..inner import inner_constants
from ..inner.linear import LinearModel
from ..loop import BUDGET, metered, minimize, pass_budget, started
from ..meter import BudgetSpent
from ..methods import Method, get_method
from ..problem import Problem
from ..problems.stacked import StackedInner
from ..record import Costed, Costs, Record, Result, aligned
from ..status import REFUTING, Status
from .lockstep import Ask, Task, stopping
from .shared import Product, Shared, map_designs, serve

#: Searches in threads at most: systems allow a process some thousands of them.
_MOST_THREADS = 2000


@dataclass(frozen=True, repr=False)
class MultistartResult(Costed):
    """What :func:`bilevel.multistart` found.

    Attributes
    ----------
    results : tuple of Result
        One for each start, in their order. Their ``passes`` are what each search would have cost
        alone; their ``seconds`` count the waiting for the others.
    costs : Costs
        What all of them cost together: a pass that serves several searches counts once.
    best : Result
        That of the least f, whether the search had come to its end or not: by what f is at most,
        as in a single search; between those of which that is not known, by what f is taken for. One
        that has refuted what the problem states knows nothing of f, and comes after all others.
    passes, column_passes, outer_passes, seconds, evaluations, outer_evaluations
        Those of ``costs``.
    """

    results: tuple[Result, ...]
    costs: Costs

    @property
    def best(self) -> Result:
        return min(self.results, key=_rank)

    def __repr__(self) -> str:
        found = Counter(result.status.value for result in self.results)
        rows = {
            "starts": len(self.results),
            "statuses": ", ".join(f"{n} {status}" for status, n in found.items()),
            **self.costs.rows(),
        }
        return "\n".join([aligned(rows), "best:", repr(self.best)])


def _rank(result: Result) -> tuple[bool, float, float]:
    """What f is at most, then what it is taken for; what is no number or refuted comes last."""
    best = result.best
    if best is None or result.fun != result.fun:
        return True, math.inf, math.inf
    likely = best.likely if best.likely == best.likely else math.inf
    return result.status in REFUTING, best.at_most, likely


def multistart(
    problem: Problem,
    starts: Any,
    *,
    method: str | Method = "path",
    x0: Array | None = None,
    seed: int = 0,
    max_iter: int = 50,
    tol: float | None = None,
    max_passes: float | None = None,
    max_seconds: float | None = None,
    max_total_passes: float | None = None,
    max_total_seconds: float | None = None,
    callback: Callable[[int, Record], Any] | None = None,
) -> MultistartResult:
    """Minimise f from several starts at once, for problems with several local minima.

    The searches share passes where the inner objective has a design matrix (linear models, also
    stacked ones), as far as its products are cheaper with several columns: ``columns_per_pass``.
    Other problems (kernels, networks, user functions) have nothing to share: there the searches
    run one after the other. So they do with a method that samples rows: batches of different rows
    are no columns of one product, and a search waits for the others at whole products alone.

    Parameters
    ----------
    problem : Problem
        What to solve.
    starts : int, or array or sequence of shape (S, m), or (S,) with one hyperparameter
        Where each search starts; one outside of the domain is replaced by the nearest point of it,
        with a warning. A number of starts is drawn from the
        domain, a box or a ball, by a Latin hypercube: along each hyperparameter the middles of as
        many equal intervals, each once. At most 2000 where the searches share passes.
    method : str or Method
        The outer method: one object for all searches, which keeps nothing in itself.
    x0 : array, optional
        Where the first inner solve of each search starts; when omitted where h says, else at zero.
    seed : int
        Of the draw.
    max_iter, tol, max_passes, max_seconds
        Of each search, as in :func:`bilevel.minimize`, not of the whole. Its passes are those that
        it would have cost alone, its seconds count the waiting for the others, from its own start.
        Drawing the searches, some milliseconds for each, is in no budget, and where they run one
        after the other each has the whole of it. Ctrl-C, or a true answer of ``callback``, ends
        them all.
    max_total_passes, max_total_seconds
        The same of the whole: of the passes of ``costs``, those that the searches share counted
        once, and of its seconds. All that still go on then end in mid-iteration with what they
        have; where they run one after the other, the later ones have nothing left.
    callback : callable, optional
        Called with the number of the search and each of its records; a true answer ends the whole
        run.

    Returns
    -------
    MultistartResult
        After Ctrl-C too: searches that had not ended have the status INTERRUPTED.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the problem.

    Notes
    -----
    The searches of a problem with a design run in threads, one at a time, so that two runs are
    equal to the last bit where the products of the library are (CuPy's sparse ones are not);
    products and ``callback`` run in the caller's thread. The current device and stream of CuPy, and
    the stream and ``no_grad`` of torch, are the caller's; ``jax.enable_x64`` as a context does not
    reach the searches. Passes over a criterion that has no design, or is of a class
    of your own, are counted for all searches together.

    Source of the draw: McKay, Beckman and Conover, Technometrics 21 (1979).

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> X = np.array([[1.0], [2.0], [-1.0], [0.5]])
    >>> y = np.array([1.0, -1.0, -1.0, 1.0])
    >>> found = multistart(bilevel.logistic_regression(X, y, X, y), [-4.0, 0.0, 4.0])
    >>> found.best.success, found.passes < sum(result.passes for result in found.results)
    (True, True)
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem must be a Problem, got {described(problem)}.")
    Maybe(function)(callback, "callback")
    seed = SEED(seed, "seed")
    start_x = problem.x(x0)
    lams = _starts(problem, starts, seed)
    options: dict[str, Any] = {
        "method": method,
        "x0": None if x0 is None else start_x,
        "max_iter": max_iter,
        "tol": tol,
        "max_passes": pass_budget(problem, max_passes, "max_passes"),
        "max_seconds": max_seconds,
    }
    refuse_bare_parts(problem, get_method(method), lams[0], start_x)
    meter = started(
        problem,
        max_passes=pass_budget(problem, max_total_passes, "max_total_passes"),
        max_seconds=Maybe(BUDGET)(max_total_seconds, "max_total_seconds"),
    )
    run = _together if _shares(problem.inner) else _in_turn
    if run is _together:
        # Norms of the rows belong to the data: taken once for all searches, off the counters.
        _ = inner_constants(problem.inner, lams[0]), problem.outer_constants
    with meter.running():
        found = run(problem, lams, options, callback)
    costs = metered(problem, meter)
    results = tuple(
        _not_run(problem, lam, start_x) if result is None else result
        for lam, result in zip(lams, found, strict=True)
    )
    return MultistartResult(results, costs)


def _not_run(problem: Problem, lam: Array, x: Array) -> Result:
    return Result(lam, x, math.nan, None, Status.INTERRUPTED, 0, (), Costs())


# -- where to start ----------------------------------------------------------------------------


def _starts(problem: Problem, starts: Any, seed: int) -> list[Array]:
    m = problem.inner.n_hyperparameters
    if python_number(starts) is not None:
        n = COUNT(starts, "starts")
        _refuse_crowds(problem, n)
        return _drawn(problem, n, seed)
    rows = _rows_of(starts, m)
    if not rows:
        raise ValueError("starts must hold at least one start, got none.")
    _refuse_crowds(problem, len(rows))
    return [problem.start(row, f"starts[{s}]") for s, row in enumerate(rows)]


def _rows_of(starts: Any, m: int) -> list[Any]:
    """One start each of an array or a list."""
    expected = f"(S, {m})" + (" or (S,)" if m == 1 else "")
    if isinstance(starts, (list, tuple)):
        if m > 1 and any(python_number(row) is not None for row in starts):
            raise ValueError(
                f"starts must have shape {expected}, got one axis: {described(starts)}."
            )
        return list(starts)
    shape = getattr(starts, "shape", None)
    if not is_array(starts) or shape is None:
        raise TypeError(
            f"starts must be an integer or of shape {expected}, got {described(starts)}."
        )
    if len(shape) == 2:
        return [starts[s, :] for s in range(int(shape[0]))]
    if len(shape) == 1 and m == 1:
        return [starts[s : s + 1] for s in range(int(shape[0]))]
    raise ValueError(f"starts must have shape {expected}, got {tuple(shape)}.")


def _refuse_crowds(problem: Problem, n: int) -> None:
    if n > _MOST_THREADS and _shares(problem.inner):
        raise ValueError(
            f"starts must be at most {_MOST_THREADS} where the searches share passes, each in a "
            f"thread of its own, got {n}: make several calls."
        )


def _drawn(problem: Problem, n: int, seed: int) -> list[Array]:
    """A Latin hypercube of n points, at the middles of its cells, brought to the domain."""
    if not isinstance(problem.domain, Unfolds):
        raise TypeError(
            f"A {type(problem.domain).__name__} draws no starts: give the starts themselves."
        )
    draw = random.Random(seed)
    middles = [(s + 0.5) / n for s in range(n)]
    m = problem.inner.n_hyperparameters
    # The order of the points is arbitrary: that of the first coordinate.
    columns = [middles, *(draw.sample(middles, n) for _ in range(m - 1))]
    return [problem.lam(problem.domain.unfold([column[s] for column in columns])) for s in range(n)]


# -- how they run ------------------------------------------------------------------------------


def _shares(inner: Any) -> bool:
    """Whether the passes of an inner objective are products with designs, and nothing else."""
    if isinstance(inner, StackedInner):
        return all(_shares(part) for part in inner.parts)
    return isinstance(inner, LinearModel)


def _in_turn(
    problem: Problem,
    lams: Sequence[Array],
    options: Mapping[str, Any],
    callback: Callable[[int, Record], Any] | None,
) -> list[Result | None]:
    """One search after the other."""
    found: list[Result | None] = [None] * len(lams)
    for s, lam in enumerate(lams):
        heard = None if callback is None else _numbered(callback, s)
        found[s] = result = minimize(problem, lam, callback=heard, **options)
        if result.status is Status.INTERRUPTED:
            break
    return found


def _numbered(callback: Callable[[int, Record], Any], s: int) -> Callable[[Record], Any]:
    return lambda record: callback(s, record)


def _together(
    problem: Problem,
    lams: Sequence[Array],
    options: Mapping[str, Any],
    callback: Callable[[int, Record], Any] | None,
) -> list[Result | None]:
    """All searches in lockstep."""
    tasks = [
        Task(_search(problem, lam, options, callback is not None), f"bilevel-search-{s}")
        for s, lam in enumerate(lams)
    ]

    def advance(s: int, question: Any) -> Product | None:
        """Let search s run to its next product, None where it has ended."""
        while isinstance(question, Record):
            assert callback is not None
            question = tasks[s].answer(callback(s, question))
        product: Product | None = question
        if product is None and _interrupted(tasks[s]):
            raise KeyboardInterrupt
        return product

    try:
        with stopping(tasks):
            waiting: dict[int, Product] = {}

            def keep(s: int, product: Product | None) -> None:
                if product is not None:
                    waiting[s] = product

            for s, task in enumerate(tasks):
                keep(s, advance(s, task.start()))
            while waiting:
                chosen = _next_served(waiting)
                answers = _served([waiting.pop(s) for s in chosen])
                for s, answer in zip(chosen, answers, strict=True):
                    keep(s, advance(s, tasks[s].answer(answer)))
    except KeyboardInterrupt:
        pass  # as minimize does: what has been found is returned
    return [task.result for task in tasks]


def _served(products: Sequence[Product]) -> Sequence[Array | BudgetSpent]:
    """The products, or the end of the budget of the whole for each who waits for them."""
    try:
        return serve(products)
    except BudgetSpent as end:
        return [end] * len(products)


def _interrupted(task: Task[Result]) -> bool:
    return task.result is not None and task.result.status is Status.INTERRUPTED


#: Of kinds that equally many wait for the first is served first.
_ORDER = ("matmul", "rmatmul", "gram_diag", "square_matmul")


def _next_served(waiting: Mapping[int, Product]) -> list[int]:
    """The searches that wait for the kind of product that most wait for."""
    kinds = Counter(product.kind for product in waiting.values())
    chosen = min(sorted(waiting), key=lambda s: _urgency(waiting[s], kinds))
    return [s for s in sorted(waiting) if waiting[s].kind == waiting[chosen].kind]


def _urgency(product: Product, kinds: Mapping[tuple[int, str], int]) -> tuple[int, int]:
    return -kinds[product.kind], _ORDER.index(product.name)


def _search(
    problem: Problem, lam: Array, options: Mapping[str, Any], heard: bool
) -> Callable[[Ask], Result]:
    context = problem.backend.context()

    def search(ask: Ask) -> Result:
        def product(wanted: Product) -> Array:
            found = ask(wanted)
            if isinstance(found, BudgetSpent):
                raise BudgetSpent(found.status)
            return found

        with context:
            own = _with_shared_designs(problem, product)
            return minimize(own, lam, callback=ask if heard else None, **options)

    return search


def _with_shared_designs(problem: Problem, ask: Callable[[Product], Array]) -> Problem:
    """The same problem, whose products are asked for, and counted apart."""
    views: dict[int, Shared] = {}

    def share(design: Design) -> Design:
        return views.setdefault(id(design), Shared(design, ask))

    own: Problem = map_designs(problem, share)
    return own
