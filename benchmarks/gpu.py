"""Run what needs a CUDA device: the tests marked `gpu`, then the benchmarks of kernels and frames.

Each runs in a process of its own, and one that fails is named and fails the whole; the others run
all the same. Tables come at the end, and last one JSON line that holds every benchmark's. It is
kept under `results/`, with the device's name. To run some parts only, name them.

Without a device it says so and fails: a green line here always means that a GPU did the work.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.report import ROOT, Row, keep, provenance

KERNEL_BENCHMARKS: tuple[str, ...] = ("bench_kernels", "bench_nf4", "bench_frame")
# What is run, in this order, by name: arguments of Python.
PARTS: Mapping[str, Sequence[str]] = {
    # First: a figure of a kernel that is wrong is worth nothing.
    "tests": ("-m", "pytest", "-m", "gpu", "-q"),
    **{name: ("-m", f"benchmarks.{name}", "--no-save") for name in KERNEL_BENCHMARKS},
}


@dataclass(slots=True)
class Outcome:
    """What the parts that were run came to.

    Attributes:
        texts: what each that passed printed, its JSON line apart, by name.
        results: contents of the JSON line of each benchmark that passed, by name.
        failed: names of those that failed.
        wall_s: seconds that each took, by name.
    """

    texts: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)  # Any: whatever JSON can hold
    failed: list[str] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)

    def merged(self) -> Row:
        """Return what is kept."""
        return {"failed": self.failed, "wall_s": self.wall_s, "results": self.results}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, print and keep what they found; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"out of {', '.join(PARTS)}")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"expected parts out of {', '.join(PARTS)}, got {', '.join(unknown)}")
    if not torch.cuda.is_available():
        print("bench-gpu: no CUDA device here, so nothing was run", file=sys.stderr)
        return 1
    print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    chosen = {name: PARTS[name] for name in args.parts} if args.parts else PARTS
    outcome = run_parts(chosen)
    return report(outcome, torch.cuda.get_device_name(), is_saved=not args.no_save)


def run_parts(parts: Mapping[str, Sequence[str]]) -> Outcome:
    """Run each part to its end, whatever became of those before.

    Args:
        parts: arguments of Python, by name. What a `bench_` part prints has to end with a JSON
            line, or it counts as failed.
    """
    outcome = Outcome()
    for name, arguments in parts.items():
        # Each in a process of its own: what one leaves in the device's memory, or breaks in its
        # context, the next one does not find.
        start_s = time.perf_counter()
        # Only what is printed is held back; a reason to fail is told at once.
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        outcome.wall_s[name] = round(time.perf_counter() - start_s, 1)
        text, result = _split(ran.stdout) if name.startswith("bench_") else (ran.stdout, {})
        # A benchmark that ends well but prints no JSON has measured nothing.
        if ran.returncode or result is None:
            outcome.failed.append(name)
            print(ran.stdout, end="")
            print(f"{name}: failed, exit code {ran.returncode}", file=sys.stderr)
            continue
        outcome.texts[name] = text
        if result:
            outcome.results[name] = result
        print(f"{name}: {outcome.wall_s[name]} s", flush=True)
    return outcome


def report(outcome: Outcome, device: str, *, is_saved: bool) -> int:
    """Print the tables, name what failed, and end with the merged JSON line, which is kept.

    Args:
        outcome: of `run_parts`.
        device: name of the GPU, for the name of the file.
        is_saved: keep the line under `results/`.

    Returns:
        The exit code.
    """
    for name, text in outcome.texts.items():
        print(f"\n== {name}\n{text.rstrip()}")
    print(f"\nfailed: {', '.join(outcome.failed)}" if outcome.failed else "\nall passed")
    # "NVIDIA H200" becomes nvidia-h200.
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    source = provenance(ROOT / "kernels" / "compiled.json")
    keep(f"gpu-{slug}", source, outcome.merged(), is_saved=is_saved)
    return 1 if outcome.failed else 0


def _split(printed: str) -> tuple[str, Any]:  # Any: whatever JSON can hold
    """Return what a benchmark printed, and its last line, parsed; None if that is no JSON."""
    text, _, last = printed.rstrip("\n").rpartition("\n")
    try:
        return text, json.loads(last)
    except ValueError:
        return printed, None


if __name__ == "__main__":
    sys.exit(main())
