"""What the gateway benchmark calls added time, and that it measures at all."""

import pytest

from benchmarks.gateway_load import SKIPPED_FRAMES, LoadError, added, measure_gateway
from benchmarks.report import ROOT

NUM_FRAMES = SKIPPED_FRAMES + 3
LEFT_S = [float(frame) for frame in range(NUM_FRAMES)]


def test_frames_are_paired_in_order_after_the_beginning() -> None:
    """The first two seconds do not count, and neither does what was still on its way."""
    arrived = [*(left + 0.5 for left in LEFT_S[:SKIPPED_FRAMES]), SKIPPED_FRAMES + 0.001]
    assert added({"a": LEFT_S}, {"a": arrived}, 1) == pytest.approx([1.0])


def test_every_session_counts_by_itself() -> None:
    """Frames of one are never paired with those of another."""
    left = {"a": LEFT_S, "b": [time_s + 100 for time_s in LEFT_S]}
    arrived = {name: [time_s + 0.002 for time_s in times] for name, times in left.items()}
    assert added(left, arrived, 2) == pytest.approx([2.0] * 6)


@pytest.mark.parametrize(
    ("arrived", "num_sessions"),
    [({"a": LEFT_S}, 2), ({"a": []}, 1), ({"b": LEFT_S}, 1), ({"a": [*LEFT_S, 99.0]}, 1)],
)
def test_nothing_is_reported_of_a_broken_run(
    arrived: dict[str, list[float]], num_sessions: int
) -> None:
    """A session that is missing, silent, unknown, or that got more than there was."""
    with pytest.raises(LoadError):
        added({"a": LEFT_S}, arrived, num_sessions)


@pytest.mark.slow
def test_measures_a_session_over_a_socket() -> None:
    """Server and client run as processes of their own, and every frame is accounted for."""
    row = measure_gateway(ROOT / "configs" / "scripted.yaml", 1, 3.0)
    assert row["sessions"] == 1
    assert row["n"] > 10
    assert 0.0 < row["added_p50_ms"] <= row["added_p99_ms"] <= row["added_max_ms"]
    assert row["lag_p50_ms"] <= row["lag_p99_ms"]
