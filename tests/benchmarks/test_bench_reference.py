"""The comparison with Kyutai's package: nothing is reported that was not earned."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks.bench_reference import Bench, main, ratio_row
from benchmarks.reference import moshi
from benchmarks.reference_device import Rates, measure_device
from benchmarks.reference_lanes import COMPILED, EAGER, OURS, Times
from benchmarks.reference_sizes import TINY


def test_without_the_package_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And fails: no line is kept that compares with nothing."""
    monkeypatch.setitem(sys.modules, "moshi", None)  # what an absent package looks like
    assert main(["--tiny", "--no-save"]) == 2
    streams = capsys.readouterr()
    assert "make test-reference" in streams.err
    assert not streams.out


def test_theirs_counts_as_the_faster_way() -> None:
    """The ratio is of medians, and to the better of eager and compiled."""
    times = Times({EAGER: [9.0, 8.0, 50.0], COMPILED: [6.0], OURS: [2.0, 4.0, 4.0]})
    row = ratio_row("LM step", 4, times)
    assert (row["eager ms"], row["compiled ms"], row["ours ms"]) == (9.0, 6.0, 4.0)
    assert row["ratio"] == 1.5
    del times.frames[COMPILED]
    assert ratio_row("LM step", 4, times)["ratio"] == 2.25


def test_the_floor_is_the_weights_or_the_products_and_the_keys_and_values() -> None:
    """Whichever of the first two takes longer, then the third."""
    rates = Rates(bytes_per_s=1e12, flops_per_s=1e14)
    assert rates.floor_ms(read=2 * 10**9, multiplied=10**9, kv=0) == pytest.approx(2.0)
    assert rates.floor_ms(read=2 * 10**9, multiplied=10**12, kv=10**9) == pytest.approx(21.0)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("moshi_package")
class TestWithThePackage:
    """What needs both implementations; tiny models, and no figure is judged."""

    def test_it_measures_every_row_and_keeps_one_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Four rows a batch size, the memory of both, and JSON last."""
        code = main(["--tiny", "--no-save", "--no-compile", "--batches", "1", "2", "--frames", "2"])
        assert code in (0, 1)  # who was faster is not for a test
        kept = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert [row["batch"] for row in kept["rows"]] == [1, 1, 1, 1, 2, 2, 2, 2]
        assert all(row["ratio"] > 0 for row in kept["rows"])
        assert kept["memory"][0]["theirs MB"] > 0
        assert kept["memory"][0]["ours MB"] > 0

    def test_the_gate_notices_one_weight(self) -> None:
        """Equal models pass; models that differ in what comes out do not."""
        torch.manual_seed(1)
        bench = Bench(TINY, 1, compiles=False)
        assert bench.gate() == ""
        bench.our_lm.text_head.weight.data.neg_()
        assert "tokens" in bench.gate()

    def test_the_path_of_a_gpu(self) -> None:
        """The same code on a CPU: both of ours beside theirs, with floors, and the codec."""
        with moshi("utils.compile").no_compile():
            rows = measure_device("cpu", [1, 2], 2, is_tiny=True)
        named = [(row["what"], row["batch"]) for row in rows]
        steps = ("LM step, ours bf16", "LM step, ours NF4")
        codec = ("Mimi encode", "Mimi decode")
        assert named == [(w, b) for part in (steps, codec) for b in (1, 2) for w in part]
        floors = {row["what"]: row["floor ms"] for row in rows}
        assert floors["LM step, ours NF4"] < floors["LM step, ours bf16"]
