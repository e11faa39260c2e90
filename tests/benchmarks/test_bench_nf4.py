"""What the NF4 benchmark makes of its times, without a GPU to take them on."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bench_nf4 import BARS, LARGE, NUM_ROWS, SMALL, bars, beside, main, row
from benchmarks.gpu import KERNEL_BENCHMARKS
from benchmarks.report import Row


def rows_with(value: float | None) -> list[Row]:
    """Return a row for every shape and number of rows, with one value in every compared column."""
    return [
        {"shape": f"{n} x {k}", "M": m, "% read": value, "x bf16": value, "x bnb": value}
        for n, k in (*LARGE, *SMALL)
        for m in NUM_ROWS
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, and the exit code shows it."""
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
    assert "bench_nf4" in KERNEL_BENCHMARKS


def test_a_row() -> None:
    """25 MB in 10 us are 2500 GB/s, half of a ceiling of 5000, and three times a bf16 of 30 us."""
    found = row((12288, 4096), 4, 25_000_000, 10.0, 5000.0) | beside(10.0, 30.0, 25.0)
    assert found == {
        "shape": "12288 x 4096",
        "M": 4,
        "us": 10.0,
        "GB/s": 2500.0,
        "% read": 50.0,
        "bf16 us": 30.0,
        "x bf16": 3.0,
        "bnb us": 25.0,
        "x bnb": 2.5,
    }
    assert beside(10.0, 30.0, None)["x bnb"] is None


@pytest.mark.parametrize("capability", BARS)
def test_bars_are_for_the_worst_row(capability: tuple[int, int]) -> None:
    """All are met by rows far above, and none by rows of which the worst is far below."""
    good, bad = rows_with(1000.0), rows_with(0.1)
    assert len(bars(good, capability)) == len(BARS[capability])
    assert all(bar["is_met"] for bar in bars(good, capability))
    mixed = bars([*good, *bad], capability)
    assert not any(bar["is_met"] for bar in mixed)
    assert {bar["got"] for bar in mixed} == {0.1}


def test_what_was_not_measured_has_no_bar() -> None:
    """Neither a device without bars, nor a package that is not installed, counts as a pass."""
    assert bars(rows_with(1000.0), (7, 5)) == []
    assert bars(rows_with(None), (9, 0)) == []
    assert bars([], (9, 0)) == []
