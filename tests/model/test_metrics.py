"""Counters."""

from __future__ import annotations

from model.metrics import TICK_BUCKETS_MS, EngineMetrics


def test_every_tick_is_in_one_bucket() -> None:
    """A bound belongs to its own bucket, and the last bucket has none."""
    metrics = EngineMetrics()
    for ms in (0.5, 1.0, 1.1, 80.0, 5000.0):
        metrics.count_tick(ms / 1000, rows=2)
    assert len(metrics.tick_buckets) == len(TICK_BUCKETS_MS) + 1
    assert metrics.tick_buckets[:2] == [2, 1]
    assert metrics.tick_buckets[-1] == 1
    assert (metrics.ticks, metrics.steps) == (5, 10)


def test_batches_are_counted_by_size_and_phase() -> None:
    """Rows add up in both; a dictionary that someone reads is not changed under them."""
    metrics = EngineMetrics()
    metrics.count_tick(0.01, rows=3)
    assert metrics.batch_buckets[:4] == [0, 0, 1, 0]
    metrics.count_rows(["speaking", "listening", "speaking"])
    read = metrics.rows
    metrics.count_rows(["speaking"])
    assert read == {"speaking": 2, "listening": 1}
    assert metrics.rows == {"speaking": 3, "listening": 1}


def test_cleared_metrics_are_new_ones() -> None:
    """Clearing does not leave the old buckets behind."""
    metrics = EngineMetrics()
    metrics.count_tick(0.01, rows=1)
    metrics.clear()
    assert metrics == EngineMetrics()
