"""`make bench-gpu`: what it makes of parts that pass and fail; never green without a GPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from benchmarks import report as kept
from benchmarks.gpu import KERNEL_BENCHMARKS, PARTS, main, report, run_parts

GOOD = ("-c", 'print(\'a table\'); print(\'{"benchmark": "good", "us": 3}\')')
WRONG = ("-c", "print('half a table'); raise SystemExit(3)")
TALKS = ("-c", "print('a table, and no JSON')")
TESTS = ("-c", "print('3 passed')")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, and the exit code shows it."""
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def test_every_part_is_there() -> None:
    """Each benchmark can be imported, and takes what it is run with."""
    assert list(PARTS) == ["tests", *KERNEL_BENCHMARKS]
    for name in KERNEL_BENCHMARKS:
        with pytest.raises(SystemExit) as left:
            importlib.import_module(f"benchmarks.{name}").main(["--no-save", "--help"])
        assert left.value.code == 0
    with pytest.raises(SystemExit):
        main(["bench_other"])


def test_tables_come_last_and_one_line_merges_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What every benchmark kept is in the last line, and in a file with the device's name."""
    monkeypatch.setattr(kept, "RESULTS", tmp_path)
    outcome = run_parts({"tests": TESTS, "bench_one": GOOD, "bench_two": GOOD})
    capsys.readouterr()
    assert report(outcome, "NVIDIA H200 (x1)", is_saved=True) == 0
    *tables, last = capsys.readouterr().out.splitlines()
    assert tables[-1] == "all passed"
    assert tables.index("== tests") < tables.index("== bench_one") < tables.index("== bench_two")
    assert tables.count("a table") == 2
    merged = json.loads(last)
    good = {"benchmark": "good", "us": 3}
    assert merged["results"] == {"bench_one": good, "bench_two": good}
    assert merged["failed"] == []
    assert merged["wall_s"].keys() == {"tests", "bench_one", "bench_two"}
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("gpu-nvidia-h200-x1-")
    assert json.loads(file.read_text()) == merged


def test_a_part_that_fails_is_named_and_the_others_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may exit with a code or end without its line; the whole fails, the rest is kept."""
    outcome = run_parts({"tests": WRONG, "bench_one": WRONG, "bench_two": TALKS, "bench_3": GOOD})
    assert outcome.failed == ["tests", "bench_one", "bench_two"]
    assert outcome.results.keys() == {"bench_3"}
    told = capsys.readouterr()
    assert "half a table" in told.out
    assert "bench_one: failed, exit code 3" in told.err
    assert report(outcome, "GPU", is_saved=False) == 1
    *_, named, last = capsys.readouterr().out.splitlines()
    assert named == "failed: tests, bench_one, bench_two"
    assert json.loads(last)["failed"] == outcome.failed
