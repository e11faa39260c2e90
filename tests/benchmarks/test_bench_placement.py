"""The cost of the engine's own process is measured on replies that really come."""

from benchmarks.bench_placement import PLACEMENTS, _row, measure_first_audio


async def test_both_placements_are_measured() -> None:
    """Every turn gives a time, on a thread and in a process."""
    times = await measure_first_audio(3)
    assert set(times) == set(PLACEMENTS)
    assert all(len(each) == 3 and min(each) > 0 for each in times.values())


def test_a_row_keeps_what_is_below_a_tenth_of_a_millisecond() -> None:
    """Times of the way there and back are shown finely enough to differ."""
    row = _row("thread", [2.0, 4.0], [0.123, 0.125])
    assert (row["ready_p50_s"], row["ready_min_s"]) == (3.0, 2.0)
    assert row["first_audio_p50_ms"] == 0.124
