"""``bilevel tune``: from files to a tuned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

import bilevel
from bilevel import io
from bilevel._loading import INTERRUPTED
from bilevel.methods import METHODS
from bilevel.plotting import save_plot
from bilevel.report import show_lam, write_report

from ._console import open_console, warned_in_sentences, was_printed
from ._info import versions
from ._inputs import files_read, load_inputs
from ._interrupts import Interrupts, patient_interrupts
from ._live import Live, print_rows
from ._models import MODELS, Prepared, prepare
from ._outputs import BadInput, Log, refuse_targets, write_all

_OK = frozenset(
    {
        bilevel.Status.CONVERGED,
        bilevel.Status.MAX_ITER,
        bilevel.Status.MAX_PASSES,
        bilevel.Status.MAX_SECONDS,
    }
)

_STALLED = bilevel.Status.STALLED

#: Settings that are printed before the run.
_SHOWN_FIRST = (
    "data",
    "training rows",
    "training labels",
    "held-out labels",
    "test labels",
    "backend",
)

#: Options that name a file to write.
_OUTPUTS = ("report", "plot", "save", "log", "checkpoint")


def outcome(
    result: bilevel.Result, prepared: Prepared, model: io.LinearClassifier
) -> dict[str, str]:
    """Return the rows of the summary."""
    return prepared.model.scores(result, model, prepared.inputs) | {
        "iterations": str(result.nit),
        "passes over the data": f"{result.passes:,}",
        "seconds": f"{result.seconds:.2f}",
        "status": result.message,
    }


@click.command(
    epilog="Exit codes: 0 the tolerance was reached, a budget was spent, or with --tol 0 there was "
    "no further progress; 1 the tolerance was not reached, the solve failed, a budget was spent "
    "before there was a model, or a result could not be written; 2 bad input; 130 interrupted."
)
@click.argument("train")
@click.option("--val", metavar="FILE|FRACTION", help="Held-out rows. [default: 0.5]")
@click.option("--test", metavar="FILE|FRACTION", help="Test rows, for the accuracy.")
@click.option(
    "--model",
    type=click.Choice(list(MODELS)),
    help="Of two classes, or of integer labels of several. [default: by the labels]",
)
@click.option("--positive", metavar="LABEL", help="The class that is +1, against all others.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice([f.value for f in io.Format]),
    help="Format of the files. [default: by suffix]",
)
@click.option(
    "--label", metavar="NAME|NUMBER", help="CSV: column of the label; numbers count from 0."
)
@click.option(
    "--header/--no-header",
    default=None,
    help="CSV: the first line holds names, or a row. [default: seen from the file]",
)
@click.option("--features", type=click.IntRange(1), help="LIBSVM: number of features.")
@click.option("--zero-based", is_flag=True, help="LIBSVM: features are numbered from 0.")
@click.option("--standardize", is_flag=True, help="Give columns mean 0 and deviation 1.")
@click.option("--intercept", is_flag=True, help="Add an intercept, without penalty.")
@click.option(
    "--backend",
    type=click.Choice(bilevel.backend_names()),
    default="numpy",
    show_default=True,
    help="Array library; `bilevel info` says what is usable.",
)
@click.option("--device", help="Device of the backend, as `cuda:0`. [default: the backend's]")
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32", "mixed"]),
    help="mixed: the matrix in float32, all else in float64. [default: float64; of several classes "
    "float32 where TRAIN is]",
)
@click.option("--method", type=click.Choice(list(METHODS)), default="path", show_default=True)
@click.option("--lam0", type=float, help="Where λ starts. [default: 0, or the nearest bound]")
@click.option(
    "--starts",
    type=click.IntRange(1),
    help="Search from this many λ, drawn in the bounds, at once, and take the best.",
)
@click.option(
    "--bounds",
    type=(float, float),
    default=(-12.0, 12.0),
    show_default=True,
    metavar="LOW HIGH",
    help="Box that λ stays in.",
)
@click.option("--max-iter", type=click.IntRange(1), default=50, show_default=True)
@click.option(
    "--tol",
    type=click.FloatRange(0),
    help="Of the stopping rule, relative to the loss; 0: never. [default: the method's]",
)
@click.option("--max-passes", type=click.IntRange(1), help="Budget of passes over the data.")
@click.option("--max-seconds", type=click.FloatRange(0, min_open=True), help="Budget of seconds.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the splits.")
@click.option(
    "--certify",
    is_flag=True,
    help="Hold the run against the assumptions and the conclusions of Theorem 2 (a tight fit).",
)
@click.option("--report", type=click.Path(dir_okay=False), help="Write an HTML report.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Write a picture (.svg, .png, .pdf).")
@click.option("--save", type=click.Path(dir_okay=False), help="Write the model (.npz).")
@click.option(
    "--refit",
    is_flag=True,
    help="Fit the model that is saved on the training and held-out rows together, at the λ found; "
    "the numbers printed are those without.",
)
@click.option("--log", type=click.Path(dir_okay=False), help="Write the iterations (JSON lines).")
@click.option("--checkpoint", type=click.Path(dir_okay=False), help="Keep the run's state here.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def tune(context: click.Context, /, **options: Any) -> None:
    """Tune the regularisation of a model on TRAIN, a file or a data set's name.

    Files are LIBSVM, .npz or CSV. Ctrl-C ends the run; the best model so far is reported and
    saved.
    """
    console = open_console(quiet=options["quiet"])
    try:
        # What overflows is told by the status, in a sentence.
        with np.errstate(all="ignore"), warned_in_sentences():
            status, is_whole = _run(_Options(**options), console)
    except KeyboardInterrupt:  # before or after the search, which ends well by itself
        click.echo("Interrupted.", err=True)
        context.exit(INTERRUPTED)
    is_whole = was_printed(console) and is_whole
    if status is bilevel.Status.INTERRUPTED and is_whole:
        context.exit(INTERRUPTED)
    if status is not bilevel.Status.INTERRUPTED and not _ended_well(status, options["tol"]):
        what = "the tolerance was not reached" if status is _STALLED else "the solve failed"
        click.echo(f"Error: {what}: {status.message}", err=True)
        is_whole = False
    if not is_whole:
        context.exit(1)


def _ended_well(status: bilevel.Status, tol: float | None) -> bool:
    """Whether a search did what it was asked; without a tolerance there is none to be missed."""
    return status in _OK or (status is _STALLED and tol == 0)


@dataclass(frozen=True)
class _Options:
    train: str
    val: str | None
    test: str | None
    model: str | None
    positive: str | None
    file_format: str | None
    label: str | None
    header: bool | None
    features: int | None
    zero_based: bool
    standardize: bool
    intercept: bool
    backend: str
    device: str | None
    dtype: str | None
    method: str
    lam0: float | None
    starts: int | None
    bounds: tuple[float, float]
    max_iter: int
    tol: float | None
    max_passes: int | None
    max_seconds: float | None
    seed: int
    certify: bool
    report: str | None
    plot: str | None
    save: str | None
    refit: bool
    log: str | None
    checkpoint: str | None
    resume: bool
    quiet: bool

    def __post_init__(self) -> None:
        for name in ("tol", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise BadInput(f"--{name.replace('_', '-')} must be finite, got {value}.")
        try:
            bilevel.Box(*self.bounds)
        except ValueError as error:
            low, high = self.bounds
            raise BadInput(f"--bounds {low:g} {high:g}: {error}") from error
        if self.resume and self.checkpoint is None:
            raise click.UsageError("--resume needs --checkpoint FILE.")
        if self.refit and self.save is None:
            raise click.UsageError("--refit is of the model that is saved: it needs --save FILE.")
        if self.positive is not None and self.model == "multinomial":
            raise click.UsageError("--positive sets one class against all others: leave it out.")
        if self.starts is not None:
            self._refuse_with_starts()
        outputs = {name: getattr(self, name) for name in _OUTPUTS}
        refuse_targets(
            {name: path for name, path in outputs.items() if path is not None},
            files_read(self.train, self.val, self.test),
        )

    def _refuse_with_starts(self) -> None:
        if self.checkpoint is not None:
            raise click.UsageError("--checkpoint holds one search: it can't be used with --starts.")
        if self.lam0 is not None:
            raise click.UsageError("--starts draws where λ starts: leave out --lam0.")
        if not all(map(math.isfinite, self.bounds)):
            raise click.UsageError("--starts draws from the bounds: give finite --bounds.")


def _reading(o: _Options) -> io.ReadOptions:
    return io.ReadOptions(
        format=io.Format(o.file_format) if o.file_format else None,
        label=o.label,
        header=o.header,
        features=o.features,
        zero_based=o.zero_based,
    )


@contextmanager
def _told(source: str, *kinds: type[Exception]) -> Iterator[None]:
    """Say errors of these kinds, and want of memory, in a sentence."""
    try:
        yield
    except MemoryError as error:
        raise BadInput(f"{source}: it does not fit into memory ({error}).") from error
    except kinds as error:
        raise BadInput(" ".join(str(error).split())) from error


def _load(o: _Options) -> Prepared:
    with _told(o.train, bilevel.BackendUnavailableError, ValueError, TypeError, OSError):
        backend = bilevel.get_backend(o.backend, device=o.device)
        inputs = load_inputs(
            o.train,
            o.val,
            o.test,
            model=o.model,
            positive=o.positive,
            options=_reading(o),
            seed=o.seed,
        )
        several = isinstance(inputs.labels, io.ClassLabels)
        model = MODELS["multinomial" if several else "logistic"](inputs.labels)
        prepared = prepare(
            inputs,
            model=model,
            backend=backend,
            dtype=o.dtype,
            bounds=o.bounds,
            standardize=o.standardize,
            intercept=o.intercept,
        )
        _check_start(prepared.problem, o)
    return prepared


def _run(o: _Options, console: Console) -> tuple[bilevel.Status, bool]:
    """Return how the search ended, and whether all files were written."""
    prepared = _load(o)
    inputs, problem = prepared.inputs, prepared.problem
    settings = _settings(o, prepared)
    print_rows(console, {name: settings[name] for name in _SHOWN_FIRST})
    for note in inputs.notes:
        console.print(f"note: {note}", style="dim", soft_wrap=True)
    console.print()
    with patient_interrupts() as interrupts:
        found = _search(o, prepared, console, interrupts)
    result = found.result
    if found.summary is None:
        _say_nothing_was_found(o, found, console)
        return result.status, not found.failed
    console.print()
    print_rows(console, found.summary)
    if found.written:
        console.print(f"\nwritten: {', '.join(found.written)}", soft_wrap=True)
    if o.certify:
        console.print()
        with _told(o.train, ValueError):
            certificate = bilevel.certify(result, problem, method=prepared.model.method(o.method))
        console.print(str(certificate), soft_wrap=True)
    return result.status, not found.failed


@dataclass(frozen=True)
class _Found:
    """A search and its files; there is no summary where there is no model."""

    result: bilevel.Result
    summary: dict[str, str] | None
    #: Of several starts: what there is to say of all searches.
    extra: Mapping[str, str]
    written: list[str]
    failed: bool = False


def _search(o: _Options, prepared: Prepared, console: Console, interrupts: Interrupts) -> _Found:
    """Search, and write the files.

    They come before all that is told: neither the certificate nor a closed pipe is to cost the
    model.
    """
    problem = prepared.problem
    log = Log(o.log, problem.backend, resumed=o.resume) if o.log else None
    extra: dict[str, str] = {}
    with _told(o.train, ValueError):
        if o.starts is None:
            result = _solve(o, prepared, console, log)
        else:
            result, extra = _solve_from(o.starts, o, problem, console)
    interrupts.searched()
    logged, unlogged = [], False
    if o.log and log is not None and result.history:
        unlogged = not log.finish(result.history)
        logged = [] if unlogged else [o.log]
    if result.best is None or not math.isfinite(result.fun):
        return _Found(result, None, extra, logged, unlogged)
    with _told(o.train, ValueError):
        x = prepared.model.found(problem, result)
        model = prepared.classifier(result.lam, x)
        rows = outcome(result, prepared, model) | extra

    def saved() -> io.LinearClassifier:
        """Fitted once more where that is asked: if it can't be, the other files are spared."""
        if not o.refit:
            return model
        return prepared.classifier(result.lam, prepared.refitted(result.lam, x))

    if o.refit:
        rows["saved model"] = "fitted on training and held-out rows together, at this λ"
    settings = _settings(o, prepared)
    written, failed = write_all(_files(o, result, saved, rows, settings))
    return _Found(result, rows, extra, written + logged, failed or unlogged)


