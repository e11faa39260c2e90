"""Silero behind its stream: probabilities do not depend on cutting, and streams share nothing."""

import numpy as np
import pytest

from server.audio.silero import SileroModel, SileroStream


@pytest.fixture(scope="module")
def model() -> SileroModel:
    """Load the model once."""
    return SileroModel()


def _voice(seconds: float) -> np.ndarray:
    """Make a buzz with formants that moves as a vowel does: enough for a voice detector."""
    rate_hz = 16_000
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch_hz = 120 + 15 * np.sin(2 * np.pi * 3 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    pcm = np.zeros_like(time_s)
    for harmonic in range(1, 30):
        hz = harmonic * 120
        gain = sum(np.exp(-(((hz - formant) / 120) ** 2)) for formant in (600, 1_100, 2_500))
        pcm += (gain + 0.02) * np.sin(harmonic * phase)
    envelope = np.clip(np.sin(2 * np.pi * 4 * time_s), 0.05, None)
    return (0.2 * envelope * pcm / np.abs(pcm).max()).astype(np.float32)


def test_streamed_equals_offline(model: SileroModel) -> None:
    """Any cutting gives the same probabilities, one per full window."""
    pcm = _voice(1.0)
    offline = SileroStream(model).feed(pcm)
    assert len(offline) == len(pcm) // 512
    stream = SileroStream(model)
    cuts = np.sort(np.random.default_rng(0).integers(0, len(pcm), 30))
    streamed = [p for piece in np.split(pcm, cuts) for p in stream.feed(piece)]
    np.testing.assert_allclose(streamed, offline, atol=1e-5)


def test_streams_do_not_leak_into_each_other(model: SileroModel) -> None:
    """A stream beside a talking one hears its own silence only."""
    silence = np.zeros(512, dtype=np.float32)
    alone = SileroStream(model)
    expected = [alone.feed(silence)[0] for _ in range(20)]
    talking, quiet = SileroStream(model), SileroStream(model)
    heard = []
    for window in np.split(_voice(0.64), 20):
        talking.feed(window)
        heard += quiet.feed(silence)
    assert heard == expected


def test_silence_is_not_speech_and_a_voice_is(model: SileroModel) -> None:
    """The probabilities mean what the rules take them for."""
    assert max(SileroStream(model).feed(np.zeros(16_000, np.float32))) < 0.2
    assert max(SileroStream(model).feed(_voice(2.0))) > 0.5


def test_windows_say_how_loud_they_are(model: SileroModel) -> None:
    """In decibels of their power; digital silence has a level too."""
    pcm = np.concatenate((np.zeros(512, np.float32), np.full(512, 0.1, np.float32)))
    quiet, loud = SileroStream(model).windows(pcm)
    assert [round(each.level_db or 0) for each in (quiet, loud)] == [-120, -20]
