"""Silero behind its stream: probabilities do not depend on cutting, and streams share nothing."""

import numpy as np
import pytest

from server.audio.resample import StreamResampler
from server.audio.silero import SileroModel, SileroStream
from tests.server.webrtc.caller import question


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


class Counting(SileroModel):
    """Count the windows that the model is given."""

    num_windows = 0

    def run(
        self, windows: np.ndarray, h: np.ndarray, c: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, and run it."""
        self.num_windows += len(windows)
        return super().run(windows, h, c)


@pytest.mark.parametrize("chunk", [320, 512, 1_600, 16_000])
@pytest.mark.parametrize("says_before", [False, True])
def test_a_muted_microphone_is_left_alone(chunk: int, *, says_before: bool) -> None:
    """After a second, until it is heard again; and then it is heard as it would have been."""
    model, spoken = Counting(), _question()
    before = spoken if says_before else spoken[:0]
    # What is left of silence by Opus: one step of 16 bits.
    silence = np.random.default_rng(0).choice([-1, 0, 1], 16_000 * 20).astype(np.float32) / 32_768
    pcm = np.concatenate((before, silence, spoken))
    stream = SileroStream(model)
    found = [p for at in range(0, len(pcm), chunk) for p in stream.feed(pcm[at : at + chunk])]
    assert len(found) == len(pcm) // 512
    given = (len(before) + 16_000 + len(spoken)) / 512
    assert model.num_windows == pytest.approx(given, abs=8)
    # The model itself, given every window of it.
    padded = np.concatenate((np.zeros(64, np.float32), pcm))
    rows = np.stack([padded[at : at + 576] for at in range(0, len(pcm) - 511, 512)])
    h = c = np.zeros((1, 1, 128), np.float32)
    expected, _, _ = model.run(rows, h, c)
    differs = (np.array(found) > 0.5) != (expected.reshape(-1) > 0.5)
    assert np.count_nonzero(differs) <= 2, "windows of 32 ms"


def _question() -> np.ndarray:
    spoken = question("what_is_my_name", pause_s=0.0).astype(np.float32)
    return StreamResampler(48_000, 16_000).feed(spoken)
