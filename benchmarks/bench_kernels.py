"""How fast are the kernels around the linears, and how far from what the device could do?

Paged attention, the write into pages, RMSNorm, gated SiLU, sampling and the residual search, at the
shapes of a 7B (32 heads of 128, width 4096, hidden 11264, Mimi's tables) and of the starter's
quantiser. Every time is that of one call inside a captured graph. Attention and the search work on
data that is not in the cache, the others on what the kernel before has left there. Beside each
stands the same in plain PyTorch; for attention that is PyTorch's own kernel over bf16 keys and
values that lie in a row already, whatever ours reads.

"% read" compares the bytes of the cache that attention must read with the read bandwidth measured
in the same run. The correctness gate comes first: each kernel against its reference on this device,
or nothing is reported.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import torch

from benchmarks.gpu_timing import measure_ceilings
from benchmarks.kernel_attention import (
    BAR_BYTES,
    BAR_READ,
    BAR_READ_LONE,
    measure_attention,
    read_bytes,
)
from benchmarks.kernel_gate import WrongError
from benchmarks.kernel_others import BAR_RVQ_US, BAR_SMALL_US, measure_others
from benchmarks.report import ROOT, Row, keep, print_table, provenance


def main(argv: Sequence[str] | None = None) -> int:
    """Check, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("bench_kernels: no CUDA device here, so nothing was measured", file=sys.stderr)
        return 1
    # The same data in every run: a failure of the gate can be looked into.
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    try:
        attention = measure_attention(ceilings)
        others = measure_others()
    except WrongError as error:
        print(f"nothing is reported: {error}", file=sys.stderr)
        return 1
    met = bars(attention, others)
    for table in (attention, others, [asdict(ceilings)], met):
        print_table(table)
        print()
    result = {
        "ceilings": asdict(ceilings),
        "attention": attention,
        "others": others,
        "bars": met,
    }
    source = provenance(ROOT / "kernels" / "compiled.json")
    keep("kernels", source, result, is_saved=not args.no_save)
    return 0


def bars(attention: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Say what the worst row of each bar got; a bar that was not measured is left out."""
    found: list[Row] = []
    for form, bar in BAR_READ.items():
        full = [
            row["% read"]
            for row in attention
            # Below that a launch is over before all of the device is busy, and bandwidth is not
            # what bounds it.
            if row["cache"] == form and read_bytes(row["batch"], row["length"], form) >= BAR_BYTES
        ]
        found += _at_least(f"attention {form}, 150 MB or more, % read", full, bar)
    # One session reads its 3,000 steps with one row of work, which is cut so that all of the device
    # takes part. That is harder, and has a bar of its own.
    lone = [
        row["% read"]
        for row in attention
        if (row["cache"], row["batch"], row["length"]) == ("bf16", 1, 3000)
    ]
    found += _at_least("attention bf16, one session of 3000, % read", lone, BAR_READ_LONE)
    search = [row["us"] for row in others if row["shape"].endswith("8 x 2048")]
    found += _at_most("rvq, 8 levels of 2048, us", search, BAR_RVQ_US)
    for kernel in ("rmsnorm", "silu", "sampling", "noise"):
        small = [row["us"] for row in others if row["kernel"] == kernel]
        found += _at_most(f"{kernel}, us", small, BAR_SMALL_US)
    return found


def _at_least(what: str, got: Sequence[float], bar: float) -> list[Row]:
    # The worst row counts: a mean would hide the shape that a model happens to have.
    return [_bar(what, min(got), bar, is_met=min(got) >= bar)] if got else []


def _at_most(what: str, got: Sequence[float], bar: float) -> list[Row]:
    return [_bar(what, max(got), bar, is_met=max(got) <= bar)] if got else []


def _bar(what: str, got: float, bar: float, *, is_met: bool) -> Row:
    return {"what": what, "got": got, "bar": bar, "is_met": is_met}


if __name__ == "__main__":
    sys.exit(main())
