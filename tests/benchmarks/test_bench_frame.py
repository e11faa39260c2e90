"""The benchmark of whole frames: its arithmetic, its bars, and that it runs, on a tiny model."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_frame
from benchmarks.bench_frame import (
    BARS,
    FORMS,
    Case,
    bars,
    cases,
    divergence,
    floor_ms,
    frame_row,
    kv_bytes,
    main,
    most_sessions,
)
from benchmarks.gpu_timing import Ceilings
from benchmarks.random_lm import fill, random_lm, streamed
from benchmarks.reference_sizes import SEVEN_B, TINY
from model.codec.mimi import Mimi, MimiConfig

# Round numbers, of no device.
CEILINGS = Ceilings(read_gb_s=4000.0, copy_gb_s=4000.0, bf16_tflop_s=800.0, launch_us=1.0)


def test_what_a_step_reads() -> None:
    """Keys and values as published for Moshi: 1.573 GB of a full window; int8 about half."""
    full = kv_bytes(SEVEN_B.lm, Case("bf16", "full", 3000, 1))
    assert full == 3000 * 524_288
    assert kv_bytes(SEVEN_B.lm, Case("bf16", "full", 3000, 8)) == 8 * full
    eight_bits = kv_bytes(SEVEN_B.lm, Case("bf16", "int8", 3000, 1))
    assert full / 2 < eight_bits < 0.52 * full


def test_the_floor() -> None:
    """Few rows wait for weights, many for products; keys and values come on top."""
    weights = 8_000_000_000, 4_000_000_000
    assert floor_ms(weights, 0, 1, CEILINGS) == pytest.approx(2.0)
    assert floor_ms(weights, 4_000_000_000, 1, CEILINGS) == pytest.approx(3.0)
    assert floor_ms(weights, 0, 1000, CEILINGS) == pytest.approx(10.0)


def test_what_is_measured_includes_the_bars() -> None:
    """Every bar's case is among them, and a case that was left out has no bar."""
    measured = {case for form in FORMS for case in cases(form)}
    assert Case("int8", "full", 3000, 1) in measured
    assert {bar.case for bar in BARS} <= measured
    assert bars([]) == []


def test_bars() -> None:
    """What was measured is held against the limit of its case."""
    row = {"weights": "nf4", "kv": "full", "window": 3000, "batch": 1, "graph ms": 2.9}
    (bar,) = bars([row])
    assert bar["met"]
    assert not bars([{**row, "graph ms": 3.1}])[0]["met"]


def test_most_sessions() -> None:
    """The largest batch in time, if all smaller ones are as well."""

    def row(batch: int, p99_ms: float) -> dict[str, object]:
        return {
            "weights": "bf16", "kv": "full", "window": 188, "batch": batch, "frame p99 ms": p99_ms,
        }  # fmt: skip

    found = most_sessions([row(1, 9.0), row(8, 79.0), row(32, 81.0), row(64, 20.0)])
    assert [each["sessions"] for each in found] == [8]


def test_weights_are_a_names_own() -> None:
    """A form's weights are those of the others, quantised; what is read of them is counted."""
    dense, levels, packed = (random_lm(TINY.lm, form, "cpu") for form in FORMS)
    for name, weight in (*levels.named_parameters(), *packed.named_parameters()):
        assert torch.equal(weight, dense.get_parameter(name)), name
    x = torch.randn(2, TINY.lm["dim"]).bfloat16()
    expected = dense.get_submodule("layers.0.mlp")(x)
    for lm, error in ((levels, 0.02), (packed, 0.2)):
        assert (lm.get_submodule("layers.0.mlp")(x) - expected).norm() < error * expected.norm()
    again = torch.empty(3, 4)
    fill("norm1.weight", again)
    assert torch.equal(again, torch.ones(3, 4))
    (dense_bytes, numbers), (packed_bytes, same_numbers) = streamed(dense), streamed(packed)
    assert dense_bytes == 2 * numbers
    assert numbers <= same_numbers < 1.01 * numbers  # the last block of a weight is filled up
    level_bytes, numbers_again = streamed(levels)
    assert numbers_again == numbers
    assert packed_bytes < level_bytes < dense_bytes


def test_it_runs() -> None:
    """A frame of several sessions with full windows, with either form of weights and memory."""
    int8, nf4 = divergence(TINY.lm, "cpu")
    assert (int8["weights"], nf4["weights"]) == FORMS[1:]
    assert 0 <= nf4["as bf16, share"] <= 1
    assert 0 < int8["logits off by"] < nf4["logits off by"] < 0.2
    patch = pytest.MonkeyPatch()
    with patch.context() as shorter:
        shorter.setattr(bench_frame, "_FRAMES", 2)
        mimi = Mimi(MimiConfig.from_kyutai(TINY.mimi)).eval()
        lms = {form: random_lm(TINY.lm, form, "cpu") for form in ("int8", "nf4")}
        for case in (
            Case("nf4", "full", 12, 2),
            Case("nf4", "int8", 12, 2),
            Case("int8", "full", 12, 2),
        ):
            row = frame_row(lms[case.form], mimi, TINY.lm, case, CEILINGS)
            assert row["frame ms"] >= row["graph ms"] > 0
            assert row["over floor"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to measure")
def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    """It says so and fails."""
    assert main([]) == 1
    assert "no CUDA device" in capsys.readouterr().err
