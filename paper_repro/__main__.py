"""``python -m paper_repro [EXPERIMENT...] [--quick] [--backend NAME] [--out DIR] [--redraw]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bilevel import BackendUnavailableError, backend_names
from bilevel.io import BadFileError

from . import storage, style
from .contract import Experiment, Settings
from .experiments import EXPERIMENTS
from .page import OUTCOMES, Entry, write_page


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m paper_repro",
        description="Regenerate the experiments of the papers, from the data to the index page.",
        epilog="Experiments: " + "; ".join(f"{e.name}: {e.title}" for e in EXPERIMENTS.values()),
    )
    parser.add_argument("experiment", nargs="*", help="which ones; all when omitted")
    parser.add_argument("--quick", action="store_true", help="all in under 10 minutes on 2 cores")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="numpy", choices=backend_names())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("paper_repro/results"), metavar="DIR")
    parser.add_argument("--redraw", action="store_true", help="draw stored results again, run none")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.experiment if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"unknown experiment {unknown[0]!r}: choose from {', '.join(EXPERIMENTS)}")
    return chosen


def compute(experiment: Experiment, settings: Settings, out: Path) -> None:
    """Run an experiment and store its results."""
    record = storage.provenance(settings)
    clock, processor = time.perf_counter(), time.process_time()
    results = experiment.run(settings)
    record["seconds"] = time.perf_counter() - clock
    record["cpu_seconds"] = time.process_time() - processor
    storage.write(out / experiment.name, results, record)


def show(experiment: Experiment, out: Path, *, draw: bool) -> Entry:
    """Read stored results, draw them where asked, and judge them."""
    stored = storage.read(out / experiment.name)
    if stored is None:
        return Entry(experiment)
    results, record = stored
    if draw:
        with style.in_style():
            for name, figure in experiment.draw(results).items():
                style.save(figure, out / experiment.name / name)
    figures = tuple(sorted(path.stem for path in (out / experiment.name).glob("*.png")))
    return Entry(experiment, results, record, experiment.verdict(results), figures)


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for and write the page; 1 where something could not be run."""
    chosen = _arguments(words)
    names = chosen.experiment or list(EXPERIMENTS)
    settings = Settings(chosen.quick or chosen.tiny, chosen.backend, chosen.seed, chosen.tiny)
    failed = 0
    missing: dict[str, str] = {}
    if not chosen.redraw:
        try:
            print(settings.backend.describe())
        except BackendUnavailableError as error:
            print(error, file=sys.stderr)
            return 1
        for name in names:
            clock = time.perf_counter()
            try:
                compute(EXPERIMENTS[name], settings, chosen.out)
            except BadFileError as error:
                failed, missing[name] = 1, str(error)
                print(f"{name}: {error}", file=sys.stderr)
            else:
                print(f"{name}: {time.perf_counter() - clock:.1f} s", flush=True)
    entries = []
    for name, experiment in EXPERIMENTS.items():
        entry = show(experiment, chosen.out, draw=name in names and name not in missing)
        if entry.verdict is not None and name in names:
            print(f"{name}: {OUTCOMES[entry.verdict.outcome]}")
            for check in entry.verdict.checks:
                print(f"  [{'x' if check.holds else ' '}] {check.statement}: {check.measured}")
        elif name in missing:
            entry = Entry(experiment, missing=missing[name])
        entries.append(entry)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_page(chosen.out / "index.html", entries)
    print(f"Page: {chosen.out / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
