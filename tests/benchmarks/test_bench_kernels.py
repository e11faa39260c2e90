"""The kernel benchmark: which rows its bars are about, and that it is never green without a GPU."""

import pytest
import torch

from benchmarks.bench_kernels import bars, main
from benchmarks.kernel_attention import read_bytes
from benchmarks.kernel_gate import WrongError, check_close, check_same


def _attention(batch: int, length: int, form: str, read: float) -> dict[str, object]:
    return {"batch": batch, "length": length, "cache": form, "% read": read}


def test_the_bars_of_attention_are_about_launches_that_fill_a_device() -> None:
    """From 150 MB of cache on, and one lone session; the worst row counts."""
    rows = [
        _attention(64, 100, "bf16", 5.0),  # 105 MB
        _attention(64, 188, "bf16", 81.0),
        _attention(64, 3000, "bf16", 79.0),
        _attention(1, 3000, "bf16", 61.0),
    ]
    assert bars(rows, []) == [
        {
            "what": "attention bf16, 150 MB or more, % read",
            "got": 79.0,
            "bar": 80.0,
            "is_met": False,
        },
        {
            "what": "attention bf16, one session of 3000, % read",
            "got": 61.0,
            "bar": 60.0,
            "is_met": True,
        },
    ]


def test_the_bars_of_small_kernels_are_about_time() -> None:
    """The slowest shape counts; the search only with eight levels of 2048."""
    rows = [
        {"kernel": "rvq", "shape": "1 x 256, 8 x 2048", "us": 50.0},
        {"kernel": "rvq", "shape": "1 x 256, 32 x 2048", "us": 500.0},
        {"kernel": "silu", "shape": "1 x 11264", "us": 2.0},
        {"kernel": "silu", "shape": "64 x 11264", "us": 4.5},
    ]
    got = {bar["what"]: (bar["got"], bar["is_met"]) for bar in bars([], rows)}
    assert got == {"rvq, 8 levels of 2048, us": (50.0, True), "silu, us": (4.5, False)}


def test_bytes_of_a_cache() -> None:
    """Keys and values of 32 heads of 128: 16 KiB a column in bf16, half and its scales in int8."""
    assert read_bytes(1, 3000, "bf16") == 3000 * 2**14
    assert read_bytes(2, 10, "int8") == 2 * 10 * (2**13 + 2 * 32 * 2)


def test_the_gate() -> None:
    """Results that rounding does not explain are refused, NaN among them."""
    expected = torch.tensor([1.0, -4.0])
    check_close("op", expected + 0.05, expected)
    for wrong in (expected + 0.07, expected * float("nan")):
        with pytest.raises(WrongError, match="op: off by"):
            check_close("op", wrong, expected)
    codes = torch.arange(10)
    check_same("op", codes, codes)
    check_same("op", codes.clamp(min=1), codes, share=0.1)
    with pytest.raises(WrongError, match=r"op: 20\.00% differ, expected at most 10\.00%"):
        check_same("op", codes.clamp(min=2), codes, share=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured, and the exit code shows it."""
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
