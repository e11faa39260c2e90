"""What the latency benchmark calls a latency."""

import numpy as np
import pytest

from benchmarks import parts
from benchmarks.bench_latency import (
    ASSETS,
    Sample,
    _is_met,
    _latency_row,
    _speech_ms,
    _voice_to_voice_ms,
)
from benchmarks.report import ROOT
from server.client.client import RATE_HZ, Pcm, Turn
from server.config.load import load_settings


def _speech(*, silence_ms: int, speech_ms: int, tail_ms: int) -> Pcm:
    """Return a tone between silences that are quiet, not zero."""
    ms = RATE_HZ // 1000
    pcm = np.full((silence_ms + speech_ms + tail_ms) * ms, 1e-4, dtype=np.float32)
    pcm[silence_ms * ms : (silence_ms + speech_ms) * ms] = 0.3
    return pcm


def test_speech_is_found_by_its_loudness() -> None:
    """Quiet noise before and after does not count."""
    assert _speech_ms(_speech(silence_ms=250, speech_ms=400, tail_ms=90)) == (250, 650)


def test_voice_to_voice_is_the_silence_that_is_heard() -> None:
    """From the last sound of the question to the first one of the reply, on the user's clock."""
    question = _speech(silence_ms=0, speech_ms=1000, tail_ms=500)
    reply = _speech(silence_ms=40, speech_ms=300, tail_ms=0)
    turn = Turn("", "item_1", "", reply, first_audio_ms=70, speech_end_ms=1500, reply_at_ms=1570)
    assert _voice_to_voice_ms(question, turn) == pytest.approx(1570 + 40 - 1000)


@pytest.mark.parametrize(
    ("first_audio_ms", "is_met"),
    [([50.0] * 20, True), ([150.0] * 20, False), ([50.0] * 15 + [400.0] * 5, False)],
)
def test_the_bar_is_about_one_caller(first_audio_ms: list[float], *, is_met: bool) -> None:
    """Median and 95th percentile both have to hold, with one session; more are only reported."""
    one = _latency_row(1, [Sample(value, 700.0) for value in first_audio_ms])
    four = _latency_row(4, [Sample(900.0, 1500.0)])
    assert _is_met([one, four]) is is_met
    assert one["n"] == len(first_audio_ms)


def test_the_parts_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped settings run without a server, and every part takes its time."""
    monkeypatch.setattr(parts, "_NUM_TURNS", 1)
    settings = load_settings(ROOT / "configs" / "starter.yaml")
    row = parts.measure_parts(settings, ASSETS / "two_plus_two.wav")
    assert row["frames_heard"] > 10
    assert row["frames_spoken"] > 10
    assert all(value > 0 for value in row.values())
