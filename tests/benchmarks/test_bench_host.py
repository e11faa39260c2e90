"""The benchmark of the host's part of a frame: that it runs, and counts what it says it does."""

from __future__ import annotations

from benchmarks.bench_host import measure


def test_it_runs() -> None:
    """Every session is heard and answered in every frame, or it would have failed."""
    row = measure(3, 2)
    assert row["sessions"] == 3
    assert 0 < row["tick p50 ms"] <= row["tick p99 ms"]
    assert row["of a frame, %"] > 0
