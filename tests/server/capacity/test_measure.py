"""What is counted of a number of sessions."""

import math

from model.scripted.engine import ScriptedCore
from model.scripted.script import parse_script
from server.capacity.drive import SkippingClock
from server.capacity.measure import load_questions, measure, percentile
from tests.server.capacity.test_drive import SCRIPT


def make_core(clock: SkippingClock, script: str, *, num_slots: int = 2) -> ScriptedCore:
    """Return an engine that computes nothing."""
    return ScriptedCore(
        parse_script(script, "test"), max_sessions=num_slots, ahead_ms=500, clock=clock.now_s
    )


def test_an_engine_with_time_to_spare() -> None:
    """Replies are counted with their waits; nothing is missed, and the slots are given back."""
    clock = SkippingClock(lambda: 0.0)
    core = make_core(clock, SCRIPT)
    for _ in range(2):
        measured = measure(core, clock, 2, 20.0)
        assert (measured.sessions, measured.seconds, measured.failure) == (2, 20.0, "")
        assert measured.first_audio_p50_ms == measured.first_audio_p95_ms == 48.0
        assert measured.num_replies >= 6
        assert measured.num_missed == 0 < measured.num_frames


def test_a_session_too_many_is_a_failure() -> None:
    """An engine that has no slot for a caller says so, and so does the measurement."""
    clock = SkippingClock(lambda: 0.0)
    measured = measure(make_core(clock, SCRIPT, num_slots=1), clock, 2, 5.0)
    assert "taken" in measured.failure


def test_waiting_in_vain_counts() -> None:
    """A reply that never comes is a wait as long as it was waited for."""
    clock = SkippingClock(lambda: 0.0)
    mute = SCRIPT.replace("first_output_ms: 40", "first_output_ms: 60000")
    measured = measure(make_core(clock, mute), clock, 1, 10.0)
    assert measured.num_replies <= 1
    assert measured.first_audio_p95_ms > 5_000


def test_percentiles_of_nothing() -> None:
    """Nothing was measured, so nothing is good."""
    assert percentile([], 99) == math.inf
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_the_questions_are_speech_at_the_engines_rate() -> None:
    """They travel with the product, at any rate."""
    for rate_hz in (16_000, 24_000):
        questions = load_questions(rate_hz)
        assert len(questions) == 3
        assert all(1.0 < len(pcm) / rate_hz < 2.0 and abs(pcm).max() > 0.1 for pcm in questions)