def _say_nothing_was_found(o: _Options, found: _Found, console: Console) -> None:
    """An end before there is a model: it is told, and no file is made of it."""
    result = found.result
    passes = found.extra.get("passes of all searches", f"{result.passes:,}")
    console.print()
    print_rows(console, {"passes over the data": passes, "status": result.message})
    log = None if result.history else o.log
    wanted = [path for path in (o.save, o.plot, o.report, log) if path is not None]
    if wanted:
        console.print(f"\nnot written, for want of a model: {', '.join(wanted)}", soft_wrap=True)
    if result.status is not bilevel.Status.INTERRUPTED:
        raise click.ClickException(result.message)


def _start_shown(o: _Options) -> str:
    if o.starts is not None:
        return f"{o.starts}, drawn in the bounds"
    low, high = o.bounds
    return f"{min(max(0.0, low), high) if o.lam0 is None else o.lam0:g}"


def _check_start(problem: bilevel.Problem, o: _Options) -> None:
    if o.lam0 is None:
        return
    problem.lam(o.lam0, "--lam0")
    low, high = o.bounds
    if not low <= o.lam0 <= high:
        raise ValueError(f"--lam0 {o.lam0:g} lies outside of --bounds, {low:g} to {high:g}.")


def _solve(o: _Options, prepared: Prepared, console: Console, log: Log | None) -> bilevel.Result:
    problem, model = prepared.problem, prepared.model
    columns = model.columns(prepared.inputs.val.X.shape[0])
    with Live(console, problem.backend, columns) as live:

        def show(record: bilevel.Record) -> None:
            live(record)
            if log is not None:
                log(record)

        return bilevel.minimize(
            problem,
            o.lam0,
            method=model.method(o.method),
            max_iter=o.max_iter,
            tol=o.tol,
            max_passes=o.max_passes,
            max_seconds=o.max_seconds,
            callback=show,
            progress=live.progress,
            checkpoint=o.checkpoint,
            resume=o.resume,
        )


