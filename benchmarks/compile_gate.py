"""Compile every Triton kernel for GPUs that are not here, and compare with what was recorded.

`python -m benchmarks.compile_gate` prints the table and what differs, and fails where a kernel
spills, needs more shared memory than the GPU has or 5 % more of anything than
`kernels/compiled.json` says, or is missing there. With `--write` it
records what it found instead; the diff of that file is then the change to give a reason for.

A kernel takes part by listing its cases, `kernels.aot.CompileCase`, in `kernels/<op>/cases.py` and
that module in `CASE_MODULES` here.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks.report import ROOT, print_table
from kernels.aot import MAX_SHARED_BYTES, CompileCase, Compiled, compile_case

CASE_MODULES: tuple[str, ...] = (
    "kernels.attention.cases",
    "kernels.int8.cases",
    "kernels.kv_write.cases",
    "kernels.nf4.cases",
    "kernels.noise.cases",
    "kernels.rmsnorm.cases",
    "kernels.rvq.cases",
    "kernels.sampling.cases",
    "kernels.silu.cases",
)
TABLE = ROOT / "kernels" / "compiled.json"

# Another version of the compiler moves an instruction here and there. 5 % more is a change that
# somebody should have a reason for.
_TOLERANCE = 1.05
# More of these is worse. Tensor core instructions are told, not compared.
_COMPARED = (
    "registers",
    "shared_bytes",
    "instructions",
    "loop_instructions",
    "per_unit",
    "barriers",
)

Table = Mapping[str, Compiled]  # by "case sm_90"


def main(arguments: list[str] | None = None) -> int:
    """Compile, print, compare or record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="record what was found")
    is_writing = parser.parse_args(arguments).write
    found = compile_all()
    print_table([{"case": name} | asdict(compiled) for name, compiled in found.items()])
    recorded = read_table(TABLE) if TABLE.exists() else {}
    for line in differences(recorded, found):
        print(line)
    if is_writing:
        TABLE.write_text(dump_table(found))
        recorded = found
    failures = breaches(recorded, found)
    for line in failures:
        print(f"compile gate: {line}", file=sys.stderr)
    return 1 if failures else 0


def all_cases() -> list[CompileCase]:
    """Return the cases of every kernel, in a fixed order."""
    return [case for name in CASE_MODULES for case in importlib.import_module(name).CASES]


def compile_all() -> dict[str, Compiled]:
    """Compile every case for every architecture, on all cores, without any cache."""
    cases = all_cases()
    # Compiling needs no GPU: Triton makes the machine code for any architecture. So this runs
    # everywhere.
    jobs = [(index, arch) for index, case in enumerate(cases) for arch in case.architectures]
    with tempfile.TemporaryDirectory() as cache:
        # An empty cache: what another version of the compiler has made must not be taken for this
        # one's.
        os.environ["TRITON_CACHE_DIR"] = cache
        # Forked, for what was imported costs more than what is compiled.
        with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
            results = pool.starmap(_compile, jobs, 1)
    names = [f"{cases[index].name} sm_{arch}" for index, arch in jobs]
    return dict(zip(names, results, strict=True))


def differences(recorded: Table, found: Table) -> list[str]:
    """Tell every figure that is not the recorded one, better or worse."""
    lines = [f"{name}: not recorded" for name in found if name not in recorded]
    lines += [f"{name}: recorded, but no such case any more" for name in recorded.keys() - found]
    for name in found.keys() & recorded.keys():
        before, after = asdict(recorded[name]), asdict(found[name])
        lines += [
            f"{name}: {field} {before[field]} -> {after[field]}"
            for field in before
            if before[field] != after[field]
        ]
    return sorted(lines)


def breaches(recorded: Table, found: Table) -> list[str]:
    """Tell what fails: spills, too much shared memory, 5 % over the record, cases without one."""
    lines = [
        f"{name}: spills {compiled.spill_bytes} bytes"
        for name, compiled in found.items()
        if compiled.spill_bytes
    ]
    for name, compiled in found.items():
        limit = MAX_SHARED_BYTES[int(name.rpartition("sm_")[2])]
        # Such a kernel cannot be launched at all, which a machine without that GPU would never find
        # out.
        if compiled.shared_bytes > limit:
            lines.append(f"{name}: shared_bytes {compiled.shared_bytes}, the GPU has {limit}")
    lines += [f"{name}: not recorded; run with --write" for name in found.keys() - recorded]
    lines += [
        f"{name}: no such case any more; run with --write" for name in recorded.keys() - found
    ]
    for name in found.keys() & recorded.keys():
        # For example, 96 registers recorded and 100 found pass (100.8 are allowed); 101 do not.
        for field in _COMPARED:
            before, after = getattr(recorded[name], field), getattr(found[name], field)
            if after > before * _TOLERANCE:
                lines.append(f"{name}: {field} {after}, expected at most 1.05 × {before}")
    return sorted(lines)


def read_table(path: Path) -> dict[str, Compiled]:
    """Read a recorded table."""
    rows = json.loads(path.read_text())
    return {name: Compiled(**row) for name, row in rows.items()}


def dump_table(table: Table) -> str:
    """Write a table as JSON, a line a case, so that a diff shows what changed."""
    names = [field.name for field in fields(Compiled)]
    lines = [
        f"  {json.dumps(name)}: "
        + json.dumps({field: getattr(table[name], field) for field in names})
        for name in sorted(table)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compile(index: int, architecture: int) -> Compiled:
    # A Triton function cannot be sent to another process, its place can.
    return compile_case(all_cases()[index], architecture)


if __name__ == "__main__":
    sys.exit(main())
