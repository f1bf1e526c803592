"""The index page: every experiment with its claim, figure and verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from .contract import Experiment, Results, Verdict


@dataclass(frozen=True)
class Entry:
    """What the page shows of one experiment."""

    experiment: Experiment
    results: Results | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    figures: tuple[str, ...] = ()
    missing: str = "This experiment has not been run yet."


def write_page(path: Path, entries: list[Entry]) -> None:
    """Write the page; figures and tables are linked relative to it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    done = [entry for entry in entries if entry.results is not None]
    html = environment.get_template("page.html.j2").render(
        entries=entries,
        done=done,
        stand_ins=list(
            dict.fromkeys(n for e in done for n in e.results.notes if n.startswith("Stand-in"))
        ),
        counts={o: sum(e.verdict.outcome == o for e in done if e.verdict) for o in OUTCOMES},
        outcomes=OUTCOMES,
        minutes=sum(e.provenance.get("seconds", 0.0) for e in done) / 60,
    )
    path.write_text(html, encoding="utf-8")


#: What a verdict says, and how the page writes it.
OUTCOMES = {"reproduced": "reproduced", "partly": "partly reproduced", "not": "not reproduced"}