def _solve_from(
    starts: int, o: _Options, problem: bilevel.Problem, console: Console
) -> tuple[bilevel.Result, dict[str, str]]:
    """The best of several searches, and what the summary says of all of them."""
    with console.status("searching"):
        found = bilevel.multistart(
            problem,
            starts,
            method=o.method,
            max_iter=o.max_iter,
            tol=o.tol,
            max_total_passes=o.max_passes,
            max_total_seconds=o.max_seconds,
        )
    for s, result in enumerate(found.results):
        first = result.history[0].lam if result.history else result.lam
        ends = [show_lam(problem.backend.to_numpy(lam)) for lam in (first, result.lam)]
        console.print(
            f"search {s + 1}: λ from {ends[0]} to {ends[1]}, val. loss {result.fun:.6f}, "
            f"{result.passes:,} passes, {result.status.value}",
            soft_wrap=True,
        )
    best = found.best
    if any(result.status is bilevel.Status.INTERRUPTED for result in found.results):
        best = replace(best, status=bilevel.Status.INTERRUPTED)
    alone = sum(result.passes for result in found.results)
    return best, {
        "passes of all searches": f"{found.passes:,} together, {alone:,} one after the other",
        "seconds": f"{found.seconds:.2f}",
    }


def _settings(o: _Options, prepared: Prepared) -> dict[str, str]:
    inputs, backend = prepared.inputs, prepared.problem.backend
    columns = [
        name for name, on in (("standardised", o.standardize), ("intercept", o.intercept)) if on
    ]
    rows = {
        "data": inputs.name,
        "training rows": str(inputs.train),
        "training labels": inputs.train.labels,
        "held-out rows": str(inputs.val),
        "held-out labels": inputs.val.labels,
        "test rows": str(inputs.test) if inputs.test is not None else "none",
        "test labels": inputs.test.labels if inputs.test is not None else "none",
        "columns": ", ".join(columns) or "as they are",
        "model": prepared.model.name,
        "method": o.method,
        "λ at the start": _start_shown(o),
        "bounds of λ": f"[{o.bounds[0]:g}, {o.bounds[1]:g}]",
        "tolerance": "the method's own" if o.tol is None else f"{o.tol:g}",
        "iterations at most": str(o.max_iter),
        "backend": f"{backend.describe()}, {prepared.columns.dtype}",
        "seed": str(o.seed),
    }
    if o.max_passes is not None:
        rows["passes at most"] = str(o.max_passes)
    if o.max_seconds is not None:
        rows["seconds at most"] = f"{o.max_seconds:g}"
    return rows


def _files(
    o: _Options,
    result: bilevel.Result,
    model: Callable[[], io.LinearClassifier],
    rows: Mapping[str, str],
    settings: Mapping[str, str],
) -> dict[str, Callable[[str], None]]:
    """What writes each file that was asked for, the model first."""

    def report(path: str) -> None:
        write_report(
            path,
            result,
            title=f"Tuned {settings['model']} model: {Path(o.train).name}",
            outcome=rows,
            settings=settings,
            versions=versions(),
        )

    targets: tuple[tuple[str | None, Callable[[str], None]], ...] = (
        (o.save, lambda path: io.save_model(path, model())),
        (o.plot, lambda path: save_plot(result, path)),
        (o.report, report),
    )
    return {path: write for path, write in targets if path is not None}
