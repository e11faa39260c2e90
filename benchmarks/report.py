"""What every benchmark prints and keeps: a table, one JSON line, and where figures come from."""

import datetime as dt
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Row = Mapping[str, Any]  # Any: whatever JSON can hold


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from.

    Attributes:
        commit: short hash, with "+" if tracked files were changed.
        config: file name of the settings.
        config_sha256: first 12 digits of the hash of that file.
        model_sha256: the same for the model's own list of hashes; empty without a model.
        cpu: model name.
        num_cores: that this process may use.
        gpu: device name, or "none".
        torch: version.
        date: of the run, UTC.
    """

    commit: str
    config: str
    config_sha256: str
    model_sha256: str
    cpu: str
    num_cores: int
    gpu: str
    torch: str
    date: str


def provenance(config: Path, model_dir: Path | None = None) -> Provenance:
    """Describe this run."""
    listing = None if model_dir is None else model_dir / "config.json"
    return Provenance(
        commit=_git("rev-parse", "--short", "HEAD")
        + ("+" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        config=config.name,
        config_sha256=_digest(config),
        model_sha256=_digest(listing) if listing is not None and listing.exists() else "",
        cpu=_cpu_name(),
        num_cores=_num_cores(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        torch=torch.__version__,
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, one digit after the point; not a number for no values."""
    return round(float(np.percentile(values, percent)), 1) if values else float("nan")


def print_table(rows: Sequence[Row]) -> None:
    """Print rows with the same keys as an aligned table."""
    header = list(rows[0])
    cells = [header, *([str(row[key]) for key in header] for row in rows)]
    # As wide as the widest cell, the header among them.
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def keep(name: str, source: Provenance, result: Row, *, is_saved: bool = True) -> None:
    """Print the one JSON line of a benchmark, and keep it under `results/`."""
    line = json.dumps({"benchmark": name, **result, "provenance": asdict(source)})
    if is_saved:
        RESULTS.mkdir(exist_ok=True)
        # "2026-01-31T09:05:00+00:00" becomes 20260131T090500: names sort by time.
        stamp = source.date.replace(":", "").replace("-", "").split("+")[0]
        (RESULTS / f"{name}-{stamp}.json").write_text(line + "\n")
    print(line)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    return finished.stdout.strip() or ("" if arguments[0] == "status" else "unknown")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
