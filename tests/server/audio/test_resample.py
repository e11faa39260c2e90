"""Resampling must not depend on how a stream is cut, and must keep speech as it is."""

import numpy as np
import pytest

from server.audio.resample import StreamResampler

RATES = [(24_000, 16_000), (16_000, 24_000), (8_000, 16_000), (16_000, 8_000), (24_000, 24_000)]


def _tone(hz: float, rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    time_s = np.arange(int(rate_hz * seconds)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def _all_at_once(pcm: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    resampler = StreamResampler(from_hz, to_hz)
    return np.concatenate((resampler.feed(pcm), resampler.finish()))


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_streamed_equals_offline(from_hz: int, to_hz: int) -> None:
    """Any cutting of the input gives the same output."""
    rng = np.random.default_rng(1)
    pcm = rng.uniform(-1, 1, from_hz).astype(np.float32)
    cuts = np.sort(rng.integers(0, len(pcm), 40))
    resampler = StreamResampler(from_hz, to_hz)
    pieces = [resampler.feed(piece) for piece in np.split(pcm, cuts)]
    streamed = np.concatenate((*pieces, resampler.finish()))
    np.testing.assert_allclose(streamed, _all_at_once(pcm, from_hz, to_hz), atol=1e-5)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_length_follows_the_rates(from_hz: int, to_hz: int) -> None:
    """A second stays a second, whatever the rates."""
    assert len(_all_at_once(_tone(440, from_hz), from_hz, to_hz)) == to_hz


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_a_tone_keeps_its_place_and_size(from_hz: int, to_hz: int) -> None:
    """Output sample i belongs to time i / to_hz: the tone is neither shifted nor scaled."""
    output = _all_at_once(_tone(1_000, from_hz), from_hz, to_hz)
    edge = to_hz // 50
    np.testing.assert_allclose(output[edge:-edge], _tone(1_000, to_hz)[edge:-edge], atol=2e-3)


def test_what_the_lower_rate_cannot_carry_is_gone() -> None:
    """A tone above the new band does not come back as another tone."""
    output = _all_at_once(_tone(9_000, 24_000), 24_000, 16_000)
    assert np.abs(output[400:-400]).max() < 0.5 * 10 ** (-60 / 20)


def test_lateness_is_small_and_constant() -> None:
    """After any amount of input, all but about two milliseconds of it have come out."""
    resampler = StreamResampler(24_000, 16_000)
    assert resampler.lateness_samples / 24_000 < 0.003
    came_out = 0
    for fed in range(1, 100):
        came_out += len(resampler.feed(np.zeros(240, dtype=np.float32)))
        late = fed * 240 - came_out * 1.5
        assert late <= resampler.lateness_samples + 2


def test_a_finished_stream_starts_anew() -> None:
    """Nothing of the old stream is heard in the next one."""
    resampler = StreamResampler(24_000, 16_000)
    resampler.feed(_tone(440, 24_000))
    resampler.finish()
    silence = np.concatenate((resampler.feed(np.zeros(2_400, np.float32)), resampler.finish()))
    assert not silence.any()
