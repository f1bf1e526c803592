"""Results on disk: JSON for everything, a CSV for each table."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .contract import Results, Settings

_PACKAGES = (
    "numpy", "scipy", "array-api-compat", "scikit-learn", "optuna", "torch", "mkl",
    "sparse_dot_mkl", "cupy-cuda12x", "cupy-cuda13x", "matplotlib",
)  # fmt: skip


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def provenance(settings: Settings) -> dict[str, Any]:
    """Where, when and with what a run was made."""
    import bilevel

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") or None,
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "quick": settings.quick,
        "tiny": settings.tiny,
        "seed": settings.seed,
        "backend": settings.backend.describe(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
        "python": sys.version.split()[0],
        "bilevel": bilevel.__version__,
        "versions": {name: found for name in _PACKAGES if (found := _installed(name))},
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def write(folder: Path, results: Results, record: dict[str, Any]) -> None:
    """Write results.json, TABLE.csv for each table, and provenance inside the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content = _plain(
        {
            "provenance": record,
            "notes": results.notes,
            "facts": results.facts,
            "tables": results.tables,
        }
    )
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text, encoding="utf-8")
    for name, rows in results.tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows({k: _cell(v) for k, v in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def read(folder: Path) -> tuple[Results, dict[str, Any]] | None:
    """Read back what :func:`write` wrote, None where there is nothing."""
    path = folder / "results.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    results = Results(content["tables"], content["facts"], tuple(content["notes"]))
    return results, content["provenance"]
