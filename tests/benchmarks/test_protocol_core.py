"""What the core benchmark times."""

import pytest

from benchmarks import protocol_core
from benchmarks.protocol_core import CoreBrokenError, measure_core

NUM_TURNS = 2


def test_every_kind_of_input_is_timed() -> None:
    """A row each, with as many as were sent, and one for all of them."""
    rows = {row["input"]: row for row in measure_core(NUM_TURNS)}
    counts = {kind: row["n"] for kind, row in rows.items()}
    total = counts.pop("all")
    assert counts == {
        "session.update": 1,
        "input_audio_buffer.append": 12 * NUM_TURNS,
        "input_audio_buffer.commit": NUM_TURNS,
        "InputTranscript": NUM_TURNS,
        "response.create": NUM_TURNS,
        "ResponseText": 7 * NUM_TURNS,
        "ResponseWord": 7 * NUM_TURNS,
        "ResponseAudio": 35 * NUM_TURNS,
        "ResponseDone": NUM_TURNS,
    }
    assert total == sum(counts.values())
    assert all(row["events_per_s"] > 0 and row["us_p50"] <= row["us_p99"] for row in rows.values())


def test_core_that_answers_wrongly_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A faster core that loses deltas must not look better."""
    monkeypatch.setattr(protocol_core, "_AUDIO_EVENT", "response.audio.delta")
    with pytest.raises(CoreBrokenError, match="0 audio deltas"):
        measure_core(1)
