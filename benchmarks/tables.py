"""Rows of a benchmark as Markdown and JSON, printed and written to ``benchmarks/results``."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(name: str, title: str, rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Print the rows as a table, and write ``results/name.md`` and ``results/name.json``."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[c]) for c in columns) + " |" for row in rows]
    machine = f"Python {platform.python_version()}, {platform.machine()}."
    text = f"# {title}\n\n" + "\n".join(lines) + f"\n\n{note}{' ' if note else ''}{machine}\n"
    sys.stdout.write(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps(list(rows), indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    return str(value)
