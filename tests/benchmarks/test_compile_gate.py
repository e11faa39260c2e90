"""Every Triton kernel compiles for every architecture, and needs what was recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compile_gate import TABLE, breaches, differences, dump_table, read_table
from benchmarks.report import ROOT
from kernels.aot import Compiled

CODE = Compiled(
    registers=128,
    spill_bytes=0,
    shared_bytes=1024,
    instructions=200,
    loop_instructions=100,
    per_unit=4.0,
    mma=64,
    barriers=2,
)


def test_kernels_compile_to_what_is_recorded() -> None:
    """No kernel spills, or needs 5 % more of anything than the table in the tree says."""
    # Interpreter and compiler cannot share a process.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    gate = subprocess.run(
        [sys.executable, "-m", "benchmarks.compile_gate"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert gate.returncode == 0, gate.stderr


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("registers", 135, "registers 135, expected at most 1.05 × 128"),
        ("per_unit", 4.21, "per_unit 4.21, expected at most 1.05 × 4.0"),
        ("barriers", 3, "barriers 3, expected at most 1.05 × 2"),
        ("spill_bytes", 8, "spills 8 bytes"),
        ("shared_bytes", 1076, "shared_bytes 1076, expected at most 1.05 × 1024"),
    ],
)
def test_worse_fails(field: str, value: Any, told: str) -> None:
    """More than 5 % over the record, or any spill, is named with got and expected."""
    got = {"op/case sm_90": replace(CODE, **{field: value})}
    assert breaches({"op/case sm_90": CODE}, got) == [f"op/case sm_90: {told}"]


def test_more_shared_memory_than_there_is_fails() -> None:
    """Whatever is recorded, a program cannot be launched that does not fit its GPU."""
    big = replace(CODE, shared_bytes=100 * 1024)
    assert breaches({"op/case sm_90": big}, {"op/case sm_90": big}) == []
    assert breaches({"op/case sm_89": big}, {"op/case sm_89": big}) == [
        "op/case sm_89: shared_bytes 102400, the GPU has 101376"
    ]


def test_better_and_slightly_worse_pass_but_are_told() -> None:
    """The gate is for regressions; the difference is for whoever reads it."""
    found = {"op/case sm_90": replace(CODE, registers=134, per_unit=2.0)}
    assert breaches({"op/case sm_90": CODE}, found) == []
    assert differences({"op/case sm_90": CODE}, found) == [
        "op/case sm_90: per_unit 4.0 -> 2.0",
        "op/case sm_90: registers 128 -> 134",
    ]


def test_a_case_on_one_side_only_fails() -> None:
    """A new kernel is recorded, and the record of one that is gone is removed."""
    assert breaches({}, {"new sm_90": CODE}) == ["new sm_90: not recorded; run with --write"]
    gone = breaches({"old sm_90": CODE}, {})
    assert gone == ["old sm_90: no such case any more; run with --write"]


def test_the_table_is_written_as_it_is_read(tmp_path: Path) -> None:
    """Writing what was read changes nothing, so a diff shows changes only."""
    copy = tmp_path / "table.json"
    copy.write_text(dump_table(read_table(TABLE)))
    assert copy.read_text() == TABLE.read_text()
